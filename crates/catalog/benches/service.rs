//! The catalogue as a process, asked over mutual TLS by several clients at once: registrations, and searches among a
//! million images, on SQLite and PostgreSQL in turn, each beside bare SQL that writes the same rows, or finds the same
//! kind of files, without a network and asking nobody's permission (`docs/src/performance.md`). Numbers are printed,
//! nothing passes or fails.
//!
//! `cargo bench -p hydra-eds-catalog --bench service -- --images 1000000 --seconds 5 --clients 4 --postgres`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench may stop at the first surprise, and prints what it measured"
)]

#[path = "../src/database/postgres/server.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod server;

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use grid_identity::{Credential, Policy, TrustStore, tls};
use hydra_core::config::Timeouts;
use mdm_catalog::database::postgres::{Postgres, Settings};
use mdm_catalog::database::sqlite::Sqlite;
use mdm_catalog::database::{Database, DatabaseError, Datum, Dialect, Row, Sql, insert, row, rows};
use mdm_catalog::wire::{Answer, Attributes, Kind, NewEntry, SchemaChange, Search, Value};
use mdm_catalog::{CatalogClient, LogicalName, image};
use server::Server;
use testgrid::pki::{Pki, PkiOptions};

/// Images of a series, which is a directory.
const SERIES: u64 = 100;

#[derive(Clone, Copy)]
struct Options {
    images: i64,
    time: Duration,
    clients: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    // `cargo test --benches` only wants to see it run.
    let is_test = !has("--bench");
    let number = |name: &str, usual: u64, test: u64| {
        let place = arguments.iter().position(|argument| argument == name);
        let given = place.and_then(|place| arguments.get(place + 1)?.parse().ok());
        given.unwrap_or(if is_test { test } else { usual })
    };
    let options = Options {
        images: i64::try_from(number("--images", 1_000_000, 2000)).unwrap(),
        time: Duration::from_millis(number("--seconds", 5, 0) * 1000 + 100),
        clients: usize::try_from(number("--clients", 4, 2)).unwrap(),
    };
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::create(&folder.path().join("pki"), &PkiOptions::default()).unwrap();
    println!(
        "A catalogue as a process, {} clients over mutual TLS; bare SQL in this process, without a network.",
        options.clients
    );
    let sqlite = |name: &str| (folder.path().join(name), None);
    if !has("--only-postgres") {
        measure("SQLite", &pki, &sqlite("sqlite"), &sqlite("sqlite-bare"), options);
    }
    if has("--postgres") || has("--only-postgres") {
        let server = Server::start(&["shared_buffers=512MB", "max_wal_size=4GB"]);
        let postgres = |name: &str| {
            (
                folder.path().join(name),
                Some(server.database(&format!("bench_{}", name.replace('-', "_")))),
            )
        };
        let (place, bare) = (postgres("postgres"), postgres("postgres-bare"));
        measure("PostgreSQL", &pki, &place, &bare, options);
    }
}

type Place = (PathBuf, Option<String>);

fn measure(name: &str, pki: &Pki, place: &Place, bare: &Place, options: Options) {
    let catalogue = Catalogue::start(pki, place);
    let bare_catalogue = Catalogue::start(pki, bare);
    for one in [&catalogue, &bare_catalogue] {
        prepare(&one.client(pki));
    }
    let bare_database = open(bare);
    println!("\n{name}\n");
    println!("| registered | images a second | bare SQL | ratio |\n|---|---:|---:|---:|");
    for (what, batch) in [("one a request", 1), ("100 a request", 100), ("1000 a request", 1000)] {
        let ours = registering(&catalogue, pki, batch, options);
        let bare = bare_registering(&bare_database, batch, options);
        println!("| {what} | {ours:.0} | {bare:.0} | {:.2} |", ours / bare);
    }
    let start = Instant::now();
    let database = open(place);
    fill(&database, options.images).unwrap();
    println!(
        "\n{} images, made in {:.0} s\n",
        options.images,
        start.elapsed().as_secs_f64()
    );
    println!("| searched | files | searches a second | bare SQL | ratio |\n|---|---:|---:|---:|---:|");
    for case in cases(&database) {
        let (found, ours) = searching(&catalogue, pki, &case, options);
        let bare = bare_searching(&database, &case, options);
        println!(
            "| {} | {found} | {ours:.1} | {bare:.1} | {:.2} |",
            case.what,
            ours / bare
        );
    }
}

