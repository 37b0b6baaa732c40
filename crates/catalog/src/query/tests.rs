//! The language as a whole: what it reads and refuses, and that searches find in a database what a plain reading of the
//! query says of each file.

use std::cmp::Ordering as Order;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::cursor::CursorKey;
use super::resolve::SchemaAttributes;
use super::sql::{self, Page, Route};
use super::tree::{Check, Condition, Query, Test};
use super::*;
use crate::database::sqlite::Sqlite;
use crate::database::{Database, DatabaseError, Datum, Dialect, Sql, rows};
use crate::name::LogicalName;
use crate::wire::{AttributeDefinition, Part, Type};

// --- reading ----------------------------------------------------------------------------------------------------------

#[test]
fn what_users_of_sql_amga_and_dicom_write_is_read() {
    for (query, printed) in [
        ("", ""),
        ("  ", ""),
        ("modality = 'MR'", "modality = 'MR'"),
        ("WHERE modality == \"MR\"", "modality = 'MR'"),
        ("a='O''Brien'", "a = 'O''Brien'"),
        ("a=\"say \"\"so\"\"\"", "a = 'say \"so\"'"),
        ("a=1 and b!=2 OR not c<>3", "a = 1 AND b <> 2 OR NOT c <> 3"),
        ("a=1 && (b=2 || !c=3)", "a = 1 AND (b = 2 OR NOT c = 3)"),
        ("not not a=1", "NOT NOT a = 1"),
        ("not (a=1 and b=2)", "NOT (a = 1 AND b = 2)"),
        ("((((a=1))))", "a = 1"),
        ("(a=1 and b=2) and c=3", "a = 1 AND b = 2 AND c = 3"),
        ("age >= 40 AND 60>age", "age >= 40 AND age < 60"),
        ("rows in (2010,2011)", "rows IN (2010, 2011)"),
        ("rows in (2010, 2011,5)", "rows IN (2010, 2011, 5)"),
        ("x NOT IN ('a')", "NOT x IN ('a')"),
        ("like(a, \"x%\")", "a LIKE 'x%'"),
        ("a not like '50!%' escape '!'", "NOT a LIKE '50!%' ESCAPE '!'"),
        ("d between 2026-01-01 and 20260201", "d BETWEEN 2026-01-01 AND 20260201"),
        ("a is null or b IS NOT NULL", "a IS NULL OR NOT b IS NULL"),
        ("(0010,0010) = 'Miller*'", "(0010,0010) = 'Miller*'"),
        ("((0008,103e)='x')", "(0008,103E) = 'x'"),
        ("StudyDate = 20200101-20201231", "StudyDate = 20200101-20201231"),
        ("t > 09:30:00.5 and f = -1.5e-3", "t > 09:30:00.5 AND f = -1.5e-3"),
        ("order by age desc, name limit 20", "ORDER BY age DESC, name LIMIT 20"),
        ("a=1 ORDER BY a ASC", "a = 1 ORDER BY a"),
        ("limit 0", "LIMIT 0"),
    ] {
        let read = parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        assert_eq!(read.to_string(), printed, "{query}");
        assert_eq!(parse(printed).as_ref(), Ok(&read), "{query}");
    }
}

#[test]
fn what_is_no_query_is_refused_and_the_place_named() {
    for (query, error) in [
        (
            "modality",
            "expected =, <>, <, <=, >, >=, IN, LIKE, BETWEEN or IS NULL at character 9 of the query, found its end",
        ),
        (
            "a = MR",
            "expected a value (texts stand in quotes) at character 5 of the query, found `MR`",
        ),
        (
            "ä = 1",
            "expected a condition at character 1 of the query, found `ä = 1`",
        ),
        (
            "a = 'ä' b",
            "expected AND, OR, ORDER BY, LIMIT or the end at character 9 of the query, found `b`",
        ),
        ("a = 'x", "the text that begins at character 5 of the query has no end"),
        (
            "a = NULL",
            "expected a value (what has none is found with IS NULL) at character 5 of the query, found `NULL`",
        ),
        (
            "a = 'x'; DROP TABLE entries",
            "expected a condition at character 8 of the query, found `; DROP TABLE entries`",
        ),
        (
            "a = 'x' -- b",
            "expected AND, OR, ORDER BY, LIMIT or the end at character 9 of the query, found `-- b`",
        ),
        (
            "a = 'x' UNION SELECT 1",
            "expected AND, OR, ORDER BY, LIMIT or the end at character 9 of the query, found `UNION SELECT 1`",
        ),
        (
            "(a = 1",
            "expected `)`, AND or OR at character 7 of the query, found its end",
        ),
        (
            "a = 1)",
            "expected AND, OR, ORDER BY, LIMIT or the end at character 6 of the query, found `)`",
        ),
        ("a IN ()", "expected a value at character 7 of the query, found `)`"),
        (
            "a IN (1",
            "expected `,` or `)` at character 8 of the query, found its end",
        ),
        (
            "a NOT = 1",
            "expected IN, LIKE or BETWEEN at character 7 of the query, found `= 1`",
        ),
        (
            "a BETWEEN 1",
            "expected AND and the upper bound at character 12 of the query, found its end",
        ),
        (
            "a LIKE 'x' ESCAPE 'ab'",
            "expected one character in quotes at character 19 of the query, found `'ab'`",
        ),
        ("order = 1", "expected BY at character 7 of the query, found `= 1`"),
        (
            "a = 1 LIMIT -1",
            "expected how many at character 13 of the query, found `-1`",
        ),
        (
            "a = 1 LIMIT 99999999999999999999",
            "expected how many at character 13 of the query, found `99999999999999999999`",
        ),
        (
            "and = 1",
            "expected an attribute at character 1 of the query, found `and = 1`",
        ),
        (
            "WHERE",
            "expected an attribute at character 6 of the query, found its end",
        ),
        (
            "a = 'x\0y'",
            "a control character at character 7 of the query: no value has one",
        ),
        (
            "a = 1 = 1",
            "expected AND, OR, ORDER BY, LIMIT or the end at character 7 of the query, found `= 1`",
        ),
        ("1 = 1", "expected an attribute at character 5 of the query, found `1`"),
    ] {
        assert_eq!(parse(query).unwrap_err().to_string(), error, "{query}");
    }
}

