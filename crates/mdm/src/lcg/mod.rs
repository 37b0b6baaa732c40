//! The `lcg-*` commands: files on storage elements with names in the catalogue, with the arguments, outputs and exit
//! codes that scripts of gLite know (`docs/src/commands/lcg.md`).

mod copy;
mod options;
mod place;
mod verbs;

use std::cell::OnceCell;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use eds::session::{Found, SessionError, find_credential};
use hydra_cli::command::VERSION;
use hydra_cli::output::{print, tell};
use hydra_cli::signals::{OnSignal, on_signal};
use hydra_cli::{Code, Failure, manual, printable};
use hydra_core::config::load::{self, Services, Surroundings};
use hydra_core::https;
use mdm_catalog::{CatalogClient, CatalogError};
use storage_url::Storage;

use options::{Known, Line};

/// A command of gLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `lcg-cr`
    CopyAndRegister,
    /// `lcg-cp`
    Copy,
    /// `lcg-rep`
    Replicate,
    /// `lcg-del`
    Delete,
    /// `lcg-lr`
    ListReplicas,
    /// `lcg-la`
    ListAliases,
    /// `lcg-lg`
    ListGuid,
    /// `lcg-gt`
    GetTurl,
}

/// The names, each with its command.
pub const NAMES: [(&str, Command); 8] = [
    ("lcg-cp", Command::Copy),
    ("lcg-cr", Command::CopyAndRegister),
    ("lcg-del", Command::Delete),
    ("lcg-gt", Command::GetTurl),
    ("lcg-la", Command::ListAliases),
    ("lcg-lg", Command::ListGuid),
    ("lcg-lr", Command::ListReplicas),
    ("lcg-rep", Command::Replicate),
];

/// The command of this name.
pub fn named(name: &str) -> Option<Command> {
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, command)| *command)
}

const WAY: [Known; 3] = [
    (None, "checksum", false),
    (Some('s'), "st", true),
    (Some('U'), "srcsetype", true),
];

impl Command {
    fn options(self) -> Vec<Known> {
        let own: &[Known] = match self {
            Self::CopyAndRegister => &[
                (Some('d'), "dest", true),
                (Some('g'), "guid", true),
                (Some('l'), "lfn", true),
                (Some('P'), "relative-path", true),
            ],
            Self::Replicate => &[(Some('d'), "dest", true), (Some('P'), "relative-path", true)],
            Self::Copy => &[(Some('S'), "dst", true)],
            Self::Delete => {
                return vec![
                    (Some('a'), "all", false),
                    (Some('s'), "se", true),
                    (Some('x'), "nolfc", false),
                    (None, "force", false),
                ];
            }
            _ => &[],
        };
        own.iter().copied().chain(WAY).collect()
    }

    fn usage(self, name: &str) -> String {
        let (operands, more) = match self {
            Self::CopyAndRegister => (
                "[-d SE|URL] [-P PATH] [-l LFN] [-g GUID] FILE [LFN]",
                " -d SE|URL  the storage element, a folder there (with / at the end), or the file's URL\n\
                 \x20-P PATH    the file's path below the folder\n\
                 \x20-l LFN     its logical name; as second operand too\n\
                 \x20-g GUID    its guid, instead of a new one\n",
            ),
            Self::Copy => (
                "SOURCE DESTINATION",
                " SOURCE     lfn:, guid:, a URL or a file; DESTINATION a URL or a file\n",
            ),
            Self::Replicate => (
                "-d SE|URL [-P PATH] LFN|GUID|SURL",
                " -d SE|URL  where the new replica goes\n -P PATH    its path below the folder\n",
            ),
            Self::Delete => (
                "-a | -s SE  LFN|GUID|SURL, or SURL",
                " -a         all replicas, and the name\n\
                 \x20-s SE      the replica there; with the last one goes the name\n\
                 \x20SURL       without -a and -s: this replica\n\
                 \x20--force    the names of replicas that cannot be removed, too\n",
            ),
            Self::ListReplicas | Self::ListAliases | Self::ListGuid => ("LFN|GUID|SURL", ""),
            Self::GetTurl => (
                "SURL PROTOCOL...",
                " PROTOCOL   https, davs, root, gsiftp or file; the first that is possible\n",
            ),
        };
        format!(
            "Usage: {name} [-h] [--version] [-v] [-t SECONDS] [--vo VO] {operands}\n{more} \
             -t SECONDS give up when nothing moves for so long\n -v         say what happens\n \
             --vo VO    whose VO_<VO>_DEFAULT_SE counts (default: LCG_GFAL_VO, else the first part of the name)\n \
             -b         read and without effect, as -D, -T, -n, -i and the other timeouts\n"
        )
    }
}

