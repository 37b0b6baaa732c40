//! `hydra-keystore init`, `check`, `audit` and `serve`: see `docs/src/commands/hydra-keystore.md`.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use grid_identity::chain::OldProxies;
use grid_identity::{Policy, TrustStore, Voms, tls};
use hydra_cli::command::{self, Example};
use hydra_cli::{Code, Failure, output};
use hydra_core::ids::StoreId;
use hydra_core::secret::Key;
use hydra_service::{Limits, monitor};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::audit::{self, SignedHead};
use crate::config::{Config, ConfigError};
use crate::database::{self, DatabaseError};
use crate::engine::{Engine, now};
use crate::maintenance::{self, Maintenance};
use crate::{api, engine};

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
    #[error("`{}` is not empty", .0.display())]
    NotEmpty(PathBuf),
    #[error("cannot write `{}`", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`--create {0}`: not PREFIX=PRINCIPAL, where a principal begins with a slash")]
    Rule(String),
    #[error("no random numbers from the operating system")]
    Random,
    #[error("store key `{}` {reason}", path.display())]
    StoreKey { path: PathBuf, reason: String },
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot start")]
    Start(#[source] io::Error),
}

// --- init -------------------------------------------------------------------------------------------------------------

const CONFIG_NAME: &str = "hydra-keystore.toml";
const KEY_NAME: &str = "store.key";

fn init(arguments: &Init) -> Result<(), Failure> {
    let store = store_id(arguments)?;
    let rules = creation_rules(&arguments.create)?;
    let mut made = Made::default();
    let filled = make_folder(&arguments.dir, &mut made).and_then(|()| fill(arguments, &store, &rules, &mut made));
    filled.inspect_err(|_| made.take_back())?;
    output::tell(&format!(
        "store `{store}` is ready: keep a copy of {} away from the database's backups",
        arguments.dir.join(KEY_NAME).display()
    ));
    output::print_line(&arguments.dir.join(CONFIG_NAME).display().to_string())
}

/// What `init` made so far.
#[derive(Default)]
struct Made {
    folder: Option<PathBuf>,
    files: Vec<PathBuf>,
}

