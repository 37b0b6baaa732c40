//! A catalogue as a process: who gets in, what survives its death, what its administrator does beside it
//! (`docs/src/operating-catalogue.md`).
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "../../crates/catalog/src/database/postgres/server.rs"]
#[allow(dead_code, reason = "other tests and benches use more of it")]
mod server;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hydra_core::config::load::Surroundings;
use hydra_core::ids::ChangeId;
use hydra_core::keystore::wire::ProblemKind;
use hydra_core::permissions::AclEntry;
use hydra_tests::{DEADLINE, Ended, files_under, high_water_kib, program, run, start_piped};
use mdm_catalog::wire::{
    Answer, AttributeDefinition, Attributes, Created, Kind, MAX_THUMBNAIL_BYTES, NewEntry, OperationBegin,
    OperationEnd, OperationState, Part, PermissionsChange, SchemaChange, Search, Type, Value,
};
use mdm_catalog::{CatalogClient, CatalogError, LogicalName};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use server::Server;
use testgrid::pki::{Authority, Pki, PkiOptions, serial_of};
use testgrid::{CatalogDatabase, Grid, GridError, GridOptions};

/// A value that must be found nowhere in clear.
const PLANTED: &str = "Zyxwvut";

fn client(grid: &Grid, proxy: &Path) -> Result<CatalogClient, CatalogError> {
    client_at(grid, proxy, None)
}

fn client_at(grid: &Grid, proxy: &Path, url: Option<&str>) -> Result<CatalogClient, CatalogError> {
    let variables = grid.variables().unwrap();
    let proxy = proxy.as_os_str().to_owned();
    let around = Surroundings::with_variables(move |name| {
        let known = variables.iter().find(|(known, _)| *known == name);
        match name {
            "X509_USER_PROXY" => Some(proxy.clone()),
            _ => known.map(|(_, value)| value.into()),
        }
    });
    CatalogClient::with(url, &around)
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

// --- answers under way ------------------------------------------------------------------------------------------------

/// So many files with so long a text that neither sockets nor buffers hold an answer with all of them.
const LONG: (usize, usize) = (130, 60_000);

#[test]
fn an_answer_under_way_is_no_ones_burden_and_ends_with_the_right_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut pki = Pki::create(&folder.path().join("pki"), &PkiOptions::default()).unwrap();
    let options = GridOptions {
        stores: 1,
        threshold: 1,
        pki: Some(pki.directory().to_owned()),
        catalog: true,
        commands: false,
        programs: program("mdm-catalog").parent().map(Path::to_owned),
        ..GridOptions::default()
    };
    let mut grid = Grid::up(&folder.path().join("grid"), &options).unwrap();
    without_room_no_catalogue_is_made_and_no_key_is_left(&grid, folder.path());
    csv_keeps_every_value_what_it_is(&grid);
    write_long(&user(&grid, "alice"), "/myvo/long");
    rights_that_go_end_an_answer(&grid);
    a_revoked_credential_ends_an_answer(&grid, &mut pki);
    who_does_not_read_is_let_go(&mut grid);
}

/// A directory with files of long texts, and of a patient each.
fn write_long(client: &CatalogClient, at: &str) {
    client
        .create_one(&NewEntry {
            parents: true,
            ..NewEntry::of(path(at), Kind::Directory)
        })
        .unwrap();
    let definition = |name: &str, half| AttributeDefinition {
        name: name.into(),
        kind: Type::String,
        half,
        indexed: false,
        dicom: None,
    };
    let change = SchemaChange {
        path: path(at),
        add: vec![
            definition("note", Part::Anonymous),
            definition("patient_id", Part::Identifying),
        ],
        remove: vec![],
    };
    client.change_schema(&change).unwrap();
    let entry = |number: usize| NewEntry {
        attributes: Attributes::from([
            ("note".into(), Value::Text("long".repeat(LONG.1 / 4))),
            ("patient_id".into(), Value::Text(number.to_string())),
        ]),
        ..file(&format!("{at}/{number:03}"))
    };
    let entries: Vec<_> = (0..LONG.0).map(entry).collect();
    let answers = client.create(&entries).unwrap();
    assert!(answers.iter().all(|one| matches!(one, Answer::Done(Created::New))));
}

