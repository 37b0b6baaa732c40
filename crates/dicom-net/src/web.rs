//! DICOMweb (PS3.18): QIDO-RS to find, WADO-RS to retrieve as stored, STOW-RS to store.
//!
//! Blocking, like all of this crate: a small runtime of its own does the network, so this must not be called from
//! within another one.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use rustls::ClientConfig;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::association::Slots;
use crate::dataset::{DataError, FileMeta, Tag, tag};
use crate::error::Peer;
use crate::intake::{Intake, Retrieved, Sink, Taken, Wanted};
use crate::multipart::{self, MultipartError, Parts};
use crate::pacs::Found;
use crate::query::{FoundStudies, Query, Sorting};
use crate::uid::Uid;
use crate::wire::Deadlines;

/// How many instances are asked for at once: an answer has some hundred bytes for each.
const PAGE: usize = 500;
/// What an answer to a query may have.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;
/// What the metadata of a series may have: some ten thousand bytes for each instance.
const LONGEST_METADATA: usize = 512 * 1024 * 1024;
/// Parts as they are stored, in whatever transfer syntax (PS3.18, 8.7.3.5.2).
const AS_STORED: &str = "multipart/related; type=\"application/dicom\"; transfer-syntax=*";
const DICOM_JSON: &str = "application/dicom+json";
/// Referenced SOP Sequence of an answer: what was stored (PS3.18, I.2.2).
const STORED: &str = "00081199";
/// Failed SOP Sequence: what was not.
const NOT_STORED: &str = "00081198";
/// The boundary of what we send; a part that has it cannot be sent.
const BOUNDARY: &str = "hydra-eds-5c1f6a7e9b3d40d2";

/// For how long an idle connection is used again: the other side may have closed it unseen.
const IDLE: Duration = Duration::from_millis(500);
/// Hosts that plain HTTP with a token may go to (RFC 6750, section 5.3, wants TLS elsewhere).
const LOOPBACK: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];
/// The slowest line that something is stored over, in bytes a second.
const SLOWEST: u64 = 256 * 1024;

/// Says what stands in `Authorization`, for example `Bearer …`, at the moment; never shown.
pub type Authorization = Arc<dyn Fn() -> io::Result<String> + Send + Sync>;

/// A DICOMweb service and how to speak to it.
#[derive(Clone)]
pub struct WebOptions {
    /// Its root, for example `https://pacs.example.org/dicom-web`.
    pub url: String,
    /// TLS, for `https`.
    pub tls: Option<Arc<ClientConfig>>,
    /// What authorizes us; asked before each request.
    pub authorization: Option<Authorization>,
    /// How long it may take.
    pub deadlines: Deadlines,
    /// How many retrievals there may be at once.
    pub slots: Slots,
}

