//! The addresses of a store and what it keeps on disk, without TLS: the router is given the identity.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use grid_identity::{Identity, Method};
use hydra_core::secret::Key;
use hydra_keystore::config::{CreationRule, EntryLimits, Rules};
use hydra_keystore::database::{self, DatabaseError};
use hydra_keystore::engine::Engine;
use hydra_service::{Limits, Peer};
use serde_json::{Value, json};
use tower::ServiceExt;

const ALICE: &str = "/DC=org/CN=Alice";
const BOB: &str = "/DC=org/CN=Bob";
const R1: &str = "a478c320e060bd896e11e69db3929aa5";
const R2: &str = "f3132eedfb9a514d0980451deddf5e45";

struct Store {
    dir: tempfile::TempDir,
    key: Key,
    max_bytes: u64,
    per_owner: u64,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::random().unwrap();
        database::create(&dir.path().join("db"), &"ks-b".parse().unwrap(), &key, 1).unwrap();
        Self {
            dir,
            key,
            max_bytes: 0,
            per_owner: 1000,
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("db")
    }

    fn open_as(&self, store: &str) -> Result<Engine, DatabaseError> {
        let rules = Rules {
            store: store.parse().unwrap(),
            create: vec![CreationRule {
                prefix: "/myvo/".into(),
                principal: ALICE.into(),
            }],
            administrators: Vec::new(),
            recovery: false,
            entries: EntryLimits {
                per_owner: self.per_owner,
                acl: 10,
            },
        };
        Engine::open(&self.path(), &self.key, rules, self.max_bytes)
    }

    fn open(&self) -> Served {
        let engine = Arc::new(self.open_as("ks-b").unwrap());
        Served {
            router: hydra_keystore::api::router(Arc::clone(&engine), &Limits::default()),
            engine,
        }
    }
}

struct Served {
    router: Router,
    engine: Arc<Engine>,
}

impl Served {
    async fn send(
        &self,
        dn: &str,
        method: &str,
        path: &str,
        body: String,
    ) -> (StatusCode, Value, axum::http::HeaderMap) {
        let identity = Identity {
            dn: dn.into(),
            fqans: Vec::new(),
            voms_error: None,
            method: Method::Proxy,
            limited: false,
            not_after: SystemTime::now() + Duration::from_secs(3600),
        };
        let peer = Peer::vouched_for(identity, "127.0.0.1:1".parse().unwrap());
        let request = Request::builder().method(method).uri(path).extension(Arc::new(peer));
        let response = self
            .router
            .clone()
            .oneshot(request.body(Body::from(body)).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let json = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8(bytes.to_vec()).unwrap()));
        (parts.status, json, parts.headers)
    }

    async fn post(&self, dn: &str, operation: &str, items: Value) -> Vec<Value> {
        let body = json!({ "items": items }).to_string();
        let (status, answer, _) = self.send(dn, "POST", &format!("/v1/entries/{operation}"), body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["store"], "ks-b");
        answer["items"].as_array().unwrap().clone()
    }

    async fn one(&self, dn: &str, operation: &str, item: Value) -> String {
        let answer = self.post(dn, operation, json!([item])).await.remove(0);
        let said = answer.get("status").or_else(|| answer["problem"].get("type")).unwrap();
        said.as_str().unwrap().replace("urn:hydra-eds:problem:", "!")
    }
}

fn sharing(generation: u32) -> Value {
    json!({ "generation": generation, "m": 2, "n": 3, "stores": ["ks-a", "ks-b", "ks-c"],
            "check": format!("{generation:064x}") })
}

fn data() -> String {
    data_encoding::BASE64.encode(&[7; 64])
}

fn create(key_id: &str, registration: &str) -> Value {
    json!({ "key_id": key_id, "registration_id": registration, "cipher": "eds-1", "key_bits": 256,
            "sharing": sharing(1),
            "share": { "scheme": "gf256-1", "index": 2, "m": 2, "n": 3, "data": data() },
            "permissions": { "owner": ALICE, "group": "default-group", "user": "pdrwl-gs",
                "group_permissions": "--------", "other": "--------", "acl": [], "version": 1,
                "change_id": "00112233445566778899aabbccddeeff" } })
}

fn confirm(key_id: &str, registration: &str) -> Value {
    json!({ "key_id": key_id, "registration_id": registration, "sharing": sharing(1) })
}

fn of(key_id: &str, registration: &str) -> Value {
    json!({ "key_id": key_id, "registration_id": registration })
}

fn key(key_id: &str) -> Value {
    json!({ "key_id": key_id })
}

