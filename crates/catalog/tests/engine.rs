//! The catalogue over SQLite: the suite, what is on disk, and what those get who may not read the identifying half.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod suite;

use std::path::Path;

use mdm_catalog::database::Database;
use mdm_catalog::database::sqlite::Sqlite;
use mdm_catalog::wire::{NewEntry, Part};
use proptest::prelude::*;
use suite::{PLANTED, all_that_bob_gets, create, done, engine, furnished, grant, image};

fn database(folder: &Path) -> Database {
    Database::new(Sqlite::create(&folder.join("catalog.db")).unwrap())
}

#[test]
fn the_suite_over_sqlite() {
    let folders = std::cell::RefCell::new(Vec::new());
    suite::all(&|| {
        let folder = tempfile::tempdir().unwrap();
        let made = database(folder.path());
        folders.borrow_mut().push(folder);
        made
    });
}

#[test]
fn what_identifies_is_nowhere_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(database(folder.path()));
    furnished(&engine);
    for number in 0..50 {
        let name = format!("{PLANTED}-{number}^Anna");
        done(create(
            &engine,
            "alice",
            image(&format!("/myvo/s/{number}"), "MR", number, &name),
        ));
    }
    grant(&engine, "/myvo", Part::Identifying, "bob", "g");
    let mut looked_at = 0;
    let (planted, folded) = (PLANTED.as_bytes(), PLANTED.to_lowercase());
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        // What is of the anonymous half is there in clear: the search looks where it should.
        looked_at += usize::from(has(b"/myvo/s/49"));
        assert!(!has(planted) && !has(folded.as_bytes()) && !has(b"dicom:"));
    }
    assert!(looked_at >= 1);
}

fn queries() -> impl Strategy<Value = Vec<String>> {
    let one = prop_oneof![
        Just("modality = 'MR'".to_owned()),
        Just("patient_name = 'A^B'".to_owned()),
        Just("NOT (PatientName IS NULL)".to_owned()),
        Just("age > 1 OR patient_id <> 'x'".to_owned()),
        Just("(0010,0010) LIKE 'abc%'".to_owned()),
        Just("age >= 0 ORDER BY patient_name".to_owned()),
        (0_i64..5).prop_map(|age| format!("age <= {age} ORDER BY age DESC LIMIT 3")),
    ];
    proptest::collection::vec(one, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn whoever_may_not_read_the_identifying_half_cannot_tell_whether_there_is_one(
        images in proptest::collection::vec((0_i64..5, "[A-Z][a-z]{1,8}\\^[A-Z][a-z]{1,8}", any::<bool>()), 1..6),
        queries in queries(),
    ) {
        let said = [true, false].map(|identified| {
            let folder = tempfile::tempdir().unwrap();
            let engine = engine(database(folder.path()));
            furnished(&engine);
            for (number, (age, name, is_mr)) in images.iter().enumerate() {
                let modality = if *is_mr { "MR" } else { "CT" };
                let mut new = NewEntry {
                    guid: Some(format!("guid:00000000-0000-4000-8000-{number:012}")),
                    parents: false,
                    ..image(&format!("/myvo/{number}"), modality, *age, name)
                };
                if !identified {
                    new.replicas.truncate(1);
                    new.attributes.retain(|name, _| !name.starts_with("patient_"));
                }
                done(create(&engine, "alice", new));
            }
            // Change ids of permissions are drawn; they say nothing of values.
            let said = all_that_bob_gets(&engine, &queries);
            let question = mdm_catalog::wire::Question { path: "/myvo".into() };
            let shown = done(engine.permissions(&suite::caller("bob"), &[question]).unwrap().remove(0));
            [shown.records.name, shown.records.anonymous].iter().fold(said, |said, record| {
                said.replace(&record.change_id.to_string(), "")
            })
        });
        prop_assert_eq!(&said[0], &said[1]);
    }
}
