//! `hydra-keystore init`, `check`, `audit` and `serve`: see `docs/src/commands/hydra-keystore.md`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use grid_identity::Voms;
use hydra_cli::command::{self, Example};
use hydra_cli::{Code, Failure, output};
use hydra_core::ids::StoreId;
use hydra_core::secret::Key;
use hydra_service::Limits;
use hydra_service::folder::{FolderError, NewFolder};
use hydra_service::key_file::{self, KeyFileError};
use hydra_service::run::{Host, RunError};
use hydra_service::settings::CreationRule;

use crate::api;
use crate::audit::{self, SignedHead};
use crate::config::{Config, ConfigError};
use crate::database::{self, DatabaseError};
use crate::engine::{Engine, now};
use crate::maintenance::{self, Maintenance};

/// Runs a Hydra key store: one share of each key, never a key
#[derive(Debug, Parser)]
#[command(name = "hydra-keystore", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a new store in DIR: configuration, store key, database
    Init(Init),
    /// Say everything that is wrong with a configuration
    Check {
        /// The configuration file
        config: PathBuf,
    },
    /// Look through the audit log
    #[command(subcommand)]
    Audit(Audit),
    #[command(flatten)]
    Maintenance(Maintenance),
    /// Serve until SIGTERM or SIGINT; prints `listening on https://HOST:PORT`
    Serve {
        /// The configuration file
        config: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum Audit {
    /// Check the chain of lines and the signed heads, also while the store serves
    Verify {
        /// The configuration file
        config: PathBuf,
        /// A head that was kept elsewhere, as the log and this command print it; may be repeated
        #[arg(long, value_name = "HEAD")]
        head: Vec<SignedHead>,
    },
    /// Print the lines, a JSON object each
    Show {
        /// The configuration file
        config: PathBuf,
        /// Begin behind this line
        #[arg(long, value_name = "LINE", default_value_t = 0)]
        after: i64,
    },
}

#[derive(Debug, clap::Args)]
struct Init {
    /// A folder that is empty or not there yet
    dir: PathBuf,
    /// What the store calls itself, for ever [default: the host's name]
    #[arg(long)]
    store_id: Option<String>,
    /// Where it listens; port 0 takes any that is free
    #[arg(long, default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// The host's certificate, PEM
    #[arg(long, value_name = "FILE", default_value = "/etc/grid-security/hostcert.pem")]
    certificate: PathBuf,
    /// The key of the host's certificate, PEM
    #[arg(long, value_name = "FILE", default_value = "/etc/grid-security/hostkey.pem")]
    key: PathBuf,
    /// Folder of certificate authorities, revocation lists and signing policies
    #[arg(long, value_name = "DIR", default_value = "/etc/grid-security/certificates")]
    ca_dir: PathBuf,
    /// Folder of LSC files, by which VOMS servers are believed [default: /etc/grid-security/vomsdir]
    #[arg(long, value_name = "DIR")]
    voms_dir: Option<PathBuf>,
    /// Let PRINCIPAL (a DN or an FQAN) create key ids that begin with PREFIX; may be repeated
    #[arg(long, value_name = "PREFIX=PRINCIPAL")]
    create: Vec<String>,
}

const EXAMPLES: [Example; 3] = [
    Example {
        says: "make a store that lets Alice create any key id",
        command: "hydra-keystore init /var/lib/hydra --store-id ks-a.example.org --create =/DC=org/CN=Alice",
    },
    Example {
        says: "serve it",
        command: "hydra-keystore serve /var/lib/hydra/hydra-keystore.toml",
    },
    Example {
        says: "back it up while it serves",
        command: "hydra-keystore backup /var/lib/hydra/hydra-keystore.toml /backup/hydra-2026-11-22.db",
    },
];

/// The whole program.
pub fn main() -> ExitCode {
    hydra_cli::harden();
    command::run::<Arguments>(&EXAMPLES, |arguments| match arguments.verb {
        Verb::Init(arguments) => init(&arguments),
        Verb::Check { config } => check(&config),
        Verb::Audit(Audit::Verify { config, head }) => audit_verify(&config, &head),
        Verb::Audit(Audit::Show { config, after }) => audit_show(&config, after),
        Verb::Maintenance(verb) => maintenance::run(&verb),
        Verb::Serve { config } => serve(&config),
    })
}

/// Why a store cannot be made, checked or served.
#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error("`--create {0}`: not PREFIX=PRINCIPAL, where a principal begins with a slash")]
    Rule(String),
    #[error("no random numbers from the operating system")]
    Random,
    #[error("store key {0}")]
    StoreKey(KeyFileError),
}

