//! `hydra-keystore backup`, `restore` and `open`: see `docs/src/commands/hydra-keystore.md`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use hydra_cli::{Code, Failure, output};
use hydra_core::key_id::KeyId;
use hydra_core::secret::Key;

use crate::backup::{self, BackupError, Contents, Store, Which};
use crate::commands::{database_code, read_config, read_store_key};
use crate::config::Config;
use crate::engine::now;

#[derive(Debug, Subcommand)]
pub(crate) enum Maintenance {
    /// Write the database to a new file, also while the store serves
    Backup {
        /// The configuration file
        config: PathBuf,
        /// A file that is not there yet
        file: PathBuf,
    },
    /// Put a backup in place of the database; what is in it stays in quarantine until repaired or opened
    Restore {
        /// The configuration file
        config: PathBuf,
        /// What `backup` wrote
        file: PathBuf,
        /// Over a database that is not empty, which is kept beside it
        #[arg(long)]
        replace: bool,
    },
    /// End the quarantine of restored entries, also while the store serves; without a choice, list them
    Open {
        /// The configuration file
        config: PathBuf,
        /// The one to open
        #[arg(value_name = "KEY_ID", conflicts_with = "all")]
        key_id: Option<String>,
        /// Open every one
        #[arg(long)]
        all: bool,
    },
}

pub(crate) fn run(verb: &Maintenance) -> Result<(), Failure> {
    match verb {
        Maintenance::Backup { config, file } => write_backup(config, file),
        Maintenance::Restore { config, file, replace } => restore(config, file, *replace),
        Maintenance::Open { config, key_id, all } => open(config, key_id.as_deref(), *all),
    }
}

/// A configuration, and the store key that it names.
struct Opened {
    config: Config,
    key: Key,
}

impl Opened {
    fn read(path: &Path) -> Result<Self, Failure> {
        let config = read_config(path)?;
        let key = read_store_key(&config.store_key)?;
        Ok(Self { config, key })
    }

    fn store(&self) -> Store<'_> {
        Store {
            database: &self.config.database,
            id: &self.config.store,
            key: &self.key,
        }
    }
}

fn write_backup(config: &Path, file: &Path) -> Result<(), Failure> {
    let opened = Opened::read(config)?;
    let contents = backup::backup(&opened.store(), file, now()).map_err(failure)?;
    output::print_line(&format!("ok: {}", counted(&contents)))?;
    output::print_line(&contents.head.to_string())
}

fn restore(config: &Path, file: &Path, replace: bool) -> Result<(), Failure> {
    let opened = Opened::read(config)?;
    let restored = backup::restore(&opened.store(), file, replace, now()).map_err(failure)?;
    if let Some(aside) = &restored.aside {
        output::tell(&format!("the database that was here is kept as `{}`", aside.display()));
    }
    let made = restored.contents.made.as_deref().unwrap_or("a time that is not known");
    output::print_line(&format!(
        "ok: {}, as of {made}; each entry is in quarantine",
        counted(&restored.contents)
    ))
}

fn open(config: &Path, key_id: Option<&str>, all: bool) -> Result<(), Failure> {
    let opened = Opened::read(config)?;
    let store = opened.store();
    let which = match key_id {
        None if !all => {
            let mut lines = String::new();
            backup::in_quarantine(&store, |key_id| {
                lines.push_str(&hydra_cli::printable(key_id));
                lines.push('\n');
            })
            .map_err(failure)?;
            return output::print(lines.as_bytes());
        }
        None => None,
        Some(text) => Some(KeyId::imported(text).map_err(|error| Failure::new(Code::Usage, error))?),
    };
    let which = which.as_ref().map_or(Which::All, Which::One);
    let count = backup::open(&store, which, now()).map_err(failure)?;
    output::print_line(&format!("ok: {count} opened"))
}

fn counted(contents: &Contents) -> String {
    format!(
        "{} entries, {} tombstones, {} stop marks",
        contents.entries, contents.tombstones, contents.stop_marks
    )
}

fn failure(error: BackupError) -> Failure {
    let code = match &error {
        BackupError::Exists(_) | BackupError::NotEmpty(_) => Code::CannotCreate,
        BackupError::UnderWay(_) => Code::TryLater,
        BackupError::File { .. } => Code::Io,
        BackupError::Name(_) => Code::Usage,
        BackupError::Copied(_) | BackupError::Damaged { .. } | BackupError::Audit { .. } => Code::Damaged,
        BackupError::NotInQuarantine(_) => Code::NotAllowed,
        BackupError::Database { source, .. } => database_code(source),
    };
    let advice = match &error {
        BackupError::NotEmpty(_) => Some("--replace, which keeps the database that is there beside it"),
        BackupError::Copied(_) => Some("hydra-keystore backup, which copies a database in use as of one moment"),
        _ => None,
    };
    let failure = Failure::new(code, error);
    match advice {
        Some(advice) => failure.advise(advice),
        None => failure,
    }
}
