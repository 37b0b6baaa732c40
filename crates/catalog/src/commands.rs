//! `mdm-catalog init`, `check`, `audit` and `serve`: see `docs/src/commands/mdm-catalog.md`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use grid_identity::Voms;
use hydra_cli::command::{self, Example};
use hydra_cli::{Code, Failure, output};
use hydra_core::ids::{RegistrationId, StoreId};
use hydra_core::key_id::KeyId;
use hydra_core::secret::Key;
use hydra_service::audit::SignedHead;
use hydra_service::copy::CopyError;
use hydra_service::folder::{FolderError, NewFolder};
use hydra_service::run::{Host, RunError};
use hydra_service::settings::{CreationRule, Tls};

use crate::backup::{self, BackupError, Catalog, Contents};
use crate::columns::ColumnKeys;
use crate::config::{self, ColumnKeySource, Config, ConfigError, DatabaseSource};
use crate::database::postgres::{Postgres, Remedy, Settings};
use crate::database::sqlite::Sqlite;
use crate::database::{Database, DatabaseError};
use crate::engine::{Engine, OpenError, now};
use crate::lock::Lock;
use crate::{column_key, rest};

/// Runs a catalogue: names, replicas and attributes of sealed images
#[derive(Debug, Parser)]
#[command(name = "mdm-catalog", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a new catalogue in DIR: configuration, column key, database
    Init(Box<Init>),
    /// Say everything that is wrong with a configuration
    Check {
        /// The configuration file
        config: PathBuf,
    },
    /// Look through the audit log
    #[command(subcommand)]
    Audit(Audit),
    /// Write the database to a new file, also while the catalogue serves
    Backup {
        /// The configuration file
        config: PathBuf,
        /// A file that is not there yet
        file: PathBuf,
    },
    /// Put a backup in place of the database
    Restore {
        /// The configuration file
        config: PathBuf,
        /// What `backup` wrote
        file: PathBuf,
        /// Over a database that is not empty, which is kept beside it
        #[arg(long)]
        replace: bool,
    },
    /// Serve until SIGTERM or SIGINT; prints `listening on https://HOST:PORT`
    Serve {
        /// The configuration file
        config: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum Audit {
    /// Check the chain of lines and the signed heads, also while the catalogue serves
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
    /// What the catalogue calls itself, for ever [default: the host's name]
    #[arg(long)]
    name: Option<String>,
    /// Where it listens; port 0 takes any that is free
    #[arg(long, default_value = "0.0.0.0:8446")]
    listen: SocketAddr,
    /// Register the key of the identifying half in the key stores, under this key id
    #[arg(long, value_name = "KEY_ID", required_unless_present = "key_in_file")]
    column_key: Option<String>,
    /// The client configuration that names the key stores
    #[arg(long, value_name = "FILE", default_value = "/etc/eds/config.toml")]
    eds_config: PathBuf,
    /// Keep the key of the identifying half in a file instead
    #[arg(long, conflicts_with = "column_key")]
    key_in_file: bool,
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
    /// Keep names and attributes in this PostgreSQL database, which has no tables yet, and not in a SQLite file
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// The file of the database's password
    #[arg(long, value_name = "FILE", requires = "database")]
    database_password_file: Option<PathBuf>,
    /// The authorities that may sign the certificate of the database's server, PEM
    #[arg(long, value_name = "FILE", requires = "database")]
    database_authorities: Option<PathBuf>,
    /// Let PRINCIPAL (a DN or an FQAN) make directories at the top that begin with PREFIX; may be repeated
    #[arg(long, value_name = "PREFIX=PRINCIPAL")]
    create: Vec<String>,
}

const EXAMPLES: [Example; 3] = [
    Example {
        says: "make a catalogue whose column key is shared among the key stores",
        command: "mdm-catalog init /var/lib/mdm --column-key /myvo/catalog/column --create /myvo/=/myvo",
    },
    Example {
        says: "serve it",
        command: "mdm-catalog serve /var/lib/mdm/mdm-catalog.toml",
    },
    Example {
        says: "say everything that is wrong with its configuration",
        command: "mdm-catalog check /var/lib/mdm/mdm-catalog.toml",
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
        Verb::Backup { config, file } => write_backup(&config, &file),
        Verb::Restore { config, file, replace } => restore(&config, &file, replace),
        Verb::Serve { config } => serve(&config),
    })
}

