//! PEM sections (RFC 7468) of files that may have text around them, as grid tools write it.

use data_encoding::BASE64;
use zeroize::Zeroizing;

/// One `-----BEGIN LABEL-----` section; wiped on drop, as it may be a private key.
pub(crate) struct Section {
    pub(crate) label: String,
    pub(crate) der: Zeroizing<Vec<u8>>,
    /// Whether it has headers of RFC 1421 that say it is encrypted: the old way to protect a key.
    pub(crate) encrypted_headers: bool,
}

/// Why a PEM file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PemError {
    #[error("section `{label}` has no end")]
    NoEnd { label: String },
    #[error("section `{label}` is no base64")]
    Base64 { label: String },
}

/// All sections, in order. Lines outside of them are ignored.
pub(crate) fn sections(text: &[u8]) -> Result<Vec<Section>, PemError> {
    let mut sections = Vec::new();
    let mut lines = text.split(|&byte| byte == b'\n');
    while let Some(line) = lines.next() {
        let Some(label) = label(line, b"-----BEGIN ") else {
            continue;
        };
        let mut body = Zeroizing::new(Vec::new());
        let mut encrypted_headers = false;
        let mut closed = false;
        for line in lines.by_ref() {
            if let Some(end) = self::label(line, b"-----END ") {
                closed = end == label;
                break;
            }
            if line.contains(&b':') {
                encrypted_headers |= line.starts_with(b"Proc-Type:") && line.ends_with_encrypted();
            } else if !line.starts_with(b" ") {
                body.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
            }
        }
        if !closed {
            return Err(PemError::NoEnd { label });
        }
        // A body with headers is ciphertext after them; it is kept only to be refused with the right words.
        let der = match BASE64.decode(&body) {
            Ok(der) => Zeroizing::new(der),
            Err(_) if encrypted_headers => Zeroizing::new(Vec::new()),
            Err(_) => return Err(PemError::Base64 { label }),
        };
        sections.push(Section {
            label,
            der,
            encrypted_headers,
        });
    }
    Ok(sections)
}

trait EncryptedHeader {
    fn ends_with_encrypted(&self) -> bool;
}

impl EncryptedHeader for [u8] {
    fn ends_with_encrypted(&self) -> bool {
        self.trim_ascii_end().ends_with(b"ENCRYPTED")
    }
}

fn label(line: &[u8], start: &[u8]) -> Option<String> {
    let rest = line.trim_ascii_end().strip_prefix(start)?.strip_suffix(b"-----")?;
    let plain = !rest.is_empty() && rest.len() <= 64 && rest.iter().all(|&b| b == b' ' || b.is_ascii_graphic());
    plain.then(|| String::from_utf8_lossy(rest).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_come_in_order_and_text_around_them_is_ignored() {
        let text = b"subject=/CN=x\n-----BEGIN A B-----\r\nAQID\r\nBA==\r\n-----END A B-----\nrest\n-----BEGIN C-----\n\n-----END C-----";
        let found = sections(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].label.as_str(), found[0].der.as_slice()),
            ("A B", &[1, 2, 3, 4][..])
        );
        assert!(found[1].der.is_empty());
    }

    #[test]
    fn old_encryption_is_noticed() {
        let text = b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,00\n\nAQID\n-----END RSA PRIVATE KEY-----\n";
        assert!(sections(text).unwrap()[0].encrypted_headers);
    }

    #[test]
    fn cut_and_garbled_sections_are_refused() {
        assert!(matches!(
            sections(b"-----BEGIN A-----\nAQID\n"),
            Err(PemError::NoEnd { .. })
        ));
        assert!(matches!(
            sections(b"-----BEGIN A-----\nAQID\n-----END B-----\n"),
            Err(PemError::NoEnd { .. })
        ));
        assert!(matches!(
            sections(b"-----BEGIN A-----\n!!!!\n-----END A-----\n"),
            Err(PemError::Base64 { .. })
        ));
    }
}
