//! The configuration of `dicom-recall`: one TOML file, every fault told at once, unknown keys refused
//! (`docs/src/commands/dicom-recall.md`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dicom_deid::{Options, ProfileOption};
use dicom_net::{AeTitle, Deadlines, TlsFiles};
use hydra_cli::config_file;
pub use hydra_cli::config_file::ConfigError;
use mdm_catalog::config::DatabaseSource;
use mdm_catalog::database::postgres::Settings;
use serde::Deserialize;

use crate::names::{self, KeyPer, Template};
use crate::queue::Rules;
use crate::receive::{ReceiveConfig, ReceiveTable, Then};
use crate::transport::{LineConfig, LineTable};

/// The file as it stands there.
#[derive(Debug, Deserialize)]
struct File {
    pacs: Option<PacsTable>,
    deid: Option<DeidTable>,
    #[serde(default)]
    seal: SealTable,
    #[serde(default)]
    registry: RegistryTable,
    #[serde(default)]
    queue: QueueTable,
    place: Option<PlaceTable>,
    #[serde(default)]
    evict: Evict,
    #[serde(default)]
    daemon: DaemonTable,
    receive: Option<ReceiveTable>,
    #[serde(default)]
    catalog: CatalogTable,
}

#[derive(Debug, Default, Deserialize)]
struct CatalogTable {
    url: Option<String>,
    #[serde(default)]
    doors: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct RegistryTable {
    database: Option<String>,
    password_file: Option<PathBuf>,
    authorities: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
struct QueueTable {
    attempts: Option<u32>,
    first_wait_s: Option<f64>,
    longest_wait_s: Option<f64>,
    deadline_s: Option<f64>,
    lease_s: Option<f64>,
    keep_s: Option<f64>,
    workers: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct PlaceTable {
    folder: Option<PathBuf>,
    connect: Option<String>,
    listen: Option<String>,
    mode: Option<String>,
    peer: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    authorities: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
struct DaemonTable {
    monitor: Option<String>,
    log: Option<String>,
}

#[derive(Debug, Deserialize)]
struct PacsTable {
    method: Option<String>,
    ae_title: Option<String>,
    aet: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    listen: Option<String>,
    dicomweb: Option<String>,
    token_file: Option<PathBuf>,
    #[serde(default = "default_associations")]
    associations: usize,
    tls: Option<TlsTable>,
    #[serde(default)]
    deadlines: DeadlineTable,
}

fn default_associations() -> usize {
    2
}

#[derive(Debug, Deserialize)]
struct TlsTable {
    authorities: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
struct DeadlineTable {
    connect_s: Option<u64>,
    association_s: Option<u64>,
    unit_s: Option<u64>,
    whole_s: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct DeidTable {
    #[serde(default)]
    options: Vec<String>,
    #[serde(default)]
    flag_instead: bool,
    secret_key: Option<String>,
    secret_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
struct SealTable {
    name: Option<String>,
    key_per: Option<String>,
}

/// How instances come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Over our own association.
    CGet,
    /// Sent to us.
    CMove,
    /// Over HTTP.
    WadoRs,
}

impl Method {
    const NAMES: [(&str, Self); 3] = [
        ("c-get", Self::CGet),
        ("c-move", Self::CMove),
        ("wado-rs", Self::WadoRs),
    ];

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, method)| *method == self)
            .map_or("", |(name, _)| name)
    }
}

/// The PACS and how to speak to it.
#[derive(Debug, Clone)]
pub struct PacsConfig {
    /// How instances come.
    pub method: Method,
    /// DIMSE, for `c-get` and `c-move`.
    pub dimse: Option<Dimse>,
    /// DICOMweb, for `wado-rs`.
    pub web: Option<Web>,
    /// The most associations, or requests, at once.
    pub associations: usize,
    /// Files for TLS, where it is spoken.
    pub tls: Option<TlsFiles>,
    /// How long the PACS may take.
    pub deadlines: Deadlines,
}

/// A PACS that speaks DIMSE.
#[derive(Debug, Clone)]
pub struct Dimse {
    /// Our title.
    pub calling: AeTitle,
    /// Its title.
    pub called: AeTitle,
    /// Where it is.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Where we listen for what a C-MOVE sends.
    pub listen: String,
}

/// A PACS that speaks DICOMweb.
#[derive(Debug, Clone)]
pub struct Web {
    /// The root of the service.
    pub url: String,
    /// A file with a bearer token.
    pub token_file: Option<PathBuf>,
}

/// Where the secret of de-identification is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A registered key.
    Key(String),
    /// A file, for tests.
    File(PathBuf),
}

/// Where sealed files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Into a folder of this machine.
    Folder(PathBuf),
    /// Over the line, to the agent beside the storage element.
    Agent(LineConfig),
}

/// What is taken off the disk again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Evict {
    /// What was not read for so long.
    pub after_s: Option<u64>,
    /// What is over so many bytes, the least recently read first.
    pub most_bytes: Option<u64>,
}

