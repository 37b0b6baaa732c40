//! A client of the catalogue that blocks, for commands and for the recall daemon's outbox: a request out, an answer in,
//! and in words what went wrong (`docs/src/formats/catalogue-protocol.md`).
//!
//! Batches of any length are cut into requests that a catalogue takes. A request that may be repeated is, where its
//! connection broke. Searches stream: a row is handed out as it comes, and one that was cut off ends with an error.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use eds::session::{SessionError, find_credential};
use grid_identity::Credential;
use hydra_cli::{Code, Failure};
use hydra_core::config::Timeouts;
use hydra_core::config::endpoint;
use hydra_core::config::load::{self, ConfigError, Services, Surroundings};
use hydra_core::https;
use hydra_core::keystore::hydra::LocalError;
use hydra_core::keystore::wire::{Problem, ProblemKind};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use crate::name::LogicalName;
use crate::wire::{
    About, Answer, Answers, Batch, Change, Created, Entry, Found, FoundEntry, Line, ListQuestion, Listing, Lookup,
    MAX_ITEMS, MAX_THUMBNAIL_BYTES, NewEntry, Operation, OperationBegin, OperationEnd, PermissionsAnswer,
    PermissionsChange, PermissionsChanged, Question, Removal, Schema, SchemaChange, SchemaQuestion, Search, Value,
    Whoami,
};

/// The longest answer that is read at once; searches are read row by row.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// The longest line of a search's answer.
const MAX_LINE_BYTES: usize = 64 << 20;
/// About the most bytes of a request with several items: a longer batch is cut before.
const MAX_BATCH_BYTES: usize = 2 << 20;
/// How long a request may take that changes much, where the configuration does not allow more.
const LONG: Duration = Duration::from_secs(60);
/// Pauses before a request whose connection broke is sent again.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];

/// Why the catalogue did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address that is none.
    #[error("`{url}` is no catalogue")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        #[source]
        source: endpoint::EndpointError,
    },
    /// No source names a catalogue.
    #[error("no catalogue is configured (looked at {})", looked_at.join(", "))]
    NoCatalog {
        /// Where it was looked for.
        looked_at: Vec<String>,
    },
    /// The credential, or the machine.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// No answer.
    #[error("catalogue {url} {reason}")]
    Silent {
        /// Its address.
        url: String,
        /// A predicate.
        reason: String,
        /// Whether it refused the credential itself: trying later does not help then.
        credential_refused: bool,
        /// Whether the request cannot have reached it.
        unsent: bool,
    },
    /// An answer that is none of the protocol.
    #[error("catalogue {url} {reason}")]
    Answer {
        /// Its address.
        url: String,
        /// A predicate.
        reason: String,
    },
    /// It refused the request.
    #[error("{}", describe(about, problem))]
    Refused {
        /// What the request was about, a path where it has one.
        about: String,
        /// Why.
        problem: Box<Problem>,
    },
}

impl CatalogError {
    /// A refusal of something about `about`.
    pub fn refused(about: impl Into<String>, problem: Problem) -> Self {
        Self::Refused {
            about: about.into(),
            problem: Box::new(problem),
        }
    }

    /// The kind of the refusal, where it is one.
    pub fn kind(&self) -> Option<ProblemKind> {
        match self {
            Self::Refused { problem, .. } => Some(problem.kind),
            _ => None,
        }
    }

    /// Whether the same may work later, without a change of anything.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Silent { credential_refused, .. } => !credential_refused,
            Self::Answer { .. } => true,
            Self::Refused { problem, .. } => matches!(
                problem.kind,
                ProblemKind::Busy
                    | ProblemKind::Limit
                    | ProblemKind::StorageFull
                    | ProblemKind::Restored
                    | ProblemKind::Internal
            ),
            _ => false,
        }
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        let code = match &error {
            CatalogError::Config(_) | CatalogError::NoCatalog { .. } => Code::Config,
            CatalogError::Address { .. } => Code::Usage,
            CatalogError::Silent { credential_refused, .. } if *credential_refused => Code::Config,
            CatalogError::Silent { .. } => Code::TryLater,
            CatalogError::Answer { .. } => Code::Failed,
            CatalogError::Refused { problem, .. } => code_of(problem.kind),
            CatalogError::Session(_) => Code::Failed,
        };
        let advice = match &error {
            CatalogError::NoCatalog { .. } => {
                Some("MDM_CATALOG=https://…, or `catalog = \"https://…\"` in ~/.config/eds/config.toml")
            }
            CatalogError::Refused { problem, .. }
                if matches!(problem.kind, ProblemKind::NotFound | ProblemKind::NotAllowed) =>
            {
                Some("eds-whoami")
            }
            _ => None,
        };
        if let CatalogError::Session(error) = error {
            return error.into();
        }
        let failure = Self::new(code, error);
        advice.into_iter().fold(failure, Self::advise)
    }
}