// --- init -------------------------------------------------------------------------------------------------------------

const CONFIG_NAME: &str = "hydra-keystore.toml";
const KEY_NAME: &str = "store.key";

fn init(arguments: &Init) -> Result<(), Failure> {
    let store = store_id(arguments)?;
    let rules = creation_rules(&arguments.create)?;
    let mut made = NewFolder::make(&arguments.dir).map_err(not_made)?;
    fill(arguments, &store, &rules, &mut made)?;
    made.keep();
    output::tell(&format!(
        "store `{store}` is ready: keep a copy of {} away from the database's backups",
        arguments.dir.join(KEY_NAME).display()
    ));
    output::print_line(&arguments.dir.join(CONFIG_NAME).display().to_string())
}

fn not_made(error: FolderError) -> Failure {
    Failure::new(Code::CannotCreate, error)
}

fn fill(arguments: &Init, store: &StoreId, rules: &[(String, String)], made: &mut NewFolder) -> Result<(), Failure> {
    let mut new_file = |path: &Path, bytes: &[u8], mode| made.write(path, bytes, mode).map_err(not_made);
    let key_path = arguments.dir.join(KEY_NAME);
    let key = Key::random().map_err(|_| Failure::new(Code::Failed, StoreError::Random))?;
    new_file(&key_path, key.expose(), 0o600)?;
    let database = arguments.dir.join("keystore.db");
    new_file(&database, &[], 0o600)?;
    database::create(&database, store, &key, now()).map_err(database_failure)?;
    let config = arguments.dir.join(CONFIG_NAME);
    new_file(&config, config_text(arguments, store, rules).as_bytes(), 0o640)
}

