//! What each of the `lcg-*` commands does.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eds::failure::Because;
use hydra_cli::command::usage_error;
use hydra_cli::output::{print_line, warn};
use hydra_cli::{Code, Failure};
use hydra_core::ids::ChangeId;
use hydra_core::keystore::wire::ProblemKind;
use hydra_core::sealed::{Header, HeaderError};
use mdm_catalog::wire::{Change, Created, Entry, Kind, Lookup, NewEntry, Removal, Status};
use mdm_catalog::{CatalogClient, CatalogError, LogicalName};
use storage_url::{Before, Scheme, StorageError, StorageUrl};

use super::Reach;
use super::copy::{From, Sums, remove_again, to_local, to_remote, unreadable};
use super::options::Line;
use super::place::{Wish, by_protocol, place};
use crate::change::directory;
use crate::connection::{entry_name, logical_name};
use crate::copies::{Told, is_copy_at};
use crate::tape;

/// What an operand names.
enum Named {
    /// In the catalogue: a path or `guid:…`.
    Entry(String),
    /// On a storage element.
    Url(StorageUrl),
    /// On this machine.
    Local(PathBuf),
}

impl Named {
    fn read(typed: &str) -> Result<Self, Failure> {
        let scheme = typed.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme.as_deref() {
            Some("lfn" | "guid") => Ok(Self::Entry(entry_of(typed)?)),
            Some("file") => {
                let url = eds::storage::storage_url(typed)?;
                Ok(url.local_path().map_or(Self::Url(url), Self::Local))
            }
            Some(_) if typed.contains("://") => Ok(Self::Url(eds::storage::storage_url(typed)?)),
            _ => Ok(Self::Local(typed.into())),
        }
    }
}

/// The entry that an operand names; `lfn:x` lies below `LFC_HOME`.
fn entry_of(typed: &str) -> Result<String, Failure> {
    let home = std::env::var("LFC_HOME").ok().filter(|home| !home.is_empty());
    entry_name(&at_home(typed, home.as_deref()))
}

fn at_home(typed: &str, home: Option<&str>) -> String {
    let relative = typed
        .split_once(':')
        .filter(|(scheme, rest)| scheme.eq_ignore_ascii_case("lfn") && !rest.starts_with('/'));
    match (relative, home) {
        (Some((_, rest)), Some(home)) => format!("{}/{rest}", home.trim_end_matches('/')),
        _ => typed.to_owned(),
    }
}

fn one_operand(line: &Line) -> Result<&str, Failure> {
    match line.operands.as_slice() {
        [one] => Ok(one),
        _ => Err(usage_error("one operand is needed")),
    }
}

/// The VO that options, environment or a name say.
fn vo(line: &Line, entry: Option<&str>) -> Option<String> {
    let of_name = || {
        let mut segments = entry?.strip_prefix('/')?.split('/');
        let first = segments.next()?;
        // the names of gLite began with /grid
        Some(if first == "grid" { segments.next()? } else { first }.to_owned())
    };
    let variable = || std::env::var("LCG_GFAL_VO").ok().filter(|vo| !vo.is_empty());
    line.value("vo").map(str::to_owned).or_else(variable).or_else(of_name)
}

fn placed(reach: &Reach, line: &Line, entry: Option<&str>, name: &str) -> Result<StorageUrl, Failure> {
    let vo = vo(line, entry);
    let wish = Wish {
        destination: line.value("dest"),
        relative: line.value("relative-path"),
        vo: vo.as_deref(),
        configured: &reach.services.storage,
    };
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    place(&wish, name, variable).map_err(|error| Failure::new(Code::Config, error))
}

/// A fresh random UUID (RFC 9562, version 4).
fn uuid() -> Result<String, Failure> {
    let random = ChangeId::random()
        .map_err(|error| Failure::new(Code::Failed, error))?
        .to_string();
    let variant = match u8::from_str_radix(&random[16..17], 16).unwrap_or_default() & 3 {
        0 => '8',
        1 => '9',
        2 => 'a',
        _ => 'b',
    };
    let (a, b, c, d, e) = (
        &random[..8],
        &random[8..12],
        &random[13..16],
        &random[17..20],
        &random[20..32],
    );
    Ok(format!("{a}-{b}-4{c}-{variant}{d}-{e}"))
}