/// A configuration that can work.
#[derive(Debug)]
pub struct Config {
    /// Where from.
    pub pacs: PacsConfig,
    /// What is left of an image.
    pub deid: Options,
    /// What its identifiers are made with.
    pub secret: SecretSource,
    /// What sealed files are called.
    pub names: Template,
    /// The text of it, to be read again with another `key_per`.
    pub name_text: String,
    /// For what there is a key.
    pub key_per: KeyPer,
    /// Where registry and queue are, for all but `now` and `check`.
    pub database: Option<DatabaseSource>,
    /// How often and how long is tried.
    pub rules: Rules,
    /// How many series are worked on at once.
    pub workers: usize,
    /// Where the daemon puts files.
    pub place: Option<Place>,
    /// What it takes away again.
    pub evict: Evict,
    /// Where the daemon answers for its monitoring.
    pub monitor: Option<SocketAddr>,
    /// What the daemon logs.
    pub log: String,
    /// What is taken from those who push images.
    pub receive: Option<ReceiveConfig>,
    /// The catalogue that is told of what is catalogued.
    pub catalog: Option<String>,
    /// URLs of the storage element's doors, without the names of files.
    pub doors: Vec<String>,
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
        let pacs = match file.pacs {
            Some(table) => pacs(&mut faults, table, folder),
            None => missing(&mut faults, "[pacs]"),
        };
        let deid = match file.deid {
            Some(table) => deid(&mut faults, table, folder),
            None => missing(&mut faults, "[deid]"),
        };
        let key_per = match file.seal.key_per.as_deref() {
            None | Some("series") => KeyPer::Series,
            Some("instance") => KeyPer::Instance,
            Some(other) => {
                faults.push(format!("`seal.key_per`: `{other}` is neither `series` nor `instance`"));
                KeyPer::Series
            }
        };
        let name_text = file.seal.name.unwrap_or_else(|| names::USUAL.to_owned());
        let names = Template::parse(&name_text, key_per)
            .map_err(|error| faults.push(format!("`seal.name`: {error}")))
            .ok();
        let rules = rules(&mut faults, &file.queue);
        let database = database(&file.registry, folder);
        if let Some(DatabaseSource::Postgres { url, .. }) = &database
            && let Err(error) = Settings::new(url)
        {
            faults.push(format!("`registry.database`: {error}"));
        }
        let line = file.place.as_ref().map(line_table).unwrap_or_default();
        let place = file.place.and_then(|table| place(&mut faults, table, folder));
        // names that keys may have are longer than those that an agent takes
        if let (Some(Place::Agent(_)), Some(Err(error))) = (&place, names.as_ref().map(Template::check_for_agent)) {
            faults.push(format!("`seal.name`: {error}"));
        }
        if file.evict != Evict::default() && !matches!(place, Some(Place::Folder(_)) | None) {
            faults.push("`evict` is for `place.folder`: an agent has settings of its own".to_owned());
        }
        let monitor = address(&mut faults, "daemon.monitor", file.daemon.monitor.as_deref());
        let receive = file
            .receive
            .and_then(|table| table.check(&mut faults, folder, pacs.as_ref(), (line, place.as_ref())));
        let is_only_copy = |receive: &ReceiveConfig| receive.then == Then::Seal && !receive.pacs_has_them;
        if file.evict != Evict::default() && receive.as_ref().is_some_and(is_only_copy) {
            let text = "`evict`: what comes in by `receive.then = \"seal\"` may be nowhere else, and could not be \
                        recalled: say `receive.pacs_has_them = true` where something else gives it to the PACS";
            faults.push(text.to_owned());
        }
        if file.queue.workers == Some(0) {
            faults.push("`queue.workers`: at least 1".to_owned());
        }
        if file
            .catalog
            .url
            .as_deref()
            .is_some_and(|url| !url.starts_with("https://"))
        {
            faults.push("`catalog.url`: it does not begin with `https://`".to_owned());
        }
        let (Some(pacs), Some((deid, secret)), Some(names), true) = (pacs, deid, names, faults.is_empty()) else {
            return Err(faults);
        };
        Ok(Self {
            receive,
            catalog: file.catalog.url,
            doors: file.catalog.doors,
            workers: file.queue.workers.unwrap_or(pacs.associations),
            pacs,
            deid,
            secret,
            names,
            name_text,
            key_per,
            database,
            rules,
            place,
            evict: file.evict,
            monitor,
            log: file.daemon.log.unwrap_or_else(|| "info".to_owned()),
        })
    }
}

