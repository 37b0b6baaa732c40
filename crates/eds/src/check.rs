//! `eds-check` and `eds-whoami`: what is configured, who the caller is, and what each store answers.

use std::time::{Duration, SystemTime};

use hydra_cli::{Code, Failure};
use hydra_core::config::load::{self, Surroundings};
use hydra_core::config::{ClientConfig, CrlPolicy, TrustAnchors};
use hydra_core::keystore::hydra::{StoreCheck, StoreFault};
use serde_json::{Value, json};

use crate::args;
use crate::failure::{Because, refuse_credential};
use crate::session::{self, Found, Session, SessionError, roughly, timestamp};
use crate::voice::Voice;

/// `eds-check`.
///
/// # Errors
/// The first thing that is wrong; everything else that could be found out is printed before.
pub fn check(args: &args::Check) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let around = Surroundings::of_process();
    let config = load::load(&session::overrides(&args.stores), &around);
    let found = session::find_credential(&around);
    if let Ok(config) = &config {
        tell_config(voice, config)?;
    }
    if let Ok(found) = &found {
        tell_credential(voice, found)?;
    }
    let mut report = json!({
        "config": config.as_ref().ok().map(config_json),
        "credential": found.as_ref().ok().map(credential_json),
        "stores": [],
    });
    let (config, found) = match (config, found) {
        (Ok(config), Ok(found)) => (config, found),
        (config, found) => {
            voice.json(&report)?;
            let config_failure = config.err().map(|error| Failure::from(SessionError::Config(error)));
            return match (config_failure, found.err().map(Failure::from)) {
                (Some(config), Some(credential)) => {
                    let _ = hydra_cli::exit(Err(config));
                    Err(credential)
                }
                (config, credential) => config.or(credential).map_or(Ok(()), Err),
            };
        }
    };
    let session = Session::from_parts(config, &found.credential)?;
    let checks = session.wait(session.hydra.check());
    voice.result("stores")?;
    for check in &checks {
        voice.result(&format!("  {}: {}", check.store, check_words(check)))?;
    }
    report["stores"] = checks.iter().map(check_json).collect();
    voice.json(&report)?;
    judge(&checks, &session.dn)
}

/// `eds-whoami`.
///
/// # Errors
/// Where there is no credential, or no store confirms it.
pub fn whoami(args: &args::Whoami) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let around = Surroundings::of_process();
    let found = session::find_credential(&around)?;
    voice.result(found.credential.dn())?;
    let config = match load::load(&session::overrides(&args.stores), &around) {
        Ok(config) => config,
        Err(error) => {
            voice.json(&whoami_json(&found, &[]))?;
            return Err(SessionError::Config(error).into());
        }
    };
    let session = Session::from_parts(config, &found.credential)?;
    let checks = session.wait(session.hydra.check());
    for check in &checks {
        if let Ok((_, seen)) = &check.answer {
            let fqans = if seen.fqans.is_empty() {
                String::new()
            } else {
                format!(", {}", seen.fqans.join(", "))
            };
            voice.result(&format!("  {}: {} by {}{fqans}", check.store, seen.dn, seen.method))?;
            if let Some(error) = &seen.voms_error {
                voice.result(&format!(
                    "    groups and roles refused: {}",
                    hydra_cli::printable(error)
                ))?;
            }
        } else {
            voice.result(&format!("  {}: {}", check.store, check_words(check)))?;
        }
    }
    voice.json(&whoami_json(&found, &checks))?;
    judge(&checks, &session.dn)
}

/// All stores must answer, and see the caller as the credential says.
fn judge(checks: &[StoreCheck], dn: &str) -> Result<(), Failure> {
    let mut silent = Vec::new();
    let mut mistaken = Vec::new();
    for check in checks {
        match &check.answer {
            Err(fault) => silent.push(fault.clone()),
            Ok((_, seen)) if seen.dn != dn => {
                let reason = format!("sees you as {}", seen.dn);
                mistaken.push(StoreFault::new(&check.store, reason));
            }
            Ok((about, _)) if about.restored => {
                let reason = "was restored from a backup and is not opened yet";
                silent.push(StoreFault::new(&check.store, reason));
            }
            Ok(_) => {}
        }
    }
    if !mistaken.is_empty() {
        return Err(Failure::new(
            Code::Config,
            Because::faults(format!("not every store sees you as {dn}"), &mistaken),
        ));
    }
    if silent.is_empty() {
        return Ok(());
    }
    let text = format!("{} of {} stores are ready", checks.len() - silent.len(), checks.len());
    let code = if refuse_credential(&silent) {
        Code::Config
    } else {
        Code::TryLater
    };
    Err(Failure::new(code, Because::faults(text, &silent)))
}

