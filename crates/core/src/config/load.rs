//! The sources of configuration in their order, and one [`ClientConfig`] made of them.
//!
//! Options, `EDS_CONFIG`, `services.xml` (first of all for the `glite-*` names), `~/.config/eds/config.toml`,
//! `/etc/eds/config.toml`: each setting is taken from the first source that states it (`docs/src/configuration.md`).

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::endpoint::{self, EndpointError};
use super::file::{self, Faults, Layer};
use super::services::{self, ServicesError};
use super::{ClientConfig, CrlPolicy, StoreEndpoint, Timeouts, Trust, TrustAnchors};

type Variables = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// What a process finds around it, given, so that tests need not change their own environment.
pub struct Surroundings {
    variables: Box<Variables>,
    /// The user, for the default place of a proxy.
    pub uid: u32,
    /// Where proxies lie by default.
    pub proxy_folder: PathBuf,
    /// The configuration of the whole machine.
    pub system_config: PathBuf,
    /// Trust anchors where nothing names them.
    pub system_anchors: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self::with_variables(|name| std::env::var_os(name))
    }

    /// Those of this process, but for the variables of its environment.
    pub fn with_variables(variables: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static) -> Self {
        Self {
            variables: Box::new(variables),
            uid: rustix::process::getuid().as_raw(),
            proxy_folder: "/tmp".into(),
            system_config: "/etc/eds/config.toml".into(),
            system_anchors: "/etc/grid-security/certificates".into(),
        }
    }

    /// A variable of the environment. An empty one counts as unset, as shells make it hard to tell them apart.
    pub fn variable(&self, name: &str) -> Option<OsString> {
        (self.variables)(name).filter(|value| !value.is_empty())
    }

    /// The user's home folder.
    pub fn home(&self) -> Option<PathBuf> {
        self.variable("HOME").map(PathBuf::from)
    }
}

/// What the command line says about stores.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--store URL`, in order.
    pub stores: Vec<String>,
    /// `--threshold M`.
    pub threshold: Option<u8>,
    /// The command was called by a name of the original: `services.xml` comes first.
    pub services_first: bool,
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file that was named, or is there, cannot be read.
    #[error("cannot read configuration `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A configuration file with faults.
    #[error("configuration `{}` is refused", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// All of its faults.
        #[source]
        source: Faults,
    },
    /// A `services.xml` that gives no stores.
    #[error("services file `{}` is refused", path.display())]
    Services {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ServicesError,
    },
    /// `GLITE_SD_PLUGIN` asks for another kind of service discovery.
    #[error("GLITE_SD_PLUGIN is `{value}`: only `file` is supported")]
    Plugin {
        /// What it says.
        value: String,
    },
    /// `GLITE_SD_PLUGIN=file`, but no file.
    #[error("GLITE_SD_PLUGIN is `file`, but neither GLITE_SD_SERVICES_XML nor GLITE_LOCATION names one")]
    NoServicesFile,
    /// An option that is no address.
    #[error("option --store")]
    StoreOption(#[source] EndpointError),
    /// An option that repeats one.
    #[error("option --store names `{url}` twice")]
    StoreTwice {
        /// The address.
        url: String,
    },
    /// A variable that is no address.
    #[error("{variable} names no service")]
    Variable {
        /// Which.
        variable: String,
        /// What is wrong with it.
        #[source]
        source: EndpointError,
    },
    /// No source names a store.
    #[error("no key stores are configured (looked at {})", looked_at.join(", "))]
    NoStores {
        /// Where it was looked for.
        looked_at: Vec<String>,
    },
    /// More than a key can be split over.
    #[error("{stores} stores are configured ({from}), but a key is split over at most 255")]
    TooMany {
        /// How many.
        stores: usize,
        /// By which source.
        from: String,
    },
    /// More shares needed than there are stores.
    #[error("threshold {threshold} ({threshold_from}) is more than the {stores} stores ({stores_from})")]
    Threshold {
        /// m.
        threshold: u8,
        /// Who says so.
        threshold_from: String,
        /// n.
        stores: usize,
        /// Who says so.
        stores_from: String,
    },
    /// New keys would be refused at once.
    #[error("min_threshold {min_threshold} ({min_from}) is more than threshold {threshold} ({threshold_from})")]
    MinThreshold {
        /// The least m that is joined.
        min_threshold: u8,
        /// Who says so.
        min_from: String,
        /// m.
        threshold: u8,
        /// Who says so.
        threshold_from: String,
    },
}

