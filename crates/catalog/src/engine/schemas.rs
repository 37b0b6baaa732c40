//! Schemas of collections, and the values that stand in their tables. Names of tables and columns are made of numbers
//! ([`crate::database::schema`]); what a user calls an attribute is only ever bound.

use std::collections::BTreeSet;
use std::rc::Rc;

use hydra_core::permissions::Permission;

use super::refusal::{conflict, invalid, not_found};
use super::rows::{self, Stored};
use super::{Refusal, Work, needs, values};
use crate::LogicalName;
use crate::columns::Identifying;
use crate::database::schema::{column_type, value_column, values_table};
use crate::database::{DatabaseError, Datum, Row, Sql, insert, row, rows as rows_of};
use crate::query;
use crate::wire::{AttributeDefinition, Attributes, Kind, Part, Schema, SchemaChange, Type, Value};

/// The most attributes of one schema.
const MAX_ATTRIBUTES: usize = 400;
/// Bytes of identifying halves that are worked on at a time.
const MOST_SEALED_BYTES: usize = 8 << 20;

/// An attribute as the database knows it.
#[derive(Debug, Clone)]
pub struct KnownAttribute {
    /// Its number; the name of its column comes of it.
    pub id: i64,
    /// What it is.
    pub definition: AttributeDefinition,
}

/// A schema as the database knows it.
#[derive(Debug, Clone)]
pub struct KnownSchema {
    /// Its number; the name of its table comes of it.
    pub id: i64,
    /// The directory that has it.
    pub directory: i64,
    /// In the order they were added.
    pub attributes: Vec<KnownAttribute>,
}

impl KnownSchema {
    /// The attribute of that name, whatever its case.
    pub fn attribute(&self, name: &str) -> Option<&KnownAttribute> {
        self.place(name).map(|(_, known)| known)
    }

    /// Likewise, with its place.
    pub(super) fn place(&self, name: &str) -> Option<(usize, &KnownAttribute)> {
        let mut attributes = self.attributes.iter().enumerate();
        attributes.find(|(_, known)| known.definition.name.eq_ignore_ascii_case(name))
    }

    fn anonymous(&self) -> impl Iterator<Item = &KnownAttribute> {
        let attributes = self.attributes.iter();
        attributes.filter(|known| known.definition.half == Part::Anonymous)
    }
}

fn kind_text(kind: Type) -> &'static str {
    match kind {
        Type::String => "string",
        Type::Integer => "integer",
        Type::Float => "float",
        Type::Date => "date",
        Type::Time => "time",
        Type::Code => "code",
        Type::List => "list",
    }
}

fn kind_of(text: &str) -> Option<Type> {
    let mut all = [
        Type::String,
        Type::Integer,
        Type::Float,
        Type::Date,
        Type::Time,
        Type::Code,
        Type::List,
    ]
    .into_iter();
    all.find(|kind| kind_text(*kind) == text)
}

fn read_attribute(mut row: Row) -> Result<KnownAttribute, DatabaseError> {
    let kind = kind_of(&row.text(2)?).ok_or(DatabaseError::Content { table: "attributes" })?;
    let half = if row.integer(3)? == 0 {
        Part::Anonymous
    } else {
        Part::Identifying
    };
    Ok(KnownAttribute {
        id: row.integer(0)?,
        definition: AttributeDefinition {
            name: row.text(1)?,
            kind,
            half,
            indexed: row.integer(4)? != 0,
            dicom: row.optional_text(5)?,
        },
    })
}

/// A schema by its number.
pub(super) fn load(sql: &dyn Sql, id: i64) -> Result<KnownSchema, DatabaseError> {
    let directory = row(sql, "SELECT directory FROM schemas WHERE id = ?1", &[id.into()])?;
    let directory = directory
        .ok_or(DatabaseError::Content { table: "schemas" })?
        .integer(0)?;
    let text = "SELECT id, name, kind, identifying, indexed, dicom FROM attributes WHERE schema = ?1 ORDER BY id";
    let attributes = rows_of(sql, text, &[id.into()])?;
    Ok(KnownSchema {
        id,
        directory,
        attributes: attributes.into_iter().map(read_attribute).collect::<Result<_, _>>()?,
    })
}

