//! What a client knows before it talks to anybody: stores, thresholds, trust, deadlines; and where it read that.
//!
//! [`file`](mod@file) reads `config.toml`, [`services`] the original's `services.xml`, [`load`] puts the sources in
//! order, and [`credential`] finds the caller's certificate. The rules stand in `docs/src/configuration.md` and
//! `docs/src/credentials.md`. Parsing does no I/O.

use std::path::PathBuf;
use std::time::Duration;

use crate::ids::StoreId;

pub mod credential;
pub mod defaults;
pub mod endpoint;
pub mod file;
pub mod load;
pub mod services;

/// The stores of a client, how many of them join a key, whom it trusts and how long it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// In the order of the source; n is their number.
    pub stores: Vec<StoreEndpoint>,
    /// m of new sharings.
    pub threshold: u8,
    /// Sharings with a lower m are refused.
    pub min_threshold: u8,
    /// Whom to believe that a store is who it says.
    pub trust: Trust,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// What new keys get.
    pub defaults: defaults::Defaults,
    /// Where each part came from, for `eds-check`: (what, source), in order of reading.
    pub sources: Vec<(String, String)>,
}

/// One store, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreEndpoint {
    /// `https://host[:port]`, then the base path of its instance where it has one (`/1`), without a slash at the end.
    pub url: String,
    /// A label for messages; the URL where none is configured.
    pub name: String,
    /// Pins the id that the store must claim.
    pub id: Option<StoreId>,
}

/// Trust anchors for the stores' certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Where they are.
    pub anchors: TrustAnchors,
    /// Whether revocation lists must be there.
    pub crl: CrlPolicy,
}

/// Where trust anchors are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustAnchors {
    /// A directory of hashed CA certificates, CRLs and signing policies.
    Directory(PathBuf),
    /// A PEM file of CA certificates.
    File(PathBuf),
}

/// What a client does about revocation lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CrlPolicy {
    /// Check the lists that are there.
    #[default]
    IfPresent,
    /// A missing or expired list refuses the connection.
    Require,
}

/// How long a client waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection with its handshake.
    pub connect: Duration,
    /// For one request.
    pub request: Duration,
    /// For a whole operation over all stores.
    pub total: Duration,
    /// Before another store is asked beside a slow one.
    pub hedge: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            request: Duration::from_secs(5),
            total: Duration::from_secs(15),
            hedge: Duration::from_millis(100),
        }
    }
}
