//! `dicom-recall hsm`, what a pool of dCache calls for files that are nearline: `get`, `put` and `remove`, by its
//! arguments and exit codes (`docs/src/storage-element.md`). A PACS that fails must never look like a broken disk:
//! dCache disables a pool on 41, 42 and 43.

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use eds::failure::Because;
use hydra_cli::command::usage_error;
use hydra_cli::{Code, Failure};

use crate::ask::{Agent, Answer, Ask};
use crate::hooks::other_answer;
use crate::names::{Ids, KeyPer, Template, USUAL};

/// How long a pool waits for a file unless told otherwise, in seconds.
const WAIT_S: u64 = 3600;

/// The exit code of every failure, which is for us to use: dCache tells its client, and switches nothing off.
pub const FAILED: u8 = 30;

/// `dicom-recall hsm`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "dCache calls it as: get PNFSID FILE -si=INFO -uri=URI [-key=value ...], put PNFSID FILE -si=INFO \
                        [-key=value ...], remove -uri=URI [-key=value ...]. Keys that are looked at: -uri, -si, -socket, \
                        -template, -wait (seconds). Whatever fails exits with 30"
)]
pub struct Hsm {
    /// get, put or remove, and what dCache adds
    #[arg(value_name = "WHAT", trailing_var_arg = true, allow_hyphen_values = true)]
    pub what: Vec<OsString>,
}

/// What dCache asks for.
#[derive(Debug, PartialEq, Eq)]
enum Call {
    Get { file: PathBuf, size: u64, name: String },
    Put,
    Remove,
}

/// `-key=value` among the arguments, and the others in their order.
struct Arguments {
    plain: Vec<String>,
    keys: Vec<(String, String)>,
}

impl Arguments {
    fn read(all: &[OsString]) -> Result<Self, Failure> {
        let mut arguments = Self {
            plain: Vec::new(),
            keys: Vec::new(),
        };
        for argument in all {
            let text = argument
                .to_str()
                .ok_or_else(|| usage_error("an argument is not UTF-8"))?;
            match text.strip_prefix('-') {
                Some(key) => {
                    let (key, value) = key.split_once('=').unwrap_or((key, ""));
                    arguments
                        .keys
                        .push((key.trim_start_matches('-').to_owned(), value.to_owned()));
                }
                None => arguments.plain.push(text.to_owned()),
            }
        }
        Ok(arguments)
    }

    /// The last of them counts.
    fn key(&self, name: &str) -> Option<&str> {
        let mut found = self.keys.iter().rev().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }

    fn call(&self) -> Result<Call, Failure> {
        let plain: Vec<&str> = self.plain.iter().map(String::as_str).collect();
        match plain[..] {
            ["get", _, file] => {
                let info = self.key("si").ok_or_else(|| usage_error("`-si=INFO` is missing"))?;
                let uri = self.key("uri").ok_or_else(|| usage_error("`-uri=URI` is missing"))?;
                let size = info.split(';').find_map(|part| part.strip_prefix("size="));
                let size = size.and_then(|size| size.parse().ok());
                Ok(Call::Get {
                    file: file.into(),
                    size: size.ok_or_else(|| usage_error("`-si` has no `size=` that is a number"))?,
                    name: name(uri, self.key("template").unwrap_or(USUAL))?,
                })
            }
            ["put", ..] => Ok(Call::Put),
            ["remove"] => Ok(Call::Remove),
            _ => Err(usage_error("not `get PNFSID FILE`, `put PNFSID FILE` or `remove`")),
        }
    }
}

/// The name behind `dicom://PACS/?store=STUDY&group=SERIES&bfid=INSTANCE`, whose identifiers are the new ones.
fn name(uri: &str, template: &str) -> Result<String, Failure> {
    let bad = |why: &str| usage_error(format!("`-uri`: {why}"));
    let rest = uri
        .strip_prefix("dicom://")
        .ok_or_else(|| bad("it does not begin with `dicom://`"))?;
    let (_, query) = rest.split_once("/?").ok_or_else(|| bad("it has no `/?`"))?;
    let part = |name: &str| {
        let mut parts = query.split('&').filter_map(|part| part.split_once('='));
        let value = parts.find(|(key, _)| *key == name).map(|(_, value)| value);
        let is_uid = |value: &&str| {
            !value.is_empty() && value.len() <= 64 && value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        };
        let value = value
            .filter(is_uid)
            .ok_or_else(|| bad(&format!("`{name}` is no identifier")))?;
        Ok::<_, Failure>(value.to_owned())
    };
    let new = Ids {
        study: part("store")?,
        series: part("group")?,
        instance: part("bfid")?,
    };
    if template.contains("{original_") {
        return Err(usage_error(
            "`-template` has original identifiers, which are not known here",
        ));
    }
    let template =
        Template::parse(template, KeyPer::Instance).map_err(|error| usage_error(format!("`-template`: {error}")))?;
    Ok(template.name(&new, &new))
}

