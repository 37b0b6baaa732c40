//! The catalogue over PostgreSQL: the same suite as over SQLite, each part in a database of its own.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "../src/database/postgres/server.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod server;
#[allow(dead_code, reason = "other tests use more of it")]
mod suite;

use std::cell::Cell;

use mdm_catalog::database::Database;
use mdm_catalog::database::postgres::{Postgres, Settings};

#[test]
fn peer_postgres_the_suite() {
    let server = server::Server::start(&["fsync=off"]);
    let number = Cell::new(0);
    suite::all(&|| {
        number.set(number.get() + 1);
        let url = server.database(&format!("suite{}", number.get()));
        Database::new(Postgres::create(Settings::new(&url).unwrap()).unwrap())
    });
}
