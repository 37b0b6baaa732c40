//! `dicom-recall serve`, the WLCG Tape REST API, as clients see it: curl and gfal2 against the real program, whose
//! agent is one of ours that keeps requests in memory.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};

use hydra_tests::site::Fabric;
use hydra_tests::{Ended, program, run};
use serde_json::{Value, json};
use tempfile::TempDir;

static FABRIC: LazyLock<Fabric> = LazyLock::new(Fabric::make);

/// Of whom a request is, and its files with their states.
type Request = (Option<String>, Vec<(String, &'static str)>);

/// What the agent knows: files by name with whether they are on disk, and requests.
#[derive(Default)]
struct Known {
    files: BTreeMap<String, bool>,
    requests: BTreeMap<String, Request>,
    asked: Vec<Value>,
    /// Whether a poll finds that everything came.
    comes: bool,
}

/// An agent beside a storage element, as far as `serve` asks it.
struct FakeAgent {
    path: PathBuf,
    known: Arc<Mutex<Known>>,
}

impl FakeAgent {
    fn start(folder: &Path) -> Self {
        let path = folder.join("place.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let known: Arc<Mutex<Known>> = Arc::default();
        let shared = Arc::clone(&known);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || converse(stream, &shared));
            }
        });
        Self { path, known }
    }

    fn file(&self, name: &str, is_on_disk: bool) {
        self.known.lock().unwrap().files.insert(name.to_owned(), is_on_disk);
    }

    fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut self.known.lock().unwrap().asked)
    }
}

fn converse(stream: UnixStream, known: &Mutex<Known>) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
        let ask: Value = serde_json::from_str(&line).unwrap();
        let answer = known.lock().unwrap().answer(&ask);
        let _ = reader.get_mut().write_all(format!("{answer}\n").as_bytes());
        line.clear();
    }
}

impl Known {
    fn answer(&mut self, ask: &Value) -> Value {
        self.asked.push(ask.clone());
        let names = |value: &Value| -> Vec<String> {
            let list = value.as_array().into_iter().flatten();
            list.map(|name| name.as_str().unwrap().to_owned()).collect()
        };
        match ask["ask"].as_str().unwrap() {
            "stat" => json!({ "answer": "files", "files": names(&ask["names"]).iter().map(|name| {
                let file = self.files.get(name);
                json!({
                    "name": name, "registered": file.is_some(), "size": 17, "sha256": null, "registered_at": 1,
                    "on_disk": file == Some(&true), "available": true, "wanted": false, "reason": null,
                })
            }).collect::<Vec<_>>() }),
            "prepare" => {
                let name = format!("r-{}", self.requests.len());
                let files = ask["files"].as_array().unwrap().iter().map(|wish| {
                    let name = wish["name"].as_str().unwrap().to_owned();
                    let state = match self.files.get(&name) {
                        None => "failed",
                        Some(true) => "completed",
                        Some(false) => "submitted",
                    };
                    (name, state)
                });
                let owner = ask["owner"].as_str().map(str::to_owned);
                self.requests.insert(name.clone(), (owner, files.collect()));
                json!({ "answer": "accepted", "request": name })
            }
            verb => self.about_request(verb, ask, &names(&ask["names"])),
        }
    }

    fn about_request(&mut self, verb: &str, ask: &Value, names: &[String]) -> Value {
        let refused = |refusal: &str| json!({ "answer": "refused", "refusal": refusal, "text": "no" });
        let request = ask["request"].as_str().unwrap().to_owned();
        let comes = self.comes;
        let Some((owner, files)) = self.requests.get_mut(&request) else {
            return refused("no_request");
        };
        if owner.as_deref() != ask["owner"].as_str() {
            return refused("no_request");
        }
        if !names.iter().all(|name| files.iter().any(|(known, _)| known == name)) {
            return refused("not_of_request");
        }
        match verb {
            "request" => {
                for (name, state) in files.iter_mut().filter(|file| comes && file.1 == "submitted") {
                    *state = "completed";
                    self.files.insert(name.clone(), true);
                }
                json!({ "answer": "request", "status": {
                    "request": request, "created_at": 1000,
                    "files": files.iter().map(|(name, state)| json!({
                        "name": name, "progress": state,
                        "reason": (*state == "failed").then_some("unknown"),
                        "on_disk": self.files.get(name) == Some(&true),
                        "started_at": null, "finished_at": (*state != "submitted").then_some(1005),
                    })).collect::<Vec<_>>(),
                } })
            }
            "cancel" => {
                for (_, state) in files.iter_mut().filter(|file| names.contains(&file.0)) {
                    *state = "cancelled";
                }
                json!({ "answer": "done" })
            }
            "forget" => {
                self.requests.remove(&request);
                json!({ "answer": "done" })
            }
            _ => json!({ "answer": "done" }),
        }
    }
}