// --- the process ------------------------------------------------------------------------------------------------------

struct Catalogue {
    child: Child,
    url: String,
}

impl Catalogue {
    fn start(pki: &Pki, (folder, database): &Place) -> Self {
        let program = env!("CARGO_BIN_EXE_mdm-catalog");
        let (certificate, key) = pki.host("catalog");
        let mut init = Command::new(program);
        init.arg("init")
            .arg(folder)
            .args(["--name", "bench", "--key-in-file", "--listen", "127.0.0.1:0"]);
        init.arg("--certificate").arg(certificate).arg("--key").arg(key);
        init.arg("--ca-dir").arg(pki.certificates());
        init.arg("--create")
            .arg(format!("/myvo/={}", pki.user_dn("alice").unwrap()));
        if let Some(url) = database {
            init.args(["--database", url]);
        }
        assert!(
            init.stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
        );
        let config = folder.join("mdm-catalog.toml");
        let mut text = std::fs::read_to_string(&config).unwrap();
        for limit in ["items_per_second", "burst_items"] {
            let line = text.lines().find(|line| line.starts_with(limit)).unwrap().to_owned();
            text = text.replace(&line, &format!("{limit} = 4000000"));
        }
        std::fs::write(&config, text.replace("log = \"info\"", "log = \"warn\"")).unwrap();
        let mut serve = Command::new(program);
        let mut child = serve.arg("serve").arg(&config).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        let url = line.trim().trim_start_matches("listening on ").to_owned();
        Self { child, url }
    }

    fn client(&self, pki: &Pki) -> CatalogClient {
        let (certificate, key) = pki.user("alice");
        let credential = Credential::from_cert_and_key(&certificate, &key, None).unwrap();
        let trust = TrustStore::directory(pki.certificates(), Policy::client(false)).unwrap();
        let tls = tls::client_config(&credential, Arc::new(trust)).unwrap();
        CatalogClient::from_parts(&self.url, Timeouts::default(), tls, credential.dn()).unwrap()
    }
}

impl Drop for Catalogue {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open((folder, database): &Place) -> Database {
    match database {
        None => Database::new(Sqlite::open(&folder.join("catalog.db")).unwrap()),
        Some(url) => Database::new(Postgres::open(Settings::new(url).unwrap()).unwrap()),
    }
}

fn prepare(client: &CatalogClient) {
    let directory = |path: &str| NewEntry::of(LogicalName::new(path).unwrap(), Kind::Directory);
    client.create_one(&directory("/myvo")).unwrap();
    let change = SchemaChange {
        path: LogicalName::new("/myvo").unwrap(),
        add: image::schema(),
        remove: Vec::new(),
    };
    client.change_schema(&change).unwrap();
}

// --- registrations ----------------------------------------------------------------------------------------------------

fn path_of(number: u64) -> String {
    let series = number / SERIES;
    format!(
        "/myvo/bench/1.2.826.{}/1.2.826.{series}.1/1.2.826.{series}.1.{number}",
        series / 3
    )
}

/// An image as `mdm-register` describes it.
fn image_of(number: u64) -> NewEntry {
    let study = number / SERIES / 3;
    let text = |text: String| Value::Text(text);
    let attributes = [
        ("modality", text("MR".into())),
        ("body_part", text("HEAD".into())),
        ("manufacturer", text("Acme".into())),
        ("model", text("Attract 3000".into())),
        ("rows", Value::Integer(512)),
        ("columns", Value::Integer(512)),
        ("slice_thickness", Value::Float(1.25)),
        ("field_strength", Value::Float(3.0)),
        ("patient_sex", text("F".into())),
        ("age_group", text("40-44".into())),
        ("study_year", Value::Integer(2000 + i64::try_from(study % 26).unwrap())),
        ("study_uid", text(format!("2.25.{study}"))),
        ("series_uid", text(format!("2.25.{}", number / SERIES))),
        ("instance_uid", text(format!("2.25.{number}"))),
        ("sop_class", text("1.2.840.10008.5.1.4.1.1.4".into())),
        ("transfer_syntax", text("1.2.840.10008.1.2.1".into())),
        ("patient_name", text(format!("Miller{study}^Anna"))),
        ("patient_id", text(format!("P{study}"))),
        ("birth_date", text("1980-02-29".into())),
        ("accession_number", text(format!("A{study}"))),
        ("original_study_uid", text(format!("1.2.826.{study}"))),
        ("original_series_uid", text(format!("1.2.826.{study}.1"))),
        ("original_instance_uid", text(format!("1.2.826.{study}.1.{number}"))),
        ("study_date", text("2024-02-29".into())),
    ];
    NewEntry {
        parents: true,
        key_id: Some(format!("/myvo/images/{}", number / SERIES)),
        replicas: vec![
            format!("dicom://PACS@pacs:104/1/2/{number}"),
            format!("root://se.example.org:1094//eds/{number}"),
        ],
        attributes: attributes
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<Attributes>(),
        ..NewEntry::of(LogicalName::new(path_of(number)).unwrap(), Kind::File)
    }
}

/// Runs `work` on as many threads as there are clients, until the time is over; how much it did in a second.
fn rate(options: Options, work: impl Fn(usize) -> Box<dyn FnMut() -> u64> + Sync) -> f64 {
    let done = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..options.clients {
            let (work, done) = (&work, &done);
            scope.spawn(move || {
                let mut one = work(client);
                while start.elapsed() < options.time {
                    done.fetch_add(one(), Ordering::Relaxed);
                }
            });
        }
    });
    done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