fn code_of(kind: ProblemKind) -> Code {
    match kind {
        ProblemKind::NotFound | ProblemKind::NotAllowed => Code::NotAllowed,
        ProblemKind::Invalid | ProblemKind::TooLarge => Code::Usage,
        ProblemKind::Conflict => Code::CannotCreate,
        ProblemKind::Credential => Code::Config,
        ProblemKind::Busy | ProblemKind::Limit | ProblemKind::StorageFull | ProblemKind::Restored => Code::TryLater,
        _ => Code::Failed,
    }
}

/// A refusal as a sentence about what was asked for.
fn describe(about: &str, problem: &Problem) -> String {
    let what = match problem.kind {
        ProblemKind::NotFound => "is not there, or not shown to you",
        ProblemKind::NotAllowed => "is not allowed to you",
        ProblemKind::Invalid => "is refused",
        ProblemKind::Conflict if problem.detail.is_some() => "is left as it is",
        ProblemKind::Conflict => "is there and differs, or was changed meanwhile",
        ProblemKind::Credential => "is refused: the catalogue no longer accepts your credential",
        ProblemKind::TooLarge => "is refused as too large",
        ProblemKind::Limit => "has to wait: the catalogue has reached its limit for you",
        ProblemKind::Busy => "has to wait: the catalogue is too busy, or stopping",
        ProblemKind::StorageFull => "cannot be kept: the catalogue has no room left",
        ProblemKind::NoSuchOperation => "is refused: the catalogue does not know this operation",
        ProblemKind::Internal => "failed at the catalogue; its log has the reason",
        _ => "is refused",
    };
    match &problem.detail {
        // what stands in the way, or was meanwhile, the catalogue says itself
        Some(detail) => format!("`{about}` {what}: {detail}"),
        None => format!("`{about}` {what}"),
    }
}

/// Whether a request may be sent again when it is unknown what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Doing it twice is as doing it once.
    Safe,
    /// Only if it cannot have arrived.
    Unsent,
}

/// A client of one catalogue. Connections stay open between requests.
pub struct CatalogClient {
    runtime: Runtime,
    http: reqwest::Client,
    url: String,
    timeouts: Timeouts,
    /// Where files are put, as configured.
    storage: Vec<String>,
    dn: String,
}

impl CatalogClient {
    /// A client of the catalogue at `url`, else of the one that environment and configuration name. It is not asked
    /// yet.
    ///
    /// # Errors
    /// What is missing or cannot be used.
    pub fn open(url: Option<&str>) -> Result<Self, CatalogError> {
        Self::with(url, &Surroundings::of_process())
    }

    /// The same from given surroundings.
    ///
    /// # Errors
    /// As for [`CatalogClient::open`].
    pub fn with(url: Option<&str>, around: &Surroundings) -> Result<Self, CatalogError> {
        let services = load::services(around)?;
        // nobody is asked for a passphrase where there is nothing to use it for
        let url = chosen(url, &services)?;
        let found = find_credential(around)?;
        Self::of(Some(&url), services, &found.credential)
    }

    /// The same with configuration and credential at hand.
    ///
    /// # Errors
    /// No catalogue, or what cannot be used.
    pub fn of(url: Option<&str>, services: Services, credential: &Credential) -> Result<Self, CatalogError> {
        let url = chosen(url, &services)?;
        let tls = https::tls_of(credential, &services.trust).map_err(SessionError::from)?;
        let client = Self::from_parts(&url, services.timeouts, tls, credential.dn())?;
        Ok(Self {
            storage: services.storage,
            ..client
        })
    }

