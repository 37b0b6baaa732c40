//! Holds the manual to the facts: its links lead somewhere, its commands exist, its table of contents is complete.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cargo_metadata::MetadataCommand;
use hydra_xtask::names::ALIASES;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn pages_under(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages_under(&path, pages);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}

fn manual() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    pages_under(&root().join("docs/src"), &mut pages);
    pages.sort();
    pages
}

/// The manual, and what stands at the root.
fn all_pages() -> Vec<PathBuf> {
    let mut pages = manual();
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        pages.push(root().join(name));
    }
    pages
}

/// The lines of a page with whether each is part of a code block.
fn lines(text: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut in_code = false;
    text.lines().map(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        (in_code || fence, line)
    })
}

/// What stands in round brackets after square ones, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (_, line) in lines(text).filter(|(in_code, _)| !in_code) {
        let mut rest = line;
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let end = rest.find(')').unwrap_or(rest.len());
            found.push(rest[..end].to_owned());
        }
    }
    found
}

/// The anchors of a page's headings, as mdBook and the common forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = lines(text).filter(|(in_code, line)| !in_code && line.starts_with('#'));
    let slug = |line: &str| {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(|(_, line)| slug(line)).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for page in all_pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            let leads = match std::fs::read_to_string(&target) {
                Ok(text) => anchor.is_empty() || anchors(&text).contains(anchor),
                Err(_) => target.is_dir() && anchor.is_empty(),
            };
            if !leads {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn the_table_of_contents_names_every_page() {
    let folder = root().join("docs/src");
    let text = std::fs::read_to_string(folder.join("SUMMARY.md")).unwrap();
    let listed: BTreeSet<PathBuf> = links(&text).iter().map(|link| folder.join(link)).collect();
    let there: BTreeSet<PathBuf> = manual()
        .into_iter()
        .filter(|page| !page.ends_with("SUMMARY.md"))
        .collect();
    let missing: Vec<_> = there.difference(&listed).collect();
    assert!(missing.is_empty(), "not in the table of contents: {missing:?}");
    let gone: Vec<_> = listed.difference(&there).collect();
    assert!(gone.is_empty(), "in the table of contents, but not written: {gone:?}");
}

/// Words that look like commands of ours: `eds-…`, `ssss-…`, `glite-…`, `mdm-…`, `hydra-keystore`.
fn commands_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_/.*".contains(c);
    let words = text
        .split(|c: char| !is_part(c))
        .map(|word| word.trim_end_matches(['.', '/']));
    let named = words.filter(|word| {
        let start = ["eds-", "ssss-", "glite-eds-", "glite-ssss-", "glite-sss-"]
            .iter()
            .any(|start| word.starts_with(start));
        // Not names: `eds-*`, files such as `eds-config.toml`, the suite `eds-1`.
        start && word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.ends_with('-')
    });
    named.map(str::to_owned).collect()
}

/// The names of the programs that the workspace builds.
fn programs_built() -> BTreeSet<String> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap();
    let targets = metadata.packages.iter().flat_map(|package| &package.targets);
    let programs = targets.filter(|target| target.is_bin());
    programs.map(|target| target.name.clone()).collect()
}

#[test]
fn every_command_that_the_manual_names_exists() {
    let mut there = programs_built();
    for (alias, program) in ALIASES {
        assert!(
            there.contains(*program),
            "`{alias}` is another name of `{program}`, which does not exist"
        );
    }
    there.extend(ALIASES.iter().map(|(alias, _)| (*alias).to_owned()));
    let mut unknown = Vec::new();
    for page in all_pages() {
        let named = commands_in(&std::fs::read_to_string(&page).unwrap());
        unknown.extend(
            named
                .difference(&there)
                .map(|name| format!("{}: {name}", page.display())),
        );
    }
    assert!(
        unknown.is_empty(),
        "commands that do not exist:\n{}",
        unknown.join("\n")
    );
}

#[test]
fn the_other_names_and_the_programs_are_the_same_everywhere() {
    let set = |names: &[(&'static str, &'static str)]| names.iter().copied().collect::<BTreeSet<_>>();
    let mut own = set(ssss::GLITE_NAMES);
    own.extend(set(eds::GLITE_NAMES));
    own.extend(mdm::names().map(|name| (name, "mdm")));
    assert_eq!(
        set(ALIASES),
        own,
        "what `cargo dist` links is not what the programs answer to"
    );
    assert_eq!(
        set(testgrid::ALIASES),
        own,
        "what a test grid links is not what the programs answer to"
    );

    let mut built = programs_built();
    built.remove("xtask");
    let listed: BTreeSet<String> = testgrid::PROGRAMS.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(listed, built);
}

#[test]
fn the_examples_are_what_the_programs_read() {
    let read = |name: &str| std::fs::read_to_string(root().join("docs/examples").join(name)).unwrap();
    let layer = hydra_core::config::file::parse(&read("config.toml"), Path::new("/etc/eds"));
    assert!(layer.is_ok(), "{layer:?}");
    let stores = hydra_core::config::services::parse(&read("services.xml"), None).unwrap();
    assert_eq!(stores.len(), 3);
}

#[test]
fn the_readers_of_this_test_see_what_they_should() {
    let text = "# One thing: `two`\n[a](b.md) and [c](d.md#e)\n```\n[no](no.md)\n# no\n```\n`eds-cat`, eds-* eds-1 hydra-eds-core eds-x.toml";
    assert_eq!(links(text), ["b.md", "d.md#e"]);
    assert_eq!(anchors(text), BTreeSet::from(["one-thing-two".to_owned()]));
    assert_eq!(commands_in(text), BTreeSet::from(["eds-cat".to_owned()]));
}

#[test]
fn one_program_answers_to_every_name_of_its_family() {
    let folder = tempfile::tempdir().unwrap();
    for (link, program) in [
        ("eds-decrypt", "eds-cat"),
        ("ssss-split", "ssss-join"),
        ("some-name", "eds-cat"),
    ] {
        let path = folder.path().join(link);
        std::os::unix::fs::symlink(hydra_tests::program(program), &path).unwrap();
        let answer = std::process::Command::new(&path).arg("--version").output().unwrap();
        let said = String::from_utf8_lossy(&answer.stdout).into_owned();
        let name = if link == "some-name" { program } else { link };
        assert!(said.starts_with(&format!("{name} ")), "{link}: {said}");
    }
}
