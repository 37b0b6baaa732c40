//! The store as a process against bare axum on rustls, in the same run: requests over kept connections, requests with a
//! connection each, registrations, memory (`docs/src/performance.md`). Numbers are printed, nothing passes or fails.
//!
//! Where there are two processors or more and `taskset`, the server has the first for itself and the load comes from
//! the others. `cargo bench` builds for release; `--rounds N` and `--seconds N` make it longer or shorter.
#![allow(clippy::unwrap_used, reason = "a bench may stop at the first surprise")]
#![allow(clippy::print_stdout, reason = "a bench prints")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use grid_identity::{Credential, Policy, TrustStore, tls};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use testgrid::pki::{Pki, PkiOptions};
use testgrid::{Grid, GridOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const CLIENTS: usize = 16;
const KEYS: u64 = 1000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    if let Some(place) = arguments.iter().position(|argument| argument == "--bare") {
        return runtime.block_on(bare(Path::new(&arguments[place + 1])));
    }
    let number = |name: &str, default: u64| {
        let place = arguments.iter().position(|argument| argument == name);
        place.map_or(default, |place| arguments[place + 1].parse().unwrap())
    };
    runtime.block_on(compare(
        number("--rounds", 3),
        Duration::from_secs(number("--seconds", 2)),
    ));
}

// --- the rival --------------------------------------------------------------------------------------------------------

/// Verifies the client, reads the body, answers as many bytes as a store does.
async fn bare(pki: &Path) {
    let pki = Pki::open(pki).unwrap();
    let (certificate, key) = pki.host("keystore1");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for entry in std::fs::read_dir(pki.certificates()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "0") {
            let _ = roots.add(CertificateDer::from_pem_file(path).unwrap());
        }
    }
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let chain = CertificateDer::pem_file_iter(certificate)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap());
    let mut config = config.unwrap();
    config.send_tls13_tickets = 0;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let answer = Bytes::from(vec![b'x'; 700]);
    let handler = move |body: Bytes| {
        let answer = answer.clone();
        async move {
            std::hint::black_box(body);
            answer
        }
    };
    let router = Router::new().route("/v1/entries/read", post(handler));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
                .await;
        });
    }
}

struct Bare {
    child: Child,
    address: SocketAddr,
}

