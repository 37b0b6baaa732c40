//! Key files: 32 raw bytes, or a keyset of Google Tink in JSON. Both open our format with no store in reach.
//!
//! Read by `--key-file`; written by `--new-key` and `eds-key-export`, for their owner alone and never over anything
//! (`docs/src/formats/sealed-file.md`, `docs/src/commands/eds.md`).

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use hydra_cli::secret_input::{SecretInputError, Source, read_all};
use hydra_core::secret::{Key, SecretBytes};
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use crate::voice::Voice;

const TYPE_URL: &str = "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey";
const SEGMENT_SIZE: u64 = 65536;
const KEY_BYTES: usize = 32;
/// The number of SHA-256 in Tink's enumeration of hashes.
const SHA256: u64 = 3;
/// No keyset of one key is longer.
const MAX_BYTES: usize = 16 << 10;

/// Why a key file gives no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It cannot be read.
    #[error("cannot read key file `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: SecretInputError,
    },
    /// Neither of the two forms.
    #[error("`{}` is no key file: it has {bytes} bytes, neither {KEY_BYTES} nor a keyset in JSON", path.display())]
    Form {
        /// Which.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// JSON, but no keyset that opens our format.
    #[error("`{}` is no usable keyset: {what}", path.display())]
    Keyset {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// Why a key file was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Something is there: a key is never overwritten.
    #[error("`{}` exists already: a key file is never overwritten", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("cannot make key file `{}`", path.display())]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written whole; what there was of it is removed.
    #[error("cannot write key file `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// In which form a key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// 32 bytes.
    Raw,
    /// A keyset of Google Tink in JSON.
    TinkKeyset,
}

/// Reads a key file of either form.
///
/// # Errors
/// What is wrong with it; never its contents.
pub fn read(path: &Path) -> Result<Key, ReadError> {
    let source = Source::File(path.to_owned());
    let bytes = read_all(&source, MAX_BYTES).map_err(|source| ReadError::Read {
        path: path.to_owned(),
        source,
    })?;
    if let Some(key) = Key::from_slice(&bytes) {
        return Ok(key);
    }
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
        return parse_keyset(&bytes).map_err(|what| ReadError::Keyset {
            path: path.to_owned(),
            what,
        });
    }
    Err(ReadError::Form {
        path: path.to_owned(),
        bytes: bytes.len(),
    })
}

/// Whether others than its owner can read a key file: worth a warning. What cannot be told is no worry.
pub fn is_exposed(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o077 != 0)
}

/// Says so where others than its owner can read a key file.
pub(crate) fn warn_if_exposed(path: &Path, voice: Voice) {
    if is_exposed(path) {
        voice.warning(&format!("key file `{}` can be read by others", path.display()));
    }
}

/// Writes a key file for its owner alone, durably, where nothing is yet.
///
/// # Errors
/// Where something is there, or it cannot be made or written.
pub fn write(path: &Path, key: &Key, form: Form) -> Result<(), WriteError> {
    write_with(path, |file| match form {
        Form::Raw => file.write_all(key.expose()),
        Form::TinkKeyset => keyset(key).and_then(|text| file.write_all(text.as_bytes())),
    })
}

/// Writes the bytes of any key, as [`write()`] does.
///
/// # Errors
/// As [`write()`].
pub fn write_bytes(path: &Path, key: &SecretBytes) -> Result<(), WriteError> {
    write_with(path, |file| file.write_all(key.expose()))
}

fn write_with(path: &Path, contents: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), WriteError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => WriteError::Exists { path: path.to_owned() },
            _ => WriteError::Create {
                path: path.to_owned(),
                source,
            },
        })?;
    let written = contents(&mut file);
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let durable = written
        .and_then(|()| file.sync_all())
        .and_then(|()| File::open(folder)?.sync_all());
    durable.map_err(|source| {
        let _ = std::fs::remove_file(path);
        WriteError::Write {
            path: path.to_owned(),
            source,
        }
    })
}

/// The key as a keyset that Tink's JSON reader takes.
fn keyset(key: &Key) -> io::Result<Zeroizing<String>> {
    let mut number = [0; 4];
    getrandom::fill(&mut number).map_err(|_| io::Error::other("no random numbers from the operating system"))?;
    // key ids are not zero
    let key_id = u32::from_be_bytes(number).max(1);
    let mut message = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 12));
    // AesGcmHkdfStreamingKey: params (2) of segment size (1), derived key size (2), hash (3); key value (3)
    message.extend_from_slice(&[0x12, 8, 0x08, 0x80, 0x80, 0x04, 0x10, 32, 0x18, 3, 0x1a, 32]);
    message.extend_from_slice(key.expose());
    let value = Zeroizing::new(BASE64.encode(&message));
    Ok(Zeroizing::new(format!(
        "{{\"primaryKeyId\":{key_id},\"key\":[{{\"keyData\":{{\"typeUrl\":\"{TYPE_URL}\",\"value\":\"{}\",\
         \"keyMaterialType\":\"SYMMETRIC\"}},\"status\":\"ENABLED\",\"keyId\":{key_id},\"outputPrefixType\":\"RAW\"}}]}}\n",
        value.as_str()
    )))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keyset<'a> {
    primary_key_id: u32,
    #[serde(borrow)]
    key: Vec<KeysetKey<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeysetKey<'a> {
    #[serde(borrow)]
    key_data: KeyData<'a>,
    #[serde(default)]
    status: Option<&'a str>,
    key_id: u32,
    #[serde(default)]
    output_prefix_type: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyData<'a> {
    #[serde(borrow)]
    type_url: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
}

