//! `eds-key-rotate`: files sealed anew under a new key, compared, and only then put in place of the old ones.
//!
//! What is opened goes through a pipe to what seals it, and never touches a disk.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hydra_cli::{Code, Failure};
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{FetchedKey, Purpose, RegisterOptions};
use hydra_core::sealed::{
    self, Header, Input, OpenError, OpenOptions, Output, OutputError, RangeReader, SealError, SealOptions, SealedInput,
};
use hydra_core::secret::Key;
use serde_json::json;

use crate::decrypt::suite1;
use crate::failure::{self, Because, quoted, severity};
use crate::operands::{bad_key_id, meant_key_ids, new_key_id};
use crate::session::Session;
use crate::voice::Voice;
use crate::work::{check_folder, clean_up_on_signal, open_failure, seal_failure};
use crate::{args, keys};

/// Bytes that are compared at a time.
const PIECE: usize = 4 << 20;

/// Why a file was not sealed anew. It is as it was.
#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error("`{}` is not sealed under `{key_id}`", path.display())]
    OtherKey { path: PathBuf, key_id: KeyId },
    #[error("`{}` cannot be replaced", path.display())]
    Place {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` was sealed anew and did not compare", path.display())]
    Compare { path: PathBuf },
}

/// Both keys, and where files go.
struct Rotation<'a> {
    old: FetchedKey,
    old_key: Key,
    new: FetchedKey,
    new_key: Key,
    out_dir: Option<&'a Path>,
    /// Whether an earlier run may have done some of the files.
    goes_on: bool,
}

/// What became of a file.
enum Turned {
    Sealed(PathBuf),
    /// It is sealed under the new key already.
    Before,
}

/// `eds-key-rotate`.
///
/// # Errors
/// What went wrong; of many files, the worst. The old key is then still there.
pub fn rotate(args: &args::Rotate) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let old_ids = meant_key_ids(&args.old).map_err(|error| bad_key_id(&args.old, error))?;
    let new_id = new_key_id(&args.new).map_err(|error| bad_key_id(&args.new, error))?;
    if old_ids.contains(&new_id) {
        return Err(hydra_cli::command::usage_error("OLD and NEW are the same key id"));
    }
    // with NEW left out the first file would be taken for it
    if Path::new(&args.new).is_file() {
        let text = format!("NEW, `{}`, is a file", args.new);
        return Err(hydra_cli::command::usage_error(text).advise("eds-key-rotate OLD NEW FILE…"));
    }
    check_folder(args.out_dir.as_deref())?;
    let session = Session::open(&args.stores)?;
    let old = session.fetch(&old_ids, Purpose::Seal).map_err(failure::fetch)?;
    // files without integrity are not sealed anew unseen: that would vouch for what may be damaged
    let old_key = suite1(&old).map_err(|failure| {
        failure.advise(format!(
            "eds-decrypt {} FILE PLAIN, look at it, and eds-encrypt {} PLAIN FILE.eds",
            quoted(old.key_id.as_str()),
            quoted(new_id.as_str())
        ))
    })?;
    if !args.go_on {
        let registered = session.wait(session.hydra.register(&new_id, RegisterOptions::default()));
        registered.map_err(failure::register)?;
    }
    let new_ids = [new_id];
    let new = session.fetch(&new_ids, Purpose::Seal).map_err(failure::fetch)?;
    let new_key = suite1(&new)?;
    let rotation = Rotation {
        old,
        old_key,
        new,
        new_key,
        out_dir: args.out_dir.as_deref(),
        goes_on: args.go_on,
    };
    let files = turn_all(&rotation, &args.files, voice)?;
    let removed = match args.remove_old {
        true => {
            let registration = Some(rotation.old.constants.registration_id);
            let ids = [rotation.old.key_id.clone()];
            keys::remove_first(&session, &ids, registration).map_err(failure::remove)?;
            voice.result(&format!("removed {}", rotation.old.key_id))?;
            true
        }
        false => false,
    };
    voice.json(&json!({
        "old_key_id": rotation.old.key_id.as_str(),
        "new_key_id": rotation.new.key_id.as_str(),
        "registration_id": rotation.new.constants.registration_id.to_string(),
        "files": files,
        "removed_old": removed,
    }))?;
    if !removed {
        let old = quoted(rotation.old.key_id.as_str());
        voice.note(&format!(
            "when no other file is sealed under the old key: eds-key-unregister {old}"
        ));
    }
    Ok(())
}

fn turn_all(rotation: &Rotation<'_>, files: &[PathBuf], voice: Voice) -> Result<Vec<serde_json::Value>, Failure> {
    let _cleaning = clean_up_on_signal();
    let mut told = Vec::new();
    let mut worst: Option<Code> = None;
    let mut failed = 0;
    for path in files {
        match turn(rotation, path) {
            Ok(Turned::Sealed(to)) => {
                voice.result(&format!("{}: sealed under {}", to.display(), rotation.new.key_id))?;
                told.push(json!({ "input": path.to_string_lossy(), "output": to.to_string_lossy() }));
            }
            Ok(Turned::Before) => {
                voice.note(&format!(
                    "{}: is sealed under {} already",
                    path.display(),
                    rotation.new.key_id
                ));
            }
            Err(failure) => {
                failed += 1;
                if worst.is_none_or(|code| severity(failure.code) > severity(code)) {
                    worst = Some(failure.code);
                }
                let _ = hydra_cli::exit(Err(failure));
            }
        }
    }
    let Some(code) = worst else { return Ok(told) };
    let text = format!(
        "{failed} of {} files were not sealed anew; the old key stays",
        files.len()
    );
    let [old, new] = [&rotation.old, &rotation.new].map(|fetched| quoted(fetched.key_id.as_str()));
    let out_dir = rotation
        .out_dir
        .map(|folder| format!("--out-dir {} ", quoted(&folder.to_string_lossy())));
    let out_dir = out_dir.unwrap_or_default();
    Err(Failure::new(code, text).advise(format!("eds-key-rotate --go-on {out_dir}{old} {new} FILE...")))
}

fn turn(rotation: &Rotation<'_>, path: &Path) -> Result<Turned, Failure> {
    let input = SealedInput::open(&Input::File(path.to_owned())).map_err(open_failure)?;
    let registration = input.header().registration_id;
    if registration == rotation.new.constants.registration_id {
        return Ok(Turned::Before);
    }
    if registration != rotation.old.constants.registration_id {
        let (path, key_id) = (path.to_owned(), rotation.old.key_id.clone());
        return Err(Failure::new(Code::Damaged, RotateError::OtherKey { path, key_id }));
    }
    let place = |source| {
        let path = path.to_owned();
        Failure::new(Code::CannotCreate, RotateError::Place { path, source })
    };
    // A link stays one: what it leads to is replaced.
    let real = fs::canonicalize(path).map_err(place)?;
    let mode = fs::metadata(&real).map_err(place)?.permissions().mode() & 0o777;
    let (to, name) = match rotation.out_dir {
        Some(folder) => {
            let name = path.file_name().unwrap_or_default();
            (folder.join(name), folder.join(name))
        }
        None => (real.clone(), beside(&real)),
    };
    let options = SealOptions {
        mode,
        // what a run that was killed left behind
        overwrite: rotation.out_dir.is_none(),
        ..SealOptions::default()
    };
    if rotation.goes_on && rotation.out_dir.is_some() && name.exists() {
        return before(rotation, path, &name);
    }
    seal_anew(rotation, input, &name, &options)?;
    let compared = compare(rotation, path, &name).and_then(|same| match same {
        true if name != to => fs::rename(&name, &to).and_then(|()| flush(&to)).map_err(place),
        true => Ok(()),
        false => Err(Failure::new(
            Code::Damaged,
            RotateError::Compare { path: path.to_owned() },
        )),
    });
    if compared.is_err() {
        let _ = fs::remove_file(&name);
    }
    compared.map(|()| Turned::Sealed(to))
}

/// What an earlier run has put beside the old file counts if it is what this one would put there.
fn before(rotation: &Rotation<'_>, old: &Path, new: &Path) -> Result<Turned, Failure> {
    let found = SealedInput::open(&Input::File(new.to_owned())).map_err(open_failure)?;
    let is_ours = found.header().registration_id == rotation.new.constants.registration_id;
    if is_ours && compare(rotation, old, new)? {
        return Ok(Turned::Before);
    }
    let output = Output::File(new.to_owned());
    Err(seal_failure(SealError::Output(OutputError::Exists { output })))
}

/// A name for the new file until it has been compared, in the folder of the old one.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.rotating"))
}

fn flush(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::File::open(folder)?.sync_all()
}

/// Opens at one end of a pipe and seals at the other.
fn seal_anew(rotation: &Rotation<'_>, input: SealedInput, to: &Path, options: &SealOptions<'_>) -> Result<(), Failure> {
    let header = Header {
        registration_id: rotation.new.constants.registration_id,
        key_id: Some(rotation.new.key_id.clone()),
    };
    let pipe = |source| Failure::new(Code::Io, Because::new("cannot make a pipe", source));
    let (reader, writer) = io::pipe().map_err(pipe)?;
    let [from_pipe, to_pipe] =
        [reader.as_raw_fd(), writer.as_raw_fd()].map(|fd| PathBuf::from(format!("/dev/fd/{fd}")));
    let (opened, sealed) = std::thread::scope(|scope| {
        let opening = scope.spawn(move || {
            let opened = input.unseal(&rotation.old_key, &Output::File(to_pipe), &OpenOptions::default());
            // the end of what is to be sealed
            drop(writer);
            opened
        });
        let output = Output::File(to.to_owned());
        let sealed = sealed::seal(&rotation.new_key, &header, &Input::File(from_pipe), &output, options);
        // whoever still writes hears that nobody reads
        drop(reader);
        (opening.join(), sealed)
    });
    let undo = |failure| {
        if sealed.is_ok() {
            let _ = fs::remove_file(to);
        }
        Err(failure)
    };
    match (opened, &sealed) {
        (Ok(Ok(_)), Ok(_)) => Ok(()),
        // where both failed, sealing did first: it is what broke the pipe
        (Ok(Err(error)), Ok(_)) => undo(open_failure(error)),
        (Err(_), Ok(_)) => undo(Failure::new(Code::Failed, "opening the file ended unexpectedly")),
        (_, Err(_)) => sealed.map(|_| ()).map_err(seal_failure),
    }
}

/// Opens both and compares them, piece by piece.
fn compare(rotation: &Rotation<'_>, old: &Path, new: &Path) -> Result<bool, Failure> {
    let [old, new] = [(old, &rotation.old_key), (new, &rotation.new_key)].map(|(path, key)| reader(path, key));
    let (old, new) = (old.map_err(open_failure)?, new.map_err(open_failure)?);
    if old.plaintext_bytes() != new.plaintext_bytes() {
        return Ok(false);
    }
    let mut offset = 0;
    while offset < old.plaintext_bytes() {
        let was = old.read(offset, PIECE).map_err(open_failure)?;
        let is = new.read(offset, PIECE).map_err(open_failure)?;
        if was != is || was.is_empty() {
            return Ok(false);
        }
        offset += was.len() as u64;
    }
    Ok(true)
}

fn reader(path: &Path, key: &Key) -> Result<RangeReader<fs::File>, OpenError> {
    let name = Input::File(path.to_owned());
    let file = fs::File::open(path).map_err(|source| {
        OpenError::Input(sealed::InputError::Open {
            input: name.clone(),
            source,
        })
    })?;
    RangeReader::open(file, name)?.unlock(key)
}
