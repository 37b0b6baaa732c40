//! The catalogue: logical names and replicas of sealed files, and what is known of the images in them, in two halves of
//! which each has permissions of its own. [`wire`] is what is said, [`query`] the language of searches; the service is
//! described in `docs/src/operating-catalogue.md`.

pub mod backup;
pub mod client;
mod column_key;
pub mod columns;
mod commands;
pub mod config;
pub mod csv;
pub mod database;
pub mod engine;
pub mod image;
mod lock;
pub mod name;
pub mod openapi;
pub mod query;
pub mod rest;
mod stream;
pub mod wire;

pub use client::{CatalogClient, CatalogError};
pub use commands::main;
pub use name::{LogicalName, NameError};