/// The key id in the header of a sealed file; none in one of the original's, and the file is named where it is not
/// sealed.
fn key_of(path: &Path) -> Result<Option<String>, Failure> {
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| unreadable(path, error))?;
    file.take(552)
        .read_to_end(&mut start)
        .map_err(|error| unreadable(path, error))?;
    match Header::decode(&start) {
        Ok(header) => Ok(header.key_id.map(|key_id| key_id.to_string())),
        Err(HeaderError::NotSealed) => {
            warn(&format!(
                "`{}` has not the mark of a sealed file: it goes as it is",
                path.display()
            ));
            Ok(None)
        }
        Err(error) => {
            let text = format!("`{}` is damaged", path.display());
            Err(Failure::new(Code::Damaged, Because::new(text, error)))
        }
    }
}

/// `lcg-cr`.
pub(super) fn copy_and_register(line: &Line, idle: Duration) -> Result<(), Failure> {
    let (source, second) = match line.operands.as_slice() {
        [source] => (source, None),
        [source, name] if !line.has("lfn") => (source, Some(name.as_str())),
        _ => return Err(usage_error("one file is needed, and at most one name")),
    };
    let Named::Local(path) = Named::read(source)? else {
        return Err(usage_error(format!(
            "`{source}` is no file of this machine; lcg-rep makes replicas"
        )));
    };
    let typed = line.value("lfn").or(second);
    let name = typed.map(entry_of).transpose()?;
    let name = name.as_deref().map(logical_name).transpose()?;
    let uuid = match line.value("guid") {
        Some(given) => given.to_ascii_lowercase().trim_start_matches("guid:").to_owned(),
        None => uuid()?,
    };
    let key_id = key_of(&path)?;
    let reach = Reach::open(line, idle)?;
    let client = reach.catalog()?;
    let name = match name {
        Some(name) => name,
        None => generated(line, &uuid)?,
    };
    match client.show_one(name.as_str()) {
        Ok(_) => {
            return Err(Failure::new(
                Code::CannotCreate,
                format!("`lfn:{name}` is there already"),
            ));
        }
        Err(error) if error.kind() == Some(ProblemKind::NotFound) => {}
        Err(error) => return Err(error.into()),
    }
    let url = placed(&reach, line, Some(name.as_str()), &format!("file{uuid}"))?;
    reach.say(&format!("Using {}; destination {url}", client.url()));
    let sums = reach.wait(to_remote(&reach.storage, From::Local(&path), &url, &Sums::default()))?;
    let entry = NewEntry {
        kind: Kind::File,
        guid: Some(uuid.clone()),
        size: sums.size,
        adler32: sums.adler32,
        sha256: sums.sha256,
        key_id,
        status: Some(Status::Online),
        replicas: vec![url.to_string()],
        ..directory(name.clone(), true)
    };
    match client.create_one(&entry) {
        // known with this guid and these sums is what this command made, by an answer that was lost
        Ok(Created::New | Created::Known) => {}
        Err(CatalogError::Refused { .. }) => {
            reach.wait(remove_again(&reach.storage, &url, Before::Absent));
            let text = format!("`lfn:{name}` cannot be registered: it is there already, or not allowed to you");
            return Err(Failure::new(Code::CannotCreate, text).advise("eds-whoami"));
        }
        Err(error) => {
            // whether it is registered is not known: the file stays, and is named
            let text = format!("`{url}` is stored, and may not be registered as `lfn:{name}`");
            let again = format!("mdm-show {name}");
            return Err(Failure::new(Code::TryLater, Because::new(text, error)).advise(again));
        }
    }
    reach.say(&format!("registered lfn:{name}"));
    print_line(&format!("guid:{uuid}"))
}

/// The name of a file that has none.
fn generated(line: &Line, uuid: &str) -> Result<LogicalName, Failure> {
    let vo = vo(line, None).ok_or_else(|| usage_error("a name is needed: -l LFN, or --vo VO for one that is made"))?;
    logical_name(&format!("/{vo}/generated/file-{uuid}"))
}

