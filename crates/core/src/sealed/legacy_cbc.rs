//! Files of the original: raw CBC with PKCS #7 padding, one iv for all files of a key, no header and no integrity.
//!
//! Read so that old files stay readable, written only under keys that were registered for it. The rules are in
//! `docs/src/formats/sealed-file.md`, "Files of the original". What can be promised without integrity is little: an end
//! that does not decrypt to a padding is refused, and then nothing of the file is handed out. One damaged file in 256,
//! or one opened with a wrong key, passes that check.

use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use cbc::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser};
use cbc::cipher::{InnerIvInit, InvalidLength, Iv, IvSizeUser, KeyInit};
use zeroize::Zeroizing;

use super::file::{OpenError, OpenOptions, Progress, Report, SealError, SealOptions, finish};
use super::flow::Pipe;
use super::header::HeaderError;
use super::place::{self, Input, InputError, OpenInput, OpenOutput, Output, OutputError};
use crate::secret::SecretBytes;

/// How much is worked on at once: a multiple of every block.
const PIECE: usize = 256 * 1024;
/// The largest block of any cipher here.
const LARGEST_BLOCK: usize = 16;

/// A cipher that keys of the original may have.
#[derive(Clone, Copy)]
pub struct LegacyCipher(&'static Spec);

struct Spec {
    /// As OpenSSL names it, in lower case.
    name: &'static str,
    /// What else OpenSSL takes for it.
    aliases: &'static [&'static str],
    /// Keys that it takes, in bytes.
    lengths: RangeInclusive<usize>,
    /// The length of a key where none is asked for, which is the only one that the original ever used.
    usual: usize,
    block: usize,
    modes: fn(Direction, &[u8], &[u8]) -> Made,
}

type Made = Result<Box<dyn Mode>, InvalidLength>;

const CIPHERS: &[Spec] = &[
    Spec {
        name: "bf-cbc",
        aliases: &["bf", "blowfish"],
        lengths: 4..=56,
        usual: 16,
        block: 8,
        modes: modes::<blowfish::Blowfish>,
    },
    Spec {
        name: "cast5-cbc",
        aliases: &["cast-cbc", "cast"],
        lengths: 5..=16,
        usual: 16,
        block: 8,
        modes: modes::<cast5::Cast5>,
    },
    Spec {
        name: "des-cbc",
        aliases: &["des"],
        lengths: 8..=8,
        usual: 8,
        block: 8,
        modes: modes::<des::Des>,
    },
    Spec {
        name: "des-ede-cbc",
        aliases: &[],
        lengths: 16..=16,
        usual: 16,
        block: 8,
        modes: modes::<des::TdesEde2>,
    },
    Spec {
        name: "des-ede3-cbc",
        aliases: &["des3"],
        lengths: 24..=24,
        usual: 24,
        block: 8,
        modes: modes::<des::TdesEde3>,
    },
    Spec {
        name: "aes-128-cbc",
        aliases: &["aes128"],
        lengths: 16..=16,
        usual: 16,
        block: 16,
        modes: modes::<aes::Aes128>,
    },
    Spec {
        name: "aes-192-cbc",
        aliases: &["aes192"],
        lengths: 24..=24,
        usual: 24,
        block: 16,
        modes: modes::<aes::Aes192>,
    },
    Spec {
        name: "aes-256-cbc",
        aliases: &["aes256"],
        lengths: 32..=32,
        usual: 32,
        block: 16,
        modes: modes::<aes::Aes256>,
    },
];

impl LegacyCipher {
    /// All that there are.
    pub fn all() -> impl Iterator<Item = Self> {
        CIPHERS.iter().map(Self)
    }

    /// The cipher that OpenSSL calls so, in upper or lower case.
    pub fn named(name: &str) -> Option<Self> {
        let is = |known: &str| known.eq_ignore_ascii_case(name);
        Self::all().find(|cipher| is(cipher.0.name) || cipher.0.aliases.iter().any(|alias| is(alias)))
    }

    /// Its name: OpenSSL's, in lower case.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Bytes of a block, and of the iv.
    pub fn block_bytes(self) -> usize {
        self.0.block
    }

    /// The length of a key where none is asked for.
    pub fn usual_bits(self) -> u32 {
        bits(self.0.usual)
    }

    /// The shortest and the longest key.
    pub fn key_bits(self) -> RangeInclusive<u32> {
        bits(*self.0.lengths.start())..=bits(*self.0.lengths.end())
    }

