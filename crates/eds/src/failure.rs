//! From typed errors to what a user sees: the exit code, the causes by store, and what to try.

use std::error::Error;
use std::fmt;

use hydra_cli::{Code, Failure};
use hydra_core::config::load::ConfigError;
use hydra_core::keystore::hydra::{FetchError, LocalError, RegisterError, RemoveError, RepairError, StoreFault};

/// A text with the error that caused it.
#[derive(Debug)]
pub struct Because {
    text: String,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Because {
    /// `text`, caused by `cause`.
    pub fn new(text: impl Into<String>, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            text: text.into(),
            cause: Some(cause.into()),
        }
    }

    /// `text`, and nothing behind it.
    pub fn alone(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            cause: None,
        }
    }

    /// `text`, with a cause for each store that was no help, in order.
    pub fn faults(text: impl Into<String>, faults: &[StoreFault]) -> Self {
        let chain = faults.iter().rev().fold(None, |cause: Option<Box<Self>>, fault| {
            Some(Box::new(Self {
                text: fault.to_string(),
                cause: cause.map(|cause| cause as Box<_>),
            }))
        });
        Self {
            text: text.into(),
            cause: chain.map(|cause| cause as Box<_>),
        }
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Because {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

/// No configuration: nothing can be asked.
pub fn config(error: ConfigError) -> Failure {
    let advice = matches!(error, ConfigError::NoStores { .. }).then_some(
        "name the stores in ~/.config/eds/config.toml, or with --store; files can be sealed without any: --key-file",
    );
    let failure = Failure::new(Code::Config, error);
    advice.into_iter().fold(failure, Failure::advise)
}

/// What went wrong before any store was asked.
pub fn local(error: LocalError) -> Failure {
    Failure::new(Code::Config, error)
}

/// A key that was not registered, or not everywhere.
pub fn register(error: RegisterError) -> Failure {
    let text = error.to_string();
    match error {
        RegisterError::Exists { key_id, unfinished } => {
            let failure = Failure::new(Code::CannotCreate, text);
            let next = if unfinished { "eds-key-repair" } else { "eds-key-status" };
            failure.advise(format!("{next} {}", quoted(key_id.as_str())))
        }
        RegisterError::NotAllowed { faults, .. } => {
            Failure::new(Code::NotAllowed, Because::faults(text, &faults)).advise("eds-whoami")
        }
        RegisterError::TooFewStores {
            key_id,
            faults,
            left_pending,
            ..
        } => {
            if refuse_credential(&faults) {
                return credential_refused(text, &faults);
            }
            let failure = Failure::new(Code::TryLater, Because::faults(text, &faults)).advise("eds-check");
            let left = !left_pending.is_empty();
            let cleared = left.then(|| {
                format!(
                    "eds-key-repair {} (a pending entry may be left at {})",
                    quoted(key_id.as_str()),
                    left_pending.join(", ")
                )
            });
            cleared.into_iter().fold(failure, Failure::advise)
        }
        RegisterError::Unfinished { key_id, faults, .. } => {
            Failure::new(Code::TryLater, Because::faults(format!("unfinished: {text}"), &faults))
                .advise(format!("eds-key-repair {}", quoted(key_id.as_str())))
        }
        RegisterError::Local(error) => local(error),
        _ => Failure::new(Code::Failed, text),
    }
}

/// A key that could not be fetched.
pub fn fetch(error: FetchError) -> Failure {
    let text = error.to_string();
    match error {
        FetchError::NotFound { faults, .. } => {
            Failure::new(Code::NotAllowed, Because::faults(text, &faults)).advise("eds-whoami")
        }
        FetchError::Removed { .. } => Failure::new(Code::NotAllowed, text),
        FetchError::OtherRegistration { .. } => Failure::new(Code::Damaged, text),
        FetchError::Unfinished { key_id } => {
            Failure::new(Code::TryLater, text).advise(format!("eds-key-repair {}", quoted(key_id.as_str())))
        }
        FetchError::TooFew { faults, .. } if refuse_credential(&faults) => credential_refused(text, &faults),
        FetchError::TooFew { key_id, faults, .. } => Failure::new(Code::TryLater, Because::faults(text, &faults))
            .advise(format!("eds-key-status {}", quoted(key_id.as_str()))),
        FetchError::Check { key_id, faults } => Failure::new(Code::TryLater, Because::faults(text, &faults))
            .advise(format!("eds-key-status {}", quoted(key_id.as_str()))),
        FetchError::Local(error) => local(error),
        _ => Failure::new(Code::Failed, text),
    }
}

/// A key that was not removed everywhere.
pub fn remove(error: RemoveError) -> Failure {
    let text = error.to_string();
    match error {
        RemoveError::NotFound { faults, .. } if refuse_credential(&faults) => credential_refused(text, &faults),
        RemoveError::NotFound { faults, .. } => {
            Failure::new(Code::NotAllowed, Because::faults(text, &faults)).advise("eds-whoami")
        }
        RemoveError::Incomplete { faults, .. } if refuse_credential(&faults) => credential_refused(text, &faults),
        RemoveError::Incomplete { key_id, faults, .. } => Failure::new(Code::TryLater, Because::faults(text, &faults))
            .advise(format!(
                "eds-key-unregister {} again, when those stores are back",
                quoted(key_id.as_str())
            )),
        RemoveError::Ambiguous { key_id, registrations } => {
            let failure = Failure::new(Code::Failed, text);
            let options = registrations.iter().map(|(id, stores)| {
                format!(
                    "eds-key-unregister --registration {id} {} (at {})",
                    quoted(key_id.as_str()),
                    stores.join(", ")
                )
            });
            options.fold(failure, Failure::advise)
        }
        RemoveError::Local(error) => local(error),
        _ => Failure::new(Code::Failed, text),
    }
}

/// A key that could not be repaired.
pub fn repair(error: RepairError) -> Failure {
    let text = error.to_string();
    match error {
        RepairError::NotFound { faults, .. } if refuse_credential(&faults) => credential_refused(text, &faults),
        RepairError::NotFound { faults, .. } => {
            Failure::new(Code::NotAllowed, Because::faults(text, &faults)).advise("eds-whoami")
        }
        RepairError::NotConfirmed { faults, .. } if refuse_credential(&faults) => credential_refused(text, &faults),
        RepairError::NotConfirmed { key_id, faults } => Failure::new(Code::TryLater, Because::faults(text, &faults))
            .advise(format!("eds-key-status {}", quoted(key_id.as_str())))
            .advise(format!(
                "eds-key-repair --now {}, if nobody is registering it now",
                quoted(key_id.as_str())
            )),
        RepairError::HalfRemoved { key_id, faults } => Failure::new(Code::TryLater, Because::faults(text, &faults))
            .advise(format!("eds-key-unregister {} again", quoted(key_id.as_str()))),
        RepairError::Local(error) => local(error),
        _ => Failure::new(Code::Failed, text),
    }
}

/// Whether every store that was no help refused the credential itself: trying later does not help then.
pub fn refuse_credential(faults: &[StoreFault]) -> bool {
    !faults.is_empty() && faults.iter().all(|fault| fault.credential_refused)
}

/// Too few stores answered to tell anything.
pub fn no_answers(text: String, faults: &[StoreFault]) -> Failure {
    if refuse_credential(faults) {
        return credential_refused(text, faults);
    }
    Failure::new(Code::TryLater, Because::faults(text, faults)).advise("eds-check")
}

fn credential_refused(text: String, faults: &[StoreFault]) -> Failure {
    Failure::new(Code::Config, Because::faults(text, faults)).advise("eds-check")
}

/// A text as a shell takes it back as one word.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+=@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) && !text.starts_with('-') {
        return text.to_owned();
    }
    let dashes = if text.starts_with('-') { "-- " } else { "" };
    format!("{dashes}'{}'", text.replace('\'', r"'\''"))
}

