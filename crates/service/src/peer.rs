//! Who is at the other end of a connection: verified once after the handshake, good until a date passes or the trust
//! anchors change. Groups and roles may end earlier, with the attribute certificate that gave them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use grid_identity::{ChainError, Identity, TrustStore, VerifiedChain, VomsError};

/// The other end of a connection; an extension of each of its requests.
#[derive(Debug)]
pub struct Peer {
    known: Known,
    /// Whether somebody was told that an attribute certificate was refused.
    told: AtomicBool,
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
            told: AtomicBool::new(false),
            address,
        }
    }

    /// An identity that somebody else vouches for, never checked again: for a service without its listener.
    pub fn vouched_for(identity: Identity, address: SocketAddr) -> Self {
        Self {
            known: Known::VouchedFor(Arc::new(identity)),
            told: AtomicBool::new(false),
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

    /// Why an attribute certificate was refused, where one was: once for a connection, to be written down.
    pub fn refused_attributes(&self) -> Option<String> {
        let identity = self.identity();
        let error = identity.voms_error.as_ref()?;
        let told = self.told.swap(true, Ordering::Relaxed);
        (!told).then(|| VomsError::in_full(error))
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
