//! The part of `cargo bench-report` about the key store. The load comes from `crates/keystore/benches/store.rs`, which
//! needs TLS and HTTP: this crate stays small.

use crate::chore::ChoreError;
use crate::workspace::Workspace;

/// Measures the store against bare axum on rustls, built as everything else in the report.
pub fn run(workspace: &Workspace) -> Result<(), ChoreError> {
    println!();
    let mut cargo = workspace.cargo();
    cargo.args([
        "bench",
        "--quiet",
        "--workspace",
        "--profile",
        "dev",
        "--bench",
        "store",
    ]);
    let status = cargo.status().map_err(|source| ChoreError::Start {
        program: "cargo bench".to_owned(),
        source,
    })?;
    if status.success() {
        Ok(())
    } else {
        Err(ChoreError::NotAsPromised(format!(
            "the bench of the store ended with {status}"
        )))
    }
}