/// Storage URLs of an entry, those first that need no other program.
fn replicas(entry: &Entry) -> Vec<StorageUrl> {
    let mut urls: Vec<StorageUrl> = entry
        .replicas
        .iter()
        .filter_map(|url| StorageUrl::parse(url).ok())
        .collect();
    urls.sort_by_key(|url| match url.scheme() {
        Scheme::File => 0,
        Scheme::Https => 1,
        Scheme::Root => 2,
        _ => 3,
    });
    urls
}

/// `lcg-cp`.
pub(super) fn copy(line: &Line, idle: Duration) -> Result<(), Failure> {
    let [source, destination] = line.operands.as_slice() else {
        return Err(usage_error("a source and a destination are needed"));
    };
    let (source, destination) = (Named::read(source)?, Named::read(destination)?);
    if let Named::Entry(name) = &destination {
        return Err(usage_error(format!(
            "`{name}` is a name in the catalogue: lcg-cr registers files"
        )));
    }
    let reach = Reach::open(line, idle)?;
    match source {
        Named::Local(path) => one_copy(&reach, From::Local(&path), &destination, &Sums::default()),
        Named::Url(url) => one_copy(&reach, From::Remote(&url), &destination, &Sums::default()),
        Named::Entry(name) => {
            let entry = reach.catalog()?.show_one(&name)?;
            let one = |url: &StorageUrl| one_copy(&reach, From::Remote(url), &destination, &Sums::of(&entry));
            of_any(&reach, &entry, one)
        }
    }
}

fn one_copy(reach: &Reach, from: From<'_>, to: &Named, expected: &Sums) -> Result<(), Failure> {
    let sums = match to {
        Named::Url(url) => reach.wait(to_remote(&reach.storage, from, url, expected))?,
        Named::Local(path) => reach.wait(to_local(&reach.storage, from, path, expected))?,
        Named::Entry(_) => return Err(usage_error("a name in the catalogue is no destination")),
    };
    reach.say(&format!("{} bytes", sums.size.unwrap_or_default()));
    Ok(())
}

/// Tries the replicas of an entry until one will do.
fn of_any(reach: &Reach, entry: &Entry, verb: impl Fn(&StorageUrl) -> Result<(), Failure>) -> Result<(), Failure> {
    let urls = replicas(entry);
    let mut last = None;
    for (number, url) in urls.iter().enumerate() {
        reach.say(&format!("Using {url}"));
        let done = on_disk(reach, entry, url, Duration::from_secs(3600)).and_then(|()| verb(url));
        match done {
            Ok(()) => return Ok(()),
            // another replica would not help an output that exists
            Err(failure) if failure.code == Code::CannotCreate => return Err(failure),
            Err(failure) => {
                if number + 1 < urls.len() {
                    warn(&format!("{}; the next replica is tried", failure.error));
                }
                last = Some(failure);
            }
        }
    }
    let none = || {
        Failure::new(
            Code::NotAllowed,
            format!("`lfn:{}` has no replica, or shows you none", entry.path),
        )
    };
    Err(last.unwrap_or_else(none))
}

/// Brings a nearline file to disk, where its storage element has a way to ask for that.
fn on_disk(reach: &Reach, entry: &Entry, url: &StorageUrl, patience: Duration) -> Result<(), Failure> {
    if entry.status == Some(Status::Online) || url.scheme() != Scheme::Https {
        return Ok(());
    }
    staged(reach, url, patience)
}

fn staged(reach: &Reach, url: &StorageUrl, patience: Duration) -> Result<(), Failure> {
    let http = reach.http()?;
    let brought = reach.wait(tape::stage(&http, url, patience));
    if brought.map_err(|error| Failure::new(Code::TryLater, error))? {
        reach.say(&format!("{url} was brought to disk"));
    }
    Ok(())
}

