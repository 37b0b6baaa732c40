//! What operands mean together: which are key ids and which files, and where outputs go. No I/O, but for file lists.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hydra_cli::{Code, Failure};
use hydra_core::key_id::{KeyId, KeyIdError, canonical};
use hydra_core::sealed::{Input, Output};

use crate::args::Many;
use crate::failure::Because;

/// What sealed files are called: the input's name and this.
pub const SUFFIX: &str = ".eds";

/// One file to seal or to open.
#[derive(Debug, Clone)]
pub struct Job {
    /// Read from here.
    pub input: Input,
    /// Written there.
    pub output: Output,
}

impl Job {
    /// The input as it stands on command lines.
    pub fn input_path(&self) -> PathBuf {
        match &self.input {
            Input::Stdin => "-".into(),
            Input::File(path) => path.clone(),
        }
    }

    /// The output as it stands on command lines.
    pub fn output_path(&self) -> PathBuf {
        match &self.output {
            Output::Stdout => "-".into(),
            Output::File(path) => path.clone(),
        }
    }
}

/// What a command line asks for.
#[derive(Debug)]
pub struct Plan {
    /// The key id as it was typed; none: the files' headers name it, or a key file is used.
    pub key_id: Option<String>,
    /// The files.
    pub jobs: Vec<Job>,
    /// Named with `--out-dir`: one file that fails does not stop the others.
    pub many: bool,
}

/// The operands of `eds-encrypt`. Without a key file the first one is the key id.
///
/// # Errors
/// [`Code::Usage`] where they do not fit together.
pub fn encrypt(operands: &[OsString], key_file: bool, many: &Many) -> Result<Plan, Failure> {
    let (key_id, files) = match operands.split_first() {
        _ if key_file => (None, operands),
        Some((first, rest)) => (Some(utf8(first)?), rest),
        None => return Err(usage("a KEY_ID or --key-file is needed")),
    };
    match &many.out_dir {
        Some(folder) => Ok(Plan {
            key_id,
            jobs: into_folder(files, many, folder, sealed_name)?,
            many: true,
        }),
        None => Ok(Plan {
            key_id,
            jobs: vec![one(files, if key_file { "IN OUT" } else { "KEY_ID IN OUT" })?],
            many: false,
        }),
    }
}

/// The operands of `eds-decrypt`. For many files the first operand is a key id where it does not end in `.eds`.
///
/// # Errors
/// [`Code::Usage`] where they do not fit together.
pub fn decrypt(operands: &[OsString], key_id: Option<&str>, key_file: bool, many: &Many) -> Result<Plan, Failure> {
    let named = key_id.is_some() || key_file;
    let first_is_key_id = !named
        && match &many.out_dir {
            Some(_) => operands
                .first()
                .is_some_and(|first| !first.as_bytes().ends_with(SUFFIX.as_bytes())),
            None => operands.len() == 3,
        };
    let (first, files) = operands.split_at(usize::from(first_is_key_id));
    let key_id = match first {
        [first] => Some(utf8(first)?),
        _ => key_id.map(str::to_owned),
    };
    match &many.out_dir {
        Some(folder) => Ok(Plan {
            key_id,
            jobs: into_folder(files, many, folder, opened_name)?,
            many: true,
        }),
        None => Ok(Plan {
            key_id,
            jobs: vec![one(files, if named { "IN OUT" } else { "[KEY_ID] IN OUT" })?],
            many: false,
        }),
    }
}

/// The operands of `eds-cat`.
///
/// # Errors
/// [`Code::Usage`] where there are too many or too few.
pub fn cat(operands: &[OsString], key_file: bool) -> Result<Plan, Failure> {
    let (key_id, file) = match operands {
        [file] => (None, file),
        [key_id, file] if !key_file => (Some(utf8(key_id)?), file),
        _ => return Err(usage("operands are [KEY_ID] IN")),
    };
    Ok(Plan {
        key_id,
        jobs: vec![Job {
            input: input(file),
            output: Output::Stdout,
        }],
        many: false,
    })
}

/// `-` is standard input.
pub fn input(operand: &OsStr) -> Input {
    if operand == "-" {
        Input::Stdin
    } else {
        Input::File(operand.into())
    }
}

