//! Key stores on loopback, as processes: made, started, killed, stopped, started again on the same port, taken down.
//!
//! What runs is written in `state.json`, so that every call of `testgrid` finds it; `env` is for the shell.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::pki::{Pki, PkiError, PkiOptions};
use crate::process::Process;
use crate::programs::{self, ALIASES, PROGRAMS};

/// How long a store may take until it is ready.
const READY: Duration = Duration::from_secs(60);
/// How long a store may take to finish what is in flight.
const FINISH: Duration = Duration::from_secs(15);

/// Why a grid could not be made or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GridError {
    /// A file or directory.
    #[error("cannot write or read `{}`", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The fabric.
    #[error("cannot make certificates")]
    Pki(#[source] PkiError),
    /// A program is missing or of another build.
    #[error("`{}` {what}", path.display())]
    Program {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, as a predicate.
        what: String,
    },
    /// A directory that is used already.
    #[error("`{}` is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// A directory without a grid in it.
    #[error("`{}` holds no grid", .0.display())]
    NoGrid(PathBuf),
    /// Numbers that make no grid.
    #[error("{threshold} of {stores} stores make no grid")]
    Numbers {
        /// How many stores were asked for.
        stores: usize,
        /// How many of them join a key.
        threshold: usize,
    },
    /// The fabric given has fewer hosts.
    #[error("the certificates given are for {have} stores, {stores} were asked for")]
    TooFewHosts {
        /// How many there are.
        have: usize,
        /// How many were asked for.
        stores: usize,
    },
    /// Setting up the catalogue failed.
    #[error("cannot set up the catalogue: {0}")]
    CatalogInit(String),
    /// A catalogue that did not become ready.
    #[error("the catalogue did not start")]
    CatalogNotReady {
        /// The end of its log.
        log: String,
    },
    /// A grid without one, or where it does not run.
    #[error("there is no catalogue, or it does not run")]
    NoCatalog,
    /// A number without a store.
    #[error("there is no store {number}, they count from 1 to {stores}")]
    NoStore {
        /// Which was asked for.
        number: usize,
        /// How many there are.
        stores: usize,
    },
    /// Setting up a store failed.
    #[error("cannot set up store {number}: {what}")]
    Init {
        /// Which.
        number: usize,
        /// What the program said.
        what: String,
    },
    /// A store that did not become ready.
    #[error("store {number} did not start")]
    NotReady {
        /// Which.
        number: usize,
        /// The end of its log.
        log: String,
    },
    /// Certificates that were not made for this grid.
    #[error("the certificates in `{}` were given to this grid: they are renewed where they were made", .0.display())]
    GivenPki(PathBuf),
    /// A store that runs already.
    #[error("store {0} runs already")]
    Running(usize),
    /// A store that does not run.
    #[error("store {0} does not run")]
    NotRunning(usize),
    /// A store that did not do what the signal says.
    #[error("store {number} did not {what} in time")]
    Stuck {
        /// Which.
        number: usize,
        /// What was asked of it.
        what: &'static str,
    },
}

/// What a grid is to be like.
#[derive(Debug, Clone)]
pub struct GridOptions {
    /// How many stores.
    pub stores: usize,
    /// How many of them join a key.
    pub threshold: usize,
    /// A fabric that is there; none: one is made.
    pub pki: Option<PathBuf>,
    /// Whether `bin` is filled with every command: all of the workspace must have been built.
    pub commands: bool,
    /// Where the programs are; none: beside the running one.
    pub programs: Option<PathBuf>,
    /// More lines for the configuration of each store: single settings first, then tables.
    pub store_settings: String,
    /// Whether there is a catalogue, whose column key the stores have.
    pub catalog: bool,
    /// The PostgreSQL database of the catalogue; none: a SQLite file.
    pub catalog_database: Option<CatalogDatabase>,
    /// More lines for the configuration of the catalogue: single settings first, then tables.
    pub catalog_settings: String,
}

/// A PostgreSQL database that has no tables yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogDatabase {
    /// `postgres://…`
    pub url: String,
    /// The file of its password.
    pub password_file: Option<PathBuf>,
    /// Who may sign the certificate of its server.
    pub authorities: Option<PathBuf>,
}

