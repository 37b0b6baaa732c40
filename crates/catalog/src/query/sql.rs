//! Searches as SQL: every value of the user is bound, every name in a statement is made of numbers or stands here
//! (`docs/src/formats/query.md`). Runs them page by page.
//!
//! A page is a handful of statements run one after the other until it is full: files that share the first value which
//! the page before ended with, then those behind, then those that have none. So each of them is a single walk along an
//! index, in either database, wherever in a million files the page begins.
//!
//! SQLite keeps the plan of a statement whatever is bound, so it is told which way to go: [`choose`] looks how many
//! files the most selective comparison leaves, at most [`FEW`]; if they are few these are taken and sorted, else the
//! files are walked in their order until the page is full. PostgreSQL knows its values' statistics and is left to it.

use std::ops::ControlFlow;

use super::cursor::Position;
use super::resolve::{Check, Column, Field, Ordering, Predicate, Resolved};
use super::tree::Comparison;
use super::value;
use crate::database::schema::{value_column, values_table};
use crate::database::{DatabaseError, Datum, Dialect, Row, Sql, row};
use crate::name::LogicalName;
use crate::wire::Type;

/// How many files are few enough to be sorted.
pub const FEW: i64 = 2000;

/// Makes the keyed hashes by which values of the identifying half are found.
pub trait Tokens {
    /// Of a whole value: every value has this one.
    fn whole(&self, attribute: i64, value: &str) -> Vec<u8>;

    /// Of the beginning of a part of a person's name, as it was typed.
    fn name_part(&self, attribute: i64, part: &str) -> Vec<u8>;
}

/// What a search may see. All numbers are of permission records, but those of the operations.
pub struct Scope<'a> {
    /// Below this directory.
    pub from: &'a LogicalName,
    /// The schema that holds there: files that lie below but have another one are not found. Each file of a schema has
    /// a row in its table of values.
    pub schema: Option<i64>,
    /// That let the caller see the name.
    pub names: &'a [i64],
    /// That let the caller read the anonymous half.
    pub anonymous: &'a [i64],
    /// That let the caller read the identifying half.
    pub identifying: &'a [i64],
    /// The caller's own operations that are still open.
    pub operations: &'a [i64],
    /// Of the identifying half.
    pub tokens: &'a dyn Tokens,
}

/// A statement and what is bound to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// With `?1`, `?2` …
    pub text: String,
    /// In that order.
    pub data: Vec<Datum>,
}

/// The way to the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Left to the database.
    Free,
    /// Along the order that the files are answered in.
    Order,
    /// First those that this comparison leaves: an index among the query's outermost conditions.
    First(usize),
    /// Along the index of this comparison, in whatever order: for counting.
    Along(usize),
}

/// The values that a search answers of each file, as SQL: `e` is the table of entries, `v` that of the anonymous
/// values.
pub fn expression(column: Column) -> Option<String> {
    match column {
        Column::Field(field) => Some(format!("e.{}", field.column())),
        Column::Anonymous { number, .. } => Some(format!("v.{}", value_column(number))),
        Column::Identifying { .. } => None,
    }
}

/// Counts the files.
///
/// # Errors
/// [`DatabaseError`]
pub fn count(sql: &dyn Sql, resolved: &Resolved, scope: &Scope<'_>) -> Result<u64, DatabaseError> {
    let route = match choose(sql, resolved, scope)? {
        Route::Order => counting_route(resolved),
        route => route,
    };
    let statement = counting(sql.dialect(), resolved, scope, route);
    let found = row(sql, &statement.text, &statement.data)?;
    let counted = found.map(|row| row.integer(0)).transpose()?.unwrap_or(0);
    let counted = u64::try_from(counted).unwrap_or(0);
    Ok(resolved.limit.map_or(counted, |limit| counted.min(limit)))
}