/// The program, with its agent.
struct Serving {
    folder: TempDir,
    agent: FakeAgent,
    child: Child,
    port: u16,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Serving {
    fn start(allow: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let agent = FakeAgent::start(folder.path());
        let (certificate, key) = FABRIC.pki.host("se");
        let quoted = |path: &Path| toml(&path.to_string_lossy());
        let config = format!(
            "[serve]\nagent = \"place.sock\"\nlisten = \"127.0.0.1:0\"\nsite = \"TEST\"\nallow = [{allow}]\n{more}\n\
             [tls]\ncertificate = {}\nkey = {}\nca_dir = {}\nvoms_dir = {}\n",
            quoted(&certificate),
            quoted(&key),
            quoted(&FABRIC.pki.certificates()),
            quoted(&FABRIC.pki.vomsdir()),
        );
        fs::write(folder.path().join("serve.toml"), config).unwrap();
        let mut child = Command::new(program("dicom-recall"))
            .arg("serve")
            .arg(folder.path().join("serve.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        let log = || fs::read_to_string(folder.path().join("log")).unwrap();
        let port = port.unwrap_or_else(|| panic!("`{line}`: {}", log()));
        Self {
            folder,
            agent,
            child,
            port,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Asks as the owner of a proxy, or as nobody: curl's own view of it, the status and the body.
    fn curl(&self, proxy: Option<&Path>, method: &str, path: &str, body: Option<&Value>) -> (u16, Value, Ended) {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "-i", "-X", method, "--capath"])
            .arg(FABRIC.pki.certificates());
        if let Some(proxy) = proxy {
            command.arg("--cert").arg(proxy).arg("--key").arg(proxy);
        }
        if let Some(body) = body {
            command.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
        }
        let ended = run(command.arg(self.url(path)));
        let status = ended.stdout.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = ended.stdout.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let body = serde_json::from_str(body).unwrap_or(Value::Null);
        (status.unwrap_or(0), body, ended)
    }

    fn alice(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let (status, body, _) = self.curl(Some(&FABRIC.alice), method, path, body);
        (status, body)
    }
}

fn toml(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn alice_dn() -> String {
    toml(FABRIC.pki.user_dn("alice").unwrap())
}

#[test]
fn whoever_is_allowed_stages_polls_cancels_releases_and_forgets() {
    let serving = Serving::start(&alice_dn(), "lifetime_s = 7200");
    let agent = &serving.agent;
    agent.file("/eds/1", false);
    agent.file("/eds/2", true);
    let (status, body) = serving.alice("GET", "/.well-known/wlcg-tape-rest-api", None);
    assert_eq!((status, &body["sitename"]), (200, &json!("TEST")));
    let uri = body["endpoints"][0]["uri"].as_str().unwrap();
    assert!(uri.ends_with(&format!(":{}/api/v1", serving.port)), "{uri}");

    let files = json!({ "files": [
        { "path": "/eds/1", "diskLifetime": "P1D", "targetedMetadata": { "OTHER": { "x": [1] } } },
        { "path": "/eds/2" }, { "path": "/eds/none" },
    ] });
    let (status, body, ended) = serving.curl(Some(&FABRIC.alice), "POST", "/api/v1/stage", Some(&files));
    assert_eq!((status, &body), (201, &json!({ "requestId": "r-0" })));
    let location = ended
        .stdout
        .lines()
        .find(|line| line.to_lowercase().starts_with("location:"));
    assert!(location.unwrap().trim().ends_with("/api/v1/stage/r-0"), "{location:?}");
    let asked = agent.asked();
    assert_eq!(asked[0]["owner"], FABRIC.pki.user_dn("alice").unwrap());
    assert_eq!(asked[0]["files"][0], json!({ "name": "/eds/1", "lifetime_s": 7200 }));

    let states = || {
        let (status, body) = serving.alice("GET", "/api/v1/stage/r-0", None);
        assert_eq!(status, 200, "{body}");
        let files = body["files"].as_array().unwrap().clone();
        let states: Vec<_> = files
            .iter()
            .map(|file| file["state"].as_str().unwrap().to_owned())
            .collect();
        (states, body)
    };
    let (seen, body) = states();
    assert_eq!(seen, ["SUBMITTED", "COMPLETED", "FAILED"]);
    assert_eq!((&body["createdAt"], body.get("completedAt")), (&json!(1000), None));
    assert_eq!(body["files"][2]["error"], "nothing of that name is registered");
    agent.known.lock().unwrap().comes = true;
    let (seen, body) = states();
    assert_eq!(
        (seen[0].as_str(), &body["files"][0]["onDisk"]),
        ("COMPLETED", &json!(true))
    );
    assert_eq!(body["completedAt"], 1005);

    let (status, body) = serving.alice(
        "POST",
        "/api/v1/archiveinfo",
        Some(&json!({ "paths": ["/eds/1", "/eds/none"] })),
    );
    assert_eq!((status, &body[0]["locality"]), (200, &json!("DISK_AND_TAPE")));
    assert_eq!(
        body[1],
        json!({ "path": "/eds/none", "error": "nothing of that name is registered" })
    );

    let one = |path: &str| Some(json!({ "paths": [path] }));
    let verbs = ["/api/v1/stage/r-0/cancel", "/api/v1/release/r-0"];
    for verb in verbs {
        assert_eq!(serving.alice("POST", verb, one("/eds/1").as_ref()).0, 200, "{verb}");
        assert_eq!(serving.alice("POST", verb, one("/eds/7").as_ref()).0, 400, "{verb}");
    }
    assert_eq!(states().0[0], "CANCELLED");
    assert_eq!(serving.alice("DELETE", "/api/v1/stage/r-0", None).0, 200);
    for (method, path) in [("GET", "/api/v1/stage/r-0"), ("DELETE", "/api/v1/stage/r-0")] {
        let (status, body) = serving.alice(method, path, None);
        assert_eq!((status, &body["status"]), (404, &json!(404)), "{body}");
    }
    let log = serving.log();
    assert!(!log.contains("/eds/1"), "names are no matter of the log: {log}");
}

#[test]
fn others_are_kept_out_and_see_nothing_of_each_other() {
    let both = format!("{}, {}", alice_dn(), toml(FABRIC.pki.user_dn("bob").unwrap()));
    let serving = Serving::start(&both, "");
    serving.agent.file("/eds/1", false);
    let files = json!({ "files": [{ "path": "/eds/1" }] });
    assert_eq!(serving.alice("POST", "/api/v1/stage", Some(&files)).0, 201);
    let bob = |method: &str, path: &str, body: Option<&Value>| serving.curl(Some(&FABRIC.bob), method, path, body).0;
    assert_eq!(bob("GET", "/api/v1/stage/r-0", None), 404);
    assert_eq!(bob("DELETE", "/api/v1/stage/r-0", None), 404);
    let paths = json!({ "paths": ["/eds/1"] });
    assert_eq!(bob("POST", "/api/v1/stage/r-0/cancel", Some(&paths)), 404);
    assert_eq!(serving.alice("GET", "/api/v1/stage/r-0", None).0, 200);

    // by group, and nobody else
    let serving = Serving::start("\"/myvo/physicians\"", "");
    assert_eq!(serving.alice("POST", "/api/v1/stage", Some(&files)).0, 201);
    for (method, path, body) in [
        ("POST", "/api/v1/stage", Some(&files)),
        ("POST", "/api/v1/archiveinfo", Some(&paths)),
        ("GET", "/api/v1/stage/r-0", None),
    ] {
        let (status, body, _) = serving.curl(Some(&FABRIC.bob), method, path, body);
        assert_eq!(
            (status, &body["title"]),
            (403, &json!("you may not stage files here")),
            "{path}"
        );
    }
    assert_eq!(serving.agent.asked().len(), 1);
    // the handshake fails without a certificate
    let (status, _, ended) = serving.curl(None, "GET", "/.well-known/wlcg-tape-rest-api", None);
    assert_eq!(status, 0, "{ended:?}");
    assert_ne!(ended.code, Some(0));
}

#[test]
fn what_means_nothing_and_an_agent_that_is_away_have_problem_documents() {
    let serving = Serving::start(&alice_dn(), "files = 2\n");
    let stage = |body: &Value| serving.alice("POST", "/api/v1/stage", Some(body));
    let three = json!({ "files": [{ "path": "a" }, { "path": "b" }, { "path": "c" }] });
    for (body, expected) in [
        (json!([]), 400),
        (json!({ "files": [] }), 400),
        (json!({ "files": [{ "path": 7 }] }), 400),
        (json!({ "files": [{ "path": "/a", "diskLifetime": "long" }] }), 400),
        (three, 413),
    ] {
        let (status, told) = stage(&body);
        assert_eq!(
            (status, &told["status"]),
            (expected, &json!(expected)),
            "{body}: {told}"
        );
        assert!(told["title"].is_string() && told["detail"].is_string(), "{told}");
    }
    assert_eq!(serving.agent.asked(), [] as [Value; 0]);
    for (method, path) in [
        ("GET", "/api/v2/stage"),
        ("PUT", "/api/v1/stage"),
        ("GET", "/api/v1/stage/no%20such"),
        ("GET", "/api/v1/stage/..%2f..%2fx"),
    ] {
        let (status, told, ended) = serving.curl(Some(&FABRIC.alice), method, path, None);
        assert!(
            matches!(status, 404 | 405) && told["status"] == status,
            "{path}: {told}"
        );
        assert!(ended.stdout.contains("application/problem+json"), "{ended:?}");
    }
    fs::remove_file(&serving.agent.path).unwrap();
    let (status, _, ended) = serving.curl(
        Some(&FABRIC.alice),
        "POST",
        "/api/v1/archiveinfo",
        Some(&json!({ "paths": ["/a"] })),
    );
    assert_eq!(status, 503, "{ended:?}");
    assert!(ended.stdout.to_lowercase().contains("retry-after"), "{ended:?}");
    assert!(
        !ended.stdout.contains("place.sock"),
        "paths of ours are ours: {ended:?}"
    );
}

/// A command of gfal2, as alice.
fn gfal(name: &str, arguments: &[&str]) -> Ended {
    // Debian's own Python has its bindings; another may come first on the search path
    let program = if name == "python3" { "/usr/bin/python3" } else { name };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("GFAL_PYTHONBIN", "/usr/bin/python3")
        .env("X509_USER_PROXY", &FABRIC.alice)
        .env("X509_CERT_DIR", FABRIC.pki.certificates())
        .env_remove("X509_USER_CERT")
        .env_remove("X509_USER_KEY");
    run(&mut command)
}

/// Brings files online, asks how far they are, gives one back and one up: each line is what gfal2 makes of it.
const GFAL2: &str = "
import sys, gfal2
context = gfal2.creat_context()
files = sys.argv[1:]
errors, token = context.bring_online(files, 600, 60, True)
print('asked', token, errors)
print('polled', [str(one) for one in context.bring_online_poll(files, token)])
print('again', [str(one) for one in context.bring_online_poll(files, token)])
print('released', [str(one) for one in context.release(files[:1], token)])
print('aborted', [str(one) for one in context.abort_bring_online(files[:1], token)])
";

#[test]
fn peer_gfal2_brings_files_online() {
    let serving = Serving::start(&alice_dn(), "");
    serving.agent.file("/eds/1", false);
    let surl = |path: &str| format!("davs://localhost:{}{path}", serving.port);
    let ended = gfal("gfal-bringonline", &[&surl("/eds/1")]);
    assert!(ended.stdout.contains("/eds/1 QUEUED"), "{ended:?}\n{}", serving.log());
    let ended = gfal("gfal-archivepoll", &[&surl("/eds/1")]);
    assert!(ended.stdout.contains("/eds/1 READY"), "{ended:?}");
    serving.agent.known.lock().unwrap().comes = true;
    serving.agent.asked();
    let ended = gfal("python3", &["-c", GFAL2, &surl("/eds/1"), &surl("/eds/none")]);
    let unknown = "[Tape REST API] nothing of that name is registered";
    let expected = format!(
        "asked r-1 [None, None]\npolled ['None', '{unknown}']\nagain ['None', '{unknown}']\n\
         released ['None']\naborted ['None']\n"
    );
    assert_eq!(ended.stdout, expected, "{ended:?}");
    let asked = serving.agent.asked();
    let verbs: Vec<_> = asked.iter().map(|ask| ask["ask"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["prepare", "request", "request", "release", "cancel"]);
}