#[test]
fn size_and_depth_have_limits() {
    let nested = |depth: usize| format!("{}a = 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(parse(&nested(MAX_DEPTH + 1)), Err(ParseError::Deep));
    assert_eq!(parse(&"NOT ".repeat(100_000 / 4)), Err(ParseError::Deep));
    let many = |count: usize| vec!["a = 1"; count].join(" OR ");
    assert!(parse(&many(MAX_TESTS)).is_ok());
    assert_eq!(parse(&many(MAX_TESTS + 1)), Err(ParseError::ManyTests));
    let values = |count: usize| format!("a IN ({})", vec!["1"; count].join(","));
    assert!(parse(&values(MAX_VALUES)).is_ok());
    assert_eq!(parse(&values(MAX_VALUES + 1)), Err(ParseError::ManyValues));
    assert!(matches!(
        parse(&" ".repeat(MAX_QUERY_BYTES + 1)),
        Err(ParseError::Long { .. })
    ));
    let orders = format!("ORDER BY {}", ["a"; 9].join(","));
    assert_eq!(parse(&orders), Err(ParseError::ManyOrders));
}

// --- what it means ----------------------------------------------------------------------------------------------------

const SCHEMA: i64 = 1;
const TEXT: i64 = 1;
const NUMBER: i64 = 2;
const RATIO: i64 = 3;
const DAY: i64 = 4;
const CODES: i64 = 5;
const PATIENT: i64 = 6;
const ACCESSION: i64 = 7;
const HOUR: i64 = 8;

fn definition(name: &str, kind: Type, half: Part, indexed: bool, dicom: Option<&str>) -> AttributeDefinition {
    AttributeDefinition {
        name: name.to_owned(),
        kind,
        half,
        indexed,
        dicom: dicom.map(str::to_owned),
    }
}

fn attributes(identifying: bool) -> SchemaAttributes {
    let (anonymous, sealed) = (Part::Anonymous, Part::Identifying);
    let attributes = vec![
        (
            TEXT,
            definition("text", Type::String, anonymous, true, Some("Modality")),
        ),
        (
            NUMBER,
            definition("number", Type::Integer, anonymous, true, Some("Rows")),
        ),
        (RATIO, definition("ratio", Type::Float, anonymous, false, None)),
        (DAY, definition("day", Type::Date, anonymous, true, Some("StudyDate"))),
        (CODES, definition("codes", Type::List, anonymous, true, None)),
        (
            PATIENT,
            definition("patient", Type::String, sealed, true, Some("PatientName")),
        ),
        (ACCESSION, definition("accession", Type::String, sealed, true, None)),
        (HOUR, definition("hour", Type::Time, anonymous, false, None)),
        (9, definition("birth", Type::Date, sealed, false, None)),
    ];
    SchemaAttributes {
        attributes,
        identifying,
    }
}

fn resolved(query: &str) -> Result<Resolved, String> {
    let query = parse(query).map_err(|error| error.to_string())?;
    resolve(&query, &attributes(true)).map_err(|error| error.to_string())
}

#[test]
fn values_have_the_type_of_their_attribute() {
    let test = |query: &str| match resolved(query).unwrap().condition.unwrap() {
        Predicate::Test { check, holds, .. } => (check, holds),
        other => panic!("{other:?}"),
    };
    use super::resolve::{Check, Pattern, Piece, Predicate};
    let equal = |datum: Datum| (Check::Compare(Comparison::Equal, datum), true);
    assert_eq!(test("NUMBER = '40'"), equal(40.into()));
    assert_eq!(test("text = 40"), equal("40".into()));
    assert_eq!(
        test("text <> 'x'"),
        (Check::Compare(Comparison::Equal, "x".into()), false)
    );
    assert_eq!(test("not text is null"), (Check::IsNull, false));
    assert_eq!(test("ratio = 1e2"), equal(Datum::Real(100.0)));
    assert_eq!(test("day = 20260131"), equal("2026-01-31".into()));
    assert_eq!(test("hour = 093000.500"), equal("09:30:00.5".into()));
    assert_eq!(test("hour = 09:30"), equal("09:30:00".into()));
    assert_eq!(test("name = 'lfn:/myvo/x'"), equal("/myvo/x".into()));
    assert_eq!(test("guid = 'ABC'"), equal("abc".into()));
    assert_eq!(test("status = 'ONLINE'"), equal("online".into()));
    assert_eq!(
        test("created >= 1970-01-02"),
        (Check::Compare(Comparison::GreaterOrEqual, 86_400.into()), true)
    );
    assert_eq!(test("created = '1970-01-01T01:00:01+01:00'"), equal(1.into()));
    // as DICOM has it, only of attributes that are named so
    let range = Check::Between("2020-01-01".into(), "2020-12-31".into());
    assert_eq!(test("StudyDate = '20200101-20201231'"), (range.clone(), true));
    assert_eq!(test("(0008,0020) != 20200101-20201231"), (range, false));
    let from = Check::Compare(Comparison::GreaterOrEqual, "2020-01-01".into());
    assert_eq!(test("StudyDate = '20200101-'"), (from, true));
    assert_eq!(test("StudyDate = 2020-01-01"), equal("2020-01-01".into()));
    let pattern = Pattern(vec![Piece::One('M'), Piece::Any, Piece::Many]);
    assert_eq!(test("modality = 'M?**'"), (Check::Like(pattern), true));
    assert_eq!(test("text = 'M*'"), equal("M*".into()));
    assert_eq!(
        test("PatientName = 'Mill*'"),
        (Check::NamePart("Mill".to_owned()), true)
    );
    assert_eq!(test("patient LIKE 'mill%'"), (Check::NamePart("mill".to_owned()), true));
}

#[test]
fn what_cannot_be_answered_is_refused() {
    for (query, error) in [
        ("nothing = 1", "no attribute `nothing` here"),
        ("a = 1 and number = 1", "no attribute `a` here"),
        ("(0010,9999) = 'x'", "no attribute `(0010,9999)` here"),
        ("number = 40.5", "`number` holds integers: `40.5` is none"),
        (
            "number = 9223372036854775808",
            "`number` holds integers: `9223372036854775808` is none",
        ),
        ("ratio = 'NaN'", "`ratio` holds numbers: `NaN` is none"),
        ("ratio = 1e999", "`ratio` holds numbers: `1e999` is none"),
        (
            "day = 2026-02-30",
            "`day` holds dates (`2026-11-22`): `2026-02-30` is none",
        ),
        (
            "day = '2026-02-30x'",
            "`day` holds dates (`2026-11-22`): `2026-02-30x` is none",
        ),
        ("hour = 24:00:00", "`hour` holds times (`09:30:00`): `24:00:00` is none"),
        (
            "status = 'gone'",
            "`status` holds `nearline` or `online`: `gone` is none",
        ),
        (
            "name = 'relative'",
            "`name` holds logical file names: `relative` is none",
        ),
        ("number LIKE '4%'", "`number` holds integers: LIKE compares texts"),
        (
            "text LIKE 'a!b' ESCAPE '!'",
            "the pattern of `text` has its escape character before something other than `%`, `_` and itself",
        ),
        ("ORDER BY codes", "files cannot be ordered by `codes`, which is a list"),
        (
            "ORDER BY patient",
            "files cannot be ordered by `patient`, which is sealed",
        ),
        (
            "patient > 'A'",
            "`patient` is sealed: it is found with =, <>, IN and IS NULL alone",
        ),
        (
            "accession LIKE 'A%'",
            "`accession` is sealed: it is found with =, <>, IN and IS NULL alone",
        ),
        (
            "birth = 2020-01-01",
            "`birth` is sealed and not indexed: it cannot be searched",
        ),
        (
            "patient LIKE '%ill%'",
            "`patient` is sealed: LIKE finds the beginning of one of its parts, as in `'mill%'`, of 3 letters or more",
        ),
        (
            "patient LIKE 'mi%'",
            "`patient` is sealed: LIKE finds the beginning of one of its parts, as in `'mill%'`, of 3 letters or more",
        ),
    ] {
        assert_eq!(resolved(query).unwrap_err(), error, "{query}");
    }
    assert!(resolved(&format!("text LIKE '{}'", "x".repeat(5000))).is_err());
}

#[test]
fn what_the_caller_may_not_know_of_is_unknown_in_the_same_words() {
    for query in [
        "X = 'A'",
        "X > 'A'",
        "X LIKE '%'",
        "X IS NULL",
        "ORDER BY X",
        "NOT (X IN ('a') OR text = 'b')",
    ] {
        for name in ["patient", "PatientName", "(0010,0010)", "PATIENT"] {
            let hidden = resolve(&parse(&query.replace('X', name)).unwrap(), &attributes(false)).unwrap_err();
            assert_eq!(hidden.to_string(), format!("no attribute `{name}` here"));
        }
    }
}

#[test]
fn no_word_of_the_language_and_no_field_can_be_an_attribute() {
    for name in ["AND", "limit", "where", "Name", "size", "key_id", "path", "created"] {
        assert!(is_reserved(name), "{name}");
    }
    assert!(!is_reserved("modality"));
}

// --- what it finds ----------------------------------------------------------------------------------------------------

/// Hashes that are none: the tests see what they are of.
struct Plain;

impl Tokens for Plain {
    fn whole(&self, attribute: i64, value: &str) -> Vec<u8> {
        format!("{attribute}={value}").into_bytes()
    }

    fn name_part(&self, attribute: i64, part: &str) -> Vec<u8> {
        format!("{attribute}~{}", part.to_lowercase()).into_bytes()
    }
}

/// A file of the tests.
#[derive(Debug, Clone)]
struct Image {
    /// Also its number.
    place: usize,
    name: String,
    size: Option<i64>,
    /// By attribute; absent: NULL.
    values: BTreeMap<i64, Datum>,
    codes: Option<Vec<String>>,
    sealed: BTreeMap<i64, String>,
    is_seen: bool,
    is_identified: bool,
}

const SEEN: i64 = 1;
const UNSEEN: i64 = 2;

impl Image {
    fn path(&self) -> String {
        format!("/myvo/scans/{}", self.name)
    }

    fn parts(name: &str) -> impl Iterator<Item = String> {
        let words: Vec<String> = name.split(['^', ' ']).map(str::to_lowercase).collect();
        words.into_iter()
    }

    fn insert(&self, sql: &dyn Sql) -> Result<(), DatabaseError> {
        let id = i64::try_from(self.place).unwrap();
        // One of the three things that hide a file, in turn.
        let hides = |which| !self.is_seen && self.place % 3 == which;
        let record = |is_good| Datum::Integer(if is_good { SEEN } else { UNSEEN });
        let operation = match (hides(2), self.place.is_multiple_of(5)) {
            (true, _) => Datum::Integer(2),
            (false, true) => Datum::Integer(1),
            (false, false) => Datum::Null,
        };
        let text = "INSERT INTO entries(id, path, kind, guid, schema, operation, size, created, modified, version, \
                    name_record, anonymous_record, identifying_record) \
                    VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6, CAST(?1 AS BIGINT) % 3, 0, 1, ?7, ?8, ?9)";
        let data = [
            id.into(),
            self.path().into(),
            format!("guid:{id}").into(),
            SCHEMA.into(),
            operation,
            self.size.into(),
            record(!hides(0)),
            record(!hides(1)),
            record(self.is_identified),
        ];
        sql.execute(text, &data)?;
        let of = |attribute| self.values.get(&attribute).cloned().unwrap_or(Datum::Null);
        let codes = self.codes.as_ref().map(|codes| serde_json::to_string(codes).unwrap());
        let text = "INSERT INTO values_1(entry, a1, a2, a3, a4, a5, a8) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let values = [of(TEXT), of(NUMBER), of(RATIO), of(DAY), codes.into(), of(HOUR)];
        sql.execute(text, &[&[id.into()], values.as_slice()].concat())?;
        for code in self.codes.iter().flatten() {
            let text = "INSERT INTO lists(attribute, item, entry) VALUES (?1, ?2, ?3)";
            sql.execute(text, &[CODES.into(), code.as_str().into(), id.into()])?;
        }
        for (attribute, value) in &self.sealed {
            let mut tokens = vec![Plain.whole(*attribute, value)];
            for part in Self::parts(value).filter(|_| *attribute == PATIENT) {
                let ends = part.char_indices().map(|(at, letter)| at + letter.len_utf8()).skip(2);
                tokens.extend(ends.map(|end| Plain.name_part(*attribute, &part[..end])));
            }
            tokens.sort();
            tokens.dedup();
            for token in tokens {
                let text = "INSERT INTO tokens(attribute, token, entry) VALUES (?1, ?2, ?3)";
                sql.execute(text, &[(*attribute).into(), token.into(), id.into()])?;
            }
        }
        Ok(())
    }
}

/// The tables around the files, as the schema above says.
pub(crate) fn prepare(sql: &dyn Sql) -> Result<(), DatabaseError> {
    let dialect = sql.dialect();
    for text in [
        "INSERT INTO records(id, record, digest) VALUES (1, 'a', '1'), (2, 'b', '2')",
        "INSERT INTO operations(number, id, what, owner, began, state, entries) \
         VALUES (1, 'a', '', '', 0, 'open', 0), (2, 'b', '', '', 0, 'open', 0)",
        "INSERT INTO schemas(id, directory) VALUES (1, 1), (2, 2)",
    ] {
        sql.execute(text, &[])?;
    }
    for (number, definition) in attributes(true).attributes {
        let text = "INSERT INTO attributes(id, schema, name, folded, kind, identifying, indexed) \
                    VALUES (?1, 1, ?2, ?2, 'string', 0, 0)";
        sql.execute(text, &[number.into(), definition.name.into()])?;
    }
    sql.define(&dialect.definition(
        "CREATE TABLE values_1(entry {KEY}, a1 {TEXT}, a2 BIGINT, a3 DOUBLE PRECISION, a4 {TEXT}, a5 {TEXT}, \
         a8 {TEXT}); \
         CREATE INDEX values_1_a1 ON values_1(a1, entry); CREATE INDEX values_1_a2 ON values_1(a2, entry); \
         CREATE INDEX values_1_a4 ON values_1(a4, entry)",
    ))?;
    // What never is found: a directory, a file of another schema, and one beside the directory.
    for (id, path, kind, schema) in [
        (100_001_i64, "/myvo/scans", 0_i64, 1_i64),
        (100_002, "/myvo/scans/dir", 0, 1),
        (100_003, "/myvo/scans/dir/of-another-schema", 1, 2),
        (100_004, "/myvo/scans0", 1, 1),
        (100_005, "/myvo/scans!", 1, 1),
    ] {
        let text = "INSERT INTO entries(id, path, kind, guid, schema, created, modified, version, name_record, \
                    anonymous_record, identifying_record) VALUES (?1, ?2, ?3, ?2, ?4, 0, 0, 1, 1, 1, 1)";
        sql.execute(text, &[id.into(), path.into(), kind.into(), schema.into()])?;
        sql.execute("INSERT INTO values_1(entry, a1, a2) VALUES (?1, 'MR', 1)", &[id.into()])?;
    }
    Ok(())
}

fn fill(database: &Database, images: &[Image]) {
    let filled: Result<(), DatabaseError> = database.write(|sql| {
        for table in ["tokens", "lists"] {
            sql.execute(&format!("DELETE FROM {table}"), &[])?;
        }
        sql.execute("DELETE FROM values_1 WHERE entry < 100000", &[])?;
        sql.execute("DELETE FROM entries WHERE id < 100000", &[])?;
        images.iter().try_for_each(|image| image.insert(sql))
    });
    filled.unwrap();
}

/// Who asks: may see what [`SEEN`] allows, and has the operation 1.
fn scope(from: &LogicalName) -> Scope<'_> {
    Scope {
        from,
        schema: Some(SCHEMA),
        names: &[SEEN],
        anonymous: &[SEEN],
        identifying: &[SEEN],
        operations: &[1],
        tokens: &Plain,
    }
}