/// The way where every comparison leaves many: nothing is to be had from an order, so that any index is better than
/// none.
pub fn counting_route(resolved: &Resolved) -> Route {
    let has_own_column = |index: &usize| {
        let predicate = top(resolved).get(*index);
        predicate.is_some_and(|predicate| {
            matches!(predicate, Predicate::Test { column: Column::Anonymous { kind, .. }, .. } if *kind != Type::List)
        })
    };
    let candidates = candidates(resolved);
    // A column has one value for each file; items and hashes may find one file more than once.
    match candidates.iter().find(|index| has_own_column(index)) {
        Some(index) => Route::Along(*index),
        None => candidates.first().map_or(Route::Order, |index| Route::First(*index)),
    }
}

/// The statement that counts.
pub fn counting(dialect: Dialect, resolved: &Resolved, scope: &Scope<'_>, route: Route) -> Statement {
    let mut builder = Builder::new(dialect, scope, route, reads_values(resolved));
    let conditions = builder.conditions(resolved, None);
    let from = builder.tables(&[]);
    builder.finish(format!("SELECT count(*) FROM {from} WHERE {conditions}"))
}

/// Whether a query asks or orders by values of the anonymous half.
fn reads_values(resolved: &Resolved) -> bool {
    fn asks(predicate: &Predicate) -> bool {
        match predicate {
            Predicate::And(predicates) | Predicate::Or(predicates) => predicates.iter().any(asks),
            Predicate::Test { column, .. } => matches!(column, Column::Anonymous { .. }),
        }
    }
    let mut order = resolved.order.iter();
    resolved.condition.as_ref().is_some_and(asks)
        || order.any(|ordering| matches!(ordering.column, Column::Anonymous { .. }))
}

/// Shows the files of one page, each with the values of `select` (from [`expression`] and the columns of the table of
/// entries), and says where it ended; nowhere, where there is no more.
///
/// # Errors
/// [`DatabaseError`], also what `each` answers. Where `each` breaks off, the page ends behind that file.
pub fn page(
    sql: &dyn Sql,
    resolved: &Resolved,
    scope: &Scope<'_>,
    request: &Page<'_>,
    each: &mut dyn FnMut(Row) -> Result<ControlFlow<()>, DatabaseError>,
) -> Result<Option<Position>, DatabaseError> {
    let seen = request.after.map_or(0, |after| after.seen);
    let left = resolved.limit.map_or(u64::MAX, |limit| limit.saturating_sub(seen));
    let wanted = left.min(request.files);
    if wanted == 0 {
        return Ok(None);
    }
    let route = choose(sql, resolved, scope)?;
    let mut last: Option<Position> = request.after.cloned();
    let mut shown = 0;
    let mut is_more = false;
    for walk in walks(resolved, request.after) {
        // One more than wanted tells whether there is more; none, where the query itself ends there.
        let room = wanted - shown + u64::from(wanted < left);
        let statement = statement(sql.dialect(), resolved, scope, route, &walk, request.select, room);
        sql.query(&statement.text, &statement.data, &mut |mut row| {
            if shown == wanted {
                is_more = true;
                return Ok(ControlFlow::Break(()));
            }
            shown += 1;
            let values = row.0.split_off(request.select.len());
            last = Some(Position {
                seen: seen + shown,
                values,
            });
            let flow = each(row)?;
            is_more = flow.is_break() && shown < left;
            Ok(flow)
        })?;
        if is_more || shown == left {
            break;
        }
    }
    Ok(last.filter(|_| is_more))
}

/// A page.
pub struct Page<'a> {
    /// What is answered of each file.
    pub select: &'a [&'a str],
    /// Where the page before ended.
    pub after: Option<&'a Position>,
    /// At most so many.
    pub files: u64,
}

/// Which way to go: see above.
///
/// # Errors
/// [`DatabaseError`]
pub fn choose(sql: &dyn Sql, resolved: &Resolved, scope: &Scope<'_>) -> Result<Route, DatabaseError> {
    if sql.dialect() == Dialect::Postgres {
        return Ok(Route::Free);
    }
    let mut best = (FEW, Route::Order);
    for candidate in candidates(resolved) {
        let mut builder = Builder::new(sql.dialect(), scope, Route::First(candidate), true);
        let Some(files) = top(resolved)
            .get(candidate)
            .and_then(|predicate| builder.chosen(predicate))
        else {
            continue;
        };
        let statement = builder.finish(format!("SELECT count(*) FROM ({files} LIMIT {})", best.0));
        let found = row(sql, &statement.text, &statement.data)?;
        let found = found.map(|row| row.integer(0)).transpose()?.unwrap_or(0);
        if found < best.0 {
            best = (found, Route::First(candidate));
        }
        if found == 0 {
            break;
        }
    }
    Ok(best.1)
}

