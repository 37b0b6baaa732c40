//! What a catalogue does, whatever database is behind it (`docs/src/catalogue.md`): run over each of them.

use std::collections::BTreeMap;

use hydra_core::ids::ChangeId;
use hydra_core::keystore::wire::ProblemKind;
use hydra_core::permissions::{AclEntry, Caller, PermissionRecord, Permissions};
use hydra_core::secret::Key;
use hydra_service::settings::CreationRule;
use mdm_catalog::LogicalName;
use mdm_catalog::columns::ColumnKeys;
use mdm_catalog::config::Rules;
use mdm_catalog::database::{Database, DatabaseError, row};
use mdm_catalog::engine::Engine;
use mdm_catalog::wire::{
    Answer, AttributeDefinition, Attributes, Change, Created, Entry, Kind, ListQuestion, Lookup, NewEntry,
    OperationBegin, OperationEnd, OperationState, Part, PermissionsChange, PermissionsChanged, Question, Records,
    Removal, SchemaChange, SchemaQuestion, Search, Type, Value,
};

/// A value that must be found nowhere in clear.
pub(crate) const PLANTED: &str = "Zyxwvut";

pub(crate) fn caller(dn: &str) -> Caller {
    Caller {
        dn: format!("/CN={dn}"),
        fqans: if dn == "stranger" { vec![] } else { vec!["/myvo".into()] },
        administrator: dn == "admin",
    }
}

pub(crate) fn engine(database: Database) -> Engine {
    engine_of(database, 0)
}

fn engine_of(database: Database, per_owner: u64) -> Engine {
    let keys = || ColumnKeys::new(&Key::from_slice(&[9; 32]).unwrap()).unwrap();
    Engine::found(&database, "test", &keys()).unwrap();
    let rules = Rules {
        catalog: "test".into(),
        create: vec![CreationRule {
            prefix: "/myvo/".into(),
            principal: "/CN=alice".into(),
        }],
        administrators: vec!["/CN=admin".into()],
        acl: 10,
        per_owner,
        backups_kept_days: None,
    };
    Engine::open(database, keys(), rules).unwrap()
}

pub(crate) fn path(text: &str) -> LogicalName {
    LogicalName::new(text).unwrap()
}

pub(crate) fn file(text: &str) -> NewEntry {
    NewEntry::of(path(text), Kind::File)
}

pub(crate) fn text(text: &str) -> Value {
    Value::Text(text.into())
}

pub(crate) fn done<T>(answer: Answer<T>) -> T {
    match answer {
        Answer::Done(done) => done,
        Answer::Problem(problem) => panic!("{problem:?}"),
    }
}

pub(crate) fn problem<T: std::fmt::Debug>(answer: Answer<T>) -> ProblemKind {
    match answer {
        Answer::Done(done) => panic!("{done:?}"),
        Answer::Problem(problem) => problem.kind,
    }
}

pub(crate) fn create(engine: &Engine, who: &str, new: NewEntry) -> Answer<Created> {
    engine.create(&caller(who), &[new]).unwrap().remove(0)
}

pub(crate) fn show(engine: &Engine, who: &str, path: &str) -> Answer<Entry> {
    let question = Question { path: path.into() };
    engine.show(&caller(who), &[question]).unwrap().remove(0)
}

pub(crate) fn change(engine: &Engine, who: &str, change: Change) -> Answer<Entry> {
    engine.change(&caller(who), &[change]).unwrap().remove(0)
}

pub(crate) fn remove(engine: &Engine, who: &str, path: &str, recursive: bool) -> Answer<u64> {
    let removal = Removal {
        path: path.into(),
        recursive,
        unreplicated: false,
    };
    engine.remove(&caller(who), &[removal]).unwrap().remove(0)
}

pub(crate) fn listed(engine: &Engine, who: &str, at: &str, recursive: bool) -> Vec<String> {
    let question = ListQuestion {
        path: path(at),
        after: None,
        limit: None,
        recursive,
    };
    let listing = engine.list(&caller(who), &question).unwrap();
    listing
        .entries
        .into_iter()
        .map(|entry| entry.path.to_string())
        .collect()
}

/// All rows of a search, or its problem's detail.
pub(crate) fn found(engine: &Engine, who: &str, search: &Search) -> Result<Vec<Vec<Value>>, String> {
    let who = caller(who);
    let said = |problem: hydra_core::keystore::wire::Problem| format!("{problem:?}");
    let mut progress = engine.begin_search(&who, search).map_err(said)?;
    let mut rows = Vec::new();
    loop {
        let chunk = engine.search(&who, search, &progress).map_err(said)?;
        rows.extend(chunk.rows);
        match chunk.next {
            Some(next) => progress = next,
            None => return Ok(rows),
        }
    }
}

pub(crate) fn search(query: &str, columns: &[&str]) -> Search {
    Search {
        from: "/myvo".into(),
        query: query.into(),
        columns: columns.iter().map(|&name| name.to_owned()).collect(),
        ..Search::default()
    }
}

fn names(engine: &Engine, who: &str, query: &str) -> Vec<String> {
    let rows = found(engine, who, &search(query, &[])).unwrap();
    let name = |row: Vec<Value>| match row.into_iter().next() {
        Some(Value::Text(name)) => name,
        other => panic!("{other:?}"),
    };
    rows.into_iter().map(name).collect()
}

fn definition(name: &str, kind: Type, half: Part, dicom: Option<&str>) -> AttributeDefinition {
    AttributeDefinition {
        name: name.into(),
        kind,
        half,
        indexed: name != "remark",
        dicom: dicom.map(str::to_owned),
    }
}

/// `/myvo` of alice with a schema; bob may do everything with names and the anonymous half, nothing with the other.
pub(crate) fn furnished(engine: &Engine) {
    assert_eq!(
        done(create(engine, "alice", NewEntry::of(path("/myvo"), Kind::Directory))),
        Created::New
    );
    let change = SchemaChange {
        path: path("/myvo"),
        add: vec![
            definition("modality", Type::String, Part::Anonymous, Some("Modality")),
            definition("age", Type::Integer, Part::Anonymous, None),
            definition("dose", Type::Float, Part::Anonymous, None),
            definition("taken", Type::Date, Part::Anonymous, None),
            definition("remark", Type::String, Part::Anonymous, None),
            definition("tags", Type::List, Part::Anonymous, None),
            definition("patient_name", Type::String, Part::Identifying, Some("PatientName")),
            definition("patient_id", Type::String, Part::Identifying, Some("PatientID")),
        ],
        remove: vec![],
    };
    engine.change_schema(&caller("alice"), &change).unwrap();
    for part in [Part::Name, Part::Anonymous] {
        grant(engine, "/myvo", part, "bob", "pdrwl-gs");
    }
}

fn record_of(records: Records, part: Part) -> PermissionRecord {
    match part {
        Part::Name => records.name,
        Part::Anonymous => records.anonymous,
        Part::Identifying => records.identifying.unwrap(),
    }
}

/// What alice sees of a part's record.
fn record_at(engine: &Engine, at: &str, part: Part) -> PermissionRecord {
    let question = Question { path: at.into() };
    let shown = done(engine.permissions(&caller("alice"), &[question]).unwrap().remove(0));
    record_of(shown.records, part)
}

