//! The parts of `cargo bench-report` about the key store and the catalogue. The load comes from
//! `crates/keystore/benches` and `crates/catalog/benches`, which need TLS and HTTP: this crate stays small.

use crate::chore::ChoreError;
use crate::workspace::Workspace;

/// Images of the catalogue in a report: a million take longer than all the rest of it.
const IMAGES: &str = "100000";

/// Measures the store against bare axum on rustls, and the catalogue beside bare SQL, built as everything else in the
/// report; on PostgreSQL too, where it is installed.
pub fn run(workspace: &Workspace) -> Result<(), ChoreError> {
    bench(workspace, "store", &[])?;
    let postgres: &[&str] = if std::path::Path::new("/usr/lib/postgresql").is_dir() {
        &["--postgres"]
    } else {
        println!("PostgreSQL is not installed: the catalogue is measured on SQLite alone");
        &[]
    };
    bench(workspace, "service", &[&["--images", IMAGES], postgres].concat())
}

fn bench(workspace: &Workspace, name: &str, options: &[&str]) -> Result<(), ChoreError> {
    println!();
    let mut cargo = workspace.cargo();
    cargo.args([
        "bench",
        "--quiet",
        "--workspace",
        "--profile",
        "dev",
        "--bench",
        name,
        "--",
    ]);
    let status = cargo.args(options).status().map_err(|source| ChoreError::Start {
        program: "cargo bench".to_owned(),
        source,
    })?;
    if status.success() {
        Ok(())
    } else {
        Err(ChoreError::NotAsPromised(format!(
            "the bench `{name}` ended with {status}"
        )))
    }
}