impl Made {
    /// Half a store is of no use, and in the way of the next attempt.
    fn take_back(&self) {
        for file in &self.files {
            // the database's have others beside them
            for end in ["", "-wal", "-shm"] {
                let mut path = file.clone().into_os_string();
                path.push(end);
                let _ = std::fs::remove_file(path);
            }
        }
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

fn fill(arguments: &Init, store: &StoreId, rules: &[(String, String)], made: &mut Made) -> Result<(), Failure> {
    let mut new_file =
        |path: &Path, bytes: &[u8], mode| write_new(path, bytes, mode).inspect(|()| made.files.push(path.to_owned()));
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
        // A DN has `=` in it, a principal begins with a slash: the first `=/` parts the two.
        let parts = text.split_once("=/").filter(|(_, principal)| !principal.is_empty());
        let (prefix, principal) = parts.ok_or_else(|| Failure::new(Code::Usage, StoreError::Rule(text.clone())))?;
        Ok((prefix.to_owned(), format!("/{principal}")))
    };
    given.iter().map(rule).collect()
}

fn make_folder(dir: &Path, made: &mut Made) -> Result<(), Failure> {
    let failed = |source| {
        let path = dir.to_owned();
        Failure::new(Code::CannotCreate, StoreError::Write { path, source })
    };
    match std::fs::read_dir(dir) {
        Ok(mut found) => match found.next() {
            None => Ok(()),
            Some(_) => Err(Failure::new(Code::CannotCreate, StoreError::NotEmpty(dir.to_owned()))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map(|()| made.folder = Some(dir.to_owned()))
            .map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })
    };
    write().map_err(|source| {
        let path = path.to_owned();
        Failure::new(Code::CannotCreate, StoreError::Write { path, source })
    })
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
    match trust(&config) {
        Err(failure) => note("tls", Some(failure)),
        Ok(trust) => note("tls", server_config(&config, trust).err()),
    }
    if faults.is_empty() {
        return output::print_line("ok");
    }
    let path = path.to_owned();
    Err(Failure::new(Code::Config, ConfigError::Faults { path, faults }))
}

pub(crate) fn read_config(path: &Path) -> Result<Config, Failure> {
    Config::read(path).map_err(|error| Failure::new(Code::Config, error))
}

fn trust(config: &Config) -> Result<Arc<TrustStore>, Failure> {
    let policy = Policy::server().with_old_proxies(OldProxies {
        legacy: config.tls.legacy_proxies,
        draft: config.tls.draft_proxies,
    });
    let opened = match (&config.tls.ca_dir, &config.tls.ca_file) {
        (Some(folder), _) => TrustStore::directory(folder, policy),
        (None, file) => TrustStore::file(file.clone().unwrap_or_default(), policy),
    };
    let trust = opened.map_err(|error| Failure::new(Code::Config, error))?;
    let hosts = tls::host_names(&config.tls.certificate).map_err(|error| Failure::new(Code::Config, error))?;
    let voms = Voms::directory(config.tls.voms_dir()).for_hosts(hosts);
    Ok(Arc::new(trust.with_voms(voms)))
}

fn server_config(config: &Config, trust: Arc<TrustStore>) -> Result<rustls::ServerConfig, Failure> {
    let mut server = tls::server_config(&config.tls.certificate, &config.tls.key, trust)
        .map_err(|error| Failure::new(Code::Config, error))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(server)
}

/// The store key: 32 raw bytes in a file that nobody but its owner can read.
pub(crate) fn read_store_key(path: &Path) -> Result<Key, Failure> {
    let refuse = |reason: String| {
        let path = path.to_owned();
        Failure::new(Code::Config, StoreError::StoreKey { path, reason })
    };
    let unread = |error: io::Error| refuse(format!("cannot be read: {error}"));
    let mut file = File::open(path).map_err(unread)?;
    let mode = file.metadata().map_err(unread)?.mode();
    if mode & 0o077 != 0 {
        let advice = format!("chmod 600 {}", path.display());
        return Err(refuse("can be read by others".into()).advise(advice));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(64));
    Read::by_ref(&mut file)
        .take(33)
        .read_to_end(&mut bytes)
        .map_err(unread)?;
    Key::from_slice(&bytes).ok_or_else(|| refuse("is not 32 bytes long".into()))
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
    let trust = trust(&config)?;
    let tls = Arc::new(server_config(&config, Arc::clone(&trust))?);
    hydra_service::log::start(&config.log).map_err(|error| Failure::new(Code::Config, error))?;
    let engine = engine::Engine::open(&config.database, &key, config.rules.clone(), config.max_database_bytes);
    let engine = Arc::new(engine.map_err(database_failure)?);
    let start = |error| Failure::new(Code::Failed, StoreError::Start(error));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(start)?;
    let served = runtime.block_on(run(&config, tls, trust, &engine));
    engine.close();
    served
}

async fn run(
    config: &Config,
    tls: Arc<rustls::ServerConfig>,
    trust: Arc<TrustStore>,
    engine: &Arc<Engine>,
) -> Result<(), Failure> {
    let start = |error| Failure::new(Code::Failed, StoreError::Start(error));
    let mut terminate = signal(SignalKind::terminate()).map_err(start)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(start)?;
    // A limit to the size of files then is a write that fails, not the end of the process.
    let _file_size = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map_err(start)?;
    if let Some(address) = config.monitor {
        serve_monitor(address, engine).await?;
    }
    let listener = listen(config.listen).await?;
    let address = listener.local_addr().map_err(start)?;
    for problem in trust.problems() {
        tracing::warn!(file = %problem.path.display(), reason = %problem.what, "a trust anchor's file is not used");
    }
    if engine.restored() {
        tracing::warn!("restored from a backup: entries stay in quarantine until repaired or opened");
    }
    tracing::info!(store = %config.store, %address, "listening");
    output::print_line(&format!("listening on https://{address}"))?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    };
    let router = api::router(Arc::clone(engine), &config.limits);
    let served = hydra_service::serve(listener, tls, trust, router, &config.limits, stop).await;
    served.map_err(|error| Failure::new(Code::Failed, error))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| Failure::new(Code::Config, StoreError::Listen { address, source }))
}

async fn serve_monitor(address: SocketAddr, engine: &Arc<Engine>) -> Result<(), Failure> {
    let engine = Arc::clone(engine);
    let served = monitor::serve(listen(address).await?, Arc::new(move || engine.is_ready()));
    served.map_err(|error| Failure::new(Code::Failed, error))
}
