//! Storage URLs as users write them (`docs/src/storage.md`): read, told apart, printed without secrets. No I/O.
//!
//! Nothing is resolved and nothing decoded but where a scheme says so: storage elements compare paths byte for byte,
//! and `root://host//path` needs both its slashes.

use std::fmt;
use std::path::PathBuf;

/// The longest URL that is read.
pub const MAX_BYTES: usize = 8192;

/// How files at a URL are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// `file:`, this machine.
    File,
    /// `https:` and `davs:`, WebDAV.
    Https,
    /// `root:`, `xroot:`, and encrypted as `roots:`, `xroots:`.
    Root,
    /// `gsiftp:`, GridFTP.
    Gsiftp,
    /// `srm:`.
    Srm,
}

/// Why a text is no storage URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// No `scheme:` in front.
    #[error("it does not begin with file:, https:, davs:, root:, gsiftp: or srm:")]
    NoScheme,
    /// Another scheme.
    #[error("`{scheme}:` is not one of file:, https:, davs:, root:, gsiftp: and srm:")]
    Scheme {
        /// In lower case.
        scheme: String,
    },
    /// `lfn:` or `guid:`.
    #[error(
        "a logical name needs a catalogue, as lcg-cp and mdm-get have it; file:, https:, davs:, root:, gsiftp: and srm: work"
    )]
    Logical,
    /// Not encrypted.
    #[error("`{scheme}:` is not encrypted and cannot tell the server who you are: use https: or davs:")]
    NotEncrypted {
        /// In lower case.
        scheme: String,
    },
    /// Too long.
    #[error("it is longer than {MAX_BYTES} bytes")]
    Long,
    /// A blank or a control character.
    #[error("it has a blank or a control character in it: write it as %20 and the like")]
    Character,
    /// No host, or none that is one.
    #[error("it has no host that is one")]
    Host,
    /// No port that is one.
    #[error("its port is not a number from 1 to 65535")]
    Port,
    /// A password, or a user where the scheme has none.
    #[error("it has a user or a password in it: the credential says who you are")]
    User,
    /// No file is named.
    #[error("it names no file")]
    Path,
    /// `#…`.
    #[error("it has a fragment (`#`)")]
    Fragment,
    /// `%` without two hex digits behind it, or encoded NUL.
    #[error("it has a `%` that is not followed by the hex digits of a character")]
    Percent,
}

/// A place for a file.
#[derive(Clone, PartialEq, Eq)]
pub struct StorageUrl {
    scheme: Scheme,
    /// As written, in lower case.
    word: String,
    user: Option<String>,
    /// Empty for `file:`; brackets and all for IPv6.
    host: String,
    port: Option<u16>,
    /// From its first slash on, as written.
    path: String,
    /// Behind the first `?`.
    query: Option<String>,
}

