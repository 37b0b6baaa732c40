//! Holds the arrows of docs/src/architecture.md: which crate of ours may depend on which.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// What each crate may depend on, of ours. A crate that is missing here has no place in the architecture yet.
const ARROWS: &[(&str, &[&str])] = &[
    ("grid-identity", &[]),
    ("cli", &[]),
    ("core", &["grid-identity"]),
    ("service", &["core", "grid-identity"]),
    ("ssss", &["core", "cli"]),
    ("dicom-deid", &["core", "cli", "eds"]),
    ("storage-url", &["core", "grid-identity"]),
    ("dicom-net", &[]),
    (
        "dicom-recall",
        &[
            "core",
            "cli",
            "service",
            "eds",
            "dicom-net",
            "dicom-deid",
            "grid-identity",
            "catalog",
        ],
    ),
    ("eds", &["core", "grid-identity", "cli", "storage-url"]),
    ("keystore", &["service", "core", "grid-identity", "cli"]),
    ("testgrid", &["grid-identity", "cli"]),
    ("xtask", &[]),
    ("catalog", &["core", "cli", "service", "eds", "grid-identity"]),
    (
        "mdm",
        &[
            "catalog",
            "core",
            "cli",
            "eds",
            "storage-url",
            "dicom-net",
            "dicom-deid",
            "dicom-recall",
            "grid-identity",
        ],
    ),
];

/// Tests may need a grid, wherever they are.
const FOR_TESTS: &[&str] = &["testgrid"];

/// Never a dependency of the core: servers and their kit, command lines, databases.
const NOT_IN_CORE: &[&str] = &[
    "axum",
    "clap",
    "rusqlite",
    "indicatif",
    "metrics",
    "hydra-eds-cli",
    "hydra-eds-service",
];

fn metadata() -> Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap()
}

fn short(name: &str) -> Option<&str> {
    name.strip_prefix("hydra-eds-")
}

/// The names, of ours and others, that a package depends on in one way.
fn depends(package: &Package, kind: DependencyKind) -> BTreeSet<String> {
    let of_kind = package.dependencies.iter().filter(|dependency| dependency.kind == kind);
    of_kind.map(|dependency| dependency.name.clone()).collect()
}

#[test]
fn arrows_point_only_where_the_architecture_says() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut seen = BTreeSet::new();
    for package in metadata().packages {
        let name = short(&package.name)
            .expect("our packages begin with hydra-eds-")
            .to_owned();
        if name == "tests" {
            continue;
        }
        let allowed = arrows
            .get(&*name)
            .unwrap_or_else(|| panic!("`{name}` is not in the architecture"));
        for used in depends(&package, DependencyKind::Normal)
            .iter()
            .filter_map(|used| short(used))
        {
            assert!(allowed.contains(&used), "`{name}` must not depend on `{used}`");
        }
        for used in depends(&package, DependencyKind::Development)
            .iter()
            .filter_map(|used| short(used))
        {
            let fine = allowed.contains(&used) || FOR_TESTS.contains(&used) || used == name;
            assert!(fine, "the tests of `{name}` must not depend on `{used}`");
        }
        seen.insert(name);
    }
    let gone: Vec<_> = arrows.keys().filter(|name| !seen.contains(**name)).collect();
    assert!(
        gone.is_empty(),
        "in the architecture, but not in the workspace: {gone:?}"
    );
}

#[test]
fn the_core_needs_the_identity_for_its_client_only_and_never_a_server() {
    let metadata = metadata();
    let core = metadata
        .packages
        .iter()
        .find(|package| short(&package.name) == Some("core"))
        .unwrap();
    let identity = core
        .dependencies
        .iter()
        .find(|dependency| dependency.name.ends_with("grid-identity"))
        .unwrap();
    assert!(identity.optional);
    let turning_it_on = core
        .features
        .iter()
        .filter(|(_, on)| on.iter().any(|one| one.contains("grid-identity")));
    let names: Vec<&str> = turning_it_on.map(|(name, _)| &**name).collect();
    assert!(
        names.iter().all(|name| ["client", "grid-identity"].contains(name)),
        "{names:?}"
    );
    for unwanted in NOT_IN_CORE {
        assert!(
            !depends(core, DependencyKind::Normal).contains(*unwanted),
            "the core depends on `{unwanted}`"
        );
    }
}

#[test]
fn every_member_takes_versions_and_lints_from_the_root() {
    for package in metadata().packages {
        let text = std::fs::read_to_string(&package.manifest_path).unwrap();
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{}: lints are the workspace's",
            package.manifest_path
        );
        for line in text
            .lines()
            .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        {
            assert!(
                !line.contains("version = "),
                "{}: `{line}` has a version of its own",
                package.manifest_path
            );
        }
        assert_eq!(
            package.publish.as_deref(),
            Some(&[][..]),
            "{} would be published",
            package.name
        );
    }
}

/// Every dependency with its features, as cargo resolves them with or without the tests.
fn features(kinds: &str) -> BTreeMap<String, BTreeSet<String>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = std::process::Command::new(cargo)
        .current_dir(root)
        .args([
            "tree",
            "--offline",
            "--workspace",
            "--prefix",
            "none",
            "--no-dedupe",
            "--format",
            "{p}|{f}",
            "--edges",
        ])
        .arg(kinds)
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    let mut features: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (package, list) in text
        .lines()
        .filter_map(|line| line.trim_end_matches(" (*)").split_once('|'))
    {
        if !package.contains("(proc-macro)") {
            features.entry(package.to_owned()).or_default().insert(list.to_owned());
        }
    }
    features
}

#[test]
fn programs_and_tests_take_the_same_features_so_that_dependencies_are_built_once() {
    let tests = features("normal,dev,no-proc-macro");
    for (package, features) in features("normal,no-proc-macro") {
        assert_eq!(
            features, tests[&package],
            "{package}: ask for what the tests need in tests/Cargo.toml"
        );
    }
}

#[test]
fn programs_wait_for_no_jitter_entropy() {
    let program = hydra_tests::program("eds-encrypt");
    let bytes = std::fs::read(&program).unwrap();
    let has = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    assert!(
        has(b"aws_lc_"),
        "the symbols of the library are not there: this test sees nothing"
    );
    assert!(
        !has(b"jent_entropy_collector_alloc"),
        "built without AWS_LC_SYS_NO_JITTER_ENTROPY=1"
    );
}