/// `lcg-rep`.
pub(super) fn replicate(line: &Line, idle: Duration) -> Result<(), Failure> {
    let meant = Meant::read(one_operand(line)?)?;
    if !line.has("dest") {
        return Err(usage_error("-d is needed: where the new replica goes"));
    }
    let reach = Reach::open(line, idle)?;
    let client = reach.catalog()?;
    let entry = meant.only_entry(client)?;
    let url = placed(&reach, line, Some(entry.path.as_str()), &format!("file{}", uuid()?))?;
    let sums = Sums::of(&entry);
    let one = |from: &StorageUrl| {
        let copied = to_remote(&reach.storage, From::Remote(from), &url, &sums);
        reach.wait(copied).map(drop)
    };
    of_any(&reach, &entry, one)?;
    let change = Change {
        path: entry.path.to_string(),
        add_replicas: vec![url.to_string()],
        ..Change::default()
    };
    match client.change_one(&change) {
        Ok(_) => {
            reach.say(&format!("registered {url}"));
            Ok(())
        }
        Err(error @ CatalogError::Refused { .. }) => {
            reach.wait(remove_again(&reach.storage, &url, Before::Absent));
            Err(error.into())
        }
        Err(error) => {
            let text = format!("`{url}` is stored, and may not be registered");
            let again = format!("mdm-set {} --add-replica {url}", entry.path);
            Err(Failure::new(Code::TryLater, Because::new(text, error)).advise(again))
        }
    }
}

/// What an operand means that stands for a file in the catalogue.
enum Meant {
    /// By name or guid.
    Entry(String),
    /// By where a replica of it is: as it was typed, and as URLs are registered by these commands.
    Replica([String; 2]),
}

impl Meant {
    fn read(typed: &str) -> Result<Self, Failure> {
        let scheme = typed.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme.as_deref() {
            Some("lfn" | "guid") => Ok(Self::Entry(entry_of(typed)?)),
            Some(scheme) if scheme == "file" || typed.contains("://") => {
                Ok(Self::Replica([typed.to_owned(), as_shown(typed)]))
            }
            _ if typed.starts_with('/') => Ok(Self::Entry(entry_name(typed)?)),
            _ => Err(usage_error(format!("`{typed}` is no lfn:, guid: or SURL"))),
        }
    }

    /// Of several files that have one replica: all.
    fn entries(&self, client: &CatalogClient) -> Result<Vec<Entry>, Failure> {
        let urls = match self {
            Self::Entry(name) => return Ok(vec![client.show_one(name)?]),
            Self::Replica(urls) => urls,
        };
        let mut paths: Vec<String> = Vec::new();
        // what was typed as it is registered is one question
        let distinct = if urls[0] == urls[1] { &urls[1..] } else { &urls[..] };
        for url in distinct {
            let lookup = Lookup {
                replica: Some(url.clone()),
                ..Lookup::default()
            };
            let found = client.lookup(&lookup)?;
            paths.extend(found.into_iter().map(|entry| entry.path.to_string()));
        }
        paths.sort_unstable();
        paths.dedup();
        if paths.is_empty() {
            let text = format!("`{}` is no replica of a file that is shown to you", urls[0]);
            return Err(Failure::new(Code::NotAllowed, text));
        }
        paths.iter().map(|path| Ok(client.show_one(path)?)).collect()
    }

    fn only_entry(&self, client: &CatalogClient) -> Result<Entry, Failure> {
        let mut entries = self.entries(client)?;
        match (entries.pop(), entries.len()) {
            (Some(entry), 0) => Ok(entry),
            (_, others) => {
                let text = format!("{} files have this replica", others + 1);
                Err(Failure::new(Code::Usage, text).advise("lcg-la, and one of the names"))
            }
        }
    }
}

fn shown_entries(line: &Line, idle: Duration) -> Result<Vec<Entry>, Failure> {
    let meant = Meant::read(one_operand(line)?)?;
    let reach = Reach::open(line, idle)?;
    meant.entries(reach.catalog()?)
}

/// `lcg-lr`.
pub(super) fn list_replicas(line: &Line, idle: Duration) -> Result<(), Failure> {
    for entry in shown_entries(line, idle)? {
        // a place in a hospital's archive is none that files can be copied from
        let mut urls = entry.replicas.iter().filter(|url| !url.starts_with("dicom:"));
        urls.try_for_each(|url| print_line(&hydra_cli::printable(url)))?;
    }
    Ok(())
}