fn database(table: &RegistryTable, folder: &Path) -> Option<DatabaseSource> {
    let text = table.database.as_deref()?;
    let (password, authorities) = (table.password_file.as_deref(), table.authorities.as_deref());
    Some(DatabaseSource::read(text, password, authorities, folder))
}

fn rules(faults: &mut Vec<String>, table: &QueueTable) -> Rules {
    let usual = Rules::default();
    let mut ms = |name: &str, given: Option<f64>, usual: i64| match given {
        None => usual,
        // a year is more than anybody means
        Some(seconds) if seconds.is_finite() && (0.001..=366.0 * 86400.0).contains(&seconds) => {
            (seconds * 1000.0).round() as i64
        }
        Some(_) => {
            faults.push(format!("`queue.{name}`: at least 0.001 s and at most a year"));
            usual
        }
    };
    let rules = Rules {
        attempts: table.attempts.unwrap_or(usual.attempts),
        first_wait_ms: ms("first_wait_s", table.first_wait_s, usual.first_wait_ms),
        longest_wait_ms: ms("longest_wait_s", table.longest_wait_s, usual.longest_wait_ms),
        deadline_ms: ms("deadline_s", table.deadline_s, usual.deadline_ms),
        lease_ms: ms("lease_s", table.lease_s, usual.lease_ms),
        keep_ms: ms("keep_s", table.keep_s, usual.keep_ms),
    };
    if rules.attempts == 0 {
        faults.push("`queue.attempts`: at least 1".to_owned());
    }
    rules
}

fn address(faults: &mut Vec<String>, name: &str, text: Option<&str>) -> Option<SocketAddr> {
    let text = text?;
    let parsed = text.parse();
    parsed
        .map_err(|_| faults.push(format!("`{name}`: `{text}` is no address and port")))
        .ok()
}

/// What a table says of a line: one that serde flattens would hide unknown keys.
fn line_table(table: &PlaceTable) -> LineTable {
    LineTable {
        connect: table.connect.clone(),
        listen: table.listen.clone(),
        mode: table.mode.clone(),
        peer: table.peer.clone(),
        certificate: table.certificate.clone(),
        key: table.key.clone(),
        authorities: table.authorities.clone(),
    }
}

fn place(faults: &mut Vec<String>, table: PlaceTable, folder: &Path) -> Option<Place> {
    let line = line_table(&table);
    match table.folder {
        Some(path) if !line.is_given() => Some(Place::Folder(folder.join(path))),
        None if line.is_given() => line.check(faults, "place", folder).map(Place::Agent),
        _ => {
            faults.push("give one of `place.folder`, `place.connect` and `place.listen`".to_owned());
            None
        }
    }
}

