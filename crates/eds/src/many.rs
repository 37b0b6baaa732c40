//! One verb for many keys: listed at all stores, worked on side by side, told in order.

use std::collections::BTreeSet;
use std::io::IsTerminal;

use futures_util::StreamExt;
use futures_util::stream;
use hydra_cli::progress::Progress;
use hydra_cli::{Code, Failure};
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{ListError, Which};

use crate::args::Keys;
use crate::failure::{Because, severity};
use crate::session::Session;
use crate::voice::Voice;

/// So many keys are under way at once.
const SIDE_BY_SIDE: usize = 8;

/// Runs `verb` for every key that `which` means, and `tell` for what came of each, in byte order of key id. Failures
/// are printed as they come.
///
/// # Errors
/// The worst failure of a key, or that a store could not say which keys it has.
pub(crate) fn keys<T>(
    session: &Session,
    which: &Keys,
    voice: Voice,
    what_is_left: &str,
    verb: &impl AsyncFn(&KeyId) -> T,
    mut tell: impl FnMut(T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let options = Which {
        prefix: which.prefix.clone(),
        owned: which.all_owned,
    };
    let listed = session.wait(session.hydra.list(&options)).map_err(list_failure)?;
    for fault in &listed.faults {
        voice.warning(&format!("cannot tell which keys it has: {fault}"));
    }
    let keys: BTreeSet<KeyId> = match &which.after {
        Some(after) => listed
            .keys
            .into_iter()
            .filter(|key_id| key_id.as_str() > after.as_str())
            .collect(),
        None => listed.keys,
    };
    let shown = !voice.quiet && std::io::stderr().is_terminal();
    let bar = shown.then(|| Progress::count("keys", keys.len() as u64, false));
    let mut worst = None;
    let mut left = 0;
    session.wait(async {
        let mut outcomes = stream::iter(&keys).map(|key_id| verb(key_id)).buffered(SIDE_BY_SIDE);
        let mut done = 0;
        while let Some(outcome) = outcomes.next().await {
            done += 1;
            if let Some(bar) = &bar {
                bar.set(done);
            }
            if let Err(failure) = tell(outcome) {
                left += 1;
                if worst.is_none_or(|code| severity(failure.code) > severity(code)) {
                    worst = Some(failure.code);
                }
                let _ = hydra_cli::exit(Err(failure));
            }
        }
    });
    drop(bar);
    match worst {
        Some(code) => Err(Failure::new(
            code,
            format!("{left} of {} keys {what_is_left}", keys.len()),
        )),
        None if !listed.faults.is_empty() => {
            let text = format!("{} keys are whole, and there may be more", keys.len());
            Err(Failure::new(Code::TryLater, Because::faults(text, &listed.faults)).advise("eds-check"))
        }
        None => {
            voice.note(&format!("{} keys are whole", keys.len()));
            Ok(())
        }
    }
}

fn list_failure(error: ListError) -> Failure {
    let text = error.to_string();
    match error {
        ListError::TooFew { faults, .. } => crate::failure::no_answers(text, &faults),
        ListError::Local(error) => crate::failure::local(error),
        _ => Failure::new(Code::Failed, text),
    }
}
