//! A WebDAV door of a storage element that can misbehave on command: in this process, over TLS, its files in memory.
//!
//! Real servers keep to the rules, or break them in their own ways only; this one breaks off, hangs, sends on and lies.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::listening::Listening;

/// How a door behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// As it should.
    Honest,
    /// Sends everybody on to the same path at this URL, as doors do that have no disks.
    SendOn(String),
    /// Takes and gives nothing: 403.
    Refuse,
    /// Gives, and takes no removal: 403.
    RefuseRemoval,
    /// Takes files, and does not say of one that is there what it is: 403.
    RefuseLook,
    /// Has no room: 507.
    Full,
    /// Reads so many bytes of a file and no more.
    HangAfter(usize),
    /// Reads so many bytes of a file, keeps them, and ends the connection.
    CutUploadAfter(usize),
    /// Gives so many bytes of a file and ends the connection.
    CutDownloadAfter(usize),
    /// Gives so many bytes of a file and no more.
    HangDownloadAfter(usize),
    /// Has another checksum for what it was sent.
    OtherChecksum,
    /// Gives the whole file whatever range is asked for.
    WholeFile,
}

/// One that runs until it is dropped.
pub struct Door {
    listening: Listening,
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
}

struct Inner {
    way: Way,
    files: BTreeMap<String, Bytes>,
    /// Method and path of every request.
    requests: Vec<String>,
    /// Bytes of files that came in, whatever became of them.
    taken: usize,
}

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

