//! `config.toml`: one source of configuration as it is written, every fault in it told at once.
//!
//! The schema stands in `docs/src/configuration.md`. An unknown key is refused: a misspelt `min_threshold` must not
//! silently mean none. Values are walked by hand, not derived, because a derived reader stops at the first fault.

mod defaults;

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::defaults::Defaults;
use super::{CrlPolicy, StoreEndpoint, TrustAnchors, endpoint};

/// What one source of configuration states; whatever is absent comes from the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer {
    /// The stores, in order; none stated where it is empty.
    pub stores: Vec<StoreEndpoint>,
    /// m of new sharings.
    pub threshold: Option<u8>,
    /// Sharings with a lower m are refused.
    pub min_threshold: Option<u8>,
    /// Where trust anchors are.
    pub anchors: Option<TrustAnchors>,
    /// What to do about revocation lists.
    pub crl: Option<CrlPolicy>,
    /// Deadlines.
    pub timeouts: PartialTimeouts,
    /// What new keys get.
    pub defaults: Option<Defaults>,
    /// The address of the catalogue.
    pub catalog: Option<String>,
    /// Where files are put, the first by default; none stated where it is empty.
    pub storage: Vec<String>,
}

/// The deadlines that a source states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartialTimeouts {
    /// For a connection with its handshake.
    pub connect: Option<Duration>,
    /// For one request.
    pub request: Option<Duration>,
    /// For a whole operation.
    pub total: Option<Duration>,
    /// Before another store is asked beside a slow one.
    pub hedge: Option<Duration>,
}

/// One fault in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// In which line, from 1; none where the fault is of the whole.
    pub line: Option<usize>,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Everything that is wrong with one `config.toml`, at least one fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Faults(pub Vec<Fault>);

/// The longest deadline that makes sense, in milliseconds.
const MAX_TIMEOUT_MS: u64 = 3_600_000;

/// Reads the text of a `config.toml`. Relative paths in it are meant from `folder`, where the file lies.
///
/// # Errors
/// All faults at once.
pub fn parse(text: &str, folder: &Path) -> Result<Layer, Faults> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut reader = Reader {
        text,
        folder,
        faults: Vec::new(),
    };
    for error in &errors {
        reader.fault(error.span().as_ref(), error.message().trim().replace('\n', ", "));
    }
    let layer = reader.layer(table.get_ref());
    if reader.faults.is_empty() {
        return Ok(layer);
    }
    reader.faults.sort_by_key(|fault| fault.line);
    Err(Faults(reader.faults))
}

