//! The Hydra key store: holds one share of each key, never a key. It answers the messages of
//! `docs/src/formats/protocol.md` over TLS, decides by `hydra_core::keystore::store`, and keeps what it holds in
//! SQLite.
#![forbid(unsafe_code)]

pub mod api;
pub mod audit;
pub mod backup;
mod commands;
pub mod config;
pub mod database;
pub mod engine;
pub mod legacy;
mod maintenance;
pub mod openapi;
pub mod rest;

pub use commands::main;
