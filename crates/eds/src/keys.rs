//! The `eds-key-*` commands that make and remove keys: register, unregister, export.

use hydra_cli::{Code, Failure};
use hydra_core::ids::RegistrationId;
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{RegisterOptions, RemoveError};
use serde_json::json;

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