impl Door {
    /// Starts one on a free port of 127.0.0.1 with a host's certificate; clients need one that `anchors` verify.
    ///
    /// # Panics
    /// Where that is impossible: it is for tests.
    pub fn start(certificate: &Path, key: &Path, anchors: &Path) -> Self {
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner {
                way: Way::Honest,
                files: BTreeMap::new(),
                requests: Vec::new(),
                taken: 0,
            }),
        });
        let served = Arc::clone(&shared);
        let listening = Listening::start(certificate, key, anchors, move |socket, tls| {
            connection(socket, tls, Arc::clone(&served))
        });
        Self { listening, shared }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.listening.address.port())
    }

    /// Changes how it behaves from the next request on.
    pub fn behave(&self, way: Way) {
        self.shared.inner().way = way;
    }

    /// The bytes at a path, if there is a file.
    pub fn file(&self, path: &str) -> Option<Vec<u8>> {
        self.shared.inner().files.get(path).map(|bytes| bytes.to_vec())
    }

    /// Puts other bytes at a path.
    pub fn set_file(&self, path: &str, bytes: impl Into<Bytes>) {
        self.shared.inner().files.insert(path.to_owned(), bytes.into());
    }

    /// Method and path of every request so far.
    pub fn requests(&self) -> Vec<String> {
        self.shared.inner().requests.clone()
    }

    /// How many bytes of files came in.
    pub fn taken(&self) -> usize {
        self.shared.inner().taken
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connection(socket: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    let Ok(stream) = tls.accept(socket).await else {
        return;
    };
    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
    let server = hyper::server::conn::http1::Builder::new();
    // an error is what some ways are for
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Answer> {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let way = {
        let mut inner = shared.inner();
        inner.requests.push(format!("{method} {path}"));
        inner.way.clone()
    };
    match way {
        Way::SendOn(to) => {
            let query = request.uri().query().map_or(String::new(), |query| format!("?{query}"));
            let mut answer = told(StatusCode::TEMPORARY_REDIRECT, "");
            let location = format!("{to}{path}{query}").parse().map_err(io::Error::other)?;
            answer.headers_mut().insert(header::LOCATION, location);
            return Ok(answer);
        }
        Way::Refuse => return Ok(told(StatusCode::FORBIDDEN, "You may not, says the door.")),
        Way::RefuseRemoval if method == Method::DELETE => return Ok(told(StatusCode::FORBIDDEN, "It stays.")),
        Way::Full if method == Method::PUT => return Ok(told(StatusCode::INSUFFICIENT_STORAGE, "The disk is full.")),
        _ => {}
    }
    if way == Way::RefuseLook && method == Method::HEAD && shared.inner().files.contains_key(&path) {
        return Ok(told(StatusCode::FORBIDDEN, ""));
    }
    match method {
        Method::PUT => put(&shared, &path, request, &way).await,
        Method::GET => Ok(get(&shared, &path, request.headers(), &way)),
        Method::HEAD => Ok(head(&shared, &path, &way)),
        Method::DELETE => Ok(match shared.inner().files.remove(&path) {
            Some(_) => told(StatusCode::NO_CONTENT, ""),
            None => told(StatusCode::NOT_FOUND, "No such file."),
        }),
        _ => Ok(told(StatusCode::METHOD_NOT_ALLOWED, "")),
    }
}

async fn put(shared: &Shared, path: &str, request: Request<Incoming>, way: &Way) -> io::Result<Answer> {
    let is_there = shared.inner().files.contains_key(path);
    if is_there
        && request
            .headers()
            .get(header::IF_NONE_MATCH)
            .is_some_and(|value| value == "*")
    {
        return Ok(told(StatusCode::PRECONDITION_FAILED, "It exists."));
    }
    let mut body = request.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(data);
            shared.inner().taken += data.len();
        }
        let store = |bytes: &[u8]| {
            let bytes = Bytes::copy_from_slice(bytes);
            shared.inner().files.insert(path.to_owned(), bytes);
        };
        match way {
            Way::HangAfter(most) if bytes.len() >= *most => {
                store(&bytes);
                std::future::pending::<()>().await;
            }
            Way::CutUploadAfter(most) if bytes.len() >= *most => {
                store(&bytes);
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            _ => {}
        }
    }
    shared.inner().files.insert(path.to_owned(), bytes.into());
    Ok(told(StatusCode::CREATED, ""))
}

fn head(shared: &Shared, path: &str, way: &Way) -> Answer {
    let Some(bytes) = shared.inner().files.get(path).cloned() else {
        return told(StatusCode::NOT_FOUND, "");
    };
    let mut sum = adler32(&bytes);
    if *way == Way::OtherChecksum {
        sum ^= 1;
    }
    let mut answer = told(StatusCode::OK, "");
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    if let Ok(digest) = format!("adler32={sum:08x}").parse() {
        headers.insert("digest", digest);
    }
    answer
}

fn get(shared: &Shared, path: &str, headers: &HeaderMap, way: &Way) -> Answer {
    let Some(bytes) = shared.inner().files.get(path).cloned() else {
        return told(StatusCode::NOT_FOUND, "No such file.");
    };
    let begin = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let begin = begin.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let most = match way {
        Way::CutDownloadAfter(most) | Way::HangDownloadAfter(most) => *most,
        _ => usize::MAX,
    };
    let hangs = matches!(way, Way::HangDownloadAfter(_));
    let (status, bytes, range) = match begin {
        Some(begin) if *way != Way::WholeFile => {
            let total = bytes.len();
            let range = format!("bytes {begin}-{}/{total}", total.saturating_sub(1));
            (
                StatusCode::PARTIAL_CONTENT,
                bytes.slice(begin.min(total)..),
                Some(range),
            )
        }
        _ => (StatusCode::OK, bytes, None),
    };
    let length = bytes.len();
    let body = Giving {
        bytes,
        given: 0,
        most,
        hangs,
    };
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    if let Some(range) = range.and_then(|range| range.parse().ok()) {
        answer.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    answer
}

/// A file that is given in pieces, and not always all of it.
struct Giving {
    bytes: Bytes,
    given: usize,
    most: usize,
    hangs: bool,
}

impl Body for Giving {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let left = self.most - self.given;
        if left == 0 {
            return match self.hangs {
                // nobody wakes it, and nobody should
                true => Poll::Pending,
                false => Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into()))),
            };
        }
        let piece = self.bytes.len().min(left).min(40_000);
        self.given += piece;
        Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(piece)))))
    }
}

fn told(status: StatusCode, text: &'static str) -> Answer {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never: Infallible| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = status;
    answer
}

/// By the definition, a byte at a time.
fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (a + b) % 65_521)
    });
    b << 16 | a
}

/// Waits until something holds; what never comes is a failure, not a hang.
///
/// # Panics
/// If it never does.
pub fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !there() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