struct Reader<'t> {
    text: &'t str,
    folder: &'t Path,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, span: Option<&Range<usize>>, text: impl Into<String>) {
        let before = span.and_then(|span| self.text.as_bytes().get(..span.start));
        let line = before.map(|before| 1 + before.iter().filter(|byte| **byte == b'\n').count());
        self.faults.push(Fault {
            line,
            text: text.into(),
        });
    }

    fn layer(&mut self, table: &DeTable<'_>) -> Layer {
        let mut layer = Layer::default();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match name {
                "threshold" => layer.threshold = self.count(name, value),
                "min_threshold" => layer.min_threshold = self.count(name, value),
                "store" => layer.stores = self.stores(value),
                "trust" => self.trust(value, &mut layer),
                "timeouts" => self.timeouts(value, &mut layer.timeouts),
                "defaults" => layer.defaults = self.defaults(value),
                "catalog" => layer.catalog = self.url(name, value),
                "storage" => layer.storage = self.storage(value),
                _ => self.unknown(
                    &key.span(),
                    name,
                    "threshold, min_threshold, store, trust, timeouts, defaults, catalog, storage",
                ),
            }
        }
        layer
    }

    fn unknown(&mut self, span: &Range<usize>, name: &str, known: &str) {
        let name = name.escape_debug();
        self.fault(Some(span), format!("unknown key `{name}` (known: {known})"));
    }

    fn count(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<u8> {
        let number = integer(value.get_ref())
            .and_then(|number| u8::try_from(number).ok())
            .filter(|number| *number > 0);
        if number.is_none() {
            self.fault(
                Some(&value.span()),
                format!("`{name}` must be a whole number from 1 to 255"),
            );
        }
        number
    }

    fn string<'v>(&mut self, name: &str, value: &'v Spanned<DeValue<'_>>) -> Option<&'v str> {
        let text = value
            .get_ref()
            .as_str()
            .filter(|text| !text.is_empty() && !text.contains(char::is_control));
        if text.is_none() {
            self.fault(
                Some(&value.span()),
                format!("`{name}` must be a text without control characters"),
            );
        }
        text
    }

    fn table<'v, 'i>(&mut self, name: &str, value: &'v Spanned<DeValue<'i>>) -> Option<&'v DeTable<'i>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.fault(Some(&value.span()), format!("`{name}` must be a table"));
        }
        table
    }

    fn stores(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<StoreEndpoint> {
        let Some(list) = value.get_ref().as_array() else {
            self.fault(Some(&value.span()), "stores are written as `[[store]]`, once for each");
            return Vec::new();
        };
        let mut seen = HashSet::new();
        let mut stores = Vec::new();
        for item in list {
            let Some(store) = self.store(item) else { continue };
            let pinned = store.id.iter().map(|id| ("id", id.to_string()));
            for (what, text) in [("url", store.url.clone()), ("name", store.name.clone())]
                .into_iter()
                .chain(pinned)
            {
                if !seen.insert((what, text.clone())) && (what != "name" || text != store.url) {
                    self.fault(Some(&item.span()), format!("two stores have the {what} `{text}`"));
                }
            }
            stores.push(store);
        }
        if stores.len() > 255 {
            self.fault(
                Some(&value.span()),
                format!("{} stores, but a key is split over at most 255", stores.len()),
            );
        }
        stores
    }

    fn store(&mut self, item: &Spanned<DeValue<'_>>) -> Option<StoreEndpoint> {
        let table = self.table("store", item)?;
        let (mut url, mut label, mut id) = (None, None, None);
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "url" => url = Some(self.url("url", value)),
                "name" => label = self.string("name", value).map(str::to_owned),
                "id" => id = self.store_id(value),
                other => self.unknown(&key.span(), other, "url, name, id"),
            }
        }
        if url.is_none() {
            self.fault(Some(&item.span()), "a store has no `url`");
        }
        let url = url??;
        Some(StoreEndpoint {
            name: label.unwrap_or_else(|| url.clone()),
            url,
            id,
        })
    }

    /// URLs of folders; what they can be is known where files are put.
    fn storage(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<String> {
        let Some(list) = value.get_ref().as_array() else {
            return self.string("storage", value).map(str::to_owned).into_iter().collect();
        };
        let urls = list.iter().filter_map(|item| self.string("storage", item));
        urls.map(str::to_owned).collect()
    }

    fn url(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let written = self.string(name, value)?;
        let normal = endpoint::normalise(written);
        normal
            .map_err(|error| self.fault(Some(&value.span()), error.to_string()))
            .ok()
    }

    fn store_id(&mut self, value: &Spanned<DeValue<'_>>) -> Option<crate::ids::StoreId> {
        let id = self.string("id", value)?.parse();
        id.map_err(|error: crate::ids::IdError| self.fault(Some(&value.span()), error.to_string()))
            .ok()
    }

    fn trust(&mut self, value: &Spanned<DeValue<'_>>, layer: &mut Layer) {
        let Some(table) = self.table("trust", value) else {
            return;
        };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            match name {
                "ca_dir" | "ca_file" => {
                    let path = self.string(name, value).map(|path| self.folder.join(path));
                    if layer.anchors.is_some() {
                        self.fault(Some(&key.span()), "`ca_dir` and `ca_file` exclude each other");
                    }
                    let kind: fn(PathBuf) -> TrustAnchors = if name == "ca_dir" {
                        TrustAnchors::Directory
                    } else {
                        TrustAnchors::File
                    };
                    layer.anchors = path.map(kind);
                }
                "crl" => {
                    layer.crl = match value.get_ref().as_str() {
                        Some("if-present") => Some(CrlPolicy::IfPresent),
                        Some("require") => Some(CrlPolicy::Require),
                        _ => {
                            self.fault(Some(&value.span()), "`crl` must be \"if-present\" or \"require\"");
                            None
                        }
                    };
                }
                _ => self.unknown(&key.span(), name, "ca_dir, ca_file, crl"),
            }
        }
    }

    fn timeouts(&mut self, value: &Spanned<DeValue<'_>>, timeouts: &mut PartialTimeouts) {
        let Some(table) = self.table("timeouts", value) else {
            return;
        };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let slot = match name.strip_suffix("_ms").unwrap_or(name) {
                "connect" => &mut timeouts.connect,
                "request" => &mut timeouts.request,
                "total" => &mut timeouts.total,
                "hedge" => &mut timeouts.hedge,
                _ => {
                    self.unknown(&key.span(), name, "connect_ms, request_ms, total_ms, hedge_ms");
                    continue;
                }
            };
            let read = if name.ends_with("_ms") {
                milliseconds(value.get_ref())
            } else {
                span_of_time(value.get_ref())
            };
            if read.is_none() {
                let form = if name.ends_with("_ms") {
                    "a number of milliseconds"
                } else {
                    "a text like \"3 s\" or \"100 ms\""
                };
                self.fault(
                    Some(&value.span()),
                    format!("`{name}` must be {form}, from 1 ms to 1 h"),
                );
            } else if slot.is_some() {
                self.fault(Some(&key.span()), format!("`{name}` is there twice, in two units"));
            }
            *slot = read;
        }
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    value
        .as_integer()
        .and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok())
}