/// How bad an outcome is among those of many files: what trying again later may cure is the least of them.
pub fn severity(code: Code) -> u8 {
    match code {
        Code::TryLater => 1,
        Code::Failed | Code::Usage | Code::Glite => 2,
        Code::Config => 3,
        Code::NotAllowed => 4,
        Code::CannotCreate => 5,
        Code::Io => 6,
        Code::Damaged => 7,
    }
}

#[cfg(test)]
mod tests {
    use hydra_core::key_id::KeyId;

    use super::*;

    #[test]
    fn each_store_is_a_cause_of_its_own() {
        let key_id = KeyId::new("/myvo/it's").unwrap();
        let faults = vec![
            StoreFault::new("a", "gave no answer in 5 s"),
            StoreFault::new("b", "refused the connection"),
        ];
        let failure = fetch(FetchError::TooFew {
            key_id,
            have: 1,
            need: 2,
            faults,
        });
        assert_eq!(failure.code, Code::TryLater);
        assert_eq!(
            failure.lines(),
            [
                "error: cannot read key `/myvo/it's`: 1 of the 2 shares needed",
                "  cause: a gave no answer in 5 s",
                "  cause: b refused the connection",
                r"  try: eds-key-status '/myvo/it'\''s'",
            ]
        );
    }

    #[test]
    fn a_credential_that_all_silent_stores_refuse_is_not_tried_later() {
        let refused = |store: &str| StoreFault {
            credential_refused: true,
            ..StoreFault::new(store, "refused the credential (TLS alert UnknownCA)")
        };
        let code = |faults| {
            let key_id = KeyId::new("/myvo/key").unwrap();
            let (have, need) = (0, 2);
            fetch(FetchError::TooFew {
                key_id,
                have,
                need,
                faults,
            })
            .code
        };
        assert_eq!(code(vec![refused("a"), refused("b")]), Code::Config);
        assert_eq!(
            code(vec![refused("a"), StoreFault::new("b", "closed the connection")]),
            Code::TryLater
        );
    }

    #[test]
    fn words_are_quoted_so_that_a_shell_takes_them_back() {
        assert_eq!(quoted("/a/b-1"), "/a/b-1");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("-x"), "-- '-x'");
        assert_eq!(quoted(""), "''");
    }
}
