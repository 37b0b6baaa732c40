//! Files that have to come from behind a storage element first: a client of the WLCG Tape REST API, version 1.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use storage_url::{Scheme, StorageUrl};

/// Why a file was not brought to disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// The storage element gave no answer that is one.
    #[error("`{url}` cannot be asked for from behind its storage element: {reason}")]
    Silent {
        /// The file.
        url: String,
        /// Why not.
        reason: String,
    },
    /// It could not be brought.
    #[error("`{url}` cannot be brought to disk: {reason}")]
    Failed {
        /// The file.
        url: String,
        /// What the storage element says.
        reason: String,
    },
    /// It took too long.
    #[error("`{url}` is not on disk after {seconds} s; it goes on coming")]
    Late {
        /// The file.
        url: String,
        /// How long was waited.
        seconds: u64,
    },
}

#[derive(Deserialize)]
struct Discovery {
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    uri: String,
    version: String,
}

#[derive(Deserialize)]
struct Locality {
    #[serde(default)]
    locality: String,
}

#[derive(Deserialize)]
struct Accepted {
    #[serde(rename = "requestId")]
    request_id: String,
}

#[derive(Deserialize)]
struct Progress {
    files: Vec<FileProgress>,
}

#[derive(Deserialize)]
struct FileProgress {
    #[serde(default, rename = "onDisk")]
    on_disk: bool,
    #[serde(default)]
    state: String,
    #[serde(default)]
    error: Option<String>,
}

/// What a poll says of a file.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    There,
    Coming,
    Failed(String),
}

impl FileProgress {
    fn step(&self) -> Step {
        match self.state.as_str() {
            "FAILED" | "CANCELLED" => {
                Step::Failed(self.error.clone().unwrap_or_else(|| self.state.to_ascii_lowercase()))
            }
            "COMPLETED" => Step::There,
            _ if self.on_disk => Step::There,
            _ => Step::Coming,
        }
    }
}

/// Waits until the file at `url` is on disk. Answers whether it had to be brought; a storage element without this API
/// is taken at its word that it serves its files.
///
/// # Errors
/// It cannot be brought, or not in `patience`.
pub async fn stage(http: &Client, url: &StorageUrl, patience: Duration) -> Result<bool, StageError> {
    if url.scheme() != Scheme::Https {
        return Ok(false);
    }
    let Some(api) = endpoint(http, url).await? else {
        return Ok(false);
    };
    let path = url.name();
    let known: Vec<Locality> = post(http, url, &format!("{api}/archiveinfo"), &json!({ "paths": [path] })).await?;
    let on_disk = known
        .first()
        .is_some_and(|file| matches!(file.locality.as_str(), "DISK" | "DISK_AND_TAPE"));
    if on_disk {
        return Ok(false);
    }
    let accepted: Accepted = post(
        http,
        url,
        &format!("{api}/stage"),
        &json!({ "files": [{ "path": path }] }),
    )
    .await?;
    let late = || StageError::Late {
        url: url.to_string(),
        seconds: patience.as_secs(),
    };
    let waited = tokio::time::timeout(patience, wait(http, url, &api, &accepted.request_id)).await;
    waited.map_err(|_| late())?.map(|()| true)
}

async fn wait(http: &Client, url: &StorageUrl, api: &str, request: &str) -> Result<(), StageError> {
    let mut pause = Duration::from_millis(100);
    loop {
        let progress: Progress = answer(url, http.get(format!("{api}/stage/{request}")).send().await).await?;
        match progress.files.first().map_or(Step::Coming, FileProgress::step) {
            Step::There => return Ok(()),
            Step::Failed(reason) => {
                return Err(StageError::Failed {
                    url: url.to_string(),
                    reason,
                });
            }
            Step::Coming => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

/// Where the storage element has the API; nowhere, where it does not say so.
async fn endpoint(http: &Client, url: &StorageUrl) -> Result<Option<String>, StageError> {
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    let place = format!("https://{}{port}/.well-known/wlcg-tape-rest-api", url.host());
    let response = http.get(place).send().await;
    if response
        .as_ref()
        .is_ok_and(|response| response.status() != StatusCode::OK)
    {
        return Ok(None);
    }
    // a page for people at that place is no API
    let discovery: Result<Discovery, StageError> = answer(url, response).await;
    let Ok(discovery) = discovery else { return Ok(None) };
    let first = discovery
        .endpoints
        .into_iter()
        .find(|endpoint| endpoint.version.starts_with("v1"));
    Ok(first.map(|endpoint| endpoint.uri.trim_end_matches('/').to_owned()))
}

async fn post<A: DeserializeOwned>(
    http: &Client,
    url: &StorageUrl,
    to: &str,
    body: &serde_json::Value,
) -> Result<A, StageError> {
    answer(url, http.post(to).json(body).send().await).await
}

async fn answer<A: DeserializeOwned>(
    url: &StorageUrl,
    response: Result<reqwest::Response, reqwest::Error>,
) -> Result<A, StageError> {
    let silent = |reason: String| StageError::Silent {
        url: url.to_string(),
        reason,
    };
    let response = response.map_err(|error| silent(error.to_string()))?;
    if !response.status().is_success() {
        return Err(silent(format!("it answered {}", response.status().as_u16())));
    }
    response.json().await.map_err(|error| silent(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_says_how_far_a_file_is() {
        let step = |json: &str| serde_json::from_str::<Progress>(json).unwrap().files[0].step();
        assert_eq!(step(r#"{"files":[{"path":"/a","state":"STARTED"}]}"#), Step::Coming);
        assert_eq!(step(r#"{"files":[{"path":"/a","state":"COMPLETED"}]}"#), Step::There);
        assert_eq!(step(r#"{"files":[{"path":"/a","onDisk":true}]}"#), Step::There);
        let failed = step(r#"{"files":[{"path":"/a","state":"FAILED","error":"no such file"}]}"#);
        assert_eq!(failed, Step::Failed("no such file".into()));
    }
}