    /// A client of the catalogue at `url` that speaks TLS by `tls`, as who `dn` is.
    ///
    /// # Errors
    /// An address or a TLS configuration that cannot be used.
    pub fn from_parts(
        url: &str,
        timeouts: Timeouts,
        tls: rustls::ClientConfig,
        dn: &str,
    ) -> Result<Self, CatalogError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(SessionError::Runtime)?;
        let entered = runtime.enter();
        let http = https::client(timeouts, tls).map_err(|error: LocalError| SessionError::from(error))?;
        drop(entered);
        Ok(Self {
            runtime,
            http,
            url: address(url)?,
            timeouts,
            storage: Vec::new(),
            dn: dn.to_owned(),
        })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The caller's DN.
    pub fn dn(&self) -> &str {
        &self.dn
    }

    /// Where files are put, as configured; the first by default.
    pub fn storage(&self) -> &[String] {
        &self.storage
    }

    /// Waits for something else on the same runtime.
    pub fn wait<F: Future>(&self, verb: F) -> F::Output {
        self.runtime.block_on(verb)
    }

    /// How the catalogue sees the caller.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn whoami(&self) -> Result<Whoami, CatalogError> {
        self.get("whoami")
    }

    /// What the catalogue is.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn about(&self) -> Result<About, CatalogError> {
        self.get("about")
    }

    /// Makes entries; an answer for each, in order.
    ///
    /// # Errors
    /// No answer, or a refusal of a whole request. Those before it are done: doing all again finds them `Known`.
    pub fn create(&self, entries: &[NewEntry]) -> Result<Vec<Answer<Created>>, CatalogError> {
        self.batches("entries/create", entries, Again::Safe)
    }

    /// Makes one entry.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn create_one(&self, entry: &NewEntry) -> Result<Created, CatalogError> {
        let answers = self.create(std::slice::from_ref(entry))?;
        only(entry.path.as_str(), answers)
    }

    /// Shows entries, by path or `guid:…`; an answer for each, in order.
    ///
    /// # Errors
    /// No answer, or a refusal of a whole request.
    pub fn show(&self, paths: &[String]) -> Result<Vec<Answer<Entry>>, CatalogError> {
        let questions: Vec<Question> = paths.iter().cloned().map(|path| Question { path }).collect();
        self.batches("entries/show", &questions, Again::Safe)
    }

    /// Shows one entry, by path or `guid:…`.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn show_one(&self, path: &str) -> Result<Entry, CatalogError> {
        only(path, self.show(&[path.to_owned()])?)
    }

    /// Changes entries; an answer for each, in order.
    ///
    /// # Errors
    /// No answer, or a refusal of a whole request.
    pub fn change(&self, changes: &[Change]) -> Result<Vec<Answer<Entry>>, CatalogError> {
        let once = |change: &Change| change.rename.is_some() || change.if_version.is_some();
        let again = if changes.iter().any(once) {
            Again::Unsent
        } else {
            Again::Safe
        };
        self.batches("entries/change", changes, again)
    }

    /// Changes one entry.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn change_one(&self, change: &Change) -> Result<Entry, CatalogError> {
        only(&change.path, self.change(std::slice::from_ref(change))?)
    }

    /// Removes entries; for each how many went, in order.
    ///
    /// # Errors
    /// No answer, or a refusal of a whole request.
    pub fn remove(&self, removals: &[Removal]) -> Result<Vec<Answer<u64>>, CatalogError> {
        self.batches("entries/remove", removals, Again::Unsent)
    }

    /// Removes one entry.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn remove_one(&self, removal: &Removal) -> Result<u64, CatalogError> {
        only(&removal.path, self.remove(std::slice::from_ref(removal))?)
    }

    /// All that belongs to a replica, a key or an open operation of the caller, as far as the caller may see it; by
    /// path.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn lookup(&self, lookup: &Lookup) -> Result<Vec<FoundEntry>, CatalogError> {
        let about = [&lookup.replica, &lookup.key_id, &lookup.operation];
        let about = about.into_iter().flatten().next().map_or("", String::as_str);
        let (mut lookup, mut all) = (lookup.clone(), Vec::new());
        loop {
            let page: Found = self.post("entries/find", about, &lookup, Again::Safe)?;
            lookup.after = page.entries.last().map(|entry| entry.path.clone());
            let goes_on = page.more && lookup.after.is_some();
            all.extend(page.entries);
            if !goes_on {
                return Ok(all);
            }
        }
    }

    /// One page of what lies in a directory.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn list(&self, question: &ListQuestion) -> Result<Listing, CatalogError> {
        self.post("list", question.path.as_str(), question, Again::Safe)
    }

    /// What lies in a directory, page by page as it is asked for.
    pub fn list_all(&self, path: &LogicalName, recursive: bool) -> Entries<'_> {
        Entries {
            client: self,
            question: ListQuestion {
                path: path.clone(),
                after: None,
                limit: None,
                recursive,
            },
            ready: VecDeque::new(),
            more: true,
        }
    }

    /// Searches; all pages, one after the other, row by row.
    ///
    /// # Errors
    /// No answer, or a refusal: a query that is none, for example.
    pub fn search(&self, search: &Search) -> Result<Rows<'_>, CatalogError> {
        let mut rows = Rows {
            client: self,
            search: search.clone(),
            lines: None,
            columns: Vec::new(),
            ended: None,
            counted: 0,
        };
        rows.begin()?;
        Ok(rows)
    }

    /// How many files a search finds.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn count(&self, search: &Search) -> Result<u64, CatalogError> {
        let search = Search {
            count: true,
            ..search.clone()
        };
        let mut rows = self.search(&search)?;
        for row in &mut rows {
            row?;
        }
        Ok(rows.rows())
    }

    /// The schema that holds at a path.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn schema(&self, path: &LogicalName) -> Result<Schema, CatalogError> {
        let question = SchemaQuestion { path: path.clone() };
        self.post("schemas/show", path.as_str(), &question, Again::Safe)
    }

    /// Changes the schema of a collection.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn change_schema(&self, change: &SchemaChange) -> Result<Schema, CatalogError> {
        self.post("schemas/change", change.path.as_str(), change, Again::Unsent)
    }

    /// The permissions of entries, by path or `guid:…`; an answer for each, in order.
    ///
    /// # Errors
    /// No answer, or a refusal of a whole request.
    pub fn permissions(&self, paths: &[String]) -> Result<Vec<Answer<PermissionsAnswer>>, CatalogError> {
        let questions: Vec<Question> = paths.iter().cloned().map(|path| Question { path }).collect();
        self.batches("permissions/show", &questions, Again::Safe)
    }

    /// Changes permissions; an answer for each, in order.
    ///
    /// # Errors
    /// No answer, or a refusal of a whole request.
    pub fn change_permissions(
        &self,
        changes: &[PermissionsChange],
    ) -> Result<Vec<Answer<PermissionsChanged>>, CatalogError> {
        self.batches("permissions/change", changes, Again::Unsent)
    }

    /// Begins an operation; again changes nothing.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn begin(&self, begin: &OperationBegin) -> Result<Operation, CatalogError> {
        self.post("operations/begin", &begin.id, begin, Again::Safe)
    }

    /// Ends an operation; again changes nothing.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn end(&self, end: &OperationEnd) -> Result<Operation, CatalogError> {
        self.post("operations/end", &end.id, end, Again::Safe)
    }

    /// The caller's operations.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn operations(&self) -> Result<Vec<Operation>, CatalogError> {
        let nothing = serde_json::Map::new();
        self.post("operations/list", "operations", &nothing, Again::Safe)
    }

    /// Keeps a sealed thumbnail.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn put_thumbnail(&self, path: &str, sealed: Vec<u8>) -> Result<(), CatalogError> {
        let request = self
            .request(Method::PUT, &thumbnail_of(path))
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(sealed);
        let response = self.wait(self.send(&request, path, Again::Safe))?;
        self.wait(self.body(response, MAX_ANSWER_BYTES)).map(drop)
    }

    /// The sealed thumbnail of an entry.
    ///
    /// # Errors
    /// No answer, or a refusal; the problem `not-found` where it has none.
    pub fn thumbnail(&self, path: &str) -> Result<Vec<u8>, CatalogError> {
        let request = self.request(Method::GET, &thumbnail_of(path));
        let response = self.wait(self.send(&request, path, Again::Safe))?;
        self.wait(self.body(response, MAX_THUMBNAIL_BYTES))
    }

    fn request(&self, method: Method, operation: &str) -> RequestBuilder {
        let deadline = LONG.max(self.timeouts.request).max(self.timeouts.total);
        self.http
            .request(method, format!("{}/v1/{operation}", self.url))
            .timeout(deadline)
    }

    fn get<A: DeserializeOwned>(&self, operation: &str) -> Result<A, CatalogError> {
        let request = self.request(Method::GET, operation).timeout(self.timeouts.request);
        self.wait(self.answer(&request, operation, Again::Safe))
    }

    fn post<A: DeserializeOwned>(
        &self,
        operation: &str,
        about: &str,
        body: &impl Serialize,
        again: Again,
    ) -> Result<A, CatalogError> {
        let request = self.request(Method::POST, operation).json(body);
        self.wait(self.answer(&request, about, again))
    }

    /// Sends items in as many requests as it takes.
    fn batches<T: Serialize + Clone, A: DeserializeOwned>(
        &self,
        operation: &str,
        items: &[T],
        again: Again,
    ) -> Result<Vec<Answer<A>>, CatalogError> {
        let mut answers = Vec::with_capacity(items.len());
        let mut rest = items;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest));
            let batch = Batch { items: now.to_vec() };
            let answered: Answers<A> = self.post(operation, operation, &batch, again)?;
            if answered.items.len() != now.len() {
                let (asked, got) = (now.len(), answered.items.len());
                return Err(self.wrong(format!("gave {got} answers to {asked} questions")));
            }
            answers.extend(answered.items);
            rest = later;
        }
        Ok(answers)
    }

    async fn answer<A: DeserializeOwned>(
        &self,
        request: &RequestBuilder,
        about: &str,
        again: Again,
    ) -> Result<A, CatalogError> {
        let response = self.send(request, about, again).await?;
        if !response.headers().get(CONTENT_TYPE).is_some_and(https::is_json) {
            return Err(self.wrong("answered something that is no JSON"));
        }
        let body = self.body(response, MAX_ANSWER_BYTES).await?;
        serde_json::from_slice(&body).map_err(|error| {
            self.wrong(if error.is_data() {
                "answered JSON that is no answer of the protocol"
            } else {
                "answered something that is no JSON"
            })
        })
    }

    /// Sends a request, again where its connection broke, until there is a successful answer's head.
    async fn send(&self, request: &RequestBuilder, about: &str, again: Again) -> Result<Response, CatalogError> {
        let mut pauses = PAUSES.iter();
        loop {
            let copy = request.try_clone().ok_or_else(|| self.wrong("cannot be asked twice"))?;
            let error = match copy.send().await {
                Ok(response) => return self.accepted(response, about).await,
                Err(error) => error,
            };
            let silent = self.silent(&error);
            let CatalogError::Silent {
                credential_refused,
                unsent,
                ..
            } = silent
            else {
                return Err(silent);
            };
            let in_vain = credential_refused || error.is_timeout() || error.is_builder();
            match pauses.next() {
                Some(pause) if !in_vain && (unsent || again == Again::Safe) => tokio::time::sleep(*pause).await,
                _ => return Err(silent),
            }
        }
    }

    async fn accepted(&self, response: Response, about: &str) -> Result<Response, CatalogError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let is_json = response.headers().get(CONTENT_TYPE).is_some_and(https::is_json);
        let body = self.body(response, MAX_BATCH_BYTES).await?;
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if is_json => CatalogError::refused(about, problem),
            _ if status == StatusCode::NOT_FOUND => self.wrong("answered 404: it is no catalogue, or an older one"),
            _ => self.wrong(format!("answered {}", status.as_u16())),
        })
    }

    async fn body(&self, mut response: Response, most: usize) -> Result<Vec<u8>, CatalogError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.silent(&error))? {
            if body.len() + chunk.len() > most {
                return Err(self.wrong(format!("answered more than {most} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn silent(&self, error: &reqwest::Error) -> CatalogError {
        CatalogError::Silent {
            url: self.url.clone(),
            reason: https::describe_failure(error, self.timeouts),
            credential_refused: https::credential_refused(error),
            unsent: error.is_connect(),
        }
    }

    fn wrong(&self, reason: impl Into<String>) -> CatalogError {
        CatalogError::Answer {
            url: self.url.clone(),
            reason: reason.into(),
        }
    }
}

/// The address that was given, else the configured one.
fn chosen(url: Option<&str>, services: &Services) -> Result<String, CatalogError> {
    match (url, &services.catalog) {
        (Some(url), _) => address(url),
        (None, Some((url, _))) => Ok(url.clone()),
        (None, None) => Err(CatalogError::NoCatalog {
            looked_at: services.looked_at.clone(),
        }),
    }
}

fn address(url: &str) -> Result<String, CatalogError> {
    endpoint::normalise(url).map_err(|source| CatalogError::Address {
        url: url.to_owned(),
        source,
    })
}

/// The address of a thumbnail, its path percent-encoded.
fn thumbnail_of(path: &str) -> String {
    use std::fmt::Write;
    let mut operation = "thumbnail?path=".to_owned();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            operation.push(char::from(byte));
        } else {
            // a String takes everything
            let _ = write!(operation, "%{byte:02X}");
        }
    }
    operation
}

/// The answer to the only item of a request.
fn only<A>(about: &str, answers: Vec<Answer<A>>) -> Result<A, CatalogError> {
    match answers.into_iter().next() {
        Some(Answer::Done(done)) => Ok(done),
        Some(Answer::Problem(problem)) => Err(CatalogError::refused(about, problem)),
        // as many answers as questions: nothing else is let through
        None => Err(CatalogError::refused(about, Problem::new(ProblemKind::Internal))),
    }
}

/// How many of the items, at least one, go into one request.
fn fitting<T: Serialize>(items: &[T]) -> usize {
    let mut bytes = 0;
    let fits = |item: &&T| {
        bytes += serde_json::to_vec(item).map_or(0, |json| json.len());
        bytes <= MAX_BATCH_BYTES
    };
    items.iter().take(MAX_ITEMS).take_while(fits).count().max(1)
}

/// What lies in a directory.
pub struct Entries<'c> {
    client: &'c CatalogClient,
    question: ListQuestion,
    ready: VecDeque<Entry>,
    more: bool,
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, CatalogError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && self.more {
            let page = match self.client.list(&self.question) {
                Ok(page) => page,
                Err(error) => {
                    self.more = false;
                    return Some(Err(error));
                }
            };
            self.question.after = page.entries.last().map(|entry| entry.path.clone());
            self.more = page.more && !page.entries.is_empty();
            self.ready = page.entries.into();
        }
        self.ready.pop_front().map(Ok)
    }
}