/// `-` is standard output.
pub fn output(operand: &OsStr) -> Output {
    if operand == "-" {
        Output::Stdout
    } else {
        Output::File(operand.into())
    }
}

/// The key id to register for what a user typed: its canonical form, by the rules for new ones.
///
/// # Errors
/// The rule that it breaks.
pub fn new_key_id(typed: &str) -> Result<KeyId, KeyIdError> {
    KeyId::new(canonical(typed))
}

/// The key ids that a user may mean, in the order of looking them up: exactly what was typed, then its canonical form.
///
/// # Errors
/// The rule that the typed text breaks.
pub fn meant_key_ids(typed: &str) -> Result<Vec<KeyId>, KeyIdError> {
    let exact = KeyId::imported(typed)?;
    let other = KeyId::imported(canonical(typed)).ok().filter(|other| *other != exact);
    Ok(std::iter::once(exact).chain(other).collect())
}

/// A key id that breaks a rule is wrong usage.
pub fn bad_key_id(typed: &str, error: KeyIdError) -> Failure {
    Failure::new(
        Code::Usage,
        Because::new(format!("`{}` is no key id", shortened(typed)), error),
    )
}

/// A text of any length as it fits into a message.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn usage(text: &str) -> Failure {
    hydra_cli::command::usage_error(text)
}

fn utf8(operand: &OsStr) -> Result<String, Failure> {
    let text = operand.to_str().map(str::to_owned);
    text.ok_or_else(|| bad_key_id(&operand.to_string_lossy(), KeyIdError::Text))
}

fn one(files: &[OsString], form: &str) -> Result<Job, Failure> {
    match files {
        [from, to] => Ok(Job {
            input: input(from),
            output: output(to),
        }),
        _ => Err(usage(&format!("operands are {form}; --out-dir takes many files"))),
    }
}

fn sealed_name(name: &OsStr) -> Option<OsString> {
    let mut name = name.to_owned();
    name.push(SUFFIX);
    Some(name)
}

fn opened_name(name: &OsStr) -> Option<OsString> {
    let bare = name
        .as_bytes()
        .strip_suffix(SUFFIX.as_bytes())
        .filter(|bare| !bare.is_empty())?;
    Some(OsStr::from_bytes(bare).to_owned())
}

fn into_folder(
    operands: &[OsString],
    many: &Many,
    folder: &Path,
    rename: fn(&OsStr) -> Option<OsString>,
) -> Result<Vec<Job>, Failure> {
    let files = match &many.files_from {
        Some(list) if operands.is_empty() => read_list(list, many.null)?,
        Some(_) => return Err(usage("files come as operands or from a list, not both")),
        None => operands.iter().map(PathBuf::from).collect(),
    };
    if files.is_empty() && many.files_from.is_none() {
        return Err(usage("--out-dir needs files"));
    }
    let mut taken: HashMap<OsString, PathBuf> = HashMap::new();
    let mut jobs = Vec::with_capacity(files.len());
    for file in files {
        let name = file.file_name().and_then(rename).ok_or_else(|| {
            usage(&format!(
                "`{}` is no name of a file that --out-dir can take (sealed ones end in `{SUFFIX}`)",
                file.display()
            ))
        })?;
        if let Some(other) = taken.insert(name.clone(), file.clone()) {
            let text = format!(
                "`{}` and `{}` would become the same output",
                other.display(),
                file.display()
            );
            return Err(usage(&text));
        }
        jobs.push(Job {
            output: Output::File(folder.join(name)),
            input: Input::File(file),
        });
    }
    Ok(jobs)
}

