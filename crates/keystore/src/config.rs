//! The configuration of a key store: one TOML file, every fault told at once, unknown keys refused
//! (`docs/src/operating.md`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hydra_cli::config_file;
pub use hydra_cli::config_file::ConfigError;
use hydra_core::ids::StoreId;
use hydra_core::key_id::KeyId;
use hydra_core::keystore::store::Context;
use hydra_core::permissions::Caller;
use hydra_service::Limits;
use hydra_service::settings::{self, required};
pub use hydra_service::settings::{CreationRule, Monitor, Tls};
use serde::Deserialize;

/// The file as it stands there.
#[derive(Debug, Deserialize)]
struct File {
    store_id: Option<String>,
    listen: Option<String>,
    #[serde(default = "default_database")]
    database: PathBuf,
    #[serde(default = "default_store_key")]
    store_key: PathBuf,
    #[serde(default)]
    max_database_bytes: u64,
    #[serde(default = "default_level")]
    log: String,
    tls: Option<Tls>,
    #[serde(default)]
    administrators: Vec<String>,
    #[serde(default)]
    recovery: bool,
    #[serde(default)]
    create: Vec<CreationRule>,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    entries: EntryLimits,
    monitor: Option<Monitor>,
}

fn default_database() -> PathBuf {
    "keystore.db".into()
}

fn default_store_key() -> PathBuf {
    "store.key".into()
}

fn default_level() -> String {
    "info".into()
}

/// What one owner and one entry may have.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct EntryLimits {
    /// Entries, tombstones and stop marks that one identity brings.
    pub per_owner: u64,
    /// Lines of an ACL.
    pub acl: usize,
}

impl Default for EntryLimits {
    fn default() -> Self {
        Self {
            per_owner: 10_000_000,
            acl: 100,
        }
    }
}

/// A configuration that can work.
#[derive(Debug)]
pub struct Config {
    /// What the store calls itself, for ever.
    pub store: StoreId,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The SQLite file.
    pub database: PathBuf,
    /// 32 raw bytes, for nobody but the store.
    pub store_key: PathBuf,
    /// The most that the database may grow to; 0: as the disk allows.
    pub max_database_bytes: u64,
    /// A filter for the log.
    pub log: String,
    /// The host's certificate.
    pub tls: Tls,
    /// Who may what.
    pub rules: Rules,
    /// Of the listener.
    pub limits: Limits,
    /// Where monitoring asks.
    pub monitor: Option<SocketAddr>,
}

/// Who may create, who administers: everything that decisions take from the configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What the store calls itself.
    pub store: StoreId,
    /// In any order: one that matches is enough.
    pub create: Vec<CreationRule>,
    /// DNs and FQANs.
    pub administrators: Vec<String>,
    /// Administrators may read shares.
    pub recovery: bool,
    /// Of entries.
    pub entries: EntryLimits,
}

impl Rules {
    /// The caller behind a verified identity.
    pub fn caller(&self, identity: &grid_identity::Identity) -> Caller {
        settings::caller(&self.administrators, identity)
    }