fn tell_config(voice: Voice, config: &ClientConfig) -> Result<(), Failure> {
    voice.result("configuration")?;
    for (what, source) in &config.sources {
        voice.result(&format!("  {what}: {} ({source})", setting(config, what)))?;
    }
    let timeouts = config.timeouts;
    let [connect, request, total, hedge] =
        [timeouts.connect, timeouts.request, timeouts.total, timeouts.hedge].map(milliseconds);
    voice.result(&format!(
        "  timeouts: connect {connect}, request {request}, total {total}, hedge {hedge}"
    ))
}

fn setting(config: &ClientConfig, what: &str) -> String {
    match what {
        "stores" => config
            .stores
            .iter()
            .map(|store| store.name.as_str())
            .collect::<Vec<_>>()
            .join(" "),
        "threshold" => format!("{} of {}", config.threshold, config.stores.len()),
        "min_threshold" => config.min_threshold.to_string(),
        _ => {
            let (TrustAnchors::Directory(path) | TrustAnchors::File(path)) = &config.trust.anchors;
            format!("{}, revocation lists {}", path.display(), crl_word(config.trust.crl))
        }
    }
}

fn crl_word(crl: CrlPolicy) -> &'static str {
    match crl {
        CrlPolicy::IfPresent => "if-present",
        CrlPolicy::Require => "require",
    }
}

fn milliseconds(span: Duration) -> String {
    format!("{} ms", span.as_millis())
}

fn tell_credential(voice: Voice, found: &Found) -> Result<(), Failure> {
    let credential = &found.credential;
    voice.result("credential")?;
    voice.result(&format!(
        "  file: {} ({})",
        credential.source().display(),
        found.files.origin
    ))?;
    voice.result(&format!("  name: {}", credential.dn()))?;
    voice.result(&format!("  kind: {}", kind_word(found)))?;
    let until = credential.not_after();
    let left = until.duration_since(SystemTime::now()).unwrap_or_default();
    voice.result(&format!("  valid until: {} ({} left)", timestamp(until), roughly(left)))
}

fn kind_word(found: &Found) -> &'static str {
    match (found.credential.is_proxy(), found.credential.is_limited()) {
        (true, true) => "limited proxy",
        (true, false) => "proxy",
        (false, _) => "certificate",
    }
}

fn check_words(check: &StoreCheck) -> String {
    match &check.answer {
        Err(fault) => format!("{} ({})", fault.reason, check.url),
        Ok((about, seen)) => {
            let restored = if about.restored {
                ", restored from a backup and not opened yet"
            } else {
                ""
            };
            let (id, version) = (&about.store, &about.version);
            let took = check.took.as_millis();
            format!(
                "ready in {took} ms ({}, id {id}, version {version}){restored}, sees you as {}",
                check.url, seen.dn
            )
        }
    }
}

fn config_json(config: &ClientConfig) -> Value {
    let sources = config
        .sources
        .iter()
        .map(|(what, source)| (what.clone(), Value::from(source.as_str())));
    json!({
        "stores": config.stores.iter().map(|store| json!({ "url": store.url, "name": store.name })).collect::<Vec<_>>(),
        "threshold": config.threshold,
        "min_threshold": config.min_threshold,
        "trust": setting(config, "trust"),
        "sources": Value::Object(sources.collect()),
    })
}

fn credential_json(found: &Found) -> Value {
    json!({
        "file": found.credential.source().to_string_lossy(),
        "origin": found.files.origin,
        "dn": found.credential.dn(),
        "kind": kind_word(found),
        "not_after": timestamp(found.credential.not_after()),
    })
}

fn check_json(check: &StoreCheck) -> Value {
    match &check.answer {
        Err(fault) => json!({ "store": check.store, "url": check.url, "fault": fault.reason }),
        Ok((about, seen)) => json!({
            "store": check.store,
            "url": check.url,
            "id": about.store.as_str(),
            "version": about.version,
            "protocols": about.protocols,
            "restored": about.restored,
            "dn": seen.dn,
            "fqans": seen.fqans,
            "voms_error": seen.voms_error,
            "method": seen.method,
            "took_ms": u64::try_from(check.took.as_millis()).unwrap_or(u64::MAX),
        }),
    }
}

fn whoami_json(found: &Found, checks: &[StoreCheck]) -> Value {
    let mut value = credential_json(found);
    value["fqans"] = json!(found.credential.fqans());
    value["stores"] = checks.iter().map(check_json).collect();
    value
}
