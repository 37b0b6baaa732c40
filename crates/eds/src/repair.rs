//! `eds-key-repair` and `eds-key-reshare`: keys made whole at all stores, and split anew over them.

use hydra_cli::{Code, Failure};
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{RepairError, RepairOptions, RepairReport, ReshareError, ReshareOptions};
use serde_json::{Value, json};

use crate::failure::{self, Because, quoted};
use crate::operands::{bad_key_id, meant_key_ids};
use crate::session::Session;
use crate::voice::Voice;
use crate::{args, many};

/// `eds-key-repair`.
///
/// # Errors
/// Where there is nothing to repair, or something is left to do. Of many keys, the worst.
pub fn repair(args: &args::Repair) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let options = || RepairOptions {
        now: args.now,
        dry_run: args.dry_run,
        over: args.over.clone(),
    };
    let Some(typed) = &args.keys.key_id else {
        let session = Session::open(&args.stores)?;
        let verb = async |key_id: &KeyId| (key_id.clone(), session.hydra.repair(key_id, options()).await);
        return many::keys(
            &session,
            &args.keys,
            voice,
            "are not whole",
            &verb,
            |(key_id, repaired)| match repaired {
                Ok(report) => told(&key_id, &report, args.dry_run, voice),
                Err(error) => {
                    voice.json(&json!({ "key_id": key_id.as_str(), "error": error.to_string() }))?;
                    Err(failure::repair(error))
                }
            },
        );
    };
    let key_ids = meant_key_ids(typed).map_err(|error| bad_key_id(typed, error))?;
    let session = Session::open(&args.stores)?;
    let mut result = None;
    for key_id in &key_ids {
        let repaired = session.wait(session.hydra.repair(key_id, options()));
        let known = !matches!(repaired, Err(RepairError::NotFound { .. }));
        if known || result.is_none() {
            result = Some((key_id, repaired));
        }
        if known {
            break;
        }
    }
    let Some((key_id, repaired)) = result else {
        return Ok(());
    };
    told(key_id, &repaired.map_err(failure::repair)?, args.dry_run, voice)
}

fn told(key_id: &KeyId, report: &RepairReport, dry_run: bool, voice: Voice) -> Result<(), Failure> {
    for (store, done) in &report.done {
        voice.result(&format!("{key_id}: {store}: {done}"))?;
    }
    voice.json(&report_json(key_id, report, dry_run))?;
    if report.unverified {
        voice.warning(&format!("key `{key_id}` was imported and has no check value"));
        voice.note(&format!("  try: eds-key-reshare {}", quoted(key_id.as_str())));
    } else if report.unchecked && report.lost.is_none() {
        voice.note(&format!(
            "{key_id}: not every share was looked at: you may not read them all"
        ));
    }
    match (report.whole, report.free) {
        (true, _) => voice.result(&format!("{key_id}: registered")),
        (_, true) => voice.result(&format!("{key_id}: free")),
        _ => Err(left(key_id, report, dry_run)),
    }
}

fn left(key_id: &KeyId, report: &RepairReport, dry_run: bool) -> Failure {
    let again = format!("eds-key-repair {}", quoted(key_id.as_str()));
    if let Some(unless) = &report.lost {
        let text = match unless.as_slice() {
            [] => format!("`{key_id}` is lost: too few good shares are left"),
            unless => format!(
                "`{key_id}` is lost unless {} comes back, or is opened by its administrator",
                unless.join(" or ")
            ),
        };
        return Failure::new(Code::TryLater, Because::faults(text, &report.faults))
            .advise(format!("eds-key-status {}", quoted(key_id.as_str())));
    }
    if dry_run && report.faults.is_empty() {
        return Failure::new(Code::TryLater, format!("`{key_id}` is to be repaired")).advise(again);
    }
    let text = format!("`{key_id}` is not whole yet");
    let failure = Failure::new(Code::TryLater, Because::faults(text, &report.faults));
    let reshare = report
        .faults
        .iter()
        .any(|fault| fault.reason.ends_with("reshare the key"));
    match reshare {
        true => failure.advise(format!("eds-key-reshare {}", quoted(key_id.as_str()))),
        false => failure.advise(format!("{again} again, when those stores are back")),
    }
}

