//! Where things are: the root, cargo, and the built programs beside our own executable.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::chore::{ChoreError, on, output, succeed};

/// The repository, as this executable sees it.
pub struct Workspace {
    /// The folder with the root `Cargo.toml`.
    pub root: PathBuf,
    /// The folder of our own executable, where the other programs are too.
    programs: PathBuf,
}

impl Workspace {
    /// The workspace that this executable was built from.
    pub fn find() -> Result<Self, ChoreError> {
        let own = std::env::current_exe().map_err(|source| ChoreError::Start {
            program: "xtask".to_owned(),
            source,
        })?;
        let programs = own.parent().unwrap_or(Path::new(".")).to_owned();
        let manifest =
            std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = manifest.join("../..");
        let root = root.canonicalize().map_err(on("find", &root))?;
        Ok(Self { root, programs })
    }

    /// A workspace with programs that were built from it.
    pub fn at(root: &Path, programs: &Path) -> Self {
        Self {
            root: root.to_owned(),
            programs: programs.to_owned(),
        }
    }

    /// Where cargo puts what it builds; scratch folders of chores go there too.
    pub fn target(&self) -> PathBuf {
        self.programs.parent().unwrap_or(&self.programs).to_owned()
    }

    /// `cargo` in the root, without what `cargo run` told us about this crate: build scripts would take it for theirs.
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(&name);
            }
        }
        cargo
    }

    /// Builds all programs of the workspace; cargo's progress goes to the terminal.
    pub fn build(&self) -> Result<(), ChoreError> {
        let mut cargo = self.cargo();
        cargo.args(["build", "--workspace", "--bins"]);
        let status = cargo.status().map_err(|source| ChoreError::Start {
            program: "cargo".to_owned(),
            source,
        })?;
        if status.success() {
            Ok(())
        } else {
            Err(ChoreError::NotAsPromised("the workspace does not build".to_owned()))
        }
    }

    /// One of our programs: beside our own executable, and of our own version.
    pub fn program(&self, name: &str) -> Result<PathBuf, ChoreError> {
        program_in(&self.programs, name)
    }

    /// What cargo knows of the workspace's own packages.
    pub fn metadata(&self) -> Result<serde_json::Value, ChoreError> {
        let text = succeed(self.cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
        serde_json::from_str(&text).map_err(|error| ChoreError::NotAsPromised(format!("cargo metadata: {error}")))
    }
}

/// One of our programs in a given folder; refused when it has another version than we have.
pub fn program_in(folder: &Path, name: &str) -> Result<PathBuf, ChoreError> {
    let path = folder.join(name);
    let fault = |fault: String| ChoreError::Program {
        path: path.clone(),
        fault,
    };
    if !path.is_file() {
        return Err(fault("is not there".to_owned()));
    }
    let answer = output(Command::new(&path).arg("--version"))?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    match text.split_whitespace().last() {
        Some(version) if answer.status.success() && version == env!("CARGO_PKG_VERSION") => Ok(path),
        Some(version) => Err(fault(format!(
            "is of version {version}, not {}",
            env!("CARGO_PKG_VERSION")
        ))),
        None => Err(fault("does not tell its version".to_owned())),
    }
}
