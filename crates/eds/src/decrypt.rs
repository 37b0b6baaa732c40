//! `eds-decrypt` and `eds-cat`: open sealed files with the key that their headers name, or with one in a key file.
//!
//! The registration id in a file's header decides: exactly that registration is fetched, whatever name it goes by now.
//! A file without our mark is damaged unless its key is for one of the original's ciphers ([`crate::legacy`]): whoever
//! strips a header must not thereby turn authentication off (`docs/src/formats/sealed-file.md`).

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};
use hydra_cli::{Code, Failure};
use hydra_core::ids::RegistrationId;
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{FetchedKey, Hydra, Purpose};
use hydra_core::keystore::wire::CIPHER_EDS1;
use hydra_core::sealed::{Header, OpenOptions, Opened};
use hydra_core::secret::Key;
use serde_json::json;

use crate::legacy::{self, Opener};
use crate::operands::{self, Job, Plan};
use crate::session::{Session, fetch_first};
use crate::voice::Voice;
pub use crate::work::open_failure;
use crate::work::{self, Outcome, Way};
use crate::{args, encrypt, failure, slice};

/// Keys that are fetched at the same time: enough to hide the way to the stores, few enough to be no burden to them.
const FETCHES_AT_ONCE: usize = 8;

/// `eds-decrypt`.
///
/// # Errors
/// What went wrong; of many files, the worst.
pub fn decrypt(args: &args::Decrypt) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let plan = operands::decrypt(
        &args.operands,
        args.key_id.as_deref(),
        args.key_file.is_some(),
        &args.many,
    )?;
    let voice = work::data_on_stdout(&plan, voice)?;
    work::check_folder(args.many.out_dir.as_deref())?;
    let opening = Opening {
        key_file: args
            .key_file
            .as_deref()
            .map(|path| Opener::of_key_file(path, &args.legacy, voice))
            .transpose()?,
        stores: &args.stores,
        overwrite: args.force,
        voice,
    };
    opening.run(&plan)
}

/// `eds-cat`.
///
/// # Errors
/// What went wrong.
pub fn cat(args: &args::Cat) -> Result<(), Failure> {
    let voice = Voice::of(args.verbosity);
    let plan = operands::cat(&args.operands, args.key_file.is_some())?;
    let voice = work::data_on_stdout(&plan, voice)?;
    if let Some(range) = args.range {
        if args.legacy.legacy_cipher.is_some() {
            let text = "--range reads sealed files alone, --legacy-cipher files of the original";
            return Err(hydra_cli::command::usage_error(text));
        }
        let key_file = args.key_file.as_deref();
        let key = key_file.map(|path| encrypt::existing_key(path, voice)).transpose()?;
        return slice::write(&plan, range, key.as_ref(), &args.stores, voice);
    }
    let opening = Opening {
        key_file: args
            .key_file
            .as_deref()
            .map(|path| Opener::of_key_file(path, &args.legacy, voice))
            .transpose()?,
        stores: &args.stores,
        overwrite: false,
        voice,
    };
    opening.run(&plan)
}

/// Fetches the key of exactly the registration that a header names, by the key id that the user typed or the header's.
///
/// # Errors
/// Where there is no such key for the caller, or the stores hold another registration of it.
pub fn fetch_for_opening(
    session: &Session,
    typed: Option<&str>,
    header: &Header,
    voice: Voice,
) -> Result<FetchedKey, Failure> {
    let fetched = session.wait(fetch_named(&session.hydra, typed, header))?;
    remark(&fetched, header, voice);
    Ok(fetched)
}

async fn fetch_named(hydra: &Hydra, typed: Option<&str>, header: &Header) -> Result<FetchedKey, Failure> {
    let key_ids = match (typed, &header.key_id) {
        (Some(typed), _) => operands::meant_key_ids(typed).map_err(|error| operands::bad_key_id(typed, error))?,
        (None, Some(named)) => vec![named.clone()],
        (None, None) => return Err(under_key_file()),
    };
    fetch_first(hydra, &key_ids, Purpose::Open(header.registration_id))
        .await
        .map_err(failure::fetch)
}

/// What the user should know about a key that was fetched for a file.
pub(crate) fn remark(fetched: &FetchedKey, header: &Header, voice: Voice) {
    for fault in &fetched.faults {
        tracing::info!(store = fault.store, "{fault}");
    }
    if let Some(named) = header.key_id.as_ref().filter(|named| **named != fetched.key_id) {
        voice.warning(&format!(
            "the file names its key `{named}`, and it is `{}` here",
            fetched.key_id
        ));
    }
    if !fetched.verified {
        voice.warning(&format!("key `{}` was imported and has no check value", fetched.key_id));
    }
}

