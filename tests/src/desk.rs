//! Users at their desks: a folder and a credential each, and the real commands against a grid of real stores.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tempfile::TempDir;
use testgrid::pki::Pki;
use testgrid::{Grid, GridOptions};

use crate::{Ended, program, run, start_piped};

/// A grid that all tests of one file use; it is taken down when their process ends, however it ends.
pub struct SharedGrid {
    grid: RwLock<Grid>,
    /// Apart from the grid: whoever holds that must not wait for it again to get a desk.
    pki: Pki,
    variables: Vec<(&'static str, String)>,
    bin: PathBuf,
    /// Waits for the end of this process: its standard input closes then.
    _keeper: Child,
}

impl SharedGrid {
    /// Starts the stores.
    ///
    /// # Panics
    /// If they do not start.
    pub fn up(options: &GridOptions) -> Self {
        // the keeper removes it: a static is never dropped
        let directory = tempfile::tempdir().expect("a temporary folder").keep();
        let keeper = Command::new("sh")
            .args(["-c", "cat; \"$1\" down \"$2\"; rm -rf \"$2\"", "keeper"])
            .arg(program("testgrid"))
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // an interrupt typed at the terminal ends the tests, and the keeper has its work then
            .process_group(0)
            .spawn()
            .expect("a shell");
        let mut grid = Grid::up(&directory, options).expect("the grid starts");
        grid.keep();
        Self {
            variables: grid.variables().expect("the grid knows its variables"),
            bin: grid.directory().join("bin"),
            pki: grid.pki().expect("the grid has certificates"),
            grid: RwLock::new(grid),
            _keeper: keeper,
        }
    }

    /// While this is held every store is up.
    pub fn whole(&self) -> RwLockReadGuard<'_, Grid> {
        self.grid.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Alone with the stores, to kill some of them; whoever does starts them again with [`Broken::kill`]'s end.
    pub fn alone(&self) -> Broken<'_> {
        Broken {
            grid: self.grid.write().unwrap_or_else(PoisonError::into_inner),
            killed: Vec::new(),
            stopped: Vec::new(),
            is_without_catalog: false,
        }
    }

    /// A desk of `alice`, `bob` or another user of the grid, or of whoever has another of its proxies, for example
    /// `alice-physician`.
    pub fn desk(&self, user: &str) -> Desk {
        let proxy = self.pki.working_proxy(user);
        let mut desk = Desk {
            folder: tempfile::tempdir().expect("a temporary folder"),
            bin: self.bin.clone(),
            variables: Vec::new(),
        };
        for (name, value) in &self.variables {
            desk.set(name, value);
        }
        desk.set("X509_USER_PROXY", &proxy.to_string_lossy());
        desk
    }
}

/// A grid whose stores or catalogue may be down or hang; those that do are brought back on drop.
pub struct Broken<'a> {
    grid: RwLockWriteGuard<'a, Grid>,
    killed: Vec<usize>,
    stopped: Vec<usize>,
    is_without_catalog: bool,
}

impl Broken<'_> {
    /// Stops a store in the middle of whatever it does (SIGSTOP): it accepts connections and answers nothing.
    ///
    /// # Panics
    /// If it does not run.
    pub fn hang(&mut self, number: usize) {
        self.grid.stop(number).expect("the store runs");
        self.stopped.push(number);
    }

    /// The grid itself.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// Kills a store.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self, number: usize) {
        self.grid.kill(number).expect("the store runs");
        self.killed.push(number);
    }

    /// Kills the catalogue.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill_catalog(&mut self) {
        self.grid.kill_catalog().expect("the catalogue runs");
        self.is_without_catalog = true;
    }

    /// Starts those that were killed.
    ///
    /// # Panics
    /// If one does not start.
    pub fn start_again(&mut self) {
        for number in self.stopped.drain(..) {
            self.grid.cont(number).expect("the store goes on");
        }
        for number in self.killed.drain(..) {
            self.grid.start(number).expect("the store starts again");
        }
        // it asks the key stores for its column key
        if std::mem::take(&mut self.is_without_catalog) {
            self.grid.start_catalog().expect("the catalogue starts again");
        }
    }
}

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        for number in self.stopped.drain(..) {
            let _ = self.grid.cont(number);
        }
        for number in self.killed.drain(..) {
            // the test that failed is told, not this
            let _ = self.grid.start(number);
        }
        if self.is_without_catalog {
            let _ = self.grid.start_catalog();
        }
    }
}

/// A folder to work in, with the variables that `testgrid`'s `env` sets.
pub struct Desk {
    folder: TempDir,
    bin: PathBuf,
    variables: Vec<(String, String)>,
}

impl Desk {
    /// Sets a variable for the commands from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Takes a variable away.
    pub fn unset(&mut self, name: &str) {
        self.variables.retain(|(known, _)| known != name);
    }

    /// A variable as the commands see it.
    pub fn variable(&self, name: &str) -> &str {
        let known = self.variables.iter().find(|(known, _)| known == name);
        known.map_or("", |(_, value)| value)
    }

    /// A file on the desk.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, with the folders on its way.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("a folder can be made");
        fs::write(&path, bytes).expect("a file can be written");
        path
    }

    /// Reads a file.
    ///
    /// # Panics
    /// If it is not there.
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The names on the desk, sorted.
    ///
    /// # Panics
    /// If the folder is gone.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).expect("the desk is there");
        let mut names: Vec<String> = entries
            .filter_map(Result::ok)
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// A command, to be run by other means.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        self.dress(&mut command);
        command
    }

    /// Runs a command line whose words are parted by blanks.
    pub fn run(&self, line: &str) -> Ended {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        self.run_words(name, &words.collect::<Vec<_>>())
    }

    /// Runs a command with these arguments.
    pub fn run_words(&self, name: &str, arguments: &[&str]) -> Ended {
        run(self.command(name).args(arguments))
    }

    /// Runs lines for a shell that stops at the first failure.
    pub fn shell(&self, script: &str) -> Ended {
        let mut command = Command::new("sh");
        command.args(["-e", "-c", script]);
        self.dress(&mut command);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = std::iter::once(self.bin.clone()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(own).unwrap_or_default());
        run(&mut command)
    }

    /// Runs a command with bytes on its standard input.
    ///
    /// # Panics
    /// If it cannot be started or does not end by itself.
    pub fn feed(&self, line: &str, input: &[u8]) -> Ended {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().unwrap_or_default());
        command.args(words);
        let mut child = start_piped_in(&mut command);
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("a child can be waited for");
        let _ = writer.join();
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: std::time::Duration::ZERO,
        }
    }

    /// Starts a command whose output is read later.
    pub fn start(&self, name: &str, arguments: &[&str]) -> Child {
        start_piped(self.command(name).args(arguments))
    }

    fn dress(&self, command: &mut Command) {
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path());
    }
}

fn start_piped_in(command: &mut Command) -> Child {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

impl Ended {
    /// Asserts the exit code.
    ///
    /// # Panics
    /// If it is another.
    #[track_caller]
    #[must_use]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Asserts a part of what was said on standard error.
    ///
    /// # Panics
    /// If it is not there.
    #[track_caller]
    #[must_use]
    pub fn says(self, part: &str) -> Self {
        assert!(self.stderr.contains(part), "no `{part}` in: {}", self.stderr);
        self
    }

    /// Asserts a part of what was printed on standard output.
    ///
    /// # Panics
    /// If it is not there.
    #[track_caller]
    #[must_use]
    pub fn prints(self, part: &str) -> Self {
        assert!(self.stdout.contains(part), "no `{part}` in: {}", self.stdout);
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}