impl StorageUrl {
    /// Reads one.
    ///
    /// # Errors
    /// [`UrlError`] says what is wrong.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_BYTES {
            return Err(UrlError::Long);
        }
        let (word, rest) = text.split_once(':').ok_or(UrlError::NoScheme)?;
        let word = word.to_ascii_lowercase();
        if word.is_empty()
            || !word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        {
            return Err(UrlError::NoScheme);
        }
        let scheme = match word.as_str() {
            "file" => Scheme::File,
            "https" | "davs" => Scheme::Https,
            "root" | "xroot" | "roots" | "xroots" => Scheme::Root,
            "gsiftp" => Scheme::Gsiftp,
            "srm" => Scheme::Srm,
            "lfn" | "guid" => return Err(UrlError::Logical),
            "http" | "dav" => return Err(UrlError::NotEncrypted { scheme: word }),
            _ => return Err(UrlError::Scheme { scheme: word }),
        };
        if rest.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(UrlError::Character);
        }
        match scheme {
            Scheme::File => Self::file(word, rest),
            _ => Self::remote(scheme, word, rest),
        }
    }

    fn file(word: String, rest: &str) -> Result<Self, UrlError> {
        let path = match rest.strip_prefix("//") {
            None => rest,
            Some(behind) => {
                let slash = behind.find('/').ok_or(UrlError::Host)?;
                let (host, path) = behind.split_at(slash);
                if !host.is_empty() && !host.eq_ignore_ascii_case("localhost") {
                    return Err(UrlError::Host);
                }
                path
            }
        };
        if !path.starts_with('/') || path.ends_with('/') {
            return Err(UrlError::Path);
        }
        percent_decoded(path)?;
        Ok(Self {
            scheme: Scheme::File,
            word,
            user: None,
            host: String::new(),
            port: None,
            path: path.to_owned(),
            query: None,
        })
    }

    fn remote(scheme: Scheme, word: String, rest: &str) -> Result<Self, UrlError> {
        let rest = rest.strip_prefix("//").ok_or(UrlError::Host)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (user, place) = match authority.rsplit_once('@') {
            // XRootD has users; whoever they claim to be, the credential decides
            Some((user, place)) if scheme == Scheme::Root && is_name(user) => (Some(user.to_owned()), place),
            Some(_) => return Err(UrlError::User),
            None => (None, authority),
        };
        let (host, port) = host_and_port(place)?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (rest, None),
        };
        if scheme == Scheme::Https && rest.contains('#') {
            return Err(UrlError::Fragment);
        }
        let url = Self {
            scheme,
            word,
            user,
            host,
            port,
            path: path.to_owned(),
            query,
        };
        if scheme == Scheme::Https {
            percent_decoded(path)?;
        }
        let named = url.named();
        if named.trim_start_matches('/').is_empty() || named.ends_with('/') || !path.starts_with('/') {
            return Err(UrlError::Path);
        }
        Ok(url)
    }

    /// How it is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, with brackets where it is an IPv6 address; empty for `file:`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, where one is given.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The path of a file on this machine; none for other schemes.
    pub fn local_path(&self) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let bytes = (self.scheme == Scheme::File).then(|| percent_decoded(&self.path).ok())??;
        Some(std::ffi::OsString::from_vec(bytes).into())
    }

    /// The file's name on its storage element: what a key for it is called where the user does not say. It begins with
    /// one slash.
    pub fn name(&self) -> String {
        let named = self.named();
        let decoded = match self.scheme {
            Scheme::File | Scheme::Https => percent_decoded(named)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok()),
            _ => None,
        };
        let named = decoded.as_deref().unwrap_or(named);
        format!("/{}", named.trim_start_matches('/'))
    }

    /// The path, or of `srm:` what stands behind `SFN=`.
    fn named(&self) -> &str {
        let behind = self.query.as_deref().and_then(|query| query.strip_prefix("SFN="));
        behind.filter(|_| self.scheme == Scheme::Srm).unwrap_or(&self.path)
    }

    /// All of it, for whoever is to reach it. Its query may be a secret: [`fmt::Display`] is for people.
    pub fn expose(&self) -> String {
        let query = self.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
        format!("{}{}{query}", self.before_path(), self.path)
    }

    /// Whether it has a query that may be a token, which does not belong into the arguments of a program.
    pub fn may_hold_token(&self) -> bool {
        let Some(query) = &self.query else { return false };
        match self.scheme {
            Scheme::File => false,
            Scheme::Srm => !query.starts_with("SFN=") || query.contains('&'),
            _ => !query.is_empty(),
        }
    }

    /// Path and query, as the target of a request.
    pub(crate) fn target(&self) -> String {
        let mut target = String::with_capacity(self.path.len());
        let query = self.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
        for byte in self.path.bytes().chain(query.bytes()) {
            if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
                target.push(char::from(byte));
            } else {
                target.push_str(&format!("%{byte:02X}"));
            }
        }
        target
    }

    /// `root://host:port`, and the path that follows it as `xrdfs` wants it: with one slash.
    pub(crate) fn server_and_path(&self) -> (String, String) {
        let path = format!("/{}", self.path.trim_start_matches('/'));
        let query = self.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
        (self.before_path(), format!("{path}{query}"))
    }

    fn before_path(&self) -> String {
        let user = self.user.as_ref().map_or(String::new(), |user| format!("{user}@"));
        let port = self.port.map_or(String::new(), |port| format!(":{port}"));
        format!("{}://{user}{}{port}", self.word, self.host)
    }

    /// Where a server sends us on to: a URL, or a path on the same server.
    pub(crate) fn redirected(&self, location: &str) -> Result<Self, UrlError> {
        if !location.starts_with('/') || location.starts_with("//") {
            return Self::parse(location);
        }
        Self::parse(&format!("{}{location}", self.before_path()))
    }
}