/// Puts a record, of that version, in place of a part's.
fn change_permissions(
    engine: &Engine,
    who: &str,
    (path, part): (&str, Part),
    record: PermissionRecord,
    recursive: bool,
) -> Answer<PermissionsChanged> {
    let change = PermissionsChange {
        path: path.into(),
        part,
        record: PermissionRecord {
            change_id: ChangeId::random().unwrap(),
            ..record
        },
        recursive,
    };
    engine.change_permissions(&caller(who), &[change]).unwrap().remove(0)
}

/// Alice gives somebody letters on a part, of everything below too.
pub(crate) fn grant(engine: &Engine, at: &str, part: Part, who: &str, letters: &str) {
    let mut record = record_at(engine, at, part);
    let principal = caller(who).dn;
    record.acl.retain(|line| line.principal != principal);
    record.acl.push(AclEntry {
        principal,
        permissions: letters.parse().unwrap(),
    });
    record.version += 1;
    assert_eq!(
        done(change_permissions(engine, "alice", (at, part), record, true)).left,
        0
    );
}

/// A file with attributes of both halves.
pub(crate) fn image(at: &str, modality: &str, age: i64, name: &str) -> NewEntry {
    NewEntry {
        parents: true,
        replicas: vec![
            format!("https://se.example.org{at}"),
            format!("dicom://PACS@h:104/1.2/{age}/{PLANTED}"),
        ],
        attributes: Attributes::from([
            ("modality".into(), text(modality)),
            ("Age".into(), Value::Integer(age)),
            ("patient_name".into(), text(name)),
            ("patient_id".into(), text(&format!("{PLANTED}-{age}"))),
        ]),
        ..file(at)
    }
}

pub(crate) fn all(make: &dyn Fn() -> Database) {
    names_and_what_is_refused(make());
    halves_are_apart(make());
    values_are_values(make());
    operations_are_their_owners(make());
    what_belongs_to_a_replica_a_key_or_an_operation_is_found_by_those_who_see_it(make());
    permissions_are_decided_and_changed(make());
    schemas_branch(make());
    what_is_taken_away_is_not_shown_any_more(make());
    what_identifies_is_taken_away_under_way(make());
    the_log_says_who_and_never_what(make());
    what_is_hidden_is_as_what_is_not_there(make());
    what_was_left_behind_an_administrator_takes_back(make());
    what_is_long_is_kept_or_refused(make());
    directories_are_renamed_with_all_below(make());
    odd_texts_are_refused_item_by_item(make());
    nothing_with_a_replica_is_removed_as_unreplicated(make());
    what_comes_at_once_is_made_as_if_it_came_in_turn(make());
    records_that_nobody_uses_are_gone(make());
    an_owner_has_as_many_entries_as_one_may(make());
}

fn what_comes_at_once_is_made_as_if_it_came_in_turn(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    let guid = "guid:00000000-0000-4000-8000-000000000001";
    let with_guid = |at: &str| NewEntry {
        guid: Some(guid.into()),
        ..file(at)
    };
    let with_tags = |at: &str, tags: &[&str]| {
        let mut new = image(at, "MR", 40, "A^B");
        new.replicas.push(new.replicas[0].clone());
        let tags = tags.iter().map(|tag| text(tag)).collect();
        new.attributes.insert("tags".into(), Value::List(tags));
        new
    };
    let wrong = |at: &str| NewEntry {
        parents: true,
        attributes: Attributes::from([("nonsense".into(), text("x"))]),
        ..file(at)
    };
    let (new, known) = (Ok(Created::New), Ok(Created::Known));
    let (conflict, invalid) = (Err(ProblemKind::Conflict), Err(ProblemKind::Invalid));
    let cases = [
        (with_tags("/myvo/s/1", &["t", "all"]), &new),
        (
            NewEntry {
                size: Some(3),
                ..image("/myvo/s/2", "CT", 41, "C^D")
            },
            &new,
        ),
        // the same again, and something else of its name
        (with_tags("/myvo/s/1", &["t", "all"]), &known),
        (
            NewEntry {
                size: Some(4),
                ..file("/myvo/s/2")
            },
            &conflict,
        ),
        // nothing of this one stays, everything of those before it does
        (wrong("/myvo/nowhere/deep/1"), &invalid),
        (file("/myvo/s/3"), &new),
        (
            NewEntry {
                parents: true,
                ..file("/myvo/s/3/below/1")
            },
            &conflict,
        ),
        (with_guid("/myvo/s/4"), &new),
        (with_guid("/myvo/s/5"), &conflict),
        // a directory that comes with what lies in it; one that was made for another before
        (NewEntry::of(path("/myvo/s/d"), Kind::Directory), &new),
        (with_tags("/myvo/s/d/1", &["all", "all"]), &new),
        (
            NewEntry {
                parents: true,
                ..file("/myvo/s/e/1")
            },
            &new,
        ),
        (NewEntry::of(path("/myvo/s/e"), Kind::Directory), &known),
        (wrong("/myvo/s/d/2"), &invalid),
        (file("/myvo/s/d/2"), &new),
    ];
    let items: Vec<NewEntry> = cases.iter().map(|(item, _)| item.clone()).collect();
    let answers = engine.create(&caller("alice"), &items).unwrap();
    for (answer, (item, expected)) in answers.into_iter().zip(&cases) {
        let said = match answer {
            Answer::Done(done) => Ok(done),
            Answer::Problem(problem) => Err(problem.kind),
        };
        assert_eq!(&said, *expected, "{}", item.path);
    }
    let expected = ["", "/1", "/2", "/3", "/4", "/d", "/d/1", "/d/2", "/e", "/e/1"].map(|end| format!("/myvo/s{end}"));
    assert_eq!(listed(&engine, "alice", "/myvo", true), expected);
    assert_eq!(
        names(&engine, "alice", "tags = 'all' AND patient_name = 'A^B'"),
        ["/myvo/s/1", "/myvo/s/d/1"]
    );
    assert_eq!(names(&engine, "alice", "age = 41 AND tags IS NULL"), ["/myvo/s/2"]);
    let one = done(show(&engine, "alice", "/myvo/s/1"));
    assert_eq!((one.replicas.len(), one.attributes.len()), (2, 5));
    assert_eq!(done(show(&engine, "alice", guid)).path, path("/myvo/s/4"));
    // More than are written by one statement, each with its own.
    let many = |number: i64| {
        image(
            &format!("/myvo/many/{number:03}"),
            "US",
            number,
            &format!("N{number}^X"),
        )
    };
    let items: Vec<NewEntry> = (0..300).map(many).collect();
    for _ in 0..2 {
        for answer in engine.create(&caller("alice"), &items).unwrap() {
            done(answer);
        }
    }
    for number in [0, 127, 128, 255, 256, 299] {
        let query = format!("patient_id = '{PLANTED}-{number}' AND age = {number} AND patient_name = 'n{number}^x'");
        assert_eq!(names(&engine, "alice", &query), [format!("/myvo/many/{number:03}")]);
        let shown = done(show(&engine, "alice", &format!("/myvo/many/{number:03}")));
        assert_eq!(shown.replicas, items[usize::try_from(number).unwrap()].replicas);
    }
}

