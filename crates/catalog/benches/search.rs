//! Searches among a million images, beside bare SQL that answers the same files without asking who may see them, on
//! SQLite and PostgreSQL in turn; medians and their ratios (`docs/src/performance.md`).
//!
//! `cargo bench -p hydra-eds-catalog --bench search -- --images 1000000 --rounds 15 --postgres`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench may stop at the first surprise, and prints what it measured"
)]

#[path = "../src/database/postgres/server.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod server;

use std::ops::ControlFlow;
use std::time::Instant;

use mdm_catalog::LogicalName;
use mdm_catalog::database::postgres::{Postgres, Settings};
use mdm_catalog::database::sqlite::Sqlite;
use mdm_catalog::database::{Database, DatabaseError, Datum, Dialect, rows};
use mdm_catalog::query::resolve::{Resolved, SchemaAttributes};
use mdm_catalog::query::sql::{self, Page, Scope, Tokens};
use mdm_catalog::query::{Position, parse, resolve};
use mdm_catalog::wire::{AttributeDefinition, Part, Type};

const MODALITY: i64 = 1;
const STUDY: i64 = 2;
const YEAR: i64 = 3;
const THICKNESS: i64 = 4;
const PATIENT: i64 = 5;

fn attributes() -> SchemaAttributes {
    let attribute = |name: &str, kind, half, indexed, dicom: Option<&str>| AttributeDefinition {
        name: name.to_owned(),
        kind,
        half,
        indexed,
        dicom: dicom.map(str::to_owned),
    };
    let patient = attribute("patient", Type::String, Part::Identifying, true, Some("PatientName"));
    SchemaAttributes {
        attributes: vec![
            (
                MODALITY,
                attribute("modality", Type::String, Part::Anonymous, true, None),
            ),
            (STUDY, attribute("study_uid", Type::String, Part::Anonymous, true, None)),
            (
                YEAR,
                attribute("study_year", Type::Integer, Part::Anonymous, true, None),
            ),
            (
                THICKNESS,
                attribute("slice_thickness", Type::Float, Part::Anonymous, false, None),
            ),
            (PATIENT, patient),
        ],
        identifying: true,
    }
}

/// Not hashed: that costs the same for a search and for bare SQL.
struct Plain;

impl Tokens for Plain {
    fn whole(&self, _: i64, value: &str) -> Vec<u8> {
        value.as_bytes().to_vec()
    }

    fn name_part(&self, _: i64, part: &str) -> Vec<u8> {
        part.as_bytes().to_vec()
    }
}