/// The conditions of a query that must all be true.
fn top(resolved: &Resolved) -> &[Predicate] {
    match &resolved.condition {
        None => &[],
        Some(Predicate::And(predicates)) => predicates,
        Some(other) => std::slice::from_ref(other),
    }
}

/// Which of them have an index.
fn candidates(resolved: &Resolved) -> Vec<usize> {
    let indexed = top(resolved).iter().enumerate().filter(|(_, one)| has_index(one));
    indexed.map(|(index, _)| index).collect()
}

fn has_index(predicate: &Predicate) -> bool {
    let Predicate::Test {
        column,
        check,
        holds: true,
    } = predicate
    else {
        return false;
    };
    let narrows = match check {
        Check::Compare(comparison, _) => *comparison != Comparison::NotEqual,
        Check::In(_) | Check::Between(..) | Check::NamePart(_) => true,
        Check::Like(pattern) => !pattern.prefix().is_empty(),
        Check::IsNull => false,
    };
    narrows
        && match column {
            Column::Field(field) => matches!(field, Field::Name | Field::Guid) || is_walked(*field),
            Column::Anonymous { kind: Type::List, .. } | Column::Identifying { .. } => true,
            Column::Anonymous { indexed, .. } => *indexed,
        }
}

/// Whether files of a schema are indexed by it.
fn is_walked(field: Field) -> bool {
    matches!(field, Field::Size | Field::Created | Field::Modified)
}

/// What a search is ordered by, to the last: two files never are equal in all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    /// None: the number of the entry.
    column: Option<Column>,
    /// That number is read from the table of anonymous values, whose index has it.
    of_values: bool,
    descending: bool,
    is_optional: bool,
}

fn keys(resolved: &Resolved) -> Vec<Key> {
    let key = |ordering: &Ordering| Key {
        column: Some(ordering.column),
        of_values: false,
        descending: ordering.descending,
        is_optional: ordering.is_optional(),
    };
    let mut keys: Vec<Key> = resolved.order.iter().map(key).collect();
    match resolved.order.last() {
        None => keys.push(Key {
            column: Some(Column::Field(Field::Name)),
            of_values: false,
            descending: false,
            is_optional: false,
        }),
        Some(Ordering {
            column: Column::Field(Field::Name),
            ..
        }) => {}
        // In the direction of what stands before it, so that one walk along an index gives both.
        Some(last) => keys.push(Key {
            column: None,
            of_values: walk_of(&keys) == WalkOf::Values,
            descending: last.descending,
            is_optional: false,
        }),
    }
    keys
}

/// One walk: what of the keys is fixed, where it begins, and what it is ordered by.
#[derive(Debug, Clone, PartialEq)]
struct Walk {
    keys: Vec<Key>,
    /// Values of the first keys that all its files share.
    shared: Vec<Datum>,
    /// Values of the keys that follow, behind which it begins. Empty: at the beginning.
    after: Vec<Datum>,
    /// Whether it has only files with, or without, a value of the first key; none: all.
    has_first: Option<bool>,
}

impl Walk {
    /// The name that a walk by names begins behind, and whether that goes down.
    fn name_behind(&self) -> Option<(&str, bool)> {
        let key = self.keys.first().filter(|_| self.shared.is_empty())?;
        match (key.column, self.after.as_slice()) {
            (Some(Column::Field(Field::Name)), [Datum::Text(name)]) => Some((name, key.descending)),
            _ => None,
        }
    }
}