#[tokio::test]
async fn an_entry_lives_through_a_restart_and_its_removal_too() {
    let store = Store::new();
    let served = store.open();
    assert_eq!(served.one(ALICE, "create", create("/myvo/a", R1)).await, "ok");
    assert_eq!(served.one(ALICE, "confirm", confirm("/myvo/a", R1)).await, "ok");
    drop(served);
    let served = store.open();
    let answer = served.post(ALICE, "read", json!([key("/myvo/a")])).await.remove(0);
    assert_eq!(answer["entry"]["state"], "confirmed");
    assert_eq!(answer["entry"]["sharings"][0]["share"]["data"], data());
    assert_eq!(answer["entry"]["sharings"][0]["sharing"], sharing(1));
    assert_eq!(served.one(ALICE, "create", create("/myvo/a", R2)).await, "exists");
    assert_eq!(served.one(ALICE, "remove", of("/myvo/a", R1)).await, "ok");
    drop(served);
    let served = store.open();
    assert_eq!(served.one(ALICE, "create", create("/myvo/a", R1)).await, "removed");
    let answer = served.post(ALICE, "describe", json!([key("/myvo/a")])).await.remove(0);
    assert_eq!(answer["tombstones"][0]["registration_id"], R1);
}

#[tokio::test]
async fn every_change_of_the_table_is_on_disk() {
    let store = Store::new();
    let put = |generation: u32, state: &str| {
        let mut put = create("/myvo/a", R1);
        put["sharing"] = sharing(generation);
        put["state"] = state.into();
        put
    };
    let mut changed = create("/myvo/a", R1)["permissions"].clone();
    changed["version"] = 2.into();
    changed["change_id"] = "ff112233445566778899aabbccddeeff".into();
    changed["acl"] = json!([{ "principal": BOB, "permissions": "----l-g-" }]);
    let change = json!({ "key_id": "/myvo/a", "registration_id": R1, "if_version": 1,
                         "if_change_id": "00112233445566778899aabbccddeeff", "permissions": changed });
    let steps = [
        ("stop", of("/myvo/a", R1)),
        ("put", put(1, "pending")),
        ("confirm", confirm("/myvo/a", R1)),
        ("put", put(2, "pending")),
        (
            "undo",
            json!({ "key_id": "/myvo/a", "registration_id": R1, "sharing": sharing(2) }),
        ),
        ("put", put(2, "pending")),
        ("put", put(3, "confirmed")),
        (
            "drop",
            json!({ "key_id": "/myvo/a", "registration_id": R1, "below": sharing(3) }),
        ),
        ("change", change),
        ("create", create("/myvo/b", R2)),
        ("stop", of("/myvo/b", R2)),
        ("undo", of("/myvo/b", R2)),
    ];
    for (operation, item) in steps {
        // A new process for each step: nothing lives in memory alone.
        let served = store.open();
        assert_eq!(served.one(ALICE, operation, item).await, "ok", "{operation}");
    }
    let served = store.open();
    let answer = served.post(BOB, "read", json!([key("/myvo/a"), key("/myvo/b")])).await;
    let sharings = answer[0]["entry"]["sharings"].as_array().unwrap();
    assert_eq!(
        (sharings.len(), &sharings[0]["sharing"], &sharings[0]["state"]),
        (1, &sharing(3), &json!("confirmed"))
    );
    assert_eq!(answer[1]["problem"]["status"], 404);
    let answer = served.post(BOB, "permissions", json!([key("/myvo/a")])).await.remove(0);
    assert_eq!(answer["permissions"], changed);
    assert_eq!(served.one(ALICE, "create", create("/myvo/b", R1)).await, "ok");
}