fn missing<T>(faults: &mut Vec<String>, name: &str) -> Option<T> {
    faults.push(format!("`{name}` is missing"));
    None
}

fn given<T>(faults: &mut Vec<String>, name: &str, value: Option<T>) -> Option<T> {
    if value.is_none() {
        faults.push(format!("`{name}` is missing"));
    }
    value
}

fn title(faults: &mut Vec<String>, name: &str, value: Option<String>) -> Option<AeTitle> {
    let text = given(faults, name, value)?;
    AeTitle::new(&text)
        .map_err(|error| faults.push(format!("`{name}`: {error}")))
        .ok()
}

fn pacs(faults: &mut Vec<String>, table: PacsTable, folder: &Path) -> Option<PacsConfig> {
    let text = given(faults, "pacs.method", table.method)?;
    let Some((_, method)) = Method::NAMES.into_iter().find(|(name, _)| *name == text) else {
        faults.push(format!(
            "`pacs.method`: `{text}` is none of `c-get`, `c-move`, `wado-rs`"
        ));
        return None;
    };
    let (mut dimse, mut web) = (None, None);
    if method == Method::WadoRs {
        let url = given(faults, "pacs.dicomweb", table.dicomweb);
        web = url.map(|url| Web {
            url,
            token_file: table.token_file.map(|path| folder.join(path)),
        });
    } else {
        let calling = title(faults, "pacs.ae_title", table.ae_title);
        let called = title(faults, "pacs.aet", table.aet);
        let host = given(faults, "pacs.host", table.host);
        let port = given(faults, "pacs.port", table.port);
        let listen = match (method, table.listen) {
            (Method::CMove, listen) => given(faults, "pacs.listen", listen),
            (_, listen) => Some(listen.unwrap_or_default()),
        };
        dimse = (|| {
            Some(Dimse {
                calling: calling?,
                called: called?,
                host: host?,
                port: port?,
                listen: listen?,
            })
        })();
    }
    if table.associations == 0 {
        faults.push("`pacs.associations`: at least 1".to_owned());
    }
    let tls = table.tls.and_then(|tls| tls_files(faults, tls, folder));
    if method == Method::CMove && tls.as_ref().is_some_and(|files: &TlsFiles| files.own.is_none()) {
        faults.push("`pacs.tls.certificate`: with `c-move` the PACS connects to us, and we need one".to_owned());
    }
    let usual = Deadlines::default();
    let seconds = |given: Option<u64>, usual: Duration| given.map_or(usual, Duration::from_secs);
    let deadlines = Deadlines {
        connect: seconds(table.deadlines.connect_s, usual.connect),
        association: seconds(table.deadlines.association_s, usual.association),
        unit: seconds(table.deadlines.unit_s, usual.unit),
        whole: seconds(table.deadlines.whole_s, usual.whole),
    };
    let all = [
        deadlines.connect,
        deadlines.association,
        deadlines.unit,
        deadlines.whole,
    ];
    if all.iter().any(|one| one.is_zero() || one.as_secs() > 7 * 86400) {
        faults.push("`pacs.deadlines`: each is at least 1 and at most a week".to_owned());
    }
    Some(PacsConfig {
        method,
        dimse,
        web,
        associations: table.associations,
        tls,
        deadlines,
    })
}

fn tls_files(faults: &mut Vec<String>, table: TlsTable, folder: &Path) -> Option<TlsFiles> {
    let own = match (table.certificate, table.key) {
        (Some(certificate), Some(key)) => Some((folder.join(certificate), folder.join(key))),
        (None, None) => None,
        _ => {
            faults.push("`pacs.tls.certificate` and `pacs.tls.key` go together".to_owned());
            None
        }
    };
    let authorities = given(faults, "pacs.tls.authorities", table.authorities)?;
    Some(TlsFiles {
        authorities: folder.join(authorities),
        own,
    })
}