/// Why an exchange over HTTP failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebError {
    /// No URL that is one of DICOMweb, or options that do not go with it.
    #[error("`{0}` is no URL of a DICOMweb service: {1}")]
    Url(String, &'static str),
    /// Our own side cannot start.
    #[error("cannot start the network side for {peer}")]
    Local {
        /// For whom.
        peer: Peer,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// No connection, or a broken one.
    #[error("no answer from {peer}")]
    Connection {
        /// Who.
        peer: Peer,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A deadline passed.
    #[error("{peer} gave no answer in {seconds} s")]
    Late {
        /// Who.
        peer: Peer,
        /// How long.
        seconds: u64,
    },
    /// It refused us.
    #[error("{peer} refused us (status {status})")]
    NotAllowed {
        /// Who.
        peer: Peer,
        /// 401 or 403.
        status: u16,
    },
    /// It cannot, or will not.
    #[error("{peer} answered the {operation} with status {status}")]
    Status {
        /// Who.
        peer: Peer,
        /// What was asked.
        operation: &'static str,
        /// The answer.
        status: u16,
    },
    /// More fits a query than was meant.
    #[error("{peer} has more than {most} studies that fit the query")]
    TooMany {
        /// Who.
        peer: Peer,
        /// How many were meant at most.
        most: usize,
    },
    /// It answered without a word of what was asked for.
    #[error("{peer} does not go by `{key}`, so that what it answers may be anything")]
    Ignored {
        /// Who.
        peer: Peer,
        /// What it passes over.
        key: &'static str,
    },
    /// An answer that is none to the question.
    #[error("{peer} does not speak DICOMweb as it should: {what}")]
    Answer {
        /// Who.
        peer: Peer,
        /// What is wrong.
        what: &'static str,
    },
    /// A body that is none of several parts, or ended early.
    #[error("the instances from {peer} do not come as they should")]
    Parts {
        /// From whom.
        peer: Peer,
        /// What is wrong.
        #[source]
        source: MultipartError,
    },
    /// Whoever was given the instances wants no more.
    #[error("the exchange with {peer} was stopped")]
    Stopped {
        /// With whom.
        peer: Peer,
    },
    /// What was to be sent cannot be sent.
    #[error("the instance cannot be sent to {peer}")]
    Source {
        /// To whom.
        peer: Peer,
        /// Why not.
        #[source]
        source: DataError,
    },
}

/// A DICOMweb service.
pub struct Dicomweb {
    runtime: Runtime,
    client: Client,
    base: String,
    peer: Peer,
    authorization: Option<Authorization>,
    deadlines: Deadlines,
    slots: Slots,
}

impl Dicomweb {
    /// A service; nothing is asked yet.
    ///
    /// # Errors
    /// Options that cannot work.
    pub fn new(options: WebOptions) -> Result<Self, WebError> {
        let base = options.url.trim_end_matches('/').to_owned();
        let url = |why| WebError::Url(shown(&base), why);
        let parsed = reqwest::Url::parse(&base).map_err(|_| url("it cannot be read"))?;
        let host = parsed.host_str().ok_or_else(|| url("it has no host"))?;
        let tls = match (parsed.scheme(), &options.tls) {
            ("http", Some(_)) => return Err(url("it is http, and TLS is configured")),
            ("http", None) if options.authorization.is_some() && !LOOPBACK.contains(&host) => {
                return Err(url("what authorizes us would go over it in clear"));
            }
            ("http", None) => None,
            ("https", Some(tls)) => Some(ClientConfig::clone(tls)),
            ("https", None) => return Err(url("it wants TLS, and no authorities are configured")),
            _ => return Err(url("it is neither http nor https")),
        };
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(url("it has a user or a password in it"));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(url("it has more than a path"));
        }
        let port = parsed.port_or_known_default().unwrap_or_default();
        let peer = Peer::new(format!("{}://{host}:{port}", parsed.scheme()));
        let local = |source| WebError::Local {
            peer: peer.clone(),
            source,
        };
        let builder = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("hydra-eds/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.deadlines.connect)
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true);
        let builder = match tls {
            Some(tls) => builder.tls_backend_preconfigured(tls).https_only(true),
            None => builder.tls_backend_preconfigured(no_tls().map_err(|error| local(error.into()))?),
        };
        let client = builder.build().map_err(|error| local(error.into()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self {
            runtime: runtime.map_err(|error| local(error.into()))?,
            client,
            authorization: options.authorization,
            base,
            peer,
            deadlines: options.deadlines,
            slots: options.slots,
        })
    }

    /// Its name in messages.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// QIDO-RS: whether it answers us, by asking for a single study.
    ///
    /// # Errors
    /// Where it does not.
    pub fn echo(&self) -> Result<(), WebError> {
        let request = self.request(self.client.get(format!("{}/studies?limit=1", self.base)))?;
        let until = Instant::now() + self.deadlines.unit;
        let response = self.send(request.header(ACCEPT, DICOM_JSON), until)?;
        self.judge("query", response).map(|_| ())
    }

    /// That something is not there is an answer only where there is a service at all.
    fn is_there(&self) -> Result<(), WebError> {
        match self.echo() {
            Err(error @ WebError::Status { status: 404, .. }) => Err(error),
            _ => Ok(()),
        }
    }

    /// QIDO-RS: the studies that fit a query, if they are no more than `most`.
    ///
    /// # Errors
    /// Where it cannot answer, or passes over a key.
    pub fn studies_that_fit(&self, query: &Query, most: usize) -> Result<FoundStudies, WebError> {
        let mut sorting = Sorting::new(query);
        let parameters = query.parameters();
        let mut asked = 0;
        loop {
            let page = self.query(&format!("/studies?{parameters}&limit={PAGE}&offset={asked}"))?;
            let mut is_new = false;
            for one in &page {
                let study = values(one, tag::STUDY).first().and_then(|study| Uid::new(study).ok());
                let study = study.ok_or_else(|| self.answer("a study without an identifier"))?;
                is_new |= !sorting.knows(&study);
                if sorting.take(study, query.fit(|tag| values(one, tag))) > most {
                    return Err(WebError::TooMany {
                        peer: self.peer.clone(),
                        most,
                    });
                }
            }
            asked += page.len();
            // it may give fewer than it was asked for, and one that does not go by offsets sends the same again
            if !is_new {
                break;
            }
        }
        if let Some(key) = sorting.ignored {
            let peer = self.peer.clone();
            return Err(WebError::Ignored { peer, key });
        }
        for study in std::mem::take(&mut sorting.untold) {
            let series = self.query(&format!("/studies/{study}/series?includefield=00080060"))?;
            let modality = query.modality().unwrap_or_default();
            let has_it = |one: &Value| values(one, tag::MODALITY).iter().any(|value| value == modality);
            if !series.iter().any(has_it) {
                sorting.remove(&study);
            }
        }
        Ok(sorting.found())
    }

    /// QIDO-RS: the instances of a study, or of one series of it, or those that are named, where it has them.
    ///
    /// # Errors
    /// Where it cannot answer.
    pub fn instances(&self, wanted: &Wanted) -> Result<Vec<Found>, WebError> {
        let series = wanted
            .series
            .as_ref()
            .map_or(String::new(), |series| format!("/series/{series}"));
        let mut found: BTreeSet<Found> = BTreeSet::new();
        let whole = Instant::now() + self.deadlines.whole;
        loop {
            let offset = found.len();
            let path = format!(
                "/studies/{}{series}/instances?limit={PAGE}&offset={offset}&includefield=00080016&includefield=0020000E",
                wanted.study
            );
            for one in &self.query(&path)? {
                found.insert(self.found(one, wanted)?);
            }
            // it may give fewer than it was asked for (PS3.18, 8.3.4.4): only a page with nothing new is the last
            if found.len() == offset {
                break;
            }
            if Instant::now() >= whole {
                return Err(self.late(self.deadlines.whole));
            }
        }
        found.retain(|one| wanted.instances.is_empty() || wanted.instances.contains(&one.instance));
        Ok(found.into_iter().collect())
    }

    /// QIDO-RS: what it says of studies that match all of these attributes; `*` in a value stands for anything.
    ///
    /// # Errors
    /// Where it cannot answer.
    pub fn studies(&self, matching: &[(Tag, String)]) -> Result<Vec<Value>, WebError> {
        let mut studies: Vec<Value> = Vec::new();
        let mut filters = String::new();
        for (Tag(group, element), value) in matching {
            filters.push_str(&format!("&{group:04X}{element:04X}={}", escaped(value)));
        }
        loop {
            let offset = studies.len();
            let page = self.query(&format!("/studies?limit={PAGE}&offset={offset}{filters}"))?;
            let count = page.len();
            // a service that does not go by offsets sends the same again
            studies.extend(page);
            if count < PAGE || studies[..offset].last() == studies.last() {
                break;
            }
        }
        Ok(studies)
    }

    /// WADO-RS: what stands before the pixels of the instances of a series, as JSON that [`crate::json`] reads.
    ///
    /// # Errors
    /// Where it cannot answer.
    pub fn metadata(&self, study: &Uid, series: &Uid) -> Result<Vec<Value>, WebError> {
        self.json(&format!("/studies/{study}/series/{series}/metadata"), LONGEST_METADATA)
    }

    fn found(&self, one: &Value, wanted: &Wanted) -> Result<Found, WebError> {
        let value = |tag| Uid::new(values(one, tag).first()?).ok();
        let missing = |what| self.answer(what);
        let series = value(tag::SERIES).or_else(|| wanted.series.clone());
        Ok(Found {
            series: series.ok_or_else(|| missing("an instance without a series"))?,
            instance: value(tag::SOP_INSTANCE).ok_or_else(|| missing("an instance without an identifier"))?,
            class: value(tag::SOP_CLASS),
        })
    }

    fn answer(&self, what: &'static str) -> WebError {
        WebError::Answer {
            peer: self.peer.clone(),
            what,
        }
    }

    fn query(&self, path: &str) -> Result<Vec<Value>, WebError> {
        self.json(path, LONGEST_ANSWER)
    }

    fn json(&self, path: &str, longest: usize) -> Result<Vec<Value>, WebError> {
        let until = Instant::now() + self.deadlines.unit;
        let request = self.request(self.client.get(format!("{}{path}", self.base)))?;
        let response = self.send(request.header(ACCEPT, DICOM_JSON), until)?;
        let nothing = [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND];
        if nothing.contains(&response.status()) {
            return Ok(Vec::new());
        }
        let response = self.judge("query", response)?;
        let mut bytes = Vec::new();
        let body = Body::new(self, response, until);
        let read = body.take(longest as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.broken(error))?;
        let answer = serde_json::from_slice(&bytes).ok();
        answer.ok_or_else(|| self.answer("an answer to a query that is no list in JSON"))
    }

    /// WADO-RS: retrieves what is wanted; several named instances one after the other, over the same connection.
    ///
    /// # Errors
    /// Where the exchange failed; what `sink` got before is whole.
    pub fn retrieve(&self, wanted: &Wanted, sink: &mut Sink<'_>) -> Result<Retrieved, WebError> {
        let slot = self.slots.take(self.deadlines.whole);
        let _slot = slot.ok_or_else(|| self.late(self.deadlines.whole))?;
        let whole = Instant::now() + self.deadlines.whole;
        let mut intake = Intake::new(Some(wanted), sink);
        let mut path = format!("/studies/{}", wanted.study);
        if let Some(series) = &wanted.series {
            path.push_str(&format!("/series/{series}"));
        }
        if wanted.instances.is_empty() || wanted.series.is_none() {
            if !self.retrieve_path(&path, whole, &mut intake)? {
                self.is_there()?;
            }
            return Ok(intake.retrieved);
        }
        for instance in &wanted.instances {
            if !self.retrieve_path(&format!("{path}/instances/{instance}"), whole, &mut intake)? {
                if intake.retrieved.failed.is_empty() {
                    self.is_there()?;
                }
                intake.retrieved.failed.push(instance.clone());
                intake.retrieved.failed_count += 1;
            }
        }
        Ok(intake.retrieved)
    }

    /// Whether there is something.
    fn retrieve_path(&self, path: &str, whole: Instant, intake: &mut Intake<'_, '_>) -> Result<bool, WebError> {
        let request = self.request(self.client.get(format!("{}{path}", self.base)))?;
        let until = whole.min(Instant::now() + self.deadlines.unit);
        let response = self.send(request.header(ACCEPT, AS_STORED), until)?;
        if [StatusCode::NO_CONTENT, StatusCode::NOT_FOUND].contains(&response.status()) {
            return Ok(false);
        }
        let response = self.judge("retrieval", response)?;
        let content_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let boundary = multipart::boundary(content_type.unwrap_or_default());
        let boundary = boundary.map_err(|source| self.parts(source))?;
        let mut parts = Parts::new(Body::new(self, response, whole), &boundary);
        while parts.advance().map_err(|source| self.parts(source))? {
            let taken = intake.file(&mut parts.part());
            parts.check().map_err(|source| self.parts(source))?;
            match taken {
                Ok(Taken::Stop) => {
                    return Err(WebError::Stopped {
                        peer: self.peer.clone(),
                    });
                }
                Ok(_) => {}
                Err(DataError::Read(error)) => return Err(self.broken(error)),
                Err(_) => {}
            }
        }
        Ok(true)
    }

    /// STOW-RS of one file of PS3.10, which is held in memory meanwhile, twice.
    ///
    /// # Errors
    /// Where the service does not take it.
    pub fn store(&self, study: &Uid, file: &[u8]) -> Result<(), WebError> {
        let unfit = |source| WebError::Source {
            peer: self.peer.clone(),
            source,
        };
        if memchr::memmem::find(file, BOUNDARY.as_bytes()).is_some() {
            return Err(unfit(DataError::Structure(Tag(0x7fe0, 0x0010))));
        }
        let (meta, _) = FileMeta::read(file).map_err(unfit)?;
        let head = format!("--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n");
        let body = [head.as_bytes(), file, format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat();
        let request = self.request(self.client.post(format!("{}/studies/{study}", self.base)))?;
        let kind = format!("multipart/related; type=\"application/dicom\"; boundary={BOUNDARY}");
        let request = request.header(CONTENT_TYPE, kind).header(ACCEPT, DICOM_JSON);
        let on_the_way = Duration::from_secs(body.len() as u64 / SLOWEST);
        let until = Instant::now() + (self.deadlines.unit + on_the_way).min(self.deadlines.whole);
        let response = self.send(request.body(body), until)?;
        self.is_stored(&meta.instance, response)
    }

    /// What it says of the one instance that it was given: 200 and 202 alone do not say that it has it (PS3.18,
    /// 10.5.3).
    fn is_stored(&self, instance: &Uid, response: Response) -> Result<(), WebError> {
        let status = response.status();
        let response = self.judge("storing", response)?;
        let mut bytes = Vec::new();
        let body = Body::new(self, response, Instant::now() + self.deadlines.unit);
        let read = body.take(LONGEST_ANSWER as u64).read_to_end(&mut bytes);
        read.map_err(|error| self.broken(error))?;
        let told: Option<Value> = serde_json::from_slice(&bytes).ok();
        let lists = |sequence: &str| {
            let items = told.as_ref().and_then(|told| told[sequence]["Value"].as_array());
            let is_it = |item: &Value| item["00081155"]["Value"][0].as_str() == Some(instance.as_str());
            items.is_some_and(|items| items.iter().any(is_it))
        };
        match (lists(STORED), lists(NOT_STORED)) {
            (true, false) => Ok(()),
            (_, true) => Err(self.answer("it says that it did not store the instance")),
            // an older service says no more than that
            (false, false) if status == StatusCode::OK && told.is_none() => Ok(()),
            (false, false) => Err(self.status("storing", status)),
        }
    }

    fn request(&self, request: RequestBuilder) -> Result<RequestBuilder, WebError> {
        let Some(authorization) = &self.authorization else {
            return Ok(request);
        };
        let local = |source: Box<dyn Error + Send + Sync>| WebError::Local {
            peer: self.peer.clone(),
            source,
        };
        let text = authorization().map_err(|error| local(error.into()))?;
        let mut value = HeaderValue::from_str(&text).map_err(|error| local(error.into()))?;
        value.set_sensitive(true);
        Ok(request.header(AUTHORIZATION, value))
    }

    fn send(&self, request: RequestBuilder, until: Instant) -> Result<Response, WebError> {
        let left = until.saturating_duration_since(Instant::now());
        let answer = self
            .runtime
            .block_on(async { tokio::time::timeout(left, request.send()).await });
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_timeout() => Err(self.late(self.deadlines.connect)),
            Ok(Err(error)) => Err(WebError::Connection {
                peer: self.peer.clone(),
                source: innermost(error),
            }),
            Err(_) => Err(self.late(self.deadlines.unit)),
        }
    }

    fn judge(&self, operation: &'static str, response: Response) -> Result<Response, WebError> {
        match response.status() {
            status if status.is_success() => Ok(response),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(WebError::NotAllowed {
                peer: self.peer.clone(),
                status: status.as_u16(),
            }),
            status => Err(self.status(operation, status)),
        }
    }

    fn status(&self, operation: &'static str, status: StatusCode) -> WebError {
        WebError::Status {
            peer: self.peer.clone(),
            operation,
            status: status.as_u16(),
        }
    }

    fn late(&self, allowed: Duration) -> WebError {
        WebError::Late {
            peer: self.peer.clone(),
            seconds: allowed.as_secs(),
        }
    }

    fn broken(&self, error: io::Error) -> WebError {
        if error.kind() == io::ErrorKind::TimedOut {
            return self.late(self.deadlines.unit);
        }
        WebError::Connection {
            peer: self.peer.clone(),
            source: error.into(),
        }
    }

    fn parts(&self, source: MultipartError) -> WebError {
        match source {
            MultipartError::Read(error) => self.broken(error),
            source => WebError::Parts {
                peer: self.peer.clone(),
                source,
            },
        }
    }
}

/// A body as it comes in.
struct Body<'a> {
    web: &'a Dicomweb,
    response: Response,
    chunk: bytes::Bytes,
    whole: Instant,
}

impl<'a> Body<'a> {
    fn new(web: &'a Dicomweb, response: Response, whole: Instant) -> Self {
        Self {
            web,
            response,
            chunk: bytes::Bytes::new(),
            whole,
        }
    }
}

impl Read for Body<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !out.is_empty() {
            let left = self
                .whole
                .saturating_duration_since(Instant::now())
                .min(self.web.deadlines.unit);
            let next = self.response.chunk();
            let next = self
                .web
                .runtime
                .block_on(async { tokio::time::timeout(left, next).await });
            match next.map_err(|_| io::ErrorKind::TimedOut)? {
                Ok(Some(chunk)) => self.chunk = chunk,
                Ok(None) => return Ok(0),
                Err(error) => return Err(io::Error::other(innermost(error))),
            }
        }
        let count = out.len().min(self.chunk.len());
        out[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}

/// The values of an attribute (PS3.18, F.2): texts, and names in any of their groups.
fn values(one: &Value, tag: Tag) -> Vec<String> {
    let name = format!("{:04X}{:04X}", tag.0, tag.1);
    let list = one.get(name).and_then(|attribute| attribute.get("Value"));
    let list = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.trim_matches(['\0', ' ']).to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Object(groups) => {
            let groups = ["Alphabetic", "Ideographic", "Phonetic"].map(|group| groups.get(group));
            let groups: Vec<&str> = groups.into_iter().flatten().filter_map(Value::as_str).collect();
            Some(groups.join("="))
        }
        _ => None,
    };
    list.iter().filter_map(text).collect()
}

