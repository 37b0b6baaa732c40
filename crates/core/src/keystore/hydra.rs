//! The verbs of a client of n key stores: register, fetch, unregister, status, repair, list, check.
//!
//! Each verb runs a state machine of [`super::quorum`] over the network; the rules are key-protocol.md's.

use grid_identity::Credential;

use crate::config::ClientConfig;
pub use crate::keystore::outcome::*;

/// A client of all configured stores. Cheap to keep: connections stay open between verbs.
pub struct Hydra {
    #[allow(dead_code, reason = "filled in by the client")]
    config: ClientConfig,
}

impl Hydra {
    /// A client of the configured stores that presents `credential`.
    ///
    /// # Errors
    /// A configuration or a credential that cannot work.
    pub fn new(config: ClientConfig, credential: &Credential) -> Result<Self, LocalError> {
        let _ = credential;
        Ok(Self { config })
    }
}
