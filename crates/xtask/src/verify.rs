//! `cargo verify`: everything that is checked before anything lands, one line a step while all is well.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::chore::{ChoreError, output, succeed};
use crate::peers::{PYTHON_VARIABLE, Peers};
use crate::suite::{self, Suite, Tally};
use crate::workspace::Workspace;

/// Features of the core that must build alone: a server takes only some of them.
const CORE_FEATURES: &[&str] = &["", "sealed", "protocol", "client"];

/// Runs all steps, or with a filter only the tests that it names.
pub fn run(workspace: &Workspace, no_peers: bool, filter: Option<&str>) -> Result<(), ChoreError> {
    let start = Instant::now();
    let mut steps = Steps::default();
    let tree_before = tree(workspace);
    let peers = if no_peers {
        None
    } else {
        steps.step("peers", || Peers::prepare(workspace))
    };
    if filter.is_none() {
        source_checks(workspace, &mut steps);
        if let Some(peers) = &peers {
            steps.step("dependencies: bans, licences, sources", || {
                let mut deny = workspace.cargo();
                // cargo would look for `cargo-deny` on the search path; ours is called by its place.
                let args = ["--all-features", "--offline", "check", "bans", "licenses", "sources"];
                let mut plain = Command::new(peers.cargo_deny());
                deny_environment(&mut plain, &deny);
                fetch(&mut deny)?;
                plain.current_dir(&workspace.root).args(args);
                succeed(&mut plain)
            });
        }
    }
    let suite = Suite {
        filter,
        // Peers that could not be had were told as a failed step; their tests would only say it again.
        skip_peers: peers.is_none(),
        environment: peers.iter().map(|peers| (PYTHON_VARIABLE, peers.python())).collect(),
    };
    let built = steps.step("programs", || {
        succeed(workspace.cargo().args(["build", "--workspace", "--bins"]))
    });
    let failed_tests = |tally: &Tally| tally.total().failed;
    let tally = built.and_then(|_| steps.judged("tests", || suite::run(workspace, &suite), failed_tests));
    if let (None, Some(before)) = (filter, tree_before) {
        steps.step("working tree as before", || unchanged(workspace, &before));
    }
    summary(workspace, &steps, tally.as_ref(), no_peers, start.elapsed())
}

fn source_checks(workspace: &Workspace, steps: &mut Steps) {
    steps.step("format", || {
        succeed(workspace.cargo().args(["fmt", "--all", "--check"]))
    });
    steps.step("lints", || {
        let arguments = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ];
        succeed(workspace.cargo().args(arguments))
    });
    steps.step("documentation of the code", || {
        let mut doc = workspace.cargo();
        doc.args(["doc", "--workspace", "--no-deps", "--keep-going", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings");
        succeed(&mut doc)
    });
    steps.step("features of the core, each alone", || {
        for features in CORE_FEATURES {
            let arguments = [
                "check",
                "--quiet",
                "--package",
                "hydra-eds-core",
                "--no-default-features",
                "--features",
                features,
            ];
            succeed(workspace.cargo().args(arguments))?;
        }
        Ok(())
    });
}

/// Sources of all platforms' dependencies: cargo deny looks at them too, and builds here need only this platform's.
fn fetch(cargo: &mut Command) -> Result<(), ChoreError> {
    succeed(cargo.args(["fetch", "--quiet"])).map(drop)
}

fn deny_environment(deny: &mut Command, cargo: &Command) {
    for (name, value) in cargo.get_envs() {
        match value {
            Some(value) => deny.env(name, value),
            None => deny.env_remove(name),
        };
    }
}

/// What git sees as changed; none where there is no git or no repository.
fn tree(workspace: &Workspace) -> Option<String> {
    let mut git = Command::new("git");
    git.current_dir(&workspace.root)
        .args(["status", "--porcelain", "--untracked-files=all"]);
    let answer = output(&mut git).ok()?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    answer.status.success().then_some(text)
}

fn unchanged(workspace: &Workspace, before: &str) -> Result<(), ChoreError> {
    let after = tree(workspace).unwrap_or_default();
    let new: Vec<&str> = after
        .lines()
        .filter(|line| !before.lines().any(|old| old == *line))
        .collect();
    if new.is_empty() {
        Ok(())
    } else {
        Err(ChoreError::NotAsPromised(format!(
            "the checks changed files:\n{}",
            new.join("\n")
        )))
    }
}

fn summary(
    workspace: &Workspace,
    steps: &Steps,
    tally: Option<&Tally>,
    no_peers: bool,
    took: Duration,
) -> Result<(), ChoreError> {
    let failed = steps.failed;
    println!();
    if let Some(tally) = tally {
        for failure in &tally.failures {
            println!("{failure}");
        }
        if std::env::var("CI").is_ok_and(|ci| ci == "true") {
            tally.summaries.iter().for_each(|line| println!("{line}"));
            println!();
        }
        for (kind, count) in &tally.kinds {
            if count.passed + count.failed + count.ignored > 0 {
                println!(
                    "{:>6} passed, {} failed   {kind}{}",
                    count.passed,
                    count.failed,
                    ignored(count.ignored)
                );
            }
        }
    }
    let total = tally.map(Tally::total).unwrap_or_default();
    if no_peers {
        println!("not covered, as --no-peers was given:");
        println!("  dependencies: bans, licences, sources (needs cargo-deny)");
        suite::peer_tests(workspace)?
            .iter()
            .for_each(|name| println!("  {name}"));
    }
    let steps_text = format!("{} steps passed, {} failed", steps.passed, steps.failed);
    println!("{steps_text} in {}", time(took));
    println!("{} passed, {} failed", total.passed, total.failed);
    if failed == 0 {
        Ok(())
    } else {
        Err(ChoreError::Failed(failed))
    }
}

fn ignored(number: usize) -> String {
    if number == 0 {
        String::new()
    } else {
        format!(" ({number} ignored)")
    }
}

#[derive(Default)]
struct Steps {
    passed: usize,
    failed: usize,
}

impl Steps {
    /// Runs one step and prints its line; a failure is printed whole, and the steps after it still run.
    fn step<T>(&mut self, name: &str, action: impl FnOnce() -> Result<T, ChoreError>) -> Option<T> {
        self.judged(name, action, |_| 0)
    }

    /// The same for a step that comes to its end, but may have found failures that are told later.
    fn judged<T>(
        &mut self,
        name: &str,
        action: impl FnOnce() -> Result<T, ChoreError>,
        failures: impl FnOnce(&T) -> usize,
    ) -> Option<T> {
        let start = Instant::now();
        let result = action();
        let took = time(start.elapsed());
        match result {
            Ok(value) if failures(&value) > 0 => {
                println!("{name:<45} {took:>9}  FAILED: see below");
                self.failed += 1;
                Some(value)
            }
            Ok(value) => {
                self.passed += 1;
                println!("{name:<45} {took:>9}  done");
                Some(value)
            }
            Err(error) => {
                self.failed += 1;
                println!("{name:<45} {took:>9}  FAILED\n{error}");
                if let Some(cause) = std::error::Error::source(&error) {
                    println!("  cause: {cause}");
                }
                None
            }
        }
    }
}

fn time(took: Duration) -> String {
    let seconds = took.as_secs();
    if seconds < 60 {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}