fn records_that_nobody_uses_are_gone(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    let records = || -> i64 {
        let count = "SELECT count(*) FROM records";
        let counted: Result<_, DatabaseError> = engine.database().read(|sql| row(sql, count, &[]));
        counted.unwrap().unwrap().integer(0).unwrap()
    };
    let seen = |who: &str| names(&engine, who, "ORDER BY name");
    grant(&engine, "/myvo", Part::Name, "stranger", "l");
    done(create(&engine, "alice", image("/myvo/s/1", "MR", 1, "A^B")));
    done(create(&engine, "alice", image("/myvo/s/2", "MR", 2, "A^B")));
    assert_eq!(seen("bob"), ["/myvo/s/1", "/myvo/s/2"]);
    let before = records();
    // Each change makes a record and leaves another to nobody, or to the entries that still have it.
    for round in 0..5 {
        grant(&engine, "/myvo/s/1", Part::Name, "stranger", ["l", ""][round % 2]);
        assert_eq!(records(), before + 1);
        assert_eq!(seen("bob"), ["/myvo/s/1", "/myvo/s/2"]);
    }
    for _ in 0..3 {
        grant(&engine, "/myvo", Part::Anonymous, "stranger", "g");
        assert_eq!(seen("stranger"), ["/myvo/s/1", "/myvo/s/2"]);
        grant(&engine, "/myvo", Part::Anonymous, "stranger", "");
        assert!(seen("stranger").is_empty());
        assert_eq!(seen("bob"), ["/myvo/s/1", "/myvo/s/2"]);
        assert!(records() <= before + 3, "{}", records());
    }
    // What is taken back leaves them where they were.
    let kept = records();
    let wrong = record_at(&engine, "/myvo/s/1", Part::Name);
    assert_eq!(
        problem(change_permissions(
            &engine,
            "alice",
            ("/myvo/s/1", Part::Name),
            wrong,
            true
        )),
        ProblemKind::Conflict
    );
    assert_eq!(records(), kept);
    done(remove(&engine, "alice", "/myvo/s/1", false));
    assert_eq!(records(), kept - 1);
    done(create(&engine, "bob", file("/myvo/s/3")));
    let id = "00112233445566778899aabbccddeeff";
    let begin = OperationBegin {
        id: id.into(),
        what: "x".into(),
    };
    engine.begin(&caller("bob"), &begin).unwrap();
    done(remove(&engine, "bob", "/myvo/s/3", false));
    assert_eq!(records(), kept - 1);
    let new = NewEntry {
        operation: Some(id.into()),
        ..file("/myvo/s/3")
    };
    done(create(&engine, "bob", new));
    let state = OperationState::Undone;
    engine
        .end(&caller("bob"), &OperationEnd { id: id.into(), state })
        .unwrap();
    assert_eq!(records(), kept - 1);
    assert_eq!(seen("bob"), ["/myvo/s/2"]);
    done(remove(&engine, "alice", "/myvo", true));
    assert_eq!(records(), 0);
}

fn an_owner_has_as_many_entries_as_one_may(database: Database) {
    let engine = engine_of(database, 6);
    furnished(&engine);
    let deep = |at: &str| NewEntry {
        parents: true,
        ..file(at)
    };
    // With `/myvo` that makes four; the next would be three more, of which nothing stays.
    let items = [
        deep("/myvo/a/1"),
        deep("/myvo/a/2"),
        deep("/myvo/b/c/1"),
        deep("/myvo/b/1"),
        deep("/myvo/2"),
    ];
    let answers = engine.create(&caller("alice"), &items).unwrap();
    let said: Vec<Option<ProblemKind>> = answers
        .into_iter()
        .map(|answer| match answer {
            Answer::Done(_) => None,
            Answer::Problem(problem) => Some(problem.kind),
        })
        .collect();
    let refused = Some(ProblemKind::Limit);
    assert_eq!(said, [None, None, refused, None, refused]);
    assert_eq!(listed(&engine, "alice", "/myvo", true).len(), 5);
    // What is there already is no more; others have their own; what is removed makes room.
    assert_eq!(done(create(&engine, "alice", deep("/myvo/a/1"))), Created::Known);
    done(create(&engine, "bob", file("/myvo/3")));
    done(remove(&engine, "alice", "/myvo/a/2", false));
    assert_eq!(done(create(&engine, "alice", file("/myvo/2"))), Created::New);
    assert_eq!(problem(create(&engine, "alice", file("/myvo/4"))), ProblemKind::Limit);
}

fn what_is_hidden_is_as_what_is_not_there(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    done(create(&engine, "alice", file("/myvo/hidden")));
    let permissions = |at: &str, letters: &str| {
        let mut record = record_at(&engine, at, Part::Name);
        record.group_permissions = Permissions::NONE;
        record.other = Permissions::NONE;
        record.acl = vec![AclEntry {
            principal: caller("bob").dn,
            permissions: letters.parse().unwrap(),
        }];
        record.version += 1;
        done(change_permissions(&engine, "alice", (at, Part::Name), record, false));
    };
    permissions("/myvo/hidden", "--------");
    // With and without a right to make names beside it: told the same of a name that is taken and of one that is free.
    for (letters, expected) in [
        ("---l----", ProblemKind::NotAllowed),
        ("--------", ProblemKind::NotFound),
    ] {
        permissions("/myvo", letters);
        let said = ["/myvo/hidden", "/myvo/free"].map(|at| match create(&engine, "bob", file(at)) {
            Answer::Problem(problem) => problem,
            Answer::Done(done) => panic!("{done:?}"),
        });
        assert_eq!(said[0].kind, expected);
        let words = |problem: &hydra_core::keystore::wire::Problem| {
            (problem.kind, problem.title.clone(), problem.detail.clone())
        };
        assert_eq!(words(&said[0]), words(&said[1]));
        // Likewise with the directories above, one level deep and two.
        for below in ["x", "x/y"] {
            let said = ["/myvo/hidden", "/myvo/free"].map(|at| {
                let new = NewEntry {
                    parents: true,
                    ..file(&format!("{at}/{below}"))
                };
                match create(&engine, "bob", new) {
                    Answer::Problem(problem) => problem,
                    Answer::Done(done) => panic!("{done:?}"),
                }
            });
            assert_eq!(words(&said[0]), words(&said[1]), "{letters} {below}");
        }
    }
}

fn directories_are_renamed_with_all_below(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    for at in ["/myvo/ü/1", "/myvo/ü/ä/2", "/myvo/üb"] {
        let new = NewEntry {
            parents: true,
            adler32: Some("00620062".into()),
            ..file(at)
        };
        assert_eq!(done(create(&engine, "alice", new.clone())), Created::New);
        assert_eq!(done(create(&engine, "alice", new.clone())), Created::Known);
        let other = NewEntry {
            adler32: Some("00630063".into()),
            ..new
        };
        assert_eq!(problem(create(&engine, "alice", other)), ProblemKind::Conflict);
    }
    let rename = |to: &str| {
        let renamed = Change {
            path: "/myvo/ü".into(),
            rename: Some(path(to)),
            ..Change::default()
        };
        change(&engine, "alice", renamed)
    };
    // Its own name is short enough, those below it are not.
    let long = format!("/myvo/{}", vec!["x".repeat(200); 5].join("/"));
    let long = format!("{long}/{}", "y".repeat(LogicalName::MAX_BYTES - long.len() - 2));
    let above = NewEntry {
        parents: true,
        ..NewEntry::of(path(&long).parent().unwrap(), Kind::Directory)
    };
    done(create(&engine, "alice", above));
    assert_eq!(problem(rename(&long)), ProblemKind::Invalid);
    assert_eq!(listed(&engine, "alice", "/myvo/ü", true).len(), 3);
    done(rename("/myvo/longer"));
    let below = ["/myvo/longer/1", "/myvo/longer/ä", "/myvo/longer/ä/2"];
    assert_eq!(listed(&engine, "alice", "/myvo/longer", true), below);
    assert_eq!(done(show(&engine, "alice", "/myvo/üb")).path, path("/myvo/üb"));
    // What lies before a directory is no page of it.
    let question = ListQuestion {
        path: path("/myvo/longer"),
        after: Some(path("/myvo")),
        limit: None,
        recursive: true,
    };
    assert_eq!(engine.list(&caller("alice"), &question).unwrap().entries.len(), 3);
}

