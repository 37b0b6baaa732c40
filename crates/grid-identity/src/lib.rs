//! Grid identity: X.509 chains with RFC 3820 proxies, CRLs and signing policies, for rustls.

/// A certificate chain with its private key: what a client presents.
pub struct Credential {}
