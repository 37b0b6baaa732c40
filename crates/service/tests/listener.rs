//! The listener with real TLS and a router of the test's own: deadlines, limits, both versions of HTTP, credentials
//! that end while a connection is kept, stopping.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{Router, middleware};
use grid_identity::{Credential, Policy, TrustStore, tls};
use hydra_service::{Guard, Limits, ServeError, guard};
use rustls_pki_types::ServerName;
use serde_json::Value;
use testgrid::pki::{Issued, Pki, PkiOptions, ProxyOptions, Validity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// Longer than anything takes: for what would otherwise hang.
const NEVER: Duration = Duration::from_secs(30);

struct Server {
    dir: tempfile::TempDir,
    pki: Pki,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServeError>>,
    /// A request for `/held` has arrived.
    arrived: Arc<Notify>,
    /// Lets it go.
    release: Arc<Notify>,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(&dir.path().join("pki"), &PkiOptions::default()).unwrap();
        let trust = TrustStore::directory(pki.certificates(), Policy::server()).unwrap();
        let trust = Arc::new(trust.with_interval(Duration::ZERO));
        let (certificate, key) = pki.host("keystore1");
        let mut config = tls::server_config(&certificate, &key, Arc::clone(&trust)).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let held = {
            let (arrived, release) = (Arc::clone(&arrived), Arc::clone(&release));
            move || async move {
                arrived.notify_one();
                release.notified().await;
                "held"
            }
        };
        let guarded = middleware::from_fn_with_state(Arc::new(Guard::new(&limits)), guard::guard);
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/held", get(held))
            .route("/parts", get(|| async { axum::body::Body::from_stream(parts()) }))
            .layer(guarded);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            hydra_service::serve(listener, Arc::new(config), trust, router, &limits, stop).await
        });
        Self {
            dir,
            pki,
            address,
            stop: Some(stop),
            served,
            arrived,
            release,
        }
    }

    fn tls(&self, credential: &Path, protocol: &str) -> rustls::ClientConfig {
        let credential = Credential::from_file(credential, None).unwrap();
        let trust = TrustStore::directory(self.pki.certificates(), Policy::client(false)).unwrap();
        let mut config = tls::client_config(&credential, Arc::new(trust)).unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config
    }

    fn client_of(&self, credential: &Path, protocol: &str) -> reqwest::Client {
        let client = reqwest::Client::builder().tls_backend_preconfigured(self.tls(credential, protocol));
        let client = if protocol == "h2" { client } else { client.http1_only() };
        client.build().unwrap()
    }

    fn client(&self, protocol: &str) -> reqwest::Client {
        self.client_of(&self.pki.proxy("alice-plain"), protocol)
    }

    fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    fn credential(&self, name: &str, issued: &Issued) -> std::path::PathBuf {
        let path = self.dir.path().join(name);
        let mut file = std::fs::File::options();
        let mut file = file.write(true).create_new(true).mode(0o600).open(&path).unwrap();
        file.write_all(issued.credential_pem().as_bytes()).unwrap();
        path
    }

    async fn raw(&self, protocol: &str) -> tokio_rustls::client::TlsStream<TcpStream> {
        let config = Arc::new(self.tls(&self.pki.proxy("alice-plain"), protocol));
        let stream = TcpStream::connect(self.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(config);
        let name = ServerName::try_from("localhost").unwrap();
        connector.connect(name, stream).await.unwrap()
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Until the listener is closed: the server knows that it is to stop.
    async fn refuses(&self) {
        while TcpStream::connect(self.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}

/// Ten parts, one each tenth of a second.
fn parts() -> impl futures_util::Stream<Item = Result<&'static str, std::io::Error>> {
    futures_util::stream::unfold(0, |sent| async move {
        if sent == 10 {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Ok("part "), sent + 1))
    })
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(NEVER, work).await.unwrap()
}

#[tokio::test]
async fn both_versions_of_http_are_served() {
    let server = Server::start(Limits::default()).await;
    for (protocol, version) in [
        ("h2", reqwest::Version::HTTP_2),
        ("http/1.1", reqwest::Version::HTTP_11),
    ] {
        let client = server.client(protocol);
        for _ in 0..2 {
            let answer = client.get(server.url("/")).send().await.unwrap();
            assert_eq!(answer.version(), version);
            assert_eq!(answer.text().await.unwrap(), "here");
        }
    }
}

#[tokio::test]
async fn who_says_nothing_or_half_of_it_is_let_go_and_others_are_served() {
    let limits = Limits {
        handshake_ms: 200,
        header_ms: 200,
        ..Limits::default()
    };
    let server = Server::start(limits).await;
    let mut nothing = TcpStream::connect(server.address).await.unwrap();
    let mut half_a_hello = TcpStream::connect(server.address).await.unwrap();
    half_a_hello.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
    // The preface, its settings, and the first part of a header block whose rest never comes.
    let block = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\0\0\0\0\x01\x82";
    let said: [(&str, &[u8]); 5] = [
        ("http/1.1", b""),
        ("http/1.1", b"GET / HTTP/1.1\r\nhost: localhost\r\nx-"),
        ("h2", b""),
        ("h2", b"PRI * HTTP/2.0\r\n"),
        ("h2", block),
    ];
    let mut half = Vec::new();
    for (protocol, words) in said {
        let mut stream = server.raw(protocol).await;
        stream.write_all(words).await.unwrap();
        stream.flush().await.unwrap();
        half.push(stream);
    }
    let client = server.client("h2");
    assert_eq!(client.get(server.url("/")).send().await.unwrap().status(), 200);
    let mut rest = Vec::new();
    for stream in [&mut nothing, &mut half_a_hello] {
        let _ = in_time(stream.read_to_end(&mut rest)).await;
    }
    for stream in &mut half {
        // With or without a goodbye, perhaps after settings or a 408: but closed.
        let _ = in_time(stream.read_to_end(&mut rest)).await;
    }
    assert_eq!(client.get(server.url("/")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn over_the_limit_of_requests_in_flight_one_is_told_when_to_come_again() {
    let limits = Limits {
        in_flight: 1,
        ..Limits::default()
    };
    let server = Server::start(limits).await;
    let client = server.client("h2");
    let held = tokio::spawn(client.get(server.url("/held")).send());
    server.arrived.notified().await;
    let refused = client.get(server.url("/")).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    let problem: Value = serde_json::from_slice(&refused.bytes().await.unwrap()).unwrap();
    assert_eq!(problem["type"], "urn:hydra-eds:problem:busy");
    server.release.notify_one();
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    assert_eq!(client.get(server.url("/")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered() {
    let limits = Limits {
        request_ms: 100,
        ..Limits::default()
    };
    let server = Server::start(limits).await;
    let answer = server.client("h2").get(server.url("/held")).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn an_answer_that_comes_in_parts_is_not_cut_while_it_is_read() {
    for protocol in ["h2", "http/1.1"] {
        let limits = Limits {
            header_ms: 300,
            ..Limits::default()
        };
        let server = Server::start(limits).await;
        let answer = server.client(protocol).get(server.url("/parts")).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "part ".repeat(10), "{protocol}");
    }
}

#[tokio::test]
async fn stopping_finishes_what_is_in_flight() {
    for protocol in ["h2", "http/1.1"] {
        let limits = Limits {
            header_ms: 300,
            ..Limits::default()
        };
        let mut server = Server::start(limits).await;
        let client = server.client(protocol);
        let _silent = server.raw(protocol).await;
        let held = tokio::spawn(client.get(server.url("/held")).send());
        server.arrived.notified().await;
        server.stop();
        in_time(server.refuses()).await;
        assert!(!server.served.is_finished());
        server.release.notify_one();
        let answer = held.await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.text().await.unwrap(), "held");
        in_time(server.served).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let limits = Limits {
        stop_ms: 200,
        ..Limits::default()
    };
    let mut server = Server::start(limits).await;
    let held = tokio::spawn(server.client("h2").get(server.url("/held")).send());
    server.arrived.notified().await;
    server.stop();
    let ended = in_time(&mut server.served).await.unwrap();
    assert!(matches!(ended, Err(ServeError::CutShort { stop_ms: 200 })));
    held.abort();
}

/// Asks on one connection until it is refused.
async fn until_refused(server: &Server, client: &reqwest::Client) -> Value {
    loop {
        let answer = client.get(server.url("/")).send().await.unwrap();
        if answer.status() != 200 {
            assert_eq!(answer.status(), 401);
            return serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const ERIN: &str = "/DC=org/DC=hydragrid/O=People/CN=erin";

#[tokio::test]
async fn a_credential_revoked_while_connected_is_refused() {
    for protocol in ["h2", "http/1.1"] {
        let mut server = Server::start(Limits::default()).await;
        let erin = server.pki.authority().unwrap().user(ERIN).unwrap();
        let proxy = erin.proxy(&ProxyOptions::default()).unwrap();
        let client = server.client_of(&server.credential("erin", &proxy), protocol);
        let other = server.client(protocol);
        for client in [&client, &other] {
            assert_eq!(client.get(server.url("/")).send().await.unwrap().status(), 200);
        }
        server.pki.authority_mut().unwrap().revoke(&erin);
        server.pki.write_crl().unwrap();
        let problem = in_time(until_refused(&server, &client)).await;
        assert_eq!(problem["type"], "urn:hydra-eds:problem:credential");
        assert_eq!(other.get(server.url("/")).send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_proxy_that_ends_while_connected_is_refused() {
    let server = Server::start(Limits::default()).await;
    let erin = server.pki.authority().unwrap().user(ERIN).unwrap();
    // a busy machine may need longer for a handshake than the first ones live
    for seconds in [3, 9, 27] {
        let options = ProxyOptions {
            validity: Validity::lasting(Duration::from_secs(seconds)),
            ..ProxyOptions::default()
        };
        let proxy = erin.proxy(&options).unwrap();
        let client = server.client_of(&server.credential("erin", &proxy), "h2");
        if client.get(server.url("/")).send().await.is_ok() {
            let problem = in_time(until_refused(&server, &client)).await;
            assert_eq!(problem["type"], "urn:hydra-eds:problem:credential");
            return;
        }
    }
    panic!("it never got in");
}