    /// What decisions about a key id go by.
    pub fn context(&self, caller: &Caller, key_id: &KeyId, now: u64) -> Context {
        let mut rules = self.create.iter();
        Context {
            may_create: rules.any(|rule| key_id.as_str().starts_with(&rule.prefix) && caller.is(&rule.principal)),
            caller: caller.clone(),
            recovery: self.recovery,
            at_limit: false,
            acl_limit: self.entries.acl,
            store: self.store.clone(),
            now,
        }
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
        let store = required(&mut faults, "store_id", file.store_id, |text| {
            text.parse::<StoreId>().ok()
        });
        let listen = required(&mut faults, "listen", file.listen, |text| {
            text.parse::<SocketAddr>().ok()
        });
        let monitor = settings::monitor(&mut faults, file.monitor);
        if let Err(error) = hydra_service::log::filter(&file.log) {
            faults.push(format!("log: {error}"));
        }
        let tls = file.tls.unwrap_or_default().checked(&mut faults, folder);
        faults.extend(file.limits.faults());
        let create = settings::creation_rules(&mut faults, file.create);
        let administrators = settings::administrators(&mut faults, &file.administrators);
        let (Some(store), Some(listen), true) = (store, listen, faults.is_empty()) else {
            return Err(faults);
        };
        Ok(Self {
            listen,
            database: folder.join(file.database),
            store_key: folder.join(file.store_key),
            max_database_bytes: file.max_database_bytes,
            log: file.log,
            tls,
            rules: Rules {
                store: store.clone(),
                create,
                administrators,
                recovery: file.recovery,
                entries: file.entries,
            },
            store,
            limits: file.limits,
            monitor,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told_at_once() {
        let text = r#"
            store_id = "a b"
            lisen = "127.0.0.1:1"
            administrators = ["bob"]
            [limits]
            in_flight = 0
            body = 7
            [[create]]
            prefix = ""
            principal = "alice"
            who = "x"
        "#;
        let faults = Config::parse(text, Path::new("/nowhere")).unwrap_err().join("\n");
        for words in [
            "unknown key `lisen`",
            "unknown key `limits.body`",
            "unknown key `create.0.who`",
            "`store_id`: `a b`",
            "`listen` is missing",
            "in_flight is too small",
            "`alice` is no DN",
            "`bob` is no DN",
            "ca_dir",
            "tls.certificate",
        ] {
            assert!(faults.contains(words), "{words} in\n{faults}");
        }
    }

    #[test]
    fn the_example_that_is_installed_lacks_nothing_but_its_files() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/hydra-keystore.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let faults = Config::parse(&text.replace("\"/etc", "\"/nowhere"), Path::new("/")).unwrap_err();
        let all_missing = faults
            .iter()
            .all(|fault| fault.contains(": no file `") || fault.contains(": no folder `"));
        assert!(all_missing && faults.len() == 4, "{faults:?}");
    }

    #[test]
    fn principals_are_compared_in_their_one_form_however_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), "").unwrap();
        let text = r#"
            store_id = "a"
            listen = "127.0.0.1:1"
            administrators = ["/O=Grid/CN=host/ks.example.org/Email=root@example.org"]
            [tls]
            certificate = "f"
            key = "f"
            ca_dir = "."
            [[create]]
            prefix = ""
            principal = "/myvo/Role=writer/Capability=NULL"
        "#;
        let rules = Config::parse(text, folder.path()).unwrap().rules;
        let who = |dn: &str, fqan: &str| grid_identity::Identity {
            dn: dn.into(),
            fqans: vec![fqan.into()],
            voms_error: None,
            method: grid_identity::Method::Proxy,
            limited: false,
            not_after: std::time::SystemTime::now(),
        };
        let writer = rules.caller(&who("/CN=x", "/myvo/Role=writer"));
        assert!(rules.context(&writer, &KeyId::new("/a").unwrap(), 0).may_create && !writer.administrator);
        let root = rules.caller(&who(
            "/O=Grid/CN=host\\/ks.example.org/emailAddress=root@example.org",
            "/other",
        ));
        assert!(root.administrator && !rules.context(&root, &KeyId::new("/a").unwrap(), 0).may_create);
    }

    #[test]
    fn creation_goes_by_prefix_and_principal() {
        let rules = Rules {
            store: "b".parse().unwrap(),
            create: vec![
                CreationRule {
                    prefix: "/myvo/".into(),
                    principal: "/CN=alice".into(),
                },
                CreationRule {
                    prefix: String::new(),
                    principal: "/myvo/Role=any".into(),
                },
            ],
            administrators: vec!["/CN=root".into()],
            recovery: false,
            entries: EntryLimits::default(),
        };
        let may = |dn: &str, fqans: &[&str], key_id: &str| {
            let caller = Caller {
                dn: dn.into(),
                fqans: fqans.iter().map(|fqan| (*fqan).to_owned()).collect(),
                administrator: false,
            };
            rules.context(&caller, &KeyId::new(key_id).unwrap(), 0).may_create
        };
        assert!(may("/CN=alice", &[], "/myvo/x"));
        assert!(!may("/CN=alice", &[], "/myvox"));
        assert!(!may("/CN=alice", &[], "bare"));
        assert!(may("/CN=bob", &["/myvo/Role=any"], "bare"));
        assert!(!may("/CN=root", &[], "/myvo/x"));
    }
}