fn odd_texts_are_refused_item_by_item(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    done(create(&engine, "alice", file("/myvo/good")));
    let removal = |path: &str| Removal {
        path: path.into(),
        recursive: false,
        unreplicated: false,
    };
    let both = [removal("/myvo/good"), removal("\0")];
    let mut answers = engine.remove(&caller("alice"), &both).unwrap();
    assert_eq!(problem(answers.remove(1)), ProblemKind::Invalid);
    assert_eq!(done(answers.remove(0)), 1);
    let odd = NewEntry {
        operation: Some("\0".into()),
        ..file("/myvo/odd")
    };
    let mut answers = engine.create(&caller("alice"), &[file("/myvo/good"), odd]).unwrap();
    assert_eq!(problem(answers.remove(1)), ProblemKind::Invalid);
    assert_eq!(done(answers.remove(0)), Created::New);
    let by_key = Lookup {
        key_id: Some("\0".into()),
        ..Lookup::default()
    };
    assert_eq!(
        engine.lookup(&caller("alice"), &by_key).unwrap_err().kind,
        ProblemKind::Invalid
    );
    // As long as some tags, of which it is none.
    for column in ["(abécde", "(abcdéfghij", "(0010,00é)"] {
        let said = found(&engine, "alice", &search("", &[column])).unwrap_err();
        assert!(said.contains("no attribute"), "{said}");
    }
}

fn nothing_with_a_replica_is_removed_as_unreplicated(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    let nearline = |at: &str| NewEntry {
        replicas: vec![format!("dicom://PACS@h:104/1.2/3/{PLANTED}")],
        ..image(at, "MR", 3, "A^B")
    };
    for at in ["/myvo/s/1", "/myvo/t/1"] {
        done(create(&engine, "alice", nearline(at)));
    }
    grant(&engine, "/myvo/t", Part::Name, "bob", "pdrwl-gs");
    let removal = |path: &str| Removal {
        path: path.into(),
        recursive: true,
        unreplicated: true,
    };
    let remove = |who: &str, path: &str| engine.remove(&caller(who), &[removal(path)]).unwrap().remove(0);
    assert_eq!(problem(remove("alice", "/myvo/s")), ProblemKind::Conflict);
    // To whoever may not read that half there is none, as with a single file.
    assert_eq!(done(remove("bob", "/myvo/t")), 2);
}

fn what_was_left_behind_an_administrator_takes_back(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    let id = "00112233445566778899aabbccddeeff";
    let begin = OperationBegin {
        id: id.into(),
        what: "a study".into(),
    };
    engine.begin(&caller("alice"), &begin).unwrap();
    for number in 0..3 {
        let new = NewEntry {
            operation: Some(id.into()),
            ..file(&format!("/myvo/{number}"))
        };
        done(create(&engine, "alice", new));
    }
    let seen = engine.operations(&caller("admin")).unwrap();
    assert_eq!((seen[0].id.as_str(), seen[0].entries), (id, 3));
    assert_eq!(listed(&engine, "admin", "/myvo", true).len(), 3);
    let end = |who: &str, state| engine.end(&caller(who), &OperationEnd { id: id.into(), state });
    assert!(end("admin", OperationState::Committed).is_err());
    assert!(end("bob", OperationState::Undone).is_err());
    let into = NewEntry {
        operation: Some(id.into()),
        ..file("/myvo/3")
    };
    assert!(matches!(create(&engine, "admin", into), Answer::Problem(_)));
    assert_eq!(
        end("admin", OperationState::Undone).unwrap().state,
        OperationState::Undone
    );
    assert_eq!(done(create(&engine, "alice", file("/myvo/0"))), Created::New);
}

fn what_is_long_is_kept_or_refused(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    // Nothing in it repeats, so that no database makes it short.
    let mut state = 47_u64;
    let mut random = |length: usize| -> String {
        let letter = |_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + u8::try_from((state >> 40) % 26).unwrap())
        };
        (0..length).map(letter).collect()
    };
    let replica = format!("https://{}", random(2048 - 8));
    let new = NewEntry {
        replicas: vec![replica.clone()],
        ..file("/myvo/long")
    };
    done(create(&engine, "alice", new));
    assert_eq!(done(show(&engine, "alice", "/myvo/long")).replicas, [replica.as_str()]);
    let longer = NewEntry {
        replicas: vec![format!("{replica}x")],
        ..file("/myvo/longer")
    };
    assert_eq!(problem(create(&engine, "alice", longer)), ProblemKind::Invalid);
    let mut record = record_at(&engine, "/myvo/long", Part::Name);
    record.acl = (0..9)
        .map(|_| AclEntry {
            principal: format!("/CN={}", random(1000)),
            permissions: "---l----".parse().unwrap(),
        })
        .collect();
    record.version += 1;
    let at = ("/myvo/long", Part::Name);
    done(change_permissions(&engine, "alice", at, record.clone(), false));
    let kept = done(show(&engine, "alice", "/myvo/long")).records.name;
    assert_eq!(kept.acl, record.acl);
}

fn names_and_what_is_refused(database: Database) {
    let engine = engine(database);
    // No rule: the top looks as if nothing were there.
    for who in ["bob", "stranger", "admin"] {
        let top = NewEntry::of(path("/myvo"), Kind::Directory);
        assert_eq!(problem(create(&engine, who, top)), ProblemKind::NotFound, "{who}");
    }
    furnished(&engine);
    let deep = NewEntry {
        parents: true,
        key_id: Some("/myvo/k".into()),
        size: Some(5),
        ..file("/myvo/a/b/c")
    };
    assert_eq!(done(create(&engine, "alice", deep.clone())), Created::New);
    assert_eq!(done(create(&engine, "alice", deep.clone())), Created::Known);
    let other = NewEntry { size: Some(6), ..deep };
    assert_eq!(problem(create(&engine, "alice", other)), ProblemKind::Conflict);
    assert_eq!(
        problem(create(&engine, "alice", file("/myvo/a/b/c/d"))),
        ProblemKind::Conflict
    );
    assert_eq!(
        problem(create(&engine, "alice", file("/myvo/x/y"))),
        ProblemKind::NotFound
    );
    for name in [
        "/myvo/a/'; DROP TABLE entries; --",
        "/myvo/a/%_\\\"",
        "/myvo/a/ü\u{1F600}",
    ] {
        assert_eq!(done(create(&engine, "alice", file(name))), Created::New);
    }
    assert_eq!(listed(&engine, "alice", "/", false), ["/myvo"]);
    assert_eq!(listed(&engine, "alice", "/myvo/a", false).len(), 4);
    assert_eq!(listed(&engine, "bob", "/myvo", true).len(), 6);
    assert!(listed(&engine, "stranger", "/", true).is_empty());
    // The very same answer for what is there and what is not.
    let said = |path: &str| serde_json::to_string(&show(&engine, "stranger", path)).unwrap();
    assert_eq!(said("/myvo/a/b/c"), said("/myvo/a/b/nothing"));
    let entry = done(show(&engine, "alice", "/myvo/a/b/c"));
    assert_eq!((entry.size, entry.version), (Some(5), 1));
    assert_eq!(done(show(&engine, "alice", &entry.guid)).path, entry.path);
    let renamed = Change {
        path: "/myvo/a".into(),
        rename: Some(path("/myvo/z")),
        ..Change::default()
    };
    assert_eq!(done(change(&engine, "alice", renamed)).path, path("/myvo/z"));
    assert_eq!(done(show(&engine, "alice", &entry.guid)).path, path("/myvo/z/b/c"));
    let into_itself = Change {
        path: "/myvo/z".into(),
        rename: Some(path("/myvo/z/b/z")),
        ..Change::default()
    };
    assert_eq!(problem(change(&engine, "alice", into_itself)), ProblemKind::Invalid);
    let late = Change {
        path: "/myvo/z/b/c".into(),
        if_version: Some(7),
        size: Some(9),
        ..Change::default()
    };
    assert_eq!(problem(change(&engine, "alice", late)), ProblemKind::Conflict);
    assert_eq!(
        problem(remove(&engine, "alice", "/myvo/z", false)),
        ProblemKind::Conflict
    );
    assert_eq!(
        problem(remove(&engine, "stranger", "/myvo/z", true)),
        ProblemKind::NotFound
    );
    assert_eq!(done(remove(&engine, "alice", "/myvo/z", true)), 6);
    assert_eq!(listed(&engine, "alice", "/", true), ["/myvo"]);
    assert_eq!(done(remove(&engine, "alice", "/myvo", false)), 1);
}