/// Whether a query is true of a file: false, true or, as NULL makes it, unknown.
fn is_true(condition: &Condition, image: &Image) -> Option<bool> {
    match condition {
        Condition::And(all) => {
            let mut answers: Vec<Option<bool>> = all.iter().map(|one| is_true(one, image)).collect();
            answers.sort_by_key(|answer| answer.map_or(1, |is_true| if is_true { 2 } else { 0 }));
            answers[0]
        }
        Condition::Or(any) => {
            let mut answers: Vec<Option<bool>> = any.iter().map(|one| is_true(one, image)).collect();
            answers.sort_by_key(|answer| answer.map_or(1, |is_true| if is_true { 0 } else { 2 }));
            answers[0]
        }
        Condition::Not(inner) => is_true(inner, image).map(|is_true| !is_true),
        Condition::Test(test) => test_is_true(test, image),
    }
}

fn test_is_true(test: &Test, image: &Image) -> Option<bool> {
    let known = attributes(true).lookup(&test.name.0).unwrap();
    let (kind, found) = match known.column {
        Column::Field(Field::Size) => (Type::Integer, image.size.map(|size| vec![Datum::Integer(size)])),
        Column::Field(_) => (Type::String, Some(vec![Datum::Text(image.path())])),
        Column::Anonymous { number: CODES, .. } => {
            let codes = image.codes.as_ref();
            (
                Type::List,
                codes.map(|codes| codes.iter().map(|code| code.as_str().into()).collect()),
            )
        }
        Column::Anonymous { number, kind, .. } => (kind, image.values.get(&number).map(|value| vec![value.clone()])),
        Column::Identifying { .. } if !image.is_identified => return None,
        Column::Identifying {
            number, kind, person, ..
        } => {
            if let (true, Check::Like { pattern, .. }, Some(name)) = (person, &test.check, image.sealed.get(&number)) {
                let beginning = pattern.trim_end_matches('%').to_lowercase();
                return Some(Image::parts(name).any(|part| part.starts_with(&beginning)));
            }
            (kind, image.sealed.get(&number).map(|value| vec![value.as_str().into()]))
        }
    };
    if test.check == Check::IsNull {
        return Some(found.is_none());
    }
    let value = |literal: &Literal| value::convert(kind, &literal.text).unwrap();
    let among = |items: Vec<Datum>, is_so: &dyn Fn(&Datum) -> bool| items.iter().any(is_so);
    let items = found?;
    // Not equal is what equal is not: of lists that is not the same as an item that differs.
    if let Check::Compare(Comparison::NotEqual, literal) = &test.check {
        return Some(!among(items, &|item| compare(item, &value(literal)) == Order::Equal));
    }
    Some(among(items, &|item| match &test.check {
        Check::Compare(comparison, literal) => {
            let order = compare(item, &value(literal));
            match comparison {
                Comparison::Equal | Comparison::NotEqual => order == Order::Equal,
                Comparison::Less => order == Order::Less,
                Comparison::LessOrEqual => order != Order::Greater,
                Comparison::Greater => order == Order::Greater,
                Comparison::GreaterOrEqual => order != Order::Less,
            }
        }
        Check::In(literals) => literals.iter().any(|one| compare(item, &value(one)) == Order::Equal),
        Check::Between(from, to) => {
            compare(item, &value(from)) != Order::Less && compare(item, &value(to)) != Order::Greater
        }
        Check::Like { pattern, .. } => {
            let Datum::Text(text) = item else { return false };
            is_like(&text.chars().collect::<Vec<_>>(), &pattern.chars().collect::<Vec<_>>())
        }
        Check::IsNull => false,
    }))
}