    /// Whether keys may have different lengths.
    pub fn is_variable(self) -> bool {
        self.0.lengths.start() != self.0.lengths.end()
    }

    /// Whether it takes a key of so many bits.
    pub fn takes(self, bits: u32) -> bool {
        bits.is_multiple_of(8) && self.key_bits().contains(&bits)
    }

    /// The size of a file that so many bytes are encrypted into; none where there is no such size.
    pub fn file_bytes(self, plaintext_bytes: u64) -> Option<u64> {
        let block = self.0.block as u64;
        (plaintext_bytes / block).checked_add(1)?.checked_mul(block)
    }

    /// How many bits of a key that the original made its files were encrypted with: it always used the usual length,
    /// whatever was asked for. None where the key is too short, so that the original encrypted with what lay in memory
    /// behind it, and nobody can open those files.
    pub fn bits_that_the_original_used(self, registered: u32) -> Option<u32> {
        (registered >= self.usual_bits()).then(|| self.usual_bits())
    }
}

fn bits(bytes: usize) -> u32 {
    u32::try_from(bytes * 8).unwrap_or(u32::MAX)
}

impl PartialEq for LegacyCipher {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for LegacyCipher {}

impl fmt::Debug for LegacyCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LegacyCipher").field(&self.0.name).finish()
    }
}

impl fmt::Display for LegacyCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

/// Why key, cipher and iv do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LegacyKeyError {
    /// No such cipher here.
    #[error("cipher `{cipher}` is unknown here")]
    Cipher {
        /// What it is called.
        cipher: String,
    },
    /// The key has a length that the cipher does not take.
    #[error("a key of {bits} bits is none for `{cipher}`")]
    KeyLength {
        /// The cipher.
        cipher: LegacyCipher,
        /// The length of the key.
        bits: u32,
    },
    /// The iv is no hex, or too short.
    #[error("the iv is not {} hexadecimal digits, which `{cipher}` needs", 2 * .cipher.block_bytes())]
    Iv {
        /// The cipher.
        cipher: LegacyCipher,
    },
}

/// A key of the original with what its files were encrypted by.
pub struct LegacyKey {
    cipher: LegacyCipher,
    key: SecretBytes,
    iv: Vec<u8>,
}

impl LegacyKey {
    /// A key from what a registration says. Of a key that is longer than its cipher's the first bytes count, as they
    /// did for the original, and of a longer iv too.
    ///
    /// # Errors
    /// Where they do not belong together.
    pub fn new(cipher: &str, key: &[u8], iv: &str) -> Result<Self, LegacyKeyError> {
        let cipher = LegacyCipher::named(cipher).ok_or_else(|| LegacyKeyError::Cipher {
            cipher: cipher.to_owned(),
        })?;
        let length = if cipher.is_variable() {
            key.len()
        } else {
            cipher.0.usual
        };
        let used = key.get(..length).filter(|key| cipher.0.lengths.contains(&key.len()));
        let used = used.ok_or(LegacyKeyError::KeyLength {
            cipher,
            bits: bits(key.len()),
        })?;
        let iv = data_encoding::HEXLOWER_PERMISSIVE.decode(iv.as_bytes()).ok();
        let iv = iv.and_then(|iv| iv.get(..cipher.0.block).map(<[u8]>::to_vec));
        Ok(Self {
            cipher,
            key: SecretBytes::new(used.to_vec()),
            iv: iv.ok_or(LegacyKeyError::Iv { cipher })?,
        })
    }

    /// Its cipher.
    pub fn cipher(&self) -> LegacyCipher {
        self.cipher
    }

    /// The iv of all its files, in lower-case hex.
    pub fn iv(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.iv)
    }

    /// The key alone.
    pub fn key(&self) -> &SecretBytes {
        &self.key
    }

    fn mode(&self, direction: Direction, iv: &[u8]) -> io::Result<Box<dyn Mode>> {
        // the lengths were looked at when the key was made
        (self.cipher.0.modes)(direction, self.key.expose(), iv).map_err(io::Error::other)
    }
}

static_assertions::assert_not_impl_any!(LegacyKey: fmt::Debug, Clone, PartialEq);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Encrypt,
    Decrypt,
}

/// CBC with some cipher, in one direction.
trait Mode {
    /// Works on whole blocks, in place, after those before.
    fn apply(&mut self, blocks: &mut [u8]);
}