/// Images by the database itself: a hundred to a study, 40 of 100 `MR`, each fourth under permissions that the caller
/// has not.
fn fill(database: &Database, images: i64) -> Result<(), DatabaseError> {
    let (numbers, bytes) = match database.dialect() {
        Dialect::Sqlite => (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)",
            "CAST(('patient' || (i / 100)) AS BLOB)",
        ),
        Dialect::Postgres => (
            "WITH n(i) AS (SELECT generate_series(CAST(1 AS BIGINT), CAST(?1 AS BIGINT)))",
            "convert_to('patient' || (i / 100), 'UTF8')",
        ),
    };
    let count = [Datum::Integer(images)];
    database.write(|sql| {
        let records: Vec<String> = (1..=64).map(|record| format!("({record}, '{record}', '{record}')")).collect();
        sql.execute(&format!("INSERT INTO records(id, record, digest) VALUES {}", records.join(", ")), &[])?;
        sql.execute("INSERT INTO schemas(id, directory) VALUES (1, 1)", &[])?;
        for (number, definition) in attributes().attributes {
            let text = "INSERT INTO attributes(id, schema, name, folded, kind, identifying, indexed) \
                        VALUES (?1, 1, ?2, ?2, 'string', 0, 1)";
            sql.execute(text, &[number.into(), definition.name.into()])?;
        }
        sql.define(&sql.dialect().definition(
            "CREATE TABLE values_1(entry {KEY} REFERENCES entries(id), a1 {TEXT}, a2 {TEXT}, a3 BIGINT, \
             a4 DOUBLE PRECISION)",
        ))?;
        let entries = "INSERT INTO entries(id, path, kind, guid, schema, size, created, modified, version, name_record, \
             anonymous_record, identifying_record) \
             SELECT i, '/myvo/site' || (i % 7) || '/' || (i / 100) || '/' || i, 1, 'g' || i, 1, 1000, i / 10, 0, 1, \
             i % 64 + 1, i % 64 + 1, i % 64 + 1 FROM n";
        sql.execute(&format!("{numbers} {entries}"), &count)?;
        let values = "INSERT INTO values_1(entry, a1, a2, a3, a4) \
             SELECT i, CASE WHEN i / 100 % 10 < 4 THEN 'MR' WHEN i / 100 % 10 < 8 THEN 'CT' ELSE 'US' END, \
             '1.2.' || (i / 100), CASE WHEN i % 11 > 0 THEN 2000 + i / 100 % 26 END, i % 50 / 10.0 FROM n";
        sql.execute(&format!("{numbers} {values}"), &count)?;
        let tokens = format!("INSERT INTO tokens(attribute, token, entry) SELECT {PATIENT}, {bytes}, i FROM n");
        sql.execute(&format!("{numbers} {tokens}"), &count)?;
        sql.define(
            "CREATE INDEX values_1_a1 ON values_1(a1, entry); CREATE INDEX values_1_a2 ON values_1(a2, entry); \
             CREATE INDEX values_1_a3 ON values_1(a3, entry); ANALYZE",
        )
    })
}

/// What is measured: a query of ours, and SQL that finds files of the same kind.
struct Case {
    what: &'static str,
    query: &'static str,
    after: Option<Position>,
    count: bool,
    bare: &'static str,
    data: Vec<Datum>,
}

fn cases(images: i64) -> Vec<Case> {
    let case = |what, query, bare, data: Vec<Datum>| Case {
        what,
        query,
        after: None,
        count: false,
        bare,
        data,
    };
    let of_order = "SELECT e.path, v.a3, v.entry FROM values_1 v JOIN entries e ON e.id = v.entry";
    vec![
        case(
            "a study of 100 images",
            "study_uid = '1.2.77'",
            "SELECT e.path FROM values_1 v JOIN entries e ON e.id = v.entry WHERE v.a2 = ?1 ORDER BY e.path LIMIT 100",
            vec!["1.2.77".into()],
        ),
        case(
            "a common value, first 100 by name",
            "modality = 'MR'",
            "SELECT e.path FROM entries e JOIN values_1 v ON v.entry = e.id WHERE e.schema = 1 AND e.kind = 1 AND \
             v.a1 = ?1 ORDER BY e.path LIMIT 100",
            vec!["MR".into()],
        ),
        case(
            "a range, the last 20 of it",
            "modality = 'MR' AND study_year BETWEEN 2010 AND 2015 ORDER BY study_year DESC LIMIT 20",
            "SELECT e.path FROM values_1 v JOIN entries e ON e.id = v.entry WHERE v.a1 = ?1 AND v.a3 BETWEEN ?2 AND ?3 \
             ORDER BY v.a3 DESC, v.entry DESC LIMIT 20",
            vec!["MR".into(), 2010.into(), 2015.into()],
        ),
        Case {
            after: Some(Position {
                seen: 0,
                values: vec![2013.into(), (images / 2).into()],
            }),
            ..case(
                "100 behind the middle of an order",
                "ORDER BY study_year",
                of_order,
                Vec::new(),
            )
        },
        case(
            "the newest 20",
            "ORDER BY created DESC LIMIT 20",
            "SELECT path FROM entries WHERE schema = 1 AND kind = 1 ORDER BY created DESC, id DESC LIMIT 20",
            Vec::new(),
        ),
        case(
            "a part of a patient's name",
            "patient LIKE 'patient77%'",
            "SELECT e.path FROM tokens t JOIN entries e ON e.id = t.entry WHERE t.attribute = 5 AND t.token = ?1 \
             ORDER BY e.path LIMIT 100",
            vec![b"patient77".to_vec().into()],
        ),
        Case {
            count: true,
            ..case(
                "counting a study",
                "study_uid = '1.2.77'",
                "SELECT count(*) FROM values_1 WHERE a2 = ?1",
                vec!["1.2.77".into()],
            )
        },
        Case {
            count: true,
            ..case(
                "counting a common value",
                "modality = 'MR'",
                "SELECT count(*) FROM values_1 v JOIN entries e ON e.id = v.entry WHERE v.a1 = ?1 AND e.schema = 1",
                vec!["MR".into()],
            )
        },
    ]
}

