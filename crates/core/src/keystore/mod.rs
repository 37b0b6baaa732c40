//! Clients and key stores: what is sent ([`wire`]), what a store decides ([`store`], no I/O), how a key is shared and
//! proven ([`sharing`]), what to do with the answers (`quorum`, no I/O), and, for clients, the network and its verbs
//! (`client`, `fanout`, [`hydra`]).

#[cfg(feature = "client")]
pub mod hydra;
pub mod sharing;
pub mod store;
pub mod wire;