struct Encrypting<C: BlockCipherEncrypt>(cbc::Encryptor<C>);

impl<C: BlockCipherEncrypt> Mode for Encrypting<C> {
    fn apply(&mut self, blocks: &mut [u8]) {
        let (blocks, _) = Array::<u8, <cbc::Encryptor<C> as BlockSizeUser>::BlockSize>::slice_as_chunks_mut(blocks);
        self.0.encrypt_blocks(blocks);
    }
}

struct Decrypting<C: BlockCipherDecrypt>(cbc::Decryptor<C>);

impl<C: BlockCipherDecrypt> Mode for Decrypting<C> {
    fn apply(&mut self, blocks: &mut [u8]) {
        let (blocks, _) = Array::<u8, <cbc::Decryptor<C> as BlockSizeUser>::BlockSize>::slice_as_chunks_mut(blocks);
        self.0.decrypt_blocks(blocks);
    }
}

fn modes<C>(direction: Direction, key: &[u8], iv: &[u8]) -> Made
where
    C: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt + 'static,
    cbc::Encryptor<C>: IvSizeUser,
    cbc::Decryptor<C>: IvSizeUser,
{
    let cipher = C::new_from_slice(key)?;
    Ok(match direction {
        Direction::Encrypt => {
            let iv = <&Iv<cbc::Encryptor<C>>>::try_from(iv).map_err(|_| InvalidLength)?;
            Box::new(Encrypting(cbc::Encryptor::inner_iv_init(cipher, iv)))
        }
        Direction::Decrypt => {
            let iv = <&Iv<cbc::Decryptor<C>>>::try_from(iv).map_err(|_| InvalidLength)?;
            Box::new(Decrypting(cbc::Decryptor::inner_iv_init(cipher, iv)))
        }
    })
}

/// Encrypts `input` as the original did.
///
/// # Errors
/// See [`SealError`]. A regular output is then as it was before.
pub fn seal(key: &LegacyKey, input: &Input, output: &Output, options: &SealOptions<'_>) -> Result<Report, SealError> {
    let opened = OpenInput::open(input).map_err(SealError::Input)?;
    let destination = OpenOutput::open(output, Some(&opened), options.overwrite, options.mode);
    let destination = destination.map_err(SealError::Output)?;
    let report = seal_opened(key, &opened, output, file_of(&destination), options)?;
    finish(destination, options.batch, options.sync).map_err(SealError::Output)?;
    Ok(report)
}

/// Encrypts `input` as the original did, into a pipe. Memory is bounded, whatever the size.
///
/// Of the options, those about outputs that get a name have no effect.
///
/// # Errors
/// See [`SealError`]; a reader that went away is a failure to write.
pub fn seal_into(key: &LegacyKey, input: &Input, pipe: Pipe, options: &SealOptions<'_>) -> Result<Report, SealError> {
    let opened = OpenInput::open(input).map_err(SealError::Input)?;
    let output = Output::File(PathBuf::from(pipe.name));
    seal_opened(key, &opened, &output, &pipe.file, options)
}

/// Encrypts what is open. `output` is what errors call the destination.
fn seal_opened(
    key: &LegacyKey,
    opened: &OpenInput,
    output: &Output,
    to: &File,
    options: &SealOptions<'_>,
) -> Result<Report, SealError> {
    let watch = Watch {
        progress: options.progress,
        total_bytes: opened.size(),
        cancel: options.cancel,
    };
    let report = encrypt(key, &opened.file, to, watch).map_err(|stop| match stop {
        Stop::Read(source) => SealError::Input(opened.read_error(source)),
        Stop::Write(source) => SealError::Output(write_error(output, source)),
        // only opening looks at an end
        Stop::Cancelled | Stop::Blocks(_) | Stop::Padding => SealError::Cancelled {
            input: opened.input.clone(),
        },
    })?;
    opened.unchanged().map_err(SealError::Input)?;
    Ok(report)
}

/// An input that does not begin as a sealed file does: damage, unless its key is one of the original's.
pub struct RawInput {
    input: OpenInput,
    /// What was read to look at it.
    start: Vec<u8>,
}

impl RawInput {
    pub(super) fn new(input: OpenInput, start: &[u8]) -> Self {
        Self {
            input,
            start: start.to_vec(),
        }
    }