fn is_like(text: &[char], pattern: &[char]) -> bool {
    match (pattern, text) {
        ([], rest) => rest.is_empty(),
        (['%', pattern @ ..], _) => (0..=text.len()).any(|skipped| is_like(&text[skipped..], pattern)),
        (['_', pattern @ ..], [_, text @ ..]) => is_like(text, pattern),
        ([letter, pattern @ ..], [first, text @ ..]) => letter == first && is_like(text, pattern),
        _ => false,
    }
}

fn compare(one: &Datum, other: &Datum) -> Order {
    match (one, other) {
        (Datum::Integer(one), Datum::Integer(other)) => one.cmp(other),
        (Datum::Real(one), Datum::Real(other)) => one.total_cmp(other),
        (Datum::Text(one), Datum::Text(other)) => one.cmp(other),
        _ => panic!("{one:?} and {other:?}"),
    }
}

/// The names that a query finds, in its order.
fn expected(query: &Query, images: &[Image]) -> Vec<String> {
    let is_found = |image: &&Image| {
        let condition = query.condition.as_ref();
        image.is_seen && condition.is_none_or(|condition| is_true(condition, image) == Some(true))
    };
    let mut found: Vec<&Image> = images.iter().filter(is_found).collect();
    found.sort_by(|one, other| {
        let mut last = false;
        for order in &query.order {
            let of = |image: &Image| match attributes(true).lookup(&order.name.0).unwrap().column {
                Column::Field(Field::Size) => image.size.map(Datum::Integer),
                Column::Field(Field::Created) => Some(Datum::Integer(i64::try_from(image.place % 3).unwrap())),
                Column::Field(_) => Some(Datum::Text(image.path())),
                Column::Anonymous { number, .. } | Column::Identifying { number, .. } => {
                    image.values.get(&number).cloned()
                }
            };
            last = order.descending;
            let ordering = match (of(one), of(other)) {
                (None, None) => Order::Equal,
                (None, Some(_)) => Order::Greater,
                (Some(_), None) => Order::Less,
                (Some(one), Some(other)) if order.descending => compare(&other, &one),
                (Some(one), Some(other)) => compare(&one, &other),
            };
            if ordering != Order::Equal {
                return ordering;
            }
        }
        match (query.order.is_empty(), last) {
            (true, _) => one.name.cmp(&other.name),
            (false, false) => one.place.cmp(&other.place),
            (false, true) => other.place.cmp(&one.place),
        }
    });
    let limit = query.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
    found.into_iter().take(limit).map(Image::path).collect()
}