#[tokio::test]
async fn strangers_cannot_tell_what_is_there() {
    let store = Store::new();
    let served = store.open();
    served.one(ALICE, "create", create("/myvo/there", R1)).await;
    served.one(ALICE, "confirm", confirm("/myvo/there", R1)).await;
    let put = |key_id: &str| {
        let mut put = create(key_id, R1);
        put["state"] = "confirmed".into();
        put
    };
    type Make<'a> = &'a dyn Fn(&str) -> Value;
    let of_r1 = |key_id: &str| of(key_id, R1);
    let confirm_r1 = |key_id: &str| confirm(key_id, R1);
    let create_r2 = |key_id: &str| create(key_id, R2);
    let cases: [(&str, Make<'_>); 9] = [
        ("create", &create_r2),
        ("confirm", &confirm_r1),
        ("stop", &of_r1),
        ("undo", &of_r1),
        ("remove", &of_r1),
        ("read", &key),
        ("describe", &key),
        ("permissions", &key),
        ("put", &put),
    ];
    for (operation, make) in cases {
        let answers = served
            .post(BOB, operation, json!([make("/myvo/there"), make("/myvo/not-there")]))
            .await;
        let without_key_id = |answer: &Value| {
            let mut answer = answer.clone();
            answer.as_object_mut().unwrap().remove("key_id");
            answer
        };
        assert_eq!(without_key_id(&answers[0]), without_key_id(&answers[1]), "{operation}");
    }
    let listed = served.post(BOB, "list", json!([{}])).await.remove(0);
    assert_eq!(listed["entries"], json!([]));
    assert_eq!(served.one(ALICE, "read", key("/myvo/there")).await, "ok");
}

/// Where the original was asked what a caller may do, it said yes to everybody (D-21). Here nothing answers that
/// question apart from the operation itself, and what is refused there is refused without a word about the entry.
#[tokio::test]
async fn d21_nobody_is_told_that_something_is_allowed_without_a_decision() {
    let store = Store::new();
    let served = store.open();
    served.one(ALICE, "create", create("/myvo/hers", R1)).await;
    served.one(ALICE, "confirm", confirm("/myvo/hers", R1)).await;
    for name in [
        "checkPermission",
        "check-permission",
        "check_permission",
        "check",
        "may",
    ] {
        let body = json!({ "items": [key("/myvo/hers")] }).to_string();
        let (status, _, _) = served.send(BOB, "POST", &format!("/v1/entries/{name}"), body).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{name}");
    }
    let (_, openapi, _) = served.send(BOB, "GET", "/v1/openapi.json", String::new()).await;
    for path in openapi["paths"].as_object().unwrap().keys() {
        assert!(!path.contains("check") && !path.contains("allowed"), "{path}");
    }
    // every operation decides by itself; in one request, too, alice's right to one entry is none of bob's
    for (operation, item) in [
        ("read", key("/myvo/hers")),
        ("describe", key("/myvo/hers")),
        ("permissions", key("/myvo/hers")),
        ("remove", of("/myvo/hers", R1)),
    ] {
        assert_eq!(served.one(BOB, operation, item).await, "!not-found", "{operation}");
    }
    assert_eq!(served.one(ALICE, "read", key("/myvo/hers")).await, "ok");
}

/// The original left key shares and ACLs behind (D-22).
#[tokio::test]
async fn d22_a_removal_leaves_no_share_and_no_permission_that_a_later_registration_could_get() {
    let store = Store::new();
    let served = store.open();
    let mut shared = create("/myvo/a", R1);
    shared["permissions"]["acl"] = json!([{ "principal": BOB, "permissions": "----l-g-" }]);
    shared["permissions"]["other"] = "----l---".into();
    assert_eq!(served.one(ALICE, "create", shared).await, "ok");
    assert_eq!(served.one(ALICE, "confirm", confirm("/myvo/a", R1)).await, "ok");
    assert_eq!(served.one(BOB, "read", key("/myvo/a")).await, "ok");
    let rows = |table: &str| -> i64 {
        let connection = rusqlite::Connection::open(store.path()).unwrap();
        let count = format!("SELECT count(*) FROM {table}");
        connection.query_row(&count, [], |row| row.get(0)).unwrap()
    };
    let left = || ["entries", "shares", "listable"].map(rows);
    assert!(left().iter().all(|rows| *rows > 0), "{:?}", left());
    assert_eq!(served.one(ALICE, "remove", of("/myvo/a", R1)).await, "ok");
    assert_eq!((left(), rows("tombstones")), ([0, 0, 0], 1));
    // of that name again: nothing of the old one holds
    assert_eq!(served.one(ALICE, "create", create("/myvo/a", R2)).await, "ok");
    let confirm_second = confirm("/myvo/a", R2);
    assert_eq!(served.one(ALICE, "confirm", confirm_second).await, "ok");
    for operation in ["read", "describe", "permissions"] {
        let answer = served.post(BOB, operation, json!([key("/myvo/a")])).await.remove(0);
        // who could see the old one may see that it was removed, and nothing of the new one
        for part in ["entry", "permissions", "share"] {
            assert!(answer.get(part).is_none_or(Value::is_null), "{operation}: {answer}");
        }
        assert!(!answer.to_string().contains(R2), "{operation}: {answer}");
    }
    assert_eq!(served.one(BOB, "remove", of("/myvo/a", R2)).await, "!not-found");
    let listed = served.post(BOB, "list", json!([{}])).await.remove(0);
    assert_eq!(listed["entries"], json!([]));
    let answer = served
        .post(ALICE, "permissions", json!([key("/myvo/a")]))
        .await
        .remove(0);
    assert_eq!(answer["permissions"]["acl"], json!([]));
}

#[tokio::test]
async fn lists_are_paged_by_prefix_last_component_and_owner() {
    let store = Store::new();
    let served = store.open();
    for batch in 0..3 {
        let items: Vec<_> = (0..80)
            .map(|n| create(&format!("/myvo/{:03}/x", batch * 80 + n), R1))
            .collect();
        let answers = served.post(ALICE, "create", items.into()).await;
        assert!(answers.iter().all(|answer| answer["status"] == "ok"));
    }
    served.one(ALICE, "create", create("/myvo/050", R1)).await;
    for (query, expected) in [
        (json!({}), 241),
        (json!({ "prefix": "/myvo/0" }), 101),
        (json!({ "last_component": "x" }), 240),
        (json!({ "last_component": "050" }), 1),
        (json!({ "owned_by_me": true }), 241),
        (json!({ "prefix": "/other" }), 0),
    ] {
        let (mut found, mut request) = (Vec::new(), query.clone());
        loop {
            let page = served.post(ALICE, "list", json!([request])).await.remove(0);
            found.extend(
                page["entries"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|entry| entry["key_id"].to_string()),
            );
            match page.get("next_page_token") {
                Some(token) => request["page_token"] = token.clone(),
                None => break,
            }
        }
        assert!(found.is_sorted() && found.len() == expected, "{query}: {}", found.len());
        assert!(found.windows(2).all(|pair| pair[0] != pair[1]));
    }
    assert_eq!(
        served
            .one(ALICE, "list", json!({ "prefix": "a", "last_component": "b" }))
            .await,
        "!invalid"
    );
    assert_eq!(
        served.one(ALICE, "list", json!({ "page_token": "AAAA" })).await,
        "!invalid"
    );
}

#[tokio::test]
async fn pages_are_full_and_show_nothing_of_the_entries_of_others() {
    let mut store = Store::new();
    store.per_owner = 10_000;
    let served = store.open();
    // Every fiftieth is Bob's to list too, each in another way, and one in fifty of Alice's own are not hers to list.
    let make = |number: usize| {
        let mut item = create(&format!("/myvo/{number:04}/x"), R1);
        let record = &mut item["permissions"];
        match number % 150 {
            0 => record["acl"] = json!([{ "principal": BOB, "permissions": "----l---" }]),
            50 => record["other"] = "----l---".into(),
            100 => record["acl"] = json!([{ "principal": BOB, "permissions": "------g-" }]),
            1 => record["user"] = "pdrw--gs".into(),
            _ => {}
        }
        item
    };
    for batch in 0..30 {
        let items: Vec<_> = (batch * 100..(batch + 1) * 100).map(make).collect();
        let answers = served.post(ALICE, "create", items.into()).await;
        assert!(answers.iter().all(|answer| answer["status"] == "ok"));
    }
    let mut changed = make(0)["permissions"].clone();
    changed["version"] = 2.into();
    changed["change_id"] = "ff112233445566778899aabbccddeeff".into();
    changed["acl"] = json!([]);
    let change = |key_id: &str, record: &Value| {
        json!({ "key_id": key_id, "registration_id": R1, "if_version": 1,
                "if_change_id": "00112233445566778899aabbccddeeff", "permissions": record })
    };
    assert_eq!(
        served.one(ALICE, "change", change("/myvo/0000/x", &changed)).await,
        "ok"
    );
    changed["acl"] = json!([{ "principal": BOB, "permissions": "----l---" }]);
    assert_eq!(
        served.one(ALICE, "change", change("/myvo/0002/x", &changed)).await,
        "ok"
    );
    assert_eq!(served.one(ALICE, "remove", of("/myvo/0050/x", R1)).await, "ok");
    drop(served);
    let check = async |served: &Served| {
        for query in [
            json!({}),
            json!({ "prefix": "/myvo/" }),
            json!({ "last_component": "x" }),
        ] {
            let page = served.post(BOB, "list", json!([query])).await.remove(0);
            // 20 + 20, without the first of each, with 0002. One page, and nothing to ask further for.
            assert_eq!(page["entries"].as_array().unwrap().len(), 39, "{query}");
            assert_eq!(page["entries"][0]["key_id"], "/myvo/0002/x");
            assert!(page.get("next_page_token").is_none(), "{query}");
            let page = served.post(ALICE, "list", json!([query])).await.remove(0);
            assert_eq!(page["entries"].as_array().unwrap().len(), 100, "{query}");
        }
        let own = json!({ "last_component": "x", "owned_by_me": true });
        let page = served.post(BOB, "list", json!([own])).await.remove(0);
        assert!(page["entries"] == json!([]) && page.get("next_page_token").is_none());
    };
    check(&store.open()).await;
    // The same out of a database of the schema before.
    let raw = rusqlite::Connection::open(store.path()).unwrap();
    raw.execute_batch(
        "DROP TABLE listable; DROP TABLE principals; DROP INDEX entries_in_quarantine; PRAGMA user_version = 2",
    )
    .unwrap();
    drop(raw);
    check(&store.open()).await;
}

#[tokio::test]
async fn a_prefix_ends_where_its_last_character_does() {
    let store = Store::new();
    let served = store.open();
    let last = "/myvo/\u{10ffff}";
    for key_id in [
        "/myvo/a",
        "/myvo/a/b",
        "/myvo/az",
        "/myvo/b",
        "/myvo/\u{d7ff}x",
        "/myvo/\u{e000}",
        last,
    ] {
        assert_eq!(served.one(ALICE, "create", create(key_id, R1)).await, "ok");
    }
    for (prefix, expected) in [
        ("/myvo/a", 3),
        ("/myvo/\u{d7ff}", 1),
        (last, 1),
        ("/myvo/", 7),
        ("", 7),
        ("/myvp", 0),
    ] {
        let page = served
            .post(ALICE, "list", json!([{ "prefix": prefix }]))
            .await
            .remove(0);
        assert_eq!(page["entries"].as_array().unwrap().len(), expected, "{prefix}");
    }
}

#[tokio::test]
async fn documents_and_refusals() {
    let store = Store::new();
    let served = store.open();
    let (status, whoami, headers) = served.send(ALICE, "GET", "/v1/whoami", String::new()).await;
    assert_eq!(
        (status, &whoami),
        (
            StatusCode::OK,
            &json!({ "store": "ks-b", "dn": ALICE, "fqans": [], "method": "proxy" })
        )
    );
    assert!(headers.contains_key("x-request-id"));
    let (_, about, _) = served.send(ALICE, "GET", "/v1/about", String::new()).await;
    assert_eq!(
        (&about["store"], &about["protocols"], &about["restored"]),
        (&json!("ks-b"), &json!([1]), &json!(false))
    );
    let (_, openapi, _) = served.send(ALICE, "GET", "/v1/openapi.json", String::new()).await;
    // Every address of the document is there, and answers something else than "no such operation".
    for (path, methods) in openapi["paths"].as_object().unwrap() {
        let method = methods.as_object().unwrap().keys().next().unwrap().to_uppercase();
        let (status, _, _) = served.send(ALICE, &method, path, String::new()).await;
        assert!(matches!(status.as_u16(), 200 | 400), "{method} {path}: {status}");
    }
    for (method, path, body, expected) in [
        ("GET", "/v1/nothing", "", 404),
        ("POST", "/v1/entries/burn", "{}", 404),
        ("GET", "/v1/entries/read", "", 405),
        ("POST", "/v1/entries/read", "not json", 400),
        ("POST", "/v1/entries/read", r#"{"items":[]}"#, 400),
        ("POST", "/v1/entries/read", r#"{"items":[{"key_id":"/a","x":1}]}"#, 400),
    ] {
        let (status, problem, headers) = served.send(ALICE, method, path, body.into()).await;
        assert_eq!(
            (status.as_u16(), problem["status"].as_u64()),
            (expected, Some(u64::from(expected))),
            "{path} {body}"
        );
        assert_eq!(headers["content-type"], "application/problem+json");
    }
    let (status, _, _) = served
        .send(ALICE, "POST", "/v1/entries/read", " ".repeat(2 << 20))
        .await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let request = Request::builder().uri("/v1/about").body(Body::empty()).unwrap();
    let response = served.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_second_process_another_store_another_key_and_a_newer_schema_are_refused() {
    let mut store = Store::new();
    let served = store.open();
    assert!(matches!(store.open_as("ks-b"), Err(DatabaseError::Locked { .. })));
    drop(served);
    assert!(matches!(store.open_as("ks-c"), Err(DatabaseError::OtherStore { .. })));
    let key = std::mem::replace(&mut store.key, Key::random().unwrap());
    assert!(matches!(
        store.open_as("ks-b"),
        Err(DatabaseError::DataKey { id: 1, .. })
    ));
    store.key = key;
    let raw = rusqlite::Connection::open(store.path()).unwrap();
    raw.pragma_update(None, "user_version", database::SCHEMA_VERSION + 1)
        .unwrap();
    drop(raw);
    assert!(matches!(store.open_as("ks-b"), Err(DatabaseError::Newer { .. })));
    let other = tempfile::tempdir().unwrap();
    rusqlite::Connection::open(other.path().join("db"))
        .unwrap()
        .execute_batch("CREATE TABLE t(a)")
        .unwrap();
    let foreign = database::open_writer(&other.path().join("db"), &"ks-b".parse().unwrap(), 0);
    assert!(matches!(foreign, Err(DatabaseError::NotOurs)));
}

#[tokio::test]
async fn a_full_database_refuses_changes_and_goes_on_serving_reads() {
    let mut store = Store::new();
    store.max_bytes = 256 << 10;
    let served = store.open();
    let mut refused = None;
    for number in 0..2000 {
        let said = served
            .one(ALICE, "create", create(&format!("/myvo/{number}"), R1))
            .await;
        if said != "ok" {
            refused = Some((number, said));
            break;
        }
    }
    let (number, said) = refused.unwrap();
    assert_eq!(said, "!storage-full");
    // What was answered is there, what was refused is not.
    assert_eq!(
        served.one(ALICE, "read", key(&format!("/myvo/{}", number - 1))).await,
        "ok"
    );
    assert_eq!(
        served.one(ALICE, "read", key(&format!("/myvo/{number}"))).await,
        "!not-found"
    );
    drop(served);
    store.max_bytes = 0;
    let served = store.open();
    assert_eq!(
        served
            .one(ALICE, "create", create(&format!("/myvo/{number}"), R1))
            .await,
        "ok"
    );
    verify_audit(&store.path());
}

/// Lines that found no room were lost, and those behind them named a line that had never been written.
#[tokio::test]
async fn lines_of_the_audit_log_wait_for_room_in_a_full_database() {
    const READS: usize = 150;
    let mut store = Store::new();
    store.max_bytes = 256 << 10;
    let served = store.open();
    let mut made = 0;
    while served.one(ALICE, "create", create(&format!("/myvo/{made}"), R1)).await == "ok" {
        made += 1;
    }
    for _ in 0..READS {
        assert_eq!(served.one(ALICE, "read", key("/myvo/0")).await, "ok");
    }
    // a commit, which has to write them
    let refused = served.one(ALICE, "create", create("/myvo/none", R1)).await;
    assert_eq!(refused, "!storage-full");
    let raw = rusqlite::Connection::open(store.path()).unwrap();
    raw.execute("DELETE FROM shares WHERE entry > 10", []).unwrap();
    assert_eq!(served.one(ALICE, "create", create("/myvo/last", R1)).await, "ok");
    let lines = audit_lines(&store.path());
    let reads = lines.iter().filter(|line| line.contains("read")).count();
    assert_eq!(reads, READS);
    drop(served);
    verify_audit(&store.path());
}

#[tokio::test]
async fn what_one_identity_may_bring_is_limited_and_counts_tombstones() {
    let mut store = Store::new();
    store.per_owner = 3;
    let served = store.open();
    for (key_id, expected) in [
        ("/myvo/1", "ok"),
        ("/myvo/2", "ok"),
        ("/myvo/3", "ok"),
        ("/myvo/4", "!limit"),
    ] {
        assert_eq!(
            served.one(ALICE, "create", create(key_id, R1)).await,
            expected,
            "{key_id}"
        );
    }
    assert_eq!(served.one(ALICE, "undo", of("/myvo/1", R1)).await, "ok");
    assert_eq!(served.one(ALICE, "remove", of("/myvo/2", R1)).await, "ok");
    assert_eq!(served.one(ALICE, "create", create("/myvo/4", R1)).await, "ok");
    drop(served);
    let served = store.open();
    assert_eq!(served.one(ALICE, "create", create("/myvo/5", R1)).await, "!limit");
}

#[tokio::test]
async fn a_damaged_share_is_missing_and_put_brings_it_back() {
    let store = Store::new();
    let served = store.open();
    served.one(ALICE, "create", create("/myvo/a", R1)).await;
    served.one(ALICE, "confirm", confirm("/myvo/a", R1)).await;
    drop(served);
    let raw = rusqlite::Connection::open(store.path()).unwrap();
    raw.execute("UPDATE shares SET share = zeroblob(97)", []).unwrap();
    drop(raw);
    let served = store.open();
    let answer = served.post(ALICE, "read", json!([key("/myvo/a")])).await.remove(0);
    assert!(answer["entry"]["sharings"][0].get("share").is_none());
    let mut put = create("/myvo/a", R1);
    put["state"] = "confirmed".into();
    assert_eq!(served.one(ALICE, "put", put).await, "ok");
    let answer = served.post(ALICE, "read", json!([key("/myvo/a")])).await.remove(0);
    assert_eq!(answer["entry"]["sharings"][0]["share"]["data"], data());
}

#[tokio::test]
async fn the_share_on_disk_is_sealed_and_the_audit_log_tells_what_was_done() {
    let store = Store::new();
    let served = store.open();
    served.one(ALICE, "create", create("/myvo/a", R1)).await;
    served.one(ALICE, "read", key("/myvo/a")).await;
    served.one(ALICE, "remove", of("/myvo/a", R2)).await;
    served.engine.close();
    drop(served);
    for file in ["db", "db-wal"] {
        let bytes = std::fs::read(store.dir.path().join(file)).unwrap_or_default();
        assert!(!bytes.windows(64).any(|window| window == [7; 64]), "{file}");
    }
    let raw = rusqlite::Connection::open(store.path()).unwrap();
    let mut statement = raw
        .prepare("SELECT operation || ' ' || key_id || ' ' || dn FROM audit ORDER BY sequence")
        .unwrap();
    let lines: Vec<String> = statement
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        lines,
        ["create", "read", "remove"].map(|operation| format!("{operation} /myvo/a {ALICE}"))
    );
    assert!(raw.execute("DELETE FROM audit", []).is_err());
    raw.execute_batch("DROP TRIGGER audit_is_not_changed").unwrap();
    verify_audit(&store.path());
    raw.execute("UPDATE audit SET dn = 'x' WHERE sequence = 2", []).unwrap();
    assert_eq!(database::verify_chain(&raw, |_| {}).unwrap().unwrap_err().sequence, 2);
}

fn audit_lines(path: &Path) -> Vec<String> {
    let raw = rusqlite::Connection::open(path).unwrap();
    let rows = database::audit_rows(&raw, 0, 10_000).unwrap();
    rows.iter()
        .map(|row| format!("{} {} {} {}", row.dn, row.operation, row.key_id, row.outcome))
        .collect()
}

#[tokio::test]
async fn refusals_are_in_the_audit_log_without_naming_what_is_not_there() {
    let store = Store::new();
    let served = store.open();
    served.one(ALICE, "create", create("/myvo/there", R1)).await;
    for key_id in ["/myvo/there", "/myvo/missing"] {
        assert_eq!(served.one(BOB, "read", key(key_id)).await, "!not-found");
        assert_eq!(served.one(BOB, "remove", of(key_id, R1)).await, "!not-found");
    }
    served.engine.close();
    let lines = audit_lines(&store.path());
    let bobs: Vec<_> = lines.iter().filter(|line| line.starts_with(BOB)).collect();
    let denied = |operation: &str| format!("{BOB} {operation} /myvo/there denied");
    assert_eq!((bobs.len(), bobs[0], bobs[1]), (4, &denied("read"), &denied("remove")));
    let hash = bobs[2].split(' ').nth(2).unwrap();
    assert!(hash.starts_with('#') && hash.len() == 17, "{hash}");
    assert!(bobs[3].contains(hash) && !lines.concat().contains("missing"));
}

#[tokio::test]
async fn asking_for_nothing_does_not_fill_the_audit_log() {
    let store = Store::new();
    let served = store.open();
    for batch in 0..5 {
        let items: Vec<_> = (0..100).map(|n| key(&format!("/myvo/{batch}/{n}"))).collect();
        served.post(BOB, "read", items.into()).await;
    }
    served.one(ALICE, "read", key("/myvo/one")).await;
    served.engine.close();
    let lines = audit_lines(&store.path());
    assert_eq!(lines.len(), 102);
    assert_eq!(lines[100].split(' ').next(), Some(ALICE));
    assert_eq!(lines[101], format!("{BOB} refusals  400 more refusals"));
}

#[tokio::test]
async fn a_denied_key_id_costs_what_one_that_is_not_there_costs() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let store = Store::new();
    let served = store.open();
    served.one(ALICE, "create", create("/myvo/there", R1)).await;
    served.engine.close();
    drop(served);
    let mut connection = database::open_reader(&store.path()).unwrap();
    let keys = database::data_keys(&connection, &store.key).unwrap();
    let steps = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&steps);
    let count = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        false
    };
    connection.progress_handler(1, Some(count)).unwrap();
    let load = |key_id: &str, concerned: bool| {
        let key_id = hydra_core::key_id::KeyId::new(key_id).unwrap();
        for _ in 0..2 {
            // The second time, all statements are prepared.
            steps.store(0, Ordering::Relaxed);
            let held = database::load(&connection, &keys, &key_id, |_| concerned).unwrap();
            let opened = held.entry.iter().flat_map(|entry| &entry.sharings).count();
            assert_eq!(opened, usize::from(concerned && held.entry.is_some()));
        }
        steps.load(Ordering::Relaxed)
    };
    let (missing, denied) = (load("/myvo/missing", false), load("/myvo/there", false));
    let allowed = load("/myvo/there", true);
    // The columns of the row are all that is more; the query for sharings, and opening them, come after the decision.
    assert!(missing <= denied && denied - missing < 30, "{missing} {denied}");
    assert!(allowed > denied, "{allowed} {denied}");
}

