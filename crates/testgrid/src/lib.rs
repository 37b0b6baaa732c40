//! A throw-away grid on loopback: authorities, users and proxies ([`pki`]), and key stores, for tests and trying out.

mod der;
pub mod pki;
