//! Who is at the other end of a connection: verified once after the handshake, good until a date passes or the trust
//! anchors change. Groups and roles may end earlier, with the attribute certificate that gave them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use grid_identity::{ChainError, Identity, TrustStore, VerifiedChain};

/// The other end of a connection; an extension of each of its requests.
#[derive(Debug)]
pub struct Peer {
    known: Known,
    /// Where it connected from.
    pub address: SocketAddr,
}

#[derive(Debug)]
enum Known {
    Verified(Arc<TrustStore>, VerifiedChain),
    VouchedFor(Arc<Identity>),
}

impl Peer {
    /// Of a chain that `trust` verified.
    pub fn new(trust: Arc<TrustStore>, verified: VerifiedChain, address: SocketAddr) -> Self {
        Self {
            known: Known::Verified(trust, verified),
            address,
        }
    }

    /// An identity that somebody else vouches for, never checked again: for a service without its listener.
    pub fn vouched_for(identity: Identity, address: SocketAddr) -> Self {
        Self {
            known: Known::VouchedFor(Arc::new(identity)),
            address,
        }
    }

    /// Whose credential it is, as the last check found it.
    pub fn identity(&self) -> Arc<Identity> {
        match &self.known {
            Known::Verified(_, verified) => verified.identity(),
            Known::VouchedFor(identity) => Arc::clone(identity),
        }
    }

    /// Whether the credential is still good, and what groups and roles are left: dates, and revocation after the lists
    /// were read again.
    ///
    /// # Errors
    /// Why it is good no longer.
    pub fn recheck(&self, now: SystemTime) -> Result<(), ChainError> {
        match &self.known {
            Known::Verified(trust, verified) => trust.recheck(verified, now).map(|_| ()),
            Known::VouchedFor(_) => Ok(()),
        }
    }
}
