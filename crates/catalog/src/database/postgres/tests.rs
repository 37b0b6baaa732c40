//! PostgreSQL as a process: what the trait promises, a server that is stopped and started, and the searches.

use hydra_core::keystore::wire::ProblemKind;

use super::super::{Database, attempt, row, rows};
use super::server::Server;
use super::*;
use crate::engine::Refusal;
use crate::query;

const QUICK: &[&str] = &["fsync=off"];

fn settings(url: &str) -> Settings {
    Settings::new(url).unwrap()
}

#[test]
fn addresses_have_no_password_and_name_one_server() {
    for (url, error) in [
        ("postgres://a:secret@db/catalog", SettingsError::Password),
        ("host=db user=a password=secret", SettingsError::Password),
        ("postgres://db/catalog", SettingsError::User),
        ("postgres://a@db1,db2/catalog", SettingsError::Hosts),
        ("postgres://a@db/catalog?port=x", SettingsError::Url),
        ("mysql://a@db/catalog", SettingsError::Url),
    ] {
        let found = Settings::new(url).err().unwrap();
        assert_eq!(found.to_string(), error.to_string(), "{url}");
        assert!(!format!("{found:?} {found}").contains("secret"));
    }
    assert!(settings("postgres://a@db.example.org/catalog").needs_tls());
    assert!(settings("postgres://a@db.example.org/catalog?sslmode=prefer").needs_tls());
    assert!(!settings("postgres://a@db.example.org/catalog?sslmode=disable").needs_tls());
    assert!(!settings("postgres://a@%2Frun%2Fpostgresql/catalog").needs_tls());
    let refused = Postgres::create(settings("postgres://a@localhost/catalog"))
        .err()
        .unwrap();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains("no authorities are configured"), "{cause}");
}

#[test]
fn a_password_stands_in_a_file_of_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    let read = || settings("postgres://a@db.example.org/catalog").password_file(&path);
    assert!(matches!(read(), Err(SettingsError::PasswordFile { .. })));
    std::fs::write(&path, "a secret\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(read(), Err(SettingsError::Readable { .. })));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(read().unwrap().password.unwrap().as_str(), "a secret");
}