/// The longest `config.toml` read, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Reads all sources and makes one configuration of them.
///
/// # Errors
/// What is wrong, naming the source.
pub fn load(overrides: &Overrides, around: &Surroundings) -> Result<ClientConfig, ConfigError> {
    let mut layers = Layers::default();
    if overrides.services_first {
        layers.services(around)?;
    }
    layers.options(overrides)?;
    layers.named_file(around)?;
    if !overrides.services_first {
        layers.services(around)?;
    }
    layers.usual_files(around)?;
    layers.merge(around)
}

/// What a client of services other than the key stores knows: whom it trusts, how long it waits, where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// The catalogue, and which source named it.
    pub catalog: Option<(String, String)>,
    /// Where files are put, the first by default.
    pub storage: Vec<String>,
    /// Whom to believe.
    pub trust: Trust,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// Where it was looked, in order.
    pub looked_at: Vec<String>,
}

/// The port of a catalogue where only its host is known.
pub const CATALOG_PORT: u16 = 8446;

/// Reads the configuration files for what is needed beside key stores. The catalogue is `MDM_CATALOG`, else that of the
/// files, else the host that `LFC_HOST` names.
///
/// # Errors
/// What is wrong, naming the source.
pub fn services(around: &Surroundings) -> Result<Services, ConfigError> {
    let mut layers = Layers::default();
    layers.files(around)?;
    let named = |variable: &'static str| Some((around.variable(variable)?.to_string_lossy().into_owned(), variable));
    let url = |(written, variable): (String, &str)| {
        let url = endpoint::normalise(&written);
        let url = url.map_err(|source| ConfigError::Variable {
            variable: variable.to_owned(),
            source,
        })?;
        Ok::<_, ConfigError>((url, variable.to_owned()))
    };
    let of_host = |(host, variable): (String, &'static str)| {
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let port = if has_port {
            String::new()
        } else {
            format!(":{CATALOG_PORT}")
        };
        (format!("https://{host}{port}"), variable)
    };
    let in_files = || {
        let (catalog, source) = layers.first(|layer| layer.catalog.clone())?;
        Some((catalog, source.to_owned()))
    };
    let catalog = match named("MDM_CATALOG") {
        Some(named) => Some(url(named)?),
        None => match in_files() {
            Some(found) => Some(found),
            None => named("LFC_HOST").map(of_host).map(url).transpose()?,
        },
    };
    let storage = layers.first(|layer| (!layer.storage.is_empty()).then(|| layer.storage.clone()));
    let mut looked_at = vec!["MDM_CATALOG".to_owned()];
    looked_at.extend(layers.looked_at.iter().cloned());
    looked_at.push("LFC_HOST".to_owned());
    Ok(Services {
        catalog,
        storage: storage.map(|(urls, _)| urls).unwrap_or_default(),
        trust: layers.trust(around).0,
        timeouts: layers.timeouts(),
        looked_at,
    })
}

/// The original's rule: floor(log2 n) + 1.
pub fn default_threshold(stores: usize) -> u8 {
    u8::try_from(usize::BITS - stores.leading_zeros()).unwrap_or(u8::MAX)
}

#[derive(Default)]
struct Layers {
    read: Vec<(String, Layer)>,
    looked_at: Vec<String>,
}

impl Layers {
    fn push(&mut self, source: &str, layer: Layer) {
        self.looked_at.push(source.to_owned());
        self.read.push((source.to_owned(), layer));
    }

    fn options(&mut self, overrides: &Overrides) -> Result<(), ConfigError> {
        let mut layer = Layer {
            threshold: overrides.threshold,
            ..Layer::default()
        };
        for written in &overrides.stores {
            let url = endpoint::normalise(written).map_err(ConfigError::StoreOption)?;
            if layer.stores.iter().any(|store| store.url == url) {
                return Err(ConfigError::StoreTwice { url });
            }
            layer.stores.push(StoreEndpoint {
                name: url.clone(),
                url,
                id: None,
            });
        }
        self.push("options", layer);
        Ok(())
    }

