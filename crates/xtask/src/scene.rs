//! What the demos have in common: a folder and a grid that live as long as the demo, commands in them that are shown
//! with what they say, and somebody who is refused.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::chore::{ChoreError, ended, on, output, shown, succeed};
use crate::workspace::Workspace;

/// What `eds-decrypt` exits with when its user may not have the key.
const NOT_ALLOWED: i32 = 77;

/// Where a demo plays.
pub(crate) struct Scene {
    testgrid: PathBuf,
    /// The grid's folder.
    pub(crate) grid: PathBuf,
    folder: TempDir,
    environment: BTreeMap<String, String>,
    stop: Arc<AtomicBool>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        // The folder's own drop comes after this one, when nothing writes into it any more.
        if let Err(error) = succeed(&mut self.testgrid("down")) {
            say(&format!("the stores may still run: {error}"));
        }
    }
}

impl Scene {
    /// An empty one, for which these programs are there; its folder stays if it is to be kept.
    pub(crate) fn begin(workspace: &Workspace, programs: &[&str], keep: bool) -> Result<Self, ChoreError> {
        let testgrid = workspace.program("testgrid")?;
        for program in programs {
            workspace.program(program)?;
        }
        let mut folder = tempfile::Builder::new()
            .prefix("hydra-demo-")
            .tempdir()
            .map_err(on("make a folder in", &std::env::temp_dir()))?;
        folder.disable_cleanup(keep);
        if keep {
            say(&format!("Everything of this demo stays in {}", folder.path().display()));
        }
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            let registered = signal_hook::flag::register(signal, Arc::clone(&stop));
            registered.map_err(on("watch for signals in", folder.path()))?;
        }
        Ok(Self {
            testgrid,
            grid: folder.path().join("grid"),
            folder,
            environment: BTreeMap::new(),
            stop,
        })
    }

    /// Starts the grid; commands are Alice's from now on.
    pub(crate) fn up(&mut self) -> Result<(), ChoreError> {
        let mut up = self.testgrid("up");
        self.show(up.args(["--stores", "3", "--threshold", "2"]))?;
        self.environment = environment(&self.grid.join("env"))?;
        Ok(())
    }

    /// `testgrid` on the grid.
    pub(crate) fn testgrid(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.testgrid);
        command.arg(verb).arg(&self.grid);
        command
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Something in the folder, or anywhere by its whole path.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What is in a file.
    pub(crate) fn read(&self, name: impl AsRef<Path>) -> Result<Vec<u8>, ChoreError> {
        let path = self.path(name);
        std::fs::read(&path).map_err(on("read", &path))
    }

    /// A variable that the grid sets.
    pub(crate) fn variable(&self, name: &str) -> String {
        self.environment.get(name).cloned().unwrap_or_default()
    }

    /// A command in the folder, as Alice.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .envs(&self.environment);
        command
    }

    /// One of ours.
    pub(crate) fn own(&self, program: &str, arguments: &[&str]) -> Command {
        self.command(self.grid.join("bin").join(program), arguments)
    }

    /// Runs a command that must succeed, and shows it with its output and time; answers what it printed.
    pub(crate) fn show(&self, command: &mut Command) -> Result<String, ChoreError> {
        let (output, took) = self.timed(command)?;
        let line = shown(command).replace(&*self.grid.to_string_lossy(), "DIR");
        say(&format!("    $ {line}    {}", time(took)));
        if !output.status.success() {
            return Err(ended(command, &output));
        }
        indented(&output.stdout);
        indented(&output.stderr);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Bob tries to open a file, is refused, and gets none.
    pub(crate) fn refused_to_bob(&self, what: &[&str]) -> Result<(), ChoreError> {
        const OUT: &str = "bobs.dcm";
        let mut command = self.own("eds-decrypt", &[what, &[OUT]].concat());
        command.env("X509_USER_PROXY", self.variable("BOB_PROXY"));
        let (output, took) = self.timed(&mut command)?;
        say(&format!(
            "    $ X509_USER_PROXY=$BOB_PROXY {}    {}",
            shown(&command),
            time(took)
        ));
        if output.status.code() != Some(NOT_ALLOWED) {
            return Err(ended(&command, &output));
        }
        indented(&output.stderr);
        if self.path(OUT).exists() {
            return Err(ChoreError::NotAsPromised("Bob was refused, but got a file".to_owned()));
        }
        say(&format!("    refused (exit code {NOT_ALLOWED}), and no file was left"));
        Ok(())
    }

    /// Somebody tries something, and is refused with this exit code.
    pub(crate) fn refused(&self, proxy: &str, command: &mut Command, code: i32) -> Result<(), ChoreError> {
        command.env("X509_USER_PROXY", self.variable(proxy));
        let (output, took) = self.timed(command)?;
        let line = shown(command).replace(&*self.grid.to_string_lossy(), "DIR");
        say(&format!("    $ X509_USER_PROXY=${proxy} {line}    {}", time(took)));
        indented(&output.stderr);
        if output.status.code() != Some(code) {
            return Err(ended(command, &output));
        }
        say(&format!("    refused (exit code {code})"));
        Ok(())
    }

    /// As [`Scene::show`], as somebody else.
    pub(crate) fn show_as(&self, proxy: &str, command: &mut Command) -> Result<String, ChoreError> {
        command.env("X509_USER_PROXY", self.variable(proxy));
        say(&format!("    ({proxy})"));
        self.show(command)
    }

    fn timed(&self, command: &mut Command) -> Result<(Output, Duration), ChoreError> {
        let start = Instant::now();
        let output = output(command)?;
        self.go_on()?;
        Ok((output, start.elapsed()))
    }

    /// Unless a signal came.
    pub(crate) fn go_on(&self) -> Result<(), ChoreError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(ChoreError::Interrupted);
        }
        Ok(())
    }
}

/// What a shell has after sourcing the grid's file: a shell reads it, so that its quoting is the shell's.
pub(crate) fn environment(file: &Path) -> Result<BTreeMap<String, String>, ChoreError> {
    let mut shell = Command::new("sh");
    shell.args(["-c", "set -a; . \"$0\" && env -0"]).arg(file);
    let text = succeed(&mut shell)?;
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

pub(crate) fn chapter(text: &str) {
    say("");
    say(text);
}

pub(crate) fn indented(bytes: &[u8]) {
    for line in String::from_utf8_lossy(bytes).lines() {
        say(&format!("      {line}"));
    }
}

pub(crate) fn say(line: &str) {
    println!("{line}");
}

pub(crate) fn time(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        format!("{} ms", took.as_millis())
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}