impl Work<'_> {
    /// The schema that holds for an entry.
    pub(super) fn schema_of(&self, entry: &Stored) -> Result<Option<Rc<KnownSchema>>, DatabaseError> {
        let Some(id) = entry.schema else {
            return Ok(None);
        };
        if let Some(known) = self.seen.borrow().schemas.get(&id) {
            return Ok(Some(Rc::clone(known)));
        }
        let loaded = Rc::new(load(self.sql, id)?);
        self.seen.borrow_mut().schemas.insert(id, Rc::clone(&loaded));
        Ok(Some(loaded))
    }

    /// Whether a directory has a schema of its own.
    pub(super) fn owns_schema(&self, entry: &Stored) -> Result<bool, DatabaseError> {
        let schema = self.schema_of(entry)?;
        Ok(schema.is_some_and(|schema| schema.directory == entry.id))
    }

    /// The anonymous values of an entry.
    pub(super) fn anonymous_values(&self, schema: &KnownSchema, entry: i64) -> Result<Attributes, DatabaseError> {
        let columns: Vec<String> = schema.anonymous().map(|known| value_column(known.id)).collect();
        if columns.is_empty() {
            return Ok(Attributes::new());
        }
        let (columns, table) = (columns.join(", "), values_table(schema.id));
        let select = format!("SELECT {columns} FROM {table} WHERE entry = ?1");
        let Some(mut row) = row(self.sql, &select, &[entry.into()])? else {
            return Ok(Attributes::new());
        };
        let mut found = Attributes::new();
        for (place, known) in schema.anonymous().enumerate() {
            let value = values::value(known.definition.kind, row.take(place))?;
            if value != Value::Null {
                found.insert(known.definition.name.clone(), value);
            }
        }
        Ok(found)
    }

    pub(super) fn update_values(
        &self,
        schema: &KnownSchema,
        entry: i64,
        given: &[(usize, Value)],
    ) -> Result<(), DatabaseError> {
        let mut assignments = Vec::new();
        let mut data: Vec<Datum> = vec![entry.into()];
        for (known, value) in located(schema, given) {
            data.push(values::datum(value));
            assignments.push(format!("{} = ?{}", value_column(known.id), data.len()));
            self.write_list(known, entry, value)?;
        }
        if assignments.is_empty() {
            return Ok(());
        }
        let (table, assignments) = (values_table(schema.id), assignments.join(", "));
        self.sql
            .execute(&format!("UPDATE {table} SET {assignments} WHERE entry = ?1"), &data)?;
        Ok(())
    }

    fn write_list(&self, known: &KnownAttribute, entry: i64, value: &Value) -> Result<(), DatabaseError> {
        if known.definition.kind != Type::List {
            return Ok(());
        }
        let data = [known.id.into(), entry.into()];
        self.sql
            .execute("DELETE FROM lists WHERE attribute = ?1 AND entry = ?2", &data)?;
        let items = values::items(known, entry, value);
        insert(self.sql, values::INSERT_ITEMS, items, " ON CONFLICT DO NOTHING")
    }

    /// Writes the tokens by which an entry's identifying values are found, in place of those that were there.
    pub(super) fn write_tokens(
        &self,
        schema: &KnownSchema,
        entry: i64,
        half: &Identifying,
    ) -> Result<(), DatabaseError> {
        self.sql
            .execute("DELETE FROM tokens WHERE entry = ?1", &[entry.into()])?;
        let tokens = self.tokens(schema, half).into_iter();
        let rows = tokens.map(|(attribute, token)| vec![attribute.into(), token.into(), entry.into()]);
        let head = "INSERT INTO tokens(attribute, token, entry)";
        insert(self.sql, head, rows.collect(), "")
    }

    /// The tokens of an identifying half, each with its attribute.
    pub(super) fn tokens(&self, schema: &KnownSchema, half: &Identifying) -> Vec<(i64, Vec<u8>)> {
        let mut tokens = Vec::new();
        for (name, value) in &half.attributes {
            if let Some(known) = schema.attribute(name).filter(|known| known.definition.indexed) {
                let of_value = self.engine.keys.tokens_of(&known.definition, value);
                tokens.extend(of_value.into_iter().map(|token| (known.id, token)));
            }
        }
        tokens
    }

    pub(super) fn schema_at(&self, path: &LogicalName) -> Result<Schema, Refusal> {
        let (entry, rights) = self.visible(path.as_str())?;
        let schema = self.schema_of(&entry)?;
        let (path, attributes) = match schema.as_deref() {
            None => (entry.path, Vec::new()),
            Some(schema) => {
                let directory = rows::by_id(self.sql, schema.directory)?;
                let seen = schema
                    .attributes
                    .iter()
                    .filter(|known| known.definition.half == Part::Anonymous || rights.knows_identifying());
                (directory.path, seen.map(|known| known.definition.clone()).collect())
            }
        };
        Ok(Schema { path, attributes })
    }

    pub(super) fn change_schema(&self, change: &SchemaChange) -> Result<Schema, Refusal> {
        let (entry, rights) = self.visible(change.path.as_str())?;
        if entry.kind == Kind::File {
            return Err(invalid("a schema belongs to a directory"));
        }
        // Names of both halves share one space: whoever did not know one half would learn of it by what is refused.
        let of_both = "changing a schema needs `w` on the directory's name and `s` on both halves";
        needs(rights.name, Permission::Write, of_both)?;
        needs(rights.anonymous, Permission::WriteShares, of_both)?;
        needs(rights.identifying, Permission::WriteShares, of_both)?;
        let schema = if self.owns_schema(&entry)? {
            entry.schema.ok_or(DatabaseError::Content { table: "schemas" })?
        } else {
            self.branch(&entry)?
        };
        let names = change.add.iter().map(|one| &one.name).chain(&change.remove);
        let named: BTreeSet<String> = names.map(|name| name.to_lowercase()).collect();
        let items = change.add.len() + change.remove.len();
        if named.len() < items || items > MAX_ATTRIBUTES {
            return Err(invalid(format!(
                "a change of a schema names each attribute once, and at most {MAX_ATTRIBUTES} of them"
            )));
        }
        for name in &change.remove {
            self.remove_attribute(&load(self.sql, schema)?, name)?;
        }
        let mut changes_tokens = false;
        for definition in &change.add {
            changes_tokens |= self.add_attribute(&load(self.sql, schema)?, definition)?;
        }
        if changes_tokens {
            self.rewrite_tokens(schema)?;
        }
        self.forget();
        self.schema_at(&entry.path)
    }

    /// Gives a directory a schema of its own, with the attributes and values of the one above.
    fn branch(&self, directory: &Stored) -> Result<i64, Refusal> {
        let made = row(
            self.sql,
            "INSERT INTO schemas(directory) VALUES (?1) RETURNING id",
            &[directory.id.into()],
        )?;
        let schema = made.ok_or(DatabaseError::Content { table: "schemas" })?.integer(0)?;
        let table = values_table(schema);
        let key = self.sql.dialect().key_column();
        let definition = format!("CREATE TABLE {table}(entry {key} REFERENCES entries(id))");
        self.sql.define(&definition)?;
        let (from, to) = rows::below(&directory.path);
        // What lies below and is under the schema above, not under one of its own.
        let old = directory.schema;
        let mut data: Vec<Datum> = vec![directory.id.into(), from.into(), to.into()];
        let same = match old {
            None => "schema IS NULL",
            Some(old) => {
                data.push(old.into());
                "schema = ?4"
            }
        };
        let concerned = format!("(id = ?1 OR (path >= ?2 AND path < ?3)) AND {same}");
        let numbers = rows_of(self.sql, &format!("SELECT id FROM entries WHERE {concerned}"), &data)?;
        let numbers = numbers
            .into_iter()
            .map(|row| row.integer(0))
            .collect::<Result<Vec<_>, _>>()?;
        let concerned = Datum::Integers(numbers);
        let dialect = self.sql.dialect();
        let set = format!("UPDATE entries SET schema = ?2 WHERE {}", dialect.is_one_of("id", 1));
        self.sql.execute(&set, &[concerned.clone(), schema.into()])?;
        let fill = format!("INSERT INTO {table}(entry) SELECT id FROM entries WHERE schema = ?1");
        self.sql.execute(&fill, &[schema.into()])?;
        let Some(old) = old else {
            return Ok(schema);
        };
        let of_entry = dialect.is_one_of("entry", 1);
        for known in load(self.sql, old)?.attributes {
            let number = self.insert_attribute(schema, &known.definition)?;
            if known.definition.half == Part::Anonymous {
                self.add_column(schema, number, &known.definition)?;
                let copy = format!(
                    "UPDATE {table} SET {} = (SELECT o.{} FROM {} o WHERE o.entry = {table}.entry)",
                    value_column(number),
                    value_column(known.id),
                    values_table(old),
                );
                self.sql.execute(&copy, &[])?;
            }
            for kind in ["lists", "tokens"] {
                let set = format!("UPDATE {kind} SET attribute = ?2 WHERE {of_entry} AND attribute = ?3");
                self.sql
                    .execute(&set, &[concerned.clone(), number.into(), known.id.into()])?;
            }
        }
        let delete = format!("DELETE FROM {} WHERE {of_entry}", values_table(old));
        self.sql.execute(&delete, &[concerned])?;
        Ok(schema)
    }

    fn insert_attribute(&self, schema: i64, definition: &AttributeDefinition) -> Result<i64, DatabaseError> {
        let identifying = i64::from(definition.half == Part::Identifying);
        let data = [
            schema.into(),
            definition.name.as_str().into(),
            definition.name.to_lowercase().into(),
            kind_text(definition.kind).into(),
            identifying.into(),
            i64::from(definition.indexed).into(),
            definition.dicom.clone().into(),
        ];
        let text = "INSERT INTO attributes(schema, name, folded, kind, identifying, indexed, dicom) \
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING id";
        let made = row(self.sql, text, &data)?;
        made.ok_or(DatabaseError::Content { table: "attributes" })?.integer(0)
    }

    fn add_column(&self, schema: i64, number: i64, definition: &AttributeDefinition) -> Result<(), DatabaseError> {
        let (table, column) = (values_table(schema), value_column(number));
        let kind = column_type(definition.kind, self.sql.dialect());
        self.sql
            .define(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"))?;
        self.index(schema, number, definition)
    }

    /// Makes or drops the index of an anonymous attribute. Lists are searched by their items' table.
    fn index(&self, schema: i64, number: i64, definition: &AttributeDefinition) -> Result<(), DatabaseError> {
        let (table, column) = (values_table(schema), value_column(number));
        if definition.indexed && definition.kind != Type::List {
            let text = format!("CREATE INDEX IF NOT EXISTS {table}_{column} ON {table}({column}, entry)");
            self.sql.define(&text)
        } else {
            self.sql.define(&format!("DROP INDEX IF EXISTS {table}_{column}"))
        }
    }

    /// Adds or changes an attribute; whether the tokens of all entries are others then.
    fn add_attribute(&self, schema: &KnownSchema, definition: &AttributeDefinition) -> Result<bool, Refusal> {
        check_definition(definition)?;
        let Some(known) = schema.attribute(&definition.name) else {
            if schema.attributes.len() >= MAX_ATTRIBUTES {
                return Err(invalid(format!("a schema has at most {MAX_ATTRIBUTES} attributes")));
            }
            let number = self.insert_attribute(schema.id, definition)?;
            if definition.half == Part::Anonymous {
                self.add_column(schema.id, number, definition)?;
            }
            return Ok(false);
        };
        if (known.definition.kind, known.definition.half) != (definition.kind, definition.half) {
            let name = &known.definition.name;
            return Err(conflict(format!(
                "`{name}` is there already, with another type or half"
            )));
        }
        let changed = AttributeDefinition {
            name: known.definition.name.clone(),
            ..definition.clone()
        };
        if changed == known.definition {
            return Ok(false);
        }
        let data = [
            known.id.into(),
            i64::from(changed.indexed).into(),
            changed.dicom.clone().into(),
        ];
        self.sql
            .execute("UPDATE attributes SET indexed = ?2, dicom = ?3 WHERE id = ?1", &data)?;
        if changed.half == Part::Identifying {
            return Ok(true);
        }
        if changed.indexed && !known.definition.indexed {
            self.check_lengths(schema.id, known)?;
        }
        self.index(schema.id, known.id, &changed)?;
        Ok(false)
    }

    /// A long text does not go into an index.
    fn check_lengths(&self, schema: i64, known: &KnownAttribute) -> Result<(), Refusal> {
        if !matches!(known.definition.kind, Type::String | Type::Code) {
            return Ok(());
        }
        let (table, column) = (values_table(schema), value_column(known.id));
        // In characters, of which the longest has four bytes.
        let text = format!("SELECT entry FROM {table} WHERE length({column}) > ?1 LIMIT 1");
        let limit = i64::try_from(values::MAX_INDEXED_BYTES / 4).unwrap_or(i64::MAX);
        if row(self.sql, &text, &[limit.into()])?.is_some() {
            let name = &known.definition.name;
            return Err(conflict(format!("`{name}` has values that are too long for an index")));
        }
        Ok(())
    }

    fn remove_attribute(&self, schema: &KnownSchema, name: &str) -> Result<(), Refusal> {
        let Some(known) = schema.attribute(name) else {
            return Err(invalid("no such attribute to remove"));
        };
        if known.definition.half == Part::Anonymous {
            let (table, column) = (values_table(schema.id), value_column(known.id));
            self.sql.define(&format!("DROP INDEX IF EXISTS {table}_{column}"))?;
            self.sql.define(&format!("ALTER TABLE {table} DROP COLUMN {column}"))?;
            self.sql
                .execute("DELETE FROM lists WHERE attribute = ?1", &[known.id.into()])?;
        } else {
            self.sql
                .execute("DELETE FROM tokens WHERE attribute = ?1", &[known.id.into()])?;
            self.unseal(schema.id, &known.definition.name.to_lowercase())?;
        }
        self.sql
            .execute("DELETE FROM attributes WHERE id = ?1", &[known.id.into()])?;
        Ok(())
    }

    /// Takes an attribute out of all that is sealed under a schema.
    fn unseal(&self, schema: i64, folded: &str) -> Result<(), Refusal> {
        self.each_sealed(schema, |entry| {
            let mut half = self.identifying(entry)?;
            if half.attributes.remove(folded).is_none() {
                return Ok(());
            }
            let sealed = self.seal(&entry.guid, &half)?;
            let data = [entry.id.into(), sealed.into()];
            self.sql
                .execute("UPDATE entries SET identifying = ?2 WHERE id = ?1", &data)?;
            Ok(())
        })
    }

    fn rewrite_tokens(&self, schema: i64) -> Result<(), Refusal> {
        let known = load(self.sql, schema)?;
        self.each_sealed(schema, |entry| {
            let half = self.identifying(entry)?;
            Ok(self.write_tokens(&known, entry.id, &half)?)
        })
    }

    /// Shows each entry under a schema that has an identifying half, some at a time.
    fn each_sealed(&self, schema: i64, each: impl Fn(&Stored) -> Result<(), Refusal>) -> Result<(), Refusal> {
        // `+`: SQLite goes along the numbers, and not along the index of schemas with a sort each time.
        let condition = "WHERE +schema = ?1 AND identifying IS NOT NULL AND id > ?2 ORDER BY id LIMIT 1000";
        let mut last = 0;
        loop {
            let data = [schema.into(), last.into()];
            let (some, _) = rows::select_some(self.sql, condition, &data, 1000, MOST_SEALED_BYTES)?;
            let Some(end) = some.last() else { return Ok(()) };
            last = end.id;
            some.iter().try_for_each(&each)?;
        }
    }

    /// Drops a schema that no entry is under any more.
    pub(super) fn drop_schema(&self, schema: i64) -> Result<(), DatabaseError> {
        self.sql.define(&format!("DROP TABLE {}", values_table(schema)))?;
        self.sql
            .execute("DELETE FROM attributes WHERE schema = ?1", &[schema.into()])?;
        self.sql
            .execute("DELETE FROM schemas WHERE id = ?1", &[schema.into()])?;
        Ok(())
    }

    /// The schema that a search below a directory goes by, and whether its identifying attributes exist for the caller.
    pub(super) fn searched(&self, from: &LogicalName) -> Result<(Option<Rc<KnownSchema>>, bool), Refusal> {
        if from.is_root() {
            return Ok((None, false));
        }
        let (entry, rights) = self.visible(from.as_str())?;
        if entry.kind == Kind::File {
            return Err(not_found());
        }
        Ok((self.schema_of(&entry)?, rights.reads_identifying()))
    }
}

fn located<'a>(
    schema: &'a KnownSchema,
    given: &'a [(usize, Value)],
) -> impl Iterator<Item = (&'a KnownAttribute, &'a Value)> {
    let located = given
        .iter()
        .map(|(place, value)| (schema.attributes.get(*place), value));
    located.filter_map(|(known, value)| Some((known?, value)))
}

fn check_definition(definition: &AttributeDefinition) -> Result<(), Refusal> {
    let name = &definition.name;
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    if !begins || name.len() > 64 || !name.bytes().all(is_letter) {
        return Err(invalid(
            "an attribute's name begins with a letter and has up to 64 letters, digits and `_`",
        ));
    }
    if query::is_reserved(name) {
        return Err(invalid(format!(
            "`{name}` is a word of the query language or a field of every entry"
        )));
    }
    if definition.half == Part::Name {
        return Err(invalid("an attribute belongs to the anonymous or the identifying half"));
    }
    let is_keyword =
        |text: &str| !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if definition.dicom.as_deref().is_some_and(|text| !is_keyword(text)) {
        return Err(invalid("`dicom` is a DICOM keyword, as `PatientSex`"));
    }
    Ok(())
}