/// The walks of a page that begins behind `after`.
fn walks(resolved: &Resolved, after: Option<&Position>) -> Vec<Walk> {
    let keys = keys(resolved);
    let is_optional = keys.first().is_some_and(|key| key.is_optional);
    let walk = |shared: &[Datum], after: &[Datum], has_first| Walk {
        keys: keys.clone(),
        shared: shared.to_vec(),
        after: after.to_vec(),
        has_first,
    };
    let values = match after {
        // Of another query: cannot be, as the cursor is bound to it.
        Some(position) if position.values.len() == keys.len() => position.values.as_slice(),
        _ => &[],
    };
    match (values, is_optional) {
        ([], false) => vec![walk(&[], &[], None)],
        ([], true) => vec![walk(&[], &[], Some(true)), walk(&[], &[], Some(false))],
        ([Datum::Null, rest @ ..], _) => vec![walk(&[Datum::Null], rest, None)],
        ([first, rest @ ..], _) => {
            let mut walks = Vec::new();
            if !rest.is_empty() {
                walks.push(walk(std::slice::from_ref(first), rest, None));
            }
            walks.push(walk(&[], std::slice::from_ref(first), None));
            if is_optional {
                walks.push(walk(&[], &[], Some(false)));
            }
            walks
        }
    }
}

/// The statements of a page, for [`page`] and for whoever wants to see how they are planned.
pub fn statements(
    dialect: Dialect,
    resolved: &Resolved,
    scope: &Scope<'_>,
    route: Route,
    request: &Page<'_>,
) -> Vec<Statement> {
    let walks = walks(resolved, request.after);
    let statement = |walk: &Walk| statement(dialect, resolved, scope, route, walk, request.select, request.files);
    walks.iter().map(statement).collect()
}

/// The statement of one walk. The values of the keys stand behind those of `select`.
fn statement(
    dialect: Dialect,
    resolved: &Resolved,
    scope: &Scope<'_>,
    route: Route,
    walk: &Walk,
    select: &[&str],
    room: u64,
) -> Statement {
    let has_values = reads_values(resolved) || select.iter().any(|column| column.starts_with("v."));
    let mut builder = Builder::new(dialect, scope, route, has_values);
    let mut columns: Vec<String> = select.iter().map(|column| (*column).to_owned()).collect();
    columns.extend(walk.keys.iter().map(|key| builder.key(key)));
    let from = builder.tables(&walk.keys);
    let mut conditions = vec![builder.conditions(resolved, Some(walk))];
    conditions.extend(builder.beginning(walk));
    let order = builder.order(walk);
    let room = builder.bind(Datum::Integer(i64::try_from(room).unwrap_or(i64::MAX)));
    builder.finish(format!(
        "SELECT {} FROM {from} WHERE {} ORDER BY {order} LIMIT {room}",
        columns.join(", "),
        conditions.join(" AND "),
    ))
}

struct Builder<'a> {
    dialect: Dialect,
    scope: &'a Scope<'a>,
    route: Route,
    /// Whether the table of anonymous values is part of the statement.
    has_values: bool,
    data: Vec<Datum>,
}

impl<'a> Builder<'a> {
    fn new(dialect: Dialect, scope: &'a Scope<'a>, route: Route, has_values: bool) -> Self {
        Self {
            dialect,
            scope,
            route,
            has_values: has_values && scope.schema.is_some(),
            data: Vec::new(),
        }
    }

    fn finish(self, text: String) -> Statement {
        Statement { text, data: self.data }
    }

    fn bind(&mut self, datum: Datum) -> String {
        self.data.push(datum);
        format!("?{}", self.data.len())
    }

    /// Keeps SQLite from looking for an index where it should go another way.
    fn apart(&self, expression: &str) -> String {
        match (self.dialect, self.route) {
            (Dialect::Sqlite, Route::Order | Route::First(_) | Route::Along(_)) => format!("+{expression}"),
            _ => expression.to_owned(),
        }
    }

