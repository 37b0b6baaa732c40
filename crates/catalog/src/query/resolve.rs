//! A query held against the attributes that its caller knows of: names become columns, values get their type, and
//! negations move to the single tests, of which each then is asked whether it is surely true or surely false. No I/O
//! (`docs/src/formats/query.md`).

use dicom_core::VR;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;

use super::tree::{self, Comparison, Condition, Literal, Name, Query};
use super::value;
use crate::database::Datum;
use crate::name::LogicalName;
use crate::wire::{AttributeDefinition, Part, Type};

/// The shortest beginning of a part of a person's name that is searched for, in characters.
pub const MIN_NAME_PART: usize = 3;
/// The longest pattern of LIKE, in bytes.
const MAX_PATTERN_BYTES: usize = 4096;

/// What every file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Its logical name.
    Name,
    /// Its `guid:`.
    Guid,
    /// The size of the sealed file.
    Size,
    /// Nearline or online.
    Status,
    /// The key id.
    Key,
    /// Of the sealed file.
    Sha256,
    /// Of the sealed file.
    Adler32,
    /// When it was made.
    Created,
    /// When it was changed last.
    Modified,
}

impl Field {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Name,
        Self::Guid,
        Self::Size,
        Self::Status,
        Self::Key,
        Self::Sha256,
        Self::Adler32,
        Self::Created,
        Self::Modified,
    ];

    /// Its name in queries and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Guid => "guid",
            Self::Size => "size",
            Self::Status => "status",
            Self::Key => "key_id",
            Self::Sha256 => "sha256",
            Self::Adler32 => "adler32",
            Self::Created => "created_at",
            Self::Modified => "modified_at",
        }
    }

    /// The field that has this name, in any case; some have a second, shorter one.
    pub fn named(name: &str) -> Option<Self> {
        let short = |field: Self| match field {
            Self::Name => "path",
            Self::Key => "key",
            Self::Created => "created",
            Self::Modified => "modified",
            other => other.name(),
        };
        Self::ALL
            .into_iter()
            .find(|field| field.name().eq_ignore_ascii_case(name) || short(*field).eq_ignore_ascii_case(name))
    }

    /// The column of the table of entries.
    pub fn column(self) -> &'static str {
        match self {
            Self::Name => "path",
            Self::Created => "created",
            Self::Modified => "modified",
            other => other.name(),
        }
    }

    /// Whether each file has a value there.
    fn is_always_there(self) -> bool {
        matches!(self, Self::Name | Self::Guid | Self::Created | Self::Modified)
    }

    fn is_text(self) -> bool {
        !matches!(self, Self::Size | Self::Created | Self::Modified)
    }

    fn what(self) -> &'static str {
        match self {
            Self::Name => "logical file names",
            Self::Guid => "UUIDs",
            Self::Size => "integers",
            Self::Status => "`nearline` or `online`",
            Self::Key | Self::Sha256 | Self::Adler32 => "texts",
            Self::Created | Self::Modified => "times (`2026-11-22T09:30:00Z`) and dates",
        }
    }

    fn convert(self, text: &str) -> Option<Datum> {
        match self {
            Self::Name => Some(Datum::Text(LogicalName::typed(text).ok()?.into())),
            Self::Guid => Some(Datum::Text(bare_guid(text))),
            Self::Size => value::convert(Type::Integer, text),
            Self::Status => {
                let folded = text.to_ascii_lowercase();
                matches!(folded.as_str(), "nearline" | "online").then_some(Datum::Text(folded))
            }
            Self::Key => Some(Datum::Text(text.to_owned())),
            Self::Sha256 | Self::Adler32 => Some(Datum::Text(text.to_ascii_lowercase())),
            Self::Created | Self::Modified => value::moment(text).map(Datum::Integer),
        }
    }
}

/// A `guid:` as the table of entries has it.
fn bare_guid(text: &str) -> String {
    let folded = text.to_ascii_lowercase();
    folded.strip_prefix("guid:").unwrap_or(&folded).to_owned()
}