/// What a search finds, row by row.
pub struct Rows<'c> {
    client: &'c CatalogClient,
    search: Search,
    lines: Option<Lines>,
    columns: Vec<String>,
    /// The end of the page that was read last.
    ended: Option<u64>,
    counted: u64,
}

impl Rows<'_> {
    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// How many rows there were, or were counted, once the iterator has ended.
    pub fn rows(&self) -> u64 {
        self.counted
    }

    /// Asks for a page and reads its columns.
    fn begin(&mut self) -> Result<(), CatalogError> {
        let client = self.client;
        let request = client.request(Method::POST, "search");
        let ndjson = HeaderValue::from_static("application/x-ndjson");
        // how long all of it takes depends on its reader; each piece of it has a deadline
        let request = request
            .timeout(Duration::from_secs(7 * 86_400))
            .header(ACCEPT, ndjson)
            .json(&self.search);
        let deadline = LONG.max(client.timeouts.request);
        let sent = client.wait(async {
            let about = shown(&self.search);
            tokio::time::timeout(deadline, client.send(&request, &about, Again::Safe)).await
        });
        let response = sent.map_err(|_| client.late(deadline))?;
        let response = response.map_err(|error| match error {
            CatalogError::Refused { problem, .. } => refused(&self.search, *problem),
            other => other,
        })?;
        self.lines = Some(Lines {
            response,
            buffer: Vec::new(),
            begin: 0,
            searched: 0,
        });
        match self.line()? {
            Line::Columns(columns) => {
                self.columns = columns;
                Ok(())
            }
            Line::Problem(problem) => Err(refused(&self.search, problem)),
            Line::Row(_) | Line::End { .. } => Err(client.wrong("answered a search without its columns")),
        }
    }

    fn line(&mut self) -> Result<Line, CatalogError> {
        let client = self.client;
        let Some(lines) = &mut self.lines else {
            return Err(client.wrong("was not asked"));
        };
        let text = client.wait(lines.next(client))?;
        let text = text.ok_or_else(|| client.wrong("broke off in the middle of a search"))?;
        serde_json::from_slice(&text).map_err(|_| client.wrong("answered a search with a line that is none"))
    }

    fn step(&mut self) -> Result<Option<Vec<Value>>, CatalogError> {
        loop {
            if self.ended.is_some() {
                return Ok(None);
            }
            match self.line()? {
                Line::Row(row) if row.len() == self.columns.len() => {
                    if !self.search.count {
                        self.counted += 1;
                    }
                    return Ok(Some(row));
                }
                Line::Row(_) | Line::Columns(_) => return Err(self.client.wrong("answered rows of another width")),
                Line::Problem(problem) => return Err(refused(&self.search, problem)),
                Line::End {
                    cursor: Some(cursor), ..
                } if !self.search.count => {
                    self.search.cursor = Some(cursor);
                    self.begin()?;
                }
                Line::End { rows, .. } => {
                    if self.search.count {
                        self.counted = rows;
                    }
                    self.ended = Some(rows);
                }
            }
        }
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Vec<Value>, CatalogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.ended = Some(0);
        }
        step.transpose()
    }
}

