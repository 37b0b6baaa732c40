//! What every server of Hydra EDS has: a TLS listener with limits, the identity of each connection checked again for
//! each request, problem documents, structured logs and metrics. What a service does with a request is the service's
//! business.
#![forbid(unsafe_code)]

pub mod audit;
pub mod copy;
pub mod folder;
pub mod guard;
pub mod key_file;
pub mod limits;
pub mod listener;
pub mod log;
pub mod monitor;
pub mod peer;
pub mod principal;
pub mod problem;
pub mod run;
pub mod settings;

pub use guard::{Guard, RequestId};
pub use limits::Limits;
pub use listener::{ServeError, serve};
pub use peer::Peer;
pub use problem::ProblemAnswer;
