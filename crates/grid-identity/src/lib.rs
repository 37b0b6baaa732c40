//! Grid identity for rustls: X.509 chains with RFC 3820 proxies, revocation lists and signing policies.
//!
//! Who a caller is, by certificate: [`TrustStore`] says whom to believe, [`Credential`] is what a client presents,
//! [`tls`] makes of both the configurations of rustls. webpki verifies what it knows, from the end entity's certificate
//! up to the authority; everything between the end entity and the proxy presented is verified here, because webpki
//! cannot even parse a proxy. `docs/src/credentials.md` is the rule book; where grid libraries differ, the stricter
//! rule is ours. Groups and roles come from attribute certificates of VOMS servers, see [`voms`].

mod asn1;
mod certificate;
pub mod chain;
pub mod credential;
pub mod crl;
pub mod dn;
mod pem;
pub mod proxy;
pub mod signing_policy;
mod time;
pub mod tls;
pub mod trust;
pub mod voms;

pub use asn1::DerError;
pub use certificate::Certificate;
pub use chain::{ChainError, Identity, Method};
pub use credential::{Credential, CredentialError};
pub use trust::{Policy, TrustError, TrustStore, VerifiedChain};
pub use voms::{Voms, VomsError};