impl Default for GridOptions {
    fn default() -> Self {
        Self {
            stores: 3,
            threshold: 2,
            pki: None,
            commands: true,
            programs: None,
            store_settings: String::new(),
            catalog: false,
            catalog_database: None,
            catalog_settings: String::new(),
        }
    }
}

/// What `state.json` remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    threshold: usize,
    pki: PathBuf,
    program: PathBuf,
    settings: String,
    stores: Vec<Store>,
    #[serde(default)]
    catalog: Option<Catalog>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Catalog {
    program: PathBuf,
    server: Store,
    #[serde(default)]
    database: Option<CatalogDatabase>,
    #[serde(default)]
    settings: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Store {
    /// 0 until it has started for the first time.
    port: u16,
    process: Option<Process>,
}

impl Store {
    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

/// A grid in a directory.
#[derive(Debug)]
pub struct Grid {
    directory: PathBuf,
    state: State,
    /// Those that this process started, to be waited for.
    children: Vec<Child>,
    down_on_drop: bool,
}

impl Grid {
    /// Makes a grid in a directory that is empty or not there yet, and starts it. It is taken down on drop, see
    /// [`Self::keep`].
    ///
    /// # Errors
    /// [`GridError`]; nothing runs then.
    pub fn up(directory: &Path, options: &GridOptions) -> Result<Self, GridError> {
        let GridOptions { stores, threshold, .. } = *options;
        if threshold == 0 || threshold > stores || stores > 255 {
            return Err(GridError::Numbers { stores, threshold });
        }
        let folder = options.programs.clone().map_or_else(programs::folder, Ok)?;
        let program = programs::find(&folder, "hydra-keystore")?;
        let directory = empty_directory(directory)?;
        let pki = match &options.pki {
            Some(path) => Pki::open(path),
            None => Pki::create(
                &directory.join("pki"),
                &PkiOptions {
                    stores,
                    ..PkiOptions::default()
                },
            ),
        };
        let pki = pki.map_err(GridError::Pki)?;
        if pki.stores() < stores {
            return Err(GridError::TooFewHosts {
                have: pki.stores(),
                stores,
            });
        }
        let state = State {
            threshold,
            pki: pki.directory().to_owned(),
            program,
            settings: options.store_settings.clone(),
            stores: vec![Store { port: 0, process: None }; stores],
            catalog: None,
        };
        let mut grid = Self {
            directory,
            state,
            children: Vec::new(),
            down_on_drop: true,
        };
        if options.commands {
            grid.link_commands(&folder)?;
        }
        for number in 1..=stores {
            grid.init(number)?;
            grid.spawn(number)?;
        }
        for number in 1..=stores {
            grid.wait_ready(number)?;
        }
        grid.save()?;
        write(&grid.client_config(), &grid.client_config_text(&pki))?;
        // Certificates from before there was one have none for it.
        if options.catalog && pki.host("catalog").0.exists() {
            grid.make_catalog(programs::find(&folder, "mdm-catalog")?, &pki, options)?;
        }
        grid.write_for_clients(&pki)?;
        Ok(grid)
    }

    /// Finds a grid again that another process made. It stays up when this one ends.
    ///
    /// # Errors
    /// [`GridError`] where there is none.
    pub fn open(directory: &Path) -> Result<Self, GridError> {
        let none = || GridError::NoGrid(directory.to_owned());
        let directory = fs::canonicalize(directory).map_err(|_| none())?;
        let text = fs::read(directory.join("state.json")).map_err(|_| none())?;
        let state = serde_json::from_slice(&text).map_err(|_| none())?;
        Ok(Self {
            directory,
            state,
            children: Vec::new(),
            down_on_drop: false,
        })
    }

    /// Leaves the stores running when this value is dropped.
    pub fn keep(&mut self) {
        self.down_on_drop = false;
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The certificates of this grid.
    ///
    /// # Errors
    /// [`GridError::Pki`] where they are gone.
    pub fn pki(&self) -> Result<Pki, GridError> {
        Pki::open(&self.state.pki).map_err(GridError::Pki)
    }

    /// The addresses of the stores, in order.
    pub fn urls(&self) -> Vec<String> {
        self.state.stores.iter().map(Store::url).collect()
    }

    /// The file to be sourced by a shell.
    pub fn env_file(&self) -> PathBuf {
        self.directory.join("env")
    }

    /// The configuration for clients, for `EDS_CONFIG`.
    pub fn client_config(&self) -> PathBuf {
        self.directory.join("config.toml")
    }

    /// The folder of a store: its configuration, keys and database.
    pub fn store_directory(&self, number: usize) -> PathBuf {
        self.directory.join("stores").join(number.to_string())
    }

    /// What a store logged.
    pub fn store_log(&self, number: usize) -> PathBuf {
        self.directory.join("log").join(format!("store{number}.log"))
    }

    /// The variables that `env` sets, but PATH.
    ///
    /// # Errors
    /// [`GridError::Pki`] where the certificates are gone.
    pub fn variables(&self) -> Result<Vec<(&'static str, String)>, GridError> {
        let pki = self.pki()?;
        Ok(self.variables_with(&pki))
    }

    fn variables_with(&self, pki: &Pki) -> Vec<(&'static str, String)> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut variables = vec![
            ("EDS_CONFIG", text(self.client_config())),
            ("GLITE_SD_PLUGIN", "file".to_owned()),
            ("GLITE_SD_SERVICES_XML", text(self.directory.join("services.xml"))),
            ("X509_CERT_DIR", text(pki.certificates())),
            ("X509_VOMS_DIR", text(pki.vomsdir())),
            ("X509_USER_PROXY", text(pki.working_proxy("alice"))),
            ("ALICE_PROXY", text(pki.working_proxy("alice"))),
            ("BOB_PROXY", text(pki.working_proxy("bob"))),
            ("CAROL_PROXY", text(pki.working_proxy("carol"))),
            ("ADMIN_PROXY", text(pki.working_proxy("admin"))),
            ("STORE_URLS", self.urls().join(" ")),
        ];
        variables.extend(self.catalog_url().map(|url| ("MDM_CATALOG", url)));
        variables
    }

    /// Kills a store, no goodbye.
    ///
    /// # Errors
    /// [`GridError`] where it does not run.
    pub fn kill(&mut self, number: usize) -> Result<(), GridError> {
        let process = self.running(number)?;
        process.signal(Signal::KILL);
        if !process.wait(FINISH, |state| state.is_none()) {
            return Err(GridError::Stuck { number, what: "die" });
        }
        self.forget(number)
    }

    /// Halts a store: it accepts connections, or the kernel does, and says nothing more.
    ///
    /// # Errors
    /// [`GridError`] where it does not run.
    pub fn stop(&mut self, number: usize) -> Result<(), GridError> {
        let process = self.running(number)?;
        process.signal(Signal::STOP);
        if process.wait(FINISH, |state| matches!(state, None | Some('T' | 't'))) {
            Ok(())
        } else {
            Err(GridError::Stuck { number, what: "stop" })
        }
    }

    /// Lets a halted store go on.
    ///
    /// # Errors
    /// [`GridError`] where it does not run.
    pub fn cont(&mut self, number: usize) -> Result<(), GridError> {
        let process = self.running(number)?;
        process.signal(Signal::CONT);
        if process.wait(FINISH, |state| !matches!(state, Some('T' | 't'))) {
            Ok(())
        } else {
            Err(GridError::Stuck { number, what: "go on" })
        }
    }

    /// Starts a store again on its port.
    ///
    /// # Errors
    /// [`GridError`] where it runs, or does not become ready.
    pub fn start(&mut self, number: usize) -> Result<(), GridError> {
        if self.store(number)?.process.is_some_and(|process| process.is_alive()) {
            return Err(GridError::Running(number));
        }
        self.spawn(number)?;
        self.wait_ready(number)?;
        self.save()
    }

    /// Ends a store as an administrator does: it finishes what is in flight.
    ///
    /// # Errors
    /// [`GridError`] where it does not run, or does not end in time.
    pub fn terminate(&mut self, number: usize) -> Result<(), GridError> {
        let process = self.running(number)?;
        process.signal(Signal::CONT);
        process.signal(Signal::TERM);
        if !process.wait(FINISH, |state| state.is_none()) {
            return Err(GridError::Stuck { number, what: "end" });
        }
        self.forget(number)
    }

    /// Ends all stores; those that do not end in time are killed. The directory stays. Twice is no error.
    ///
    /// # Errors
    /// [`GridError`] where the state cannot be written.
    pub fn down(&mut self) -> Result<(), GridError> {
        // The catalogue first: it may still ask the stores.
        let catalog = self.state.catalog.iter().filter_map(|catalog| catalog.server.process);
        let stores = self.state.stores.iter().filter_map(|store| store.process);
        let processes: Vec<Process> = catalog.chain(stores).collect();
        for process in &processes {
            process.signal(Signal::CONT);
            process.signal(Signal::TERM);
        }
        for process in &processes {
            if !process.wait(FINISH, |state| state.is_none()) {
                process.signal(Signal::KILL);
                process.wait(FINISH, |state| state.is_none());
            }
        }
        for store in &mut self.state.stores {
            store.process = None;
        }
        if let Some(catalog) = &mut self.state.catalog {
            catalog.server.process = None;
        }
        self.reap();
        self.save()
    }

    /// Makes all certificates, proxies and revocation lists anew, under the same names: whoever had rights has them
    /// still, and what was given out before is worth nothing. Stores that run are started again.
    ///
    /// # Errors
    /// [`GridError`] where the certificates were given to this grid, or a store does not come back.
    pub fn renew(&mut self) -> Result<(), GridError> {
        let place = self.directory.join("pki");
        if self.state.pki != place {
            return Err(GridError::GivenPki(self.state.pki.clone()));
        }
        let [fresh, old] = ["pki.new", "pki.old"].map(|name| self.directory.join(name));
        // what a call that was broken off left behind
        for path in [&fresh, &old] {
            remove_folder(path)?;
        }
        let stores = self.state.stores.len();
        let options = PkiOptions {
            stores,
            ..PkiOptions::default()
        };
        Pki::create(&fresh, &options).map_err(GridError::Pki)?;
        let running: Vec<usize> = (1..=stores).filter(|number| self.running(*number).is_ok()).collect();
        let catalog = self.catalog_process().is_ok();
        if catalog {
            self.terminate_catalog()?;
        }
        for number in &running {
            self.terminate(*number)?;
        }
        for (from, to) in [(&place, &old), (&fresh, &place)] {
            fs::rename(from, to).map_err(|source| GridError::File {
                path: from.clone(),
                source,
            })?;
        }
        remove_folder(&old)?;
        for number in running {
            self.start(number)?;
        }
        if catalog {
            self.start_catalog()?;
        }
        Ok(())
    }

    fn store(&self, number: usize) -> Result<&Store, GridError> {
        let stores = self.state.stores.len();
        let index = number.checked_sub(1).filter(|index| *index < stores);
        index
            .map(|index| &self.state.stores[index])
            .ok_or(GridError::NoStore { number, stores })
    }

    fn running(&self, number: usize) -> Result<Process, GridError> {
        let process = self.store(number)?.process.filter(Process::is_alive);
        process.ok_or(GridError::NotRunning(number))
    }

    fn forget(&mut self, number: usize) -> Result<(), GridError> {
        self.state.stores[number - 1].process = None;
        self.reap();
        self.save()
    }

    /// Waits for children that have ended, so that they are no zombies.
    fn reap(&mut self) {
        self.children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    fn save(&self) -> Result<(), GridError> {
        let text = serde_json::to_string_pretty(&self.state).unwrap_or_default() + "\n";
        // In one step: another call may read it at any moment.
        let path = self.directory.join("state.json");
        let fresh = self.directory.join("state.json.new");
        write(&fresh, &text)?;
        fs::rename(&fresh, &path).map_err(|source| GridError::File { path, source })
    }

    fn link_commands(&self, folder: &Path) -> Result<(), GridError> {
        let bin = self.directory.join("bin");
        fs::create_dir_all(&bin).map_err(|source| GridError::File {
            path: bin.clone(),
            source,
        })?;
        let link = |target: &Path, name: &str| {
            let path = bin.join(name);
            symlink(target, &path).map_err(|source| GridError::File { path, source })
        };
        for name in PROGRAMS {
            link(&programs::find(folder, name)?, name)?;
        }
        for (alias, name) in ALIASES {
            link(&folder.join(name), alias)?;
        }
        Ok(())
    }

    /// Lets the store's own program make its folder, then writes the configuration of this grid.
    fn init(&self, number: usize) -> Result<(), GridError> {
        let directory = self.store_directory(number);
        fs::create_dir_all(&directory).map_err(|source| GridError::File {
            path: directory.clone(),
            source,
        })?;
        let answer = Command::new(&self.state.program)
            .arg("init")
            .arg(&directory)
            .args(["--store-id", &store_name(number)])
            .stdin(Stdio::null())
            .output()
            .map_err(|source| GridError::File {
                path: self.state.program.clone(),
                source,
            })?;
        if answer.status.success() {
            Ok(())
        } else {
            let what = String::from_utf8_lossy(&answer.stderr).trim().to_owned();
            Err(GridError::Init { number, what })
        }
    }

    fn write_store_config(&self, number: usize) -> Result<PathBuf, GridError> {
        let pki = self.pki()?;
        let host = format!("keystore{number}");
        let (certificate, key) = pki.host(&host);
        let quoted = |path: &Path| quote(&path.to_string_lossy());
        let mut text = format!(
            "# a store of a test grid\nstore_id = {}\nlisten = {}\n",
            quote(&store_name(number)),
            quote(&format!("127.0.0.1:{}", self.store(number)?.port)),
        );
        if let Some(admin) = pki.user_dn("admin") {
            text.push_str(&format!("administrators = [{}]\n", quote(admin)));
        }
        let tables = self.state.settings.find("[").unwrap_or(self.state.settings.len());
        let (single, tables) = self.state.settings.split_at(tables);
        text.push_str(single);
        text.push_str(&format!(
            "\n[tls]\ncertificate = {}\nkey = {}\nca_dir = {}\nvoms_dir = {}\n",
            quoted(&certificate),
            quoted(&key),
            quoted(&pki.certificates()),
            quoted(&pki.vomsdir())
        ));
        for principal in creators(&pki) {
            text.push_str(&format!(
                "\n[[create]]\nprefix = \"\"\nprincipal = {}\n",
                quote(principal)
            ));
        }
        text.push_str(&format!("\n{tables}"));
        let path = self.store_directory(number).join("hydra-keystore.toml");
        write(&path, &text)?;
        Ok(path)
    }

    fn output_file(&self, number: usize) -> PathBuf {
        self.directory.join("log").join(format!("store{number}.out"))
    }

    fn spawn(&mut self, number: usize) -> Result<(), GridError> {
        let config = self.write_store_config(number)?;
        let child = serve(
            &self.state.program,
            &config,
            &self.output_file(number),
            &self.store_log(number),
        )?;
        self.state.stores[number - 1].process = Process::of(child.id());
        self.children.push(child);
        // Known from now on, so that whatever happens `down` finds it.
        self.save()
    }

    /// Waits for the line that tells the port, then for the port.
    fn wait_ready(&mut self, number: usize) -> Result<(), GridError> {
        let start = Instant::now();
        while start.elapsed() < READY {
            self.reap();
            if !self.store(number)?.process.is_some_and(|process| process.is_alive()) {
                break;
            }
            if let Some(port) = listening_port(&self.output_file(number)) {
                self.state.stores[number - 1].port = port;
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(GridError::NotReady {
            number,
            log: tail(&self.store_log(number)),
        })
    }

    /// What clients read: `config.toml`, `services.xml`, `env`.
    fn write_for_clients(&self, pki: &Pki) -> Result<(), GridError> {
        write(&self.client_config(), &self.client_config_text(pki))?;
        write(&self.directory.join("services.xml"), &self.services_text())?;
        let mut env = "# source this: . DIR/env\n".to_owned();
        env.push_str(&format!(
            "export PATH={}:\"$PATH\"\n",
            shell(&self.directory.join("bin").to_string_lossy())
        ));
        for (name, value) in self.variables_with(pki) {
            env.push_str(&format!("export {name}={}\n", shell(&value)));
        }
        write(&self.env_file(), &env)
    }

    fn client_config_text(&self, pki: &Pki) -> String {
        let mut text = format!("# the stores of a test grid\nthreshold = {}\n", self.state.threshold);
        for (index, url) in self.urls().iter().enumerate() {
            let name = quote(&store_name(index + 1));
            text.push_str(&format!(
                "\n[[store]]\nurl = {}\nname = {name}\nid = {name}\n",
                quote(url)
            ));
        }
        text.push_str(&format!(
            "\n[trust]\nca_dir = {}\n",
            quote(&pki.certificates().to_string_lossy())
        ));
        text
    }

    fn services_text(&self) -> String {
        let urls = self.urls();
        let mut text = "<?xml version=\"1.0\"?>\n<services>\n".to_owned();
        for (index, url) in urls.iter().enumerate() {
            let others: String = (0..urls.len())
                .filter(|other| *other != index)
                .map(|other| format!("<name>{}</name>", store_name(other + 1)))
                .collect();
            text.push_str(&format!(
                "  <service name=\"{}\">\n    <parameters>\n      \
                 <endpoint>{url}/glite-data-hydra-service/services/Hydra</endpoint>\n      \
                 <type>org.glite.KeyStore</type><version>1.0.0</version>\n    </parameters>\n    \
                 <associatedservices>{others}</associatedservices>\n  </service>\n",
                store_name(index + 1)
            ));
        }
        text + "</services>\n"
    }
}

/// The catalogue.
impl Grid {
    /// Its address, where the grid has one.
    pub fn catalog_url(&self) -> Option<String> {
        self.state.catalog.as_ref().map(|catalog| catalog.server.url())
    }

    /// Its folder: configuration and database.
    pub fn catalog_directory(&self) -> PathBuf {
        self.directory.join("catalog")
    }

    /// What it logged.
    pub fn catalog_log(&self) -> PathBuf {
        self.directory.join("log").join("catalog.log")
    }

    /// Kills it, no goodbye.
    ///
    /// # Errors
    /// [`GridError`] where it does not run.
    pub fn kill_catalog(&mut self) -> Result<(), GridError> {
        self.end_catalog(Signal::KILL)
    }

    /// Ends it as an administrator does.
    ///
    /// # Errors
    /// [`GridError`] where it does not run, or does not end in time.
    pub fn terminate_catalog(&mut self) -> Result<(), GridError> {
        self.end_catalog(Signal::TERM)
    }

    fn end_catalog(&mut self, signal: Signal) -> Result<(), GridError> {
        let process = self.catalog_process()?;
        process.signal(Signal::CONT);
        process.signal(signal);
        if !process.wait(FINISH, |state| state.is_none()) {
            return Err(GridError::NoCatalog);
        }
        if let Some(catalog) = &mut self.state.catalog {
            catalog.server.process = None;
        }
        self.reap();
        self.save()
    }

    /// Starts it again on its port, with a configuration written anew.
    ///
    /// # Errors
    /// [`GridError`] where it does not become ready.
    pub fn start_catalog(&mut self) -> Result<(), GridError> {
        let program = self.state.catalog.as_ref().ok_or(GridError::NoCatalog)?.program.clone();
        let config = self.write_catalog_config()?;
        let output = self.directory.join("log").join("catalog.out");
        let child = serve(&program, &config, &output, &self.catalog_log())?;
        let process = Process::of(child.id());
        if let Some(catalog) = &mut self.state.catalog {
            catalog.server.process = process;
        }
        self.children.push(child);
        self.save()?;
        let start = Instant::now();
        while start.elapsed() < READY && process.is_some_and(|process| process.is_alive()) {
            if let (Some(port), Some(catalog)) = (listening_port(&output), &mut self.state.catalog) {
                catalog.server.port = port;
                return self.save();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.reap();
        Err(GridError::CatalogNotReady {
            log: tail(&self.catalog_log()),
        })
    }

    /// Gives the catalogue other settings from its next start on, as [`GridOptions::catalog_settings`].
    pub fn set_catalog_settings(&mut self, settings: &str) {
        if let Some(catalog) = &mut self.state.catalog {
            settings.clone_into(&mut catalog.settings);
        }
    }

    /// The number of its process, where it runs.
    pub fn catalog_pid(&self) -> Option<u32> {
        let process = self.catalog_process().ok()?;
        u32::try_from(process.pid).ok()
    }

    fn catalog_process(&self) -> Result<Process, GridError> {
        let catalog = self.state.catalog.as_ref();
        let process = catalog
            .and_then(|catalog| catalog.server.process)
            .filter(Process::is_alive);
        process.ok_or(GridError::NoCatalog)
    }

    /// Lets the catalogue's own program make its folder, which registers the column key at the stores, and starts it.
    fn make_catalog(&mut self, program: PathBuf, pki: &Pki, options: &GridOptions) -> Result<(), GridError> {
        let (certificate, key) = pki.host("catalog");
        let mut init = Command::new(&program);
        init.arg("init");
        let database = options.catalog_database.clone();
        if let Some(database) = &database {
            init.args(["--database", &database.url]);
            let files = [
                ("--database-password-file", &database.password_file),
                ("--database-authorities", &database.authorities),
            ];
            for (option, path) in files {
                init.args(path.iter().flat_map(|path| [option.as_ref(), path.as_os_str()]));
            }
        }
        let answer = init
            .arg(self.catalog_directory())
            .args(["--name", "catalog", "--column-key", "/catalog/column-key"])
            .arg("--eds-config")
            .arg(self.client_config())
            .arg("--certificate")
            .arg(certificate)
            .arg("--key")
            .arg(key)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| GridError::File {
                path: program.clone(),
                source,
            })?;
        if !answer.status.success() {
            let what = String::from_utf8_lossy(&answer.stderr).trim().to_owned();
            return Err(GridError::CatalogInit(what));
        }
        let server = Store { port: 0, process: None };
        self.state.catalog = Some(Catalog {
            program,
            server,
            database,
            settings: options.catalog_settings.clone(),
        });
        self.start_catalog()
    }

    fn write_catalog_config(&self) -> Result<PathBuf, GridError> {
        let pki = self.pki()?;
        let port = self.state.catalog.as_ref().map_or(0, |catalog| catalog.server.port);
        let (certificate, key) = pki.host("catalog");
        let quoted = |path: &Path| quote(&path.to_string_lossy());
        let admin: Vec<String> = pki.user_dn("admin").map(quote).into_iter().collect();
        let catalog = self.state.catalog.as_ref();
        let database = catalog.and_then(|catalog| catalog.database.as_ref());
        let (mut address, mut postgres) = (String::new(), String::new());
        if let Some(database) = database {
            address = format!("database = {}\n", quote(&database.url));
            let files = [
                ("password_file", &database.password_file),
                ("authorities", &database.authorities),
            ];
            let given = |(name, path): (&str, &Option<PathBuf>)| {
                path.as_ref().map(|path| format!("{name} = {}\n", quoted(path)))
            };
            postgres = format!(
                "[postgres]\n{}\n",
                files.into_iter().filter_map(given).collect::<String>()
            );
        }
        let settings = catalog.map_or("", |catalog| catalog.settings.as_str());
        let mut text = format!(
            "# the catalogue of a test grid\ncatalog = \"catalog\"\nlisten = \"127.0.0.1:{port}\"\n\
             administrators = [{}]\nbackups_kept_days = 30\n{address}{settings}\n{postgres}\n\
             [column_key]\nkey_id = \"/catalog/column-key\"\neds_config = {}\n\n\
             [tls]\ncertificate = {}\nkey = {}\nca_dir = {}\nvoms_dir = {}\n",
            admin.join(", "),
            quoted(&self.client_config()),
            quoted(&certificate),
            quoted(&key),
            quoted(&pki.certificates()),
            quoted(&pki.vomsdir())
        );
        for principal in members(&pki) {
            let principal = quote(principal);
            text.push_str(&format!("\n[[create]]\nprefix = \"\"\nprincipal = {principal}\n"));
        }
        let path = self.catalog_directory().join("mdm-catalog.toml");
        write(&path, &text)?;
        Ok(path)
    }
}

impl Drop for Grid {
    fn drop(&mut self) {
        if self.down_on_drop {
            // A drop has nobody to tell; the directory may be gone already, the processes are ended either way.
            let _ = self.down();
        }
    }
}

/// Who may register keys: the VO, or alice and bob by name where they are in none; and the catalogue, for its column
/// key.
fn creators(pki: &Pki) -> Vec<&str> {
    let mut creators = members(pki);
    creators.extend(pki.host_dn("catalog"));
    creators
}

fn members(pki: &Pki) -> Vec<&str> {
    if pki.has_vo() {
        vec!["/myvo"]
    } else {
        ["alice", "bob"].iter().filter_map(|user| pki.user_dn(user)).collect()
    }
}

/// Starts a server whose standard output and log go to files.
fn serve(program: &Path, config: &Path, out: &Path, log: &Path) -> Result<Child, GridError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| GridError::File { path, source }
    };
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).map_err(failed(folder))?;
    }
    let stdout = File::create(out).map_err(failed(out))?;
    let stderr = OpenOptions::new().create(true).append(true).open(log);
    let stderr = stderr.map_err(failed(log))?;
    Command::new(program)
        .arg("serve")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        // An interrupt typed at the terminal is for the command that runs there, not for the servers.
        .process_group(0)
        .spawn()
        .map_err(failed(program))
}

/// The port in the line `listening on https://127.0.0.1:PORT`, once all of it is there and somebody listens.
fn listening_port(output: &Path) -> Option<u16> {
    let text = fs::read_to_string(output).ok()?;
    let (_, after) = text.split_once("https://")?;
    let (address, _) = after.split_once('\n')?;
    let digits: String = address
        .rsplit_once(':')?
        .1
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let port = digits.parse().ok()?;
    let connected = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), READY);
    connected.is_ok().then_some(port)
}

