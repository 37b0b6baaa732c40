//! The real program with real TLS: who gets in, what a kill leaves, how it stops.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use grid_identity::{Credential, Policy, TrustStore, tls};
use serde_json::{Value, json};
use testgrid::{Grid, GridOptions};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hydra-keystore");
const R1: &str = "a478c320e060bd896e11e69db3929aa5";

fn grid(folder: &Path) -> Grid {
    let options = GridOptions {
        stores: 1,
        threshold: 1,
        commands: false,
        programs: Path::new(PROGRAM).parent().map(PathBuf::from),
        ..GridOptions::default()
    };
    Grid::up(&folder.join("grid"), &options).unwrap()
}

fn client(grid: &Grid, user: &str) -> reqwest::Client {
    let pki = grid.pki().unwrap();
    let credential = Credential::from_file(&pki.working_proxy(user), None).unwrap();
    let trust = TrustStore::directory(pki.certificates(), Policy::client(false)).unwrap();
    let config = tls::client_config(&credential, Arc::new(trust)).unwrap();
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .build()
        .unwrap()
}

/// The store's id in a grid, from what it says of itself.
async fn about(grid: &Grid, client: &reqwest::Client) -> Value {
    client
        .get(format!("{}/v1/about", grid.urls()[0]))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap()
}

fn create(key_id: &str, owner: &str, store: &str) -> Value {
    json!({ "items": [{ "key_id": key_id, "registration_id": R1, "cipher": "eds-1", "key_bits": 256,
        "sharing": { "generation": 1, "m": 1, "n": 1, "stores": [store], "check": "07".repeat(32) },
        "share": { "scheme": "gf256-1", "index": 1, "m": 1, "n": 1, "data": data_encoding::BASE64.encode(&[7; 64]) },
        "permissions": { "owner": owner, "group": "default-group", "user": "pdrwl-gs",
            "group_permissions": "--------", "other": "--------", "acl": [], "version": 1,
            "change_id": "00112233445566778899aabbccddeeff" } }] })
}