fn report_json(key_id: &KeyId, report: &RepairReport, dry_run: bool) -> Value {
    let done = report.done.iter();
    let faults = report.faults.iter();
    json!({
        "key_id": key_id.as_str(),
        "dry_run": dry_run,
        "done": done.map(|(store, done)| json!({ "store": store, "done": done })).collect::<Vec<_>>(),
        "faults": faults.map(|fault| json!({ "store": fault.store, "reason": fault.reason })).collect::<Vec<_>>(),
        "whole": report.whole,
        "free": report.free,
        "lost_unless": report.lost,
        "unchecked": report.unchecked,
        "unverified": report.unverified,
    })
}

/// `eds-key-reshare`.
///
/// # Errors
/// What went wrong: nothing was changed then, but for "at some stores only".
pub fn reshare(args: &args::Reshare) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let key_ids = meant_key_ids(&args.key_id).map_err(|error| bad_key_id(&args.key_id, error))?;
    // The threshold is that of the new shares: the old ones are read by the configuration's.
    let stores = args::Stores {
        stores: args.stores.clone(),
        threshold: None,
    };
    let session = Session::open(&stores)?;
    let mut first = None;
    for key_id in &key_ids {
        let outcome = match &args.retire {
            Some(store) => retire(&session, key_id, store, voice),
            None => reshare_one(&session, key_id, args, voice),
        };
        match outcome {
            Ok(told) => return told,
            Err(error @ ReshareError::NotFound { .. }) => first = first.or(Some(error)),
            Err(error) => return Err(reshare_failure(error)),
        }
    }
    first.map_or(Ok(()), |error| Err(reshare_failure(error)))
}

type Told = Result<(), Failure>;

fn reshare_one(session: &Session, key_id: &KeyId, args: &args::Reshare, voice: Voice) -> Result<Told, ReshareError> {
    let options = ReshareOptions {
        threshold: args.threshold,
        leave: args.leave.clone(),
    };
    let reshared = session.wait(session.hydra.reshare(key_id, options))?;
    if !reshared.was_verified {
        voice.warning(&format!(
            "key `{key_id}` had no check value until now: open a file to see that it is right"
        ));
    }
    let words = format!(
        "reshared {key_id}: {} of {} shares join, generation {}",
        reshared.m,
        reshared.stores.len(),
        reshared.generation
    );
    Ok(voice.result(&words).and_then(|()| {
        for store in &reshared.left {
            voice.note(&format!("{store} still has an old share"));
            let retire = format!("eds-key-reshare --retire {} {}", quoted(store), quoted(key_id.as_str()));
            voice.note(&format!("  try: {retire}, when no configuration names it any more"));
        }
        voice.json(&json!({
            "key_id": key_id.as_str(),
            "registration_id": reshared.registration_id.to_string(),
            "generation": reshared.generation,
            "m": reshared.m,
            "stores": reshared.stores,
            "left": reshared.left,
        }))
    }))
}

fn retire(session: &Session, key_id: &KeyId, store: &str, voice: Voice) -> Result<Told, ReshareError> {
    let registration = session.wait(session.hydra.retire(key_id, store))?;
    let words = format!("{store}: deleted what it had of {key_id}");
    Ok(voice.result(&words).and_then(|()| {
        voice.json(&json!({
            "key_id": key_id.as_str(),
            "registration_id": registration.to_string(),
            "retired": store,
        }))
    }))
}

fn reshare_failure(error: ReshareError) -> Failure {
    let text = error.to_string();
    let repair = |key_id: &KeyId| format!("eds-key-repair {}", quoted(key_id.as_str()));
    match error {
        ReshareError::NotFound { faults, .. } => {
            Failure::new(Code::NotAllowed, Because::faults(text, &faults)).advise("eds-whoami")
        }
        ReshareError::Removed { .. } => Failure::new(Code::NotAllowed, text),
        ReshareError::Refused {
            denied: true, faults, ..
        } => Failure::new(Code::NotAllowed, Because::faults(text, &faults)).advise("eds-whoami"),
        ReshareError::Permissions { key_id } => Failure::new(Code::TryLater, text).advise(repair(&key_id)),
        ReshareError::Unreadable { key_id, faults }
        | ReshareError::NotReady { key_id, faults }
        | ReshareError::Refused { key_id, faults, .. }
        | ReshareError::Unfinished { key_id, faults } => {
            if failure::refuse_credential(&faults) {
                return Failure::new(Code::Config, Because::faults(text, &faults)).advise("eds-check");
            }
            Failure::new(Code::TryLater, Because::faults(text, &faults)).advise(repair(&key_id))
        }
        ReshareError::Local(error) => failure::local(error),
        _ => Failure::new(Code::Failed, text),
    }
}