/// All pages of a search, each of at most so many files.
fn found(database: &Database, query: &Query, files: u64) -> Vec<String> {
    let from = LogicalName::new("/myvo/scans").unwrap();
    let resolved = resolve(query, &attributes(true)).unwrap();
    let key = CursorKey::new(&[7; 32]).unwrap();
    let search = ["/CN=a", "/myvo/scans", &query.to_string()];
    let mut found = Vec::new();
    let mut after: Option<Position> = None;
    loop {
        let before = found.len();
        let page = Page {
            select: &["e.path"],
            after: after.as_ref(),
            files,
        };
        let next: Result<Option<Position>, DatabaseError> = database.read(|sql| {
            sql::page(sql, &resolved, &scope(&from), &page, &mut |mut row| {
                found.push(row.text(0)?);
                Ok(ControlFlow::Continue(()))
            })
        });
        let Some(next) = next.unwrap() else {
            return found;
        };
        assert_eq!(
            u64::try_from(found.len() - before).unwrap(),
            files,
            "a page with one behind it is full"
        );
        let text = key.seal(&next, &search).unwrap();
        after = Some(key.open(&text, &search).unwrap());
    }
}

fn check_search(database: &Database, query: &Query, images: &[Image], files: u64) {
    let expected = expected(query, images);
    assert_eq!(found(database, query, files), expected, "{query} by {files}");
    let from = LogicalName::new("/myvo/scans").unwrap();
    let resolved = resolve(query, &attributes(true)).unwrap();
    let counted: Result<u64, DatabaseError> = database.read(|sql| sql::count(sql, &resolved, &scope(&from)));
    assert_eq!(counted.unwrap(), u64::try_from(expected.len()).unwrap(), "{query}");
    // Whichever way it goes, no byte of what the user wrote is in the statement.
    let routes = [Route::Free, Route::Order, Route::First(0)];
    for (dialect, route) in routes
        .into_iter()
        .flat_map(|route| [(Dialect::Sqlite, route), (Dialect::Postgres, route)])
    {
        let page = Page {
            select: &["e.path"],
            after: None,
            files,
        };
        for statement in sql::statements(dialect, &resolved, &scope(&from), route, &page) {
            assert!(
                !statement.text.contains(['Z', '"', ';', '-', '%']),
                "{}",
                statement.text
            );
            assert!(statement.text.is_ascii(), "{}", statement.text);
        }
    }
}

// --- at random --------------------------------------------------------------------------------------------------------

/// Texts that databases and patterns may stumble over; each that is not found in statements has a Z.
const TEXTS: [&str; 8] = ["MZ", "MZ'; --", "Z%", "Z_", "mz", "Zä\u{10ffff}", "Z\\", "Z\"\n"];
const PATTERNS: [&str; 9] = ["%", "MZ%", "%Z%", "_Z", "Z\\%", "Z_", "Z\u{10ffff}%", "", "Zä%"];
const PERSONS: [&str; 4] = ["Miller^Zoe", "Zander^Miller", "O'Neill^Zä", "ZMILLER"];
const DAYS: [&str; 3] = ["2025-12-31", "2026-01-01", "2026-02-28"];
const HOURS: [&str; 3] = ["09:30:00", "09:30:00.5", "23:59:60"];
const RATIOS: [f64; 4] = [-0.5, 0.0, 1e300, 0.1];