    /// The table that is walked comes first: SQLite keeps to the order of a CROSS JOIN.
    fn tables(&self, keys: &[Key]) -> String {
        let Some(schema) = self.scope.schema.filter(|_| self.has_values) else {
            return "entries e".to_owned();
        };
        let values = values_table(schema);
        let begins_with_values = match self.route {
            Route::Order => walk_of(keys) == WalkOf::Values,
            Route::Along(_) => true,
            Route::Free | Route::First(_) => false,
        };
        if begins_with_values {
            format!("{values} v CROSS JOIN entries e")
        } else {
            format!("entries e CROSS JOIN {values} v")
        }
    }

    /// What every file must be that is found.
    fn conditions(&mut self, resolved: &Resolved, walk: Option<&Walk>) -> String {
        let keys = walk.map_or(&[][..], |walk| walk.keys.as_slice());
        let mut all = self.place(keys, walk.and_then(Walk::name_behind));
        all.extend(self.seen());
        for (index, predicate) in top(resolved).iter().enumerate() {
            if self.route == Route::First(index)
                && let Some(files) = self.chosen(predicate)
            {
                all.push(format!("e.id IN ({files})"));
            }
            let range = walk.and_then(|walk| self.range(predicate, walk));
            all.push(match (range, self.route) {
                (Some(range), _) => range,
                (None, Route::Along(along)) if along == index => self.along(predicate),
                (None, _) => self.predicate(predicate),
            });
        }
        all.join(" AND ")
    }

    /// The comparison along whose index it goes.
    fn along(&mut self, predicate: &Predicate) -> String {
        match predicate {
            Predicate::Test {
                column: Column::Anonymous { number, .. },
                check,
                holds,
            } => self.check(&format!("v.{}", value_column(*number)), check, *holds),
            other => self.predicate(other),
        }
    }

    /// A range of what the walk is ordered by, where it is walked by that: it begins and ends the walk. Where the page
    /// before says where to begin, that bound stands for the range's own, as SQLite looks at one of each side alone.
    fn range(&mut self, predicate: &Predicate, walk: &Walk) -> Option<String> {
        let Predicate::Test {
            column,
            check,
            holds: true,
        } = predicate
        else {
            return None;
        };
        let key = walk.keys.first().filter(|key| key.column == Some(*column))?;
        if self.route != Route::Order || walk_of(&walk.keys) == WalkOf::Names {
            return None;
        }
        let is_begun = walk.shared.is_empty() && !walk.after.is_empty();
        let plain = self.key(key);
        let mut bound = |comparison: Comparison, value: &Datum| {
            let is_lower = matches!(comparison, Comparison::Greater | Comparison::GreaterOrEqual);
            let is_spent = is_begun && is_lower != key.descending && comparison != Comparison::Equal;
            let expression = if is_spent { self.apart(&plain) } else { plain.clone() };
            let value = self.bind(value.clone());
            format!("{expression} {} {value}", comparison.sign())
        };
        match check {
            Check::Compare(comparison, value) => Some(bound(*comparison, value)),
            Check::Between(from, to) => {
                let from = bound(Comparison::GreaterOrEqual, from);
                let to = bound(Comparison::LessOrEqual, to);
                Some(format!("{from} AND {to}"))
            }
            Check::In(_) | Check::Like(_) | Check::IsNull | Check::NamePart(_) => None,
        }
    }