fn read_list(list: &Path, null: bool) -> Result<Vec<PathBuf>, Failure> {
    let mut bytes = Vec::new();
    let read = if list == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes)
    } else {
        std::fs::File::open(list).and_then(|mut file| file.read_to_end(&mut bytes))
    };
    read.map_err(|error| {
        Failure::new(
            Code::Io,
            Because::new(format!("cannot read the list of files `{}`", list.display()), error),
        )
    })?;
    let end = if null { 0 } else { b'\n' };
    let names = bytes.split(|byte| *byte == end).filter(|name| !name.is_empty());
    Ok(names
        .map(|name| PathBuf::from(OsString::from_vec(name.to_vec())))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    fn told(plan: Result<Plan, Failure>) -> String {
        let plan = match plan {
            Ok(plan) => plan,
            Err(failure) => return format!("{}", failure.code as u8),
        };
        let jobs = plan
            .jobs
            .iter()
            .map(|job| format!("{}>{}", job.input, job.output).replace('`', ""));
        format!(
            "{} {}",
            plan.key_id.as_deref().unwrap_or("."),
            jobs.collect::<Vec<_>>().join(" ")
        )
    }

    fn folder() -> Many {
        Many {
            out_dir: Some("d".into()),
            ..Many::default()
        }
    }

    #[test]
    fn operands_mean_the_same_whatever_lies_in_the_folder() {
        let plain = Many::default();
        assert_eq!(told(encrypt(&words("/k a b"), false, &plain)), "/k a>b");
        assert_eq!(told(encrypt(&words("a -"), true, &plain)), ". a>standard output");
        assert_eq!(told(encrypt(&words("- b"), true, &plain)), ". standard input>b");
        assert_eq!(
            told(encrypt(&words("/k x/a b"), false, &folder())),
            "/k x/a>d/a.eds b>d/b.eds"
        );
        assert_eq!(told(encrypt(&words("a b"), true, &folder())), ". a>d/a.eds b>d/b.eds");
        assert_eq!(told(decrypt(&words("/k a b"), None, false, &plain)), "/k a>b");
        assert_eq!(told(decrypt(&words("a b"), None, false, &plain)), ". a>b");
        assert_eq!(told(decrypt(&words("a b"), Some("/k"), false, &plain)), "/k a>b");
        assert_eq!(
            told(decrypt(&words("/k a.eds b.eds"), None, false, &folder())),
            "/k a.eds>d/a b.eds>d/b"
        );
        assert_eq!(
            told(decrypt(&words("a.eds b.eds"), None, false, &folder())),
            ". a.eds>d/a b.eds>d/b"
        );
        assert_eq!(
            told(decrypt(&words("a.eds"), Some("/k.eds"), false, &folder())),
            "/k.eds a.eds>d/a"
        );
        assert_eq!(told(cat(&words("a"), false)), ". a>standard output");
        assert_eq!(told(cat(&words("/k a"), false)), "/k a>standard output");
    }

    #[test]
    fn what_does_not_fit_is_wrong_usage() {
        let plain = Many::default();
        for wrong in ["", "/k", "/k a", "/k a b c"] {
            assert_eq!(told(encrypt(&words(wrong), false, &plain)), "2", "{wrong}");
        }
        assert_eq!(told(encrypt(&words("/k a b"), true, &plain)), "2");
        assert_eq!(told(encrypt(&words("/k"), false, &folder())), "2");
        assert_eq!(told(encrypt(&words("/k x/a y/a"), false, &folder())), "2");
        assert_eq!(told(encrypt(&words("/k /"), false, &folder())), "2");
        assert_eq!(told(decrypt(&words("/k a b c"), None, false, &plain)), "2");
        assert_eq!(told(decrypt(&words("a.eds b"), None, false, &folder())), "2");
        assert_eq!(told(decrypt(&words("x/.eds"), None, false, &folder())), "2");
        assert_eq!(told(decrypt(&words("/k a b"), None, true, &plain)), "2");
        assert_eq!(told(cat(&words("/k a"), true)), "2");
        assert_eq!(told(cat(&words(""), false)), "2");
    }

    #[test]
    fn the_exact_key_id_is_looked_up_before_the_canonical_one() {
        let texts = |typed| {
            meant_key_ids(typed)
                .unwrap()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(texts("/myvo/x"), ["/myvo/x"]);
        assert_eq!(texts("lfn:/myvo/x"), ["lfn:/myvo/x", "/myvo/x"]);
        assert_eq!(texts("guid:AB"), ["guid:AB", "guid:ab"]);
        assert_eq!(new_key_id("lfn:///myvo/x").unwrap().as_str(), "/myvo/x");
        assert!(new_key_id("/myvo/../x").is_err());
        assert!(meant_key_ids("a\nb").is_err());
    }
}
