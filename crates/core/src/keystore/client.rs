//! One key store over HTTPS: a message out, an answer in, and in words what went wrong. It decides nothing.
//!
//! The wire format is `docs/src/formats/protocol.md`. Whatever a store sends, be it garbage, is at most that store's
//! fault; answers are bounded in size and time.

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::config::{StoreEndpoint, Timeouts};
use crate::key_id::KeyId;
use crate::keystore::outcome::LocalError;
use crate::keystore::quorum::{Heard, Message, Said, Silence, describe_problem};
use crate::keystore::wire::{About, Answer, Answers, Batch, ItemResult, List, ListAnswer, Operation, Problem, WhoAmI};

/// The longest answer that is read. A page of a list is the longest there is, and far below.
pub const MAX_ANSWER_BYTES: usize = 4 << 20;

/// One store of the configuration. Connections stay open between requests.
#[derive(Clone)]
pub struct StoreClient {
    http: reqwest::Client,
    base: String,
    timeouts: Timeouts,
}

/// Clients of all configured stores, which share one TLS configuration.
///
/// # Errors
/// A TLS configuration that the HTTP client does not take.
pub fn clients(
    stores: &[StoreEndpoint],
    timeouts: Timeouts,
    tls: rustls::ClientConfig,
) -> Result<Vec<StoreClient>, LocalError> {
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("hydra-eds/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(timeouts.connect)
        .timeout(timeouts.request)
        .build()
        .map_err(|error| LocalError::Config(format!("no HTTPS client can be made: {}", innermost(&error))))?;
    let client = |store: &StoreEndpoint| StoreClient {
        http: http.clone(),
        base: store.url.trim_end_matches('/').to_owned(),
        timeouts,
    };
    Ok(stores.iter().map(client).collect())
}

impl StoreClient {
    /// Sends a message of the protocol.
    ///
    /// # Errors
    /// No answer that is one, in words.
    pub async fn ask(&self, message: &Message) -> Result<Heard, Silence> {
        match message {
            Message::About => self.about().await.map(|about| Heard {
                store: about.store.clone(),
                said: Said::About(Box::new(about)),
            }),
            Message::Create(item) => self.change(Operation::Create, &item.key_id, item).await,
            Message::Confirm(item) => self.change(Operation::Confirm, &item.key_id, item).await,
            Message::Stop(item) => self.change(Operation::Stop, &item.key_id, item).await,
            Message::Undo(item) => self.change(Operation::Undo, &item.key_id, item).await,
            Message::Remove(item) => self.change(Operation::Remove, &item.key_id, item).await,
            Message::Read(item) => self.entry(Operation::Read, &item.key_id, item, Said::Read).await,
            Message::Describe(item) => {
                let said = |answer| Said::Describe(Box::new(answer));
                self.entry(Operation::Describe, &item.key_id, item, said).await
            }
            Message::Change(item) => self.change(Operation::Change, &item.key_id, item).await,
            Message::Put(item) => self.change(Operation::Put, &item.key_id, item).await,
            Message::Drop(item) => self.change(Operation::Drop, &item.key_id, item).await,
        }
    }

    /// What the store is.
    ///
    /// # Errors
    /// No answer that is one, in words.
    pub async fn about(&self) -> Result<About, Silence> {
        self.call(self.http.get(format!("{}/v1/about", self.base))).await
    }

    /// How the store sees the caller.
    ///
    /// # Errors
    /// No answer that is one, in words.
    pub async fn whoami(&self) -> Result<WhoAmI, Silence> {
        self.call(self.http.get(format!("{}/v1/whoami", self.base))).await
    }

    /// One page of a list.
    ///
    /// # Errors
    /// No answer that is one, or a refusal, in words.
    pub async fn list(&self, list: &List) -> Result<ListAnswer, Silence> {
        match self.item(Operation::List, None, list).await?.1 {
            ItemResult::Done(answer) => Ok(answer),
            ItemResult::Problem { problem } => Err(silence(describe_problem(&problem))),
        }
    }

    async fn change<T: Serialize>(&self, operation: Operation, key_id: &KeyId, item: &T) -> Result<Heard, Silence> {
        let said = |answer| Said::Changed(Box::new(answer));
        self.entry(operation, key_id, item, said).await
    }

    async fn entry<T: Serialize, A: DeserializeOwned>(
        &self,
        operation: Operation,
        key_id: &KeyId,
        item: &T,
        said: impl FnOnce(A) -> Said,
    ) -> Result<Heard, Silence> {
        let (store, result) = self.item(operation, Some(key_id), item).await?;
        let said = match result {
            ItemResult::Done(answer) => said(answer),
            ItemResult::Problem { problem } => Said::Problem(Box::new(problem)),
        };
        Ok(Heard { store, said })
    }

    /// A request with one item, and its one answer.
    async fn item<T: Serialize, A: DeserializeOwned>(
        &self,
        operation: Operation,
        key_id: Option<&KeyId>,
        item: &T,
    ) -> Result<(crate::ids::StoreId, ItemResult<A>), Silence> {
        let url = format!("{}/v1/entries/{}", self.base, operation.name());
        let request = self.http.post(url).json(&Batch { items: vec![item] });
        let answers: Answers<A> = self.call(request).await?;
        let mut items = answers.items.into_iter();
        match (items.next(), items.next()) {
            (Some(Answer { key_id: about, result }), None) if about.is_none() || about.as_ref() == key_id => {
                Ok((answers.store, result))
            }
            _ => Err(silence("answered something else than was asked")),
        }
    }

    async fn call<A: DeserializeOwned>(&self, request: RequestBuilder) -> Result<A, Silence> {
        let response = request.send().await.map_err(|error| self.failure(&error))?;
        let status = response.status();
        let is_json = response.headers().get(CONTENT_TYPE).is_some_and(is_json);
        let kind = response.headers().get(CONTENT_TYPE).cloned();
        let body = self.body(response).await?;
        if status != StatusCode::OK {
            return Err(silence(match serde_json::from_slice::<Problem>(&body) {
                Ok(problem) if is_json => describe_problem(&problem),
                _ => format!("answered {}", status.as_u16()),
            }));
        }
        if !is_json {
            let kind = kind
                .as_ref()
                .and_then(|kind| kind.to_str().ok())
                .unwrap_or("no content type");
            let kind: String = kind.chars().take(60).collect();
            return Err(silence(format!("answered {kind} instead of JSON")));
        }
        serde_json::from_slice(&body).map_err(|error| {
            silence(if error.is_data() {
                "answered JSON that is no answer of the protocol"
            } else {
                "answered something that is no JSON"
            })
        })
    }

    /// The body, which may hold a share: wiped when it was read.
    async fn body(&self, mut response: Response) -> Result<Zeroizing<Vec<u8>>, Silence> {
        let mut body = Zeroizing::new(Vec::with_capacity(4096));
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failure(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(silence(format!("answered more than {} MiB", MAX_ANSWER_BYTES >> 20)));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn failure(&self, error: &reqwest::Error) -> Silence {
        Silence {
            reason: describe_failure(error, self.timeouts),
            credential_refused: causes(error).filter_map(tls_error).any(refuses_credential),
        }
    }
}

fn silence(reason: impl Into<String>) -> Silence {
    Silence::new(reason)
}

/// Of what TLS says, an alert comes from the other side, and after its certificate was found good it is about ours.
fn refuses_credential(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::AlertReceived(_))
}

/// `application/json` or `application/problem+json`, with or without parameters.
fn is_json(kind: &HeaderValue) -> bool {
    let kind = kind.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(kind.as_str(), "application/json" | "application/problem+json")
}

/// A failure of the network as a predicate of the store.
fn describe_failure(error: &reqwest::Error, timeouts: Timeouts) -> String {
    for cause in causes(error) {
        if let Some(tls) = tls_error(cause) {
            return describe_tls(tls);
        }
    }
    if error.is_timeout() {
        return match error.is_connect() {
            true => format!("made no connection in {}", seconds(timeouts.connect)),
            false => format!("gave no answer in {}", seconds(timeouts.request)),
        };
    }
    let kinds: Vec<io::ErrorKind> = causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .map(io::Error::kind)
        .collect();
    if kinds.contains(&io::ErrorKind::ConnectionRefused) {
        return "refused the connection".to_owned();
    }
    if error.is_connect() {
        return format!("cannot be reached: {}", innermost(error));
    }
    if error.is_decode() || error.is_body() {
        return "broke off in the middle of its answer".to_owned();
    }
    let text = innermost(error);
    let broken = [
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::UnexpectedEof,
    ];
    if kinds.iter().any(|kind| broken.contains(kind)) || text.contains("connection closed") {
        return "closed the connection".to_owned();
    }
    format!("gave no answer: {text}")
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// The last cause in the chain, which is the one that says something.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let last = causes(error).last().map(ToString::to_string);
    last.unwrap_or_default()
}

/// An error of TLS travels inside an I/O error, and that inside another one, which `source` passes over.
fn tls_error<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut inside = cause;
    while let Some(outer) = inside.downcast_ref::<io::Error>() {
        inside = outer.get_ref()?;
    }
    inside.downcast_ref()
}

fn describe_tls(error: &rustls::Error) -> String {
    if let Some(refusal) = grid_identity::tls::refusal(error) {
        return format!("has a certificate that cannot be trusted: {refusal}");
    }
    match error {
        rustls::Error::InvalidCertificate(why) => format!("has a certificate that cannot be trusted: {why}"),
        rustls::Error::AlertReceived(alert) => format!("refused the credential (TLS alert {alert:?})"),
        other => format!("does not speak TLS as it should: {other}"),
    }
}

fn seconds(time: Duration) -> String {
    match time.subsec_millis() {
        0 => format!("{} s", time.as_secs()),
        _ => format!("{} ms", time.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_known_by_its_type() {
        for (kind, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("text/html", false),
            ("application/jsonp", false),
            ("", false),
        ] {
            assert_eq!(is_json(&HeaderValue::from_static(kind)), expected, "{kind}");
        }
    }

    #[test]
    fn an_error_of_tls_is_found_however_deep_it_is_wrapped() {
        let tls = || rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA);
        let once = io::Error::new(io::ErrorKind::InvalidData, tls());
        let twice = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls()));
        for error in [once, twice] {
            let text = tls_error(&error).map(describe_tls);
            assert_eq!(text.as_deref(), Some("refused the credential (TLS alert UnknownCA)"));
        }
        assert!(tls_error(&io::Error::from(io::ErrorKind::ConnectionRefused)).is_none());
        assert!(tls_error(&io::Error::other("no error of TLS")).is_none());
    }

    #[test]
    fn times_are_told_in_seconds_where_they_are_whole() {
        assert_eq!(seconds(Duration::from_secs(5)), "5 s");
        assert_eq!(seconds(Duration::from_millis(1500)), "1500 ms");
    }
}
