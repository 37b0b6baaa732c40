//! `gsiftp:` and `srm:` by the commands of gfal2, which speak GridFTP and SRM as the rest of a grid does.
//!
//! `gfal-copy` reads standard input as `file:///dev/stdin` where that is a pipe, and `gfal-cat` writes what it reads; a
//! failure has the number of the system's error as exit code.

use crate::error::{Reason, shortened};
use crate::program::{Ended, Program, Reading};
use crate::{Access, PutOptions, Source, Stat, StorageError, StorageUrl, Stored, checksum};

/// The commands give up after half an hour otherwise, however well a transfer goes on; we do when nothing moves.
const FOREVER: &str = "2000000";

fn program<'a>(access: &'a Access, url: &'a StorageUrl, name: &'static str, arguments: &[&str]) -> Program<'a> {
    let arguments = ["-t", FOREVER].iter().chain(arguments);
    Program {
        access,
        url,
        name,
        package: "gfal2-util-scripts",
        arguments: arguments.map(Into::into).collect(),
        defaults: &[],
        explain,
    }
}

pub(crate) async fn put(
    access: &Access,
    url: &StorageUrl,
    source: Source,
    options: &PutOptions,
) -> Result<Stored, StorageError> {
    let mut arguments = vec!["-T", FOREVER];
    if options.overwrite {
        arguments.push("--force");
    }
    let to = url.expose();
    arguments.extend(["file:///dev/stdin", &to]);
    let sent = program(access, url, "gfal-copy", &arguments).feed(source).await?;
    let found = stat(access, url).await.map_err(|error| error.after_sending(url))?;
    // a server that keeps no checksums says so, and that is no failure
    let sum = program(access, url, "gfal-sum", &[&to, "ADLER32"]).run().await;
    let sum = sum.ok().and_then(|ended| adler32(&ended.stdout));
    crate::compare(url, &sent, found.bytes, sum)
}

pub(crate) fn get(access: &Access, url: &StorageUrl) -> Result<Reading, StorageError> {
    program(access, url, "gfal-cat", &["--bytes", &url.expose()]).read()
}

pub(crate) async fn stat(access: &Access, url: &StorageUrl) -> Result<Stat, StorageError> {
    let ended = program(access, url, "gfal-stat", &[&url.expose()]).run().await?;
    Ok(Stat {
        bytes: size(&ended.stdout),
    })
}

pub(crate) async fn remove(access: &Access, url: &StorageUrl) -> Result<(), StorageError> {
    program(access, url, "gfal-rm", &[&url.expose()]).run().await.map(drop)
}

/// The line with `Size: 3000000` of `gfal-stat`.
fn size(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Size:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `URL 193935e9`.
fn adler32(text: &str) -> Option<u32> {
    checksum::parse(text.split_whitespace().last()?)
}

fn explain(url: &StorageUrl, ended: &Ended) -> StorageError {
    const ENOENT: i32 = 2;
    const EPERM: i32 = 1;
    const EACCES: i32 = 13;
    const EEXIST: i32 = 17;
    const ENOSPC: i32 = 28;
    const ECOMM: i32 = 70;
    const ECONNREFUSED: i32 = 111;
    const EHOSTUNREACH: i32 = 113;
    const EDQUOT: i32 = 122;
    let words = shortened(&ended.stderr);
    let (url, source) = (url.to_string(), Reason::boxed(words.clone()));
    let low = words.to_ascii_lowercase();
    // 1 is also what the interpreter ends with, and 2 what wrong usage does: then there is no number in the text
    let code = ended.code.filter(|code| words.contains(&format!("error: {code} (")));
    match code {
        _ if low.contains("no space left") || low.contains("quota exceeded") => StorageError::Full { url, source },
        Some(ENOENT) => StorageError::NotFound { url },
        Some(EEXIST) => StorageError::Exists { url },
        Some(EPERM | EACCES) => StorageError::Refused { url, source },
        Some(ENOSPC | EDQUOT) => StorageError::Full { url, source },
        Some(ECOMM | ECONNREFUSED | EHOSTUNREACH) if low.contains("connect") => {
            StorageError::Unreachable { url, source }
        }
        Some(ECOMM) => StorageError::Broken { url, source },
        _ => ended.failed(url, words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_commands_print_is_read() {
        let stat = "  File: 'gsiftp://h/a'\n  Size: 3000000\tregular file\nAccess: (0644/-rw-r--r--)\n";
        assert_eq!(size(stat), Some(3_000_000));
        assert_eq!(adler32("gsiftp://h/a 193935e9\n"), Some(0x1939_35e9));
        assert_eq!(adler32("gsiftp://h/a\n"), None);
    }

    #[test]
    fn what_the_commands_complain_of_gets_its_name() {
        let url = StorageUrl::parse("gsiftp://se/x").unwrap();
        let said = |code, stderr: &str| {
            let ended = Ended {
                code: Some(code),
                stdout: String::new(),
                stderr: stderr.to_owned(),
            };
            explain(&url, &ended)
        };
        let missing = said(2, "gfal-stat error: 2 (No such file or directory) - 550 PATH_NOT_FOUND");
        assert!(matches!(missing, StorageError::NotFound { .. }));
        let usage = said(2, "usage: gfal-stat [-h]");
        assert!(matches!(usage, StorageError::Failed { .. }));
        let exists = said(
            17,
            "gfal-copy error: 17 (File exists) - Destination exists and overwrite is not set",
        );
        assert!(matches!(exists, StorageError::Exists { .. }));
        let refused = said(13, "gfal-copy error: 13 (Permission denied) - 530-Login incorrect.");
        assert!(matches!(refused, StorageError::Refused { .. }));
        let down = said(
            70,
            "gfal-stat error: 70 (Communication error on send) - globus_xio: Unable to connect",
        );
        assert!(matches!(down, StorageError::Unreachable { .. }));
        let broken = said(
            70,
            "gfal-copy error: 70 (Communication error on send) - an end-of-file was reached",
        );
        assert!(matches!(broken, StorageError::Broken { .. }));
        let full = said(
            70,
            "gfal-copy error: 70 (Communication error on send) - System error: No space left on device",
        );
        assert!(matches!(full, StorageError::Full { .. }));
    }
}