/// Each batch of its own directory.
fn first_of_batch(batch: u64) -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(batch.max(1), Ordering::Relaxed)
}

fn registering(catalogue: &Catalogue, pki: &Pki, batch: u64, options: Options) -> f64 {
    rate(options, |_| {
        let client = catalogue.client(pki);
        Box::new(move || {
            let first = first_of_batch(batch);
            let images: Vec<NewEntry> = (first..first + batch).map(image_of).collect();
            let answers = client.create(&images).unwrap();
            assert!(answers.iter().all(|answer| matches!(answer, Answer::Done(_))));
            batch
        })
    })
}

/// The same rows without anything that makes them: one entry, its values, tokens, replica and line of the log.
fn bare_registering(database: &Database, batch: u64, options: Options) -> f64 {
    let (columns, tokens) = database.read(|sql| columns_of(sql)).unwrap();
    rate(options, |_| {
        let (database, columns, tokens) = (database.clone(), columns.clone(), tokens.clone());
        Box::new(move || {
            let first = first_of_batch(batch);
            let written: Result<(), DatabaseError> = database.write(|sql| {
                let last = row(sql, "SELECT coalesce(max(sequence), 0) FROM audit", &[])?
                    .unwrap()
                    .integer(0)?;
                for (line, number) in (last + 1..).zip(first..first + batch) {
                    bare_image(sql, number, line, &columns, &tokens)?;
                }
                Ok(())
            });
            written.unwrap();
            batch
        })
    })
}

type Columns = BTreeMap<String, i64>;

/// The numbers of the attributes: those with a column, and the indexed ones without.
fn columns_of(sql: &dyn Sql) -> Result<(Columns, Vec<i64>), DatabaseError> {
    let (mut columns, mut tokens) = (Columns::new(), Vec::new());
    for mut row in rows(sql, "SELECT id, name, identifying FROM attributes", &[])? {
        if row.integer(2)? == 0 {
            columns.insert(row.text(1)?, row.integer(0)?);
        } else {
            tokens.push(row.integer(0)?);
        }
    }
    Ok((columns, tokens))
}

