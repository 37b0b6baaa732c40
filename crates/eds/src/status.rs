//! `eds-key-status`: what each store holds of a key, or of many.

use hydra_cli::{Code, Failure};
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{EntryStatus, HeldStatus, KeyStatus, StoreStatus, Verdict};
use hydra_core::keystore::wire::{State, Tombstone};
use serde_json::{Value, json};

use crate::failure::{self, quoted};
use crate::operands::{bad_key_id, meant_key_ids};
use crate::session::Session;
use crate::voice::Voice;
use crate::{args, many};

/// `eds-key-status`.
///
/// # Errors
/// Where the key is not whole: [`Code::TryLater`]; where there is none: [`Code::NotAllowed`]. Of many keys, the worst.
pub fn status(args: &args::Status) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let Some(typed) = &args.keys.key_id else {
        let session = Session::open(&args.stores)?;
        let ask = async |key_id: &KeyId| session.hydra.status(key_id).await;
        return many::keys(&session, &args.keys, voice, "are not whole", &ask, |found| {
            let status = found.map_err(failure::local)?;
            told(&status, voice, status.verdict != Verdict::Registered)
        });
    };
    let key_ids = meant_key_ids(typed).map_err(|error| bad_key_id(typed, error))?;
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
    told(&status, voice, true)
}

fn told(status: &KeyStatus, voice: Voice, stores_too: bool) -> Result<(), Failure> {
    voice.result(&format!("{}: {}", status.key_id, verdict_word(status.verdict)))?;
    if stores_too {
        for store in &status.stores {
            voice.result(&format!("  {}: {}", store.store, store_words(store)))?;
        }
    }
    voice.json(&status_json(status))?;
    verdict_failure(status)
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
        Ok(HeldStatus { entry, tombstones }) => {
            let removed = tombstones.iter().map(|tombstone| {
                let Tombstone {
                    registration_id,
                    by,
                    at,
                } = tombstone;
                format!("registration {registration_id} removed by {by} at {at}")
            });
            let words: Vec<String> = entry.as_ref().map(entry_words).into_iter().chain(removed).collect();
            match words.is_empty() {
                true => "nothing".into(),
                false => words.join("; "),
            }
        }
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
        "{state}{pending}{restored}, {sharings}, registration {registration}, permissions of version {}, since {}",
        entry.permissions.version, entry.created
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
            "permissions_version": entry.permissions.version,
            "permissions_change_id": entry.permissions.change_id.to_string(),
            "created": entry.created,
            "pending_seconds": entry.pending_seconds,
        })
    });
    let removed = held.tombstones.iter().map(|tombstone| {
        json!({ "registration_id": tombstone.registration_id.to_string(), "by": tombstone.by, "at": tombstone.at })
    });
    json!({ "store": store.store, "store_id": id, "entry": entry, "removed": removed.collect::<Vec<_>>() })
}
