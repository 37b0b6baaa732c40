//! A catalogue as a process: who gets in, what survives its death, what its administrator does beside it
//! (`docs/src/operating-catalogue.md`).
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

#[path = "../../crates/catalog/src/database/postgres/server.rs"]
#[allow(dead_code, reason = "other tests and benches use more of it")]
mod server;

use std::os::unix::fs::PermissionsExt;
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
use server::Server;
use testgrid::pki::{Authority, Pki, PkiOptions};
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
    a_catalogue_that_is_not_made_leaves_no_key(&grid, folder.path());
    a_database_that_is_away_is_waited_for(&mut server, &grid);
    what_was_answered_survives_the_databases_death(&mut server, &mut grid);
    two_catalogues_of_one_database_take_turns(&grid, &variants);
    it_is_backed_up_by_its_own_means(&server, &grid, &variants);
    nobody_else_is_taken_for_the_database(&mut server, &pki, &variants);
}

fn a_catalogue_that_is_not_made_leaves_no_key(grid: &Grid, folder: &Path) {
    let (certificate, key) = grid.pki().unwrap().host("catalog");
    let init = |more: &[&str]| {
        run(Command::new(program("mdm-catalog"))
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
    };
    let nobody = "postgres://catalog@127.0.0.1:1/images?sslmode=disable";
    let _ = init(&["--database", nobody]).exits(75);
    assert!(!folder.join("made").exists());
    let _ = init(&[]).exits(0);
    let _ = std::fs::remove_dir_all(folder.join("made"));
    let _ = init(&[]).exits(73).says("there is a key");
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