/// Where the values of an attribute are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Of every file.
    Field(Field),
    /// Of the anonymous half.
    Anonymous {
        /// The attribute's number.
        number: i64,
        /// Its type.
        kind: Type,
        /// Whether an index has it.
        indexed: bool,
    },
    /// Of the identifying half: found by keyed hashes alone.
    Identifying {
        /// The attribute's number.
        number: i64,
        /// Its type.
        kind: Type,
        /// Whether it is a person's name, of which parts are found too.
        person: bool,
        /// Whether there are hashes at all.
        indexed: bool,
    },
}

/// An attribute that a query names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// As the schema spells it.
    pub name: String,
    /// Where it is.
    pub column: Column,
    /// Whether the query named it as DICOM does, by keyword or tag; then values may be matched as DICOM does, with `*`
    /// and `?` and with ranges.
    pub as_dicom: bool,
}

/// The attributes that the caller may know of. What is not found does not exist for the caller.
pub trait Attributes {
    /// The attribute of a name (in any case), a DICOM keyword or a tag (`(0010,0010)`).
    fn lookup(&self, name: &str) -> Option<Known>;
}

/// Those of a schema.
#[derive(Debug, Clone, Default)]
pub struct SchemaAttributes {
    /// Numbers and definitions.
    pub attributes: Vec<(i64, AttributeDefinition)>,
    /// Whether the caller may read the identifying half of the collection; else there is none.
    pub identifying: bool,
}

impl Attributes for SchemaAttributes {
    fn lookup(&self, name: &str) -> Option<Known> {
        if let Some(field) = Field::named(name) {
            return Some(Known {
                name: field.name().to_owned(),
                column: Column::Field(field),
                as_dicom: false,
            });
        }
        let seen = || {
            let is_seen = |definition: &AttributeDefinition| self.identifying || definition.half != Part::Identifying;
            self.attributes
                .iter()
                .filter(move |(_, definition)| is_seen(definition))
        };
        let known = |(number, definition): &(i64, AttributeDefinition), as_dicom| Known {
            name: definition.name.clone(),
            column: column(*number, definition),
            as_dicom,
        };
        if let Some(found) = seen().find(|(_, definition)| definition.name.eq_ignore_ascii_case(name)) {
            return Some(known(found, false));
        }
        let keyword = keyword(name);
        let is_meant = |definition: &AttributeDefinition| {
            let dicom = definition.dicom.as_deref();
            dicom.is_some_and(|dicom| dicom.eq_ignore_ascii_case(keyword))
        };
        seen()
            .find(|(_, definition)| is_meant(definition))
            .map(|found| known(found, true))
    }
}

/// The keyword of a tag; anything else is one already.
fn keyword(name: &str) -> &str {
    // Of another length or letter it is no tag, and the dictionary cuts texts at bytes.
    let is_tag = name.starts_with('(') && name.len() == "(0010,0010)".len() && name.is_ascii();
    if !is_tag {
        return name;
    }
    let entry = StandardDataDictionary.by_expr(name);
    entry.map_or(name, |entry| entry.alias)
}

fn column(number: i64, definition: &AttributeDefinition) -> Column {
    let AttributeDefinition { kind, indexed, .. } = *definition;
    if definition.half == Part::Identifying {
        Column::Identifying {
            number,
            kind,
            person: is_person(definition),
            indexed,
        }
    } else {
        Column::Anonymous { number, kind, indexed }
    }
}

/// Whether an attribute holds names of persons (DICOM's PN), of which parts are searched for too.
pub fn is_person(definition: &AttributeDefinition) -> bool {
    let entry = definition
        .dicom
        .as_deref()
        .and_then(|keyword| StandardDataDictionary.by_name(keyword));
    definition.kind == Type::String && entry.is_some_and(|entry| entry.vr().relaxed() == VR::PN)
}