/// Why a catalogue cannot be made, checked or served.
#[derive(Debug, thiserror::Error)]
enum CatalogError {
    #[error("`--create {0}`: not PREFIX=PRINCIPAL, where a principal begins with a slash")]
    Rule(String),
    #[error("no random numbers from the operating system")]
    Random,
    #[error("the column key is not taken")]
    ColumnKey,
    #[error("there is a key `{0}` already: it may be another catalogue's")]
    KeyTaken(KeyId),
    #[error("a PostgreSQL database is backed up by its own means")]
    ByItsOwnMeans,
    #[error("the database is no PostgreSQL database: an address begins with `postgres://`")]
    NoAddress,
}

pub(crate) fn config_failure(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::new(Code::Config, error)
}

// --- init -------------------------------------------------------------------------------------------------------------

const CONFIG_NAME: &str = "mdm-catalog.toml";
const KEY_NAME: &str = "column.key";
const DATABASE_NAME: &str = "catalog.db";

fn not_made(error: FolderError) -> Failure {
    Failure::new(Code::CannotCreate, error)
}

fn init(arguments: &Init) -> Result<(), Failure> {
    let name = catalog_name(arguments)?;
    let rules = creation_rules(&arguments.create)?;
    let mut made = NewFolder::make(&arguments.dir).map_err(not_made)?;
    // Before a key is registered for it.
    look_at_database(arguments)?;
    let new_key = new_column_key(arguments, &mut made)?;
    let done: Result<_, Failure> = (|| {
        let fetched;
        let key = match &new_key {
            NewKey::File(key) => key,
            NewKey::Stores { key_id, .. } => {
                let eds_config = arguments.eds_config.clone();
                let key_id = key_id.clone();
                let source = ColumnKeySource::Stores { key_id, eds_config };
                fetched = column_key::fetch(&source, &own_tls(arguments))?;
                &fetched
            }
        };
        let keys = ColumnKeys::new(key).map_err(|_| Failure::new(Code::Failed, CatalogError::ColumnKey))?;
        let database = new_database(arguments, &mut made)?;
        Engine::found(&database, &name, &keys).map_err(database_failure)?;
        let config = arguments.dir.join(CONFIG_NAME);
        let text = config_text(arguments, &name, &rules);
        made.write(&config, text.as_bytes(), 0o640).map_err(not_made)?;
        Ok(config)
    })();
    if let (
        Err(_),
        NewKey::Stores {
            key_id,
            registration_id,
        },
    ) = (&done, new_key)
        && let Err(failure) =
            column_key::unregister(&key_id, registration_id, &arguments.eds_config, &own_tls(arguments))
    {
        output::tell(&format!(
            "the key `{key_id}` is left in the key stores: {}",
            failure.lines().join(", ")
        ));
    }
    let config = done?;
    made.keep();
    output::tell(&format!("catalogue `{name}` is ready"));
    output::print_line(&config.display().to_string())
}

/// The host's certificate alone.
fn own_tls(arguments: &Init) -> Tls {
    Tls {
        certificate: arguments.certificate.clone(),
        key: arguments.key.clone(),
        ..Tls::default()
    }
}

/// How the PostgreSQL database is reached that the options name.
fn given_settings(arguments: &Init, url: &str) -> Result<Settings, Failure> {
    let password_file = arguments.database_password_file.as_deref();
    let authorities = arguments.database_authorities.as_deref();
    Settings::of(url, password_file, authorities).map_err(config_failure)
}

