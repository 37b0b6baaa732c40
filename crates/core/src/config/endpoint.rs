//! Addresses of stores: what people write, brought to the one form that clients send requests to.
//!
//! Endpoints of the original lose the path from `/glite-data-hydra-service` on, and `httpg` means `https`
//! (`docs/src/configuration.md`).

/// Why a text is no address of a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Not TLS, or no URL at all.
    #[error("`{url}` does not begin with `https://` (or the original's `httpg://`)")]
    Scheme {
        /// What was written.
        url: String,
    },
    /// No usable host or port.
    #[error("`{url}` has no valid host and port behind `https://`")]
    Authority {
        /// What was written.
        url: String,
    },
    /// A user, a query, a fragment, or what has no place in an address.
    #[error("`{url}` has more than host, port and path")]
    Extra {
        /// What was written.
        url: String,
    },
}

/// Where the original's service begins in a path.
const ORIGINAL_SERVICE: &str = "/glite-data-hydra-service";

/// The address of a store in the form that requests are made from: `https://host[:port][/base]`, without a slash at the
/// end.
///
/// # Errors
/// What is wrong with the text.
pub fn normalise(url: &str) -> Result<String, EndpointError> {
    let owned = || url.to_owned();
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| EndpointError::Scheme { url: owned() })?;
    if !["https", "httpg"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(EndpointError::Scheme { url: owned() });
    }
    let plain = rest
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"?#@\\\"<>^`{|}".contains(&byte));
    if !plain {
        return Err(EndpointError::Extra { url: owned() });
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if !valid_authority(authority) {
        return Err(EndpointError::Authority { url: owned() });
    }
    let base = path
        .find(ORIGINAL_SERVICE)
        .map_or(path, |at| &path[..at])
        .trim_end_matches('/');
    Ok(format!("https://{}{base}", authority.to_ascii_lowercase()))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn valid_authority(authority: &str) -> bool {
    let (host_ok, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let Some((host, port)) = bracketed.split_once(']') else {
                return false;
            };
            (host.parse::<std::net::Ipv6Addr>().is_ok(), port)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            (valid_host(host), port)
        }
    };
    let port_ok = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok_and(|p| p > 0)
        });
    host_ok && port_ok
}

fn valid_host(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_the_original_lose_its_path_but_keep_the_instance() {
        for (written, sent_to) in [
            (
                "https://ks-a.example.net:8443/1/glite-data-hydra-service/services/Hydra",
                "https://ks-a.example.net:8443/1",
            ),
            (
                "httpg://KS-A.example.net:8443/glite-data-hydra-service/services/Hydra",
                "https://ks-a.example.net:8443",
            ),
            ("https://ks-a.example.net", "https://ks-a.example.net"),
            ("HTTPS://ks-a.example.net/", "https://ks-a.example.net"),
            ("https://127.0.0.1:1//", "https://127.0.0.1:1"),
            ("https://[::1]:8443/base/", "https://[::1]:8443/base"),
            ("https://h/a/b", "https://h/a/b"),
        ] {
            assert_eq!(normalise(written).as_deref(), Ok(sent_to), "{written}");
        }
    }

    #[test]
    fn what_is_no_https_address_is_refused_by_kind() {
        let url = |text: &str| text.to_owned();
        for bad in ["", "ks-a", "http://h", "ftp://h", "https:/h", "://h"] {
            assert_eq!(normalise(bad), Err(EndpointError::Scheme { url: url(bad) }), "{bad}");
        }
        for bad in [
            "https://",
            "https:///x",
            "https://:1",
            "https://h:",
            "https://h:0",
            "https://h:65536",
            "https://h:+1",
            "https://a..b",
            "https://[::1",
            "https://[x]",
            "https://[::1]x",
            "https://%20",
        ] {
            assert_eq!(normalise(bad), Err(EndpointError::Authority { url: url(bad) }), "{bad}");
        }
        for bad in [
            "https://u@h",
            "https://h/?q",
            "https://h#f",
            "https://h/a b",
            "https://h\n",
            "https://hä",
        ] {
            assert_eq!(normalise(bad), Err(EndpointError::Extra { url: url(bad) }), "{bad}");
        }
    }
}
