//! The `eds-key-*` commands: register, unregister, status, repair, export.

use hydra_cli::{Code, Failure};
use hydra_core::ids::RegistrationId;
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{
    EntryStatus, HeldStatus, KeyStatus, RegisterOptions, RemoveError, RepairOptions, StoreStatus, Verdict,
};
use hydra_core::keystore::wire::State;
use serde_json::{Value, json};

use crate::failure::{self, Because, quoted};
use crate::legacy::{self, NewKey, Sealer};
use crate::operands::{bad_key_id, meant_key_ids, new_key_id};
use crate::session::Session;
use crate::voice::Voice;
use crate::{args, encrypt, key_file, permissions, work};

/// `eds-key-register`.
///
/// # Errors
/// What went wrong: nothing is registered then, but for [`Code::TryLater`] "unfinished".
pub fn register(args: &args::Register) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let key_id = new_key_id(&args.key_id).map_err(|error| bad_key_id(&args.key_id, error))?;
    let asked = args.cipher.cipher.as_deref();
    let new_key = asked.map(|cipher| NewKey::asked(cipher, args.cipher.bits)).transpose();
    let new_key = new_key.map_err(|error| Failure::new(Code::Usage, error))?.flatten();
    let options = RegisterOptions {
        allow_degraded: args.allow_degraded,
        permissions: permissions::new_permissions(&args.permissions)?,
    };
    let session = Session::open(&args.stores)?;
    if let Some(new_key) = &new_key {
        new_key.warn(voice);
    }
    let registered = legacy::register(&session, &key_id, new_key.as_ref(), options).map_err(failure::register)?;
    let count = registered.confirmed.len();
    voice.result(&format!(
        "registered {key_id} at {count} stores, registration {}",
        registered.registration_id
    ))?;
    if !registered.missing.is_empty() {
        voice.warning(&format!("not registered at {} yet", registered.missing.join(", ")));
        voice.note(&format!("  try: eds-key-repair {}", quoted(key_id.as_str())));
    }
    voice.json(&json!({
        "key_id": key_id.as_str(),
        "registration_id": registered.registration_id.to_string(),
        "confirmed": registered.confirmed,
        "missing": registered.missing,
    }))?;
    voice.hint(&format!("seal with it: eds-encrypt {} IN OUT", quoted(key_id.as_str())));
    Ok(())
}

/// `eds-key-unregister`.
///
/// # Errors
/// What went wrong, and at how many stores the key is gone.
pub fn unregister(args: &args::Unregister) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let key_ids = meant_key_ids(&args.key_id).map_err(|error| bad_key_id(&args.key_id, error))?;
    let registration = args
        .registration
        .as_deref()
        .map(str::parse::<RegistrationId>)
        .transpose();
    let registration =
        registration.map_err(|error| Failure::new(Code::Usage, Because::new("option --registration", error)))?;
    let session = Session::open(&args.stores)?;
    let (key_id, removed) = remove_first(&session, &key_ids, registration).map_err(failure::remove)?;
    voice.result(&format!("removed {key_id}, registration {removed}"))?;
    voice.json(&json!({ "key_id": key_id.as_str(), "registration_id": removed.to_string() }))
}

/// Removes the first of `key_ids` that the stores know: what was typed, else its canonical form.
///
/// # Errors
/// As the client's `unregister`, for the first of them.
pub fn remove_first(
    session: &Session,
    key_ids: &[KeyId],
    registration: Option<RegistrationId>,
) -> Result<(KeyId, RegistrationId), RemoveError> {
    let mut first = None;
    for key_id in key_ids {
        match session.wait(session.hydra.unregister(key_id, registration)) {
            Err(error @ RemoveError::NotFound { .. }) => first = first.or(Some(error)),
            other => return other.map(|removed| (key_id.clone(), removed)),
        }
    }
    let nothing = hydra_core::keystore::hydra::LocalError::Config("no key id was given".into());
    Err(first.unwrap_or(RemoveError::Local(nothing)))
}

