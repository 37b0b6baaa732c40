//! `eds-encrypt`: seals files under a registered key, or under one in a key file.

use std::path::Path;

use hydra_cli::{Code, Failure};
use hydra_core::keystore::hydra::{FetchedKey, Purpose};
use hydra_core::sealed::{Header, Output, SealOptions};
use hydra_core::secret::Key;
use serde_json::json;

use crate::failure::{self, Because, quoted};
use crate::legacy::Sealer;
use crate::operands::{self, Plan};
use crate::session::Session;
use crate::voice::Voice;
use crate::work::{self, Way, seal_failure};
use crate::{args, key_file};

/// A key with the header that its files get.
pub struct SealingKey {
    /// The key.
    pub key: Key,
    /// What stands in front of each file.
    pub header: Header,
}

/// `eds-encrypt`.
///
/// # Errors
/// What went wrong; of many files, the worst.
pub fn encrypt(args: &args::Encrypt) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let plan = operands::encrypt(&args.operands, args.key_file.is_some(), &args.many)?;
    let voice = work::data_on_stdout(&plan, voice)?;
    work::check_folder(args.many.out_dir.as_deref())?;
    if let ([job], false) = (plan.jobs.as_slice(), plan.many) {
        work::preflight(job, args.force)?;
    }
    let sealing = sealer(args, &plan, voice)?;
    let sealed = work::run(&plan, voice, "sealed", |job, way| {
        let options = seal_options(way, args.force);
        let sealed = sealing.seal(&job.input, &job.output, &options);
        sealed.map_err(seal_failure)
    });
    let files = match sealed {
        Ok(files) => files,
        Err(failure) => {
            withdraw_new_key(args, &plan);
            return Err(failure);
        }
    };
    voice.json(&json!({
        "key_id": sealing.key_id().map(ToString::to_string),
        "registration_id": sealing.registration_id().to_string(),
        "files": files,
    }))?;
    hint(args, &plan, &sealing, voice);
    Ok(())
}

/// Fetches the key of a registration that is fit for sealing: the exact key id first, then its canonical form.
///
/// # Errors
/// Where the text is no key id, or the key cannot be fetched.
pub fn fetch_for_sealing(session: &Session, typed: &str) -> Result<FetchedKey, Failure> {
    let key_ids = operands::meant_key_ids(typed).map_err(|error| operands::bad_key_id(typed, error))?;
    session.fetch(&key_ids, Purpose::Seal).map_err(failure::fetch)
}

/// What a fetched key seals with.
///
/// # Errors
/// Where it is a key of one of the original's ciphers.
#[allow(
    clippy::needless_pass_by_value,
    reason = "a fetched key ends here: its bytes should not live on beside the copy"
)]
pub fn sealing_key_of(fetched: FetchedKey, voice: Voice) -> Result<SealingKey, Failure> {
    for fault in &fetched.faults {
        tracing::info!(store = fault.store, "{fault}");
    }
    let cipher = || work::other_cipher(fetched.key_id.as_str(), &fetched.constants.cipher);
    let key = fetched.suite1().ok_or_else(cipher)?;
    if !fetched.verified {
        voice.warning(&format!("key `{}` was imported and has no check value", fetched.key_id));
    }
    let header = Header {
        registration_id: fetched.constants.registration_id,
        key_id: Some(fetched.key_id.clone()),
    };
    Ok(SealingKey { key, header })
}

/// How `eds-encrypt` seals.
pub(crate) fn seal_options<'a>(way: &Way<'a>, overwrite: bool) -> SealOptions<'a> {
    SealOptions {
        threads: way.threads,
        overwrite,
        progress: way.progress,
        batch: way.batch,
        ..SealOptions::default()
    }
}

fn sealer(args: &args::Encrypt, plan: &Plan, voice: Voice) -> Result<Sealer, Failure> {
    if let Some(path) = &args.key_file {
        let key = if args.new_key {
            new_key(path)?
        } else {
            existing_key(path, voice)?
        };
        return Ok(Sealer::Suite1(SealingKey {
            key,
            header: Header::of_key_file(),
        }));
    }
    let typed = plan.key_id.as_deref().unwrap_or_default();
    // before anything is asked: what is no key id is wrong usage, with or without stores
    operands::meant_key_ids(typed).map_err(|error| operands::bad_key_id(typed, error))?;
    Sealer::of(fetch_for_sealing(&Session::open(&args.stores)?, typed)?, voice)
}

/// Reads a key file, with a warning where others can read it too.
///
/// # Errors
/// What is wrong with it.
pub fn existing_key(path: &Path, voice: Voice) -> Result<Key, Failure> {
    let key = key_file::read(path).map_err(work::key_file_failure)?;
    key_file::warn_if_exposed(path, voice);
    Ok(key)
}

/// The key is on disk before the first byte is sealed under it.
fn new_key(path: &Path) -> Result<Key, Failure> {
    let key = Key::random().map_err(|error| Failure::new(Code::Failed, Because::new("cannot make a key", error)))?;
    key_file::write(path, &key, key_file::Form::Raw).map_err(work::key_write_failure)?;
    Ok(key)
}

/// A new key that sealed nothing is taken away again, so that the same command can be tried again.
fn withdraw_new_key(args: &args::Encrypt, plan: &Plan) {
    let nothing_left = plan.jobs.iter().all(|job| match &job.output {
        Output::File(path) => !path.exists(),
        Output::Stdout => false,
    });
    if let (true, true, Some(path)) = (args.new_key, nothing_left, &args.key_file) {
        let _ = std::fs::remove_file(path);
    }
}

fn hint(args: &args::Encrypt, plan: &Plan, sealing: &Sealer, voice: Voice) {
    let ([job], false) = (plan.jobs.as_slice(), plan.many) else {
        return;
    };
    let Output::File(path) = &job.output else { return };
    let file = quoted(&path.to_string_lossy());
    if let (Sealer::Legacy { .. }, Some(key_id)) = (sealing, sealing.key_id()) {
        // such a file does not name its key
        return voice.hint(&format!(
            "open it with: eds-decrypt {} {file} OUT",
            quoted(key_id.as_str())
        ));
    }
    match &args.key_file {
        Some(key) => voice.hint(&format!(
            "open it with: eds-decrypt --key-file {} {file} OUT",
            quoted(&key.to_string_lossy())
        )),
        None => voice.hint(&format!("open it with: eds-decrypt {file} OUT")),
    }
}
