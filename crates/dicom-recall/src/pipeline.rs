//! What is done to one instance as it comes in: de-identified and sealed reproducibly, on its way to wherever it goes.
//!
//! Plaintext is in memory only, and of large instances only a window of it. What the PACS sends is verified to be what
//! was asked for before it gets here.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use dicom_deid::{Profile, Refusal, RefusalKind, Report as DeidReport};
use hydra_cli::Code;
use hydra_core::sealed::{self, Input, Output, SealError, SealOptions, Trouble};
use zeroize::Zeroizing;

use crate::keys::HeldKey;
use crate::line::Reason;
use crate::names::Ids;

/// Instances up to this size are worked on as a whole, beside the retrieval; larger ones flow through as they come.
pub const WHOLE_BYTES: usize = 8 * 1024 * 1024;
/// A piece of plaintext between de-identifying and sealing of a large instance.
const PIECE_BYTES: usize = 256 * 1024;
/// How many of them may wait.
const PIECES: usize = 4;
/// De-identification adds a few attributes.
const GROWTH: usize = 64 * 1024;

/// What an instance is to become.
#[derive(Clone)]
pub struct Target {
    /// The name of its sealed file, which messages call it by.
    pub name: String,
    /// The identifiers that it must have afterwards.
    pub new: Ids,
}

/// Why an instance was not placed. Nothing of it is left then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// It cannot be de-identified.
    #[error("refused")]
    Refused(#[source] Refusal),
    /// It has other identifiers than it was registered with.
    #[error("de-identified it is another instance than was asked for")]
    Identity,
    /// It cannot be sealed or placed.
    #[error("cannot be sealed")]
    Seal(#[source] SealError),
    /// Its folder cannot be made.
    #[error("its folder cannot be made")]
    Folder(#[source] io::Error),
    /// It did not come.
    #[error("it did not come from the PACS")]
    Missing,
    /// The PACS said that it could not send it.
    #[error("the PACS could not send it")]
    NotSent,
    /// It came, but was not what was asked for.
    #[error("what the PACS sent for it was not taken: {0}")]
    Strange(String),
    /// There is no key for it.
    #[error("there is no key for it: {0}")]
    Key(String, Code),
    /// There is something of that name.
    #[error("its file exists already")]
    Exists,
    /// Its sealed file is another one than was registered.
    #[error("its sealed file is not the one that was registered")]
    Changed,
    /// The agent at the storage element did not place it.
    #[error("the storage element did not take it: {}", .0.text())]
    NotTaken(Reason),
}

impl InstanceError {
    /// The exit code.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(refusal) if refusal.kind() == RefusalKind::Io => Code::Io,
            Self::Refused(_) | Self::Identity | Self::Strange(_) | Self::Changed => Code::Damaged,
            Self::Seal(error) => match error.trouble() {
                Trouble::CannotCreate => Code::CannotCreate,
                Trouble::Damaged => Code::Damaged,
                Trouble::Io => Code::Io,
                _ => Code::Failed,
            },
            Self::Folder(_) | Self::Exists => Code::CannotCreate,
            Self::Missing | Self::NotSent => Code::Io,
            Self::Key(_, code) => *code,
            Self::NotTaken(_) => Code::Io,
        }
    }
}

/// What was sealed.
pub struct Sealed {
    /// What de-identification did.
    pub deid: DeidReport,
    /// How large the file is.
    pub sealed: sealed::Report,
}

/// Works on an instance that is in memory: it is sealed into `out`. `plain` is a buffer to work in, wiped by whoever
/// owns it: one for many instances costs less than one for each.
///
/// # Errors
/// Why there is no sealed file; what was written is of no use then.
pub fn whole(
    profile: &Profile,
    key: &HeldKey,
    target: &Target,
    file: &[u8],
    out: &mut (dyn Write + Send),
    plain: &mut Wiping,
) -> Result<Sealed, InstanceError> {
    plain.0.clear();
    plain.reserve(file.len() + GROWTH);
    let deid = profile.deidentify(file, &mut *plain).map_err(InstanceError::Refused)?;
    check(&deid, target)?;
    let (sealing, output) = (&key.sealing, Output::File(target.name.clone().into()));
    let (key, header) = (&sealing.key, &sealing.header);
    let sealed = sealed::seal_bytes_into(key, header, &input(target), &plain.0, &output, out, &options());
    let sealed = sealed.map_err(InstanceError::Seal)?;
    Ok(Sealed { deid, sealed })
}

/// Works on an instance as it comes in: sealing goes on beside it, and has nothing to show for it unless all was well.
///
/// # Errors
/// As for [`whole`].
pub fn flowing(
    profile: &Profile,
    key: &HeldKey,
    target: &Target,
    file: &mut dyn Read,
    out: &mut (dyn Write + Send),
    spool: &Path,
) -> Result<Sealed, InstanceError> {
    let (sender, receiver) = sync_channel(PIECES);
    std::thread::scope(|scope| {
        let sealing = scope.spawn(|| {
            let mut reader = Pieces {
                receiver,
                piece: Zeroizing::new(Vec::new()),
                at: 0,
                is_whole: false,
            };
            seal(key, target, &mut reader, out, spool)
        });
        let mut writer = Cutting {
            sender,
            piece: Zeroizing::new(Vec::with_capacity(PIECE_BYTES)),
        };
        let deid = profile.deidentify(file, &mut writer).map_err(InstanceError::Refused);
        let deid = deid.and_then(|deid| check(&deid, target).map(|()| deid));
        let handed = match &deid {
            Ok(_) => writer.finish(),
            // the pieces end without their end, so nothing is placed
            Err(_) => {
                drop(writer);
                Ok(())
            }
        };
        let broke = || InstanceError::Seal(SealError::Cancelled { input: input(target) });
        let sealed = sealing.join().map_err(|_| broke())?;
        match (deid, sealed) {
            (Ok(deid), Ok(sealed)) => handed.map(|()| Sealed { deid, sealed }).map_err(|_| broke()),
            // that nobody takes the plaintext any more is not why
            (Err(InstanceError::Refused(Refusal::Write(_))) | Ok(_), Err(error)) => Err(InstanceError::Seal(error)),
            (Err(error), _) => Err(error),
        }
    })
}

