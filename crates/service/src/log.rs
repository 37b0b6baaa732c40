//! Structured logs: one JSON object a line, on standard error. No secrets, shares, bodies or key ids get in.

use tracing_subscriber::EnvFilter;

/// Starts the log of a server. `level` is a filter as `info` or `warn,hydra_keystore=debug`.
///
/// # Errors
/// A filter that does not parse, or a log that was started before.
pub fn start(level: &str) -> Result<(), LogError> {
    let filter = filter(level)?;
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        // A line that cannot be written (a full disk) is lost; telling so on the same stream would end the process.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    subscriber.try_init().map_err(|_| LogError::Started)
}

/// The filter that [`start`] makes of a level.
///
/// # Errors
/// [`LogError::Level`].
pub fn filter(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::try_new(level).map_err(|_| LogError::Level(level.to_owned()))
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Not a filter.
    #[error("`{0}` is no log level")]
    Level(String),
    /// Another was started.
    #[error("the log was started before")]
    Started,
}
