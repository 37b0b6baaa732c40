//! A folder of its own for each test, and the real binaries run in it without any credential or configuration.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![allow(dead_code, reason = "not every test file uses all of it")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What a command did.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn out(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    /// Asserts the exit code, showing what was said otherwise.
    #[track_caller]
    pub(crate) fn code(self, wanted: i32) -> Self {
        assert_eq!(
            self.code,
            wanted,
            "stdout: {}\nstderr: {}",
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        self
    }

    /// Asserts a part of what was said on standard error.
    #[track_caller]
    pub(crate) fn says(self, part: &str) -> Self {
        assert!(self.stderr.contains(part), "no `{part}` in: {}", self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn silently(self) -> Self {
        assert!(self.stdout.is_empty(), "{}", String::from_utf8_lossy(&self.stdout));
        assert_eq!(self.stderr, "");
        self
    }
}

/// A folder with commands to run in it.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            variables: Vec::new(),
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.into(), value.into()));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn exists(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path(name)).is_ok()
    }

    /// Names in the folder, sorted: nothing may be left behind.
    pub(crate) fn names(&self) -> Vec<String> {
        names_in(self.folder.path())
    }

    pub(crate) fn command(&self, name: &str) -> Command {
        let program = match eds::GLITE_NAMES.iter().find(|(alias, _)| *alias == name) {
            Some((alias, binary)) => {
                let link = self.path(".bin").join(alias);
                fs::create_dir_all(self.path(".bin")).unwrap();
                if !link.exists() {
                    symlink(binary_path(binary), &link).unwrap();
                }
                link
            }
            None => binary_path(name),
        };
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .current_dir(self.folder.path());
        // a proxy of whoever runs the tests must not count
        command.env("X509_USER_PROXY", self.path("no-proxy"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command line; words are split at blanks.
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.feed(line, b"")
    }

    /// The same with something on standard input.
    pub(crate) fn feed(&self, line: &str, stdin: &[u8]) -> Ran {
        let (name, arguments) = line.split_once(' ').unwrap_or((line, ""));
        self.feed_words(name, &arguments.split_whitespace().collect::<Vec<_>>(), stdin)
    }

    pub(crate) fn run_words(&self, name: &str, arguments: &[&str]) -> Ran {
        self.feed_words(name, arguments, b"")
    }

    pub(crate) fn feed_words(&self, name: &str, arguments: &[&str], stdin: &[u8]) -> Ran {
        let mut command = self.command(name);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let bytes = stdin.to_vec();
        let feeder = std::thread::spawn(move || {
            // a command that does not read its input closes the pipe
            let _ = pipe.write_all(&bytes);
        });
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        Ran {
            code: status.code().unwrap(),
            stdout,
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }
}

pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| name != ".bin");
    names.sort();
    names
}

/// All programs of the crate are built into one folder.
fn binary_path(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_eds-cat")).with_file_name(name);
    assert!(path.is_file(), "no binary {name}");
    path
}
