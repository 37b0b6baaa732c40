//! What is done to one instance as it comes in: de-identified, sealed reproducibly, placed whole or not at all.
//!
//! Plaintext is in memory only, and of large instances only a window of it. What the PACS sends is verified to be what
//! was asked for before it gets here.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use dicom_deid::{Profile, Refusal, RefusalKind, Report as DeidReport};
use hydra_cli::Code;
use hydra_core::sealed::{self, Batch, Input, Output, SealError, SealOptions, Trouble};
use zeroize::Zeroizing;

use crate::keys::HeldKey;
use crate::names::Ids;

/// Instances up to this size are worked on as a whole, beside the retrieval; larger ones flow through as they come.
pub const WHOLE_BYTES: usize = 8 * 1024 * 1024;
/// A piece of plaintext between de-identifying and sealing of a large instance.
const PIECE_BYTES: usize = 256 * 1024;
/// How many of them may wait.
const PIECES: usize = 4;
/// De-identification adds a few attributes.
const GROWTH: usize = 64 * 1024;

/// Where an instance is to go.
#[derive(Clone)]
pub struct Target {
    /// Its name, which messages call it by.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
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
}

impl InstanceError {
    /// The exit code.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(refusal) if refusal.kind() == RefusalKind::Io => Code::Io,
            Self::Refused(_) | Self::Identity | Self::Strange(_) => Code::Damaged,
            Self::Seal(error) => match error.trouble() {
                Trouble::CannotCreate => Code::CannotCreate,
                Trouble::Damaged => Code::Damaged,
                Trouble::Io => Code::Io,
                _ => Code::Failed,
            },
            Self::Folder(_) | Self::Exists => Code::CannotCreate,
            Self::Missing | Self::NotSent => Code::Io,
            Self::Key(_, code) => *code,
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

/// How files are placed.
#[derive(Clone, Copy)]
pub struct Placing<'a> {
    /// Whether what is there is replaced.
    pub overwrite: bool,
    /// Where finished files wait for their names.
    pub batch: Option<&'a Batch>,
}

impl Placing<'_> {
    fn options(&self) -> SealOptions<'_> {
        SealOptions {
            threads: 1,
            overwrite: self.overwrite,
            reproducible: true,
            batch: self.batch,
            ..SealOptions::default()
        }
    }
}

/// Works on an instance that is in memory.
///
/// # Errors
/// Why it is not placed.
pub fn whole(
    profile: &Profile,
    key: &HeldKey,
    target: &Target,
    file: &[u8],
    placing: Placing<'_>,
) -> Result<Sealed, InstanceError> {
    let mut out = Wiping(Zeroizing::new(Vec::with_capacity(file.len() + GROWTH)));
    let deid = profile.deidentify(file, &mut out).map_err(InstanceError::Refused)?;
    check(&deid, target)?;
    let (name, output) = ends(target)?;
    let mut reader = out.0.as_slice();
    let sealed = seal(key, &name, &mut reader, &output, placing).map_err(InstanceError::Seal)?;
    Ok(Sealed { deid, sealed })
}

/// Works on an instance as it comes in: sealing goes on beside it, and has nothing to show for it unless all was well.
///
/// # Errors
/// Why it is not placed.
pub fn flowing(
    profile: &Profile,
    key: &HeldKey,
    target: &Target,
    file: &mut dyn Read,
    placing: Placing<'_>,
) -> Result<Sealed, InstanceError> {
    let (name, output) = ends(target)?;
    let (sender, receiver) = sync_channel(PIECES);
    std::thread::scope(|scope| {
        let sealing = scope.spawn(|| {
            let mut reader = Pieces {
                receiver,
                piece: Zeroizing::new(Vec::new()),
                at: 0,
                is_whole: false,
            };
            seal(key, &name, &mut reader, &output, placing)
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
        let broke = || InstanceError::Seal(broken(&name));
        let sealed = sealing.join().map_err(|_| broke())?;
        match (deid, sealed) {
            (Ok(deid), Ok(sealed)) => handed.map(|()| Sealed { deid, sealed }).map_err(|_| broke()),
            // that nobody takes the plaintext any more is not why
            (Err(InstanceError::Refused(Refusal::Write(_))) | Ok(_), Err(error)) => Err(InstanceError::Seal(error)),
            (Err(error), _) => Err(error),
        }
    })
}

fn broken(name: &Input) -> SealError {
    SealError::Cancelled { input: name.clone() }
}

fn check(deid: &DeidReport, target: &Target) -> Result<(), InstanceError> {
    let new = &target.new;
    let same = deid.new.sop == new.instance
        && deid.new.series.as_deref() == Some(&new.series)
        && deid.new.study.as_deref() == Some(&new.study);
    if same { Ok(()) } else { Err(InstanceError::Identity) }
}

/// What errors call the plaintext, and where the file goes; its folders are made.
fn seal(
    key: &HeldKey,
    name: &Input,
    reader: &mut (dyn Read + Send),
    output: &Output,
    placing: Placing<'_>,
) -> Result<sealed::Report, SealError> {
    let sealing = &key.sealing;
    sealed::seal_reader(&sealing.key, &sealing.header, name, reader, output, &placing.options())
}

fn ends(target: &Target) -> Result<(Input, Output), InstanceError> {
    if let Some(folder) = target.path.parent() {
        std::fs::create_dir_all(folder).map_err(InstanceError::Folder)?;
    }
    Ok((
        Input::File(target.name.clone().into()),
        Output::File(target.path.clone()),
    ))
}

/// A vector that leaves no unwiped copy behind when it grows.
pub struct Wiping(pub Zeroizing<Vec<u8>>);

impl Write for Wiping {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let grown = (2 * self.0.capacity()).max(self.0.len() + bytes.len());
            let mut larger = Zeroizing::new(Vec::with_capacity(grown));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
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
    fn pieces_make_the_whole_and_without_an_end_there_is_none() {
        for bytes in [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES] {
            assert_eq!(through(true, bytes).unwrap(), vec![7; bytes]);
            assert!(through(false, bytes).is_err());
        }
    }
}
