//! A PostgreSQL server for tests and benches: in a temporary folder, on a Unix socket and where it is wanted on
//! loopback by TLS, ended by its number.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// `nobody` and `nogroup`: PostgreSQL does not run as root.
const NOBODY: u32 = 65_534;

/// A running server, which ends with this.
pub(crate) struct Server {
    folder: TempDir,
    process: Option<Child>,
    settings: Vec<String>,
    port: Option<u16>,
}

impl Server {
    /// Makes a cluster and starts it, with more settings (`fsync=off`).
    ///
    /// # Panics
    /// If PostgreSQL is not installed or does not start.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let mut server = Self::make(settings);
        server.run();
        server
    }

    /// Likewise, and lets those in over loopback who speak TLS and know the password of `catalog`.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub(crate) fn start_secured(settings: &[&str], (certificate, key): (&Path, &Path), password: &str) -> Self {
        let mut server = Self::make(settings);
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        server.port = Some(port);
        server
            .settings
            .retain(|setting| !setting.starts_with("listen_addresses"));
        server.settings.extend([
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "ssl=on".to_owned(),
        ]);
        server.present(certificate, key);
        let who = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        fs::write(server.folder().join("data/pg_hba.conf"), who).expect("who may come in");
        server.run();
        server.say(&format!("ALTER ROLE catalog PASSWORD '{password}'"));
        server
    }

    /// Shows this certificate from the next start on.
    ///
    /// # Panics
    /// If the files cannot be copied.
    pub(crate) fn present(&self, certificate: &Path, key: &Path) {
        for (from, name) in [(certificate, "server.crt"), (key, "server.key")] {
            let to = self.folder().join("data").join(name);
            fs::write(&to, fs::read(from).expect("a file of the certificate")).expect("a copy of it");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("its permissions");
            if is_root() {
                chown(&to, Some(NOBODY), Some(NOBODY)).expect("the file can be given away");
            }
        }
    }

    /// Has one more setting from the next start on, which counts more than those before.
    pub(crate) fn set(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    /// Makes a cluster.
    fn make(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("the folder can be given away");
        }
        let mut made = program("initdb");
        made.args([
            "--auth=trust",
            "--username=catalog",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "-D",
        ])
        .arg(folder.path().join("data"))
        .stdout(Stdio::null());
        assert!(made.status().expect("initdb runs").success(), "initdb makes a cluster");
        let usual = ["listen_addresses=", "shared_buffers=128MB", "max_connections=60"];
        Self {
            folder,
            process: None,
            settings: usual
                .iter()
                .chain(settings)
                .map(|setting| (*setting).to_owned())
                .collect(),
            port: None,
        }
    }

    /// Starts it again, or for the first time.
    ///
    /// # Panics
    /// If it is not ready in a minute.
    pub(crate) fn run(&mut self) {
        let end = Instant::now() + Duration::from_secs(60);
        self.spawn();
        while !self.says("database system is ready to accept connections") {
            assert!(Instant::now() < end, "postgres is not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
            let ended = self.process.as_mut().map(Child::try_wait);
            if !matches!(ended, Some(Ok(None))) {
                // Those of one that was killed may be there for a moment.
                assert!(self.says("still in use"), "postgres ended:\n{}", self.log());
                self.spawn();
            }
        }
    }

    fn spawn(&mut self) {
        let mut postgres = program("postgres");
        postgres.arg("-D").arg(self.folder.path().join("data"));
        postgres.arg("-k").arg(self.folder.path());
        for setting in &self.settings {
            postgres.args(["-c", setting]);
        }
        let log = fs::File::create(self.folder.path().join("log")).expect("a log");
        let log_too = log.try_clone().expect("the log twice");
        let process = postgres.stdin(Stdio::null()).stdout(log).stderr(log_too).spawn();
        self.process = Some(process.expect("postgres starts"));
    }

    /// Kills it; its own processes notice.
    pub(crate) fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Ends it, as an administrator would: connections are broken off.
    pub(crate) fn stop(&mut self) {
        self.end(Signal::INT);
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        if let Some(pid) = i32::try_from(process.id()).ok().and_then(Pid::from_raw) {
            // May be gone already.
            let _ = kill_process(pid, signal);
        }
        let _ = process.wait();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn says(&self, text: &str) -> bool {
        self.log().contains(text)
    }

    /// The folder of its socket.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The URL of a new database.
    ///
    /// # Panics
    /// If it cannot be made.
    pub(crate) fn database(&self, name: &str) -> String {
        let made = self.client("createdb").arg(name).status();
        assert!(made.expect("createdb runs").success(), "createdb makes `{name}`");
        self.url(name)
    }

    /// Runs a statement as the database's owner.
    ///
    /// # Panics
    /// If it fails.
    pub(crate) fn say(&self, statement: &str) {
        let said = self
            .client("psql")
            .args(["-q", "-d", "postgres", "-c", statement])
            .status();
        assert!(said.expect("psql runs").success(), "psql says what it was told");
    }

    /// A client program of PostgreSQL that goes to the socket.
    pub(crate) fn client(&self, name: &str) -> Command {
        let mut command = Command::new(found(name));
        command.arg("-h").arg(self.folder()).args(["-U", "catalog"]);
        if let Some(port) = self.port {
            command.args(["-p", &port.to_string()]);
        }
        command
    }

    /// The URL of a database.
    pub(crate) fn url(&self, name: &str) -> String {
        let folder = self.folder().display().to_string().replace('/', "%2F");
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("postgres://catalog@{folder}{port}/{name}")
    }

    /// The URL of a database over loopback.
    pub(crate) fn network_url(&self, name: &str) -> String {
        let port = self.port.unwrap_or_default();
        format!("postgres://catalog@127.0.0.1:{port}/{name}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program of PostgreSQL that is run as an ordinary user.
fn program(name: &str) -> Command {
    let path = found(name);
    if !is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    command.arg(path).current_dir("/");
    command
}

/// Debian keeps the programs of a server out of the search path.
fn found(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = versions.map(|version| version.path().join("bin").join(name)).collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    paths.pop().unwrap_or_else(|| PathBuf::from(name))
}
