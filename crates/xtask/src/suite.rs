//! The tests: built once, then each test program run with a deadline, its tests counted by kind.
//!
//! `cargo test` would run them too; we start them ourselves because we want to know which package each belongs to, and
//! because a test that hangs must fail rather than hold everything up.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::chore::{ChoreError, ended, on, output};
use crate::workspace::Workspace;

/// Far more than any of them takes: only a hang reaches it.
const DEADLINE: Duration = Duration::from_secs(600);

/// What marks the tests that need other people's programs.
pub const PEER: &str = "peer_";

/// What is run, and with what.
pub struct Suite<'a> {
    /// Only tests whose name contains this.
    pub filter: Option<&'a str>,
    /// Without the tests that need peers.
    pub skip_peers: bool,
    /// More of the environment, by which tests find their peers.
    pub environment: Vec<(&'static str, PathBuf)>,
}

/// How many tests of one kind ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Passed.
    pub passed: usize,
    /// Failed, and test programs that did not come to an end.
    pub failed: usize,
    /// Left out by a mark in the source.
    pub ignored: usize,
}

/// What a run of the suite came to.
#[derive(Default)]
pub struct Tally {
    /// By kind of test.
    pub kinds: BTreeMap<&'static str, Count>,
    /// The summary line of each test program, with its name before it.
    pub summaries: Vec<String>,
    /// All output of each test program that failed.
    pub failures: Vec<String>,
}

impl Tally {
    /// All kinds together.
    pub fn total(&self) -> Count {
        self.kinds.values().fold(Count::default(), |sum, one| Count {
            passed: sum.passed + one.passed,
            failed: sum.failed + one.failed,
            ignored: sum.ignored + one.ignored,
        })
    }

    fn add(&mut self, kind: &'static str, name: &str, text: &str, ended_well: bool) {
        let (counts, summary) = count(text);
        let peers = peers_passed(text).min(counts.passed);
        let kind_count = self.kinds.entry(kind).or_default();
        kind_count.passed += counts.passed - peers;
        kind_count.ignored += counts.ignored;
        // A program that died before its summary has failed, whatever it had counted.
        kind_count.failed += counts.failed.max(usize::from(!ended_well));
        if peers > 0 {
            self.kinds.entry("peer").or_default().passed += peers;
        }
        if counts != Count::default() || !ended_well {
            self.summaries.push(format!("{name}: {summary}"));
        }
        if !ended_well {
            self.failures.push(format!("--- {name}\n{text}"));
        }
    }
}

struct Program {
    path: PathBuf,
    folder: PathBuf,
    name: String,
    kind: &'static str,
}

/// Builds and runs the suite. Failing tests are in the tally; an error means that it could not be run.
pub fn run(workspace: &Workspace, suite: &Suite<'_>) -> Result<Tally, ChoreError> {
    let mut tally = Tally::default();
    let log = workspace.target().join("verify.log");
    for program in programs(workspace)? {
        let mut command = Command::new(&program.path);
        command
            .current_dir(&program.folder)
            .env("CARGO_MANIFEST_DIR", &program.folder);
        suite.dress(&mut command);
        let (text, ended_well) = run_logged(&mut command, &log)?;
        tally.add(program.kind, &program.name, &text, ended_well);
    }
    let mut doc = workspace.cargo();
    doc.args(["test", "--workspace", "--doc", "--quiet", "--no-fail-fast", "--"]);
    suite.dress(&mut doc);
    let (text, ended_well) = run_logged(&mut doc, &log)?;
    tally.add("example in the documentation", "doc-tests", &text, ended_well);
    Ok(tally)
}

/// The names of the tests that need peers.
pub fn peer_tests(workspace: &Workspace) -> Result<Vec<String>, ChoreError> {
    let mut names = Vec::new();
    for program in programs(workspace)? {
        let mut command = Command::new(&program.path);
        command
            .current_dir(&program.folder)
            .args(["--list", "--format", "terse", PEER]);
        let text = output(&mut command)?.stdout;
        let text = String::from_utf8_lossy(&text).into_owned();
        let tests = text.lines().filter_map(|line| line.strip_suffix(": test"));
        names.extend(tests.map(|test| format!("{}: {test}", program.name)));
    }
    Ok(names)
}

impl Suite<'_> {
    fn dress(&self, command: &mut Command) {
        command.args(self.filter);
        if self.skip_peers {
            command.args(["--skip", PEER]);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }
}

