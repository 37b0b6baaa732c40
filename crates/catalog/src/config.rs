//! The configuration of a catalogue: one TOML file, every fault told at once, unknown keys refused
//! (`docs/src/operating-catalogue.md`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hydra_cli::config_file;
pub use hydra_cli::config_file::ConfigError;
use hydra_core::ids::StoreId;
use hydra_core::key_id::KeyId;
use hydra_core::permissions::Caller;
use hydra_service::Limits;
use hydra_service::settings::{self, CreationRule, Monitor, Tls, required};
use serde::Deserialize;

use crate::LogicalName;

/// The port that clients expect.
pub const DEFAULT_PORT: u16 = 8446;
/// The bytes of a request's body where nothing is said: a thousand images with their attributes.
pub const DEFAULT_BODY_BYTES: usize = 8 << 20;

/// The file as it stands there.
#[derive(Debug, Deserialize)]
struct File {
    catalog: Option<String>,
    listen: Option<String>,
    #[serde(default = "default_database")]
    database: String,
    #[serde(default)]
    postgres: PostgresTable,
    #[serde(default)]
    max_database_bytes: u64,
    #[serde(default = "default_level")]
    log: String,
    #[serde(default)]
    administrators: Vec<String>,
    backups_kept_days: Option<u32>,
    column_key: Option<ColumnKeyTable>,
    tls: Option<Tls>,
    #[serde(default)]
    create: Vec<CreationRule>,
    #[serde(default = "default_limits", with = "LimitsTable")]
    limits: Limits,
    #[serde(default)]
    entries: EntryLimits,
    monitor: Option<Monitor>,
}

/// What the address of a PostgreSQL database does not say.
#[derive(Debug, Default, Deserialize)]
struct PostgresTable {
    password_file: Option<PathBuf>,
    authorities: Option<PathBuf>,
}

fn default_database() -> String {
    "catalog.db".into()
}

fn default_level() -> String {
    "info".into()
}

/// With room for a thousand images in a request.
pub fn default_limits() -> Limits {
    Limits {
        body_bytes: DEFAULT_BODY_BYTES,
        ..Limits::default()
    }
}

/// [`Limits`], of which those that are not given are a catalogue's and not a key store's.
#[derive(Deserialize)]
#[serde(remote = "Limits", default = "default_limits")]
struct LimitsTable {
    handshake_ms: u64,
    header_ms: u64,
    request_ms: u64,
    body_bytes: usize,
    connections: usize,
    in_flight: usize,
    items_per_second: u32,
    burst_items: u32,
    stop_ms: u64,
}

#[derive(Debug, Deserialize)]
struct ColumnKeyTable {
    key_id: Option<String>,
    eds_config: Option<PathBuf>,
    file: Option<PathBuf>,
}

/// Where the key of the identifying half is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnKeySource {
    /// In the key stores, fetched at start with the catalogue's own certificate.
    Stores {
        /// Under which key id.
        key_id: KeyId,
        /// The client configuration that names the stores.
        eds_config: PathBuf,
    },
    /// 32 raw bytes in a file that nobody but its owner can read.
    File(PathBuf),
}

/// What one entry may have, and how many one owner.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct EntryLimits {
    /// Lines of an ACL.
    pub acl: usize,
    /// Entries of one owner; 0: any number.
    pub per_owner: u64,
}

impl Default for EntryLimits {
    fn default() -> Self {
        Self { acl: 100, per_owner: 0 }
    }
}

/// A configuration that can work.
#[derive(Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The SQLite file, or the URL of a PostgreSQL database.
    pub database: DatabaseSource,
    /// The most that a SQLite file may grow to; 0: as the disk allows.
    pub max_database_bytes: u64,
    /// A filter for the log.
    pub log: String,
    /// Where the key of the identifying half is.
    pub column_key: ColumnKeySource,
    /// The host's certificate.
    pub tls: Tls,
    /// Who may what.
    pub rules: Rules,
    /// Of the listener.
    pub limits: Limits,
    /// Where monitoring asks.
    pub monitor: Option<SocketAddr>,
}

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseSource {
    /// A SQLite file.
    File(PathBuf),
    /// A PostgreSQL database.
    Postgres {
        /// `postgres://…` or `host=…`
        url: String,
        /// The file of its password.
        password_file: Option<PathBuf>,
        /// The authorities that may sign its server's certificate, PEM.
        authorities: Option<PathBuf>,
    },
}

impl DatabaseSource {
    /// Of the text in a configuration: a URL of PostgreSQL, or a file; relative paths start from `folder`.
    pub fn read(text: &str, password_file: Option<&Path>, authorities: Option<&Path>, folder: &Path) -> Self {
        let is_url = ["postgres://", "postgresql://", "host="];
        if is_url.iter().any(|start| text.starts_with(start)) {
            let absolute = |path: Option<&Path>| path.map(|path| folder.join(path));
            Self::Postgres {
                url: text.to_owned(),
                password_file: absolute(password_file),
                authorities: absolute(authorities),
            }
        } else {
            Self::File(folder.join(text))
        }
    }

    /// The SQLite file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Postgres { .. } => None,
        }
    }
}

/// Who may make names at the top, who administers: everything that decisions take from the configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What the catalogue calls itself.
    pub catalog: String,
    /// In any order: one that matches is enough.
    pub create: Vec<CreationRule>,
    /// DNs and FQANs.
    pub administrators: Vec<String>,
    /// Lines of an ACL.
    pub acl: usize,
    /// Entries of one owner; 0: any number.
    pub per_owner: u64,
    /// For how many days something removed may come back with a backup.
    pub backups_kept_days: Option<u32>,
}