fn halves_are_apart(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    let name = format!("Mül-{PLANTED}^Anna");
    done(create(&engine, "alice", image("/myvo/s/1", "MR", 42, &name)));
    done(create(&engine, "alice", image("/myvo/s/2", "CT", 43, "Other^Bert")));
    let seen = done(show(&engine, "alice", "/myvo/s/1"));
    assert_eq!(seen.attributes["patient_name"], text(&name));
    assert_eq!((seen.replicas.len(), seen.identifying.len()), (2, 2));
    let seen = done(show(&engine, "bob", "/myvo/s/1"));
    assert_eq!(seen.attributes.keys().collect::<Vec<_>>(), ["age", "modality"]);
    assert_eq!(
        (seen.replicas.len(), seen.identifying.len(), seen.records.identifying),
        (1, 0, None)
    );
    // Found by the whole name in any case, by the beginning of its parts, by the exact number.
    for query in [
        format!("patient_name = 'mül-{PLANTED}^anna'"),
        format!("PatientName LIKE '{}%'", &PLANTED[..4]),
        "patient_name LIKE 'ann%'".into(),
        format!("patient_id IN ('{PLANTED}-42') AND modality = 'MR'"),
        "patient_name IS NOT NULL AND age < 43".into(),
        format!("NOT patient_id = '{PLANTED}-43'"),
    ] {
        assert_eq!(names(&engine, "alice", &query), ["/myvo/s/1"], "{query}");
    }
    assert!(names(&engine, "alice", "patient_name LIKE 'bertha%'").is_empty());
    let columns = search("age = 42", &["name", "patient_name", "tags", "guid"]);
    let row = found(&engine, "alice", &columns).unwrap().remove(0);
    assert_eq!(row, [text("/myvo/s/1"), text(&name), Value::Null, text(&seen.guid)]);
    // To bob they are as unknown as any word: in queries, columns, changes and the schema.
    let as_unknown = |known: &str, unknown: &str| assert_eq!(known.replace("patient_name", "patient_nama"), unknown);
    let refused = |query: &str, columns: &[&str]| found(&engine, "bob", &search(query, columns)).unwrap_err();
    as_unknown(&refused("patient_name = 'x'", &[]), &refused("patient_nama = 'x'", &[]));
    as_unknown(&refused("", &["patient_name"]), &refused("", &["patient_nama"]));
    let set = |name: &str| {
        let attributes = Attributes::from([(name.to_owned(), text("x"))]);
        let path = "/myvo/s/1".into();
        let change = Change {
            path,
            attributes,
            ..Change::default()
        };
        serde_json::to_string(&self::change(&engine, "bob", change)).unwrap()
    };
    as_unknown(&set("patient_name"), &set("patient_nama"));
    let schema = engine
        .schema(&caller("bob"), &SchemaQuestion { path: path("/myvo/s") })
        .unwrap();
    assert!(schema.attributes.iter().all(|known| known.half == Part::Anonymous));
    // Where the collection may be read but not one of its files, that one is unknown, also under NOT and IS NULL.
    grant(&engine, "/myvo", Part::Identifying, "bob", "g");
    grant(&engine, "/myvo/s/2", Part::Identifying, "bob", "");
    for query in [
        "patient_name IS NULL",
        "patient_name IS NOT NULL",
        "patient_name <> 'x'",
    ] {
        assert!(!names(&engine, "bob", query).contains(&"/myvo/s/2".into()), "{query}");
    }
    assert_eq!(names(&engine, "bob", "patient_name <> 'x' OR age = 43").len(), 2);
    let shown = found(&engine, "bob", &search("", &["patient_name"])).unwrap();
    assert_eq!(shown, [[text(&name)], [Value::Null]]);
    // An administrator manages, and reads nothing.
    let seen = done(show(&engine, "admin", "/myvo/s/1"));
    assert!(seen.attributes.is_empty() && seen.replicas.is_empty());
    assert!(names(&engine, "admin", "").is_empty());
}

fn values_are_values(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    let nasty = [
        "'; DROP TABLE entries; --",
        "\" OR \"\"=\"",
        "?1 $1 :a @b",
        "%_\\",
        "a\nb\tc",
        "ünï\u{1F600}",
        "x",
    ];
    for (number, value) in nasty.into_iter().enumerate() {
        let new = NewEntry {
            attributes: Attributes::from([
                ("modality".into(), text(value)),
                ("remark".into(), text(&format!("{value}{}", "y".repeat(65_000)))),
                ("tags".into(), Value::List(vec![text(value), text("all")])),
                ("taken".into(), text("2024-02-29")),
                ("dose".into(), Value::Integer(2)),
            ]),
            ..file(&format!("/myvo/{number}"))
        };
        done(create(&engine, "alice", new));
        let quoted = value.replace('\'', "''");
        let expected = [format!("/myvo/{number}")];
        assert_eq!(
            names(&engine, "bob", &format!("modality = '{quoted}'")),
            expected,
            "{value}"
        );
        assert_eq!(
            names(&engine, "bob", &format!("tags = '{quoted}'")),
            expected,
            "{value}"
        );
        let entry = done(show(&engine, "bob", &expected[0]));
        assert_eq!(entry.attributes["modality"], text(value));
        assert_eq!(entry.attributes["dose"], Value::Float(2.0));
        let Value::Text(remark) = &entry.attributes["remark"] else {
            panic!()
        };
        assert!(remark.starts_with(value) && remark.len() > 65_000);
    }
    assert_eq!(
        names(&engine, "bob", "tags = 'all' AND taken = '2024-02-29'").len(),
        nasty.len()
    );
    let too_long = NewEntry {
        attributes: Attributes::from([("remark".into(), text(&"y".repeat(65_537)))]),
        ..file("/myvo/long")
    };
    assert_eq!(problem(create(&engine, "alice", too_long)), ProblemKind::Invalid);
    // Set, removed, and counted; pages hold every row once.
    let unset = Change {
        path: "/myvo/0".into(),
        attributes: Attributes::from([("tags".into(), Value::Null), ("age".into(), Value::Integer(7))]),
        ..Change::default()
    };
    done(change(&engine, "bob", unset));
    assert_eq!(names(&engine, "bob", "tags IS NULL AND age = 7"), ["/myvo/0"]);
    let mut paged = Search {
        page: Some(2),
        ..search("dose = 2 ORDER BY modality DESC", &[])
    };
    let mut all = Vec::new();
    loop {
        let progress = engine.begin_search(&caller("bob"), &paged).unwrap();
        let chunk = engine.search(&caller("bob"), &paged, &progress).unwrap();
        assert!(chunk.rows.len() <= 2);
        all.extend(chunk.rows);
        let Some(cursor) = chunk.cursor else { break };
        // Nobody else goes on with it.
        let stolen = Search {
            cursor: Some(cursor.clone()),
            ..paged.clone()
        };
        assert!(engine.begin_search(&caller("alice"), &stolen).is_err());
        paged.cursor = Some(cursor);
    }
    let whole = found(&engine, "bob", &search("dose = 2 ORDER BY modality DESC", &[])).unwrap();
    assert_eq!(all, whole);
    let count = Search {
        count: true,
        ..search("", &[])
    };
    let progress = engine.begin_search(&caller("bob"), &count).unwrap();
    let counted = engine.search(&caller("bob"), &count, &progress).unwrap();
    assert_eq!((counted.counted, counted.rows.len()), (nasty.len() as u64, 0));
}