fn programs(workspace: &Workspace) -> Result<Vec<Program>, ChoreError> {
    let mut build = workspace.cargo();
    build.args([
        "test",
        "--workspace",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ]);
    let built = output(&mut build)?;
    if !built.status.success() {
        return Err(ended(&build, &without_json(built)));
    }
    let text = String::from_utf8_lossy(&built.stdout).into_owned();
    Ok(text.lines().filter_map(program).collect())
}

fn without_json(mut output: std::process::Output) -> std::process::Output {
    output.stdout.clear();
    output
}

/// Reads one of cargo's messages; those about anything but a built test program are none of ours.
fn program(line: &str) -> Option<Program> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let path = PathBuf::from(message["executable"].as_str()?);
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    let target = message["target"]["name"].as_str()?;
    let package = folder.file_name()?.to_string_lossy().into_owned();
    let is_file_of_tests = message["target"]["kind"][0] == "test";
    Some(Program {
        path,
        name: format!("{package} {target}"),
        kind: if is_file_of_tests {
            kind(&package, target)
        } else {
            "unit"
        },
        folder,
    })
}

/// What kind of test a file of tests holds, by the names that files of tests have here.
fn kind(package: &str, file: &str) -> &'static str {
    let has = |part: &str| file.contains(part);
    if has("replay") {
        "corpus replay"
    } else if has("architecture") || has("manual") {
        "repository"
    } else if has("propert") || has("histor") {
        "property"
    } else if has("vector") {
        "vector"
    } else if has("transcript") {
        "transcript"
    } else if package == "tests" {
        "end-to-end"
    } else {
        "integration"
    }
}

fn run_logged(command: &mut Command, log: &Path) -> Result<(String, bool), ChoreError> {
    let file = File::create(log).map_err(on("write", log))?;
    let twin = file.try_clone().map_err(on("write", log))?;
    command.stdin(Stdio::null()).stdout(file).stderr(twin);
    let mut child = command.spawn().map_err(|source| ChoreError::Start {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait().map_err(on("wait for", log))? {
            Some(status) => break Some(status),
            None if start.elapsed() > DEADLINE => {
                child.kill().and_then(|()| child.wait()).map_err(on("stop", log))?;
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let bytes = std::fs::read(log).map_err(on("read", log))?;
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    match status {
        None => text.push_str(&format!("\nstopped: not at its end after {} s\n", DEADLINE.as_secs())),
        Some(status) if !status.success() => text.push_str(&format!("\nended with {status}\n")),
        Some(_) => {}
    }
    Ok((text, status.is_some_and(|status| status.success())))
}

/// Adds up the `test result:` lines of one run (there are several for documentation), and gives the last.
fn count(text: &str) -> (Count, &str) {
    let mut count = Count::default();
    let mut last = "no summary";
    for line in text.lines().filter(|line| line.starts_with("test result:")) {
        count.passed += before(line, " passed");
        count.failed += before(line, " failed");
        count.ignored += before(line, " ignored");
        last = line;
    }
    (count, last)
}

fn before(line: &str, word: &str) -> usize {
    let number = line.find(word).and_then(|end| line[..end].rsplit(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn peers_passed(text: &str) -> usize {
    let tests = text
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... ok"));
    tests.filter(|name| name.contains(PEER)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 3 tests\n\
        test reads::peer_tink_opens ... ok\n\
        test reads::alone ... ok\n\
        test reads::never ... ignored\n\n\
        test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";

    #[test]
    fn passed_failed_ignored_and_peers_are_counted() {
        let mut tally = Tally::default();
        tally.add("unit", "x", OUTPUT, true);
        assert_eq!(
            tally.kinds["unit"],
            Count {
                passed: 1,
                failed: 0,
                ignored: 1
            }
        );
        assert_eq!(
            tally.kinds["peer"],
            Count {
                passed: 1,
                failed: 0,
                ignored: 0
            }
        );
        assert!(tally.failures.is_empty());
    }

    #[test]
    fn a_program_that_dies_without_a_summary_has_failed() {
        let mut tally = Tally::default();
        tally.add("unit", "x", "running 3 tests\nended with signal: 6", false);
        assert_eq!(
            tally.total(),
            Count {
                passed: 0,
                failed: 1,
                ignored: 0
            }
        );
        assert_eq!(tally.failures.len(), 1);
    }
}