async fn post(grid_url: &str, client: &reqwest::Client, operation: &str, body: &Value) -> Option<Value> {
    let request = client.post(format!("{grid_url}/v1/entries/{operation}"));
    let request = request
        .header("content-type", "application/json")
        .body(body.to_string());
    request.send().await.ok()?.json().await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_store_has_everything_that_it_answered() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = grid(folder.path());
    let url = grid.urls().remove(0);
    let alice = client(&grid, "alice");
    let who: Value = alice
        .get(format!("{url}/v1/whoami"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(who["method"], "proxy");
    let dn = who["dn"].as_str().unwrap().to_owned();
    let store = about(&grid, &alice).await["store"].as_str().unwrap().to_owned();
    let register = |writer: usize| {
        let (url, alice, dn, store) = (url.clone(), alice.clone(), dn.clone(), store.clone());
        async move {
            let mut answered = Vec::new();
            for number in 0..1000 {
                let key_id = format!("/kill/{writer}/{number}");
                let Some(answer) = post(&url, &alice, "create", &create(&key_id, &dn, &store)).await else {
                    break;
                };
                assert_eq!(answer["items"][0]["status"], "ok", "{answer}");
                answered.push(key_id);
            }
            answered
        }
    };
    let writers: Vec<_> = (0..8).map(|writer| tokio::spawn(register(writer))).collect();
    // Killed once some are answered, while others are under way.
    let some = json!({ "items": [{ "key_id": "/kill/0/20" }] });
    while post(&url, &alice, "read", &some).await.unwrap()["items"][0]["status"] != "ok" {
        tokio::task::yield_now().await;
    }
    grid.kill(1).unwrap();
    let mut answered = Vec::new();
    for writer in writers {
        answered.extend(writer.await.unwrap());
    }
    assert!(answered.len() >= 20 && answered.len() < 8000, "{}", answered.len());
    grid.start(1).unwrap();
    for chunk in answered.chunks(100) {
        let items: Vec<_> = chunk.iter().map(|key_id| json!({ "key_id": key_id })).collect();
        let answer = post(&url, &client(&grid, "alice"), "read", &json!({ "items": items }))
            .await
            .unwrap();
        for item in answer["items"].as_array().unwrap() {
            assert_eq!(item["status"], "ok", "{item}");
        }
    }
    let somebody_else = client(&grid, "bob");
    let item = json!({ "items": [{ "key_id": answered[0] }, { "key_id": "/kill/none" }] });
    let answer = post(&url, &somebody_else, "read", &item).await.unwrap();
    assert_eq!(answer["items"][0]["problem"], answer["items"][1]["problem"]);
    // No share and no key id in the log.
    let log = std::fs::read_to_string(grid.store_log(1)).unwrap();
    assert!(
        log.contains("\"answered\"") && !log.contains("/kill/") && !log.contains("BwcHBwcH"),
        "{log}"
    );
}

#[tokio::test]
async fn without_a_certificate_nobody_gets_in() {
    let folder = tempfile::tempdir().unwrap();
    let grid = grid(folder.path());
    let stranger = reqwest::Client::builder().tls_backend_preconfigured({
        let pki = grid.pki().unwrap();
        let trust = TrustStore::directory(pki.certificates(), Policy::client(false)).unwrap();
        let credential = Credential::from_file(&pki.working_proxy("alice"), None).unwrap();
        let mut config = tls::client_config(&credential, Arc::new(trust)).unwrap();
        config.client_auth_cert_resolver = Arc::new(NoCertificate);
        config
    });
    let stranger = stranger.build().unwrap();
    assert!(
        stranger
            .get(format!("{}/v1/about", grid.urls()[0]))
            .send()
            .await
            .is_err()
    );
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn sigterm_ends_a_store_that_answered_everything_and_signed_its_audit_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = grid(folder.path());
    let url = grid.urls().remove(0);
    let alice = client(&grid, "alice");
    let about = about(&grid, &alice).await;
    let dn = grid.pki().unwrap().user_dn("alice").unwrap().to_owned();
    let item = create("/term/1", &dn, about["store"].as_str().unwrap());
    assert_eq!(
        post(&url, &alice, "create", &item).await.unwrap()["items"][0]["status"],
        "ok"
    );
    let config = grid.store_directory(1).join("hydra-keystore.toml");
    let config = config.to_str().unwrap();
    // A second process on the same database is refused, and looking at the audit log is not.
    let (code, _, error) = run(&["serve", config]);
    assert!(code == 75 && error.contains("in use by another process"), "{error}");
    let (code, out, error) = run(&["audit", "verify", config]);
    assert!(
        code == 0 && out.starts_with("ok: 1 lines, signed up to line 0\n"),
        "{out}{error}"
    );
    grid.terminate(1).unwrap();
    let log = std::fs::read_to_string(grid.store_log(1)).unwrap();
    assert!(log.contains("stopping") && log.contains("audit log signed"), "{log}");
    let (code, out, _) = run(&["audit", "verify", config]);
    assert!(
        code == 0 && out.starts_with("ok: 1 lines, signed up to line 1\n"),
        "{out}"
    );
    let head = out.lines().nth(1).unwrap().to_owned();
    assert_eq!(run(&["audit", "verify", config, "--head", &head]).0, 0);
    assert_eq!(run(&["audit", "verify", config, "--head", "nonsense"]).0, 2);
    let (code, out, _) = run(&["audit", "show", config]);
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &line["operation"], &line["key_id"]),
        (0, &json!("create"), &json!("/term/1"))
    );
    let raw = rusqlite::Connection::open(grid.store_directory(1).join("keystore.db")).unwrap();
    raw.execute_batch("DROP TRIGGER audit_is_not_cut; DELETE FROM audit")
        .unwrap();
    let (code, _, error) = run(&["audit", "verify", config, "--head", &head]);
    assert!(code == 65 && error.contains("signed up to line 1"), "{error}");
}

#[tokio::test]
async fn a_limit_to_the_size_of_files_refuses_changes_and_nothing_else() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let folder = tempfile::tempdir().unwrap();
    let grid = grid(folder.path());
    let url = grid.urls().remove(0);
    let alice = client(&grid, "alice");
    let store = about(&grid, &alice).await["store"].as_str().unwrap().to_owned();
    let dn = grid.pki().unwrap().user_dn("alice").unwrap().to_owned();
    let item = |key_id: &str| create(key_id, &dn, &store);
    let said = async |key_id: &str| {
        let mut answer = post(&url, &alice, "create", &item(key_id)).await.unwrap();
        answer["items"][0].take()
    };
    assert_eq!(said("/full/1").await["status"], "ok");
    let state = std::fs::read(grid.directory().join("state.json")).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    let number = find_pid(&state["stores"][0]["process"]).unwrap();
    let pid = Pid::from_raw(i32::try_from(number).unwrap());
    let limited = |current| Rlimit { current, maximum: None };
    prlimit(pid, Resource::Fsize, limited(Some(4096))).unwrap();
    let refused = said("/full/2").await;
    assert_eq!(
        refused["problem"]["type"], "urn:hydra-eds:problem:storage-full",
        "{refused}"
    );
    let keys = json!({ "items": [{ "key_id": "/full/1" }, { "key_id": "/full/2" }] });
    let read = post(&url, &alice, "read", &keys).await.unwrap();
    assert_eq!(
        (&read["items"][0]["status"], &read["items"][1]["problem"]["status"]),
        (&json!("ok"), &json!(404))
    );
    prlimit(pid, Resource::Fsize, limited(None)).unwrap();
    assert_eq!(said("/full/2").await["status"], "ok");
}