/// The refusal of a search: of where to look, if that is not there for the caller, else of what to look for.
fn refused(search: &Search, problem: Problem) -> CatalogError {
    let about = match problem.kind {
        ProblemKind::NotFound | ProblemKind::NotAllowed => search.from.clone(),
        _ => shown(search),
    };
    CatalogError::refused(about, problem)
}

/// A search as its user wrote it.
fn shown(search: &Search) -> String {
    if search.query.is_empty() {
        search.from.clone()
    } else {
        search.query.clone()
    }
}

/// The lines of an answer as they come.
struct Lines {
    response: Response,
    buffer: Vec<u8>,
    /// Where the next line begins in it.
    begin: usize,
    /// Between there and here no line ends.
    searched: usize,
}

impl Lines {
    async fn next(&mut self, client: &CatalogClient) -> Result<Option<Vec<u8>>, CatalogError> {
        loop {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let end = self.searched + length;
                let line = self.buffer.get(self.begin..end).unwrap_or_default().to_vec();
                (self.begin, self.searched) = (end + 1, end + 1);
                return Ok(Some(line));
            }
            self.buffer.drain(..self.begin);
            (self.begin, self.searched) = (0, self.buffer.len());
            if self.searched > MAX_LINE_BYTES {
                return Err(client.wrong("answered a search with a line that does not end"));
            }
            let deadline = LONG.max(client.timeouts.request);
            let chunk = tokio::time::timeout(deadline, self.response.chunk()).await;
            let chunk = chunk.map_err(|_| client.late(deadline))?;
            match chunk.map_err(|error| client.silent(&error))? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

impl CatalogClient {
    fn late(&self, deadline: Duration) -> CatalogError {
        CatalogError::Silent {
            url: self.url.clone(),
            reason: format!("gave no answer in {} s", deadline.as_secs()),
            credential_refused: false,
            unsent: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: usize) -> NewEntry {
        let json = serde_json::json!({ "path": "/a", "kind": "file", "attributes": { "a": "x".repeat(text) } });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn batches_are_cut_by_items_and_by_bytes() {
        assert_eq!(fitting(&vec![entry(1); MAX_ITEMS + 1]), MAX_ITEMS);
        assert_eq!(fitting(&vec![entry(MAX_BATCH_BYTES / 4); 9]), 3);
        assert_eq!(fitting(&[entry(MAX_BATCH_BYTES + 1), entry(1)]), 1);
    }

    #[test]
    fn a_refusal_names_the_thing_and_has_its_exit_code() {
        let failed = |kind, detail: Option<&str>| {
            let mut problem = Problem::new(kind);
            problem.detail = detail.map(str::to_owned);
            let failure = Failure::from(CatalogError::refused("/myvo/x", problem));
            (failure.code, failure.lines().remove(0))
        };
        assert_eq!(
            failed(ProblemKind::NotFound, None),
            (
                Code::NotAllowed,
                "error: `/myvo/x` is not there, or not shown to you".into()
            )
        );
        assert_eq!(
            failed(ProblemKind::Conflict, Some("its version is 3")),
            (
                Code::CannotCreate,
                "error: `/myvo/x` is left as it is: its version is 3".into()
            )
        );
        assert_eq!(failed(ProblemKind::Busy, None).0, Code::TryLater);
        assert_eq!(failed(ProblemKind::Invalid, None).0, Code::Usage);
    }

    #[test]
    fn without_a_catalogue_the_places_looked_at_are_told() {
        let mut around = Surroundings::with_variables(|_| None);
        around.system_config = "/nonexistent/config.toml".into();
        let error = CatalogClient::with(None, &around).err().unwrap();
        let failure = Failure::from(error);
        assert_eq!(failure.code, Code::Config);
        let lines = failure.lines();
        assert!(
            lines[0].contains("MDM_CATALOG") && lines[0].contains("LFC_HOST"),
            "{lines:?}"
        );
        assert!(lines[1].contains("MDM_CATALOG=https://"), "{lines:?}");
    }
}