    /// Files of the schema below the directory, and behind the name that the walk begins at: SQLite looks at one bound
    /// of each side alone.
    fn place(&mut self, keys: &[Key], behind: Option<(&str, bool)>) -> Vec<String> {
        let (by_schema, by_path) = match self.route {
            Route::Free => (true, true),
            Route::Order => match walk_of(keys) {
                WalkOf::Names => (true, true),
                WalkOf::Field => (true, false),
                WalkOf::Values => (false, false),
            },
            Route::First(_) | Route::Along(_) => (false, false),
        };
        let column = |builder: &Self, name: &str| {
            let is_walked = if name == "path" { by_path } else { by_schema };
            if is_walked {
                format!("e.{name}")
            } else {
                builder.apart(&format!("e.{name}"))
            }
        };
        let mut all = Vec::new();
        let schema = column(self, "schema");
        match self.scope.schema {
            None => all.push(format!("{schema} IS NULL")),
            Some(number) => {
                let number = self.bind(number.into());
                all.push(format!("{schema} = {number}"));
                if self.has_values {
                    all.push("v.entry = e.id".to_owned());
                }
            }
        }
        all.push(format!("{} = 1", column(self, "kind")));
        // `0` is the character behind the slash.
        let directory = self.scope.from.as_str().trim_end_matches('/');
        let path = column(self, "path");
        let (mut from, mut to) = (format!("{directory}/"), format!("{directory}0"));
        match behind {
            Some((name, false)) => from = from.max(name.to_owned()),
            Some((name, true)) => to = to.min(name.to_owned()),
            None => {}
        }
        let (from, to) = (self.bind(from.into()), self.bind(to.into()));
        all.push(format!("{path} > {from}"));
        all.push(format!("{path} < {to}"));
        all
    }

    /// What the caller may see.
    fn seen(&mut self) -> Vec<String> {
        let scope = self.scope;
        let operations = self.one_of("e.operation", scope.operations);
        vec![
            self.one_of("e.name_record", scope.names),
            self.one_of("e.anonymous_record", scope.anonymous),
            format!("(e.operation IS NULL OR {operations})"),
        ]
    }

    fn one_of(&mut self, column: &str, numbers: &[i64]) -> String {
        self.data.push(Datum::Integers(numbers.to_vec()));
        self.dialect.is_one_of(&self.apart(column), self.data.len())
    }

    fn predicate(&mut self, predicate: &Predicate) -> String {
        let (predicates, word) = match predicate {
            Predicate::And(predicates) => (predicates, " AND "),
            Predicate::Or(predicates) => (predicates, " OR "),
            Predicate::Test { column, check, holds } => return self.test(*column, check, *holds),
        };
        let each: Vec<String> = predicates.iter().map(|one| self.predicate(one)).collect();
        format!("({})", each.join(word))
    }

    fn test(&mut self, column: Column, check: &Check, holds: bool) -> String {
        match column {
            Column::Field(field) => {
                let expression = self.apart(&format!("e.{}", field.column()));
                self.check(&expression, check, holds)
            }
            Column::Anonymous {
                number,
                kind: Type::List,
                ..
            } => self.list(number, check, holds),
            Column::Anonymous { number, .. } => {
                let expression = self.apart(&format!("v.{}", value_column(number)));
                self.check(&expression, check, holds)
            }
            Column::Identifying { number, .. } => self.sealed(number, check, holds),
        }
    }

    /// Of a single value: unknown where there is none, as SQL has it.
    fn check(&mut self, expression: &str, check: &Check, holds: bool) -> String {
        let not = if holds { "" } else { "NOT " };
        match check {
            Check::IsNull => format!("{expression} IS {}NULL", if holds { "" } else { "NOT " }),
            Check::Compare(comparison, value) => {
                let comparison = if holds { *comparison } else { comparison.negated() };
                let value = self.bind(value.clone());
                format!("{expression} {} {value}", comparison.sign())
            }
            Check::In(values) => {
                let values: Vec<String> = values.iter().map(|value| self.bind(value.clone())).collect();
                format!("{expression} {not}IN ({})", values.join(", "))
            }
            Check::Between(from, to) => {
                let (from, to) = (self.bind(from.clone()), self.bind(to.clone()));
                format!("{expression} {not}BETWEEN {from} AND {to}")
            }
            Check::Like(pattern) => {
                let like = self.bind(pattern.to_sql().into());
                let mut text = format!("{expression} {not}LIKE {like} ESCAPE '\\'");
                if holds {
                    text.push_str(&self.beginning_with(expression, &pattern.prefix()));
                }
                text
            }
            // Of identifying attributes alone, which have no column.
            Check::NamePart(_) => "1 = 0".to_owned(),
        }
    }