/// What reqwest says around it repeats the URL, which names a study.
fn innermost(error: reqwest::Error) -> Box<dyn Error + Send + Sync> {
    let error = error.without_url();
    let mut cause: &(dyn Error + 'static) = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string().into()
}

/// Without its own TLS the client would look for certificates of the system, and take another provider.
fn no_tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

/// A value as it stands in a query of a URL.
pub(crate) fn escaped(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~*".contains(&byte);
    let escape = |byte: u8| {
        if plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    value.bytes().map(escape).collect()
}

/// A URL without what may be secret in it.
fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    match (plain.find("://"), plain.rfind('@')) {
        (Some(start), Some(end)) if start + 3 <= end => format!("{}…{}", &plain[..start + 3], &plain[end..]),
        _ => plain.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        let options = WebOptions {
            url: url.to_owned(),
            tls: None,
            authorization: None,
            deadlines: Deadlines::default(),
            slots: Slots::new(1),
        };
        Dicomweb::new(options).err().expect("no service").to_string()
    }

    #[test]
    fn what_is_no_service_is_refused_without_its_secrets() {
        assert!(refused("ftp://pacs/x").contains("neither http nor https"));
        assert!(refused("https://pacs/x").contains("no authorities"));
        assert!(refused("http://pacs/x?y").contains("more than a path"));
        assert!(refused("pacs").contains("cannot be read"));
        let text = refused("http://me:secret@pacs/x");
        assert!(text.contains("a password") && !text.contains("secret"), "{text}");
        let with_token = |url: &str| {
            let options = WebOptions {
                url: url.to_owned(),
                tls: None,
                authorization: Some(Arc::new(|| Ok("Bearer secret".to_owned()))),
                deadlines: Deadlines::default(),
                slots: Slots::new(1),
            };
            Dicomweb::new(options).map(drop).map_err(|error| error.to_string())
        };
        assert!(with_token("http://pacs/x").unwrap_err().contains("in clear"));
        assert!(with_token("http://127.0.0.1:8042/x").is_ok());
    }
}