fn bare_image(sql: &dyn Sql, number: u64, line: i64, columns: &Columns, tokens: &[i64]) -> Result<(), DatabaseError> {
    let image = image_of(number);
    let entry = "INSERT INTO entries(parent, path, kind, guid, schema, key_id, status, created, modified, version, \
                 name_record, anonymous_record, identifying_record, identifying) \
                 VALUES (1, ?1, 1, ?2, 1, ?3, 'nearline', 1, 1, 1, 1, 1, 1, ?4) RETURNING id";
    let guid = format!(
        "{:08x}-0000-4000-8000-{number:012x}",
        number.wrapping_mul(0x9e37_79b9) as u32
    );
    let data = [
        image.path.as_str().into(),
        guid.into(),
        image.key_id.into(),
        vec![7_u8; 29 + 768].into(),
    ];
    let id = row(sql, entry, &data)?.unwrap().integer(0)?;
    let replica = "INSERT INTO replicas(entry, place, url) VALUES (?1, 1, ?2)";
    sql.execute(replica, &[id.into(), image.replicas[1].as_str().into()])?;
    let mut names = String::from("entry");
    let mut places = String::from("?1");
    let mut data: Vec<Datum> = vec![id.into()];
    for (name, value) in image.attributes {
        let Some(column) = columns.get(&name) else { continue };
        data.push(match value {
            Value::Integer(number) => number.into(),
            Value::Float(number) => number.into(),
            Value::Text(text) => text.into(),
            _ => Datum::Null,
        });
        names.push_str(&format!(", a{column}"));
        places.push_str(&format!(", ?{}", data.len()));
    }
    sql.execute(&format!("INSERT INTO values_1({names}) VALUES ({places})"), &data)?;
    // A name of ten letters and more has that many.
    let token = |index: usize| {
        let mixed = (number * 32 + index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bytes = [mixed.to_be_bytes(), number.to_be_bytes()].concat();
        vec![tokens[index % tokens.len()].into(), bytes.into(), id.into()]
    };
    insert(
        sql,
        "INSERT INTO tokens(attribute, token, entry)",
        (0..18).map(token).collect(),
        "",
    )?;
    let audit = "INSERT INTO audit(sequence, at, dn, operation, subject, outcome, hash) \
                 VALUES (?1, 1, '/DC=org/DC=hydragrid/CN=alice', 'create', ?2, 'done', ?3)";
    sql.execute(audit, &[line.into(), image.path.as_str().into(), vec![0_u8; 32].into()])?;
    Ok(())
}

// --- searches ---------------------------------------------------------------------------------------------------------

/// Images by the database itself, in the place of those that were registered: a hundred to a study, 40 of 100 `MR`.
fn fill(database: &Database, images: i64) -> Result<(), DatabaseError> {
    let numbers = match database.dialect() {
        Dialect::Sqlite => "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)",
        Dialect::Postgres => "WITH n(i) AS (SELECT generate_series(CAST(?1 AS BIGINT), CAST(?2 AS BIGINT)))",
    };
    // Behind all that were registered.
    const FIRST: i64 = 1_000_000_000;
    const AT_ONCE: usize = 50_000;
    database.write(|sql| {
        let (columns, _) = columns_of(sql)?;
        let a = |name: &str| format!("a{}", columns[name]);
        let entries = format!(
            "INSERT INTO entries(id, parent, path, kind, guid, schema, size, created, modified, version, name_record, \
             anonymous_record, identifying_record) \
             SELECT {FIRST} + i, 1, '/myvo/many/site' || (i % 7) || '/' || (i / 100) || '/' || i, 1, 'g' || i, 1, \
             i % 1000, 1000000 + i / 10, 0, 1, (SELECT name_record FROM entries WHERE path = '/myvo'), \
             (SELECT anonymous_record FROM entries WHERE path = '/myvo'), \
             (SELECT identifying_record FROM entries WHERE path = '/myvo') FROM n"
        );
        let values = format!(
            "INSERT INTO values_1(entry, {}, {}, {}, {}) \
             SELECT {FIRST} + i, CASE WHEN i / 100 % 10 < 4 THEN 'MR' WHEN i / 100 % 10 < 8 THEN 'CT' ELSE 'US' END, \
             '1.2.' || (i / 100), CASE WHEN i % 11 > 0 THEN 2000 + i / 100 % 26 END, i % 50 / 10.0 FROM n",
            a("modality"),
            a("study_uid"),
            a("study_year"),
            a("slice_thickness"),
        );
        // No statement takes longer than the database lets it.
        for first in (1..=images).step_by(AT_ONCE) {
            let some = [first.into(), images.min(first + AT_ONCE as i64 - 1).into()];
            sql.execute(&format!("{numbers} {entries}"), &some)?;
            sql.execute(&format!("{numbers} {values}"), &some)?;
        }
        Ok::<_, DatabaseError>(())
    })?;
    if database.dialect() == Dialect::Postgres {
        database.write(|sql| sql.define("ANALYZE"))?;
    }
    Ok(())
}

struct Case {
    what: &'static str,
    query: &'static str,
    count: bool,
    /// With the numbers of the attributes in place of their names.
    bare: String,
}

fn cases(database: &Database) -> Vec<Case> {
    let (columns, _) = database.read(|sql| columns_of(sql)).unwrap();
    let (modality, study, year) = (columns["modality"], columns["study_uid"], columns["study_year"]);
    let joined = "SELECT e.path FROM values_1 v JOIN entries e ON e.id = v.entry WHERE";
    let case = |what, query, bare: String| Case {
        what,
        query,
        count: bare.starts_with("SELECT count"),
        bare,
    };
    vec![
        case(
            "a study of 100 images",
            "study_uid = '1.2.7'",
            format!("{joined} v.a{study} = '1.2.7' ORDER BY e.path LIMIT 100"),
        ),
        case(
            "a common value, first 100 by name",
            "modality = 'MR' LIMIT 100",
            format!(
                "SELECT e.path FROM entries e JOIN values_1 v ON v.entry = e.id WHERE e.schema = 1 AND e.kind = 1 AND \
                 v.a{modality} = 'MR' ORDER BY e.path LIMIT 100"
            ),
        ),
        case(
            "a range, the last 20 of it",
            "modality = 'MR' AND study_year BETWEEN 2010 AND 2015 ORDER BY study_year DESC LIMIT 20",
            format!(
                "{joined} v.a{modality} = 'MR' AND v.a{year} BETWEEN 2010 AND 2015 \
                 ORDER BY v.a{year} DESC, v.entry DESC LIMIT 20"
            ),
        ),
        case(
            "the newest 20",
            "ORDER BY created DESC LIMIT 20",
            "SELECT path FROM entries WHERE schema = 1 AND kind = 1 ORDER BY created DESC, id DESC LIMIT 20".to_owned(),
        ),
        case(
            "counting a study",
            "study_uid = '1.2.7'",
            format!("SELECT count(*) FROM values_1 WHERE a{study} = '1.2.7'"),
        ),
        case(
            "counting a common value",
            "modality = 'MR'",
            format!(
                "SELECT count(*) FROM values_1 v JOIN entries e ON e.id = v.entry WHERE v.a{modality} = 'MR' AND e.schema = 1"
            ),
        ),
    ]
}

fn searching(catalogue: &Catalogue, pki: &Pki, case: &Case, options: Options) -> (u64, f64) {
    let search = Search {
        from: "/myvo".into(),
        query: case.query.to_owned(),
        count: case.count,
        ..Search::default()
    };
    let ask = |client: &CatalogClient, search: &Search| {
        if search.count {
            return client.count(search).unwrap();
        }
        // To the end, so that the connection can be used again.
        client.search(search).unwrap().map(Result::unwrap).count() as u64
    };
    let found = ask(&catalogue.client(pki), &search);
    let rate = rate(options, |_| {
        let (client, search) = (catalogue.client(pki), search.clone());
        Box::new(move || {
            ask(&client, &search);
            1
        })
    });
    (found, rate)
}

fn bare_searching(database: &Database, case: &Case, options: Options) -> f64 {
    rate(options, |_| {
        let (database, text) = (database.clone(), case.bare.clone());
        Box::new(move || {
            let found: Result<Vec<Row>, DatabaseError> = database.read(|sql| rows(sql, &text, &[]));
            assert!(!found.unwrap().is_empty());
            1
        })
    })
}