/// `eds-key-status`.
///
/// # Errors
/// Where the key is not whole: [`Code::TryLater`]; where there is none: [`Code::NotAllowed`].
pub fn status(args: &args::Status) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let key_ids = meant_key_ids(&args.key_id).map_err(|error| bad_key_id(&args.key_id, error))?;
    let session = Session::open(&args.stores)?;
    let mut status = None;
    for key_id in &key_ids {
        let found = session.wait(session.hydra.status(key_id)).map_err(failure::local)?;
        let known = found.verdict != Verdict::Unknown;
        // the first one is shown where none is known
        if known || status.is_none() {
            status = Some(found);
        }
        if known {
            break;
        }
    }
    let Some(status) = status else { return Ok(()) };
    let key_id = status.key_id.as_str();
    voice.result(&format!("{key_id}: {}", verdict_word(status.verdict)))?;
    for store in &status.stores {
        voice.result(&format!("  {}: {}", store.store, store_words(store)))?;
    }
    voice.json(&status_json(&status))?;
    verdict_failure(&status)
}

fn verdict_failure(status: &KeyStatus) -> Result<(), Failure> {
    let key_id = quoted(status.key_id.as_str());
    let repair = format!("eds-key-repair {key_id}");
    let failed = |code, text: &str| Failure::new(code, format!("`{}` {text}", status.key_id));
    match status.verdict {
        Verdict::Registered => Ok(()),
        Verdict::Degraded => {
            // a store that does not answer is nothing to repair
            let silent = status.stores.iter().any(|store| store.held.is_err());
            let next = if silent { "eds-check".to_owned() } else { repair };
            Err(failed(Code::TryLater, "is readable, but not at every store").advise(next))
        }
        Verdict::Unfinished => {
            Err(failed(Code::TryLater, "is unfinished: some stores have not confirmed it").advise(repair))
        }
        Verdict::Pending => {
            let again = format!("eds-key-register {key_id} again");
            Err(failed(Code::TryLater, "is pending: nobody can have used it").advise(again))
        }
        Verdict::Removed => Err(failed(Code::NotAllowed, "was removed")),
        Verdict::Unknown => Err(failed(Code::NotAllowed, "is not known, or not shown to you").advise("eds-whoami")),
        Verdict::Unclear => {
            let faults: Vec<_> = status
                .stores
                .iter()
                .filter_map(|store| store.held.as_ref().err())
                .cloned()
                .collect();
            let text = format!("too few stores answered to tell about `{}`", status.key_id);
            Err(failure::no_answers(text, &faults))
        }
    }
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Registered => "registered",
        Verdict::Degraded => "degraded",
        Verdict::Unfinished => "unfinished",
        Verdict::Pending => "pending",
        Verdict::Removed => "removed",
        Verdict::Unknown => "unknown",
        Verdict::Unclear => "unclear",
    }
}

fn state_word(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Stopped => "stopped",
        State::Confirmed => "confirmed",
    }
}

fn store_words(store: &StoreStatus) -> String {
    match &store.held {
        Err(fault) => fault.reason.clone(),
        Ok(HeldStatus { entry: Some(entry), .. }) => entry_words(entry),
        Ok(HeldStatus { tombstones, .. }) => match tombstones.as_slice() {
            [] => "nothing".into(),
            [.., last] => format!("removed by {} at {}", last.by, last.at),
        },
    }
}

fn entry_words(entry: &EntryStatus) -> String {
    let sharings = entry.sharings.iter().map(|(sharing, state)| {
        let unverified = if sharing.check.is_some() { "" } else { ", unverified" };
        format!(
            "{} of {} (generation {}, {}{unverified})",
            sharing.m,
            sharing.n,
            sharing.generation,
            state_word(*state)
        )
    });
    let restored = if entry.restored {
        ", restored and not opened yet"
    } else {
        ""
    };
    let pending = entry
        .pending_seconds
        .map(|seconds| format!(", for {seconds} s"))
        .unwrap_or_default();
    let sharings = sharings.collect::<Vec<_>>().join(", ");
    let state = state_word(entry.state);
    let registration = entry.constants.registration_id;
    format!(
        "{state}{pending}{restored}, {sharings}, registration {registration}, since {}",
        entry.created
    )
}

fn status_json(status: &KeyStatus) -> Value {
    let stores: Vec<Value> = status.stores.iter().map(store_json).collect();
    json!({ "key_id": status.key_id.as_str(), "verdict": verdict_word(status.verdict), "stores": stores })
}