/// Which key a file needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    /// That of the registration in its header.
    Registration(RegistrationId, Option<KeyId>),
    /// That which the user named: it has no header.
    Named,
}

impl Wanted {
    fn by(opened: &Opened) -> Self {
        match opened {
            Opened::Sealed(input) => {
                let header = input.header();
                Self::Registration(header.registration_id, header.key_id.clone())
            }
            Opened::Raw(_) => Self::Named,
        }
    }
}

/// The keys that files need, each once, in the order of the files, with the header of a file that has one. A file that
/// cannot be read yet fails later, by itself.
fn wanted_keys(jobs: &[Job]) -> Vec<(Wanted, Option<Header>)> {
    let mut seen = BTreeSet::new();
    let opened = jobs.iter().filter_map(|job| Opened::open(&job.input).ok());
    opened
        .map(|opened| (Wanted::by(&opened), header_of(&opened).cloned()))
        .filter(|(wanted, _)| seen.insert(wanted.clone()))
        .collect()
}

fn header_of(opened: &Opened) -> Option<&Header> {
    match opened {
        Opened::Sealed(input) => Some(input.header()),
        Opened::Raw(_) => None,
    }
}

/// Fetches the key for a file with this header, or without one, and says what the user should know about it.
async fn opener_for(
    hydra: &Hydra,
    typed: Option<&str>,
    header: Option<&Header>,
    voice: Voice,
) -> Result<(FetchedKey, Opener), Failure> {
    let fetched = match header {
        Some(header) => {
            let fetched = fetch_named(hydra, typed, header).await?;
            remark(&fetched, header, voice);
            fetched
        }
        None => {
            let typed = typed.unwrap_or_default();
            let key_ids = operands::meant_key_ids(typed).map_err(|error| operands::bad_key_id(typed, error))?;
            let fetched = fetch_first(hydra, &key_ids, Purpose::OpenUnmarked)
                .await
                .map_err(failure::fetch)?;
            remark_raw(&fetched, voice);
            fetched
        }
    };
    let opener = Opener::of(&fetched)?;
    Ok((fetched, opener))
}

/// What the user should know about a key that was fetched for a file without a header.
pub(crate) fn remark_raw(fetched: &FetchedKey, voice: Voice) {
    for fault in &fetched.faults {
        tracing::info!(store = fault.store, "{fault}");
    }
    if fetched.constants.cipher != CIPHER_EDS1 {
        legacy::remark(fetched, voice);
    }
}

/// The key of our format, where a fetched key is one.
///
/// # Errors
/// Damage: the file is of our format, so a key of the original's ciphers is not its key.
pub fn suite1(fetched: &FetchedKey) -> Result<Key, Failure> {
    let cipher = || work::other_cipher(fetched.key_id.as_str(), &fetched.constants.cipher);
    fetched.suite1().ok_or_else(cipher)
}

/// Said before a configuration is looked for, which would not help.
pub(crate) fn has_key_id(header: &Header) -> Result<(), Failure> {
    match header.key_id {
        Some(_) => Ok(()),
        None => Err(under_key_file()),
    }
}

/// Nobody can tell which key a file without a header has, or one sealed under a key file.
fn key_is_known(plan: &Plan, opened: &Opened) -> Result<(), Failure> {
    match opened {
        Opened::Sealed(input) => has_key_id(input.header()),
        Opened::Raw(input) if plan.key_id.is_none() => Err(open_failure(input.not_sealed())),
        Opened::Raw(_) => Ok(()),
    }
}

fn under_key_file() -> Failure {
    let text = "the file was sealed under a key file, not under a registered key";
    Failure::new(Code::Usage, text).advise("--key-file FILE")
}

/// One call of `eds-decrypt` or `eds-cat`.
struct Opening<'a> {
    key_file: Option<Opener>,
    stores: &'a args::Stores,
    overwrite: bool,
    voice: Voice,
}

/// The keys of many files, each fetched once, or why it could not be.
type Keys = BTreeMap<Wanted, Result<Opener, (Code, String)>>;