fn check(deid: &DeidReport, target: &Target) -> Result<(), InstanceError> {
    let new = &target.new;
    let same = deid.new.sop == new.instance
        && deid.new.series.as_deref() == Some(&new.series)
        && deid.new.study.as_deref() == Some(&new.study);
    if same { Ok(()) } else { Err(InstanceError::Identity) }
}

fn seal(
    key: &HeldKey,
    target: &Target,
    reader: &mut (dyn Read + Send),
    out: &mut (dyn Write + Send),
    spool: &Path,
) -> Result<sealed::Report, SealError> {
    let sealing = &key.sealing;
    let output = Output::File(target.name.clone().into());
    let (key, header) = (&sealing.key, &sealing.header);
    sealed::seal_reader_into(key, header, &input(target), reader, &output, out, spool, &options())
}

fn options<'a>() -> SealOptions<'a> {
    SealOptions {
        threads: 1,
        reproducible: true,
        ..SealOptions::default()
    }
}

/// What errors call the plaintext.
fn input(target: &Target) -> Input {
    Input::File(target.name.clone().into())
}

/// A vector that leaves no unwiped copy behind when it grows.
pub struct Wiping(pub Zeroizing<Vec<u8>>);

impl Wiping {
    /// Has room for so many bytes more.
    pub fn reserve(&mut self, bytes: usize) {
        if self.0.capacity() - self.0.len() < bytes {
            let grown = (2 * self.0.capacity()).max(self.0.len() + bytes);
            let mut larger = Zeroizing::new(Vec::with_capacity(grown));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
    }

    /// Reads to the end, or so many bytes, without a stop on the way.
    ///
    /// # Errors
    /// Where the reader fails; what came before is kept.
    pub fn read_from(&mut self, reader: &mut dyn Read, most: usize) -> io::Result<()> {
        let mut left = most;
        while left > 0 {
            self.reserve(left.min(PIECE_BYTES));
            let room = (self.0.capacity() - self.0.len()).min(left);
            // never more than there is room for, so that nothing is moved
            let read = (&mut *reader).take(room as u64).read_to_end(&mut self.0)?;
            if read < room {
                break;
            }
            left -= read;
        }
        Ok(())
    }
}

impl Write for Wiping {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.reserve(bytes.len());
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A piece of plaintext; the end is a piece of its own, so that whoever breaks off is not taken for done.
enum Piece {
    Bytes(Zeroizing<Vec<u8>>),
    End,
}

/// Cuts what is written into pieces.
struct Cutting {
    sender: SyncSender<Piece>,
    piece: Zeroizing<Vec<u8>>,
}

impl Cutting {
    fn hand_over(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Zeroizing::new(Vec::with_capacity(PIECE_BYTES)));
        let sent = self.sender.send(Piece::Bytes(piece));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    fn finish(mut self) -> io::Result<()> {
        self.hand_over()?;
        let sent = self.sender.send(Piece::End);
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl Write for Cutting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE_BYTES {
            self.hand_over()?;
        }
        let count = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the pieces; without their end it fails.
struct Pieces {
    receiver: Receiver<Piece>,
    piece: Zeroizing<Vec<u8>>,
    at: usize,
    is_whole: bool,
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.is_whole || out.is_empty() {
                return Ok(0);
            }
            match self.receiver.recv() {
                Ok(Piece::Bytes(piece)) => (self.piece, self.at) = (piece, 0),
                Ok(Piece::End) => self.is_whole = true,
                Err(_) => return Err(io::Error::other("the instance was refused")),
            }
        }
        let count = out.len().min(self.piece.len() - self.at);
        out[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(finish: bool, bytes: usize) -> io::Result<Vec<u8>> {
        let (sender, receiver) = sync_channel(PIECES);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let piece = Zeroizing::new(Vec::new());
                let mut cutting = Cutting { sender, piece };
                cutting.write_all(&vec![7; bytes]).unwrap();
                if finish {
                    cutting.finish().unwrap();
                }
            });
            let mut reader = Pieces {
                receiver,
                piece: Zeroizing::new(Vec::new()),
                at: 0,
                is_whole: false,
            };
            let mut read = Vec::new();
            reader.read_to_end(&mut read).map(|_| read)
        })
    }

    #[test]
    fn what_is_read_is_all_of_it_up_to_a_limit() {
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES).map(|at| (at % 251) as u8).collect();
        for (capacity, most) in [
            (0, usize::MAX),
            (10, 100),
            (100, 100),
            (4 * PIECE_BYTES, bytes.len()),
            (7, 0),
        ] {
            let mut read = Wiping(Zeroizing::new(Vec::with_capacity(capacity)));
            read.read_from(&mut bytes.as_slice(), most).unwrap();
            assert!(
                read.0.as_slice() == &bytes[..most.min(bytes.len())],
                "{capacity} {most}"
            );
        }
    }

    #[test]
    fn pieces_make_the_whole_and_without_an_end_there_is_none() {
        for bytes in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES] {
            assert_eq!(through(true, bytes).unwrap(), vec![7; bytes]);
            assert!(through(false, bytes).is_err());
        }
    }
}