    fn file(&mut self, path: &Path, source: &str, required: bool) -> Result<(), ConfigError> {
        let unreadable = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let text = match read_limited(path, MAX_CONFIG_BYTES) {
            Err(error) if !required && error.kind() == std::io::ErrorKind::NotFound => {
                self.looked_at.push(source.to_owned());
                return Ok(());
            }
            other => other.map_err(unreadable)?,
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        let layer = file::parse(&text, folder).map_err(|source| ConfigError::File {
            path: path.to_owned(),
            source,
        })?;
        self.push(source, layer);
        Ok(())
    }

    /// The file that `EDS_CONFIG` names.
    fn named_file(&mut self, around: &Surroundings) -> Result<(), ConfigError> {
        match around.variable("EDS_CONFIG").map(PathBuf::from) {
            Some(path) => self.file(&path, &format!("EDS_CONFIG {}", path.display()), true),
            None => {
                self.looked_at.push("EDS_CONFIG".into());
                Ok(())
            }
        }
    }

    /// The user's file, and the machine's.
    fn usual_files(&mut self, around: &Surroundings) -> Result<(), ConfigError> {
        let own = around.home().map(|home| home.join(".config/eds/config.toml"));
        for path in own.iter().chain([&around.system_config]) {
            self.file(path, &path.display().to_string(), false)?;
        }
        Ok(())
    }

    fn files(&mut self, around: &Surroundings) -> Result<(), ConfigError> {
        self.named_file(around)?;
        self.usual_files(around)
    }

    /// `services.xml` states stores and nothing else, so it is not even opened where they are known.
    fn services(&mut self, around: &Surroundings) -> Result<(), ConfigError> {
        if self.read.iter().any(|(_, layer)| !layer.stores.is_empty()) {
            return Ok(());
        }
        let Some(plugin) = around.variable("GLITE_SD_PLUGIN") else {
            self.looked_at.push("GLITE_SD_PLUGIN".into());
            return Ok(());
        };
        if plugin != "file" {
            return Err(ConfigError::Plugin {
                value: plugin.to_string_lossy().into_owned(),
            });
        }
        let named = around.variable("GLITE_SD_SERVICES_XML").map(PathBuf::from);
        let located = || {
            around
                .variable("GLITE_LOCATION")
                .map(|root| PathBuf::from(root).join("etc/services.xml"))
        };
        let path = named.or_else(located).ok_or(ConfigError::NoServicesFile)?;
        let text = read_limited(&path, services::MAX_BYTES as u64).map_err(|source| ConfigError::Read {
            path: path.clone(),
            source,
        })?;
        let wanted = around
            .variable("GLITE_SD_METADATA_TYPE")
            .map(|kind| kind.to_string_lossy().into_owned());
        let stores = services::parse(&text, wanted.as_deref()).map_err(|source| ConfigError::Services {
            path: path.clone(),
            source,
        })?;
        let layer = Layer {
            stores,
            ..Layer::default()
        };
        self.push(&format!("GLITE_SD_PLUGIN=file {}", path.display()), layer);
        Ok(())
    }

    fn first<T>(&self, pick: impl Fn(&Layer) -> Option<T>) -> Option<(T, &str)> {
        self.read
            .iter()
            .find_map(|(source, layer)| pick(layer).map(|value| (value, source.as_str())))
    }

    fn merge(&self, around: &Surroundings) -> Result<ClientConfig, ConfigError> {
        let stores = self.first(|layer| (!layer.stores.is_empty()).then(|| layer.stores.clone()));
        let (stores, stores_from) = stores.ok_or_else(|| ConfigError::NoStores {
            looked_at: self.looked_at.clone(),
        })?;
        let count = stores.len();
        if count > 255 {
            return Err(ConfigError::TooMany {
                stores: count,
                from: stores_from.to_owned(),
            });
        }
        let threshold = self.first(|layer| layer.threshold);
        let (threshold, threshold_from) = threshold.unwrap_or((default_threshold(count), "rule floor(log2 n) + 1"));
        if usize::from(threshold) > count {
            return Err(ConfigError::Threshold {
                threshold,
                threshold_from: threshold_from.to_owned(),
                stores: count,
                stores_from: stores_from.to_owned(),
            });
        }
        let (min_threshold, min_from) = self.min_threshold(stores_from, threshold, threshold_from);
        if min_threshold > threshold {
            return Err(ConfigError::MinThreshold {
                min_threshold,
                min_from: min_from.to_owned(),
                threshold,
                threshold_from: threshold_from.to_owned(),
            });
        }
        let (trust, trust_from) = self.trust(around);
        let (defaults, defaults_from) = self.first(|layer| layer.defaults.clone()).unzip();
        let sources = [
            ("stores", stores_from),
            ("threshold", threshold_from),
            ("min_threshold", min_from),
            ("trust", trust_from.as_str()),
        ];
        Ok(ClientConfig {
            stores,
            threshold,
            min_threshold,
            trust,
            timeouts: self.timeouts(),
            sources: sources
                .into_iter()
                .chain(defaults_from.map(|source| ("defaults", source)))
                .map(|(what, source)| (what.to_owned(), source.to_owned()))
                .collect(),
            defaults: defaults.unwrap_or_default(),
        })
    }

    /// A lower bound belongs to a set of stores: only the sources that gave stores or threshold, or come before the
    /// stores', have a say, else the machine's bound for its own stores would forbid a user's other ones.
    fn min_threshold<'l>(&'l self, stores_from: &'l str, threshold: u8, threshold_from: &'l str) -> (u8, &'l str) {
        let until = self
            .read
            .iter()
            .position(|(source, _)| source == stores_from)
            .unwrap_or(0);
        let mut entitled = self
            .read
            .iter()
            .enumerate()
            .filter(|(at, (source, _))| *at <= until || source == threshold_from);
        let stated = entitled.find_map(|(_, (source, layer))| layer.min_threshold.map(|min| (min, source.as_str())));
        stated.unwrap_or((threshold, "the threshold"))
    }