impl Drop for KeyData<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(text) = &mut self.value {
            text.zeroize();
        }
    }
}

/// The primary key of a keyset, where it is one of our format. Entry point for fuzzing.
///
/// # Errors
/// What is wrong, in words that tell nothing of the key.
pub fn parse_keyset(json: &[u8]) -> Result<Key, &'static str> {
    let keyset: Keyset<'_> = serde_json::from_slice(json).map_err(|_| "not the JSON of a cleartext keyset")?;
    let primary = keyset
        .key
        .iter()
        .find(|key| key.key_id == keyset.primary_key_id)
        .ok_or("it has no primary key")?;
    if primary.key_data.type_url != TYPE_URL {
        return Err("its primary key is of another type than AES-GCM-HKDF streaming");
    }
    if primary.status.is_some_and(|status| status != "ENABLED") {
        return Err("its primary key is not enabled");
    }
    if primary.output_prefix_type.is_some_and(|prefix| prefix != "RAW") {
        return Err("its primary key wants an output prefix");
    }
    let value = BASE64
        .decode(primary.key_data.value.as_bytes())
        .map_err(|_| "its key value is no base64")?;
    parse_key_message(&Zeroizing::new(value)).ok_or("its parameters are not those of our format (65536, 32, SHA-256)")
}

/// A field of a protocol buffer message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn parse_key_message(message: &[u8]) -> Option<Key> {
    let (mut key, mut params) = (None, None);
    for_each_field(message, |number, field| match (number, field) {
        // the version, 0 so far
        (1, Field::Number(0)) => Some(()),
        (2, Field::Bytes(bytes)) => {
            params = Some(bytes);
            Some(())
        }
        (3, Field::Bytes(bytes)) => {
            key = Some(Key::from_slice(bytes)?);
            Some(())
        }
        _ => None,
    })?;
    let mut found = [0; 3];
    for_each_field(params?, |number, field| match (number, field) {
        (1..=3, Field::Number(value)) => {
            found[usize::from(number) - 1] = value;
            Some(())
        }
        _ => None,
    })?;
    if found == [SEGMENT_SIZE, KEY_BYTES as u64, SHA256] {
        key
    } else {
        None
    }
}

fn for_each_field<'a>(mut rest: &'a [u8], mut take: impl FnMut(u8, Field<'a>) -> Option<()>) -> Option<()> {
    while !rest.is_empty() {
        let tag = u8::try_from(varint(&mut rest)?).ok()?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut rest)?),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let (bytes, behind) = rest.split_at_checked(length)?;
                rest = behind;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        take(tag >> 3, field)?;
    }
    Some(())
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key::from_slice(&[0xa5; 32]).unwrap()
    }

    #[test]
    fn both_forms_come_back_and_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        for (name, form) in [("raw", Form::Raw), ("tink", Form::TinkKeyset)] {
            let path = folder.path().join(name);
            write(&path, &key(), form).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{name}");
            assert!(!is_exposed(&path));
            assert!(read(&path).unwrap().expose() == key().expose(), "{name}");
            assert!(matches!(write(&path, &key(), form), Err(WriteError::Exists { .. })));
        }
        assert_eq!(std::fs::metadata(folder.path().join("raw")).unwrap().len(), 32);
    }

    #[test]
    fn what_is_no_key_is_refused_by_kind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path).err().unwrap().to_string()
        };
        assert!(refused(b"").contains("0 bytes"));
        assert!(refused(&[0; 31]).contains("31 bytes"));
        assert!(refused(&[0; 33]).contains("33 bytes"));
        assert!(refused(b"{\"x\":1}").contains("not the JSON"));
        assert!(refused(&[0; MAX_BYTES + 1]).contains("cannot read"));
        assert!(matches!(read(&folder.path().join("none")), Err(ReadError::Read { .. })));
    }

    #[test]
    fn keysets_of_other_keys_are_refused() {
        let good = keyset(&key()).unwrap();
        assert!(parse_keyset(good.as_bytes()).is_ok());
        let refused = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            parse_keyset(good.replace(from, to).as_bytes()).err().unwrap()
        };
        assert!(refused("AesGcmHkdf", "AesCtrHmac").contains("another type"));
        assert!(refused("ENABLED", "DISABLED").contains("not enabled"));
        assert!(refused("RAW", "TINK").contains("prefix"));
        assert!(refused("\"keyId\":", "\"keyId\":0,\"was\":").contains("no primary key"));
        // segment size 1 MiB instead of 64 KiB
        let message = BASE64.encode(&[0x12, 8, 0x08, 0x80, 0x80, 0x40, 0x10, 32, 0x18, 3, 0x1a, 0]);
        let value = good.split("\"value\":\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(refused(value, &message).contains("parameters"));
        assert!(refused(value, "%").contains("base64"));
    }

    #[test]
    fn a_message_cut_anywhere_is_refused() {
        let mut message = vec![0x12, 8, 0x08, 0x80, 0x80, 0x04, 0x10, 32, 0x18, 3, 0x1a, 32];
        message.extend_from_slice(&[7; 32]);
        assert!(parse_key_message(&message).is_some());
        for end in 0..message.len() {
            assert!(parse_key_message(&message[..end]).is_none(), "{end}");
        }
    }
}