/// `lcg-la`.
pub(super) fn list_aliases(line: &Line, idle: Duration) -> Result<(), Failure> {
    for entry in shown_entries(line, idle)? {
        print_line(&format!("lfn:{}", hydra_cli::printable(entry.path.as_str())))?;
    }
    Ok(())
}

/// `lcg-lg`.
pub(super) fn list_guid(line: &Line, idle: Duration) -> Result<(), Failure> {
    for entry in shown_entries(line, idle)? {
        let uuid = entry.guid.trim_start_matches("guid:");
        print_line(&format!("guid:{uuid}"))?;
    }
    Ok(())
}

/// `lcg-del`.
pub(super) fn delete(line: &Line, idle: Duration) -> Result<(), Failure> {
    let meant = Meant::read(one_operand(line)?)?;
    let host = line.value("se");
    // a SURL says itself which replica is meant
    let only = match &meant {
        Meant::Replica(urls) if !line.has("all") && host.is_none() => Some(urls[1].clone()),
        _ if line.has("all") == host.is_some() => return Err(usage_error("one of -a and -s SE is needed")),
        _ => None,
    };
    let reach = Reach::open(line, idle)?;
    let client = reach.catalog()?;
    let entry = meant.only_entry(client)?;
    let is_there = |url: &StorageUrl, host: &str| {
        let port = url.port().map_or(String::new(), |port| format!(":{port}"));
        url.host().eq_ignore_ascii_case(host) || format!("{}{port}", url.host()).eq_ignore_ascii_case(host)
    };
    let chosen: Vec<StorageUrl> = replicas(&entry)
        .into_iter()
        .filter(|url| host.is_none_or(|host| is_there(url, host)))
        .filter(|url| only.as_ref().is_none_or(|only| *only == url.to_string()))
        .collect();
    if let (Some(host), true) = (host, chosen.is_empty()) {
        return Err(Failure::new(
            Code::NotAllowed,
            format!("`lfn:{}` has no replica at {host}", entry.path),
        ));
    }
    // what is in an archive can be had again only by way of the others: nothing is begun that cannot be ended
    if line.has("all") && entry.replicas.iter().any(|url| StorageUrl::parse(url).is_err()) {
        let text = format!(
            "`lfn:{}` keeps its replicas: one of them is in an archive, or nothing that is removed by this",
            entry.path
        );
        return Err(Failure::new(Code::Failed, text).advise(format!("mdm-show {}, then mdm-rm -f", entry.path)));
    }
    let mut failed = None;
    let mut gone = Vec::new();
    for url in chosen {
        // its first bytes are read, for which it has to be on disk
        if entry.key_id.is_some()
            && let Err(failure) = on_disk(&reach, &entry, &url, Duration::from_secs(3600))
        {
            warn(&failure.error.to_string());
        }
        if !reach.wait(is_copy_at(&reach.storage, &url, &Told::of(&entry))) {
            let text = format!("{url} is no copy of `lfn:{}`, or could not be looked at", entry.path);
            if line.has("force") {
                warn(&format!("{text}, and is left there"));
                gone.push(url.to_string());
            } else {
                failed = Some(
                    Failure::new(Code::Failed, text).advise("--force, which forgets the replica and leaves the file"),
                );
            }
            continue;
        }
        match reach.wait(reach.storage.remove(&url)) {
            Ok(()) | Err(StorageError::NotFound { .. }) => {
                reach.say(&format!("removed {url}"));
                gone.push(url.to_string());
            }
            Err(error) if line.has("force") => {
                warn(&format!("{url} is left there: {error}"));
                gone.push(url.to_string());
            }
            Err(error) => failed = Some(eds::storage::failed(error)),
        }
    }
    let left = entry.replicas.iter().any(|url| !gone.contains(&as_shown(url)));
    if !gone.is_empty() {
        let remove_replicas = entry
            .replicas
            .iter()
            .filter(|url| gone.contains(&as_shown(url)))
            .cloned();
        client.change_one(&Change {
            path: entry.path.to_string(),
            remove_replicas: remove_replicas.collect(),
            ..Change::default()
        })?;
    }
    if let Some(failure) = failed {
        return Err(failure);
    }
    if !left && !line.has("nolfc") {
        client.remove_one(&Removal {
            path: entry.path.to_string(),
            recursive: false,
            unreplicated: true,
        })?;
        reach.say(&format!("removed lfn:{}", entry.path));
    }
    Ok(())
}

