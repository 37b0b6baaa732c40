//! How much a command tells: `-v`, `-q`, and the log on standard error.
//!
//! `EDS_LOG` sets the log in the words of `tracing` (`debug`, `hydra_core=trace`) and wins over `-v`.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// The options of every command that talks.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Verbosity {
    /// Say more on standard error; twice for debugging
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Say nothing but errors and warnings
    #[arg(short, long)]
    pub quiet: bool,
}

impl Verbosity {
    /// The least severe level that is shown.
    pub fn level(self) -> LevelFilter {
        match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::ERROR,
            (_, 0) => LevelFilter::WARN,
            (_, 1) => LevelFilter::INFO,
            (_, 2) => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        }
    }

    /// Sends the log to standard error from now on: ours at the level asked for, warnings of libraries with `-vv`.
    pub fn start_log(self) {
        let filter = std::env::var("EDS_LOG")
            .ok()
            .and_then(|text| EnvFilter::try_new(text).ok());
        let others = if self.verbose >= 2 { "warn" } else { "error" };
        let level = self.level();
        let ours = [
            "hydra_core",
            "hydra_cli",
            "hydra_service",
            "hydra_keystore",
            "grid_identity",
            "storage_url",
            "eds",
            "mdm",
            "mdm_catalog",
            "dicom_net",
            "dicom_recall",
            "testgrid",
        ]
        .map(|name| format!("{name}={level}"));
        let filter = filter.unwrap_or_else(|| EnvFilter::new(format!("{others},{}", ours.join(","))));
        // a second call in one process, as in tests, keeps the first log
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(anstream::stderr().current_choice() != anstream::ColorChoice::Never)
            .without_time()
            .try_init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_v_is_more_log_and_q_is_errors_alone() {
        let level = |verbose, quiet| Verbosity { verbose, quiet }.level();
        assert_eq!(level(0, false), LevelFilter::WARN);
        assert_eq!(level(1, false), LevelFilter::INFO);
        assert_eq!(level(2, false), LevelFilter::DEBUG);
        assert_eq!(level(0, true), LevelFilter::ERROR);
    }
}
