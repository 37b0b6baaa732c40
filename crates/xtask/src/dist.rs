//! `cargo dist DIR`: what a packager or an administrator installs, laid out as under `/usr`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::chore::{ChoreError, on, succeed};
use crate::names::ALIASES;
use crate::workspace::{Workspace, program_in};

/// What each program prints for `--generate`, and where that belongs: folder, before and after the program's name.
const GENERATED: &[(&str, &str, &str, &str)] = &[
    ("man", "share/man/man1", "", ".1"),
    ("bash", "share/bash-completion/completions", "", ""),
    ("zsh", "share/zsh/site-functions", "_", ""),
    ("fish", "share/fish/vendor_completions.d", "", ".fish"),
];

const DOCUMENTS: &str = "share/doc/hydra-eds";

/// Builds everything optimised and lays it out in a new or empty folder.
pub fn run(workspace: &Workspace, dir: &Path, copies: bool) -> Result<(), ChoreError> {
    make_empty(dir)?;
    let names = programs(workspace)?;
    let mut build = workspace.cargo();
    build.args([
        "build",
        "--release",
        "--workspace",
        "--exclude",
        "hydra-eds-xtask",
        "--exclude",
        "hydra-eds-tests",
        "--bins",
        "--quiet",
    ]);
    succeed(&mut build)?;
    let release = workspace.target().join("release");
    for name in &names {
        install_program(&program_in(&release, name)?, name, dir)?;
    }
    for (alias, name) in ALIASES {
        install_alias(alias, name, dir, copies)?;
    }
    install_documents(workspace, dir)?;
    println!(
        "{} programs and {} other names of them in {}",
        names.len(),
        ALIASES.len(),
        dir.display()
    );
    Ok(())
}

/// The programs of all members, but for our own chores.
fn programs(workspace: &Workspace) -> Result<Vec<String>, ChoreError> {
    let metadata = workspace.metadata()?;
    let nothing = Vec::new();
    let mut names = Vec::new();
    for package in metadata["packages"].as_array().unwrap_or(&nothing) {
        for target in package["targets"].as_array().unwrap_or(&nothing) {
            if let (Some("bin"), Some(name)) = (target["kind"][0].as_str(), target["name"].as_str())
                && name != "xtask"
            {
                names.push(name.to_owned());
            }
        }
    }
    names.sort();
    Ok(names)
}

fn make_empty(dir: &Path) -> Result<(), ChoreError> {
    std::fs::create_dir_all(dir).map_err(on("make", dir))?;
    if std::fs::read_dir(dir).map_err(on("read", dir))?.next().is_some() {
        return Err(ChoreError::NotAsPromised(format!("`{}` is not empty", dir.display())));
    }
    Ok(())
}

fn install_program(built: &Path, name: &str, dir: &Path) -> Result<(), ChoreError> {
    copy(built, &dir.join("bin").join(name))?;
    for (what, folder, before, after) in GENERATED {
        let text = succeed(Command::new(built).args(["--generate", what]))?;
        write(&dir.join(folder).join(format!("{before}{name}{after}")), &text)?;
    }
    Ok(())
}

fn install_alias(alias: &str, name: &str, dir: &Path, copies: bool) -> Result<(), ChoreError> {
    let bin = dir.join("bin");
    let path = bin.join(alias);
    if copies {
        copy(&bin.join(name), &path)?;
    } else {
        std::os::unix::fs::symlink(name, &path).map_err(on("link", &path))?;
    }
    let page = succeed(Command::new(&path).args(["--generate", "man"]))?;
    write(&dir.join("share/man/man1").join(format!("{alias}.1")), &page)
}

fn install_documents(workspace: &Workspace, dir: &Path) -> Result<(), ChoreError> {
    for name in ["README.md", "LICENSE", "CHANGELOG.md"] {
        copy(&workspace.root.join(name), &dir.join(DOCUMENTS).join(name))?;
    }
    copy_folder(&workspace.root.join("docs/src"), &dir.join(DOCUMENTS).join("manual"))?;
    let examples = workspace.root.join("docs/examples");
    for file in files(&examples)? {
        let name = file.file_name().unwrap_or_default();
        let is_unit = file.extension().is_some_and(|extension| extension == "service");
        let folder = if is_unit {
            "lib/systemd/system".to_owned()
        } else {
            format!("{DOCUMENTS}/examples")
        };
        copy(&file, &dir.join(folder).join(name))?;
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), ChoreError> {
    for path in files(from)? {
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            copy_folder(&path, &to.join(name))?;
        } else {
            copy(&path, &to.join(name))?;
        }
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, ChoreError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(on("read", folder))? {
        found.push(entry.map_err(on("read", folder))?.path());
    }
    found.sort();
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> Result<(), ChoreError> {
    make_parent(to)?;
    std::fs::copy(from, to).map(drop).map_err(on("copy", from))
}

fn write(path: &Path, text: &str) -> Result<(), ChoreError> {
    make_parent(path)?;
    std::fs::write(path, text).map_err(on("write", path))
}

fn make_parent(path: &Path) -> Result<(), ChoreError> {
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent).map_err(on("make", parent))
}