/// Whether there is a PostgreSQL database, and no catalogue in it.
fn look_at_database(arguments: &Init) -> Result<(), Failure> {
    let Some(url) = &arguments.database else { return Ok(()) };
    Postgres::look(given_settings(arguments, url)?).map_err(database_failure)
}

/// A file in the folder, or tables in a PostgreSQL database that has none yet.
fn new_database(arguments: &Init, made: &mut NewFolder) -> Result<Database, Failure> {
    let Some(url) = &arguments.database else {
        let path = arguments.dir.join(DATABASE_NAME);
        made.add(&path);
        return Ok(Database::new(Sqlite::create(&path).map_err(database_failure)?));
    };
    let postgres = Postgres::create(given_settings(arguments, url)?);
    Ok(Database::new(postgres.map_err(database_failure)?))
}

/// The key of the identifying half, as it was made.
enum NewKey {
    /// In a file, and at hand.
    File(Key),
    /// In the key stores.
    Stores {
        key_id: KeyId,
        registration_id: RegistrationId,
    },
}

fn new_column_key(arguments: &Init, made: &mut NewFolder) -> Result<NewKey, Failure> {
    if let Some(text) = &arguments.column_key {
        let key_id = KeyId::new(text.as_str()).map_err(|error| Failure::new(Code::Usage, error))?;
        let registered = column_key::register(&key_id, &arguments.eds_config, &own_tls(arguments))?;
        let Some(registration_id) = registered else {
            return Err(Failure::new(Code::CannotCreate, CatalogError::KeyTaken(key_id)));
        };
        return Ok(NewKey::Stores {
            key_id,
            registration_id,
        });
    }
    let key = Key::random().map_err(|_| Failure::new(Code::Failed, CatalogError::Random))?;
    let path = arguments.dir.join(KEY_NAME);
    made.write(&path, key.expose(), 0o600).map_err(not_made)?;
    Ok(NewKey::File(key))
}