impl Opening<'_> {
    fn run(&self, plan: &Plan) -> Result<(), Failure> {
        match (plan.jobs.as_slice(), plan.many) {
            ([job], false) => self.one(plan, job),
            (jobs, _) => self.many(plan, jobs),
        }
    }

    fn one(&self, plan: &Plan, job: &Job) -> Result<(), Failure> {
        if let Some(typed) = &plan.key_id {
            operands::meant_key_ids(typed).map_err(|error| operands::bad_key_id(typed, error))?;
        }
        work::preflight(job, self.overwrite)?;
        let opened = Opened::open(&job.input).map_err(open_failure)?;
        let (mut key_id, mut registration_id) = match Wanted::by(&opened) {
            Wanted::Registration(registration_id, key_id) => (key_id, Some(registration_id)),
            Wanted::Named => (None, None),
        };
        if let (None, None, Some(named)) = (&self.key_file, &plan.key_id, &key_id) {
            self.voice.result(named.as_str())?;
        }
        let fetched_opener;
        let opener = match &self.key_file {
            Some(opener) => opener,
            None => {
                // said before a configuration is looked for, which would not help
                key_is_known(plan, &opened)?;
                let session = Session::open(self.stores)?;
                let wanted = opener_for(&session.hydra, plan.key_id.as_deref(), header_of(&opened), self.voice);
                let (fetched, opener) = session.wait(wanted)?;
                key_id = key_id.or(Some(fetched.key_id));
                registration_id = registration_id.or(Some(fetched.constants.registration_id));
                fetched_opener = opener;
                &fetched_opener
            }
        };
        // an input can be opened only once where it is a pipe
        let opened = std::sync::Mutex::new(Some(opened));
        let files = work::run(plan, self.voice, "opened", |job, way| {
            let opened = opened.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            let opened = opened.map_or_else(|| Opened::open(&job.input).map_err(open_failure), Ok)?;
            self.unseal(opened, opener, job, way)
        })?;
        self.voice.json(&json!({
            "key_id": key_id.as_ref().map(ToString::to_string),
            "registration_id": registration_id.as_ref().map(ToString::to_string),
            "files": files,
        }))
    }

    fn many(&self, plan: &Plan, jobs: &[Job]) -> Result<(), Failure> {
        let keys = if self.key_file.is_some() {
            Keys::new()
        } else {
            self.fetch_all(plan, jobs)?
        };
        let files = work::run(plan, self.voice, "opened", |job, way| {
            let opened = Opened::open(&job.input).map_err(open_failure)?;
            let opener = match &self.key_file {
                Some(opener) => opener,
                None => {
                    key_is_known(plan, &opened)?;
                    match keys.get(&Wanted::by(&opened)) {
                        Some(Ok(opener)) => opener,
                        Some(Err((code, text))) => {
                            return Err(Failure::new(*code, format!("{}: {text}", job.input)));
                        }
                        None => {
                            return Err(Failure::new(
                                Code::Io,
                                format!("{} changed while it was read", job.input),
                            ));
                        }
                    }
                }
            };
            self.unseal(opened, opener, job, way)
        })?;
        self.voice.json(&json!({ "files": files }))
    }

    /// One fetch for each key that the files need, several at a time. Where no key was named, those of the files are
    /// told, in the order of the files.
    fn fetch_all(&self, plan: &Plan, jobs: &[Job]) -> Result<Keys, Failure> {
        let typed = plan.key_id.as_deref();
        let mut wanted = wanted_keys(jobs);
        // those that nobody can tell are told with their files
        wanted.retain(|(_, header)| match header {
            Some(header) => header.key_id.is_some(),
            None => typed.is_some(),
        });
        if wanted.is_empty() {
            return Ok(Keys::new());
        }
        let session = Session::open(self.stores)?;
        let fetch = async |(_, header): &(Wanted, Option<Header>)| {
            opener_for(&session.hydra, typed, header.as_ref(), self.voice).await
        };
        let fetched = stream::iter(&wanted).map(fetch).buffered(FETCHES_AT_ONCE);
        let fetched = session.wait(fetched.collect::<Vec<_>>());
        let mut keys = Keys::new();
        let mut told = BTreeSet::new();
        for ((wanted, _), fetched) in wanted.into_iter().zip(fetched) {
            if let (None, Wanted::Registration(_, Some(key_id))) = (typed, &wanted)
                && told.insert(key_id.clone())
            {
                self.voice.result(key_id.as_str())?;
            }
            // told in full once, then by its first line for each file
            let kept = fetched.map(|(_, opener)| opener).map_err(|failure| {
                let kept = (failure.code, failure.error.to_string());
                let _ = hydra_cli::exit(Err(failure));
                kept
            });
            keys.insert(wanted, kept);
        }
        Ok(keys)
    }

    fn unseal(&self, opened: Opened, opener: &Opener, job: &Job, way: &Way<'_>) -> Outcome {
        let options = OpenOptions {
            threads: way.threads,
            overwrite: self.overwrite,
            progress: way.progress,
            batch: way.batch,
            ..OpenOptions::default()
        };
        let opened = opener.with(opened)?.unseal(&job.output, &options);
        work::forgive_reader(opened).map_err(open_failure)
    }
}