fn optional<T: Clone + std::fmt::Debug + 'static>(values: &'static [T]) -> impl Strategy<Value = Option<T>> {
    proptest::option::weighted(0.75, proptest::sample::select(values))
}

fn image(place: usize) -> impl Strategy<Value = Image> {
    let anonymous = (
        optional(&TEXTS),
        proptest::option::of(-2..3_i64),
        optional(&RATIOS),
        optional(&DAYS),
        optional(&HOURS),
    );
    let codes = proptest::option::of(proptest::sample::subsequence(TEXTS.to_vec(), 0..3));
    let rest = (
        proptest::option::of(0..3_i64),
        codes,
        optional(&PERSONS),
        optional(&TEXTS),
    );
    let seen = (
        proptest::bool::weighted(0.8),
        any::<bool>(),
        proptest::sample::select(&["", "'\"", "ä", "%_"][..]),
    );
    (anonymous, rest, seen).prop_map(move |(anonymous, rest, seen)| {
        let (text, number, ratio, day, hour) = anonymous;
        let (size, codes, patient, accession) = rest;
        let values = [
            (TEXT, text.map(Datum::from)),
            (NUMBER, number.map(Datum::from)),
            (RATIO, ratio.map(Datum::from)),
            (DAY, day.map(Datum::from)),
            (HOUR, hour.map(Datum::from)),
        ];
        let sealed = [(PATIENT, patient), (ACCESSION, accession)];
        // Names are not in the order of the numbers.
        let name = format!("{}{}/{place}", seen.2, place * 7 % 10);
        Image {
            place,
            name,
            size,
            values: values
                .into_iter()
                .filter_map(|(number, value)| Some((number, value?)))
                .collect(),
            codes: codes.map(|codes| codes.into_iter().map(str::to_owned).collect()),
            sealed: sealed
                .into_iter()
                .filter_map(|(number, value)| Some((number, value?.to_owned())))
                .collect(),
            is_seen: seen.0,
            is_identified: seen.1,
        }
    })
}

fn images() -> impl Strategy<Value = Vec<Image>> {
    (0..40_usize).prop_flat_map(|count| (1..=count).map(image).collect::<Vec<_>>())
}

fn literal(name: &'static str) -> BoxedStrategy<Literal> {
    let quoted = |text: String| Literal { text, quoted: true };
    let bare = |text: String| Literal { text, quoted: false };
    match name {
        "number" | "Rows" | "size" => (-3..4_i64).prop_map(move |number| bare(number.to_string())).boxed(),
        "ratio" => proptest::sample::select(&RATIOS[..])
            .prop_map(move |number| bare(format!("{number:e}")))
            .boxed(),
        "day" => proptest::sample::select(&DAYS[..])
            .prop_map(move |day| bare(day.replace('-', "")))
            .boxed(),
        "hour" => proptest::sample::select(&HOURS[..])
            .prop_map(move |hour| quoted(hour.to_owned()))
            .boxed(),
        "patient" => proptest::sample::select(&PERSONS[..])
            .prop_map(move |name| quoted(name.to_owned()))
            .boxed(),
        "name" => (1..9_usize)
            .prop_map(move |place| quoted(format!("/myvo/scans/{place}/{place}")))
            .boxed(),
        _ => proptest::sample::select(&TEXTS[..])
            .prop_map(move |text| quoted(text.to_owned()))
            .boxed(),
    }
}

fn check(name: &'static str) -> BoxedStrategy<Check> {
    let equal = proptest::sample::select(&[Comparison::Equal, Comparison::NotEqual][..]);
    let equal = (equal, literal(name)).prop_map(|(comparison, literal)| Check::Compare(comparison, literal));
    let among = proptest::collection::vec(literal(name), 1..4).prop_map(Check::In);
    let any_half = prop_oneof![equal, among, Just(Check::IsNull)];
    let like = |patterns: &'static [&'static str]| {
        let pattern = proptest::sample::select(patterns);
        pattern.prop_map(|pattern| Check::Like {
            pattern: pattern.to_owned(),
            escape: None,
        })
    };
    match name {
        "accession" => any_half.boxed(),
        "patient" => prop_oneof![any_half, like(&["mill%", "ZOE%", "neill%", "zander%"])].boxed(),
        _ => {
            let comparison = proptest::sample::select(
                &[
                    Comparison::Less,
                    Comparison::LessOrEqual,
                    Comparison::Greater,
                    Comparison::GreaterOrEqual,
                ][..],
            );
            let compare =
                (comparison, literal(name)).prop_map(|(comparison, literal)| Check::Compare(comparison, literal));
            let between = (literal(name), literal(name)).prop_map(|(from, to)| Check::Between(from, to));
            let ordered = prop_oneof![any_half, compare, between];
            match name {
                "text" | "codes" => prop_oneof![2 => ordered, 1 => like(&PATTERNS)].boxed(),
                _ => ordered.boxed(),
            }
        }
    }
}

fn condition() -> impl Strategy<Value = Condition> {
    let names = [
        "text",
        "number",
        "Rows",
        "ratio",
        "day",
        "hour",
        "codes",
        "patient",
        "accession",
        "size",
        "name",
    ];
    let test = proptest::sample::select(names.to_vec()).prop_flat_map(|name| {
        check(name).prop_map(move |check| {
            Condition::Test(Test {
                name: Name(name.to_owned()),
                check,
            })
        })
    });
    test.prop_recursive(4, 12, 3, |inner| {
        let some = || proptest::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            some().prop_map(Condition::all),
            some().prop_map(Condition::any),
            inner.clone().prop_map(Condition::negated),
        ]
    })
}