fn operations_are_their_owners(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    let begin = |number: u8| {
        let begin = OperationBegin {
            id: format!("{number:032x}"),
            what: "a study".into(),
        };
        engine.begin(&caller("alice"), &begin).unwrap();
        begin.id
    };
    let end = |who: &str, id: &str, state| {
        let end = OperationEnd { id: id.into(), state };
        engine.end(&caller(who), &end)
    };
    for (number, state) in [(1, OperationState::Undone), (2, OperationState::Committed)] {
        let id = begin(number);
        let new = NewEntry {
            operation: Some(id.clone()),
            ..image(&format!("/myvo/op{number}/d/1"), "MR", 1, "A^B")
        };
        done(create(&engine, "alice", new.clone()));
        assert_eq!(done(create(&engine, "alice", new)), Created::Known);
        assert_eq!(listed(&engine, "alice", "/myvo", true).len(), 3);
        assert!(listed(&engine, "bob", "/myvo", true).is_empty());
        assert_eq!(
            problem(show(&engine, "bob", &format!("/myvo/op{number}"))),
            ProblemKind::NotFound
        );
        assert!(names(&engine, "bob", "").is_empty() && names(&engine, "alice", "").len() == 1);
        let open = engine.operations(&caller("alice")).unwrap();
        assert_eq!((open[0].id.as_str(), open[0].entries), (id.as_str(), 3));
        assert!(engine.operations(&caller("bob")).unwrap().is_empty());
        assert!(end("bob", &id, state).is_err());
        for _ in 0..2 {
            assert_eq!(end("alice", &id, state).unwrap().state, state);
        }
        let seen = listed(&engine, "bob", "/myvo", true).len();
        assert_eq!(seen, if state == OperationState::Committed { 3 } else { 0 });
    }
    assert_eq!(engine.operations(&caller("alice")).unwrap()[0].entries, 3);
}

fn what_belongs_to_a_replica_a_key_or_an_operation_is_found_by_those_who_see_it(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    let long = format!("https://se.example.org/{}", "ü".repeat(900));
    let id = "0123456789abcdef0123456789abcdef";
    let begin = OperationBegin {
        id: id.into(),
        what: "a study".into(),
    };
    engine.begin(&caller("alice"), &begin).unwrap();
    for (at, key, operation) in [
        ("1", "/k/1", None),
        ("2", "/k/1", None),
        ("3", "/k/2", Some(id.to_owned())),
    ] {
        let new = NewEntry {
            key_id: Some(key.into()),
            operation,
            ..image(&format!("/myvo/s{at}/{at}"), "MR", 40, "A")
        };
        done(create(&engine, "alice", new));
    }
    for at in ["1", "2"] {
        let longer = Change {
            path: format!("/myvo/s{at}/{at}"),
            add_replicas: vec![format!("{long}{at}"), format!("{long}both")],
            ..Change::default()
        };
        done(change(&engine, "alice", longer));
    }
    let paths = |who: &str, lookup: &Lookup| -> Vec<String> {
        let found = engine.lookup(&caller(who), lookup).unwrap();
        assert!(!found.more);
        found.entries.into_iter().map(|entry| entry.path.to_string()).collect()
    };
    let replica = |url: &str| Lookup {
        replica: Some(url.into()),
        ..Lookup::default()
    };
    let key = |key: &str| Lookup {
        key_id: Some(key.into()),
        ..Lookup::default()
    };
    let first = "https://se.example.org/myvo/s1/1";
    for who in ["alice", "bob"] {
        assert_eq!(paths(who, &replica(first)), ["/myvo/s1/1"]);
        assert_eq!(paths(who, &replica(&format!("{long}2"))), ["/myvo/s2/2"]);
        assert_eq!(
            paths(who, &replica(&format!("{long}both"))),
            ["/myvo/s1/1", "/myvo/s2/2"]
        );
        assert!(paths(who, &replica(&long)).is_empty() && paths(who, &replica("")).is_empty());
        assert_eq!(paths(who, &key("/k/1")), ["/myvo/s1/1", "/myvo/s2/2"]);
    }
    let later = Lookup {
        after: Some(path("/myvo/s1/1")),
        ..key("/k/1")
    };
    assert_eq!(paths("alice", &later), ["/myvo/s2/2"]);
    // what is in the identifying half is found by nobody
    assert!(paths("alice", &replica(&format!("dicom://PACS@h:104/1.2/40/{PLANTED}"))).is_empty());
    // an operation that is not at its end is its owner's
    let own = Lookup {
        operation: Some(id.into()),
        ..Lookup::default()
    };
    assert_eq!(paths("alice", &own), ["/myvo/s3", "/myvo/s3/3"]);
    assert_eq!(paths("alice", &key("/k/2")), ["/myvo/s3/3"]);
    assert!(paths("bob", &key("/k/2")).is_empty());
    assert!(engine.lookup(&caller("bob"), &own).is_err());
    // without `r` no replica, without `l` nothing
    grant(&engine, "/myvo/s1/1", Part::Name, "bob", "l");
    assert!(paths("bob", &replica(first)).is_empty());
    assert_eq!(paths("bob", &key("/k/1")).len(), 2);
    grant(&engine, "/myvo/s1/1", Part::Name, "bob", "r");
    assert!(paths("bob", &replica(first)).is_empty());
    assert_eq!(paths("bob", &key("/k/1")), ["/myvo/s2/2"]);
    assert!(paths("stranger", &key("/k/1")).is_empty());
    let two = Lookup {
        replica: Some(first.into()),
        ..key("/k/1")
    };
    for wrong in [two, Lookup::default()] {
        assert_eq!(
            engine.lookup(&caller("alice"), &wrong).unwrap_err().kind,
            ProblemKind::Invalid
        );
    }
}

