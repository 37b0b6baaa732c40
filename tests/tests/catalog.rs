//! A catalogue as a process: who gets in, what survives its death, what its administrator does beside it
//! (`docs/src/operating-catalogue.md`).
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hydra_core::config::load::Surroundings;
use hydra_core::keystore::wire::ProblemKind;
use hydra_tests::{files_under, program, run};
use mdm_catalog::wire::{
    Answer, AttributeDefinition, Attributes, Created, Kind, NewEntry, OperationBegin, OperationEnd, OperationState,
    Part, SchemaChange, Search, Type, Value,
};
use mdm_catalog::{CatalogClient, CatalogError, LogicalName};
use testgrid::{Grid, GridError, GridOptions};

/// A value that must be found nowhere in clear.
const PLANTED: &str = "Zyxwvut";

fn client(grid: &Grid, proxy: &Path) -> Result<CatalogClient, CatalogError> {
    let variables = grid.variables().unwrap();
    let proxy = proxy.as_os_str().to_owned();
    let around = Surroundings::with_variables(move |name| {
        let known = variables.iter().find(|(known, _)| *known == name);
        match name {
            "X509_USER_PROXY" => Some(proxy.clone()),
            _ => known.map(|(_, value)| value.into()),
        }
    });
    CatalogClient::with(None, &around)
}

fn user(grid: &Grid, name: &str) -> CatalogClient {
    client(grid, &grid.pki().unwrap().working_proxy(name)).unwrap()
}

fn path(text: &str) -> LogicalName {
    LogicalName::new(text).unwrap()
}

fn file(text: &str) -> NewEntry {
    NewEntry {
        parents: true,
        ..NewEntry::of(path(text), Kind::File)
    }
}

fn config(grid: &Grid) -> PathBuf {
    grid.catalog_directory().join("mdm-catalog.toml")
}

fn catalogue(grid: &Grid, verb: &[&str], more: &[&str]) -> hydra_tests::Ended {
    run(Command::new(program("mdm-catalog"))
        .args(verb)
        .arg(config(grid))
        .args(more))
}

#[test]
fn a_catalogue_lives_dies_and_knows_who_asks() {
    let folder = tempfile::tempdir().unwrap();
    let options = GridOptions {
        catalog: true,
        commands: false,
        programs: program("mdm-catalog").parent().map(Path::to_owned),
        ..GridOptions::default()
    };
    let mut grid = Grid::up(&folder.path().join("grid"), &options).unwrap();
    who_gets_in(&grid);
    what_identifies_is_sealed(&grid);
    what_was_answered_survives_a_kill(&mut grid);
    beside_a_catalogue_that_serves(&grid, folder.path());
    the_key_stores_are_asked_at_start(&mut grid);
    a_backup_is_restored(&mut grid, folder.path());
}

fn who_gets_in(grid: &Grid) {
    let alice = user(grid, "alice");
    let who = alice.whoami().unwrap();
    assert!(who.fqans.contains(&"/myvo".to_owned()) && !who.administrator);
    assert!(user(grid, "admin").whoami().unwrap().administrator);
    assert_eq!(alice.about().unwrap().backups_kept_days, Some(30));
    // Of an authority that nobody trusts: no answer at all.
    let mallory = client(grid, &grid.pki().unwrap().proxy("mallory-plain"));
    assert!(mallory.and_then(|mallory| mallory.whoami()).is_err());
    // Carol is in no VO that a rule admits; to her the top looks empty.
    let carol = user(grid, "carol");
    assert_eq!(
        alice.create_one(&NewEntry::of(path("/myvo"), Kind::Directory)).unwrap(),
        Created::New
    );
    alice.create_one(&file("/myvo/home/secret")).unwrap();
    let refused = [
        carol.show_one("/myvo/home/secret").unwrap_err().kind(),
        carol.show_one("/myvo/home/nothing").unwrap_err().kind(),
        carol.create_one(&file("/carols/x")).unwrap_err().kind(),
    ];
    assert_eq!(refused, [Some(ProblemKind::NotFound); 3]);
}

fn what_identifies_is_sealed(grid: &Grid) {
    let alice = user(grid, "alice");
    let definition = |name: &str, half| AttributeDefinition {
        name: name.into(),
        kind: Type::String,
        half,
        indexed: true,
        dicom: (name == "patient_name").then(|| "PatientName".to_owned()),
    };
    let change = SchemaChange {
        path: path("/myvo"),
        add: vec![
            definition("modality", Part::Anonymous),
            definition("patient_name", Part::Identifying),
        ],
        remove: vec![],
    };
    alice.change_schema(&change).unwrap();
    let new = NewEntry {
        replicas: vec![format!("dicom://PACS@h:104/{PLANTED}")],
        attributes: Attributes::from([
            ("modality".into(), Value::Text("MR".into())),
            ("patient_name".into(), Value::Text(format!("{PLANTED}^Anna"))),
        ]),
        ..file("/myvo/study/1")
    };
    alice.create_one(&new).unwrap();
    let search = Search {
        from: "/myvo".into(),
        query: format!("patient_name LIKE '{}%'", PLANTED.to_lowercase()),
        ..Search::default()
    };
    assert_eq!(alice.count(&search).unwrap(), 1);
    let rows: Vec<_> = alice.search(&search).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows, [[Value::Text("/myvo/study/1".into())]]);
    let by_name = Search {
        query: "patient_name = 'x'".into(),
        ..search
    };
    let said = user(grid, "carol").count(&by_name).unwrap_err();
    assert_eq!(said.kind(), Some(ProblemKind::NotFound));
    for (name, bytes) in files_under(&grid.catalog_directory()) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            !text.contains(PLANTED) && !text.contains("dicom:"),
            "{}",
            name.display()
        );
    }
    let log = std::fs::read_to_string(grid.catalog_log()).unwrap();
    assert!(!log.contains(PLANTED) && !log.contains("/myvo/study"));
}

