//! A PostgreSQL server for tests and benches: in a temporary folder, on a Unix socket alone, ended by its number.

use std::fs;
use std::os::unix::fs::chown;
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
    settings: &'static [&'static str],
}

impl Server {
    /// Makes a cluster and starts it, with more settings (`fsync=off`).
    ///
    /// # Panics
    /// If PostgreSQL is not installed or does not start.
    pub(crate) fn start(settings: &'static [&'static str]) -> Self {
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
        let mut server = Self {
            folder,
            process: None,
            settings,
        };
        server.run();
        server
    }

    /// Starts it again, or for the first time.
    pub(crate) fn run(&mut self) {
        let mut postgres = program("postgres");
        postgres.arg("-D").arg(self.folder.path().join("data"));
        postgres.arg("-k").arg(self.folder.path());
        for setting in ["listen_addresses=", "shared_buffers=128MB", "max_connections=40"]
            .iter()
            .chain(self.settings)
        {
            postgres.args(["-c", setting]);
        }
        let log = fs::File::create(self.folder.path().join("log")).expect("a log");
        let log_too = log.try_clone().expect("the log twice");
        let process = postgres.stdin(Stdio::null()).stdout(log).stderr(log_too).spawn();
        self.process = Some(process.expect("postgres starts"));
        let end = Instant::now() + Duration::from_secs(60);
        while !self.says("database system is ready to accept connections") {
            assert!(Instant::now() < end, "postgres is not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it, as an administrator would: connections are broken off.
    pub(crate) fn stop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        if let Some(pid) = i32::try_from(process.id()).ok().and_then(Pid::from_raw) {
            // May be gone already.
            let _ = kill_process(pid, Signal::INT);
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
        let mut made = Command::new(found("createdb"));
        made.arg("-h").arg(self.folder()).args(["-U", "catalog", name]);
        assert!(
            made.status().expect("createdb runs").success(),
            "createdb makes `{name}`"
        );
        self.url(name)
    }

    /// The URL of a database.
    pub(crate) fn url(&self, name: &str) -> String {
        let folder = self.folder().display().to_string().replace('/', "%2F");
        format!("postgres://catalog@{folder}/{name}")
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