fn query() -> impl Strategy<Value = Query> {
    let names = proptest::sample::subsequence(vec!["text", "number", "ratio", "day", "size", "created", "name"], 0..4)
        .prop_shuffle();
    let order = names.prop_flat_map(|names| {
        let order = |name: &'static str| {
            any::<bool>().prop_map(move |descending| super::Order {
                name: Name(name.to_owned()),
                descending,
            })
        };
        names.into_iter().map(order).collect::<Vec<_>>()
    });
    (
        proptest::option::weighted(0.9, condition()),
        order,
        proptest::option::weighted(0.3, 0..30_u64),
    )
        .prop_map(|(condition, order, limit)| Query {
            condition,
            order,
            limit,
        })
}

/// Random files and queries, against a database with the tables of [`prepare`].
pub(crate) fn check_searches(database: &Database, cases: u32) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let queries = proptest::collection::vec((query(), 1..8_u64), 12);
    let checked = runner.run(&(images(), queries), |(images, queries)| {
        fill(database, &images);
        for (query, files) in queries {
            check_search(database, &query, &images, files);
        }
        Ok(())
    });
    checked.unwrap();
}

fn sqlite(folder: &tempfile::TempDir) -> Database {
    let database = Database::new(Sqlite::create(&folder.path().join("catalog.db")).unwrap());
    database.write(prepare).unwrap();
    database
}

#[test]
fn sqlite_finds_what_a_plain_reading_of_the_query_says() {
    let folder = tempfile::tempdir().unwrap();
    check_searches(&sqlite(&folder), 40);
}

proptest! {
    #[test]
    fn what_is_printed_is_read_again(query in query()) {
        prop_assert_eq!(parse(&query.to_string()), Ok(query));
    }

    #[test]
    fn no_text_breaks_the_reading(text in "[ -~ä\n'\"()]{0,60}") {
        if let Ok(query) = parse(&text) {
            prop_assert_eq!(parse(&query.to_string()), Ok(query));
        }
    }
}

// --- how it is found --------------------------------------------------------------------------------------------------

/// What SQLite says of how it runs the statements of a page.
fn plans(database: &Database, query: &str, route: Route, after: Option<&Position>) -> Vec<String> {
    let from = LogicalName::new("/myvo/scans").unwrap();
    let resolved = resolved(query).unwrap();
    let page = Page {
        select: &["e.path"],
        after,
        files: 20,
    };
    let statements = sql::statements(Dialect::Sqlite, &resolved, &scope(&from), route, &page);
    statements
        .iter()
        .map(|statement| explained(database, statement))
        .collect()
}

fn explained(database: &Database, statement: &sql::Statement) -> String {
    let text = format!("EXPLAIN QUERY PLAN {}", statement.text);
    let lines: Result<_, DatabaseError> = database.read(|sql| rows(sql, &text, &statement.data));
    let lines: Vec<String> = lines.unwrap().into_iter().map(|mut row| row.text(3).unwrap()).collect();
    format!("{}\n{}", statement.text, lines.join("\n"))
}

#[test]
fn sqlite_walks_along_indexes() {
    let folder = tempfile::tempdir().unwrap();
    let database = sqlite(&folder);
    const SORTED: &str = "USE TEMP B-TREE FOR ORDER BY";
    let at = |values: Vec<Datum>| Position { seen: 20, values };
    let name = at(vec!["/myvo/scans/x".into()]);
    let number = at(vec![3.into(), 17.into()]);
    let none = at(vec![Datum::Null, 17.into()]);
    for (query, after, steps) in [
        (
            "text = 'MR'",
            None,
            vec!["entries_schema (schema=? AND kind=? AND path>? AND path<?)"],
        ),
        (
            "text = 'MR'",
            Some(&name),
            vec!["entries_schema (schema=? AND kind=? AND path>? AND path<?)"],
        ),
        (
            "text = 'x' ORDER BY number DESC",
            None,
            vec!["values_1_a2 (a2>?)", "values_1_a2 (a2=?)"],
        ),
        (
            "ORDER BY number",
            Some(&number),
            vec![
                "values_1_a2 (a2=? AND entry>?)",
                "values_1_a2 (a2>?)",
                "values_1_a2 (a2=?)",
            ],
        ),
        (
            "ORDER BY number DESC",
            Some(&number),
            vec![
                "values_1_a2 (a2=? AND entry<?)",
                "values_1_a2 (a2<?)",
                "values_1_a2 (a2=?)",
            ],
        ),
        ("ORDER BY number", Some(&none), vec!["values_1_a2 (a2=? AND entry>?)"]),
        (
            "number BETWEEN 1 AND 5 ORDER BY number DESC",
            None,
            vec!["values_1_a2 (a2>? AND a2<?)", "values_1_a2 (a2=?)"],
        ),
        (
            "number > 1 AND number <= 5 ORDER BY number",
            Some(&number),
            vec![
                "values_1_a2 (a2=? AND entry>?)",
                "values_1_a2 (a2>? AND a2<?)",
                "values_1_a2 (a2=?)",
            ],
        ),
    ] {
        let plans = plans(&database, query, Route::Order, after);
        assert_eq!(plans.len(), steps.len(), "{query}");
        for (plan, step) in plans.iter().zip(steps) {
            assert!(plan.contains(step), "{query}: {step} in\n{plan}");
            assert!(
                !plan.contains(SORTED) && !plan.contains("SCAN e") && !plan.contains("SCAN v"),
                "{query}:\n{plan}"
            );
        }
    }
    let moment = at(vec![3.into(), 17.into()]);
    for (query, after, steps) in [
        (
            "ORDER BY created DESC",
            None,
            vec!["entries_created (schema=? AND kind=?)"],
        ),
        (
            "ORDER BY modified",
            Some(&moment),
            vec![
                "entries_modified (schema=? AND kind=? AND modified=? AND id>?)",
                "entries_modified (schema=? AND kind=? AND modified>?)",
            ],
        ),
        (
            "text = 'MR' AND size > 1 ORDER BY size",
            None,
            vec![
                "entries_size (schema=? AND kind=? AND size>?)",
                "entries_size (schema=? AND kind=? AND size=?)",
            ],
        ),
    ] {
        let plans = plans(&database, query, Route::Order, after);
        assert_eq!(plans.len(), steps.len(), "{query}");
        for (plan, step) in plans.iter().zip(steps) {
            assert!(
                plan.contains(step) && !plan.contains(SORTED),
                "{query}: {step} in\n{plan}"
            );
        }
    }
    for (query, step) in [
        ("text = 'MR' AND ratio > 1", "values_1_a1 (a1=?)"),
        (
            "created > 2026-01-01",
            "entries_created (schema=? AND kind=? AND created>?)",
        ),
        ("day BETWEEN 20260101 AND 20260201", "values_1_a4 (a4>? AND a4<?)"),
        ("text LIKE 'M%'", "values_1_a1 (a1>? AND a1<?)"),
        ("codes = 'x'", "(attribute=? AND item=?)"),
        ("patient LIKE 'mill%'", "(attribute=? AND token=?)"),
        ("name = '/myvo/scans/x' ORDER BY number", "(path=?)"),
    ] {
        let plan = plans(&database, query, Route::First(0), None).remove(0);
        assert!(plan.contains(step), "{query}: {step} in\n{plan}");
        assert!(
            plan.contains("SEARCH e USING INTEGER PRIMARY KEY (rowid=?)"),
            "{query}:\n{plan}"
        );
        assert!(!plan.contains("SCAN e") && !plan.contains("SCAN v"), "{query}:\n{plan}");
    }
}

