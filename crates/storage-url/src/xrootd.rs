//! `root:`: XRootD by its own `xrdcp` and `xrdfs`, which know its ways to prove who somebody is.

use crate::error::{Reason, shortened};
use crate::program::{Ended, Program, Reading};
use crate::{Access, PutOptions, Source, Stat, StorageError, StorageUrl, Stored, checksum};

/// A server that is down is told within a minute, not after the client's own ten.
const DEFAULTS: &[(&str, &str)] = &[("XRD_CONNECTIONWINDOW", "15"), ("XRD_CONNECTIONRETRY", "2")];

fn program<'a>(access: &'a Access, url: &'a StorageUrl, name: &'static str, arguments: &[&str]) -> Program<'a> {
    Program {
        access,
        url,
        name,
        package: "xrootd-client",
        arguments: arguments.iter().map(Into::into).collect(),
        defaults: DEFAULTS,
        explain,
    }
}

fn xrdfs<'a>(access: &'a Access, url: &'a StorageUrl, verb: &[&str]) -> Program<'a> {
    let (server, path) = url.server_and_path();
    let mut arguments = vec![server.as_str()];
    arguments.extend(verb);
    arguments.push(&path);
    program(access, url, "xrdfs", &arguments)
}

pub(crate) async fn put(
    access: &Access,
    url: &StorageUrl,
    source: Source,
    options: &PutOptions,
) -> Result<Stored, StorageError> {
    let mut arguments = vec!["--nopbar", "--silent"];
    if options.overwrite {
        arguments.push("--force");
    }
    let to = url.expose();
    arguments.extend(["-", &to]);
    let sent = program(access, url, "xrdcp", &arguments).feed(source).await?;
    let found = stat(access, url).await.map_err(|error| error.after_sending(url))?;
    // a server that keeps no checksums says so, and that is no failure
    let sum = xrdfs(access, url, &["query", "checksum"]).run().await;
    let sum = sum.ok().and_then(|ended| adler32(&ended.stdout));
    crate::compare(url, &sent, found.bytes, sum)
}

pub(crate) fn get(access: &Access, url: &StorageUrl) -> Result<Reading, StorageError> {
    program(access, url, "xrdcp", &["--nopbar", "--silent", &url.expose(), "-"]).read()
}

pub(crate) async fn stat(access: &Access, url: &StorageUrl) -> Result<Stat, StorageError> {
    let ended = xrdfs(access, url, &["stat"]).run().await?;
    Ok(Stat {
        bytes: size(&ended.stdout),
    })
}

pub(crate) async fn remove(access: &Access, url: &StorageUrl) -> Result<(), StorageError> {
    xrdfs(access, url, &["rm"]).run().await.map(drop)
}

/// The line `Size:   3000000` of `xrdfs stat`.
fn size(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Size:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `adler32 193935e9`.
fn adler32(text: &str) -> Option<u32> {
    let mut words = text.split_whitespace();
    let is_adler = words.next()?.eq_ignore_ascii_case("adler32");
    is_adler.then(|| checksum::parse(words.next()?)).flatten()
}

/// The protocol's error codes stand in brackets in what the programs say.
fn explain(url: &StorageUrl, ended: &Ended) -> StorageError {
    let said = format!("{} {}", ended.stderr, ended.stdout);
    let words = shortened(&said.replace("Run: ", "").replace("[ERROR]", "").replace("[FATAL]", ""));
    let has = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    let (url, source) = (url.to_string(), Reason::boxed(words.clone()));
    if has(&["[3011]", "no such file"]) {
        StorageError::NotFound { url }
    } else if has(&["[3018]", "file exists"]) {
        StorageError::Exists { url }
    } else if has(&[
        "[3010]",
        "[3030]",
        "Auth failed",
        "permission denied",
        "No protocols left",
    ]) {
        StorageError::Refused { url, source }
    } else if has(&["[3009]", "no space left", "quota exceeded"]) {
        StorageError::Full { url, source }
    } else if has(&[
        "Connection error",
        "Invalid address",
        "Socket timeout",
        "Operation expired",
    ]) {
        StorageError::Unreachable { url, source }
    } else if has(&["Socket error", "Socket disconnected", "TLS error"]) {
        StorageError::Broken { url, source }
    } else {
        ended.failed(url, words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_programs_print_is_read() {
        let stat = "\nPath:   /myvo/a\nId:     42995405771832832\nSize:   3000000\nFlags:  48 (IsReadable)\n";
        assert_eq!(size(stat), Some(3_000_000));
        assert_eq!(size("Path: /Size:/x"), None);
        assert_eq!(adler32("adler32 193935e9\n"), Some(0x1939_35e9));
        assert_eq!(adler32("md5 193935e9"), None);
        assert_eq!(adler32(""), None);
    }

    #[test]
    fn what_the_programs_complain_of_gets_its_name() {
        let url = StorageUrl::parse("root://se//x?authz=token").unwrap();
        let said = |stderr: &str| {
            let ended = Ended {
                code: Some(54),
                stdout: String::new(),
                stderr: stderr.to_owned(),
            };
            explain(&url, &ended)
        };
        let missing = "[ERROR] Server responded with an error: [3011] Unable to locate /x; no such file or directory";
        assert!(matches!(said(missing), StorageError::NotFound { .. }));
        let exists = "Run: [ERROR] Invalid operation: file exists";
        assert!(matches!(said(exists), StorageError::Exists { .. }));
        let refused = "[ERROR] Server responded with an error: [3010] Unable to create /x; permission denied";
        assert!(matches!(said(refused), StorageError::Refused { .. }));
        let full = "[ERROR] Server responded with an error: [3009] Unable to write /x; no space left on device";
        assert!(matches!(said(full), StorageError::Full { .. }));
        assert!(matches!(
            said("[FATAL] Connection error"),
            StorageError::Unreachable { .. }
        ));
        assert!(matches!(said("[ERROR] Socket error"), StorageError::Broken { .. }));
        assert_eq!(said("").to_string(), "`root://se//x`: its program ended with 54");
    }
}
