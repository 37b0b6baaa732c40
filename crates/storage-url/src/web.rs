//! `https:` and `davs:`: WebDAV as storage elements speak it, with the credential as client certificate.
//!
//! A file is sent only when the server has said that it wants it (RFC 9110, "100-continue"): doors of dCache and
//! managers of XRootD send the client on to the server that has the disk, and what is a stream cannot be sent twice.
//! Each request has a connection of its own; it never leads from `https:` to a place without encryption.

use std::error::Error;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::{Reason, shortened};
use crate::{Access, Adler32, PIECE, PutOptions, Scheme, Source, Stat, StorageError, StorageUrl, Stored, checksum};

/// How long a server may take to say that it wants a file, before it gets it all the same: old ones never say so.
const CONTINUE: Duration = Duration::from_secs(2);
/// How long a connection with its handshake may take.
const CONNECT: Duration = Duration::from_secs(20);
/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often a server may send us on.
const REDIRECTS: usize = 8;
/// What is read of a refusal, which is for people.
const REFUSAL_BYTES: usize = 4096;

type BoxError = Box<dyn Error + Send + Sync>;
type BoxBody = UnsyncBoxBody<Bytes, BoxError>;

/// A connection, which ends with this.
struct Connection {
    sender: SendRequest<BoxBody>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer with the connection that it comes over.
struct Answer {
    response: Response<Incoming>,
    connection: Connection,
}

async fn connect(access: &Access, url: &StorageUrl) -> Result<Connection, StorageError> {
    let unreachable = |source| StorageError::Unreachable {
        url: url.to_string(),
        source,
    };
    let tls = access
        .tls
        .clone()
        .ok_or_else(|| StorageError::NoCredential { url: url.to_string() })?;
    let host = url.host().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|error| unreachable(Reason::of(&error)))?;
    let connecting = async {
        let tcp = TcpStream::connect((host, url.port().unwrap_or(443))).await?;
        tcp.set_nodelay(true)?;
        TlsConnector::from(tls).connect(name, tcp).await
    };
    let limit = CONNECT.min(access.idle);
    let stream = match timeout(limit, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(in_words(&error))),
        Err(_) => {
            return Err(unreachable(Reason::boxed(format!(
                "no connection in {} s",
                limit.as_secs()
            ))));
        }
    };
    // XRootD 5.5 knows some headers by their usual spelling alone, the length of what comes among them
    let mut http = http1::Builder::new();
    let made = http.title_case_headers(true).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = made.map_err(|error| unreachable(Reason::of(&error)))?;
    let task = tokio::spawn(async move {
        // whoever waits for the answer is told
        let _ = connection.await;
    });
    Ok(Connection { sender, task })
}

/// TLS errors lie inside I/O errors, which do not name them as their source.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    std::iter::successors(Some(error), |error| (*error).source()).find_map(|cause| {
        let mut inside = cause;
        while let Some(outer) = inside.downcast_ref::<io::Error>() {
            inside = outer.get_ref()?;
        }
        inside.downcast_ref()
    })
}

