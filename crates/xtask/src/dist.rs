//! `cargo dist DIR`: what a packager or an administrator installs, laid out as under `/usr`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::chore::{ChoreError, on, succeed};
use crate::names::{ALIASES, ONE_PROGRAM};
use crate::workspace::{Workspace, program_in};

/// What each program prints for `--generate`, and where that belongs: folder, before and after the program's name.
/// The first is what other names get, too.
const GENERATED: &[(&str, &str, &str, &str)] = &[
    ("man", "share/man/man1", "", ".1"),
    ("bash", "share/bash-completion/completions", "", ""),
    ("zsh", "share/zsh/site-functions", "_", ""),
    ("fish", "share/fish/vendor_completions.d", "", ".fish"),
];

const DOCUMENTS: &str = "share/doc/hydra-eds";

/// A program that is installed.
struct Program {
    name: String,
    /// The program that answers to its name, itself where it stands alone: that one is built, the name is a link to it.
    by: String,
}

/// Builds everything optimised and lays it out in a new or empty folder.
pub fn run(workspace: &Workspace, dir: &Path, copies: bool) -> Result<(), ChoreError> {
    make_empty(dir)?;
    let programs = programs(workspace)?;
    let built = || programs.iter().filter(|program| program.name == program.by);
    let mut build = workspace.cargo();
    build.args(["build", "--release", "--workspace", "--quiet"]);
    build.args(built().flat_map(|program| ["--bin", &program.name]));
    succeed(&mut build)?;
    let release = workspace.target().join("release");
    for program in built() {
        copy(
            &program_in(&release, &program.name)?,
            &dir.join("bin").join(&program.name),
        )?;
    }
    for Program { name, by } in &programs {
        if name != by {
            link(name, by, dir, copies)?;
        }
        generate(name, GENERATED, dir)?;
    }
    for (alias, name) in ALIASES {
        let program = programs.iter().find(|program| program.name == *name);
        link(alias, program.map_or(name, |program| program.by.as_str()), dir, copies)?;
        // names that keep the arguments of an original have no completions
        let texts = if alias.starts_with("mdm-") {
            GENERATED
        } else {
            &GENERATED[..1]
        };
        generate(alias, texts, dir)?;
    }
    install_documents(workspace, dir)?;
    println!(
        "{} programs and {} other names of them in {}",
        programs.len(),
        ALIASES.len(),
        dir.display()
    );
    Ok(())
}

/// The programs of all members, but for our own chores, by name.
fn programs(workspace: &Workspace) -> Result<Vec<Program>, ChoreError> {
    let metadata = workspace.metadata()?;
    let nothing = Vec::new();
    let mut programs = Vec::new();
    for package in metadata["packages"].as_array().unwrap_or(&nothing) {
        let targets = package["targets"].as_array().unwrap_or(&nothing).iter();
        let names = targets.filter(|target| target["kind"][0] == "bin");
        let mut names: Vec<&str> = names.filter_map(|target| target["name"].as_str()).collect();
        names.retain(|name| *name != "xtask");
        names.sort_unstable();
        let one = package["name"].as_str().is_some_and(|name| ONE_PROGRAM.contains(&name));
        programs.extend(names.iter().map(|name| Program {
            name: (*name).to_owned(),
            by: (if one { names[0] } else { name }).to_owned(),
        }));
    }
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(programs)
}

fn make_empty(dir: &Path) -> Result<(), ChoreError> {
    std::fs::create_dir_all(dir).map_err(on("make", dir))?;
    if std::fs::read_dir(dir).map_err(on("read", dir))?.next().is_some() {
        return Err(ChoreError::NotAsPromised(format!("`{}` is not empty", dir.display())));
    }
    Ok(())
}

/// Writes what an installed program says of itself.
fn generate(name: &str, texts: &[(&str, &str, &str, &str)], dir: &Path) -> Result<(), ChoreError> {
    for (what, folder, before, after) in texts {
        let text = succeed(Command::new(dir.join("bin").join(name)).args(["--generate", what]))?;
        write(&dir.join(folder).join(format!("{before}{name}{after}")), &text)?;
    }
    Ok(())
}

/// Gives an installed program another name.
fn link(name: &str, program: &str, dir: &Path, copies: bool) -> Result<(), ChoreError> {
    let bin = dir.join("bin");
    let path = bin.join(name);
    if copies {
        copy(&bin.join(program), &path)
    } else {
        std::os::unix::fs::symlink(program, &path).map_err(on("link", &path))
    }
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
