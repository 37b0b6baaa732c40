//! The chain of an audit log: each line holds the hash of the one before. A changed line shows by that; a tail cut off,
//! or the whole written anew, shows only against a head that was signed before and kept elsewhere. Where lines are kept
//! is the service's business.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{digest, hmac};
use hydra_core::frame::Frame;

const LABEL: &str = "hydra-audit-head-1";

/// One line of an audit log.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// Seconds since 1970.
    pub at: u64,
    /// Whose request.
    pub dn: &'a str,
    /// What was asked.
    pub operation: &'a str,
    /// About what.
    pub subject: &'a str,
    /// What came of it.
    pub outcome: &'a str,
}

/// Where the chain of lines stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Of the last line; 0 before the first.
    pub sequence: i64,
    /// Its hash; zeros before the first.
    pub hash: [u8; 32],
}

impl Head {
    /// Before the first line.
    pub const START: Self = Self {
        sequence: 0,
        hash: [0; 32],
    };

    /// Behind one more line.
    #[must_use]
    pub fn next(&self, line: &Line<'_>) -> Self {
        let sequence = self.sequence + 1;
        let message = Frame::labelled("hydra-audit-1")
            .bytes(&self.hash)
            .bytes(&sequence.to_be_bytes())
            .bytes(&line.at.to_be_bytes())
            .text(line.dn)
            .text(line.operation)
            .text(line.subject)
            .text(line.outcome)
            .finish();
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &message).as_ref());
        Self { sequence, hash }
    }
}

/// The last line of an audit log at a moment, with its service's signature (HMAC-SHA-256). Its text is one line, made
/// to be kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// Whose log: a store's or a catalogue's name.
    pub of: String,
    /// When it was signed, in seconds since 1970.
    pub at: u64,
    /// The line.
    pub head: Head,
    /// The signature.
    pub signature: [u8; 32],
}

impl SignedHead {
    /// Signs a head.
    pub fn sign(key: &hmac::Key, of: &str, head: &Head, at: u64) -> Self {
        let mut signature = [0; 32];
        signature.copy_from_slice(hmac::sign(key, &message(of, head, at)).as_ref());
        Self {
            of: of.to_owned(),
            at,
            head: head.clone(),
            signature,
        }
    }

    /// Whether this service signed it.
    pub fn is_signed_by(&self, key: &hmac::Key, of: &str) -> bool {
        self.of == of && hmac::verify(key, &message(of, &self.head, self.at), &self.signature).is_ok()
    }
}

fn message(of: &str, head: &Head, at: u64) -> Vec<u8> {
    Frame::labelled(LABEL)
        .text(of)
        .bytes(&head.sequence.to_be_bytes())
        .bytes(&at.to_be_bytes())
        .bytes(&head.hash)
        .finish()
}

impl fmt::Display for SignedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let (sequence, hash) = (self.head.sequence, hex(&self.head.hash));
        let (of, at, signature) = (&self.of, self.at, hex(&self.signature));
        write!(f, "{LABEL}:{of}:{sequence}:{at}:{hash}:{signature}")
    }
}

/// A text that is no signed head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a head of an audit log")]
pub struct NoHead;

impl FromStr for SignedHead {
    type Err = NoHead;

    fn from_str(text: &str) -> Result<Self, NoHead> {
        let hex = |text: &str| {
            let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| NoHead)?;
            <[u8; 32]>::try_from(bytes).map_err(|_| NoHead)
        };
        // A name may have colons in it: the fields behind it are taken from the end.
        let rest = text
            .trim()
            .strip_prefix(LABEL)
            .and_then(|rest| rest.strip_prefix(':'))
            .ok_or(NoHead)?;
        let mut fields = rest.rsplitn(5, ':');
        let mut field = || fields.next().ok_or(NoHead);
        let (signature, hash) = (hex(field()?)?, hex(field()?)?);
        let at = field()?.parse().map_err(|_| NoHead)?;
        let sequence = field()?.parse().map_err(|_| NoHead)?;
        let of = field()?.to_owned();
        if of.is_empty() || of.chars().any(char::is_control) {
            return Err(NoHead);
        }
        Ok(Self {
            of,
            at,
            head: Head { sequence, hash },
            signature,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_head_is_read_again_and_vouches_for_its_own_line_alone() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"k");
        let line = Line {
            at: 5,
            dn: "/CN=alice",
            operation: "create",
            subject: "/x",
            outcome: "ok",
        };
        let head = Head::START.next(&line);
        assert_ne!(head, Head::START.next(&Line { outcome: "no", ..line }));
        let signed = SignedHead::sign(&key, "a:b", &head, 7);
        let again: SignedHead = signed.to_string().parse().unwrap();
        assert_eq!(again, signed);
        assert!(again.is_signed_by(&key, "a:b") && !again.is_signed_by(&key, "a"));
        let other = SignedHead { at: 8, ..again };
        assert!(!other.is_signed_by(&key, "a:b"));
        assert!("hydra-audit-head-1:x".parse::<SignedHead>().is_err());
    }
}
