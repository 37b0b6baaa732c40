//! The log of the `glite-ssss-*` names, by `GLITE_SSSS_LOG_LEVEL` and `GLITE_SSSS_LOG_FILE`; never with a secret in it.

use std::fs::OpenOptions;
use std::io::Write;

/// How severe a line is; lines below the level asked for are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// As the originals read it: by what the value begins with.
    fn of_variable(value: &str) -> Option<Self> {
        [Self::Debug, Self::Info, Self::Warn, Self::Error]
            .into_iter()
            .find(|level| value.starts_with(level.name()))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }
}

/// Where a line comes from, as the originals show it.
pub(crate) struct Place {
    pub(crate) file: &'static str,
    pub(crate) function: &'static str,
    pub(crate) line: u32,
}

/// Writes one line, if it is wanted: to the file named, else to standard error.
pub(crate) fn write(level: Level, message: &str, place: &Place) {
    let wanted = std::env::var("GLITE_SSSS_LOG_LEVEL")
        .ok()
        .and_then(|value| Level::of_variable(&value));
    if wanted.is_none_or(|wanted| level < wanted) {
        return;
    }
    let time = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S");
    let Place { file, function, line } = place;
    let text = format!(
        "{time} {} - {} - {file}#{function}:{line}\n",
        level.name(),
        hydra_cli::printable(message)
    );
    let file = std::env::var_os("GLITE_SSSS_LOG_FILE")
        .and_then(|path| OpenOptions::new().append(true).create(true).open(path).ok());
    // a log that cannot be written does not stop the work
    let _ = match file {
        Some(mut file) => file.write_all(text.as_bytes()),
        None => std::io::stderr().write_all(text.as_bytes()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_by_their_beginning() {
        assert_eq!(Level::of_variable("DEBUG"), Some(Level::Debug));
        assert_eq!(Level::of_variable("WARNING"), Some(Level::Warn));
        assert_eq!(Level::of_variable("warn"), None);
        assert_eq!(Level::of_variable(""), None);
    }
}