fn in_words(error: &(dyn Error + 'static)) -> BoxError {
    let Some(tls) = tls_error(error) else {
        // the words of rustls for a connection that ended are for programmers
        let kinds = [
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::BrokenPipe,
        ];
        let mut causes = std::iter::successors(Some(error), |error| (*error).source());
        let is_closed = causes.any(|cause| {
            let error = cause.downcast_ref::<io::Error>();
            error.is_some_and(|error| kinds.contains(&error.kind()))
        });
        return match is_closed {
            true => Reason::boxed("the server closed the connection"),
            false => Reason::of(error),
        };
    };
    let words = match (grid_identity::tls::refusal(tls), tls) {
        (Some(refusal), _) => format!("its certificate cannot be trusted: {refusal}"),
        (None, rustls::Error::InvalidCertificate(why)) => format!("its certificate cannot be trusted: {why}"),
        (None, rustls::Error::AlertReceived(alert)) => format!("it refused the credential (TLS alert {alert:?})"),
        (None, other) => other.to_string(),
    };
    Reason::boxed(words)
}

/// What became of a request that got no answer.
fn unanswered(url: &StorageUrl, error: &hyper::Error) -> StorageError {
    let refused = matches!(tls_error(error), Some(rustls::Error::AlertReceived(_)));
    let (url, source) = (url.to_string(), in_words(error));
    if refused {
        StorageError::Refused { url, source }
    } else {
        StorageError::Broken { url, source }
    }
}

fn request(
    method: &Method,
    url: &StorageUrl,
    headers: &HeaderMap,
    body: BoxBody,
) -> Result<Request<BoxBody>, StorageError> {
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    let built = Request::builder()
        .method(method)
        .uri(url.target())
        .header(header::HOST, format!("{}{port}", url.host()))
        .header(header::USER_AGENT, concat!("hydra-eds/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, "*/*")
        .body(body);
    let mut request = built.map_err(|error| StorageError::Failed {
        url: url.to_string(),
        what: format!("cannot be asked for: {error}"),
    })?;
    request.headers_mut().extend(headers.clone());
    Ok(request)
}

fn empty() -> BoxBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Sends a request without a body to wherever the server sends us on.
async fn ask(access: &Access, method: &Method, url: &StorageUrl, headers: &HeaderMap) -> Result<Answer, StorageError> {
    let mut place = url.clone();
    for _ in 0..=REDIRECTS {
        let mut connection = connect(access, &place).await?;
        let request = request(method, &place, headers, empty())?;
        let response = match timeout(access.idle, connection.sender.send_request(request)).await {
            Ok(response) => response.map_err(|error| unanswered(url, &error))?,
            Err(_) => return Err(idle(access, url)),
        };
        if !is_redirect(response.status()) {
            return Ok(Answer { response, connection });
        }
        place = next_place(url, &place, &response)?;
    }
    Err(StorageError::Failed {
        url: url.to_string(),
        what: "the server sends the client round in circles".into(),
    })
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn next_place(url: &StorageUrl, here: &StorageUrl, response: &Response<Incoming>) -> Result<StorageUrl, StorageError> {
    let location = response.headers().get(header::LOCATION);
    let location = location.and_then(|location| location.to_str().ok()).unwrap_or_default();
    let next = here
        .redirected(location)
        .ok()
        .filter(|next| next.scheme() == Scheme::Https);
    next.ok_or_else(|| StorageError::Failed {
        url: url.to_string(),
        what: "the server sends the client on to a place that is not https:".into(),
    })
}

fn idle(access: &Access, url: &StorageUrl) -> StorageError {
    StorageError::Idle {
        url: url.to_string(),
        idle: access.idle,
    }
}

/// What an answer that is no success means.
async fn refusal(url: &StorageUrl, answer: Answer) -> StorageError {
    let status = answer.response.status();
    let text = timeout(Duration::from_secs(5), first_bytes(answer.response.into_body())).await;
    drop(answer.connection);
    let text = shortened(&text.unwrap_or_default());
    let what = if text.is_empty() {
        format!("the server answered {status}")
    } else {
        format!("the server answered {status}: {text}")
    };
    let (url, source) = (url.to_string(), Reason::boxed(what.clone()));
    // how servers of XRootD tell a full disk, which HTTP had no word for
    let is_full = ["no space left", "insufficient space", "quota exceeded"]
        .iter()
        .any(|words| text.to_ascii_lowercase().contains(words));
    match status.as_u16() {
        401 | 403 => StorageError::Refused { url, source },
        404 | 410 => StorageError::NotFound { url },
        412 => StorageError::Exists { url },
        413 | 507 => StorageError::Full { url, source },
        _ if is_full => StorageError::Full { url, source },
        _ => StorageError::Failed { url, what },
    }
}

async fn first_bytes(mut body: Incoming) -> String {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        if bytes.len() >= REFUSAL_BYTES {
            bytes.truncate(REFUSAL_BYTES);
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn headers<const N: usize>(pairs: [(HeaderName, String); N]) -> HeaderMap {
    let pairs = pairs
        .into_iter()
        .filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?)));
    pairs.collect()
}

fn want_digest() -> (HeaderName, String) {
    (HeaderName::from_static("want-digest"), "adler32".to_owned())
}

/// What the headers say of the whole file: size and checksum.
fn told(headers: &HeaderMap) -> (Option<u64>, Option<u32>) {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bytes = text("content-length").and_then(|length| length.trim().parse().ok());
    (bytes, text("digest").and_then(checksum::of_digest))
}

async fn head(access: &Access, url: &StorageUrl) -> Result<(Option<u64>, Option<u32>), StorageError> {
    let answer = ask(access, &Method::HEAD, url, &headers([want_digest()])).await?;
    match answer.response.status().is_success() {
        true => Ok(told(answer.response.headers())),
        false => Err(refusal(url, answer).await),
    }
}

pub(crate) async fn stat(access: &Access, url: &StorageUrl) -> Result<Stat, StorageError> {
    let answer = ask(access, &Method::HEAD, url, &HeaderMap::new()).await?;
    match answer.response.status().is_success() {
        true => Ok(Stat {
            bytes: told(answer.response.headers()).0,
        }),
        false => Err(refusal(url, answer).await),
    }
}

pub(crate) async fn remove(access: &Access, url: &StorageUrl) -> Result<(), StorageError> {
    let answer = ask(access, &Method::DELETE, url, &HeaderMap::new()).await?;
    match answer.response.status().is_success() {
        true => Ok(()),
        false => Err(refusal(url, answer).await),
    }
}

/// A file that is being received.
pub(crate) struct Receiving {
    url: String,
    idle: Duration,
    /// None at the end.
    body: Option<(Incoming, Connection)>,
    sum: Adler32,
    /// What the server says is the checksum of all that comes.
    expected: Option<u32>,
}

/// Begins to receive; answers also how many bytes come in front of those that were asked for.
pub(crate) async fn get(access: &Access, url: &StorageUrl, offset: u64) -> Result<(Receiving, u64), StorageError> {
    // No checksum is asked for: XRootD 5.5 then reads the file twice, and takes one that is missing for a fault.
    let wanted = match offset {
        0 => HeaderMap::new(),
        offset => headers([(header::RANGE, format!("bytes={offset}-"))]),
    };
    let answer = ask(access, &Method::GET, url, &wanted).await?;
    let status = answer.response.status();
    let begins = answer.response.headers().get(header::CONTENT_RANGE);
    let begins = begins.and_then(|range| range.to_str().ok()).map(str::to_owned);
    let (_, digest) = told(answer.response.headers());
    let receiving = |answer: Answer, expected| Receiving {
        url: url.to_string(),
        idle: access.idle,
        body: Some((answer.response.into_body(), answer.connection)),
        sum: Adler32::default(),
        expected,
    };
    match status {
        StatusCode::OK => Ok((receiving(answer, digest), offset)),
        StatusCode::PARTIAL_CONTENT if offset > 0 => {
            let right = begins.is_some_and(|range| range.trim().starts_with(&format!("bytes {offset}-")));
            let failed = || StorageError::Failed {
                url: url.to_string(),
                what: "the server answered with another range than was asked for".into(),
            };
            right.then(|| (receiving(answer, None), 0)).ok_or_else(failed)
        }
        // there is nothing so far behind
        StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => {
            let mut nothing = receiving(answer, None);
            nothing.body = None;
            Ok((nothing, 0))
        }
        _ => Err(refusal(url, answer).await),
    }
}

impl Receiving {
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, StorageError> {
        loop {
            let Some((body, _connection)) = &mut self.body else {
                return Ok(None);
            };
            match timeout(self.idle, body.frame()).await {
                Err(_) => {
                    return Err(StorageError::Idle {
                        url: self.url.clone(),
                        idle: self.idle,
                    });
                }
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.sum.update(&data);
                        return Ok(Some(data));
                    }
                }
                Ok(Some(Err(error))) => {
                    return Err(StorageError::Broken {
                        url: self.url.clone(),
                        source: in_words(&error),
                    });
                }
                Ok(None) => {
                    self.body = None;
                    return self.check().map(|()| None);
                }
            }
        }
    }

    fn check(&self) -> Result<(), StorageError> {
        match self.expected {
            Some(expected) if expected != self.sum.value() => Err(StorageError::Altered {
                url: self.url.clone(),
                what: "Adler-32 checksum",
                found: format!("{expected:08x}"),
                sent: format!("{:08x}", self.sum.value()),
            }),
            _ => Ok(()),
        }
    }
}

/// A file on its way to a server: given out once, to whichever server wants it.
struct Flow {
    /// Set when a server wants it.
    open: AtomicBool,
    opened: AtomicWaker,
    bytes: Option<u64>,
    state: Mutex<State>,
}

struct State {
    source: Source,
    buffer: Vec<u8>,
    sum: Adler32,
    sent: u64,
    /// When bytes were given out last, or were to be had again.
    moved: Instant,
    /// The network could take more, and there is none yet.
    starved: bool,
    ended: bool,
    failed: Option<io::Error>,
}

impl Flow {
    fn new(source: Source, bytes: Option<u64>) -> Self {
        Self {
            open: AtomicBool::new(false),
            opened: AtomicWaker::new(),
            bytes,
            state: Mutex::new(State {
                source,
                buffer: vec![0; PIECE / 4],
                sum: Adler32::default(),
                sent: 0,
                moved: Instant::now(),
                starved: false,
                ended: false,
                failed: None,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn let_go(&self) {
        self.open.store(true, Ordering::Release);
        self.opened.wake();
    }

    fn has_begun(&self) -> bool {
        let state = self.state();
        state.sent > 0 || state.ended || state.failed.is_some()
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !self.open.load(Ordering::Acquire) {
            self.opened.register(context.waker());
            // it may have been let go in between
            if !self.open.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        let state = &mut *self.state();
        state.starved = true;
        let mut buffer = ReadBuf::new(&mut state.buffer);
        let read = ready!(Pin::new(&mut state.source).poll_read(context, &mut buffer));
        let filled = buffer.filled().len();
        (state.starved, state.moved) = (false, Instant::now());
        let read = read.and_then(|()| match self.bytes {
            Some(bytes) if filled == 0 && state.sent != bytes => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(bytes) if state.sent + filled as u64 > bytes => {
                Err(io::Error::other("there is more of it than was announced"))
            }
            _ => Ok(()),
        });
        Poll::Ready(match read {
            Ok(()) if filled == 0 => {
                state.ended = true;
                None
            }
            Ok(()) => {
                let bytes = Bytes::copy_from_slice(&state.buffer[..filled]);
                state.sum.update(&bytes);
                state.sent += bytes.len() as u64;
                Some(Ok(bytes))
            }
            Err(error) => {
                let kind = error.kind();
                state.failed = Some(error);
                Some(Err(kind.into()))
            }
        })
    }
}

impl Flow {
    /// What was sent, once the source itself says that it is at its end: where the length was announced nobody has
    /// asked it. None where there is more.
    fn poll_end(&self, context: &mut Context<'_>) -> Poll<io::Result<Option<Stored>>> {
        let ended = self.state().ended;
        if !self.open.load(Ordering::Acquire) {
            return Poll::Ready(Ok(None));
        }
        let more = if ended { None } else { ready!(self.poll(context)) };
        if let Some(error) = self.state().failed.take() {
            return Poll::Ready(Err(error));
        }
        let state = self.state();
        Poll::Ready(Ok(more.is_none().then(|| Stored {
            bytes: state.sent,
            adler32: state.sum.value(),
            checked: false,
        })))
    }
}

/// The body of a request that sends a [`Flow`].
struct Sending(Arc<Flow>);

impl Body for Sending {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = ready!(self.0.poll(context));
        Poll::Ready(next.map(|next| next.map(Frame::data).map_err(Into::into)))
    }

    fn size_hint(&self) -> SizeHint {
        self.0.bytes.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

pub(crate) async fn put(
    access: &Access,
    url: &StorageUrl,
    source: Source,
    options: &PutOptions,
) -> Result<Stored, StorageError> {
    let flow = Arc::new(Flow::new(source, options.bytes));
    let mut wanted = headers([(header::EXPECT, "100-continue".to_owned())]);
    if !options.overwrite {
        // not all servers obey; those that do not were asked whether it is there
        wanted.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
    }
    let mut place = url.clone();
    for _ in 0..=REDIRECTS {
        let answer = offer(access, url, &place, &flow, &wanted).await?;
        let status = answer.response.status();
        if is_redirect(status) && !flow.has_begun() {
            place = next_place(url, &place, &answer.response)?;
            continue;
        }
        if !status.is_success() {
            return Err(refusal(url, answer).await);
        }
        let sent = timeout(access.idle, std::future::poll_fn(|context| flow.poll_end(context))).await;
        let sent = sent
            .map_err(|_| idle(access, url))?
            .map_err(|source| StorageError::Source {
                url: url.to_string(),
                source,
            })?;
        let sent = sent.ok_or_else(|| StorageError::Broken {
            url: url.to_string(),
            source: Reason::boxed("the server was content before it had all"),
        })?;
        return verify(access, url, &sent).await;
    }
    Err(StorageError::Failed {
        url: url.to_string(),
        what: "the server sends the client round in circles".into(),
    })
}

async fn verify(access: &Access, url: &StorageUrl, sent: &Stored) -> Result<Stored, StorageError> {
    match head(access, url).await {
        Ok((bytes, adler32)) => crate::compare(url, sent, bytes, adler32),
        Err(error @ StorageError::NotFound { .. }) => Err(error),
        // it took the file, and does not let it be looked at
        Err(error) => {
            tracing::warn!(%url, %error, "cannot compare what was stored");
            Ok(*sent)
        }
    }
}

/// Offers the file to one server, and gives it if that one wants it.
async fn offer(
    access: &Access,
    url: &StorageUrl,
    place: &StorageUrl,
    flow: &Arc<Flow>,
    headers: &HeaderMap,
) -> Result<Answer, StorageError> {
    let mut connection = connect(access, place).await?;
    let body = Sending(Arc::clone(flow)).boxed_unsync();
    let mut request = request(&Method::PUT, place, headers, body)?;
    let wanted = Arc::clone(flow);
    hyper::ext::on_informational(&mut request, move |response| {
        if response.status() == StatusCode::CONTINUE {
            wanted.let_go();
        }
    });
    let offered = Instant::now();
    flow.state().moved = offered;
    let answer = {
        let mut answer = pin!(connection.sender.send_request(request));
        loop {
            tokio::select! {
                answer = &mut answer => break answer,
                () = tokio::time::sleep(TICK) => {}
            }
            if !flow.open.load(Ordering::Acquire) && offered.elapsed() >= CONTINUE {
                flow.let_go();
            }
            let is_idle = {
                let state = flow.state();
                !state.starved && state.moved.elapsed() > access.idle
            };
            if is_idle {
                return Err(idle(access, url));
            }
        }
    };
    match answer {
        Ok(response) => Ok(Answer { response, connection }),
        Err(error) => Err(match flow.state().failed.take() {
            Some(source) => StorageError::Source {
                url: url.to_string(),
                source,
            },
            None => unanswered(url, &error),
        }),
    }
}
