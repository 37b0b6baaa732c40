//! How clients speak HTTPS to the services of Hydra EDS: one way to make the connection, and one way to say in words
//! why there was no answer (`docs/src/credentials.md`).

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use grid_identity::{Credential, Policy, TrustStore, tls};
use reqwest::header::HeaderValue;

use crate::config::{CrlPolicy, Timeouts, Trust, TrustAnchors};
use crate::keystore::outcome::LocalError;

/// TLS that presents `credential` and believes `trust`.
///
/// # Errors
/// Trust anchors or a credential that cannot work.
pub fn tls_of(credential: &Credential, trust: &Trust) -> Result<rustls::ClientConfig, LocalError> {
    let policy = Policy::client(trust.crl == CrlPolicy::Require);
    let store = match &trust.anchors {
        TrustAnchors::Directory(path) => TrustStore::directory(path, policy),
        TrustAnchors::File(path) => TrustStore::file(path, policy),
    };
    let store = Arc::new(store.map_err(|error| LocalError::Trust(Box::new(error)))?);
    tls::client_config(credential, store).map_err(|error| LocalError::Tls(Box::new(error)))
}

/// How long a connection may rest and be used again. Services close theirs after 30 seconds, which a client that rests
/// itself, as between two recalls, would notice only by a request that fails.
const IDLE: Duration = Duration::from_secs(15);

/// A client of services: HTTPS alone, no proxies, no redirections, and a deadline for each request.
///
/// # Errors
/// A TLS configuration that the HTTP client does not take.
pub fn client(timeouts: Timeouts, tls: rustls::ClientConfig) -> Result<reqwest::Client, LocalError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("hydra-eds/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(timeouts.connect)
        .timeout(timeouts.request)
        .pool_idle_timeout(IDLE)
        .build()
        .map_err(|error| LocalError::Config(format!("no HTTPS client can be made: {}", innermost(&error))))
}

/// Whether the other side refused our credential. Of what TLS says, an alert comes from there, and after its
/// certificate was found good it is about ours.
pub fn credential_refused(error: &reqwest::Error) -> bool {
    causes(error)
        .filter_map(tls_error)
        .any(|error| matches!(error, rustls::Error::AlertReceived(_)))
}

/// `application/json` or `application/problem+json`, with or without parameters.
pub fn is_json(kind: &HeaderValue) -> bool {
    let kind = kind.to_str().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(kind.as_str(), "application/json" | "application/problem+json")
}

/// A failure of the network as a predicate of the service: `refused the connection`.
pub fn describe_failure(error: &reqwest::Error, timeouts: Timeouts) -> String {
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
