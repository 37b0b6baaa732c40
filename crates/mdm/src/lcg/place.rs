//! Where new files go: from a URL, a host, `VO_<VO>_DEFAULT_SE` or the configuration to the URL of a file. No I/O.

use storage_url::{StorageUrl, UrlError};

/// Why there is no place for a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(super) enum PlaceError {
    /// Nothing names one.
    #[error("no storage element is named, neither by -d nor by {variable} nor by `storage` in the configuration")]
    None {
        /// The variable of the VO.
        variable: String,
    },
    /// A host of which no folder is known.
    #[error("no folder is known at storage element `{host}`: `storage` in the configuration names none there")]
    Host {
        /// The host.
        host: String,
    },
    /// What came of it is no URL.
    #[error("`{url}` is no storage URL")]
    Url {
        /// What was made.
        url: String,
        /// What is wrong with it.
        #[source]
        source: UrlError,
    },
    /// A path with `..` or a slash in front.
    #[error("`{0}` is no path below a folder")]
    Relative(String),
}

/// What was said of the place.
#[derive(Debug, Default)]
pub(super) struct Wish<'a> {
    /// `-d`.
    pub(super) destination: Option<&'a str>,
    /// `-P`.
    pub(super) relative: Option<&'a str>,
    /// The VO, for the variable.
    pub(super) vo: Option<&'a str>,
    /// Folders of the configuration.
    pub(super) configured: &'a [String],
}

/// The variable that names the storage element of a VO.
pub(super) fn variable_of(vo: &str) -> String {
    let name: String = vo
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    format!("VO_{name}_DEFAULT_SE")
}

/// The URL of a new file that is called `name` where nobody says more.
pub(super) fn place(
    wish: &Wish<'_>,
    name: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<StorageUrl, PlaceError> {
    let of_vo = wish.vo.map(variable_of);
    let named = wish
        .destination
        .map(str::to_owned)
        .or_else(|| of_vo.as_deref().and_then(&variable));
    let folder = match named {
        Some(url) if url.contains(':') && is_url(&url) => {
            let is_file = wish.destination.is_some() && wish.relative.is_none() && !url.ends_with('/');
            if is_file && let Ok(whole) = StorageUrl::parse(&url) {
                return Ok(whole);
            }
            url
        }
        Some(host) => folder_at(&host, wish.configured).ok_or(PlaceError::Host { host })?,
        None => match wish.configured.first() {
            Some(folder) => folder.clone(),
            None => {
                let variable = of_vo.unwrap_or_else(|| "VO_<VO>_DEFAULT_SE".to_owned());
                return Err(PlaceError::None { variable });
            }
        },
    };
    let below = wish.relative.unwrap_or(name);
    if below.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(PlaceError::Relative(below.to_owned()));
    }
    let url = format!("{}/{below}", folder.trim_end_matches('/'));
    StorageUrl::parse(&url).map_err(|source| PlaceError::Url { url, source })
}

fn is_url(text: &str) -> bool {
    text.contains("://") || text.starts_with("file:")
}

/// The configured folder at a host, which may have a port.
fn folder_at(host: &str, configured: &[String]) -> Option<String> {
    let is_there = |folder: &&String| {
        let authority = folder
            .split_once("://")
            .map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
        let bare = authority.split_once(':').map_or(authority, |(bare, _)| bare);
        authority.eq_ignore_ascii_case(host) || bare.eq_ignore_ascii_case(host)
    };
    configured.iter().find(is_there).cloned()
}