#[test]
fn peer_postgres_keeps_what_the_kit_promises() {
    let server = Server::start(QUICK);
    let url = server.database("kit");
    assert!(matches!(
        Postgres::open(settings(&url)),
        Err(DatabaseError::NotOurs { .. })
    ));
    let database = Database::new(Postgres::create(settings(&url)).unwrap());
    // A reader that panics keeps no connection.
    for _ in 0..=CONNECTIONS {
        let read = AssertUnwindSafe(|| database.read::<(), DatabaseError>(|_| panic!("on purpose")));
        assert!(catch_unwind(read).is_err());
    }
    assert!(database.is_ready());
    assert!(matches!(Postgres::create(settings(&url)), Err(DatabaseError::Exists)));
    let insert = "INSERT INTO meta(name, value) VALUES (?1, ?2)";
    let failed: Result<(), DatabaseError> = database.write(|sql| {
        sql.execute(insert, &["a".into(), "1".into()])?;
        Err(DatabaseError::Closed)
    });
    assert!(matches!(failed, Err(DatabaseError::Closed)));
    let done: Result<(), DatabaseError> = database.write(|sql| {
        sql.execute(insert, &["b".into(), "'; DROP TABLE meta; --".into()])?;
        let part: Result<(), DatabaseError> = attempt(sql, |sql| {
            sql.execute(insert, &["c".into(), "1".into()])?;
            sql.execute(insert, &["b".into(), "planted".into()])?;
            Ok(())
        });
        let error = part.unwrap_err();
        assert!(matches!(error, DatabaseError::Postgres(_)));
        // The server's details quote the value.
        let text = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
        assert!(!text.contains("planted") && !text.contains("(name)=(b)"), "{text}");
        Ok(())
    });
    done.unwrap();
    let select = "SELECT name, value FROM meta WHERE name IN ('a', 'b', 'c')";
    let found: Result<_, DatabaseError> = database.read(|sql| rows(sql, select, &[]));
    assert_eq!(found.unwrap(), [Row(vec!["b".into(), "'; DROP TABLE meta; --".into()])]);
    // Parts in which nothing is asked leave those before, behind and around them as they are.
    let parts: Result<(), DatabaseError> = database.write(|sql| {
        let put = |sql: &dyn Sql, name: &str| sql.execute(insert, &[name.into(), "".into()]).map(drop);
        let nothing = |sql: &dyn Sql| attempt(sql, |_| Ok::<_, DatabaseError>(()));
        let refused = |sql: &dyn Sql| attempt(sql, |_| Err::<(), _>(DatabaseError::Closed)).is_err();
        attempt(sql, |sql| {
            nothing(sql)?;
            put(sql, "part 1")?;
            assert!(refused(sql));
            nothing(sql)
        })?;
        assert!(refused(sql));
        let taken_back: Result<(), DatabaseError> = attempt(sql, |sql| {
            put(sql, "part 2")?;
            nothing(sql)?;
            Err(DatabaseError::Closed)
        });
        assert!(taken_back.is_err());
        attempt(sql, |sql| {
            attempt(sql, |sql| put(sql, "part 3"))?;
            assert!(refused(sql));
            Ok::<_, DatabaseError>(())
        })?;
        nothing(sql)
    });
    parts.unwrap();
    let select_parts = "SELECT name FROM meta WHERE name LIKE 'part %' ORDER BY name";
    let found: Result<_, DatabaseError> = database.read(|sql| rows(sql, select_parts, &[]));
    assert_eq!(found.unwrap(), [Row(vec!["part 1".into()]), Row(vec!["part 3".into()])]);
    // found again by whoever opens it
    let database = Database::new(Postgres::open(settings(&url)).unwrap());
    let text = format!(
        "SELECT CAST(?2 AS DOUBLE PRECISION), CAST(?4 AS BYTEA), 1 = 1, CAST(NULL AS BIGINT) WHERE {} AND {}",
        Dialect::Postgres.is_one_of("CAST(?3 AS BIGINT)", 1),
        Dialect::Postgres.is_one_of("CAST('b\"' AS TEXT)", 5)
    );
    let texts = Datum::Texts(vec!["a".into(), "b\"".into()]);
    let data = [
        Datum::Integers(vec![3, 5]),
        1.into(),
        5.into(),
        vec![0_u8, 255].into(),
        texts,
    ];
    let found: Result<_, DatabaseError> = database.read(|sql| row(sql, &text, &data));
    let expected = Row(vec![Datum::Real(1.0), vec![0_u8, 255].into(), 1.into(), Datum::Null]);
    assert_eq!(found.unwrap(), Some(expected));
    // Work that goes on behind a failure is not taken for done.
    let ignored: Result<(), DatabaseError> = database.write(|sql| {
        let _ = sql.execute(insert, &["b".into(), "again".into()]);
        Ok(())
    });
    assert!(matches!(ignored, Err(DatabaseError::Postgres(_))));
    // Readers change nothing.
    let changed: Result<u64, DatabaseError> = database.read(|sql| sql.execute(insert, &["x".into(), "1".into()]));
    assert!(changed.is_err());
    // A statement may be asked in the midst of another's answer.
    let nested: Result<(), DatabaseError> = database.read(|sql| {
        sql.query("SELECT i FROM generate_series(1, 2000) AS g(i)", &[], &mut |found| {
            let again = row(sql, "SELECT CAST(?1 AS BIGINT)", &[found.0[0].clone()])?;
            assert_eq!(again, Some(found));
            Ok(ControlFlow::Continue(()))
        })
    });
    nested.unwrap();
    // Also two deep, behind an answer that is broken off, and a long one is not taken in whole.
    let deep: Result<i64, DatabaseError> = database.read(|sql| {
        let series = "SELECT i, repeat('x', 10000) FROM generate_series(1, CAST(?1 AS BIGINT)) AS g(i)";
        let mut seen = 0;
        sql.query(series, &[50_000.into()], &mut |_| {
            seen += 1;
            if seen < 3 {
                return Ok(ControlFlow::Continue(()));
            }
            Ok(ControlFlow::Break(()))
        })?;
        sql.query(series, &[30.into()], &mut |_| {
            sql.query(series, &[20.into()], &mut |_| {
                seen += row(sql, "SELECT CAST(1 AS BIGINT)", &[])?.unwrap().integer(0)?;
                Ok(ControlFlow::Continue(()))
            })?;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(seen)
    });
    assert_eq!(deep.unwrap(), 3 + 30 * 20);
    assert!(database.is_ready());
    // Also where a thread drives something else.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(async { database.is_ready() }));
}

#[test]
fn peer_postgres_writers_take_turns_and_a_restarted_server_is_found_again() {
    let mut server = Server::start(QUICK);
    let url = server.database("turns");
    let database = Database::new(Postgres::create(settings(&url)).unwrap());
    let count = |sql: &dyn Sql| -> Result<i64, DatabaseError> {
        let value = schema::meta(sql, "count")?.unwrap_or_default();
        Ok(value.parse().unwrap_or(0))
    };
    let add = || {
        database.write(|sql| {
            let before = count(sql)?;
            schema::set_meta(sql, "count", &(before + 1).to_string())
        })
    };
    // More threads than connections, each reading what it then changes: none is lost.
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS + 4 {
            scope.spawn(|| (0..10).for_each(|_| add().unwrap()));
        }
    });
    let expected = i64::try_from((CONNECTIONS + 4) * 10).unwrap();
    assert_eq!(database.read(count).unwrap(), expected);
    // Connections of the pool die with the server; nobody notices afterwards.
    server.stop();
    assert!(!database.is_ready());
    assert!(database.read(count).unwrap_err().is_away());
    assert!(add().unwrap_err().is_away());
    server.run();
    assert!(database.is_ready());
    add().unwrap();
    assert_eq!(database.read(count).unwrap(), expected + 1);
    // Also where it was restarted unnoticed, and in the midst of work, which then is done again.
    server.stop();
    server.run();
    add().unwrap();
    let server = Mutex::new(server);
    let mut tries = 0;
    let done: Result<(), DatabaseError> = database.write(|sql| {
        tries += 1;
        let before = count(sql)?;
        if tries == 1 {
            lock(&server).stop();
            lock(&server).run();
        }
        schema::set_meta(sql, "count", &(before + 1).to_string())
    });
    done.unwrap();
    assert_eq!((tries, database.read(count).unwrap()), (2, expected + 3));
}