fn permissions_are_decided_and_changed(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    done(create(&engine, "alice", image("/myvo/s/1", "MR", 42, "A^B")));
    done(create(&engine, "bob", file("/myvo/s/2")));
    let shown = |who: &str, at: &str| {
        let question = Question { path: at.into() };
        done(engine.permissions(&caller(who), &[question]).unwrap().remove(0))
    };
    // Who makes a name in somebody's directory owns it, with the directory's record.
    let owned = shown("bob", "/myvo/s/2");
    assert_eq!(owned.records.name.owner, "/CN=bob");
    assert_eq!(problem(show(&engine, "alice", "/myvo/s/2")), ProblemKind::NotFound);
    assert_eq!(owned.granted.len(), 3);
    let seen = shown("bob", "/myvo/s/1");
    assert!(seen.records.identifying.is_none() && !seen.granted.contains_key(&Part::Identifying));
    let change = |who: &str, part, record, version: u64| {
        let record = PermissionRecord { version, ..record };
        change_permissions(&engine, who, ("/myvo/s/1", part), record, false)
    };
    let name = shown("alice", "/myvo/s/1").records.name;
    assert_eq!(
        problem(change("alice", Part::Name, name.clone(), name.version)),
        ProblemKind::Conflict
    );
    assert_eq!(
        problem(change("stranger", Part::Name, name.clone(), 2)),
        ProblemKind::NotFound
    );
    let identifying = shown("alice", "/myvo/s/1").records.identifying.unwrap();
    assert_eq!(
        problem(change("bob", Part::Identifying, identifying.clone(), 2)),
        ProblemKind::NotFound
    );
    // An administrator changes permissions, and gives nobody what reads.
    let mut theirs = identifying.clone();
    theirs.acl.push(AclEntry {
        principal: "/CN=admin".into(),
        permissions: "g".parse().unwrap(),
    });
    let version = identifying.version + 1;
    assert_eq!(
        problem(change("admin", Part::Identifying, theirs.clone(), version)),
        ProblemKind::Invalid
    );
    assert_eq!(done(change("alice", Part::Identifying, theirs, version)).changed, 1);
    // What `l` alone lets see.
    let mut weak = name.clone();
    weak.acl = vec![];
    weak.other = "l".parse().unwrap();
    done(change("alice", Part::Name, weak, name.version + 1));
    let seen = done(show(&engine, "stranger", "/myvo/s/1"));
    assert!(seen.attributes.is_empty() && seen.replicas.is_empty());
    let touch = Change {
        path: "/myvo/s/1".into(),
        size: Some(1),
        ..Change::default()
    };
    assert_eq!(
        problem(self::change(&engine, "stranger", touch)),
        ProblemKind::NotAllowed
    );
    assert_eq!(
        problem(remove(&engine, "stranger", "/myvo/s/1", false)),
        ProblemKind::NotAllowed
    );
    // A change of nothing needs no right, and changes nothing.
    let before = done(show(&engine, "alice", "/myvo/s/1")).version;
    let nothing = Change {
        path: "/myvo/s/1".into(),
        ..Change::default()
    };
    done(self::change(&engine, "stranger", nothing));
    assert_eq!(done(show(&engine, "alice", "/myvo/s/1")).version, before);
    // Names as deep as they may be, and what has replicas in them.
    let deep = NewEntry {
        parents: true,
        replicas: vec!["https://se.example.org/x".into()],
        ..file(&format!("/myvo{}/f", "/a".repeat(508)))
    };
    assert_eq!(done(create(&engine, "alice", deep)), Created::New);
    let all = Removal {
        path: "/myvo/a".into(),
        recursive: true,
        unreplicated: true,
    };
    let mut answers = engine.remove(&caller("alice"), &[all]).unwrap();
    assert_eq!(problem(answers.remove(0)), ProblemKind::Conflict);
    assert_eq!(done(remove(&engine, "alice", "/myvo/a", true)), 509);
    // Thumbnails go with the anonymous half.
    engine.put_thumbnail(&caller("alice"), "/myvo/s/1", b"sealed").unwrap();
    assert_eq!(engine.thumbnail(&caller("bob"), "/myvo/s/1").unwrap(), b"sealed");
    let kind = engine.thumbnail(&caller("stranger"), "/myvo/s/1").unwrap_err().kind;
    assert_eq!(kind, ProblemKind::NotFound);
}

fn schemas_branch(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    let mut with_tags = image("/myvo/s/1", "MR", 42, "Miller^Ann");
    with_tags.attributes.insert("tags".into(), Value::List(vec![text("t")]));
    done(create(&engine, "alice", with_tags));
    done(create(&engine, "alice", image("/myvo/r/1", "CT", 43, "Smith^Bob")));
    let change = |who: &str, add: Vec<AttributeDefinition>, remove: &[&str]| {
        let change = SchemaChange {
            path: path("/myvo/s"),
            add,
            remove: remove.iter().map(|&name| name.to_owned()).collect(),
        };
        engine.change_schema(&caller(who), &change)
    };
    let field = || definition("field_strength", Type::Float, Part::Anonymous, None);
    // Whoever does not know one half may not change what both share.
    assert_eq!(
        change("bob", vec![field()], &[]).unwrap_err().kind,
        ProblemKind::NotAllowed
    );
    let schema = change("alice", vec![field()], &["dose", "patient_id"]).unwrap();
    assert_eq!((schema.path, schema.attributes.len()), (path("/myvo/s"), 7));
    let seen = done(show(&engine, "alice", "/myvo/s/1"));
    assert_eq!(
        seen.attributes.keys().collect::<Vec<_>>(),
        ["age", "modality", "patient_name", "tags"]
    );
    let here = |query: &str| {
        let search = Search {
            from: "/myvo/s".into(),
            ..search(query, &[])
        };
        found(&engine, "alice", &search).map(|rows| rows.len())
    };
    assert_eq!(
        here("modality = 'MR' AND tags = 't' AND patient_name LIKE 'mill%'"),
        Ok(1)
    );
    assert_eq!(here("field_strength IS NULL"), Ok(1));
    assert!(here("dose = 1").is_err() && here("patient_id = 'x'").is_err());
    // The one above goes on with its own.
    assert_eq!(
        names(&engine, "alice", "dose IS NULL AND patient_name LIKE 'smi%'"),
        ["/myvo/r/1"]
    );
    let twice = definition("FIELD_strength", Type::Integer, Part::Anonymous, None);
    assert_eq!(
        change("alice", vec![twice], &[]).unwrap_err().kind,
        ProblemKind::Conflict
    );
    for name in ["select", "a b", "1a", "name", "order", "x'; --"] {
        let wrong = definition(name, Type::String, Part::Anonymous, None);
        let refused = change("alice", vec![wrong], &[]).map_err(|problem| problem.kind);
        assert_eq!(refused.is_ok(), name == "select", "{name}");
    }
    // Values that nobody searched by so far become searchable.
    let mut unindexed = definition("patient_name", Type::String, Part::Identifying, Some("PatientName"));
    unindexed.indexed = false;
    change("alice", vec![unindexed.clone()], &[]).unwrap();
    assert!(here("patient_name = 'Miller^Ann'").is_err());
    unindexed.indexed = true;
    change("alice", vec![unindexed], &[]).unwrap();
    assert_eq!(here("patient_name = 'Miller^Ann'"), Ok(1));
    assert_eq!(done(remove(&engine, "alice", "/myvo/s", true)), 2);
    assert_eq!(names(&engine, "alice", ""), ["/myvo/r/1"]);
}