fn store_json(store: &StoreStatus) -> Value {
    let id = store.store_id.as_ref().map(ToString::to_string);
    let held = match &store.held {
        Ok(held) => held,
        Err(fault) => return json!({ "store": store.store, "store_id": id, "fault": fault.reason }),
    };
    let entry = held.entry.as_ref().map(|entry| {
        let sharings = entry.sharings.iter().map(|(sharing, state)| {
            json!({
                "generation": sharing.generation,
                "m": sharing.m,
                "n": sharing.n,
                "verified": sharing.check.is_some(),
                "state": state_word(*state),
            })
        });
        json!({
            "registration_id": entry.constants.registration_id.to_string(),
            "cipher": entry.constants.cipher,
            "key_bits": entry.constants.key_bits,
            "state": state_word(entry.state),
            "restored": entry.restored,
            "sharings": sharings.collect::<Vec<_>>(),
            "owner": entry.permissions.owner,
            "created": entry.created,
            "pending_seconds": entry.pending_seconds,
        })
    });
    let removed = held.tombstones.iter().map(|tombstone| {
        json!({ "registration_id": tombstone.registration_id.to_string(), "by": tombstone.by, "at": tombstone.at })
    });
    json!({ "store": store.store, "store_id": id, "entry": entry, "removed": removed.collect::<Vec<_>>() })
}

/// `eds-key-repair`.
///
/// # Errors
/// Where there is nothing to finish, or not everything could be.
pub fn repair(args: &args::Repair) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let key_ids = meant_key_ids(&args.key_id).map_err(|error| bad_key_id(&args.key_id, error))?;
    let session = Session::open(&args.stores)?;
    let mut result = None;
    for key_id in &key_ids {
        let repaired = session.wait(session.hydra.repair(key_id, RepairOptions { now: args.now, ..RepairOptions::default() }));
        let known = !matches!(repaired, Err(hydra_core::keystore::hydra::RepairError::NotFound { .. }));
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
    let report = repaired.map_err(failure::repair)?;
    for (store, done) in &report.done {
        voice.result(&format!("{store}: {done}"))?;
    }
    voice.json(&json!({
        "key_id": key_id.as_str(),
        "done": report.done.iter().map(|(store, done)| json!({ "store": store, "done": done })).collect::<Vec<_>>(),
        "faults": report.faults.iter().map(|fault| json!({ "store": fault.store, "reason": fault.reason })).collect::<Vec<_>>(),
        "whole": report.whole,
        "free": report.free,
    }))?;
    if report.whole {
        return voice.result(&format!("{key_id}: registered"));
    }
    if report.free {
        return voice.result(&format!("{key_id}: free"));
    }
    let text = format!("`{key_id}` is not whole yet");
    let again = format!(
        "eds-key-repair {} again, when those stores are back",
        quoted(key_id.as_str())
    );
    Err(Failure::new(Code::TryLater, Because::faults(text, &report.faults)).advise(again))
}

/// `eds-key-export`.
///
/// # Errors
/// Where the key cannot be fetched, or the file cannot be made.
pub fn export(args: &args::Export) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let (path, form) = match (&args.raw, &args.tink_keyset) {
        (Some(path), _) => (path, key_file::Form::Raw),
        (None, Some(path)) => (path, key_file::Form::TinkKeyset),
        (None, None) => return Err(hydra_cli::command::usage_error("--raw or --tink-keyset is needed")),
    };
    meant_key_ids(&args.key_id).map_err(|error| bad_key_id(&args.key_id, error))?;
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(work::key_write_failure(key_file::WriteError::Exists {
            path: path.clone(),
        }));
    }
    let session = Session::open(&args.stores)?;
    let fetched = encrypt::fetch_for_sealing(&session, &args.key_id)?;
    let (key_id, constants) = (fetched.key_id.clone(), fetched.constants.clone());
    let mut value = json!({
        "key_id": key_id.as_str(),
        "registration_id": constants.registration_id.to_string(),
        "file": path.to_string_lossy(),
    });
    match (Sealer::of(fetched, voice)?, form) {
        (Sealer::Suite1(sealing), form) => key_file::write(path, &sealing.key, form),
        (Sealer::Legacy { key, .. }, key_file::Form::Raw) => {
            let (cipher, iv) = (key.cipher().name(), key.iv());
            value["cipher"] = json!(cipher);
            value["iv"] = json!(iv);
            let file = quoted(&path.to_string_lossy());
            voice.note(&format!(
                "open its files with: eds-decrypt --key-file {file} --legacy-cipher {cipher} --legacy-iv {iv} IN OUT"
            ));
            key_file::write_bytes(path, key.key())
        }
        (Sealer::Legacy { .. }, key_file::Form::TinkKeyset) => {
            return Err(work::other_cipher(key_id.as_str(), &constants.cipher));
        }
    }
    .map_err(work::key_write_failure)?;
    voice.json(&value)?;
    voice.note(&format!(
        "whoever has `{}` opens everything sealed under the key",
        path.display()
    ));
    Ok(())
}
