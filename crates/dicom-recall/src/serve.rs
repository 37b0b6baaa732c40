//! `dicom-recall serve`: the WLCG Tape REST API at the storage element, a thin client of the agent beside it
//! (`docs/src/commands/dicom-recall.md`). It holds no credential but its host's, and sees names alone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Path as Segment, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router, middleware};
use hydra_cli::config_file::{self, ConfigError};
use hydra_cli::{Code, Failure, output};
use hydra_service::{Guard, Limits, Peer};
use serde::Deserialize;
use serde_json::json;

use crate::ask::{Agent, Answer, Ask, AskError, Refusal};
use crate::door::{self, Ends, Host, HostTable, Principals};
use crate::line::Reason;
use crate::tape::{self, BodyError};

/// What one request may name, unless configured.
const MOST_FILES: usize = 10_000;
/// The longest that a file stays on somebody's request, unless configured: two weeks.
const LONGEST_LIFETIME_S: u64 = 14 * 24 * 3600;
/// When to come again where the agent is not there.
const AGAIN_S: u16 = 30;

/// `dicom-recall serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The configuration
    #[arg(env = "DICOM_RECALL_SERVE_CONFIG", default_value = "/etc/eds/serve.toml")]
    pub config: PathBuf,
}

#[derive(Debug, Deserialize)]
struct File {
    serve: Option<ServeTable>,
    #[serde(default)]
    tls: HostTable,
    #[serde(default = "usual_limits")]
    limits: Limits,
    monitor: Option<MonitorTable>,
    #[serde(default = "usual_log")]
    log: String,
}

fn usual_limits() -> Limits {
    Limits {
        body_bytes: 8 << 20,
        ..Limits::default()
    }
}

fn usual_log() -> String {
    "info".to_owned()
}

#[derive(Debug, Deserialize)]
struct MonitorTable {
    listen: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ServeTable {
    agent: Option<PathBuf>,
    listen: Option<String>,
    url: Option<String>,
    site: Option<String>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default = "usual_files")]
    files: usize,
    #[serde(default = "usual_lifetime")]
    lifetime_s: u64,
}

fn usual_files() -> usize {
    MOST_FILES
}

fn usual_lifetime() -> u64 {
    LONGEST_LIFETIME_S
}

/// A configuration that can work.
#[derive(Debug)]
pub struct ServeConfig {
    /// The agent's socket.
    pub agent: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where clients find us; the host's name and port where it is not said.
    pub url: Option<String>,
    /// What the site calls itself.
    pub site: String,
    /// For people.
    pub description: String,
    /// Who may.
    pub allow: Principals,
    /// The most files in one request.
    pub files: usize,
    /// The longest that a file stays on a request.
    pub lifetime_s: u64,
    /// The host's certificate.
    pub host: Host,
    /// Of the listener.
    pub limits: Limits,
    /// Where monitoring asks.
    pub monitor: Option<SocketAddr>,
    /// A filter for the log.
    pub log: String,
}

impl ServeConfig {
    /// Reads and checks a file; relative paths in it start from its folder.
    ///
    /// # Errors
    /// Every fault at once.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        config_file::read(path, Self::parse)
    }

    /// Checks the text of a file in `folder`.
    ///
    /// # Errors
    /// Every fault.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let file: File = config_file::tables(text, &mut faults)?;
        let host = file.tls.check(&mut faults, "tls", folder);
        faults.extend(file.limits.faults());
        let monitor = file
            .monitor
            .and_then(|table| door::address(&mut faults, "monitor.listen", table.listen.as_deref()));
        let Some(table) = file.serve else {
            faults.push("`[serve]` is missing".to_owned());
            return Err(faults);
        };
        let listen = door::address(&mut faults, "serve.listen", table.listen.as_deref());
        let mut need = |name: &str, is_there: bool| {
            if !is_there {
                faults.push(format!("`serve.{name}` is missing"));
            }
        };
        need("agent", table.agent.is_some());
        need("site", table.site.is_some());
        let is_url = |url: &String| url.starts_with("https://") && !url.contains(char::is_whitespace);
        if table.url.as_ref().is_some_and(|url| !is_url(url)) {
            faults.push("`serve.url`: not `https://HOST:PORT`".to_owned());
        }
        if table.files == 0 || table.files > 100_000 {
            faults.push("`serve.files`: at least 1 and at most 100000".to_owned());
        }
        let allow = Principals::check(&mut faults, "serve.allow", &table.allow);
        let (Some(host), Some(listen), Some(agent), Some(site), true) =
            (host, listen, table.agent, table.site, faults.is_empty())
        else {
            return Err(faults);
        };
        Ok(Self {
            agent: folder.join(agent),
            listen,
            url: table.url.map(|url| url.trim_end_matches('/').to_owned()),
            site,
            description: table.description,
            allow,
            files: table.files,
            lifetime_s: table.lifetime_s,
            host,
            limits: file.limits,
            monitor,
            log: file.log,
        })
    }
}