    fn trust(&self, around: &Surroundings) -> (Trust, String) {
        let configured = self
            .first(|layer| layer.anchors.clone())
            .map(|(anchors, source)| (anchors, source.to_owned()));
        let variable = || {
            let folder = around.variable("X509_CERT_DIR")?;
            Some((TrustAnchors::Directory(folder.into()), "X509_CERT_DIR".to_owned()))
        };
        let default = || {
            (
                TrustAnchors::Directory(around.system_anchors.clone()),
                "default".to_owned(),
            )
        };
        let (anchors, source) = configured.or_else(variable).unwrap_or_else(default);
        let crl = self
            .first(|layer| layer.crl)
            .map_or(CrlPolicy::default(), |(crl, _)| crl);
        (Trust { anchors, crl }, source)
    }

    fn timeouts(&self) -> Timeouts {
        let default = Timeouts::default();
        let pick = |of: fn(&Layer) -> Option<std::time::Duration>, otherwise| {
            self.first(of).map_or(otherwise, |(value, _)| value)
        };
        Timeouts {
            connect: pick(|layer| layer.timeouts.connect, default.connect),
            request: pick(|layer| layer.timeouts.request, default.request),
            total: pick(|layer| layer.timeouts.total, default.total),
            hedge: pick(|layer| layer.timeouts.hedge, default.hedge),
        }
    }
}