    /// What a pattern begins with, for an index.
    fn beginning_with(&mut self, expression: &str, prefix: &str) -> String {
        if prefix.is_empty() {
            return String::new();
        }
        let from = self.bind(prefix.into());
        let mut text = format!(" AND {expression} >= {from}");
        if let Some(behind) = behind(prefix) {
            let behind = self.bind(behind.into());
            text.push_str(&format!(" AND {expression} < {behind}"));
        }
        text
    }

    /// Of a list: whether one of its items is so.
    fn list(&mut self, number: i64, check: &Check, holds: bool) -> String {
        let column = format!("v.{}", value_column(number));
        if *check == Check::IsNull {
            return self.check(&column, check, holds);
        }
        let item = self.check("i.item", check, true);
        let exists =
            format!("EXISTS (SELECT 1 FROM lists i WHERE i.attribute = {number} AND i.entry = e.id AND {item})");
        if holds {
            exists
        } else {
            format!("({column} IS NOT NULL AND NOT {exists})")
        }
    }

    /// Of the identifying half: unknown where the caller may not read it, whatever is asked.
    fn sealed(&mut self, number: i64, check: &Check, holds: bool) -> String {
        let scope = self.scope;
        let is_seen = self.one_of("e.identifying_record", scope.identifying);
        let of_entry = format!("SELECT 1 FROM tokens t WHERE t.attribute = {number} AND t.entry = e.id");
        let has_one = format!("EXISTS ({of_entry})");
        let matches = |tokens: String| format!("EXISTS ({of_entry} AND {tokens})");
        match (check, holds) {
            (Check::IsNull, true) => format!("({is_seen} AND NOT {has_one})"),
            (Check::IsNull, false) => format!("({is_seen} AND {has_one})"),
            (_, true) => format!("({is_seen} AND {})", matches(self.tokens(number, check))),
            (_, false) => {
                let found = matches(self.tokens(number, check));
                format!("({is_seen} AND {has_one} AND NOT {found})")
            }
        }
    }

    fn tokens(&mut self, number: i64, check: &Check) -> String {
        let scope = self.scope;
        let whole = |datum: &Datum| scope.tokens.whole(number, &value::text(datum));
        let tokens = match check {
            Check::Compare(_, datum) => vec![whole(datum)],
            Check::In(data) => data.iter().map(whole).collect(),
            Check::NamePart(part) => vec![scope.tokens.name_part(number, part)],
            // Refused when the query was resolved.
            Check::Like(_) | Check::Between(..) | Check::IsNull => Vec::new(),
        };
        if tokens.is_empty() {
            return "1 = 0".to_owned();
        }
        let bound: Vec<String> = tokens.into_iter().map(|token| self.bind(Datum::Blob(token))).collect();
        format!("t.token IN ({})", bound.join(", "))
    }

    /// The numbers of the entries that a comparison leaves, by its index.
    fn chosen(&mut self, predicate: &Predicate) -> Option<String> {
        let Predicate::Test { column, check, .. } = predicate else {
            return None;
        };
        Some(match column {
            Column::Field(field) => {
                let of_schema = match self.scope.schema.filter(|_| is_walked(*field)) {
                    // its index begins with these
                    Some(number) => format!("c.schema = {} AND c.kind = 1 AND ", self.bind(number.into())),
                    None => String::new(),
                };
                let test = self.check(&format!("c.{}", field.column()), check, true);
                format!("SELECT c.id FROM entries c WHERE {of_schema}{test}")
            }
            Column::Anonymous {
                number,
                kind: Type::List,
                ..
            } => {
                let test = self.check("i.item", check, true);
                format!("SELECT i.entry FROM lists i WHERE i.attribute = {number} AND {test}")
            }
            Column::Anonymous { number, .. } => {
                let table = values_table(self.scope.schema?);
                let test = self.check(&format!("c.{}", value_column(*number)), check, true);
                format!("SELECT c.entry FROM {table} c WHERE {test}")
            }
            Column::Identifying { number, .. } => {
                let test = self.tokens(*number, check);
                format!("SELECT t.entry FROM tokens t WHERE t.attribute = {number} AND {test}")
            }
        })
    }