    /// A file of the original that comes out of a pipe. Whoever calls this has seen its first bytes: it has not the
    /// mark of a sealed file.
    ///
    /// A pipe ends also where it broke off, and nothing in such a file says where its end should be: set
    /// [`OpenOptions::cancel`] before the other end is closed early, and there is no output.
    ///
    /// # Errors
    /// Where the pipe is none.
    pub fn from_pipe(pipe: Pipe) -> Result<Self, OpenError> {
        let input = Input::File(PathBuf::from(pipe.name));
        let opened = OpenInput::pipe(input.clone(), pipe.file);
        let opened = opened.map_err(|source| OpenError::Input(InputError::Open { input, source }))?;
        Ok(Self::new(opened, &[]))
    }

    /// What is wrong with it where its key is not one of the original's.
    pub fn not_sealed(&self) -> OpenError {
        OpenError::Header {
            file: self.input.input.clone(),
            source: HeaderError::NotSealed,
        }
    }

    /// Decrypts it as the original did, but for its mistakes: an end that is no padding is refused. Nothing is written
    /// then, also where the output is no regular file.
    ///
    /// # Errors
    /// See [`OpenError`]. A regular output is then as it was before.
    pub fn unseal(self, key: &LegacyKey, output: &Output, options: &OpenOptions<'_>) -> Result<Report, OpenError> {
        let destination = OpenOutput::open(output, Some(&self.input), options.overwrite, options.mode);
        let destination = destination.map_err(OpenError::Output)?;
        let watch = Watch {
            progress: options.progress,
            total_bytes: self.input.size(),
            cancel: options.cancel,
        };
        let decrypted = match &destination {
            // it gets its name only when the end was right
            OpenOutput::Staged(staged) => decrypt(key, self.reader(), &staged.file, watch),
            OpenOutput::Direct(file) => self.decrypt_directly(key, output, file, watch),
        };
        let report = decrypted.map_err(|stop| self.stopped(stop, key, output))?;
        self.input.unchanged().map_err(OpenError::Input)?;
        finish(destination, options.batch, options.sync).map_err(OpenError::Output)?;
        Ok(report)
    }

    /// What is written directly cannot be taken back, so its end is looked at first; what comes through a pipe has to
    /// be there whole for that, as ciphertext.
    fn decrypt_directly(
        &self,
        key: &LegacyKey,
        output: &Output,
        file: &File,
        watch: Watch<'_>,
    ) -> Result<Report, Stop> {
        if let Some(bytes) = self.input.size() {
            check_end(key, &self.input.file, bytes)?;
            return decrypt(key, self.reader(), file, watch);
        }
        let spool = place::anonymous_file(output).map_err(Stop::Read)?;
        let bytes = io::copy(&mut self.reader(), &mut &spool).map_err(Stop::Read)?;
        watch.go_on()?;
        check_end(key, &spool, bytes)?;
        io::Seek::rewind(&mut &spool).map_err(Stop::Read)?;
        decrypt(key, &spool, file, watch)
    }

    fn reader(&self) -> impl Read {
        Cursor::new(self.start.as_slice()).chain(&self.input.file)
    }

    fn stopped(&self, stop: Stop, key: &LegacyKey, output: &Output) -> OpenError {
        let file = self.input.input.clone();
        match stop {
            Stop::Read(source) => OpenError::Input(self.input.read_error(source)),
            Stop::Write(source) => OpenError::Output(write_error(output, source)),
            Stop::Cancelled => OpenError::Cancelled { file },
            Stop::Blocks(bytes) => OpenError::Blocks {
                file,
                bytes,
                block: key.cipher.0.block,
            },
            Stop::Padding => OpenError::Padding { file },
        }
    }
}

fn file_of(destination: &OpenOutput) -> &File {
    match destination {
        OpenOutput::Direct(file) => file,
        OpenOutput::Staged(staged) => &staged.file,
    }
}

fn write_error(output: &Output, source: io::Error) -> OutputError {
    OutputError::Write {
        output: output.clone(),
        source,
    }
}

/// Why the work stopped.
enum Stop {
    Read(io::Error),
    Write(io::Error),
    /// So many bytes are no whole number of blocks, or none.
    Blocks(u64),
    /// The last block does not end in a padding.
    Padding,
    Cancelled,
}

/// Whom to tell how far it is, and who may stop it.
#[derive(Clone, Copy)]
struct Watch<'a> {
    progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    total_bytes: Option<u64>,
    cancel: Option<&'a AtomicBool>,
}

