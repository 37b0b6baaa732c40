//! What every server of Hydra EDS has: a TLS listener with limits, the identity of each connection checked again for each
//! request, problem documents, structured logs and metrics. What a service does with a request is the service's business.
#![forbid(unsafe_code)]

pub mod guard;
pub mod limits;
pub mod listener;
pub mod log;
pub mod monitor;
pub mod peer;
pub mod problem;

pub use guard::{Guard, RequestId};
pub use limits::Limits;
pub use listener::{ServeError, serve};
pub use peer::Peer;
pub use problem::ProblemAnswer;
