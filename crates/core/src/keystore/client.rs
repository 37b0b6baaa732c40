//! One key store over HTTPS: a message out, an answer in, and in words what went wrong. It decides nothing.
//!
//! The wire format is `docs/src/formats/protocol.md`. Whatever a store sends, be it garbage, is at most that store's
//! fault; answers are bounded in size and time.

use reqwest::header::CONTENT_TYPE;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::config::{StoreEndpoint, Timeouts};
use crate::https;
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
    let http = https::client(timeouts, tls)?;
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
        let is_json = response.headers().get(CONTENT_TYPE).is_some_and(https::is_json);
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
            reason: https::describe_failure(error, self.timeouts),
            credential_refused: https::credential_refused(error),
        }
    }
}

fn silence(reason: impl Into<String>) -> Silence {
    Silence::new(reason)
}
