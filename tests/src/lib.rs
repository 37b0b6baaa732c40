//! What the end-to-end tests share: finding and running the built programs, and stores that misbehave.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub mod desk;
pub mod door;
pub mod fake;
pub mod hospital;
mod listening;
pub mod pacs;
pub mod replay;
pub mod site;
pub mod small_disk;

/// Far more than any command takes: only one that hangs reaches it.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// One of the workspace's programs, which lie beside the folder of the test's own executable.
///
/// # Panics
/// If it is not there, or of another version.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its executable");
    let folder = own
        .parent()
        .and_then(Path::parent)
        .expect("tests lie in deps/ beside the programs");
    let path = folder.join(name);
    assert!(path.is_file(), "`{name}` is not built: cargo build --workspace --bins");
    let answer = Command::new(&path)
        .arg("--version")
        .output()
        .expect("a program of ours starts");
    let version = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    let ours = env!("CARGO_PKG_VERSION");
    assert!(
        version.ends_with(ours),
        "`{name}` says `{version}`, not {ours}: cargo build --workspace --bins"
    );
    path
}

/// All files under a folder, by their path in it.
///
/// # Panics
/// If they cannot be read.
pub fn files_under(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("a folder that can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).expect("a file that can be read");
                let name = path.strip_prefix(folder).expect("it is under the folder");
                found.insert(name.to_owned(), bytes);
            }
        }
    }
    found
}

/// The most memory that a process had, of /proc/PID/status (proc(5)); 0 when it has ended.
pub fn high_water_kib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none after a signal.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

/// Runs a program to its end, without input.
///
/// # Panics
/// If it does not end within [`DEADLINE`].
pub fn run(command: &mut Command) -> Ended {
    let start = Instant::now();
    let child = start_piped(command);
    let ended = finish(child, command);
    Ended {
        took: start.elapsed(),
        ..ended
    }
}

/// Starts a program whose output is read later.
///
/// # Panics
/// If it cannot be started.
pub fn start_piped(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn finish(mut child: Child, command: &Command) -> Ended {
    let start = Instant::now();
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if start.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Ended {
        code: status.code(),
        stdout: stdout.join().expect("reading ends"),
        stderr: stderr.join().expect("reading ends"),
        took: start.elapsed(),
    }
}

fn collect(pipe: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
