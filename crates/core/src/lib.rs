//! Hydra EDS core: secret sharing, sealed files, and the key protocol between a client and its n key stores.
//!
//! Everything here runs on the client, but for [`keystore::wire`] and [`permissions`], which the stores share with it.
//! The design is told in `docs/src/architecture.md`; formats in `docs/src/formats.md`.
#![forbid(unsafe_code)]

pub mod frame;
pub mod ids;
pub mod key_id;
pub mod secret;
pub mod shamir;

#[cfg(feature = "client")]
pub mod config;
#[cfg(feature = "client")]
pub mod https;
#[cfg(feature = "protocol")]
pub mod keystore;
#[cfg(feature = "protocol")]
pub mod permissions;
#[cfg(feature = "sealed")]
pub mod sealed;

/// The version of this build, as every binary of the workspace prints it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