/// `dicom-recall serve`: until a signal ends it.
///
/// # Errors
/// What was in the way.
pub fn serve(args: &Serve) -> Result<(), Failure> {
    let config = ServeConfig::read(&args.config).map_err(|error| Failure::new(Code::Config, error))?;
    let (tls, trust) = config.host.open()?;
    hydra_service::log::start(&config.log).map_err(|error| Failure::new(Code::Config, error))?;
    door::runtime()?.block_on(async {
        let mut ends = Ends::watch()?;
        if let Some(address) = config.monitor {
            let agent = config.agent.clone();
            door::serve_monitor(address, Arc::new(move || Agent::connect(&agent).is_ok())).await?;
        }
        let (listener, address) = door::listen(config.listen).await?;
        let url = match &config.url {
            Some(url) => url.clone(),
            None => usual_url(&config.host.names()?, address),
        };
        if config.allow.is_empty() {
            tracing::warn!("nobody may stage: `serve.allow` is empty");
        }
        tracing::info!(%address, %url, "listening");
        output::print_line(&format!("listening on https://{address}"))?;
        let router = router(&config, &url);
        let stop = async move {
            ends.come().await;
            tracing::info!("stopping");
        };
        let served = hydra_service::serve(listener, tls, trust, router, &config.limits, stop).await;
        served.map_err(|error| Failure::new(Code::Failed, error))
    })
}

/// By the host's own name, so that clients hold it against its certificate.
fn usual_url(names: &[String], address: SocketAddr) -> String {
    match names.first() {
        Some(name) => format!("https://{name}:{}", address.port()),
        None => format!("https://{address}"),
    }
}

/// What every handler works with.
struct Api {
    agent: PathBuf,
    allow: Principals,
    files: usize,
    lifetime_s: u64,
    body_bytes: usize,
    url: String,
    guard: Arc<Guard>,
    well_known: serde_json::Value,
}

fn router(config: &ServeConfig, url: &str) -> Router {
    let guard = Arc::new(Guard::new(&config.limits));
    let api = Api {
        agent: config.agent.clone(),
        allow: config.allow.clone(),
        files: config.files,
        lifetime_s: config.lifetime_s,
        body_bytes: config.limits.body_bytes,
        url: url.to_owned(),
        guard: Arc::clone(&guard),
        well_known: tape::well_known(&config.site, &config.description, url),
    };
    let mut router = Router::new().route("/.well-known/wlcg-tape-rest-api", get(well_known));
    // gfal2 has a slash behind what the standard has none behind
    for end in ["", "/"] {
        let at = |path: &str| format!("/api/v1/{path}{end}");
        router = router
            .route(&at("stage"), post(stage))
            .route(&at("stage/{request}"), get(poll).delete(forget))
            .route(&at("stage/{request}/cancel"), post(cancel))
            .route(&at("release/{request}"), post(release))
            .route(&at("archiveinfo"), post(archive_info));
    }
    router
        .fallback(|| async { Trouble::new(404, "there is nothing at this address") })
        .method_not_allowed_fallback(|| async { Trouble::new(405, "this address does not have that method") })
        .layer(middleware::from_fn_with_state(guard, hydra_service::guard::guard))
        .with_state(Arc::new(api))
}

/// A problem document (RFC 7807).
#[derive(Debug, PartialEq, Eq)]
struct Trouble {
    status: u16,
    title: &'static str,
    detail: Option<String>,
}

impl Trouble {
    fn new(status: u16, title: &'static str) -> Self {
        let detail = None;
        Self { status, title, detail }
    }

    fn unmeant(error: &BodyError) -> Self {
        let detail = Some(error.to_string());
        Self {
            detail,
            ..Self::new(400, "the request means nothing")
        }
    }
}