/// Runs a command under its name; `arguments` come without it.
pub fn run(command: Command, name: &str, arguments: &[OsString]) -> ExitCode {
    if manual::is_asked_for(&[&[OsString::from(name)], arguments].concat()) {
        return hydra_cli::exit(page(command, name));
    }
    let usage = command.usage(name);
    let words: Vec<String> = arguments
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let line = match Line::read(&words, &command.options()) {
        Ok(line) => line,
        Err(wrong) => return refused(name, &wrong, &usage),
    };
    if line.has("help") {
        return hydra_cli::exit(print(usage.as_bytes()));
    }
    if line.has("version") {
        return hydra_cli::exit(print(format!("{name} {VERSION}\n").as_bytes()));
    }
    let idle = match line.value("timeout").map(str::parse::<u64>) {
        None => storage_url::IDLE,
        // the original took 0 for no limit
        Some(Ok(0)) => Duration::from_secs(86_400),
        Some(Ok(seconds)) => Duration::from_secs(seconds),
        Some(Err(_)) => return refused(name, "-t takes a number of seconds", &usage),
    };
    let done = match command {
        Command::CopyAndRegister => verbs::copy_and_register(&line, idle),
        Command::Copy => verbs::copy(&line, idle),
        Command::Replicate => verbs::replicate(&line, idle),
        Command::Delete => verbs::delete(&line, idle),
        Command::ListReplicas => verbs::list_replicas(&line, idle),
        Command::ListAliases => verbs::list_aliases(&line, idle),
        Command::ListGuid => verbs::list_guid(&line, idle),
        Command::GetTurl => verbs::get_turl(&line, idle),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.code == Code::Usage => {
            for line in failure.lines() {
                tell(&format!("{name}: {}", line.trim()));
            }
            refused(name, "the arguments do not fit together", &usage)
        }
        Err(failure) => {
            for line in failure.lines() {
                tell(&format!("{name}: {}", line.trim()));
            }
            ExitCode::FAILURE
        }
    }
}

fn refused(name: &str, wrong: &str, usage: &str) -> ExitCode {
    tell(&format!("{name}: {wrong}"));
    for line in usage.lines() {
        tell(line);
    }
    ExitCode::FAILURE
}

fn page(command: Command, name: &str) -> Result<(), Failure> {
    let usage = command.usage(name);
    let alias = manual::Alias {
        name,
        program: "mdm",
        usage: &usage,
        exit_codes: &[("0", "done"), ("1", "anything else")],
    };
    let page = alias.page().map_err(|error| Failure::new(Code::Failed, error))?;
    print(&page)
}

/// What a command reaches: storage elements, and the catalogue once a name has to be asked for.
struct Reach {
    services: Services,
    found: Found,
    storage: Storage,
    client: OnceCell<CatalogClient>,
    runtime: tokio::runtime::Runtime,
    verbose: bool,
    _on_signal: Option<OnSignal>,
}

impl Reach {
    fn open(line: &Line, idle: Duration) -> Result<Self, Failure> {
        let around = Surroundings::of_process();
        let services = load::services(&around).map_err(CatalogError::from)?;
        let found = find_credential(&around)?;
        let storage = Storage::new(eds::storage::access(&services.trust, &found, idle)?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            services,
            found,
            storage,
            client: OnceCell::new(),
            runtime: runtime.map_err(SessionError::Runtime)?,
            verbose: line.has("verbose"),
            _on_signal: on_signal(storage_url::end_programs).ok(),
        })
    }

    fn catalog(&self) -> Result<&CatalogClient, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = CatalogClient::of(None, self.services.clone(), &self.found.credential)?;
        Ok(self.client.get_or_init(|| client))
    }

    fn wait<F: Future>(&self, verb: F) -> F::Output {
        self.runtime.block_on(verb)
    }

    /// An HTTPS client of storage elements.
    fn http(&self) -> Result<reqwest::Client, Failure> {
        let tls = https::tls_of(&self.found.credential, &self.services.trust).map_err(SessionError::from)?;
        let entered = self.runtime.enter();
        let client = https::client(self.services.timeouts, tls).map_err(SessionError::from);
        drop(entered);
        Ok(client?)
    }

    fn say(&self, line: &str) {
        if self.verbose {
            tell(&printable(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_tells_its_usage_and_has_a_page() {
        for (name, command) in NAMES {
            assert_eq!(named(name), Some(command));
            assert!(command.usage(name).starts_with(&format!("Usage: {name} ")), "{name}");
            let words = ["-v", "--vo", "myvo", "-b", "-t", "5", "x"].map(str::to_owned);
            let line = Line::read(&words, &command.options()).unwrap();
            assert_eq!(line.operands, ["x"]);
        }
        assert_eq!(named("lcg-xx"), None);
    }
}