impl Bare {
    fn start(pki: &Path) -> Self {
        use std::io::BufRead;
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.arg("--bare").arg(pki).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self {
            child,
            address: line.trim().parse().unwrap(),
        }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// --- the load ---------------------------------------------------------------------------------------------------------

#[derive(Clone)]
struct Target {
    address: SocketAddr,
    connector: TlsConnector,
}

type Sender = SendRequest<Full<Bytes>>;

impl Target {
    async fn connect(&self) -> Sender {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = self.connector.connect(name, stream).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        sender
    }
}

async fn send(sender: &mut Sender, operation: &str, body: Bytes) -> Bytes {
    let request = hyper::Request::post(format!("/v1/entries/{operation}"))
        .header("host", "127.0.0.1")
        .header("content-type", "application/json")
        .body(Full::new(body));
    sender.ready().await.unwrap();
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.into_body().collect().await.unwrap().to_bytes()
}

fn read_body(number: u64) -> Bytes {
    json!({ "items": [{ "key_id": format!("/bench/{}", number % KEYS) }] })
        .to_string()
        .into()
}

/// How often in a second `CLIENTS` at once did `work`, which is given a connection of its own and a number.
async fn rate<F>(
    target: &Target,
    time: Duration,
    kept: bool,
    work: impl Fn(Sender, u64) -> F + Clone + Send + 'static,
) -> f64
where
    F: Future<Output = Sender> + Send,
{
    let counter = Arc::new(AtomicU64::new(0));
    let end = Instant::now() + time;
    let client = |_| {
        let (target, work, counter) = (target.clone(), work.clone(), Arc::clone(&counter));
        tokio::spawn(async move {
            let mut sender = target.connect().await;
            while Instant::now() < end {
                let number = counter.fetch_add(1, Ordering::Relaxed);
                if !kept {
                    sender = target.connect().await;
                }
                sender = work(sender, number).await;
            }
        })
    };
    let start = Instant::now();
    let clients: Vec<_> = (0..CLIENTS).map(client).collect();
    for client in clients {
        client.await.unwrap();
    }
    counter.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

async fn reading(target: &Target, time: Duration, kept: bool) -> f64 {
    let work = |mut sender: Sender, number| async move {
        send(&mut sender, "read", read_body(number)).await;
        sender
    };
    rate(target, time, kept, work).await
}

fn create(dn: &str, store: &str, key_id: &str) -> Value {
    json!({ "key_id": key_id, "registration_id": format!("{:032x}", 7), "cipher": "eds-1", "key_bits": 256,
        "sharing": { "generation": 1, "m": 1, "n": 1, "stores": [store], "check": "07".repeat(32) },
        "share": { "scheme": "gf256-1", "index": 1, "m": 1, "n": 1, "data": data_encoding::BASE64.encode(&[7; 64]) },
        "permissions": { "owner": dn, "group": "default-group", "user": "pdrwl-gs", "group_permissions": "--------",
            "other": "--------", "acl": [], "version": 1, "change_id": "00112233445566778899aabbccddeeff" } })
}

/// Entries made in a second, so many with each request.
async fn registering(target: &Target, time: Duration, dn: &str, store: &str, batch: u64) -> f64 {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let (dn, store): (Arc<str>, Arc<str>) = (dn.into(), store.into());
    let work = move |mut sender: Sender, number| {
        let items: Vec<Value> = (0..batch)
            .map(|item| create(&dn, &store, &format!("/made/{run}/{number}/{item}")))
            .collect();
        async move {
            let answer = send(&mut sender, "create", json!({ "items": items }).to_string().into()).await;
            assert!(!answer.windows(7).any(|window| window == b"problem"));
            sender
        }
    };
    rate(target, time, true, work).await * batch as f64
}

// --- the comparison ---------------------------------------------------------------------------------------------------

/// Keeps a process, or this one, to some processors.
fn pin(pid: u32, processors: &str) -> bool {
    let mut command = Command::new("taskset");
    let run = command
        .args(["-apc", processors, &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    run.status().is_ok_and(|status| status.success())
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

async fn compare(rounds: u64, time: Duration) {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::create(&folder.path().join("pki"), &PkiOptions::default()).unwrap();
    // Without groups and roles: the rival could not verify the proxy that has them.
    let dn = pki.user_dn("alice").unwrap().to_owned();
    let options = GridOptions {
        stores: 1,
        threshold: 1,
        commands: false,
        pki: Some(pki.directory().to_owned()),
        programs: Path::new(env!("CARGO_BIN_EXE_hydra-keystore"))
            .parent()
            .map(PathBuf::from),
        store_settings: format!(
            "log = \"warn\"\n[limits]\nitems_per_second = 4000000\nburst_items = 4000000\n\
             [[create]]\nprefix = \"\"\nprincipal = \"{dn}\"\n"
        ),
        ..GridOptions::default()
    };
    let grid = Grid::up(&folder.path().join("grid"), &options).unwrap();
    let state: Value = serde_json::from_slice(&std::fs::read(grid.directory().join("state.json")).unwrap()).unwrap();
    let store_pid = u32::try_from(state["stores"][0]["process"]["pid"].as_u64().unwrap()).unwrap();
    let idle = resident_kib(store_pid);
    let rival = Bare::start(pki.directory());
    let processors = std::thread::available_parallelism().unwrap().get();
    let pinned = processors > 1
        && pin(store_pid, "0")
        && pin(rival.child.id(), "0")
        && pin(std::process::id(), &format!("1-{}", processors - 1));

    let (certificate, key) = pki.user("alice");
    let credential = Credential::from_cert_and_key(&certificate, &key, None).unwrap();
    let trust = TrustStore::directory(pki.certificates(), Policy::client(false)).unwrap();
    let mut config = tls::client_config(&credential, Arc::new(trust)).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let address = grid.urls()[0].trim_start_matches("https://").parse().unwrap();
    let store = Target {
        address,
        connector: connector.clone(),
    };
    let bare = Target {
        address: rival.address,
        connector,
    };

    let id = store_id(&grid);
    let mut sender = store.connect().await;
    for batch in 0..KEYS / 100 {
        let items: Vec<_> = (0..100)
            .map(|item| create(&dn, &id, &format!("/bench/{}", batch * 100 + item)))
            .collect();
        let answer = send(&mut sender, "create", json!({ "items": items }).to_string().into()).await;
        assert!(!answer.windows(7).any(|window| window == b"problem"), "{answer:?}");
    }
    let answer = send(&mut sender, "read", read_body(7)).await;
    assert!(answer.windows(6).any(|window| window == b"\"data\""), "{answer:?}");

    println!(
        "The store against bare axum on rustls, {CLIENTS} clients, medians of {rounds} rounds of {} s{}",
        time.as_secs(),
        if pinned {
            ", the server on one processor of its own"
        } else {
            ", not pinned"
        }
    );
    let mut columns: [Vec<f64>; 6] = Default::default();
    for _ in 0..rounds {
        columns[0].push(reading(&bare, time, true).await);
        columns[1].push(reading(&store, time, true).await);
        columns[2].push(reading(&bare, time, false).await);
        columns[3].push(reading(&store, time, false).await);
        columns[4].push(registering(&store, time, &dn, &id, 1).await);
        columns[5].push(registering(&store, time, &dn, &id, 100).await);
    }
    let mut median = columns.iter_mut().map(|values| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    });
    let mut next = || median.next().unwrap();
    println!("{:<52} {:>9} {:>9} {:>7}", "", "bare", "store", "ratio");
    for title in [
        "read, kept connections, requests/s",
        "read, a connection each (P-256), requests/s",
    ] {
        let (bare, store) = (next(), next());
        println!("{title:<52} {bare:>9.0} {store:>9.0} {:>7.2}", store / bare);
    }
    println!(
        "{:<52} {:>9} {:>9.0}",
        "create, flushed, one a request, entries/s",
        "-",
        next()
    );
    println!(
        "{:<52} {:>9} {:>9.0}",
        "create, flushed, 100 a request, entries/s",
        "-",
        next()
    );

    const MANY: u64 = 500;
    let before = resident_kib(store_pid);
    let mut connections = Vec::new();
    for _ in 0..MANY {
        let mut sender = store.connect().await;
        send(&mut sender, "read", read_body(1)).await;
        connections.push(sender);
    }
    let after = resident_kib(store_pid);
    println!(
        "memory of the store before anybody came: {:.1} MiB",
        idle as f64 / 1024.0
    );
    println!(
        "memory of the store with {MANY} connections more: {:.1} MiB, {} KiB for each",
        after as f64 / 1024.0,
        after.saturating_sub(before) / MANY
    );
    drop(connections);
}

fn store_id(grid: &Grid) -> String {
    let config = std::fs::read_to_string(grid.store_directory(1).join("hydra-keystore.toml")).unwrap();
    let line = config
        .lines()
        .find_map(|line| line.strip_prefix("store_id = \""))
        .unwrap();
    line.trim_end_matches('"').to_owned()
}