/// For people: without user and query, either of which may be a secret.
impl fmt::Display for StorageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port.map_or(String::new(), |port| format!(":{port}"));
        write!(f, "{}://{}{port}{}", self.word, self.host, self.path)?;
        match &self.query {
            Some(query) if self.scheme == Scheme::Srm && query.starts_with("SFN=") => {
                write!(f, "?{}", query.split('&').next().unwrap_or_default())
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for StorageUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorageUrl({self})")
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn host_and_port(text: &str) -> Result<(String, Option<u16>), UrlError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, behind) = rest.split_once(']').ok_or(UrlError::Host)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| UrlError::Host)?;
            let port = match behind {
                "" => None,
                behind => Some(behind.strip_prefix(':').ok_or(UrlError::Host)?),
            };
            (format!("[{address}]"), port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (text.to_owned(), None),
        },
    };
    if !host.starts_with('[') && (!is_name(&host) || host.starts_with(['-', '.'])) {
        return Err(UrlError::Host);
    }
    // `+80` is a number to the standard library
    let port = port
        .filter(|port| !port.is_empty())
        .map(|port| match port.parse::<u16>() {
            Ok(number) if number > 0 && port.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
            _ => Err(UrlError::Port),
        });
    Ok((host, port.transpose()?))
}

/// `%41` is `A`. NUL is in no path.
fn percent_decoded(text: &str) -> Result<Vec<u8>, UrlError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit().ok_or(UrlError::Percent)?, digit().ok_or(UrlError::Percent)?);
        match (high * 16 + low) as u8 {
            0 => return Err(UrlError::Percent),
            byte => decoded.push(byte),
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> StorageUrl {
        StorageUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn every_scheme_names_a_file() {
        for (text, scheme, host, port, name) in [
            ("file:/a/b", Scheme::File, "", None, "/a/b"),
            ("file:///a/b%20c", Scheme::File, "", None, "/a/b c"),
            ("file:///a/b%20c?d", Scheme::File, "", None, "/a/b c?d"),
            ("FILE://localhost/a", Scheme::File, "", None, "/a"),
            (
                "https://se.example.org/myvo/x",
                Scheme::Https,
                "se.example.org",
                None,
                "/myvo/x",
            ),
            (
                "davs://se:2880/myvo/%C3%A9?authz=t",
                Scheme::Https,
                "se",
                Some(2880),
                "/myvo/é",
            ),
            (
                "root://se:1094//myvo/x?xrd.wantprot=gsi",
                Scheme::Root,
                "se",
                Some(1094),
                "/myvo/x",
            ),
            ("xroot://me@se//myvo/100%", Scheme::Root, "se", None, "/myvo/100%"),
            ("roots://[::1]:1094//x", Scheme::Root, "[::1]", Some(1094), "/x"),
            ("gsiftp://se/myvo//x", Scheme::Gsiftp, "se", None, "/myvo//x"),
            (
                "srm://se:8443/srm/managerv2?SFN=//myvo/x",
                Scheme::Srm,
                "se",
                Some(8443),
                "/myvo/x",
            ),
            ("srm://se/myvo/x", Scheme::Srm, "se", None, "/myvo/x"),
            ("https://se:/x", Scheme::Https, "se", None, "/x"),
        ] {
            let read = url(text);
            assert_eq!(
                (read.scheme(), read.host(), read.port(), read.name().as_str()),
                (scheme, host, port, name),
                "{text}"
            );
        }
        assert_eq!(url("file:///a/b%20c").local_path(), Some("/a/b c".into()));
        assert_eq!(url("https://h/a").local_path(), None);
    }

    #[test]
    fn what_is_no_storage_url_is_refused_with_its_reason() {
        use UrlError::{Character, Fragment, Host, Logical, Long, NoScheme, Path, Percent, Port, User};
        for (text, error) in [
            ("", NoScheme),
            ("/a/b", NoScheme),
            (":x", NoScheme),
            ("lfn:/myvo/x", Logical),
            ("GUID:1-2", Logical),
            ("https://h/a b", Character),
            ("https://h/a\u{a0}b", Character),
            ("https://h/a\nb", Character),
            ("https:/h/a", Host),
            ("https:///a", Host),
            ("https://h<x>/a", Host),
            ("https://[::1/a", Host),
            ("https://[x]/a", Host),
            ("file://elsewhere/a", Host),
            ("root://-h//a", Host),
            ("https://h:0/a", Port),
            ("https://h:+1/a", Port),
            ("https://h:65536/a", Port),
            ("https://u@h/a", User),
            ("root://u:p@h//a", User),
            ("https://h", Path),
            ("https://h/", Path),
            ("https://h/a/", Path),
            ("https://h?x", Path),
            ("file:a", Path),
            ("file:///a/", Path),
            ("srm://h/srm/managerv2?SFN=/", Path),
            ("https://h/a#b", Fragment),
            ("https://h/%4", Percent),
            ("https://h/%zz", Percent),
            ("file:/a%00", Percent),
            (&format!("file:/{}", "a".repeat(MAX_BYTES)), Long),
        ] {
            assert_eq!(StorageUrl::parse(text), Err(error), "{text}");
        }
        assert!(matches!(StorageUrl::parse("ftp://h/a"), Err(UrlError::Scheme { .. })));
        assert!(matches!(
            StorageUrl::parse("http://h/a"),
            Err(UrlError::NotEncrypted { .. })
        ));
    }

    #[test]
    fn what_is_shown_has_no_secret_in_it() {
        let shown = url("https://h/a?authz=Bearer%20token").to_string();
        assert_eq!(shown, "https://h/a");
        assert_eq!(url("root://me@h//a?authz=token").to_string(), "root://h//a");
        assert_eq!(url("srm://h/m?SFN=/a&t=token").to_string(), "srm://h/m?SFN=/a");
        assert_eq!(format!("{:?}", url("https://h/a?t")), "StorageUrl(https://h/a)");
        assert!(url("root://h//a?authz=token").may_hold_token());
        assert!(!url("srm://h/m?SFN=/a").may_hold_token());
        assert!(url("srm://h/m?SFN=/a&t=token").may_hold_token());
    }

    #[test]
    fn targets_are_fit_for_a_request() {
        assert_eq!(url("https://h/é/%20/a?b=c").target(), "/%C3%A9/%20/a?b=c");
        assert_eq!(
            url("root://h:1//a/b").server_and_path(),
            ("root://h:1".to_owned(), "/a/b".to_owned())
        );
        assert_eq!(url("root://h:1//a/b").expose(), "root://h:1//a/b");
    }

    #[test]
    fn redirects_lead_to_urls_or_paths_and_never_out_of_encryption() {
        let here = url("https://h:1/a?x");
        assert_eq!(here.redirected("/b?y").unwrap().expose(), "https://h:1/b?y");
        assert_eq!(here.redirected("https://g/c").unwrap().expose(), "https://g/c");
        for bad in ["http://h/b", "//g/c", "c", ""] {
            assert!(here.redirected(bad).is_err(), "{bad}");
        }
    }
}