fn what_was_answered_survives_a_kill(grid: &mut Grid) {
    let begin = OperationBegin {
        id: "0123456789abcdef0123456789abcdef".into(),
        what: "a study".into(),
    };
    let alice = user(grid, "alice");
    alice.begin(&begin).unwrap();
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (answered, id) = (&answered, &begin.id);
        scope.spawn(move || {
            for batch in 0..10_000 {
                let new = |number| NewEntry {
                    operation: Some(id.clone()),
                    ..file(&format!("/myvo/killed/{batch}/{number}"))
                };
                let some: Vec<_> = (0..10).map(new).collect();
                match alice.create(&some) {
                    Ok(answers) if answers.iter().all(|one| matches!(one, Answer::Done(_))) => {
                        answered.store(batch + 1, Ordering::SeqCst);
                    }
                    Ok(answers) => panic!("{answers:?}"),
                    Err(_) => return,
                }
            }
        });
        while answered.load(Ordering::SeqCst) < 3 {
            std::thread::sleep(Duration::from_millis(5));
        }
        grid.kill_catalog().unwrap();
    });
    grid.start_catalog().unwrap();
    let alice = user(grid, "alice");
    let answered = answered.into_inner();
    for batch in 0..answered {
        alice.show_one(&format!("/myvo/killed/{batch}/9")).unwrap();
    }
    // What was under way is found by its owner alone, and taken back whole.
    let open = alice.operations().unwrap();
    assert_eq!(
        (open[0].id.as_str(), open[0].state),
        (begin.id.as_str(), OperationState::Open)
    );
    assert!(open[0].entries >= answered as u64 * 11);
    assert!(user(grid, "bob").operations().unwrap().is_empty());
    let end = OperationEnd {
        id: begin.id,
        state: OperationState::Undone,
    };
    alice.end(&end).unwrap();
    let gone = alice.show_one("/myvo/killed").unwrap_err();
    assert_eq!(gone.kind(), Some(ProblemKind::NotFound));
}

fn beside_a_catalogue_that_serves(grid: &Grid, folder: &Path) {
    let _ = catalogue(grid, &["check"], &[]).exits(0).prints("ok");
    let _ = catalogue(grid, &["audit", "verify"], &[]).exits(0).prints("ok: ");
    let shown = catalogue(grid, &["audit", "show"], &[]).exits(0);
    assert!(!shown.stdout.contains(PLANTED));
    let _ = shown.prints("identifying attributes");
    let _ = catalogue(grid, &["serve"], &[])
        .exits(75)
        .says("in use by another process");
    let backup = folder.join("backup.db");
    let _ = catalogue(grid, &["backup"], &[backup.to_str().unwrap()])
        .exits(0)
        .prints("ok: ");
    let bytes = std::fs::read(&backup).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains(PLANTED));
    let _ = catalogue(grid, &["backup"], &[backup.to_str().unwrap()]).exits(73);
}

fn the_key_stores_are_asked_at_start(grid: &mut Grid) {
    grid.terminate_catalog().unwrap();
    for store in [1, 2] {
        grid.kill(store).unwrap();
    }
    let _ = catalogue(grid, &["check"], &[]).exits(78).says("1 of the 2");
    assert!(matches!(grid.start_catalog(), Err(GridError::CatalogNotReady { .. })));
    for store in [1, 2] {
        grid.start(store).unwrap();
    }
    grid.start_catalog().unwrap();
    user(grid, "alice").show_one("/myvo/study/1").unwrap();
}

fn a_backup_is_restored(grid: &mut Grid, folder: &Path) {
    let backup = folder.join("backup.db");
    let backup = backup.to_str().unwrap();
    user(grid, "alice").create_one(&file("/myvo/later")).unwrap();
    let _ = catalogue(grid, &["restore"], &[backup]).exits(75);
    grid.terminate_catalog().unwrap();
    let _ = catalogue(grid, &["restore"], &[backup]).exits(73).says("is not empty");
    let _ = catalogue(grid, &["restore"], &[backup, "--replace"])
        .exits(0)
        .prints("ok: ");
    grid.start_catalog().unwrap();
    let alice = user(grid, "alice");
    assert!(alice.show_one("/myvo/later").is_err());
    let seen = alice.show_one("/myvo/study/1").unwrap();
    assert_eq!(seen.attributes["patient_name"], Value::Text(format!("{PLANTED}^Anna")));
    let _ = catalogue(grid, &["audit", "verify"], &[]).exits(0);
}