fn bounded(ms: u64) -> Option<Duration> {
    (1..=MAX_TIMEOUT_MS).contains(&ms).then(|| Duration::from_millis(ms))
}

fn milliseconds(value: &DeValue<'_>) -> Option<Duration> {
    integer(value).and_then(|ms| u64::try_from(ms).ok()).and_then(bounded)
}

/// `3 s`, `3s`, `100 ms`.
fn span_of_time(value: &DeValue<'_>) -> Option<Duration> {
    let text = value.as_str()?;
    let (number, factor) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s')?, 1000),
    };
    let number: u64 = number.trim_end().parse().ok()?;
    bounded(number.checked_mul(factor)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        parse(text, Path::new("/etc/eds"))
            .unwrap_err()
            .0
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    const WHOLE: &str = r#"
threshold = 2
min_threshold = 1
[[store]]
url = "https://a.example.org:8443/"
name = "hospital A"
id = "ks-a"
[[store]]
url = "httpg://b.example.org:8443/2/glite-data-hydra-service/services/Hydra"
[trust]
ca_dir = "certificates"
crl = "require"
[timeouts]
connect_ms = 1_000
request = "2 s"
total = "9s"
hedge = "50 ms"
[defaults]
group = "/myvo/radiology"
perms = "g+lg"
acl = ["/CN=host/a:8443:g"]
[[defaults.prefix]]
prefix = "/myvo/trial/"
acl = []
"#;

    #[test]
    fn a_whole_file_is_read() {
        let layer = parse(WHOLE, Path::new("/etc/eds")).unwrap();
        assert_eq!((layer.threshold, layer.min_threshold), (Some(2), Some(1)));
        assert_eq!(layer.stores[0].name, "hospital A");
        assert_eq!(layer.stores[0].url, "https://a.example.org:8443");
        assert_eq!(layer.stores[0].id.as_ref().unwrap().as_str(), "ks-a");
        assert_eq!(layer.stores[1].url, "https://b.example.org:8443/2");
        assert_eq!(layer.stores[1].name, layer.stores[1].url);
        assert_eq!(
            layer.anchors,
            Some(TrustAnchors::Directory("/etc/eds/certificates".into()))
        );
        assert_eq!(layer.crl, Some(CrlPolicy::Require));
        let timeouts = layer.timeouts;
        assert_eq!(timeouts.connect, Some(Duration::from_secs(1)));
        assert_eq!(timeouts.request, Some(Duration::from_secs(2)));
        assert_eq!(timeouts.total, Some(Duration::from_secs(9)));
        assert_eq!(timeouts.hedge, Some(Duration::from_millis(50)));
        let defaults = layer.defaults.unwrap();
        assert_eq!(defaults.all.group.as_deref(), Some("/myvo/radiology"));
        assert_eq!(defaults.all.mode, Some("g+lg".parse().unwrap()));
        assert_eq!(defaults.all.acl.unwrap()[0].principal, "/CN=host/a:8443");
        assert_eq!(defaults.prefixes[0].0, "/myvo/trial/");
        assert_eq!(defaults.prefixes[0].1.acl, Some(Vec::new()));
        assert_eq!(parse("", Path::new("/")).unwrap(), Layer::default());
    }

    #[test]
    fn all_faults_are_told_at_once_with_their_lines() {
        let text = "threshold = 0\ncolour = 1\n[[store]]\nname = \"x\"\n[[store]]\nurl = \"http://h\"\nport = 1\n\
                    [trust]\ncrl = \"maybe\"\n[timeouts]\nconnect_ms = \"3\"\nhedge = 5\nsleep_ms = 1\n";
        assert_eq!(
            faults(text),
            [
                "line 1: `threshold` must be a whole number from 1 to 255",
                "line 2: unknown key `colour` (known: threshold, min_threshold, store, trust, timeouts, defaults, catalog, \
                 storage)",
                "line 3: a store has no `url`",
                "line 6: `http://h` does not begin with `https://` (or the original's `httpg://`)",
                "line 7: unknown key `port` (known: url, name, id)",
                "line 9: `crl` must be \"if-present\" or \"require\"",
                "line 11: `connect_ms` must be a number of milliseconds, from 1 ms to 1 h",
                "line 12: `hedge` must be a text like \"3 s\" or \"100 ms\", from 1 ms to 1 h",
                "line 13: unknown key `sleep_ms` (known: connect_ms, request_ms, total_ms, hedge_ms)",
            ]
        );
    }

    #[test]
    fn defaults_of_new_keys_are_checked_where_they_are_written() {
        let text = "[defaults]\nperms = \"755\"\nacl = [\"bob\", \"bob:g\"]\nowner = \"x\"\n[[defaults.prefix]]\n\
                    perms = \"g+l\"\n[[defaults.prefix]]\nprefix = \"/a\"\nacl = 1\n[[defaults.prefix]]\nprefix = \"/a\"\n";
        let faults = faults(text);
        for (fault, expected) in faults.iter().zip([
            "line 2: `perms`: `755` is no clause of a mode",
            "line 3: `acl`: `bob` is not PRINCIPAL:PERMS",
            "line 4: unknown key `owner` (known: group, perms, acl, prefix)",
            "line 5: a default has no `prefix`",
            "line 9: `acl` must be a list",
            "line 10: two defaults have the prefix `/a`",
        ]) {
            assert!(fault.starts_with(expected), "{fault}");
        }
        assert_eq!(faults.len(), 6, "{faults:?}");
    }

    #[test]
    fn one_store_must_not_count_twice() {
        let two = |first: &str, second: &str| faults(&format!("[[store]]\n{first}\n[[store]]\n{second}\n")).join("\n");
        let same_url = two("url = \"https://a:1\"", "url = \"httpg://A:1/\"\nname = \"b\"");
        assert_eq!(same_url, "line 3: two stores have the url `https://a:1`");
        let same_name = two("url = \"https://a\"\nname = \"x\"", "url = \"https://b\"\nname = \"x\"");
        assert!(same_name.ends_with("two stores have the name `x`"), "{same_name}");
        let same_id = two("url = \"https://a\"\nid = \"x\"", "url = \"https://b\"\nid = \"x\"");
        assert!(same_id.ends_with("two stores have the id `x`"), "{same_id}");
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        assert!(faults("[trust]\nca_dir = \"a\"\nca_file = \"b\"\n")[0].contains("exclude each other"));
        assert!(faults("[timeouts]\nconnect_ms = 1\nconnect = \"1 s\"\n")[0].contains("twice"));
        assert!(faults("store = 3")[0].contains("[[store]]"));
        assert!(faults("[[trust]]\n")[0].contains("must be a table"));
        assert!(faults("threshold = 256")[0].contains("1 to 255"));
        assert!(faults("threshold = -1")[0].contains("1 to 255"));
        assert!(faults("[timeouts]\ntotal_ms = 99999999999999999999\n")[0].contains("milliseconds"));
    }

    #[test]
    fn what_is_no_toml_is_a_fault_with_a_line() {
        assert!(faults("threshold = 2\n[[store\n")[0].starts_with("line 2: "));
        assert!(
            faults("a = 1\na = 2\n")
                .iter()
                .any(|fault| fault.starts_with("line 2: "))
        );
    }
}