/// All of it.
fn long(at: &str) -> Search {
    Search {
        from: at.into(),
        columns: vec!["name".into(), "note".into()],
        ..Search::default()
    }
}

/// A command of the catalogue by one of the grid's users.
fn mdm(grid: &Grid, who: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program("mdm"));
    command
        .args(words)
        .env_clear()
        .envs(grid.variables().unwrap())
        .env("X509_USER_PROXY", grid.pki().unwrap().working_proxy(who));
    command
}

/// A search as any program sends it that speaks HTTPS.
fn curl(grid: &Grid, who: &str, more: &[&str], search: &Search) -> Command {
    let pki = grid.pki().unwrap();
    let proxy = pki.working_proxy(who);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-f", "-H", "Content-Type: application/json"])
        .args(more)
        .arg("--capath")
        .arg(pki.certificates())
        .arg("--cert")
        .arg(&proxy)
        .arg("--key")
        .arg(&proxy)
        .args(["-d", &serde_json::to_string(search).unwrap()])
        .arg(format!("{}/v1/search", grid.catalog_url().unwrap()));
    curl
}

/// Begins a command, does something when its first line has come, and then reads the rest.
fn with_something_meanwhile(command: &mut Command, meanwhile: impl FnOnce()) -> Ended {
    let mut child = start_piped(command);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (mut stdout, mut stderr) = (Vec::new(), String::new());
    output.read_until(b'\n', &mut stdout).unwrap();
    meanwhile();
    output.read_to_end(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Ended {
        code: child.wait().unwrap().code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr,
        took: Duration::ZERO,
    }
}

/// Alice gives somebody letters on a part of a directory, or takes them; of all below too, where that is said.
fn give(alice: &CatalogClient, part: Part, whom: &str, letters: &str, recursive: bool) {
    let at = "/myvo/long";
    let Answer::Done(shown) = alice.permissions(&[at.to_owned()]).unwrap().remove(0) else {
        panic!("{at} is not shown")
    };
    let mut record = match part {
        Part::Name => shown.records.name,
        Part::Anonymous => shown.records.anonymous,
        Part::Identifying => shown.records.identifying.unwrap(),
    };
    record.acl.retain(|line| line.principal != whom);
    record.acl.push(AclEntry {
        principal: whom.to_owned(),
        permissions: letters.parse().unwrap(),
    });
    record.version += 1;
    record.change_id = ChangeId::random().unwrap();
    let change = PermissionsChange {
        path: at.into(),
        part,
        record,
        recursive,
    };
    let changed = alice.change_permissions(&[change]).unwrap().remove(0);
    assert!(matches!(changed, Answer::Done(_)), "{changed:?}");
}

fn rights_that_go_end_an_answer(grid: &Grid) {
    let pki = grid.pki().unwrap();
    let (bob, carol) = (pki.user_dn("bob").unwrap(), pki.user_dn("carol").unwrap());
    let alice = user(grid, "alice");
    let parts = [Part::Name, Part::Anonymous, Part::Identifying];
    let give_all = |whom: &str, letters: &str| parts.iter().for_each(|part| give(&alice, *part, whom, letters, true));
    let find = |columns: &str, meanwhile: &dyn Fn()| {
        let words = ["find", "--csv", "--columns", columns, "/myvo/long"];
        with_something_meanwhile(&mut mdm(grid, "bob", &words), meanwhile)
    };
    give_all(bob, "lg");
    // What others get and lose is no matter of his.
    let whole = find("name,note,patient_id", &|| {
        give_all(carol, "lg");
        give_all(carol, "");
    });
    let whole = whole.exits(0);
    assert_eq!(whole.stdout.lines().count(), LONG.0 + 1);
    let taken = [
        (Part::Name, true, "name,note"),
        (Part::Identifying, true, "name,note,patient_id"),
        // the directory's alone
        (Part::Identifying, false, "name,note,patient_id"),
    ];
    for (part, recursive, columns) in taken {
        let cut = find(columns, &|| give(&alice, part, bob, "", recursive));
        let cut = cut.exits(77).says("not whole").says("try: eds-whoami");
        let rows = cut.stdout.lines().count();
        assert!((1..LONG.0).contains(&rows), "{part:?}: {rows}");
        assert!(whole.stdout.contains(cut.stdout.lines().last().unwrap()), "{part:?}");
        give(&alice, part, bob, "lg", true);
    }
    // CSV has no words for it: it ends without its last chunk.
    let csv = ["-H", "Accept: text/csv"];
    let cut = with_something_meanwhile(&mut curl(grid, "bob", &csv, &long("/myvo/long")), || {
        give(&alice, Part::Name, bob, "", true);
    });
    assert_ne!(cut.code, Some(0));
    assert!(cut.stdout.lines().count() < LONG.0);
    give(&alice, Part::Name, bob, "lg", true);
}

fn a_revoked_credential_ends_an_answer(grid: &Grid, pki: &mut Pki) {
    let bob = user(grid, "bob");
    let certificate = CertificateDer::from_pem_file(pki.user("bob").0).unwrap();
    let find = ["find", "--columns", "name,note", "/myvo/long"];
    let cut = with_something_meanwhile(&mut mdm(grid, "bob", &find), || {
        pki.authority_mut()
            .unwrap()
            .revoke_serial(serial_of(&certificate).unwrap());
        pki.write_crl().unwrap();
        let is_refused = |error: &CatalogError| match error {
            CatalogError::Silent { credential_refused, .. } => *credential_refused,
            other => other.kind() == Some(ProblemKind::Credential),
        };
        until("a revoked credential is refused", || {
            bob.whoami().is_err_and(|error| is_refused(&error))
        });
    });
    let cut = cut.exits(78).says("no longer accepts your credential");
    assert!(cut.stdout.lines().count() < LONG.0);
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn who_does_not_read_is_let_go(grid: &mut Grid) {
    /// Searches that may be under way.
    const PLACES: usize = 4;
    grid.terminate_catalog().unwrap();
    grid.set_catalog_settings(&format!("[limits]\nheader_ms = 2500\nin_flight = {PLACES}\n"));
    grid.start_catalog().unwrap();
    let pid = grid.catalog_pid().unwrap();
    let log = grid.catalog_directory().join("catalog.db-wal");
    let log_bytes = || std::fs::metadata(&log).unwrap().len();
    let all = long("/myvo/long");
    let other = user(grid, "alice");
    assert_eq!(other.search(&all).unwrap().map(Result::unwrap).count(), LONG.0);
    let (memory, written) = (high_water_kib(pid), log_bytes());
    // Three over HTTP/2, one over HTTP/1.1: each takes a first row, and then nothing.
    let clients: Vec<CatalogClient> = (1..PLACES).map(|_| user(grid, "alice")).collect();
    let mut answers: Vec<_> = clients.iter().map(|client| client.search(&all).unwrap()).collect();
    assert!(answers.iter_mut().all(|answer| answer.next().unwrap().is_ok()));
    let plain = with_something_meanwhile(&mut curl(grid, "alice", &["--http1.1"], &all), || {
        assert_eq!(other.count(&all).unwrap_err().kind(), Some(ProblemKind::Busy));
        // All else goes on, and the log of the database is taken into it: nobody reads an old state.
        for number in 0..LONG.0 {
            let thumbnail = vec![1; MAX_THUMBNAIL_BYTES];
            other
                .put_thumbnail(&format!("/myvo/long/{number:03}"), thumbnail)
                .unwrap();
        }
        let grown = log_bytes().saturating_sub(written);
        assert!(grown < (LONG.0 * MAX_THUMBNAIL_BYTES / 2) as u64, "{grown}");
        until("one place is free", || other.count(&all).is_ok());
        until("all are", || {
            let begun: Vec<_> = (0..PLACES).map(|_| other.search(&all)).collect();
            begun.iter().all(Result::is_ok)
        });
    });
    let grown = high_water_kib(pid) - memory;
    // Less than their answers' text alone, and a search that was read to its end counts too.
    assert!(grown * 1024 < (PLACES * LONG.0 * LONG.1) as u64, "{grown} KiB");
    // Nobody takes what they have for all of it.
    assert_ne!(plain.code, Some(0));
    for answer in answers {
        let rest: Vec<_> = answer.collect();
        assert!(rest.len() < LONG.0 && rest.last().unwrap().is_err(), "{}", rest.len());
    }
}

fn csv_keeps_every_value_what_it_is(grid: &Grid) {
    let alice = user(grid, "alice");
    let note = AttributeDefinition {
        name: "note".into(),
        kind: Type::String,
        half: Part::Anonymous,
        indexed: false,
        dicom: None,
    };
    alice
        .create_one(&NewEntry {
            parents: true,
            ..NewEntry::of(path("/myvo/csv"), Kind::Directory)
        })
        .unwrap();
    let change = SchemaChange {
        path: path("/myvo/csv"),
        add: vec![note],
        remove: vec![],
    };
    alice.change_schema(&change).unwrap();
    // Each as it stands in the answer.
    let values = [
        ("=cmd|' /C calc'!A0", "=cmd|' /C calc'!A0"),
        ("+1,-1;@x", "\"+1,-1;@x\""),
        ("she said \"no\"", "\"she said \"\"no\"\"\""),
        ("two\nlines", "\"two\nlines\""),
        ("\r\n/myvo/csv/9,forged\r\n", "\"\r\n/myvo/csv/9,forged\r\n\""),
        ("Müller 田中\u{1f9e0}", "Müller 田中\u{1f9e0}"),
        (" blanks ", "\" blanks \""),
        ("'; DROP TABLE entries; --", "'; DROP TABLE entries; --"),
    ];
    let mut expected = "name,note\r\n".to_owned();
    let mut entries = Vec::new();
    for (number, (value, cell)) in values.iter().enumerate() {
        entries.push(NewEntry {
            attributes: Attributes::from([("note".into(), Value::Text((*value).into()))]),
            ..file(&format!("/myvo/csv/{number}"))
        });
        expected.push_str(&format!("/myvo/csv/{number},{cell}\r\n"));
    }
    entries.push(file("/myvo/csv/no, note"));
    expected.push_str("\"/myvo/csv/no, note\",\r\n");
    assert!(
        alice
            .create(&entries)
            .unwrap()
            .iter()
            .all(|one| matches!(one, Answer::Done(_)))
    );
    let search = long("/myvo/csv");
    let csv = ["-D", "-", "-H", "Accept: text/csv"];
    let answered = run(&mut curl(grid, "alice", &csv, &search)).exits(0);
    let (head, body) = answered.stdout.split_once("\r\n\r\n").unwrap();
    assert!(
        head.to_lowercase().contains("content-type: text/csv; charset=utf-8"),
        "{head}"
    );
    assert_eq!(body, expected);
    let words = ["find", "--csv", "--columns", "name,note", "/myvo/csv"];
    assert_eq!(run(&mut mdm(grid, "alice", &words)).exits(0).stdout, expected);
    // A cell that is alone and empty is no empty line.
    let alone = Search {
        columns: vec!["note".into()],
        query: "note IS NULL".into(),
        ..search
    };
    let answered = run(&mut curl(grid, "alice", &csv[2..], &alone)).exits(0);
    assert_eq!(answered.stdout, "note\r\n\"\"\r\n");
}

/// `mdm-catalog init` into a folder, with its key in the key stores; `before` is said to the shell first.
fn init(grid: &Grid, folder: &Path, before: &str, more: &[&str]) -> Ended {
    let (certificate, key) = grid.pki().unwrap().host("catalog");
    run(Command::new("sh")
        .args(["-c", &format!("{before} exec \"$@\""), "init"])
        .arg(program("mdm-catalog"))
        .arg("init")
        .arg(folder.join("made"))
        .args(["--column-key", "/catalog/another-key", "--eds-config"])
        .arg(grid.client_config())
        .arg("--certificate")
        .arg(&certificate)
        .arg("--key")
        .arg(&key)
        .args(more)
        .envs(grid.variables().unwrap()))
}

fn without_room_no_catalogue_is_made_and_no_key_is_left(grid: &Grid, folder: &Path) {
    // Writing more than 4 KiB to a file fails, as on a disk that is full.
    let no_room = "trap '' XFSZ; ulimit -f 8;";
    let failed = init(grid, folder, no_room, &[]);
    assert!(failed.code.is_some_and(|code| code != 0), "{failed:?}");
    assert!(!failed.stderr.contains("is left"), "{failed:?}");
    assert!(!folder.join("made").exists());
    let _ = init(grid, folder, "", &[]).exits(0);
    std::fs::remove_dir_all(folder.join("made")).unwrap();
    let _ = init(grid, folder, "", &[]).exits(73).says("there is a key");
}

// --- over PostgreSQL --------------------------------------------------------------------------------------------------

/// Configurations of a catalogue as its grid wrote it, but for something.
struct Variants {
    text: String,
    folder: PathBuf,
}

impl Variants {
    fn of(grid: &Grid, folder: &Path) -> Self {
        Self {
            text: std::fs::read_to_string(config(grid)).unwrap(),
            folder: folder.to_owned(),
        }
    }

    /// With other text in place of some, as a file of that name.
    fn file(&self, name: &str, changes: &[(&str, &str)]) -> PathBuf {
        let mut text = self.text.clone();
        for (from, to) in changes {
            assert!(text.contains(from), "{from} in\n{text}");
            text = text.replace(from, to);
        }
        let path = self.folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn of_config(verb: &[&str], config: &Path) -> hydra_tests::Ended {
    run(Command::new(program("mdm-catalog")).args(verb).arg(config))
}

#[test]
fn peer_postgres_a_catalogue_goes_on_with_its_database() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::create(&folder.path().join("pki"), &PkiOptions::default()).unwrap();
    let (certificate, key) = pki.host("se");
    let mut server = Server::start_secured(&["fsync=off"], (&certificate, &key), "a password");
    server.database("images");
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "a password\n").unwrap();
    std::fs::set_permissions(&password_file, PermissionsExt::from_mode(0o600)).unwrap();
    let authorities = folder.path().join("authorities.pem");
    std::fs::write(&authorities, pki.authority().unwrap().pem()).unwrap();
    let options = GridOptions {
        stores: 1,
        threshold: 1,
        pki: Some(pki.directory().to_owned()),
        catalog: true,
        catalog_database: Some(CatalogDatabase {
            url: server.network_url("images"),
            password_file: Some(password_file),
            authorities: Some(authorities),
        }),
        commands: false,
        programs: program("mdm-catalog").parent().map(Path::to_owned),
        ..GridOptions::default()
    };
    let mut grid = Grid::up(&folder.path().join("grid"), &options).unwrap();
    let alice = user(&grid, "alice");
    alice.create_one(&NewEntry::of(path("/myvo"), Kind::Directory)).unwrap();
    alice.create_one(&file("/myvo/x/1")).unwrap();
    let variants = Variants::of(&grid, folder.path());
    a_catalogue_that_is_not_made_leaves_no_key(&server, &grid, folder.path());
    a_slow_client_holds_no_transaction(&server, &grid);
    a_database_that_is_away_is_waited_for(&mut server, &grid);
    what_was_answered_survives_the_databases_death(&mut server, &mut grid);
    two_catalogues_of_one_database_take_turns(&grid, &variants);
    it_is_backed_up_by_its_own_means(&server, &grid, &variants);
    nobody_else_is_taken_for_the_database(&mut server, &pki, &variants);
}

fn a_catalogue_that_is_not_made_leaves_no_key(server: &Server, grid: &Grid, folder: &Path) {
    let nobody = "postgres://catalog@127.0.0.1:1/images?sslmode=disable";
    let _ = init(grid, folder, "", &["--database", nobody]).exits(75);
    assert!(!folder.join("made").exists());
    // There is a database, in which its user may make no tables: that shows when the key is there already.
    let url = server.database("poor").replace("catalog@", "poor@");
    let poor = "CREATE ROLE poor LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC";
    let _ = run(server.client("psql").args(["-q", "-d", "poor", "-c", poor])).exits(0);
    let failed = init(grid, folder, "", &["--database", &url]);
    let failed = failed.exits(78).says("permission denied");
    assert!(!failed.stderr.contains("is left"), "{failed:?}");
    assert!(!folder.join("made").exists());
    let _ = init(grid, folder, "", &[]).exits(0);
    let _ = std::fs::remove_dir_all(folder.join("made"));
    let _ = init(grid, folder, "", &[]).exits(73).says("there is a key");
}

/// Whoever reads an answer slowly keeps no transaction open, which would keep the database from tidying up.
fn a_slow_client_holds_no_transaction(server: &Server, grid: &Grid) {
    let alice = user(grid, "alice");
    write_long(&alice, "/myvo/long");
    let mut answer = alice.search(&long("/myvo/long")).unwrap();
    assert!(answer.next().unwrap().is_ok());
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'images' AND xact_start IS NOT NULL";
    until("no transaction is open", || {
        run(server.client("psql").args(["-At", "-d", "postgres", "-c", open]))
            .exits(0)
            .stdout
            .trim()
            == "0"
    });
    assert_eq!(answer.map(Result::unwrap).count() + 1, LONG.0);
}

fn a_database_that_is_away_is_waited_for(server: &mut Server, grid: &Grid) {
    let alice = user(grid, "alice");
    server.kill();
    let refused = [
        alice.show_one("/myvo/x/1").unwrap_err(),
        alice.create_one(&file("/myvo/x/2")).unwrap_err(),
        alice
            .count(&Search {
                from: "/myvo".into(),
                ..Search::default()
            })
            .unwrap_err(),
    ];
    for error in refused {
        assert!(error.kind() == Some(ProblemKind::Busy) && error.may_pass(), "{error:?}");
    }
    let _ = catalogue(grid, &["audit", "verify"], &[]).exits(75);
    server.run();
    alice.create_one(&file("/myvo/x/2")).unwrap();
    alice.show_one("/myvo/x/1").unwrap();
    // One that ends in good order is no different.
    server.stop();
    assert_eq!(alice.show_one("/myvo/x/1").unwrap_err().kind(), Some(ProblemKind::Busy));
    server.run();
    alice.show_one("/myvo/x/2").unwrap();
}

fn what_was_answered_survives_the_databases_death(server: &mut Server, grid: &mut Grid) {
    let answered = AtomicUsize::new(0);
    let alice = user(grid, "alice");
    std::thread::scope(|scope| {
        let answered = &answered;
        scope.spawn(move || {
            for batch in 0..10_000 {
                let some: Vec<_> = (0..10)
                    .map(|number| file(&format!("/myvo/killed/{batch}/{number}")))
                    .collect();
                match alice.create(&some) {
                    Ok(answers) if answers.iter().all(|one| matches!(one, Answer::Done(_))) => {
                        answered.store(batch + 1, Ordering::SeqCst);
                    }
                    Ok(answers) => panic!("{answers:?}"),
                    Err(error) => return assert_eq!(error.kind(), Some(ProblemKind::Busy), "{error:?}"),
                }
            }
        });
        while answered.load(Ordering::SeqCst) < 3 {
            std::thread::sleep(Duration::from_millis(5));
        }
        server.kill();
    });
    // Both at once, and the database comes back first.
    grid.kill_catalog().unwrap();
    server.run();
    grid.start_catalog().unwrap();
    let alice = user(grid, "alice");
    let answered = answered.into_inner();
    for batch in 0..=answered {
        let search = Search {
            from: "/myvo".into(),
            query: format!("name LIKE '/myvo/killed/{batch}/%'"),
            ..Search::default()
        };
        let there = alice.count(&search).unwrap();
        let whole = there == 10 || (there == 0 && batch == answered);
        assert!(whole, "{there} of batch {batch}, {answered} answered");
    }
}

fn two_catalogues_of_one_database_take_turns(grid: &Grid, variants: &Variants) {
    use std::io::BufRead;
    let beside = variants.file("beside.toml", &[]);
    let mut second = Command::new(program("mdm-catalog"))
        .arg("serve")
        .arg(beside)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = std::io::BufReader::new(second.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    let url = line.trim().trim_start_matches("listening on ").to_owned();
    let clients = [
        user(grid, "alice"),
        client_at(grid, &grid.pki().unwrap().working_proxy("alice"), Some(&url)).unwrap(),
    ];
    std::thread::scope(|scope| {
        for (which, client) in clients.into_iter().enumerate() {
            scope.spawn(move || {
                for number in 0..20 {
                    let some = [
                        file(&format!("/myvo/turns/{which}/{number}")),
                        file(&format!("/myvo/turns/both/{number}")),
                    ];
                    let answers = client.create(&some).unwrap();
                    assert!(answers.iter().all(|one| matches!(one, Answer::Done(_))), "{answers:?}");
                }
            });
        }
    });
    let _ = second.kill();
    let _ = second.wait();
    let _ = catalogue(grid, &["audit", "verify"], &[]).exits(0).prints("ok: ");
    let below = Search {
        from: "/myvo".into(),
        query: "name LIKE '/myvo/turns/%'".into(),
        ..Search::default()
    };
    assert_eq!(user(grid, "alice").count(&below).unwrap(), 60);
}

fn it_is_backed_up_by_its_own_means(server: &Server, grid: &Grid, variants: &Variants) {
    let dump = variants.folder.join("dump.sql");
    for verb in ["backup", "restore"] {
        let _ = catalogue(grid, &[verb], &[dump.to_str().unwrap()])
            .exits(2)
            .says("by its own means");
    }
    let _ = run(server.client("pg_dump").arg("-f").arg(&dump).arg("images")).exits(0);
    let socket = server.database("again");
    let _ = run(server.client("psql").args(["-q", "-d", "again", "-f"]).arg(&dump)).exits(0);
    // Found again by socket, without TLS and password.
    let again = variants.file("again.toml", &[(&server.network_url("images"), &socket)]);
    let _ = of_config(&["check"], &again).exits(0).prints("ok");
    let there = of_config(&["audit", "verify"], &again).exits(0);
    assert_eq!(
        there.stdout.lines().next(),
        catalogue(grid, &["audit", "verify"], &[]).stdout.lines().next()
    );
    let _ = of_config(&["check"], &variants.file("none.toml", &[("/images\"", "/no-such\"")]))
        .exits(78)
        .says("does not exist");
}

fn nobody_else_is_taken_for_the_database(server: &mut Server, pki: &Pki, variants: &Variants) {
    let refused = |config: &Path, words: &str| {
        let _ = of_config(&["audit", "verify"], config).exits(78).says(words);
        let _ = of_config(&["check"], config).exits(78).says(words);
    };
    let wrong = variants.folder.join("wrong");
    std::fs::write(&wrong, "another password").unwrap();
    std::fs::set_permissions(&wrong, PermissionsExt::from_mode(0o600)).unwrap();
    let password = format!("\"{}\"", variants.folder.join("password").display());
    let other = format!("\"{}\"", wrong.display());
    refused(
        &variants.file("password.toml", &[(&password, &other)]),
        "password authentication failed",
    );
    // An authority that signed nothing here.
    let alien = variants.folder.join("alien.pem");
    std::fs::write(&alien, Authority::new("/DC=org/CN=Alien").unwrap().pem()).unwrap();
    let authorities = format!("\"{}\"", variants.folder.join("authorities.pem").display());
    let alien = format!("\"{}\"", alien.display());
    refused(
        &variants.file("alien.toml", &[(&authorities, &alien)]),
        "invalid peer certificate",
    );
    refused(
        &variants.file("nobody.toml", &[(&format!("authorities = {authorities}"), "")]),
        "no authorities are configured",
    );
    // In clear: the server does not want that, and the catalogue not either.
    let clear = variants.file("clear.toml", &[("/images\"", "/images?sslmode=disable\"")]);
    refused(&clear, "no encryption");
    let same = variants.file("same.toml", &[]);
    let _ = of_config(&["check"], &same).exits(0);
    server.stop();
    server.set("ssl=off");
    server.run();
    refused(&same, "server does not support TLS");
    // A certificate of that authority for another name.
    server.stop();
    server.set("ssl=on");
    let voms = pki.directory().join("voms/myvo");
    server.present(&voms.join("hostcert.pem"), &voms.join("hostkey.pem"));
    server.run();
    refused(&same, "not valid for");
}