fn ours(database: &Database, case: &Case, resolved: &Resolved) -> Result<u64, DatabaseError> {
    let from = LogicalName::new("/myvo").unwrap();
    let records: Vec<i64> = (1..=64).filter(|record| record % 4 != 0).collect();
    let scope = Scope {
        from: &from,
        schema: Some(1),
        names: &records,
        anonymous: &records,
        identifying: &records,
        operations: &[],
        tokens: &Plain,
    };
    database.read(|sql| {
        if case.count {
            return sql::count(sql, resolved, &scope);
        }
        let page = Page {
            select: &["e.path"],
            after: case.after.as_ref(),
            files: 100,
        };
        let mut found = 0;
        sql::page(sql, resolved, &scope, &page, &mut |_| {
            found += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    })
}

fn bare(database: &Database, case: &Case) -> Result<usize, DatabaseError> {
    let behind = "WHERE (v.a3, v.entry) > (?1, ?2) ORDER BY v.a3, v.entry LIMIT 100";
    let (text, data) = match &case.after {
        Some(after) => (format!("{} {behind}", case.bare), after.values.as_slice()),
        None => (case.bare.to_owned(), case.data.as_slice()),
    };
    Ok(database.read(|sql| rows(sql, &text, data))?.len())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn measure(name: &str, database: &Database, images: i64, rounds: usize) {
    let start = Instant::now();
    fill(database, images).unwrap();
    println!(
        "\n{name}: {images} images, made in {:.0} s\n",
        start.elapsed().as_secs_f64()
    );
    println!("| what | files | search, ms | bare SQL, ms | ratio | searches a second |");
    println!("|---|---:|---:|---:|---:|---:|");
    for case in cases(images) {
        let resolved = resolve(&parse(case.query).unwrap(), &attributes()).unwrap();
        let found = ours(database, &case, &resolved).unwrap();
        bare(database, &case).unwrap();
        let mut times = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let start = Instant::now();
            ours(database, &case, &resolved).unwrap();
            times.0.push(start.elapsed().as_secs_f64() * 1e3);
            let start = Instant::now();
            bare(database, &case).unwrap();
            times.1.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let (search, bare) = (median(times.0), median(times.1));
        println!(
            "| {} | {found} | {search:.2} | {bare:.2} | {:.1} | {:.0} |",
            case.what,
            search / bare,
            1e3 / search
        );
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, usual: i64| {
        let place = arguments.iter().position(|argument| argument == name);
        let given = place.and_then(|place| arguments.get(place + 1)?.parse().ok());
        given.unwrap_or(usual)
    };
    // `cargo test --benches` only wants to see it run.
    let is_test = !arguments.iter().any(|argument| argument == "--bench");
    let images = number("--images", if is_test { 2000 } else { 1_000_000 });
    let rounds = usize::try_from(number("--rounds", if is_test { 1 } else { 15 })).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sqlite = Database::new(Sqlite::create(&folder.path().join("catalog.db")).unwrap());
    measure("SQLite", &sqlite, images, rounds);
    if arguments.iter().any(|argument| argument == "--postgres") {
        let server = server::Server::start(&["shared_buffers=512MB"]);
        let settings = Settings::new(&server.database("bench")).unwrap();
        let postgres = Database::new(Postgres::create(settings).unwrap());
        measure("PostgreSQL", &postgres, images, rounds);
    }
}