/// A replica as URLs are printed, which is how they are compared.
fn as_shown(url: &str) -> String {
    StorageUrl::parse(url).map_or_else(|_| url.to_owned(), |url| url.to_string())
}

/// `lcg-gt`.
pub(super) fn get_turl(line: &Line, idle: Duration) -> Result<(), Failure> {
    let Some((surl, protocols)) = line
        .operands
        .split_first()
        .filter(|(_, protocols)| !protocols.is_empty())
    else {
        return Err(usage_error("a SURL and a protocol are needed"));
    };
    let surl = eds::storage::storage_url(surl)?;
    let reach = Reach::open(line, idle)?;
    let storage = &reach.services.storage;
    let turl = protocols
        .iter()
        .find_map(|protocol| by_protocol(&surl, protocol, storage));
    let turl = turl.ok_or_else(|| {
        let text = format!("`{surl}` has no door for {}", protocols.join(", "));
        Failure::new(Code::Failed, text).advise("name its doors as `storage` in the configuration")
    })?;
    let patience = line
        .value("srm-timeout")
        .and_then(|text| text.parse().ok())
        .map_or(3600, |seconds: u64| seconds);
    staged(&reach, &surl, Duration::from_secs(patience))?;
    print_line(&turl.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_name_entries_urls_or_files() {
        assert!(
            matches!(Named::read("lfn://myvo/home/secret").unwrap(), Named::Entry(name) if name == "/myvo/home/secret")
        );
        assert!(matches!(Named::read("guid:AB").unwrap(), Named::Entry(name) if name == "guid:ab"));
        assert!(matches!(Named::read("file:/tmp/x").unwrap(), Named::Local(path) if path == Path::new("/tmp/x")));
        assert!(matches!(Named::read("secret").unwrap(), Named::Local(path) if path == Path::new("secret")));
        assert!(matches!(Named::read("https://h/x").unwrap(), Named::Url(_)));
        assert!(Named::read("http://h/x").is_err());
        assert_eq!(at_home("lfn:x/y", Some("/myvo/home/")), "/myvo/home/x/y");
        assert_eq!(at_home("lfn:/x", Some("/myvo")), "lfn:/x");
        assert_eq!(at_home("lfn:x", None), "lfn:x");
    }

    #[test]
    fn files_are_meant_by_name_guid_or_replica() {
        let read = |typed: &str| Meant::read(typed);
        assert!(matches!(read("/myvo/x").unwrap(), Meant::Entry(name) if name == "/myvo/x"));
        assert!(matches!(read("lfn:/myvo/x").unwrap(), Meant::Entry(name) if name == "/myvo/x"));
        assert!(matches!(read("GUID:AB").unwrap(), Meant::Entry(name) if name == "guid:ab"));
        let typed = "HTTPS://SE.example.org:443/x";
        let Meant::Replica(urls) = read(typed).unwrap() else {
            panic!()
        };
        assert_eq!(urls, [typed.to_owned(), as_shown(typed)]);
        assert!(matches!(read("srb://old.example.org/x").unwrap(), Meant::Replica(_)));
        assert!(matches!(read("file:///data/x").unwrap(), Meant::Replica(_)));
        assert!(read("x").is_err());
    }

    #[test]
    fn uuids_have_their_form() {
        let uuid = uuid().unwrap();
        let parts: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&uuid[14..15], "4");
        assert!("89ab".contains(&uuid[19..20]));
    }

    #[test]
    fn the_vo_is_named_or_begins_the_name() {
        let line = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            Line::read(&words, &[]).unwrap()
        };
        assert_eq!(vo(&line(&["--vo", "a"]), Some("/b/c")).as_deref(), Some("a"));
        // nothing in this test's environment says it
        if std::env::var_os("LCG_GFAL_VO").is_none() {
            assert_eq!(vo(&line(&[]), Some("/b/c")).as_deref(), Some("b"));
            assert_eq!(vo(&line(&[]), Some("/grid/b/c")).as_deref(), Some("b"));
        }
    }
}