impl Rules {
    /// The caller behind a verified identity.
    pub fn caller(&self, identity: &grid_identity::Identity) -> Caller {
        settings::caller(&self.administrators, identity)
    }

    /// Whether a rule lets the caller make this name at the top.
    pub fn may_create(&self, caller: &Caller, path: &LogicalName) -> bool {
        // `/myvo/` admits to the directory `/myvo` itself.
        let directory = format!("{path}/");
        let mut rules = self.create.iter();
        rules.any(|rule| directory.starts_with(&rule.prefix) && caller.is(&rule.principal))
    }
}

impl Config {
    /// Reads and checks a file; relative paths in it start from its folder.
    ///
    /// # Errors
    /// [`ConfigError`], with every fault at once.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        config_file::read(path, Self::parse)
    }

    /// Checks the text of a file in `folder`.
    ///
    /// # Errors
    /// Every fault.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let file: File = config_file::tables(text, &mut faults)?;
        let catalog = required(&mut faults, "catalog", file.catalog, |text| {
            text.parse::<StoreId>().ok().map(|id| id.to_string())
        });
        let listen = required(&mut faults, "listen", file.listen, |text| {
            text.parse::<SocketAddr>().ok()
        });
        let monitor = settings::monitor(&mut faults, file.monitor);
        if let Err(error) = hydra_service::log::filter(&file.log) {
            faults.push(format!("log: {error}"));
        }
        let column_key = column_key(&mut faults, file.column_key, folder);
        let tls = file.tls.unwrap_or_default().checked(&mut faults, folder);
        faults.extend(file.limits.faults());
        let create = settings::creation_rules(&mut faults, file.create);
        let administrators = settings::administrators(&mut faults, &file.administrators);
        let (Some(catalog), Some(listen), Some(column_key), true) = (catalog, listen, column_key, faults.is_empty())
        else {
            return Err(faults);
        };
        Ok(Self {
            listen,
            database: DatabaseSource::read(
                &file.database,
                file.postgres.password_file.as_deref(),
                file.postgres.authorities.as_deref(),
                folder,
            ),
            max_database_bytes: file.max_database_bytes,
            log: file.log,
            column_key,
            tls,
            rules: Rules {
                catalog,
                create,
                administrators,
                acl: file.entries.acl,
                per_owner: file.entries.per_owner,
                backups_kept_days: file.backups_kept_days,
            },
            limits: file.limits,
            monitor,
        })
    }
}

fn column_key(faults: &mut Vec<String>, given: Option<ColumnKeyTable>, folder: &Path) -> Option<ColumnKeySource> {
    let given = given.unwrap_or(ColumnKeyTable {
        key_id: None,
        eds_config: None,
        file: None,
    });
    match given {
        ColumnKeyTable {
            key_id: None,
            eds_config: None,
            file: Some(file),
        } => Some(ColumnKeySource::File(folder.join(file))),
        ColumnKeyTable {
            key_id: Some(key_id),
            eds_config: Some(eds_config),
            file: None,
        } => match KeyId::new(key_id.as_str()) {
            Ok(key_id) => Some(ColumnKeySource::Stores {
                key_id,
                eds_config: folder.join(eds_config),
            }),
            Err(error) => {
                faults.push(format!("`column_key.key_id`: {error}"));
                None
            }
        },
        _ => {
            faults.push("give `column_key.key_id` with `column_key.eds_config`, or `column_key.file`".into());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told_at_once() {
        let text = r#"
            catalog = "a b"
            lisen = "127.0.0.1:1"
            administrators = ["bob"]
            [column_key]
            key_id = "/a//b"
            file = "x"
            [limits]
            in_flight = 0
            [[create]]
            prefix = ""
            principal = "alice"
        "#;
        let faults = Config::parse(text, Path::new("/nowhere")).unwrap_err().join("\n");
        for words in [
            "unknown key `lisen`",
            "`catalog`: `a b`",
            "`listen` is missing",
            "in_flight is too small",
            "`alice` is no DN",
            "`bob` is no DN",
            "`column_key.file`",
            "tls.certificate",
        ] {
            assert!(faults.contains(words), "{words} in\n{faults}");
        }
    }

    #[test]
    fn a_limit_that_is_given_leaves_the_others_as_they_are() {
        let read = |text: &str| toml::from_str::<File>(text).unwrap().limits;
        assert_eq!(read("").body_bytes, DEFAULT_BODY_BYTES);
        let some = read("[limits]\nin_flight = 7");
        assert_eq!((some.in_flight, some.body_bytes), (7, DEFAULT_BODY_BYTES));
        let body = read("[limits]\nbody_bytes = 2048");
        assert_eq!((body.in_flight, body.body_bytes), (Limits::default().in_flight, 2048));
    }

    #[test]
    fn a_rule_for_a_prefix_admits_to_its_directory() {
        let rules = Rules {
            catalog: "c".into(),
            create: vec![CreationRule {
                prefix: "/myvo/".into(),
                principal: "/CN=alice".into(),
            }],
            administrators: vec!["/CN=root".into()],
            acl: 100,
            per_owner: 0,
            backups_kept_days: None,
        };
        let may = |dn: &str, path: &str| {
            let caller = Caller {
                dn: dn.into(),
                fqans: Vec::new(),
                administrator: false,
            };
            rules.may_create(&caller, &LogicalName::new(path).unwrap())
        };
        assert!(may("/CN=alice", "/myvo") && may("/CN=alice", "/myvo/x"));
        assert!(!may("/CN=alice", "/myvox") && !may("/CN=bob", "/myvo") && !may("/CN=root", "/myvo"));
    }
}