#[test]
fn sqlite_counts_along_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let database = sqlite(&folder);
    let from = LogicalName::new("/myvo/scans").unwrap();
    for (query, step, reads_values) in [
        ("text = 'MR'", "values_1_a1 (a1=?)", true),
        ("ratio = 1 AND number < 5", "values_1_a2 (a2<?)", true),
        (
            "ratio = 1",
            "entries_schema (schema=? AND kind=? AND path>? AND path<?)",
            true,
        ),
        ("", "entries_schema (schema=? AND kind=? AND path>? AND path<?)", false),
        ("patient = 'x'", "(attribute=? AND token=?)", false),
    ] {
        let resolved = resolved(query).unwrap();
        let route = sql::counting_route(&resolved);
        let statement = sql::counting(Dialect::Sqlite, &resolved, &scope(&from), route);
        let lines = explained(&database, &statement);
        assert!(lines.contains(step), "{query}: {step} in\n{lines}");
        assert_eq!(lines.contains(" v "), reads_values, "{query}:\n{lines}");
    }
}

/// What PostgreSQL says of how it runs the statements of a page, among many files.
pub(crate) fn check_plans_of_postgres(database: &Database) {
    let filled: Result<(), DatabaseError> = database.write(|sql| {
        let numbers = "WITH n(i) AS (SELECT generate_series(CAST(1 AS BIGINT), 20000))";
        let entries = "INSERT INTO entries(id, path, kind, guid, schema, size, created, modified, version, name_record, \
             anonymous_record, identifying_record) \
             SELECT i, '/myvo/scans/' || (i % 7) || '/' || i, 1, 'g' || i, 1, i, i, i, 1, 1, 1, 1 FROM n";
        sql.execute(&format!("{numbers} {entries}"), &[])?;
        let values = "INSERT INTO values_1(entry, a1, a2) \
             SELECT i, CASE WHEN i % 10 < 4 THEN 'MR' ELSE 'U' || i END, i % 1000 FROM n";
        sql.execute(&format!("{numbers} {values}"), &[])?;
        sql.execute(&format!("{numbers} INSERT INTO tokens(attribute, token, entry) SELECT 6, convert_to('6=' || i, 'UTF8'), i FROM n"), &[])?;
        sql.define("ANALYZE")
    });
    filled.unwrap();
    let from = LogicalName::new("/myvo/scans").unwrap();
    let at = |values: Vec<Datum>| Position { seen: 20, values };
    let name = at(vec!["/myvo/scans/3".into()]);
    let number = at(vec![500.into(), 17.into()]);
    for (query, after, step) in [
        ("", None, "entries_schema"),
        ("text = 'MR'", Some(&name), "entries_schema"),
        ("text = 'U77'", None, "values_1_a1"),
        ("ORDER BY number", Some(&number), "values_1_a2"),
        ("ORDER BY number DESC", None, "values_1_a2"),
        ("ORDER BY created DESC", None, "entries_created"),
        ("ORDER BY modified", Some(&number), "entries_modified"),
        ("text = 'MR' ORDER BY size", None, "entries_size"),
        ("patient = '77'", None, "tokens_"),
    ] {
        let resolved = resolved(query).unwrap();
        let page = Page {
            select: &["e.path"],
            after,
            files: 20,
        };
        for statement in sql::statements(Dialect::Postgres, &resolved, &scope(&from), Route::Free, &page) {
            let lines: Result<_, DatabaseError> = database.read(|sql| {
                let text = format!("EXPLAIN {}", statement.text);
                rows(sql, &text, &statement.data)
            });
            let lines: Vec<String> = lines.unwrap().into_iter().map(|mut row| row.text(0).unwrap()).collect();
            let plan = lines.join("\n");
            let walks_none = statement.text.contains("IS NULL ORDER");
            assert!(
                plan.contains(step) || walks_none,
                "{query}: {step} in\n{}\n{plan}",
                statement.text
            );
            assert!(!plan.contains("Seq Scan"), "{query}:\n{plan}");
        }
    }
}

#[test]
fn few_files_are_sorted_and_many_are_walked() {
    let folder = tempfile::tempdir().unwrap();
    let database = sqlite(&folder);
    let filled: Result<(), DatabaseError> = database.write(|sql| {
        sql.execute("DELETE FROM values_1", &[])?;
        let count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)";
        let text = format!("{count} INSERT INTO values_1(entry, a1, a2) SELECT i, 'MR', i FROM n");
        sql.execute(&text, &[(sql::FEW + 10).into()])?;
        Ok(())
    });
    filled.unwrap();
    let from = LogicalName::new("/myvo/scans").unwrap();
    for (query, route) in [
        ("", Route::Order),
        ("text = 'MR'", Route::Order),
        ("text = 'CT'", Route::First(0)),
        ("text = 'MR' AND number < 40", Route::First(1)),
        ("text = 'MR' AND number < 40 AND number = 3", Route::First(2)),
        ("text = 'MR' OR number < 40", Route::Order),
        ("NOT text = 'CT'", Route::Order),
        ("ratio = 1 AND number IN (1, 2)", Route::First(1)),
    ] {
        let resolved = resolved(query).unwrap();
        let chosen: Result<Route, DatabaseError> = database.read(|sql| sql::choose(sql, &resolved, &scope(&from)));
        assert_eq!(chosen.unwrap(), route, "{query}");
    }
}