#[test]
fn peer_postgres_who_waited_too_long_for_another_writer_comes_again() {
    let server = Server::start(QUICK);
    let url = server.database("busy");
    let first = Database::new(Postgres::create(settings(&url)).unwrap());
    let second = Database::new(
        Postgres::open(Settings {
            patience: Duration::from_millis(50),
            ..settings(&url)
        })
        .unwrap(),
    );
    let write = |database: &Database| database.write(|sql| schema::set_meta(sql, "a", "1"));
    let refused: Result<_, DatabaseError> = first.write(|sql| {
        schema::set_meta(sql, "b", "1")?;
        Ok(write(&second).unwrap_err())
    });
    let refused = refused.unwrap();
    let DatabaseError::Postgres(error) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(error.state.as_deref(), Some("55P03"));
    // As a client is told it: 503, and when to come again.
    let problem = Refusal::Database(refused).told();
    assert_eq!((problem.kind, problem.status), (ProblemKind::Busy, 503));
    assert!(problem.retry_after_seconds.is_some());
    write(&second).unwrap();
}

#[test]
fn peer_postgres_walks_along_indexes() {
    let server = Server::start(QUICK);
    let database = Database::new(Postgres::create(settings(&server.database("plans"))).unwrap());
    database.write(query::tests::prepare).unwrap();
    query::tests::check_plans_of_postgres(&database);
}

#[test]
fn peer_postgres_finds_what_a_plain_reading_of_the_query_says() {
    let server = Server::start(QUICK);
    let database = Database::new(Postgres::create(settings(&server.database("searches"))).unwrap());
    database.write(query::tests::prepare).unwrap();
    query::tests::check_searches(&database, 25);
}