/// Why a query cannot be answered. No error says more to who may not know of an attribute than that there is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No such attribute, or not for the caller.
    #[error("no attribute `{name}` here")]
    Unknown {
        /// As the query names it.
        name: String,
    },
    /// A value that the attribute never has.
    #[error("`{name}` holds {what}: `{value}` is none")]
    Value {
        /// The attribute.
        name: String,
        /// What it holds.
        what: &'static str,
        /// As it was written, shortened.
        value: String,
    },
    /// LIKE of something that is no text.
    #[error("`{name}` holds {what}: LIKE compares texts")]
    NoText {
        /// The attribute.
        name: String,
        /// What it holds.
        what: &'static str,
    },
    /// A pattern that ends with its escape character, or escapes an ordinary one.
    #[error("the pattern of `{name}` has its escape character before something other than `%`, `_` and itself")]
    Escape {
        /// The attribute.
        name: String,
    },
    /// A pattern over 4096 bytes.
    #[error("the pattern of `{name}` has over {MAX_PATTERN_BYTES} bytes")]
    LongPattern {
        /// The attribute.
        name: String,
    },
    /// The identifying half is found by hashes alone.
    #[error("`{name}` is sealed: it is found with =, <>, IN and IS NULL alone")]
    Sealed {
        /// The attribute.
        name: String,
    },
    /// A person's name is found by the beginning of a part of it.
    #[error(
        "`{name}` is sealed: LIKE finds the beginning of one of its parts, as in `'mill%'`, of {MIN_NAME_PART} letters or more"
    )]
    SealedName {
        /// The attribute.
        name: String,
    },
    /// An identifying attribute of which no hashes are kept.
    #[error("`{name}` is sealed and not indexed: it cannot be searched")]
    NotIndexed {
        /// The attribute.
        name: String,
    },
    /// Nothing is ordered by it.
    #[error("files cannot be ordered by `{name}`, which is {what}")]
    Order {
        /// The attribute.
        name: String,
        /// Why not.
        what: &'static str,
    },
}

/// A query that can be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// What must be true.
    pub condition: Option<Predicate>,
    /// In which order; none: by name. Nothing stands behind the name, of which there are no two.
    pub order: Vec<Ordering>,
    /// At most so many over all pages.
    pub limit: Option<u64>,
}

/// A condition without negations but at its tests: so that unknown and false are one, and each test can be asked by
/// itself whether it is surely what it should be.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// All.
    And(Vec<Predicate>),
    /// One.
    Or(Vec<Predicate>),
    /// Of one column.
    Test {
        /// Which.
        column: Column,
        /// For what.
        check: Check,
        /// Whether it must be true, or else false.
        holds: bool,
    },
}

/// What is looked for, in the type of the column.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    /// Never [`Comparison::NotEqual`].
    Compare(Comparison, Datum),
    /// One of them.
    In(Vec<Datum>),
    /// A pattern.
    Like(Pattern),
    /// Both included.
    Between(Datum, Datum),
    /// No value.
    IsNull,
    /// A part of a person's name begins so.
    NamePart(String),
}

/// One `ORDER BY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ordering {
    /// By which column: never of the identifying half.
    pub column: Column,
    /// The greatest first.
    pub descending: bool,
}

impl Ordering {
    /// Whether files may have no value there.
    pub fn is_optional(&self) -> bool {
        !matches!(self.column, Column::Field(field) if field.is_always_there())
    }
}

/// A pattern for whole texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(pub Vec<Piece>);

/// A piece of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// This character.
    One(char),
    /// Any character.
    Any,
    /// Any characters, none too. No two of them follow each other.
    Many,
}

impl Pattern {
    /// With `%` and `_`. None: the escape character stands before something that needs none.
    pub fn of_sql(text: &str, escape: Option<char>) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            if Some(character) == escape {
                let escaped = characters.next()?;
                if escaped != character && !matches!(escaped, '%' | '_') {
                    return None;
                }
                pieces.push(Piece::One(escaped));
                continue;
            }
            pieces.push(match character {
                '%' => Piece::Many,
                '_' => Piece::Any,
                other => Piece::One(other),
            });
        }
        Some(Self::short(pieces))
    }

    /// With `*` and `?`.
    pub fn of_dicom(text: &str) -> Self {
        let piece = |character| match character {
            '*' => Piece::Many,
            '?' => Piece::Any,
            other => Piece::One(other),
        };
        Self::short(text.chars().map(piece).collect())
    }

    fn short(mut pieces: Vec<Piece>) -> Self {
        pieces.dedup_by(|next, before| *next == Piece::Many && *before == Piece::Many);
        Self(pieces)
    }

    /// For LIKE with `\` as the escape character.
    pub fn to_sql(&self) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::One(character) => {
                    if matches!(character, '%' | '_' | '\\') {
                        text.push('\\');
                    }
                    text.push(*character);
                }
                Piece::Any => text.push('_'),
                Piece::Many => text.push('%'),
            }
        }
        text
    }

    /// What everything that matches begins with.
    pub fn prefix(&self) -> String {
        let letters = self.0.iter().map_while(|piece| match piece {
            Piece::One(character) => Some(*character),
            Piece::Any | Piece::Many => None,
        });
        letters.collect()
    }

    /// What matches, if it is the beginning of a text alone: letters and `%` at the end.
    fn as_beginning(&self) -> Option<String> {
        let (last, letters) = self.0.split_last()?;
        let prefix = self.prefix();
        (*last == Piece::Many && prefix.chars().count() == letters.len()).then_some(prefix)
    }
}

