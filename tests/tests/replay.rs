//! Replays what the fuzz targets were fed with and what they found: `fuzz/corpus/<target>/`.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hydra_tests::replay::TARGETS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

/// A seed, and it cut short and with bits turned at a few places, the same ones every time.
fn neighbours(seed: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![seed.to_vec()];
    for step in 1..=16 {
        let at = seed.len() * step / 17;
        all.push(seed[..at].to_vec());
        if let Some(byte) = seed.get(at) {
            let mut turned = seed.to_vec();
            turned[at] = byte ^ (1 << (step % 8));
            all.push(turned);
        }
    }
    all
}

#[test]
fn every_target_takes_every_input_of_its_corpus_and_their_neighbours() {
    for (name, target) in TARGETS {
        let inputs = std::fs::read_dir(fuzz().join("corpus").join(name)).unwrap();
        let mut count = 0;
        for input in inputs {
            let path = input.unwrap().path();
            for bytes in neighbours(&std::fs::read(&path).unwrap()) {
                let outcome = std::panic::catch_unwind(|| target(&bytes));
                assert!(outcome.is_ok(), "{name}: {} or a neighbour of it", path.display());
            }
            count += 1;
        }
        assert!(count > 1, "{name} has no corpus");
    }
}

#[test]
fn targets_corpora_and_fuzz_programs_are_the_same_ones() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names_in(&fuzz().join("corpus")), targets);
    assert_eq!(names_in(&fuzz().join("fuzz_targets")), targets);
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in targets {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "fuzz/Cargo.toml lacks `{name}`"
        );
    }
}