fn read_limited(path: &Path, limit: u64) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            "the file is too long",
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;
    use std::time::Duration;

    use super::*;

    struct Place {
        folder: tempfile::TempDir,
        variables: HashMap<String, OsString>,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let mut variables = HashMap::new();
            variables.insert("HOME".into(), folder.path().into());
            Self { folder, variables }
        }

        fn set(mut self, name: &str, value: impl Into<OsString>) -> Self {
            self.variables.insert(name.into(), value.into());
            self
        }

        fn write(self, name: &str, text: &str) -> Self {
            let path = self.folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn eds_config(self, text: &str) -> Self {
            let path = self.folder.path().join("eds.toml");
            self.write("eds.toml", text).set("EDS_CONFIG", path)
        }

        fn services(self, stores: &[&str]) -> Self {
            let names = |but: &str| -> String {
                stores
                    .iter()
                    .filter(|s| **s != but)
                    .map(|s| format!("<name>{s}</name>"))
                    .collect()
            };
            let services: String = stores
                .iter()
                .map(|s| {
                    format!(
                        "<service name='{s}'><parameters><endpoint>https://{s}</endpoint><type>org.glite.Metadata</type>\
                         </parameters><associatedservices>{}</associatedservices></service>",
                        names(s)
                    )
                })
                .collect();
            let path = self.folder.path().join("services.xml");
            self.write("services.xml", &format!("<services>{services}</services>"))
                .set("GLITE_SD_PLUGIN", "file")
                .set("GLITE_SD_SERVICES_XML", path)
        }

        fn load(&self, overrides: &Overrides) -> Result<ClientConfig, ConfigError> {
            let variables = self.variables.clone();
            let mut around = Surroundings::with_variables(move |name| variables.get(name).cloned());
            around.system_config = self.folder.path().join("etc/config.toml");
            load(overrides, &around)
        }

        fn plain(&self) -> Result<ClientConfig, ConfigError> {
            self.load(&Overrides::default())
        }
    }

    fn stores(hosts: &str) -> String {
        hosts
            .split(' ')
            .map(|host| format!("[[store]]\nurl = \"https://{host}\"\n"))
            .collect()
    }

    fn hosts(config: &ClientConfig) -> String {
        let hosts: Vec<_> = config
            .stores
            .iter()
            .map(|store| store.url.trim_start_matches("https://"))
            .collect();
        hosts.join(" ")
    }

    const HOME_CONFIG: &str = ".config/eds/config.toml";

    #[test]
    fn each_source_gives_way_to_the_one_before() {
        let mut place = Place::new().write("etc/config.toml", &stores("etc1 etc2"));
        assert_eq!(hosts(&place.plain().unwrap()), "etc1 etc2");
        place = place.write(HOME_CONFIG, &stores("home"));
        assert_eq!(hosts(&place.plain().unwrap()), "home");
        place = place.services(&["sd1", "sd2"]);
        assert_eq!(hosts(&place.plain().unwrap()), "sd1 sd2");
        place = place.eds_config(&stores("eds"));
        assert_eq!(hosts(&place.plain().unwrap()), "eds");
        let legacy = Overrides {
            services_first: true,
            ..Overrides::default()
        };
        assert_eq!(hosts(&place.load(&legacy).unwrap()), "sd1 sd2");
        let options = Overrides {
            stores: vec!["https://opt".into()],
            ..Overrides::default()
        };
        let config = place.load(&options).unwrap();
        assert_eq!(hosts(&config), "opt");
        assert_eq!(config.sources[0], ("stores".into(), "options".into()));
    }

    #[test]
    fn a_threshold_comes_from_the_first_source_that_states_one_else_from_the_rule() {
        let place = Place::new().services(&["a", "b", "c"]);
        assert_eq!(place.plain().unwrap().threshold, 2);
        let place = place.write("etc/config.toml", "threshold = 3");
        assert_eq!(place.plain().unwrap().threshold, 3);
        let place = place.write(HOME_CONFIG, "threshold = 1");
        let config = place.plain().unwrap();
        assert_eq!((config.threshold, config.min_threshold), (1, 1));
        let options = Overrides {
            threshold: Some(2),
            ..Overrides::default()
        };
        assert_eq!(place.load(&options).unwrap().threshold, 2);
        let rule: Vec<u8> = [1, 2, 3, 4, 7, 8, 15, 16, 255].map(default_threshold).to_vec();
        assert_eq!(rule, [1, 2, 2, 3, 3, 4, 4, 5, 8]);
    }

    #[test]
    fn impossible_thresholds_are_refused_with_both_sources() {
        let place = Place::new().eds_config(&format!("threshold = 3\n{}", stores("a b")));
        let text = place.plain().unwrap_err().to_string();
        assert!(
            text.starts_with("threshold 3 (EDS_CONFIG ") && text.contains("more than the 2 stores"),
            "{text}"
        );
        let place = Place::new().eds_config(&format!("threshold = 1\nmin_threshold = 2\n{}", stores("a b")));
        assert!(matches!(place.plain(), Err(ConfigError::MinThreshold { .. })));
    }

    #[test]
    fn a_lower_bound_of_other_stores_has_no_say() {
        let place = Place::new().write(
            "etc/config.toml",
            &format!("threshold = 3\nmin_threshold = 3\n{}", stores("x y z")),
        );
        assert_eq!(place.plain().unwrap().min_threshold, 3);
        let place = place.eds_config(&format!("threshold = 1\n{}", stores("a b")));
        assert_eq!(place.plain().unwrap().min_threshold, 1);
    }

    #[test]
    fn trust_and_deadlines_come_from_wherever_they_are_stated() {
        let place = Place::new().eds_config(&stores("a"));
        let system = TrustAnchors::Directory("/etc/grid-security/certificates".into());
        assert_eq!(place.plain().unwrap().trust.anchors, system);
        let place = place.set("X509_CERT_DIR", "/certs");
        assert_eq!(
            place.plain().unwrap().trust.anchors,
            TrustAnchors::Directory("/certs".into())
        );
        let place = place.write(
            "etc/config.toml",
            "[trust]\nca_file = \"/ca.pem\"\ncrl = \"require\"\n[timeouts]\nhedge_ms = 7\n",
        );
        let config = place.plain().unwrap();
        assert_eq!(config.trust.anchors, TrustAnchors::File("/ca.pem".into()));
        assert_eq!(config.trust.crl, CrlPolicy::Require);
        let hedge = Duration::from_millis(7);
        assert_eq!(
            config.timeouts,
            Timeouts {
                hedge,
                ..Timeouts::default()
            }
        );
    }

    #[test]
    fn service_discovery_other_than_by_file_is_an_error_where_it_is_asked() {
        let place = Place::new().set("GLITE_SD_PLUGIN", "bdii");
        assert!(matches!(place.plain(), Err(ConfigError::Plugin { value }) if value == "bdii"));
        let place = place.eds_config(&stores("a"));
        assert!(place.plain().is_ok());
        let place = Place::new().set("GLITE_SD_PLUGIN", "file");
        assert!(matches!(place.plain(), Err(ConfigError::NoServicesFile)));
        let located = Place::new().services(&["a"]);
        let root = located.folder.path().join("glite");
        let text = fs::read_to_string(located.folder.path().join("services.xml")).unwrap();
        let mut located = located
            .write("glite/etc/services.xml", &text)
            .set("GLITE_LOCATION", root);
        located.variables.remove("GLITE_SD_SERVICES_XML");
        assert_eq!(hosts(&located.plain().unwrap()), "a");
    }

    #[test]
    fn a_named_file_must_be_there_and_every_present_one_must_be_right() {
        let place = Place::new().set("EDS_CONFIG", "/nonexistent/eds.toml");
        assert!(matches!(place.plain(), Err(ConfigError::Read { .. })));
        let place = Place::new()
            .eds_config(&stores("a"))
            .write("etc/config.toml", "colour = 1");
        assert!(matches!(place.plain(), Err(ConfigError::File { .. })));
        let nothing = Place::new().plain().unwrap_err().to_string();
        assert!(
            nothing.contains("EDS_CONFIG, GLITE_SD_PLUGIN, ") && nothing.contains(HOME_CONFIG),
            "{nothing}"
        );
        let twice = Overrides {
            stores: vec!["https://a".into(), "httpg://A/".into()],
            ..Overrides::default()
        };
        assert!(matches!(Place::new().load(&twice), Err(ConfigError::StoreTwice { .. })));
    }

    #[test]
    fn the_catalogue_is_found_without_key_stores() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("eds.toml");
        fs::write(&config, "catalog = \"https://b:1/\"\nstorage = \"https://se/data\"\n").unwrap();
        let found = |variables: &[(&str, &str)]| {
            let variables: HashMap<String, OsString> = variables
                .iter()
                .map(|(name, value)| ((*name).into(), value.into()))
                .collect();
            let mut around = Surroundings::with_variables(move |name| variables.get(name).cloned());
            around.system_config = folder.path().join("none");
            services(&around)
        };
        let catalog = |variables: &[(&str, &str)]| found(variables).unwrap().catalog.map(|(url, _)| url);
        let file = ("EDS_CONFIG", config.to_str().unwrap());
        assert_eq!(catalog(&[]), None);
        assert_eq!(
            catalog(&[("LFC_HOST", "lfc.example.org")]).as_deref(),
            Some("https://lfc.example.org:8446")
        );
        assert_eq!(catalog(&[("LFC_HOST", "[::1]:7")]).as_deref(), Some("https://[::1]:7"));
        assert_eq!(catalog(&[("LFC_HOST", "[::1]")]).as_deref(), Some("https://[::1]:8446"));
        assert_eq!(catalog(&[("LFC_HOST", "lfc"), file]).as_deref(), Some("https://b:1"));
        assert_eq!(
            catalog(&[("MDM_CATALOG", "https://a"), file]).as_deref(),
            Some("https://a")
        );
        assert_eq!(found(&[file]).unwrap().storage, ["https://se/data"]);
        assert!(matches!(
            found(&[("MDM_CATALOG", "a")]),
            Err(ConfigError::Variable { .. })
        ));
    }
}