/// What a store of a test grid calls itself.
fn store_name(number: usize) -> String {
    format!("store{number}")
}

fn remove_folder(path: &Path) -> Result<(), GridError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(GridError::File {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn empty_directory(path: &Path) -> Result<PathBuf, GridError> {
    let fault = |source| GridError::File {
        path: path.to_owned(),
        source,
    };
    fs::create_dir_all(path).map_err(fault)?;
    if fs::read_dir(path).map_err(fault)?.next().is_some() {
        return Err(GridError::NotEmpty(path.to_owned()));
    }
    fs::canonicalize(path).map_err(fault)
}

fn write(path: &Path, text: &str) -> Result<(), GridError> {
    let written = File::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| GridError::File {
        path: path.to_owned(),
        source,
    })
}

/// A TOML string: JSON's escapes are among TOML's.
fn quote(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// A word for a shell.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(20);
    format!("the end of {}:\n{}", path.display(), lines[from..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_shell_and_toml_keep_their_quotes() {
        assert_eq!(shell("a'b c"), "'a'\\''b c'");
        assert_eq!(quote("a\"b\\"), "\"a\\\"b\\\\\"");
    }

    #[test]
    fn numbers_that_make_no_grid_are_refused_before_anything_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("grid");
        for (stores, threshold) in [(3, 0), (3, 4), (0, 0), (256, 2)] {
            let options = GridOptions {
                stores,
                threshold,
                ..GridOptions::default()
            };
            assert!(matches!(Grid::up(&place, &options), Err(GridError::Numbers { .. })));
        }
        assert!(!place.exists());
        assert!(matches!(Grid::open(&place), Err(GridError::NoGrid(_))));
    }
}