impl From<BodyError> for Trouble {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooMany(..) => Self {
                detail: Some(error.to_string()),
                ..Self::new(413, "too much in one request")
            },
            error => Self::unmeant(&error),
        }
    }
}

impl From<AskError> for Trouble {
    fn from(error: AskError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "the agent does not answer");
        Self::new(503, "staging is not to be had at the moment")
    }
}

/// What the agent said in place of an answer.
fn refused(answer: Answer) -> Trouble {
    let Answer::Refused { refusal, text } = answer else {
        tracing::error!("the agent gave an answer to another question");
        return Trouble::new(500, "something is wrong here");
    };
    match refusal {
        Refusal::NoRequest => Trouble::new(404, "there is no such request, or it is not yours"),
        Refusal::NotOfRequest => Trouble::new(400, "a path is not of that request: nothing was done"),
        Refusal::Unfit => Trouble {
            detail: Some(text),
            ..Trouble::new(400, "a path or a number cannot be meant")
        },
        Refusal::TooMuch => Trouble::new(429, "too much waits already"),
        Refusal::Unreadable | Refusal::Database => {
            tracing::error!(reason = text, "the agent cannot answer");
            Trouble::new(503, "staging is not to be had at the moment")
        }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let mut body = json!({ "status": self.status, "title": self.title });
        if let Some(detail) = self.detail {
            body["detail"] = detail.into();
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if matches!(self.status, 429 | 503) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(AGAIN_S));
        }
        response
    }
}

type Shared = State<Arc<Api>>;
type Caller = Extension<Arc<Peer>>;

impl Api {
    /// Who asks, if they may.
    fn who(&self, peer: &Peer) -> Result<String, Trouble> {
        let identity = peer.identity();
        if let Some(reason) = peer.refused_attributes() {
            tracing::warn!(dn = identity.dn, reason, "an attribute certificate is not believed");
        }
        if self.allow.have(&identity) {
            Ok(identity.dn.clone())
        } else {
            Err(Trouble::new(403, "you may not stage files here"))
        }
    }

    /// Counted against the caller's rate.
    fn count(&self, peer: &Peer, files: usize) -> Result<(), Trouble> {
        let counted = self.guard.count(peer, files);
        counted.map_err(|_| Trouble::new(429, "you ask for too much at once"))
    }

    /// Read before anything is refused: a client that still sends when the answer comes may not see it.
    async fn body(&self, body: Body) -> Result<Vec<u8>, Trouble> {
        let read = to_bytes(body, self.body_bytes).await;
        read.map(Vec::from)
            .map_err(|_| Trouble::new(413, "the body is too long, or broke off"))
    }