impl Watch<'_> {
    fn done(&self, done_bytes: u64) -> Result<(), Stop> {
        if let Some(progress) = self.progress {
            progress(Progress {
                done_bytes,
                total_bytes: self.total_bytes,
            });
        }
        self.go_on()
    }

    fn go_on(&self) -> Result<(), Stop> {
        let cancelled = self.cancel.is_some_and(|cancel| cancel.load(Ordering::Acquire));
        if cancelled { Err(Stop::Cancelled) } else { Ok(()) }
    }
}

fn encrypt(key: &LegacyKey, mut from: impl Read, mut to: impl Write, watch: Watch<'_>) -> Result<Report, Stop> {
    let mut mode = key.mode(Direction::Encrypt, &key.iv).map_err(Stop::Read)?;
    let block = key.cipher.0.block;
    let mut piece = Zeroizing::new(vec![0; PIECE + LARGEST_BLOCK]);
    let mut report = Report {
        plaintext_bytes: 0,
        file_bytes: 0,
    };
    loop {
        let read = fill(&mut from, &mut piece[..PIECE]).map_err(Stop::Read)?;
        let last = read < PIECE;
        let mut bytes = read;
        if last {
            let padding = block - read % block;
            bytes += padding;
            // a block has 16 bytes at most
            piece[read..bytes].fill(padding as u8);
        }
        mode.apply(&mut piece[..bytes]);
        to.write_all(&piece[..bytes]).map_err(Stop::Write)?;
        report.plaintext_bytes += read as u64;
        report.file_bytes += bytes as u64;
        watch.done(report.plaintext_bytes)?;
        if last {
            return Ok(report);
        }
    }
}

fn decrypt(key: &LegacyKey, mut from: impl Read, mut to: impl Write, watch: Watch<'_>) -> Result<Report, Stop> {
    let mut mode = key.mode(Direction::Decrypt, &key.iv).map_err(Stop::Read)?;
    let block = key.cipher.0.block;
    // the last block of a piece waits in front of the next one: it may be the one with the padding
    let mut piece = Zeroizing::new(vec![0; LARGEST_BLOCK + PIECE]);
    let mut held = 0;
    let mut report = Report {
        plaintext_bytes: 0,
        file_bytes: 0,
    };
    loop {
        let read = fill(&mut from, &mut piece[held..held + PIECE]).map_err(Stop::Read)?;
        report.file_bytes += read as u64;
        let whole = read.is_multiple_of(block) && report.file_bytes > 0;
        if !whole {
            return Err(Stop::Blocks(report.file_bytes));
        }
        mode.apply(&mut piece[held..held + read]);
        let end = held + read;
        let last = read < PIECE;
        let good = if last {
            end - padding_of(&piece[end - block..end]).ok_or(Stop::Padding)?
        } else {
            end - block
        };
        to.write_all(&piece[..good]).map_err(Stop::Write)?;
        report.plaintext_bytes += good as u64;
        watch.done(report.file_bytes)?;
        if last {
            return Ok(report);
        }
        piece.copy_within(end - block..end, 0);
        held = block;
    }
}

/// Decrypts the last block alone, which needs only the one before.
fn check_end(key: &LegacyKey, file: &File, bytes: u64) -> Result<(), Stop> {
    let block = key.cipher.0.block;
    if bytes == 0 || !bytes.is_multiple_of(block as u64) {
        return Err(Stop::Blocks(bytes));
    }
    let mut last = Zeroizing::new([0; LARGEST_BLOCK]);
    let last = &mut last[..block];
    let mut before = key.iv.clone();
    file.read_exact_at(last, bytes - block as u64).map_err(Stop::Read)?;
    if let Some(at) = bytes.checked_sub(2 * block as u64) {
        file.read_exact_at(&mut before, at).map_err(Stop::Read)?;
    }
    key.mode(Direction::Decrypt, &before).map_err(Stop::Read)?.apply(last);
    padding_of(last).map(|_| ()).ok_or(Stop::Padding)
}

/// The length of the padding that a last block ends in: 1 to a block of bytes that all say so.
fn padding_of(block: &[u8]) -> Option<usize> {
    let length = usize::from(*block.last()?);
    let start = block.len().checked_sub(length).filter(|_| length > 0)?;
    let all = block[start..].iter().all(|byte| usize::from(*byte) == length);
    all.then_some(length)
}

/// Reads until the buffer is full or nothing more comes.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