fn store_id(arguments: &Init) -> Result<StoreId, Failure> {
    let text = match &arguments.store_id {
        Some(text) => text.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    text.parse().map_err(|error| Failure::new(Code::Usage, error))
}

fn creation_rules(given: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let rule = |text: &String| {
        CreationRule::of_option(text).ok_or_else(|| Failure::new(Code::Usage, StoreError::Rule(text.clone())))
    };
    given.iter().map(rule).collect()
}

/// Quoted as TOML wants it.
fn quoted(text: impl std::fmt::Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn config_text(arguments: &Init, store: &StoreId, rules: &[(String, String)]) -> String {
    let absolute = |path: &Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        quoted(path.display())
    };
    let limits = Limits::default();
    let rule = |(prefix, principal): &(String, String)| {
        format!(
            "[[create]]\nprefix = {}\nprincipal = {}\n",
            quoted(prefix),
            quoted(principal)
        )
    };
    let rules = if rules.is_empty() {
        "# [[create]]\n# prefix = \"/myvo/\"\n# principal = \"/DC=org/DC=example/CN=Alice\"\n".to_owned()
    } else {
        rules.iter().map(rule).collect::<Vec<_>>().join("\n")
    };
    format!(
        "# A Hydra key store. `hydra-keystore check` says everything that is wrong with this file; keys that it does not\n\
         # know are refused. Relative paths start from the folder of this file.\n\
         \n\
         # What the store calls itself, in every sharing. It never changes, whatever the host is called.\n\
         store_id = {store}\n\
         # Port 0 takes any that is free; the address is printed on standard output.\n\
         listen = {listen}\n\
         database = \"keystore.db\"\n\
         # 32 bytes that seal the shares on disk. Whoever has this file and the database has the shares.\n\
         store_key = \"store.key\"\n\
         # The most bytes that the database may grow to; 0: as the disk allows.\n\
         max_database_bytes = 0\n\
         # error, warn, info, debug or trace\n\
         log = \"info\"\n\
         # DNs and FQANs that may list and remove every entry and change its permissions, but never read a share …\n\
         administrators = []\n\
         # … unless this is true.\n\
         recovery = false\n\
         \n\
         [tls]\n\
         certificate = {certificate}\n\
         key = {key}\n\
         # Certificate authorities of clients, with revocation lists and signing policies.\n\
         ca_dir = {ca_dir}\n\
         # LSC files of VOs, whose VOMS servers may give clients groups and roles.\n\
         {voms_dir}\n\
         # Proxies from before RFC 3820 are refused, unless these are true: the first ones of Globus, and those of drafts.\n\
         legacy_proxies = false\n\
         draft_proxies = false\n\
         \n\
         [limits]\n\
         handshake_ms = {handshake_ms}\n\
         header_ms = {header_ms}\n\
         request_ms = {request_ms}\n\
         body_bytes = {body_bytes}\n\
         connections = {connections}\n\
         in_flight = {in_flight}\n\
         # Of one identity; a batch counts as its items.\n\
         items_per_second = {items_per_second}\n\
         burst_items = {burst_items}\n\
         # How long a stopping store waits for requests in flight.\n\
         stop_ms = {stop_ms}\n\
         \n\
         [entries]\n\
         # Entries, tombstones and stop marks that one identity may bring.\n\
         per_owner = 10000000\n\
         # Lines of an ACL.\n\
         acl = 100\n\
         \n\
         # Liveness, readiness and metrics without TLS: /live, /ready, /metrics.\n\
         # [monitor]\n\
         # listen = \"127.0.0.1:9443\"\n\
         \n\
         # Who may create key ids that begin with a prefix (\"\" is any). Without a rule nobody may.\n\
         {rules}",
        store = quoted(store),
        listen = quoted(arguments.listen),
        certificate = absolute(&arguments.certificate),
        key = absolute(&arguments.key),
        ca_dir = absolute(&arguments.ca_dir),
        voms_dir = match &arguments.voms_dir {
            Some(folder) => format!("voms_dir = {}", absolute(folder)),
            None => format!("# voms_dir = {}", quoted(Voms::DIRECTORY)),
        },
        handshake_ms = limits.handshake_ms,
        header_ms = limits.header_ms,
        request_ms = limits.request_ms,
        body_bytes = limits.body_bytes,
        connections = limits.connections,
        in_flight = limits.in_flight,
        items_per_second = limits.items_per_second,
        burst_items = limits.burst_items,
        stop_ms = limits.stop_ms,
    )
}

// --- audit ------------------------------------------------------------------------------------------------------------

fn audit_verify(path: &Path, kept: &[SignedHead]) -> Result<(), Failure> {
    let config = read_config(path)?;
    let key = read_store_key(&config.store_key)?;
    let connection = database::open_reader(&config.database).map_err(database_failure)?;
    // One moment of a database that may be written to.
    let moment = connection
        .unchecked_transaction()
        .map_err(|error| database_failure(error.into()))?;
    let keys = database::data_keys(&moment, &key).map_err(database_failure)?;
    let found = audit::verify(&moment, &keys, &config.store, kept).map_err(database_failure)?;
    let whole = found.map_err(|fault| Failure::new(Code::Damaged, fault))?;
    let (lines, signed) = (whole.head.sequence, whole.signed_to);
    output::print_line(&format!("ok: {lines} lines, signed up to line {signed}"))?;
    output::print_line(&SignedHead::sign(&keys, &config.store, &whole.head, now()).to_string())
}

fn audit_show(path: &Path, mut after: i64) -> Result<(), Failure> {
    const CHUNK: u32 = 1000;
    let config = read_config(path)?;
    let connection = database::open_reader(&config.database).map_err(database_failure)?;
    loop {
        let rows = database::audit_rows(&connection, after, CHUNK).map_err(database_failure)?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.sequence;
        for row in &rows {
            let line = serde_json::to_string(row).map_err(|error| Failure::new(Code::Failed, error))?;
            if !output::print_one_more(&line)? {
                return Ok(());
            }
        }
    }
}

// --- check ------------------------------------------------------------------------------------------------------------

fn check(path: &Path) -> Result<(), Failure> {
    let config = read_config(path)?;
    let mut faults = Vec::new();
    let mut note = |what: &str, found: Option<Failure>| {
        if let Some(failure) = found {
            let lines = failure.lines().join(",").replace("error: ", "").replace("  cause:", "");
            faults.push(format!("{what}: {lines}"));
        }
    };
    note("store_key", read_store_key(&config.store_key).err());
    if !config.database.is_file() {
        let missing = format!("no file `{}`", config.database.display());
        note("database", Some(Failure::new(Code::Config, missing)));
    }
    if config.tls.ca_file.is_some() {
        let useless = "no client gets in: a store refuses whoever it cannot check, and `tls.ca_file` brings no revocation \
                       lists and signing policies; give `tls.ca_dir`";
        note("tls", Some(Failure::new(Code::Config, useless)));
    }
    let tls = config.tls.trust().and_then(|trust| config.tls.server_config(trust));
    note("tls", tls.err().map(config_failure));
    if faults.is_empty() {
        return output::print_line("ok");
    }
    let path = path.to_owned();
    Err(Failure::new(Code::Config, ConfigError::Faults { path, faults }))
}

pub(crate) fn read_config(path: &Path) -> Result<Config, Failure> {
    Config::read(path).map_err(|error| Failure::new(Code::Config, error))
}

fn config_failure(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::new(Code::Config, error)
}

/// The store key: 32 raw bytes in a file that nobody but its owner can read.
pub(crate) fn read_store_key(path: &Path) -> Result<Key, Failure> {
    key_file::read(path).map_err(|error| {
        let advice = error.advice();
        let failure = Failure::new(Code::Config, StoreError::StoreKey(error));
        advice.into_iter().fold(failure, Failure::advise)
    })
}

pub(crate) fn database_failure(error: DatabaseError) -> Failure {
    Failure::new(database_code(&error), error)
}

pub(crate) fn database_code(error: &DatabaseError) -> Code {
    match error {
        DatabaseError::Locked { .. } => Code::TryLater,
        DatabaseError::Sqlite(_) | DatabaseError::Open { .. } | DatabaseError::Row { .. } => Code::Io,
        _ => Code::Config,
    }
}

// --- serve ------------------------------------------------------------------------------------------------------------

fn serve(path: &Path) -> Result<(), Failure> {
    let config = read_config(path)?;
    let key = read_store_key(&config.store_key)?;
    let trust = config.tls.trust().map_err(config_failure)?;
    let tls = config.tls.server_config(Arc::clone(&trust)).map_err(config_failure)?;
    hydra_service::log::start(&config.log).map_err(config_failure)?;
    let engine = Engine::open(&config.database, &key, config.rules.clone(), config.max_database_bytes);
    let engine = Arc::new(engine.map_err(database_failure)?);
    if engine.restored() {
        tracing::warn!("restored from a backup: entries stay in quarantine until repaired or opened");
    }
    let host = Host {
        listen: config.listen,
        monitor: config.monitor,
        tls: Arc::new(tls),
        trust,
        limits: config.limits.clone(),
    };
    let asked = Arc::clone(&engine);
    let ready = Arc::new(move || asked.is_ready());
    let router = api::router(Arc::clone(&engine), &config.limits);
    let served = host.run(router, ready, |address| {
        tracing::info!(store = %config.store, %address, "listening");
        // Whoever started it may have gone; it serves all the same.
        let _ = output::print_line(&format!("listening on https://{address}"));
    });
    engine.close();
    served.map_err(|error| match error {
        RunError::Listen { .. } => Failure::new(Code::Config, error),
        _ => Failure::new(Code::Failed, error),
    })
}
