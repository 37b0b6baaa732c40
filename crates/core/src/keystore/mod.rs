//! Clients and key stores: what is sent ([`wire`]), what a store decides ([`store`], no I/O), how a key is shared and
//! proven ([`sharing`]), what a client does with the answers ([`quorum`], no I/O), what comes of it ([`outcome`]), and
//! the network ([`client`], [`fanout`]) with a client's verbs on top ([`hydra`]).

pub mod agreement;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "client")]
pub mod fanout;
#[cfg(test)]
mod histories;
#[cfg(feature = "client")]
pub mod hydra;
pub mod outcome;
pub mod quorum;
pub mod sharing;
pub mod store;
pub mod wire;