fn catalog_name(arguments: &Init) -> Result<String, Failure> {
    let text = match &arguments.name {
        Some(text) => text.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    let name: Result<StoreId, _> = text.parse();
    name.map(|name| name.to_string())
        .map_err(|error| Failure::new(Code::Usage, error))
}

fn creation_rules(given: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let rule = |text: &String| {
        CreationRule::of_option(text).ok_or_else(|| Failure::new(Code::Usage, CatalogError::Rule(text.clone())))
    };
    given.iter().map(rule).collect()
}

/// Quoted as TOML wants it.
fn quoted(text: impl std::fmt::Display) -> String {
    toml::Value::String(text.to_string()).to_string()
}

fn config_text(arguments: &Init, name: &str, rules: &[(String, String)]) -> String {
    let absolute = |path: &Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        quoted(path.display())
    };
    let limits = config::default_limits();
    let rule = |(prefix, principal): &(String, String)| {
        let (prefix, principal) = (quoted(prefix), quoted(principal));
        format!("[[create]]\nprefix = {prefix}\nprincipal = {principal}\n")
    };
    let rules = if rules.is_empty() {
        "# [[create]]\n# prefix = \"/myvo/\"\n# principal = \"/myvo\"\n".to_owned()
    } else {
        rules.iter().map(rule).collect::<Vec<_>>().join("\n")
    };
    let column_key = match &arguments.column_key {
        Some(key_id) => format!(
            "key_id = {}\neds_config = {}\n# file = {}\n",
            quoted(key_id),
            absolute(&arguments.eds_config),
            quoted(KEY_NAME)
        ),
        None => format!(
            "# key_id = \"/myvo/catalog/column\"\n# eds_config = \"/etc/eds/config.toml\"\nfile = {}\n",
            quoted(KEY_NAME)
        ),
    };
    let stated = |name: &str, path: &Option<PathBuf>, usual: &str| match path {
        Some(path) => format!("{name} = {}", absolute(path)),
        None => format!("# {name} = {}", quoted(usual)),
    };
    let voms_dir = match &arguments.voms_dir {
        Some(folder) => format!("voms_dir = {}", absolute(folder)),
        None => format!("# voms_dir = {}", quoted(Voms::DIRECTORY)),
    };
    format!(
        "# A catalogue. `mdm-catalog check` says everything that is wrong with this file; keys that it does not know are\n\
         # refused. Relative paths start from the folder of this file.\n\
         \n\
         # What the catalogue calls itself. It never changes, whatever the host is called.\n\
         catalog = {name}\n\
         # Port 0 takes any that is free; the address is printed on standard output.\n\
         listen = {listen}\n\
         # A SQLite file, or a PostgreSQL database: \"postgres://USER@HOST/NAME\".\n\
         database = {database}\n\
         # The most bytes that a SQLite file may grow to; 0: as the disk allows.\n\
         max_database_bytes = 0\n\
         # error, warn, info, debug or trace\n\
         log = \"info\"\n\
         # DNs and FQANs that may see and remove every entry and change its permissions, but read no attribute.\n\
         administrators = []\n\
         # For how many days backups are kept: so long could something removed come back. Clients are told.\n\
         # backups_kept_days = 30\n\
         \n\
         # The key that the identifying half is sealed under: in the key stores, fetched at start with this host's\n\
         # certificate, or in a file of 32 bytes.\n\
         [column_key]\n\
         {column_key}\
         \n\
         # Of a PostgreSQL database: its password, and who may sign its server's certificate (not asked for on a socket).\n\
         [postgres]\n\
         {password_file}\n\
         {authorities}\n\
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
         # How long a stopping catalogue waits for requests in flight.\n\
         stop_ms = {stop_ms}\n\
         \n\
         [entries]\n\
         # Lines of an ACL.\n\
         acl = 100\n\
         # Entries that one owner may have, files and directories; 0: any number.\n\
         per_owner = 0\n\
         \n\
         # Liveness, readiness and metrics without TLS: /live, /ready, /metrics.\n\
         # [monitor]\n\
         # listen = \"127.0.0.1:9446\"\n\
         \n\
         # Who may make directories at the top that begin with a prefix (\"\" is any). Without a rule nobody may.\n\
         {rules}",
        name = quoted(name),
        listen = quoted(arguments.listen),
        database = quoted(arguments.database.as_deref().unwrap_or(DATABASE_NAME)),
        password_file = stated("password_file", &arguments.database_password_file, "database.password"),
        authorities = stated(
            "authorities",
            &arguments.database_authorities,
            "/etc/ssl/certs/ca-certificates.crt"
        ),
        certificate = absolute(&arguments.certificate),
        key = absolute(&arguments.key),
        ca_dir = absolute(&arguments.ca_dir),
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

// --- what all other verbs begin with ----------------------------------------------------------------------------------

pub(crate) fn read_config(path: &Path) -> Result<Config, Failure> {
    Config::read(path).map_err(config_failure)
}

pub(crate) fn open_database(config: &Config) -> Result<Database, Failure> {
    match &config.database {
        DatabaseSource::File(path) => {
            let sqlite = Sqlite::open(path).map_err(database_failure)?;
            if config.max_database_bytes > 0 {
                sqlite.limit(config.max_database_bytes).map_err(database_failure)?;
            }
            Ok(Database::new(sqlite))
        }
        DatabaseSource::Postgres { .. } => {
            let postgres = Postgres::open(postgres_settings(&config.database)?);
            Ok(Database::new(postgres.map_err(database_failure)?))
        }
    }
}

/// How a PostgreSQL database is reached.
fn postgres_settings(source: &DatabaseSource) -> Result<Settings, Failure> {
    let DatabaseSource::Postgres {
        url,
        password_file,
        authorities,
    } = source
    else {
        return Err(config_failure(CatalogError::NoAddress));
    };
    Settings::of(url, password_file.as_deref(), authorities.as_deref()).map_err(config_failure)
}

/// Keeps a second process from serving a file; servers of one PostgreSQL database take turns there.
fn lock(config: &Config) -> Result<Option<Lock>, Failure> {
    let file = config.database.file();
    file.map(|path| Lock::take(path).map_err(database_failure)).transpose()
}

pub(crate) fn open_engine(config: &Config) -> Result<Engine, Failure> {
    let key = column_key::fetch(&config.column_key, &config.tls)?;
    let keys = ColumnKeys::new(&key).map_err(|_| config_failure(CatalogError::ColumnKey))?;
    let engine = Engine::open(open_database(config)?, keys, config.rules.clone());
    engine.map_err(|error| match error {
        OpenError::Database(error) => database_failure(error),
        error => config_failure(error),
    })
}

pub(crate) fn database_failure(error: DatabaseError) -> Failure {
    Failure::new(database_code(&error), error)
}

fn database_code(error: &DatabaseError) -> Code {
    match error {
        DatabaseError::Locked { .. } => Code::TryLater,
        DatabaseError::NotOurs { .. }
        | DatabaseError::OtherCatalog { .. }
        | DatabaseError::Newer { .. }
        | DatabaseError::Exists
        | DatabaseError::IsBackup { .. } => Code::Config,
        DatabaseError::Postgres(error) if error.remedy == Remedy::Settings => Code::Config,
        error if error.is_away() => Code::TryLater,
        _ => Code::Io,
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
    let tls = config.tls.trust().and_then(|trust| config.tls.server_config(trust));
    note("tls", tls.err().map(config_failure));
    if config.tls.ca_file.is_some() {
        let useless = "no client gets in: a catalogue refuses whoever it cannot check, and `tls.ca_file` brings no \
                       revocation lists and signing policies; give `tls.ca_dir`";
        note("tls", Some(config_failure(useless)));
    }
    match config.database.file() {
        Some(path) if !path.is_file() => {
            let missing = format!("no file `{}`", path.display());
            note("database", Some(config_failure(missing)));
            note("column_key", column_key::fetch(&config.column_key, &config.tls).err());
        }
        _ => note("database", open_engine(&config).err()),
    }
    if faults.is_empty() {
        return output::print_line("ok");
    }
    let path = path.to_owned();
    Err(config_failure(ConfigError::Faults { path, faults }))
}

// --- audit ------------------------------------------------------------------------------------------------------------

fn audit_verify(path: &Path, kept: &[SignedHead]) -> Result<(), Failure> {
    let engine = open_engine(&read_config(path)?)?;
    let found = engine.verify_audit(kept).map_err(database_failure)?;
    let whole = found.map_err(|fault| Failure::new(Code::Damaged, fault))?;
    let (lines, signed) = (whole.head.sequence, whole.signed_to);
    output::print_line(&format!("ok: {lines} lines, signed up to line {signed}"))?;
    output::print_line(&engine.signed(&whole.head).to_string())
}

fn audit_show(path: &Path, mut after: i64) -> Result<(), Failure> {
    const CHUNK: i64 = 1000;
    let database = open_database(&read_config(path)?)?;
    loop {
        let rows = Engine::audit_lines(&database, after, CHUNK).map_err(database_failure)?;
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

// --- backup -----------------------------------------------------------------------------------------------------------

fn with_catalog<T>(config: &Path, work: impl FnOnce(&Catalog<'_>) -> Result<T, BackupError>) -> Result<T, Failure> {
    let config = read_config(config)?;
    let database = config.database.file();
    let database = database.ok_or_else(|| Failure::new(Code::Usage, CatalogError::ByItsOwnMeans))?;
    let key = column_key::fetch(&config.column_key, &config.tls)?;
    let keys = ColumnKeys::new(&key).map_err(|_| config_failure(CatalogError::ColumnKey))?;
    let catalog = Catalog {
        database,
        name: &config.rules.catalog,
        keys: &keys,
    };
    work(&catalog).map_err(backup_failure)
}

fn write_backup(config: &Path, file: &Path) -> Result<(), Failure> {
    let contents = with_catalog(config, |catalog| backup::backup(catalog, file, now()))?;
    output::print_line(&format!("ok: {}", counted(&contents)))?;
    output::print_line(&contents.head.to_string())
}

fn restore(config: &Path, file: &Path, replace: bool) -> Result<(), Failure> {
    let restored = with_catalog(config, |catalog| backup::restore(catalog, file, replace, now()))?;
    if let Some(aside) = &restored.aside {
        output::tell(&format!("the database that was here is kept as `{}`", aside.display()));
    }
    let made = restored.contents.made.as_deref().unwrap_or("a time that is not known");
    output::tell("what was removed since is there again: run withdrawals of that time once more");
    output::print_line(&format!("ok: {}, as of {made}", counted(&restored.contents)))
}

fn counted(contents: &Contents) -> String {
    format!("{} entries, {} replicas", contents.entries, contents.replicas)
}

fn backup_failure(error: BackupError) -> Failure {
    let code = match &error {
        BackupError::Copy(CopyError::Exists(_)) | BackupError::NotEmpty(_) => Code::CannotCreate,
        BackupError::Copy(CopyError::UnderWay(_)) => Code::TryLater,
        BackupError::Copy(CopyError::Name(_)) => Code::Usage,
        BackupError::Copy(CopyError::Copied(_)) | BackupError::Damaged { .. } | BackupError::Audit { .. } => {
            Code::Damaged
        }
        BackupError::Copy(_) => Code::Io,
        BackupError::OtherColumnKey(_) => Code::Config,
        BackupError::Database { source, .. } => database_code(source),
    };
    let advice = match &error {
        BackupError::NotEmpty(_) => Some("--replace, which keeps the database that is there beside it"),
        BackupError::Copy(CopyError::Copied(_)) => {
            Some("mdm-catalog backup, which copies a database in use as of one moment")
        }
        _ => None,
    };
    let failure = Failure::new(code, error);
    advice.into_iter().fold(failure, Failure::advise)
}

// --- serve ------------------------------------------------------------------------------------------------------------

/// How often the head of the audit log is signed.
const SIGN_EVERY: Duration = Duration::from_secs(60);

fn serve(path: &Path) -> Result<(), Failure> {
    let config = read_config(path)?;
    let trust = config.tls.trust().map_err(config_failure)?;
    let tls = config.tls.server_config(Arc::clone(&trust)).map_err(config_failure)?;
    hydra_service::log::start(&config.log).map_err(config_failure)?;
    let _lock = lock(&config)?;
    let engine = Arc::new(open_engine(&config)?);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let signing = Arc::clone(&engine);
    let (signed, last_signed) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        while stopped.recv_timeout(SIGN_EVERY) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            signing.sign_audit();
        }
        signing.sign_audit();
        drop(signed);
    });
    let host = Host {
        listen: config.listen,
        monitor: config.monitor,
        tls: Arc::new(tls),
        trust,
        limits: config.limits.clone(),
    };
    let asked = Arc::clone(&engine);
    let ready = Arc::new(move || asked.is_ready());
    let router = rest::router(Arc::clone(&engine), &config.limits);
    let served = host.run(router, ready, |address| {
        tracing::info!(catalog = %config.rules.catalog, %address, "listening");
        // Whoever started it may have gone; it serves all the same.
        let _ = output::print_line(&format!("listening on https://{address}"));
    });
    drop(stop);
    // A database that is away keeps nobody from ending.
    let _ = last_signed.recv_timeout(Duration::from_millis(config.limits.stop_ms));
    served.map_err(|error| match error {
        RunError::Listen { .. } => config_failure(error),
        _ => Failure::new(Code::Failed, error),
    })
}
