//! The configuration of `dicom-recall`: one TOML file, every fault told at once, unknown keys refused
//! (`docs/src/commands/dicom-recall.md`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use dicom_deid::{Options, ProfileOption};
use dicom_net::{AeTitle, Deadlines, TlsFiles};
use hydra_cli::config_file;
pub use hydra_cli::config_file::ConfigError;
use serde::Deserialize;

use crate::names::{self, KeyPer, Template};

/// The file as it stands there.
#[derive(Debug, Deserialize)]
struct File {
    pacs: Option<PacsTable>,
    deid: Option<DeidTable>,
    #[serde(default)]
    seal: SealTable,
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
        let reader = toml::Deserializer::parse(text).map_err(|error| vec![one_line(&error)])?;
        // a table that may be missing has a `?` in the path
        let mut unknown = |key: serde_ignored::Path<'_>| {
            faults.push(format!("unknown key `{}`", key.to_string().replace(".?", "")));
        };
        let file: File = serde_ignored::deserialize(reader, &mut unknown).map_err(|error| vec![one_line(&error)])?;
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
        let (Some(pacs), Some((deid, secret)), Some(names), true) = (pacs, deid, names, faults.is_empty()) else {
            return Err(faults);
        };
        Ok(Self {
            pacs,
            deid,
            secret,
            names,
            name_text,
            key_per,
        })
    }
}

fn one_line(error: &toml::de::Error) -> String {
    error.to_string().trim_end().replace('\n', " ")
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
        ] {
            assert!(faults.contains(words), "{words} in\n{faults}");
        }
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
    fn the_example_that_is_installed_is_whole() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/dicom-recall.toml");
        let config = Config::read(Path::new(path)).unwrap();
        assert_eq!(config.pacs.method, Method::CGet);
    }
}