fn deid(faults: &mut Vec<String>, table: DeidTable, folder: &Path) -> Option<(Options, SecretSource)> {
    let mut options = Vec::new();
    for name in table.options {
        match name.parse::<ProfileOption>() {
            Ok(option) => options.push(option),
            Err(error) => faults.push(format!("`deid.options`: {error}")),
        }
    }
    let options = Options::new(options).map_err(|error| faults.push(format!("`deid.options`: {error}")));
    let secret = match (table.secret_key, table.secret_file) {
        (Some(key), None) => SecretSource::Key(key),
        (None, Some(path)) => SecretSource::File(folder.join(path)),
        _ => {
            faults.push("give one of `deid.secret_key` and `deid.secret_file`".to_owned());
            return None;
        }
    };
    let mut options = options.ok()?;
    options.flag_instead = table.flag_instead;
    Some((options, secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Address;

    fn faults(text: &str) -> String {
        Config::parse(text, Path::new("/etc/hydra")).unwrap_err().join("\n")
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let text = r#"
            [pacs]
            method = "c-move"
            ae_title = "MUCH TOO LONG FOR A TITLE"
            ports = 104
            associations = 0
            [pacs.tls]
            certificate = "x"
            [pacs.deadlines]
            connect_s = 0
            [deid]
            options = ["retain-everything"]
            [seal]
            name = "/{patient}"
            key_per = "study"
            [queue]
            attempts = 0
            workers = 0
            lease_s = -1
            [place]
            connect = "se"
            certificate = "x"
            [daemon]
            monitor = "here"
        "#;
        let faults = faults(text);
        for words in [
            "`pacs.ae_title`: an application entity title",
            "`pacs.aet` is missing",
            "`pacs.host` is missing",
            "`pacs.port` is missing",
            "`pacs.listen` is missing",
            "unknown key `pacs.ports`",
            "`pacs.associations`",
            "`pacs.tls.certificate` and `pacs.tls.key`",
            "`pacs.tls.authorities` is missing",
            "`pacs.deadlines`",
            "no option `retain-everything`",
            "give one of `deid.secret_key`",
            "no place `{patient}`",
            "`seal.key_per`: `study`",
            "`queue.attempts`",
            "`queue.workers`",
            "`queue.lease_s`",
            "`place`: `se`",
            "`daemon.monitor`: `here`",
        ] {
            assert!(faults.contains(words), "{words} in\n{faults}");
        }
    }

    #[test]
    fn the_database_is_a_file_or_a_url_without_a_password() {
        let with = |database: &str| {
            let text = format!(
                "[pacs]\nmethod = \"wado-rs\"\ndicomweb = \"https://pacs/dicom-web\"\n[deid]\nsecret_file = \"s\"\n\
                 [registry]\ndatabase = \"{database}\"\npassword_file = \"word\"\n"
            );
            Config::parse(&text, Path::new("/etc/hydra"))
        };
        let database = |text: &str| with(text).unwrap().database.unwrap();
        assert_eq!(
            database("recall.db"),
            DatabaseSource::File("/etc/hydra/recall.db".into())
        );
        let url = "postgresql://recall@db.example.org/recall";
        let expected = DatabaseSource::Postgres {
            url: url.to_owned(),
            password_file: Some("/etc/hydra/word".into()),
            authorities: None,
        };
        assert_eq!(database(url), expected);
        let faults = with("postgresql://recall:secret@db/recall").unwrap_err().join("\n");
        assert!(
            faults.contains("`registry.database`") && !faults.contains("secret"),
            "{faults}"
        );
    }

    #[test]
    fn a_pacs_that_sends_to_us_over_tls_needs_our_certificate() {
        let text = "[pacs]\nmethod = \"c-move\"\nae_title = \"A\"\naet = \"B\"\nhost = \"h\"\nport = 1\n\
                    listen = \"[::]:2\"\n[pacs.tls]\nauthorities = \"ca\"\n[deid]\nsecret_file = \"s\"\n";
        assert!(faults(text).contains("`pacs.tls.certificate`"), "{}", faults(text));
        let own = text.replace("\"ca\"", "\"ca\"\ncertificate = \"c\"\nkey = \"k\"");
        assert!(Config::parse(&own, Path::new("/etc/hydra")).is_ok());
        let get = text.replace("c-move", "c-get");
        assert!(Config::parse(&get, Path::new("/etc/hydra")).is_ok());
    }

    #[test]
    fn nothing_but_what_is_needed_has_to_be_said() {
        let text = r#"
            [pacs]
            method = "wado-rs"
            dicomweb = "https://pacs/dicom-web"
            [deid]
            secret_file = "secret"
        "#;
        let config = Config::parse(text, Path::new("/etc/hydra")).unwrap();
        assert_eq!(config.secret, SecretSource::File("/etc/hydra/secret".into()));
        assert_eq!(config.key_per, KeyPer::Series);
        assert!(config.pacs.dimse.is_none() && config.pacs.tls.is_none());
        assert!(faults("").contains("`[pacs]` is missing"));
        assert!(faults("[pacs").contains("TOML"), "{}", faults("[pacs"));
    }

    #[test]
    fn what_may_be_the_only_copy_is_not_evicted() {
        let with = |then: &str, more: &str| {
            let text = format!(
                "[pacs]\nmethod = \"wado-rs\"\ndicomweb = \"https://pacs/dicom-web\"\n[deid]\nsecret_file = \"s\"\n\
                 [place]\nfolder = \"se\"\n[evict]\nafter_s = 5\n\
                 [receive]\nthen = \"{then}\"\nstow = \"127.0.0.1:1\"\n{more}\n"
            );
            Config::parse(&text, Path::new("/etc/hydra")).map_err(|faults| faults.join("\n"))
        };
        let fault = with("seal", "").unwrap_err();
        assert!(fault.contains("receive.pacs_has_them"), "{fault}");
        assert!(with("seal", "pacs_has_them = true").is_ok());
        assert!(with("nearline", "").is_ok());
    }

    #[test]
    fn files_go_to_one_place() {
        let of = |table: &str| {
            let mut faults = Vec::new();
            let table: PlaceTable = toml::from_str(table).unwrap();
            let place = place(&mut faults, table, Path::new("/etc/hydra"));
            if faults.is_empty() {
                Ok(place)
            } else {
                Err(faults.join("\n"))
            }
        };
        assert_eq!(
            of("folder = \"se\"").unwrap(),
            Some(Place::Folder("/etc/hydra/se".into()))
        );
        let Ok(Some(Place::Agent(line))) = of("connect = \"unix:/run/line\"") else {
            panic!("no agent");
        };
        assert_eq!(line.address, Address::Unix("/run/line".into()));
        assert!(of("connect = \"se:7\"").unwrap_err().contains("place.peer"));
        assert!(
            of("folder = \"a\"\nlisten = \"unix:b\"")
                .unwrap_err()
                .contains("one of")
        );
        assert!(of("").unwrap_err().contains("one of"));
    }

    #[test]
    fn the_example_that_is_installed_is_whole() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/dicom-recall.toml");
        let config = Config::read(Path::new(path)).unwrap();
        assert_eq!(config.pacs.method, Method::CGet);
    }

    #[test]
    fn what_the_tutorial_says_works() {
        let page = include_str!("../../../docs/src/tutorial-pacs.md");
        let blocks: Vec<&str> = page.split("```toml\n").skip(1).collect();
        let blocks: Vec<&str> = blocks.iter().filter_map(|rest| rest.split("```").next()).collect();
        let folder = Path::new("/etc/eds");
        let recall = Config::parse(blocks[0], folder).unwrap();
        assert!(matches!(recall.place, Some(Place::Agent(_))));
        let agent = crate::place::config::PlaceConfig::parse(blocks[1], folder).unwrap();
        assert!(agent.lines[0].security.is_some());
        assert_eq!(blocks.len(), 2);
    }
}