/// The number of the process, whatever else is remembered of it.
fn find_pid(process: &Value) -> Option<u64> {
    process["pid"].as_u64()
}

#[tokio::test]
async fn the_monitor_says_live_ready_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    let options = GridOptions {
        stores: 1,
        threshold: 1,
        commands: false,
        programs: Path::new(PROGRAM).parent().map(PathBuf::from),
        store_settings: "[monitor]\nlisten = \"127.0.0.1:0\"\n".into(),
        ..GridOptions::default()
    };
    let grid = Grid::up(&folder.path().join("grid"), &options).unwrap();
    let alice = client(&grid, "alice");
    about(&grid, &alice).await;
    let log = std::fs::read_to_string(grid.store_log(1)).unwrap();
    let line = log.lines().find(|line| line.contains("monitor listening")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    let get = async |path: &str| {
        let answer = alice.get(format!("http://{}{path}", line["address"].as_str().unwrap()));
        let answer = answer.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("/live").await, (200, "live\n".into()));
    assert_eq!(get("/ready").await, (200, "ready\n".into()));
    let (status, metrics) = get("/metrics").await;
    assert!(
        status == 200 && metrics.contains("requests_total{path=\"/v1/about\",status=\"200\"} 1"),
        "{metrics}"
    );
    assert_eq!(get("/v1/about").await.0, 404);
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn init_writes_a_configuration_that_check_reads() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    let rule = "/my vo/=/DC=org/CN=Alice \"A\"";
    let (code, config, error) = run(&["init", dir.to_str().unwrap(), "--store-id", "ks-a", "--create", rule]);
    assert_eq!(code, 0, "{error}");
    let config = config.trim_end();
    let text = std::fs::read_to_string(config).unwrap();
    assert!(text.contains("store_id = \"ks-a\"") && text.contains("prefix = \"/my vo/\""));
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("store.key"), mode("keystore.db")), (0o600, 0o600));
    assert_eq!(std::fs::read(dir.join("store.key")).unwrap().len(), 32);
    // There is no host certificate yet: the only faults.
    std::fs::write(config, text.replace("/etc/grid-security", "/nowhere")).unwrap();
    let (code, _, error) = run(&["check", config]);
    assert_eq!(code, 78);
    for fault in ["tls.certificate", "tls.key", "tls.ca_dir"] {
        assert!(error.contains(fault), "{error}");
    }
    assert_eq!(error.matches("; ").count(), 2, "{error}");
    std::fs::write(config, text.replace("log = \"info\"", "log = \"hydra=loud\"")).unwrap();
    let (code, _, error) = run(&["check", config]);
    assert!(
        code == 78 && error.contains("log: `hydra=loud` is no log level"),
        "{error}"
    );
    let (code, _, error) = run(&["init", dir.to_str().unwrap()]);
    assert!(code == 73 && error.contains("is not empty"), "{error}");
    assert_eq!(run(&["init", "x", "--create", "nonsense"]).0, 2);
    assert_eq!(run(&["serve", "/nowhere.toml"]).0, 78);
}

#[test]
fn init_that_fails_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("store");
    // no file may have more than a kilobyte or two: the key has room, the database has not
    let script = "trap '' XFSZ; ulimit -f 2; exec \"$1\" init \"$2\" --store-id ks-a";
    let limited = Command::new("sh")
        .args(["-c", script, "sh", PROGRAM, dir.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(!limited.status.success());
    assert!(!dir.exists(), "{}", String::from_utf8_lossy(&limited.stderr));
    assert_eq!(run(&["init", dir.to_str().unwrap(), "--store-id", "ks-a"]).0, 0);
}
