//! The configuration of the agent: one TOML file, every fault told at once, unknown keys refused
//! (`docs/src/storage-element.md`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hydra_cli::config_file::{self, ConfigError};
use serde::Deserialize;

use crate::config::Evict;
use crate::transport::{LineConfig, LineTable, mode};

/// The file as it stands there.
#[derive(Debug, Deserialize)]
struct File {
    root: Option<PathBuf>,
    database: Option<PathBuf>,
    #[serde(default = "info")]
    log: String,
    line: Option<AgentLineTable>,
    #[serde(default)]
    ask: AskTable,
    #[serde(default)]
    evict: Evict,
    #[serde(default)]
    xrootd: XrootdTable,
    monitor: Option<MonitorTable>,
    #[serde(default)]
    limits: Limits,
}

fn info() -> String {
    "info".to_owned()
}

/// `[line]`: a line, and where else is dialled in the same way.
#[derive(Debug, Default, Deserialize)]
struct AgentLineTable {
    // a table that serde flattens would hide unknown keys
    connect: Option<String>,
    listen: Option<String>,
    mode: Option<String>,
    peer: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    authorities: Option<PathBuf>,
    #[serde(default)]
    also_connect: Vec<String>,
}

fn lines(faults: &mut Vec<String>, table: AgentLineTable, folder: &Path) -> Vec<LineConfig> {
    if !table.also_connect.is_empty() && table.connect.is_none() {
        faults.push("`line.also_connect` goes with `line.connect`".to_owned());
    }
    let first = LineTable {
        connect: table.connect,
        listen: table.listen,
        mode: table.mode,
        peer: table.peer,
        certificate: table.certificate,
        key: table.key,
        authorities: table.authorities,
    };
    let others = table.also_connect.into_iter().map(|address| LineTable {
        connect: Some(address),
        listen: None,
        ..first.clone()
    });
    let all: Vec<LineTable> = std::iter::once(first.clone()).chain(others).collect();
    let lines = all.into_iter().map_while(|one| one.check(faults, "line", folder));
    lines.collect()
}

#[derive(Debug, Default, Deserialize)]
struct AskTable {
    socket: Option<PathBuf>,
    mode: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct XrootdTable {
    fail_folder: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct MonitorTable {
    listen: String,
}

/// What the programs of the storage element may take.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Connections at once.
    pub clients: usize,
    /// Files of one request.
    pub files: usize,
    /// Requests that are remembered.
    pub requests: u64,
    /// How long a program may wait for a file, in seconds.
    pub wait_s: u64,
    /// How long requests are remembered, in seconds.
    pub remember_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 2000,
            files: 20_000,
            requests: 50_000,
            wait_s: 24 * 3600,
            remember_s: 7 * 24 * 3600,
        }
    }
}

/// A configuration that can work.
#[derive(Debug, Clone)]
pub struct PlaceConfig {
    /// The folder that the storage element serves.
    pub root: PathBuf,
    /// The agent's database.
    pub database: PathBuf,
    /// What is logged.
    pub log: String,
    /// The lines to daemons: one, or as many as are dialled.
    pub lines: Vec<LineConfig>,
    /// Where programs ask.
    pub socket: PathBuf,
    /// Who may: the socket's mode.
    pub mode: u32,
    /// When files are taken off the disk.
    pub evict: Evict,
    /// Where XRootD looks for what failed.
    pub fail_folder: Option<PathBuf>,
    /// Where monitoring asks.
    pub monitor: Option<SocketAddr>,
    /// What programs may take.
    pub limits: Limits,
}

impl PlaceConfig {
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
        for (name, value) in [("root", &file.root), ("database", &file.database)] {
            if value.is_none() {
                faults.push(format!("`{name}` is missing"));
            }
        }
        let lines = lines(&mut faults, file.line.unwrap_or_default(), folder);
        let mode = mode(&mut faults, "ask.mode", file.ask.mode.as_deref(), 0o660);
        let monitor = file.monitor.map(|monitor| monitor.listen.parse::<SocketAddr>());
        let monitor = monitor.transpose().map_err(|_| {
            faults.push("`monitor.listen` is no address, for example `127.0.0.1:9512`".to_owned());
        });
        let limits = file.limits;
        let least = [limits.clients, limits.files].into_iter().min().unwrap_or(0);
        if least == 0 || limits.requests == 0 || limits.wait_s == 0 {
            faults.push("`limits`: each is at least 1".to_owned());
        }
        let (Some(root), Some(database), Some(mode), Ok(monitor), true) =
            (file.root, file.database, mode, monitor, faults.is_empty())
        else {
            return Err(faults);
        };
        Ok(Self {
            root: folder.join(root),
            database: folder.join(database),
            log: file.log,
            lines,
            socket: folder.join(file.ask.socket.unwrap_or_else(|| crate::SOCKET.into())),
            mode,
            evict: file.evict,
            fail_folder: file.xrootd.fail_folder.map(|path| folder.join(path)),
            monitor,
            limits,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told_at_once() {
        let text = "roots = \"/srv\"\n[line]\nconnect = \"x\"\n[ask]\nmode = \"9\"\n[monitor]\nlisten = \"y\"\n\
                    [limits]\nclients = 0\n[evict]\nafter = 1\n";
        let faults = PlaceConfig::parse(text, Path::new("/etc/eds")).unwrap_err().join("\n");
        for words in [
            "unknown key `roots`",
            "`root` is missing",
            "`database` is missing",
            "`line`: `x`",
            "`ask.mode`",
            "`monitor.listen`",
            "`limits`",
            "unknown key `evict.after`",
        ] {
            assert!(faults.contains(words), "{words} in\n{faults}");
        }
    }

    #[test]
    fn the_example_that_is_installed_is_whole() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/place.toml");
        let config = PlaceConfig::read(Path::new(path)).unwrap();
        assert!(config.lines.len() == 1 && config.lines[0].security.is_some() && config.fail_folder.is_some());
    }

    #[test]
    fn several_daemons_are_dialled_each_in_the_same_way() {
        let config = |line: &str| {
            let text = format!("root = \"r\"\ndatabase = \"d\"\n[line]\n{line}\n");
            PlaceConfig::parse(&text, Path::new("/etc/eds"))
        };
        let tls = "certificate = \"c\"\nkey = \"k\"\npeer = \"/CN=a\"";
        let lines = config(&format!("connect = \"a:1\"\nalso_connect = [\"b:2\"]\n{tls}"));
        let lines = lines.unwrap().lines;
        let addresses: Vec<String> = lines.iter().map(|line| line.address.to_string()).collect();
        assert_eq!(addresses, ["a:1", "b:2"]);
        assert_eq!(lines[0].security, lines[1].security);
        for (bad, words) in [
            (
                "listen = \"unix:a\"\nalso_connect = [\"unix:b\"]",
                "goes with `line.connect`",
            ),
            ("connect = \"unix:a\"\nalso_connect = [\"b\"]", "`b` is neither"),
            (
                "connect = \"unix:a\"\nalso_connect = [\"b:1\"]",
                "`line.peer` is missing",
            ),
        ] {
            let faults = config(bad).unwrap_err().join("\n");
            assert!(faults.contains(words), "{bad}: {faults}");
        }
    }
}