fn what_is_taken_away_is_not_shown_any_more(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    let many = (0..700).map(|number| NewEntry {
        parents: true,
        ..file(&format!("/myvo/s/{number:04}"))
    });
    for answer in engine.create(&caller("alice"), &many.collect::<Vec<_>>()).unwrap() {
        done(answer);
    }
    let who = caller("bob");
    let everything = search("ORDER BY name", &[]);
    let progress = engine.begin_search(&who, &everything).unwrap();
    let first = engine.search(&who, &everything, &progress).unwrap();
    assert!((1..700).contains(&first.rows.len()));
    let next = first.next.unwrap();
    let rest = |search: &Search| engine.search(&who, search, &next).map(|chunk| chunk.rows.len());
    assert_eq!(rest(&everything).unwrap() + first.rows.len(), 700);
    // What others are given and lose, and what the search does not cover, is no matter of this answer.
    done(create(
        &engine,
        "alice",
        NewEntry {
            parents: true,
            ..file("/myvo/t/1")
        },
    ));
    for (at, who, letters) in [
        ("/myvo/s", "stranger", "g"),
        ("/myvo/s", "stranger", ""),
        ("/myvo/t", "bob", ""),
    ] {
        grant(&engine, at, Part::Anonymous, who, letters);
    }
    let below_s = Search {
        from: "/myvo/s".into(),
        ..everything.clone()
    };
    assert_eq!(rest(&below_s).unwrap() + first.rows.len(), 700);
    // Nor is what was given back meanwhile, and the half that it does not read.
    grant(&engine, "/myvo/s/0601", Part::Anonymous, "bob", "");
    grant(&engine, "/myvo/s/0601", Part::Anonymous, "bob", "g");
    grant(&engine, "/myvo/s/0602", Part::Identifying, "bob", "g");
    grant(&engine, "/myvo/s/0602", Part::Identifying, "bob", "");
    assert_eq!(rest(&below_s).unwrap() + first.rows.len(), 700);
    // One half of one that is left, and of one that was shown: the rest would not be all of it.
    for gone in ["/myvo/s/0600", "/myvo/s/0001"] {
        grant(&engine, gone, Part::Anonymous, "bob", "");
        assert_eq!(rest(&below_s).unwrap_err().kind, ProblemKind::NotAllowed);
        // Also where it was changed once more since.
        grant(&engine, gone, Part::Anonymous, "carol", "g");
        assert_eq!(rest(&below_s).unwrap_err().kind, ProblemKind::NotAllowed);
        grant(&engine, gone, Part::Anonymous, "bob", "g");
    }
    assert_eq!(rest(&below_s).unwrap() + first.rows.len(), 700);
    grant(&engine, "/myvo/s/0600", Part::Name, "bob", "");
    assert_eq!(rest(&below_s).unwrap_err().kind, ProblemKind::NotAllowed);
    // A new search finds what is left; the directory itself is the last to go.
    assert_eq!(names(&engine, "bob", "name LIKE '/myvo/s/%'").len(), 699);
    grant(&engine, "/myvo", Part::Name, "bob", "");
    assert_eq!(rest(&everything).unwrap_err().kind, ProblemKind::NotAllowed);
    let anew = engine.search(&who, &everything, &progress).unwrap_err();
    assert_eq!(anew.kind, ProblemKind::NotFound);
}

/// An answer by the identifying half ends where that goes: of a file, or of the directory that was searched.
fn what_identifies_is_taken_away_under_way(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    let many = (0..600).map(|number| image(&format!("/myvo/s/{number:04}"), "MR", number, "A^B"));
    for answer in engine.create(&caller("alice"), &many.collect::<Vec<_>>()).unwrap() {
        done(answer);
    }
    grant(&engine, "/myvo", Part::Identifying, "bob", "g");
    let who = caller("bob");
    for search in [search("", &["name", "patient_id"]), search("patient_name = 'A^B'", &[])] {
        let progress = engine.begin_search(&who, &search).unwrap();
        let next = engine.search(&who, &search, &progress).unwrap().next.unwrap();
        for at in ["/myvo/s/0599", "/myvo"] {
            grant(&engine, at, Part::Identifying, "bob", "");
            let problem = engine.search(&who, &search, &next).unwrap_err();
            assert_eq!(problem.kind, ProblemKind::NotAllowed);
            assert!(problem.detail.unwrap().contains("not whole"));
            grant(&engine, at, Part::Identifying, "bob", "g");
        }
        assert_eq!(engine.search(&who, &search, &next).unwrap().rows.len(), 100);
    }
}

fn the_log_says_who_and_never_what(database: Database) {
    let engine = engine(database);
    furnished(&engine);
    done(create(&engine, "alice", image("/myvo/s/1", "MR", 42, PLANTED)));
    done(show(&engine, "alice", "/myvo/s/1"));
    done(show(&engine, "bob", "/myvo/s/1"));
    let query = format!("patient_name = '{PLANTED}'");
    assert_eq!(names(&engine, "alice", &query).len(), 1);
    problem(remove(&engine, "stranger", "/myvo/s/secret", false));
    let lines = Engine::audit_lines(engine.database(), 0, 1000).unwrap();
    let text = serde_json::to_string(&lines).unwrap();
    assert!(!text.contains(PLANTED) && !text.contains("secret"), "{text}");
    let count = |operation: &str, dn: &str| {
        let of = lines
            .iter()
            .filter(|line| line.operation == operation && line.dn == format!("/CN={dn}"));
        of.count()
    };
    assert_eq!(
        (count("show", "alice"), count("show", "bob"), count("search", "alice")),
        (1, 0, 1)
    );
    assert_eq!((count("permissions", "alice"), count("remove", "stranger")), (2, 1));
    engine.sign_audit();
    let whole = engine.verify_audit(&[]).unwrap().unwrap();
    assert_eq!(
        (whole.head.sequence, whole.signed_to),
        (lines.len() as i64, lines.len() as i64)
    );
    let tampered: Result<(), mdm_catalog::database::DatabaseError> = engine.database().write(|sql| {
        sql.execute("UPDATE audit SET outcome = 'x' WHERE sequence = 2", &[])
            .map(drop)
    });
    tampered.unwrap();
    assert!(engine.verify_audit(&[]).unwrap().is_err());
}

/// What a caller gets who has nothing to do with the identifying half, but for times.
pub(crate) fn all_that_bob_gets(engine: &Engine, queries: &[String]) -> String {
    let without_times = |mut value: serde_json::Value| {
        let mut clean = |entry: &mut serde_json::Value| {
            for field in ["created_at", "modified_at"] {
                entry[field] = "".into();
            }
        };
        match value["entries"].as_array_mut() {
            Some(entries) => entries.iter_mut().for_each(&mut clean),
            None => clean(&mut value),
        }
        value.to_string()
    };
    let mut said = BTreeMap::new();
    let question = ListQuestion {
        path: path("/myvo"),
        after: None,
        limit: None,
        recursive: true,
    };
    let listing = engine.list(&caller("bob"), &question).unwrap();
    for entry in &listing.entries {
        let shown = done(show(engine, "bob", entry.path.as_str()));
        said.insert(
            entry.path.to_string(),
            without_times(serde_json::to_value(shown).unwrap()),
        );
    }
    said.insert("list".into(), without_times(serde_json::to_value(&listing).unwrap()));
    for query in queries {
        for columns in [&["name", "modality", "age"][..], &["patient_name"]] {
            let rows = found(engine, "bob", &search(query, columns));
            said.insert(format!("{query} {columns:?}"), format!("{rows:?}"));
        }
        let count = Search {
            count: true,
            ..search(query, &[])
        };
        let counted = engine
            .begin_search(&caller("bob"), &count)
            .and_then(|progress| engine.search(&caller("bob"), &count, &progress));
        said.insert(
            format!("{query} count"),
            format!("{:?}", counted.map(|chunk| chunk.counted)),
        );
    }
    serde_json::to_string(&said).unwrap()
}