/// The same file by another protocol: its door's URL.
pub(super) fn by_protocol(surl: &StorageUrl, protocol: &str, configured: &[String]) -> Option<StorageUrl> {
    let text = surl.to_string();
    let (scheme, rest) = text.split_once("://")?;
    let group = |word: &str| match word {
        "https" | "davs" => "https",
        "root" | "xroot" | "roots" | "xroots" => "root",
        "gsiftp" | "gridftp" => "gsiftp",
        "file" => "file",
        _ => "",
    };
    let wanted = group(protocol);
    if wanted.is_empty() {
        return None;
    }
    if scheme == protocol {
        return Some(surl.clone());
    }
    if group(scheme) == wanted {
        return StorageUrl::parse(&format!("{protocol}://{rest}")).ok();
    }
    // another door of the same storage element, as far as the configuration knows it
    let own = configured.iter().find_map(|folder| {
        let below = text.strip_prefix(folder.trim_end_matches('/'))?;
        below.starts_with('/').then_some(below)
    })?;
    let host = surl.host().to_ascii_lowercase();
    let door = configured.iter().find(|folder| {
        let parsed = StorageUrl::parse(&format!("{}/x", folder.trim_end_matches('/')));
        let scheme = folder.split_once("://").map_or("", |(scheme, _)| scheme);
        group(scheme) == wanted && parsed.is_ok_and(|url| url.host().eq_ignore_ascii_case(&host))
    })?;
    StorageUrl::parse(&format!("{}{own}", door.trim_end_matches('/'))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDERS: [&str; 2] = ["https://se.example.org:8443/myvo", "root://se2.example.org//myvo/"];

    fn at(destination: Option<&str>, relative: Option<&str>, variable: Option<&str>) -> String {
        let configured = FOLDERS.map(str::to_owned);
        let wish = Wish {
            destination,
            relative,
            vo: Some("vo.example-1.org"),
            configured: &configured,
        };
        let asked = |name: &str| (name == "VO_VO_EXAMPLE_1_ORG_DEFAULT_SE").then(|| variable.map(str::to_owned))?;
        match place(&wish, "file1", asked) {
            Ok(url) => url.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_place_is_found_however_it_is_named() {
        assert_eq!(at(None, None, None), "https://se.example.org:8443/myvo/file1");
        assert_eq!(at(None, Some("a/b"), None), "https://se.example.org:8443/myvo/a/b");
        assert_eq!(
            at(Some("se2.example.org"), None, None),
            "root://se2.example.org//myvo/file1"
        );
        assert_eq!(
            at(Some("se.example.org:8443"), None, None),
            "https://se.example.org:8443/myvo/file1"
        );
        assert_eq!(at(Some("https://h/a/b"), None, None), "https://h/a/b");
        assert_eq!(at(Some("https://h/a/"), None, None), "https://h/a/file1");
        assert_eq!(at(Some("https://h/a"), Some("c"), None), "https://h/a/c");
        assert_eq!(at(None, None, Some("file:///data")), "file:///data/file1");
        assert_eq!(
            at(None, None, Some("se2.example.org")),
            "root://se2.example.org//myvo/file1"
        );
        assert!(at(Some("other"), None, None).contains("no folder is known"));
        assert!(at(None, Some("../x"), None).contains("no path below"));
        let nothing = place(&Wish::default(), "x", |_| None).unwrap_err();
        assert!(matches!(nothing, PlaceError::None { .. }));
    }

    #[test]
    fn a_turl_is_the_same_file_at_another_door() {
        let doors = ["https://se:8443/myvo".to_owned(), "root://se//data/myvo".to_owned()];
        let turl = |surl: &str, protocol: &str| {
            let surl = StorageUrl::parse(surl).unwrap();
            by_protocol(&surl, protocol, &doors).map(|url| url.to_string())
        };
        assert_eq!(
            turl("https://se:8443/myvo/a/b", "root").as_deref(),
            Some("root://se//data/myvo/a/b")
        );
        assert_eq!(
            turl("https://se:8443/myvo/a", "https").as_deref(),
            Some("https://se:8443/myvo/a")
        );
        assert_eq!(
            turl("https://se:8443/myvo/a", "davs").as_deref(),
            Some("davs://se:8443/myvo/a")
        );
        assert_eq!(turl("https://other/myvo/a", "root"), None);
        assert_eq!(turl("https://se:8443/myvo/a", "rfio"), None);
    }
}