/// `dicom-recall hsm`.
///
/// # Errors
/// Whatever it is, the program exits with [`FAILED`].
pub fn hsm(args: &Hsm) -> Result<(), Failure> {
    let arguments = Arguments::read(&args.what)?;
    match arguments.call()? {
        Call::Get { file, size, name } => get(&arguments, &file, size, &name),
        Call::Put => Err(Failure::new(
            Code::Failed,
            "nothing is stored through the storage element",
        )),
        // the images stay in the PACS, and what is registered is the hospital's to say
        Call::Remove => Ok(()),
    }
}

fn get(arguments: &Arguments, file: &Path, size: u64, name: &str) -> Result<(), Failure> {
    let from_environment = std::env::var_os("DICOM_RECALL_SOCKET").map(PathBuf::from);
    let given = arguments.key("socket").map(PathBuf::from);
    let socket = given.or(from_environment).unwrap_or_else(|| crate::SOCKET.into());
    let wait = arguments.key("wait").map_or(Ok(WAIT_S), str::parse);
    let wait = wait.map_err(|_| usage_error("`-wait` is no number of seconds"))?;
    let failure = |error| Failure::new(Code::Failed, error);
    let mut agent = Agent::connect(&socket).map_err(failure)?;
    let Answer::About { root, .. } = agent.ask(&Ask::About).map_err(failure)? else {
        return Err(Failure::new(Code::Failed, "the agent does not say where its files are"));
    };
    let staged = agent.ask(&Ask::Stage {
        name: name.to_owned(),
        path: None,
        deadline_s: wait,
    });
    match staged.map_err(failure)? {
        Answer::Done => {}
        other => return Err(other_answer(other)),
    }
    let from = crate::names::path_under(&root, name);
    copy(&from, file, size).map_err(|error| {
        let text = format!("`{name}` cannot be brought to `{}`", file.display());
        Failure::new(Code::Failed, Because::new(text, error))
    })
}

/// Copies exactly that many bytes, flushed, or leaves nothing.
fn copy(from: &Path, to: &Path, size: u64) -> io::Result<()> {
    let mut source = File::open(from)?;
    let found = source.metadata()?.len();
    if found != size {
        let text = format!("it is {found} bytes long, and dCache has it as {size}");
        return Err(io::Error::other(text));
    }
    let nofollow = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let mut target = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(nofollow)
        .open(to)?;
    let copied = io::copy(&mut source, &mut target).and_then(|copied| {
        target.sync_all()?;
        Ok(copied)
    });
    match copied {
        Ok(copied) if copied == size => Ok(()),
        other => {
            let _ = fs::remove_file(to);
            other.and(Err(io::ErrorKind::UnexpectedEof.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URI: &str = "-uri=dicom://PACS/?store=2.25.1&group=2.25.2&bfid=2.25.3";

    fn call(words: &[&str]) -> Result<Call, Failure> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Arguments::read(&words)?.call()
    }

    #[test]
    fn what_dcache_says_is_understood() {
        let info = "-si=size=525209;new=false;stored=true;sClass=eds:data;cClass=-;hsm=dicom;";
        let command = "-command=/usr/bin/dicom-recall-hsm";
        let get = call(&["get", "0000A1", "/pool/data/0000A1", info, URI, command]).unwrap();
        let name = "/eds/2.25.1/2.25.2/2.25.3.dcm.eds".to_owned();
        let (file, size) = ("/pool/data/0000A1".into(), 525_209);
        assert_eq!(get, Call::Get { file, size, name });
        let other = call(&["get", "0000A1", "/f", info, URI, "-template=/x/{instance}"]).unwrap();
        assert!(matches!(other, Call::Get { name, .. } if name == "/x/2.25.3"));
        assert_eq!(call(&["put", "0000A1", "/f", info]).unwrap(), Call::Put);
        assert_eq!(call(&["remove", URI]).unwrap(), Call::Remove);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let info = "-si=size=1;";
        for words in [
            &["get", "0000A1", "/f", info][..],
            &["get", "0000A1", "/f", URI],
            &["get", "0000A1", "/f", URI, "-si=size=x;"],
            &["get", "0000A1", info, URI],
            &["get", "0000A1", "/f", info, "-uri=osm://x/?store=1&group=2&bfid=3"],
            &["get", "0000A1", "/f", info, "-uri=dicom://x/?store=1&group=2"],
            &[
                "get",
                "0000A1",
                "/f",
                info,
                "-uri=dicom://x/?store=1&group=../..&bfid=3",
            ],
            &[
                "get",
                "0000A1",
                "/f",
                info,
                URI,
                "-template=/{original_study}/{instance}",
            ],
            &["list"],
            &[],
        ] {
            assert!(call(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn a_copy_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "sealed").unwrap();
        assert!(copy(&from, &to, 7).is_err());
        assert!(!to.exists());
        copy(&from, &to, 6).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"sealed");
        assert!(copy(&folder.path().join("none"), &to, 6).is_err());
    }
}
