//! Who is at the other end of a connection: verified once by the handshake, good until a date passes or the trust anchors
//! change.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use grid_identity::{ChainError, Identity, TrustStore, VerifiedChain};

/// The other end of a connection; an extension of each of its requests.
#[derive(Debug)]
pub struct Peer {
    identity: Identity,
    kept: Option<(Arc<TrustStore>, VerifiedChain)>,
    /// Where it connected from.
    pub address: SocketAddr,
}

impl Peer {
    /// Of a chain that `trust` verified.
    pub fn new(trust: Arc<TrustStore>, verified: VerifiedChain, address: SocketAddr) -> Self {
        Self {
            identity: verified.identity().clone(),
            kept: Some((trust, verified)),
            address,
        }
    }

    /// An identity that somebody else vouches for, never checked again: for a service without its listener.
    pub fn vouched_for(identity: Identity, address: SocketAddr) -> Self {
        Self {
            identity,
            kept: None,
            address,
        }
    }

    /// Whose credential it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the credential is still good: dates, and revocation after the lists were read again.
    ///
    /// # Errors
    /// Why it is good no longer.
    pub fn recheck(&self, now: SystemTime) -> Result<(), ChainError> {
        match &self.kept {
            Some((trust, verified)) => trust.recheck(verified, now),
            None => Ok(()),
        }
    }
}
