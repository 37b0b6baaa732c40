//! `hydra-keystore backup`, `restore`, `open` and `import-legacy`: see `docs/src/commands/hydra-keystore.md`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use hydra_cli::{Code, Failure, output};
use hydra_core::ids::StoreId;
use hydra_core::key_id::KeyId;
use hydra_core::secret::Key;
use hydra_service::copy::CopyError;

use crate::backup::{self, BackupError, Contents, Store, Which};
use crate::commands::{database_code, database_failure, read_config, read_store_key};
use crate::config::Config;
use crate::engine::now;
use crate::legacy::dump::{self, Dump, DumpError};
use crate::legacy::{self, Plan, Report};

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
    /// Take keys over from an original Hydra, out of mysqldump's files; the store must be stopped
    ImportLegacy(ImportLegacy),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportLegacy {
    /// The configuration file
    config: PathBuf,
    /// What mysqldump wrote of this store's database; may be repeated, to compare with the others'
    #[arg(long, value_name = "FILE", required = true)]
    dump: Vec<PathBuf>,
    /// The ids of all stores that hold a share, this one too, in the order of the share indices
    #[arg(long, value_name = "ID,…", value_delimiter = ',', required = true)]
    stores: Vec<StoreId>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(verb: &Maintenance) -> Result<(), Failure> {
    match verb {
        Maintenance::Backup { config, file } => write_backup(config, file),
        Maintenance::Restore { config, file, replace } => restore(config, file, *replace),
        Maintenance::Open { config, key_id, all } => open(config, key_id.as_deref(), *all),
        Maintenance::ImportLegacy(arguments) => import_legacy(arguments),
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

/// Why a dump is not imported.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error("cannot open `{}`", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{}` is no dump that can be imported", path.display())]
    Dump {
        path: PathBuf,
        #[source]
        source: DumpError,
    },
    #[error("{skipped} of {all} keys are not imported")]
    Skipped { skipped: usize, all: usize },
}

fn import_legacy(arguments: &ImportLegacy) -> Result<(), Failure> {
    let opened = Opened::read(&arguments.config)?;
    let rules = &opened.config.rules;
    let plan = Plan::new(arguments.stores.clone(), rules.store.clone(), rules.entries.acl);
    let plan = plan.map_err(|error| Failure::new(Code::Usage, error))?;
    let dumps = arguments
        .dump
        .iter()
        .map(|path| read_dump(path))
        .collect::<Result<_, _>>()?;
    let candidates = legacy::candidates(dumps, &plan);
    let report = legacy::import(&opened.store(), candidates, &plan, arguments.dry_run, now());
    say(&report.map_err(database_failure)?, arguments.dry_run)
}

fn read_dump(path: &Path) -> Result<Dump, Failure> {
    let file = std::fs::File::open(path).map_err(|source| {
        let path = path.to_owned();
        Failure::new(Code::Io, ImportError::Open { path, source })
    })?;
    dump::read(file).map_err(|source| {
        let code = match &source {
            DumpError::Read(_) => Code::Io,
            _ => Code::Damaged,
        };
        let path = path.to_owned();
        Failure::new(code, ImportError::Dump { path, source })
    })
}

fn say(report: &Report, dry: bool) -> Result<(), Failure> {
    let mut lines = String::new();
    for (key_id, skip) in &report.skipped {
        let cause = std::error::Error::source(skip)
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        lines.push_str(&hydra_cli::printable(&format!("skipped {key_id}: {skip}{cause}")));
        lines.push('\n');
    }
    let (imported, present, skipped) = (report.imported, report.present, report.skipped.len());
    let done = if dry { "would be imported" } else { "imported" };
    lines.push_str(&format!(
        "{imported} {done}, {present} here already, {skipped} skipped; left behind: {} keys without an entry, {} ACL \
         lines without an entry or a principal\n",
        report.orphan_keys, report.orphan_acl
    ));
    output::print(lines.as_bytes())?;
    if skipped == 0 {
        return Ok(());
    }
    let all = imported + present + skipped;
    Err(Failure::new(Code::Failed, ImportError::Skipped { skipped, all }))
}

fn counted(contents: &Contents) -> String {
    format!(
        "{} entries, {} tombstones, {} stop marks",
        contents.entries, contents.tombstones, contents.stop_marks
    )
}

fn failure(error: BackupError) -> Failure {
    let code = match &error {
        BackupError::Copy(CopyError::Exists(_)) | BackupError::NotEmpty(_) => Code::CannotCreate,
        BackupError::Copy(CopyError::UnderWay(_)) => Code::TryLater,
        BackupError::Copy(CopyError::Name(_)) => Code::Usage,
        BackupError::Copy(CopyError::Copied(_)) | BackupError::Damaged { .. } | BackupError::Audit { .. } => {
            Code::Damaged
        }
        BackupError::Copy(_) => Code::Io,
        BackupError::NotInQuarantine(_) => Code::NotAllowed,
        BackupError::Database { source, .. } => database_code(source),
    };
    let advice = match &error {
        BackupError::NotEmpty(_) => Some("--replace, which keeps the database that is there beside it"),
        BackupError::Copy(CopyError::Copied(_)) => {
            Some("hydra-keystore backup, which copies a database in use as of one moment")
        }
        _ => None,
    };
    let failure = Failure::new(code, error);
    match advice {
        Some(advice) => failure.advise(advice),
        None => failure,
    }
}