/// Holds a query against the attributes that the caller knows of.
///
/// # Errors
/// [`ResolveError`]
pub fn resolve(query: &Query, attributes: &dyn Attributes) -> Result<Resolved, ResolveError> {
    let resolver = Resolver { attributes };
    let condition = query.condition.as_ref();
    let condition = condition.map(|condition| resolver.condition(condition, true));
    Ok(Resolved {
        condition: condition.transpose()?,
        order: resolver.order(query)?,
        limit: query.limit,
    })
}

struct Resolver<'a> {
    attributes: &'a dyn Attributes,
}

impl Resolver<'_> {
    fn known(&self, name: &Name) -> Result<Known, ResolveError> {
        let unknown = || ResolveError::Unknown {
            name: shortened(&name.0),
        };
        self.attributes.lookup(&name.0).ok_or_else(unknown)
    }

    fn condition(&self, condition: &Condition, holds: bool) -> Result<Predicate, ResolveError> {
        let each = |conditions: &[Condition]| {
            let predicates = conditions.iter().map(|condition| self.condition(condition, holds));
            predicates.collect::<Result<Vec<_>, _>>()
        };
        Ok(match (condition, holds) {
            (Condition::And(conditions), true) | (Condition::Or(conditions), false) => {
                Predicate::And(each(conditions)?)
            }
            (Condition::Or(conditions), true) | (Condition::And(conditions), false) => Predicate::Or(each(conditions)?),
            (Condition::Not(condition), _) => self.condition(condition, !holds)?,
            (Condition::Test(test), _) => self.test(test, holds)?,
        })
    }

    fn test(&self, test: &tree::Test, holds: bool) -> Result<Predicate, ResolveError> {
        let known = self.known(&test.name)?;
        // Not equal is what equal is not, with all that equal may mean.
        let (check, holds) = match &test.check {
            tree::Check::Compare(Comparison::NotEqual, literal) => (equal(&known, literal)?, !holds),
            other => (check(&known, other)?, holds),
        };
        searchable(&known, &check)?;
        Ok(Predicate::Test {
            column: known.column,
            check,
            holds,
        })
    }

    fn order(&self, query: &Query) -> Result<Vec<Ordering>, ResolveError> {
        let mut orders: Vec<Ordering> = Vec::new();
        for order in &query.order {
            let known = self.known(&order.name)?;
            let refused = |what| ResolveError::Order {
                name: known.name.clone(),
                what,
            };
            match known.column {
                Column::Identifying { .. } => return Err(refused("sealed")),
                Column::Anonymous { kind: Type::List, .. } => return Err(refused("a list")),
                Column::Anonymous { .. } | Column::Field(_) => {}
            }
            let is_decided = orders
                .iter()
                .any(|before| before.column == known.column || matches!(before.column, Column::Field(Field::Name)));
            if !is_decided {
                orders.push(Ordering {
                    column: known.column,
                    descending: order.descending,
                });
            }
        }
        Ok(orders)
    }
}

fn check(known: &Known, check: &tree::Check) -> Result<Check, ResolveError> {
    let value = |literal: &Literal| converted(known, &literal.text);
    Ok(match check {
        tree::Check::Compare(Comparison::Equal, literal) => equal(known, literal)?,
        tree::Check::Compare(comparison, literal) => Check::Compare(*comparison, value(literal)?),
        tree::Check::In(literals) => Check::In(literals.iter().map(value).collect::<Result<_, _>>()?),
        tree::Check::Between(from, to) => Check::Between(value(from)?, value(to)?),
        tree::Check::IsNull => Check::IsNull,
        tree::Check::Like { pattern, escape } => {
            let escaped = || ResolveError::Escape {
                name: known.name.clone(),
            };
            like(known, Pattern::of_sql(pattern, *escape).ok_or_else(escaped)?)?
        }
    })
}