#[tokio::test]
async fn signed_heads_show_a_tail_that_was_cut_off_and_a_log_written_anew() {
    use hydra_keystore::audit::{AuditFault, SignedHead, verify};
    let store = Store::new();
    let id = "ks-b".parse().unwrap();
    let served = store.open();
    served.one(ALICE, "create", create("/myvo/a", R1)).await;
    served.one(ALICE, "create", create("/myvo/b", R1)).await;
    drop(served);
    let raw = rusqlite::Connection::open(store.path()).unwrap();
    let keys = database::data_keys(&raw, &store.key).unwrap();
    let whole = verify(&raw, &keys, &id, &[]).unwrap().unwrap();
    assert_eq!((whole.head.sequence, whole.signed_to), (2, 2));
    let kept = SignedHead::sign(&keys, &id, &whole.head, 7);
    let kept: SignedHead = kept.to_string().parse().unwrap();
    assert!(kept.is_signed_by(&keys, &id) && !kept.is_signed_by(&keys, &"ks-c".parse().unwrap()));
    assert_eq!(
        verify(&raw, &keys, &id, std::slice::from_ref(&kept)).unwrap(),
        Ok(whole)
    );

    let other = database::data_keys(&raw, &store.key).unwrap();
    let forged = kept.to_string().replace(":2:7:", ":2:8:").parse().unwrap();
    let found = verify(&raw, &other, &id, &[forged]).unwrap();
    assert_eq!(found, Err(AuditFault::Signature { sequence: 2 }));

    raw.execute_batch("DROP TRIGGER audit_is_not_cut; DELETE FROM audit WHERE sequence = 2")
        .unwrap();
    let found = verify(&raw, &keys, &id, &[]).unwrap();
    assert_eq!(found, Err(AuditFault::Cut { last: 1, sequence: 2 }));
    // Whoever has the database cuts the heads too: then one that was kept elsewhere tells.
    raw.execute_batch("DROP TRIGGER audit_heads_are_not_cut; DELETE FROM audit_heads")
        .unwrap();
    assert!(verify(&raw, &keys, &id, &[]).unwrap().is_ok());
    assert!(verify(&raw, &keys, &id, std::slice::from_ref(&kept)).unwrap().is_err());
    let line = database::AuditLine {
        at: 1,
        dn: BOB,
        operation: "x",
        key_id: "y",
        outcome: "z",
    };
    let head = database::audit_head(&raw).unwrap();
    database::audit(&raw, &head, &line).unwrap();
    let found = verify(&raw, &keys, &id, &[kept]).unwrap();
    assert_eq!(found, Err(AuditFault::Rewritten { sequence: 2 }));
}

#[tokio::test]
async fn who_asks_for_too_much_is_told_when_to_come_again() {
    let store = Store::new();
    let engine = Arc::new(store.open_as("ks-b").unwrap());
    let limits = Limits {
        items_per_second: 1,
        burst_items: 100,
        ..Limits::default()
    };
    let router = hydra_keystore::api::router(Arc::clone(&engine), &limits);
    let served = Served { router, engine };
    let items: Vec<_> = (0..100).map(|n| key(&format!("/myvo/{n}"))).collect();
    let body = json!({ "items": items }).to_string();
    let path = "/v1/entries/read";
    assert_eq!(served.send(BOB, "POST", path, body.clone()).await.0, StatusCode::OK);
    let (status, problem, headers) = served.send(BOB, "POST", path, body.clone()).await;
    assert_eq!(
        (status.as_u16(), &problem["type"]),
        (429, &json!("urn:hydra-eds:problem:limit"))
    );
    assert!(headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 50);
    assert_eq!(served.send(ALICE, "POST", path, body).await.0, StatusCode::OK);
}

fn verify_audit(path: &Path) {
    let raw = rusqlite::Connection::open(path).unwrap();
    assert!(database::verify_chain(&raw, |_| {}).unwrap().unwrap().sequence > 0);
}