    /// Who asks, about which request, and which of its paths.
    async fn of_request(
        &self,
        peer: &Peer,
        request: String,
        body: Body,
    ) -> Result<(Option<String>, String, Vec<String>), Trouble> {
        let body = self.body(body).await?;
        let owner = Some(self.who(peer)?);
        Ok((owner, named(request)?, tape::paths(&body, self.files)?))
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, Trouble> {
        let path = self.agent.clone();
        let asked = tokio::task::spawn_blocking(move || Agent::connect(&path)?.ask(&ask)).await;
        let answer = asked.map_err(|_| Trouble::new(500, "something is wrong here"))?;
        Ok(answer?)
    }

    async fn done(&self, ask: Ask) -> Result<Response, Trouble> {
        match self.ask(ask).await? {
            Answer::Done => Ok(StatusCode::OK.into_response()),
            other => Err(refused(other)),
        }
    }
}

/// A request's name as it stands in an address.
fn named(request: String) -> Result<String, Trouble> {
    if tape::is_request(&request) {
        Ok(request)
    } else {
        Err(Trouble::new(404, "there is no such request, or it is not yours"))
    }
}

async fn well_known(State(api): Shared) -> Json<serde_json::Value> {
    Json(api.well_known.clone())
}

async fn stage(State(api): Shared, Extension(peer): Caller, body: Body) -> Result<Response, Trouble> {
    let body = api.body(body).await?;
    let owner = api.who(&peer)?;
    let files = tape::wishes(&body, api.files, api.lifetime_s)?;
    api.count(&peer, files.len())?;
    let count = files.len();
    let ask = Ask::Prepare {
        request: None,
        owner: Some(owner),
        files,
        priority: 1,
    };
    match api.ask(ask).await? {
        Answer::Accepted { request } => {
            tracing::info!(request, files = count, "staging");
            let place = format!("{}/api/v1/stage/{request}", api.url);
            let place = HeaderValue::from_str(&place).map_err(|_| Trouble::new(500, "something is wrong here"))?;
            let body = Json(json!({ "requestId": request }));
            Ok((StatusCode::CREATED, [(header::LOCATION, place)], body).into_response())
        }
        other => Err(refused(other)),
    }
}

async fn poll(State(api): Shared, Extension(peer): Caller, Segment(request): Segment<String>) -> Answered {
    let owner = Some(api.who(&peer)?);
    let request = named(request)?;
    match api.ask(Ask::Request { request, owner }).await? {
        Answer::Request { status } => Ok(Json(tape::request(&status)).into_response()),
        other => Err(refused(other)),
    }
}

async fn forget(State(api): Shared, Extension(peer): Caller, Segment(request): Segment<String>) -> Answered {
    let owner = Some(api.who(&peer)?);
    let request = named(request)?;
    api.done(Ask::Forget { request, owner }).await
}

type Answered = Result<Response, Trouble>;

async fn cancel(
    State(api): Shared,
    Extension(peer): Caller,
    Segment(request): Segment<String>,
    body: Body,
) -> Result<Response, Trouble> {
    let (owner, request, names) = api.of_request(&peer, request, body).await?;
    let names = Some(names);
    api.done(Ask::Cancel { request, owner, names }).await
}

async fn release(
    State(api): Shared,
    Extension(peer): Caller,
    Segment(request): Segment<String>,
    body: Body,
) -> Result<Response, Trouble> {
    let (owner, request, names) = api.of_request(&peer, request, body).await?;
    api.done(Ask::Release { request, owner, names }).await
}

async fn archive_info(State(api): Shared, Extension(peer): Caller, body: Body) -> Result<Response, Trouble> {
    let body = api.body(body).await?;
    api.who(&peer)?;
    let names = tape::paths(&body, api.files)?;
    api.count(&peer, names.len())?;
    match api.ask(Ask::Stat { names }).await? {
        Answer::Files { files } => Ok(Json(tape::archive(&files)).into_response()),
        Answer::Failed {
            reason: Reason::Unknown,
        } => Err(Trouble::new(404, "nothing of that name is registered")),
        other => Err(refused(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told_at_once() {
        let text = r#"
            loud = true
            [serve]
            listen = "here"
            url = "http://se"
            files = 0
            allow = ["alice"]
            [limits]
            in_flight = 0
            [monitor]
            port = 7
        "#;
        let faults = ServeConfig::parse(text, Path::new("/etc")).unwrap_err().join("\n");
        for words in [
            "unknown key `loud`",
            "unknown key `monitor.port`",
            "`serve.listen`: `here`",
            "`serve.agent` is missing",
            "`serve.site` is missing",
            "`serve.url`",
            "`serve.files`",
            "`alice` is no DN",
            "`tls.certificate` is missing",
            "limits.in_flight",
            "`monitor.listen` is missing",
        ] {
            assert!(faults.contains(words), "{words} in\n{faults}");
        }
        let faults = ServeConfig::parse("", Path::new("/etc")).unwrap_err().join("\n");
        assert!(faults.contains("`[serve]` is missing"), "{faults}");
    }

    #[test]
    fn the_example_that_is_installed_is_whole() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/serve.toml");
        let config = ServeConfig::read(Path::new(path)).unwrap();
        assert!(config.allow.is_empty(), "the example lets nobody in");
        assert_eq!((config.files, config.lifetime_s), (MOST_FILES, LONGEST_LIFETIME_S));
    }

    #[test]
    fn what_the_agent_refuses_has_its_status() {
        let refused = |refusal| {
            let text = "words".to_owned();
            refused(Answer::Refused { refusal, text }).status
        };
        let all = [
            (Refusal::NoRequest, 404),
            (Refusal::NotOfRequest, 400),
            (Refusal::Unfit, 400),
            (Refusal::TooMuch, 429),
            (Refusal::Database, 503),
            (Refusal::Unreadable, 503),
        ];
        for (refusal, status) in all {
            assert_eq!(refused(refusal), status, "{refusal:?}");
        }
        assert_eq!(super::refused(Answer::Done).status, 500);
    }
}