/// What `=` means: of an attribute that is named as DICOM does, also wild cards and ranges.
fn equal(known: &Known, literal: &Literal) -> Result<Check, ResolveError> {
    let text = literal.text.as_str();
    let exactly = || Ok(Check::Compare(Comparison::Equal, converted(known, text)?));
    if !known.as_dicom {
        return exactly();
    }
    match held(known.column) {
        Holds::Text if text.contains(['*', '?']) => like(known, Pattern::of_dicom(text)),
        Holds::Moment if converted(known, text).is_err() => {
            // A date of its own may have two hyphens, a range has one.
            let Some((from, to)) = text.split_once('-') else {
                return exactly();
            };
            Ok(match (from.trim(), to.trim()) {
                ("", "") => return exactly(),
                ("", to) => Check::Compare(Comparison::LessOrEqual, converted(known, to)?),
                (from, "") => Check::Compare(Comparison::GreaterOrEqual, converted(known, from)?),
                (from, to) => Check::Between(converted(known, from)?, converted(known, to)?),
            })
        }
        Holds::Text | Holds::Moment | Holds::Number => exactly(),
    }
}

fn like(known: &Known, pattern: Pattern) -> Result<Check, ResolveError> {
    if !matches!(held(known.column), Holds::Text) {
        return Err(ResolveError::NoText {
            name: known.name.clone(),
            what: what(known.column),
        });
    }
    if pattern.to_sql().len() > MAX_PATTERN_BYTES {
        return Err(ResolveError::LongPattern {
            name: known.name.clone(),
        });
    }
    let Column::Identifying { person, .. } = known.column else {
        return Ok(Check::Like(pattern));
    };
    if !person {
        return Err(ResolveError::Sealed {
            name: known.name.clone(),
        });
    }
    let beginning = pattern.as_beginning();
    let is_part = |part: &String| part.chars().count() >= MIN_NAME_PART && part.chars().all(char::is_alphanumeric);
    beginning
        .filter(is_part)
        .map(Check::NamePart)
        .ok_or_else(|| ResolveError::SealedName {
            name: known.name.clone(),
        })
}

/// Whether the column can be asked that.
fn searchable(known: &Known, check: &Check) -> Result<(), ResolveError> {
    let Column::Identifying { indexed, .. } = known.column else {
        return Ok(());
    };
    let name = known.name.clone();
    match check {
        _ if !indexed => Err(ResolveError::NotIndexed { name }),
        Check::Compare(Comparison::Equal, _) | Check::In(_) | Check::IsNull | Check::NamePart(_) => Ok(()),
        Check::Compare(..) | Check::Like(_) | Check::Between(..) => Err(ResolveError::Sealed { name }),
    }
}

enum Holds {
    Text,
    Moment,
    Number,
}

fn held(column: Column) -> Holds {
    match column {
        Column::Field(field) if field.is_text() => Holds::Text,
        Column::Field(_) => Holds::Number,
        Column::Anonymous { kind, .. } | Column::Identifying { kind, .. } => match kind {
            Type::String | Type::Code | Type::List => Holds::Text,
            Type::Date | Type::Time => Holds::Moment,
            Type::Integer | Type::Float => Holds::Number,
        },
    }
}

fn what(column: Column) -> &'static str {
    match column {
        Column::Field(field) => field.what(),
        Column::Anonymous { kind, .. } | Column::Identifying { kind, .. } => match kind {
            Type::String | Type::Code | Type::List => "texts",
            Type::Integer => "integers",
            Type::Float => "numbers",
            Type::Date => "dates (`2026-11-22`)",
            Type::Time => "times (`09:30:00`)",
        },
    }
}

fn converted(known: &Known, text: &str) -> Result<Datum, ResolveError> {
    let converted = match known.column {
        Column::Field(field) => field.convert(text),
        Column::Anonymous { kind, .. } | Column::Identifying { kind, .. } => value::convert(kind, text),
    };
    converted.ok_or_else(|| ResolveError::Value {
        name: known.name.clone(),
        what: what(known.column),
        value: shortened(text),
    })
}

fn shortened(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut characters = text.chars();
    let mut shown: String = characters.by_ref().take(SHOWN).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}