    fn key(&self, key: &Key) -> String {
        match key.column {
            Some(column) => expression(column).unwrap_or_else(|| "NULL".to_owned()),
            None if key.of_values => "v.entry".to_owned(),
            None => "e.id".to_owned(),
        }
    }

    /// A key where it decides the way, but where another way was chosen.
    fn walked(&self, key: &Key) -> String {
        match self.route {
            Route::First(_) | Route::Along(_) => self.apart(&self.key(key)),
            Route::Free | Route::Order => self.key(key),
        }
    }

    /// Where a walk begins.
    fn beginning(&mut self, walk: &Walk) -> Vec<String> {
        let mut all = Vec::new();
        let mut keys = walk.keys.iter();
        for (key, value) in keys.by_ref().take(walk.shared.len()).zip(&walk.shared) {
            all.push(self.equal(key, value));
        }
        if let (Some(has), Some(first)) = (walk.has_first, walk.keys.first()) {
            let not = if has { "NOT " } else { "" };
            all.push(format!("{} IS {not}NULL", self.walked(first)));
        }
        if !walk.after.is_empty() && walk.name_behind().is_none() {
            let rest: Vec<&Key> = keys.collect();
            all.push(self.behind(&rest, &walk.after, !walk.shared.is_empty()));
        }
        all
    }

    fn equal(&mut self, key: &Key, value: &Datum) -> String {
        let column = self.walked(key);
        let sign = match (value, self.dialect) {
            (Datum::Null, Dialect::Postgres) => return format!("{column} IS NULL"),
            // Behind IS NULL it would not look at what else the index has.
            (Datum::Null, Dialect::Sqlite) => "IS",
            _ => "=",
        };
        let value = self.bind(value.clone());
        format!("{column} {sign} {value}")
    }

    /// Behind these values in the order of these keys; `has_empty`: where no other walk has those without a value.
    fn behind(&mut self, keys: &[&Key], values: &[Datum], has_empty: bool) -> String {
        let ([key, keys @ ..], [value, values @ ..]) = (keys, values) else {
            return "1 = 0".to_owned();
        };
        let column = self.walked(key);
        let mut any = Vec::new();
        // Nothing is behind those without a value but others of them.
        if *value != Datum::Null {
            let sign = if key.descending { "<" } else { ">" };
            let bound = self.bind(value.clone());
            any.push(format!("{column} {sign} {bound}"));
            if key.is_optional && has_empty {
                any.push(format!("{column} IS NULL"));
            }
        }
        if !values.is_empty() {
            let equal = self.equal(key, value);
            let behind = self.behind(keys, values, has_empty);
            any.push(format!("({equal} AND {behind})"));
        }
        match any.len() {
            0 => "1 = 0".to_owned(),
            1 => any.remove(0),
            _ => format!("({})", any.join(" OR ")),
        }
    }

    fn order(&self, walk: &Walk) -> String {
        // What is the same in all of them decides nothing.
        let same = walk.shared.len().max(usize::from(walk.has_first == Some(false)));
        let rest = walk.keys.iter().enumerate().skip(same);
        let orders: Vec<String> = rest
            .map(|(index, key)| {
                let direction = if key.descending { " DESC" } else { "" };
                // The first has a value in all of the walk's files, or in none of them.
                let nulls = if key.is_optional && index > 0 {
                    " NULLS LAST"
                } else {
                    ""
                };
                format!("{}{direction}{nulls}", self.walked(key))
            })
            .collect();
        orders.join(", ")
    }
}

/// What a walk in the order of these keys goes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WalkOf {
    /// The names below the directory. Where the order is another, what is found is sorted.
    Names,
    /// An index of a field that every file of the schema has.
    Field,
    /// An index of an attribute, or its table.
    Values,
}

fn walk_of(keys: &[Key]) -> WalkOf {
    match keys.first().and_then(|key| key.column) {
        Some(Column::Anonymous { .. }) => WalkOf::Values,
        Some(Column::Field(field)) if is_walked(field) => WalkOf::Field,
        _ => WalkOf::Names,
    }
}

/// The first text behind all that begin with `prefix`.
fn behind(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}
