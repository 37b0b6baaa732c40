//! Inputs, and outputs that appear whole or not at all.
//!
//! An output is written to a file without a name in the same folder, flushed, and only then given its name, so that a
//! failure, even a killed process, leaves nothing. Where a file system knows no files without names, the file has a
//! temporary one, which [`remove_temporary_files`] removes when a signal ends the process. What is no regular file
//! (`/dev/null`, a FIFO, standard output) is written directly.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// Where bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Standard input, `-` on command lines.
    Stdin,
    /// A file, or anything that can be read like one.
    File(PathBuf),
}

/// Where bytes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard output, `-` on command lines: written directly, verified segments only.
    Stdout,
    /// A file, which appears whole or not at all; what is there and no regular file is written directly.
    File(PathBuf),
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) => write!(f, "`{}`", path.display()),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => write!(f, "`{}`", path.display()),
        }
    }
}

/// Why an input could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// It cannot be opened.
    #[error("cannot open {input}")]
    Open {
        /// Which.
        input: Input,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is a folder.
    #[error("{input} is a folder")]
    Directory {
        /// Which.
        input: Input,
    },
    /// Reading failed.
    #[error("cannot read {input}")]
    Read {
        /// Which.
        input: Input,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody wrote to it meanwhile.
    #[error("{input} changed while it was read")]
    Changed {
        /// Which.
        input: Input,
    },
}

/// Why an output could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// It exists and was not to be overwritten.
    #[error("{output} exists already")]
    Exists {
        /// Which.
        output: Output,
    },
    /// Input and output are the same file.
    #[error("{output} is the input itself")]
    SameFile {
        /// Which.
        output: Output,
    },
    /// It is a folder.
    #[error("{output} is a folder")]
    Directory {
        /// Which.
        output: Output,
    },
    /// It cannot be made.
    #[error("cannot make {output}")]
    Create {
        /// Which.
        output: Output,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Writing, or flushing to disk, failed.
    #[error("cannot write {output}")]
    Write {
        /// Which.
        output: Output,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Which file something is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// What of a regular file changes when somebody writes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

/// An input that is open.
pub(super) struct OpenInput {
    pub(super) input: Input,
    pub(super) file: File,
    id: FileId,
    /// Of regular files that are read at offsets.
    stamp: Option<Stamp>,
}

impl OpenInput {
    pub(super) fn open(input: &Input) -> Result<Self, InputError> {
        let open = |input: &Input| match input {
            Input::Stdin => rustix::io::dup(rustix::stdio::stdin())
                .map(File::from)
                .map_err(io::Error::from),
            Input::File(path) => File::open(path),
        };
        let opened = open(input).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        let (file, metadata) = opened.map_err(|source| InputError::Open {
            input: input.clone(),
            source,
        })?;
        if metadata.is_dir() {
            return Err(InputError::Directory { input: input.clone() });
        }
        roomy(&file);
        // Standard input begins where whoever opened it left it, and files under /proc do not know their size.
        let at_offsets = metadata.is_file() && metadata.len() > 0 && *input != Input::Stdin;
        Ok(Self {
            input: input.clone(),
            file,
            id: FileId::of(&metadata),
            stamp: at_offsets.then(|| Stamp::of(&metadata)),
        })
    }

    /// A pipe that is open, read in turn. `input` is what errors call it.
    pub(super) fn pipe(input: Input, file: File) -> io::Result<Self> {
        let id = FileId::of(&file.metadata()?);
        roomy(&file);
        Ok(Self {
            input,
            file,
            id,
            stamp: None,
        })
    }

    /// The size of an input that is read at offsets.
    pub(super) fn size(&self) -> Option<u64> {
        self.stamp.map(|stamp| stamp.bytes)
    }

    /// Checks, after all was read, that nobody wrote to it meanwhile.
    pub(super) fn unchanged(&self) -> Result<(), InputError> {
        let Some(before) = self.stamp else { return Ok(()) };
        let after = self.file.metadata().map_err(|source| self.read_error(source))?;
        if before == Stamp::of(&after) {
            Ok(())
        } else {
            Err(self.changed())
        }
    }

    /// Reads the first bytes in turn, as many as there are.
    pub(super) fn read_start(&self, buffer: &mut [u8]) -> Result<usize, InputError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match (&self.file).read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(self.read_error(source)),
            }
        }
        Ok(filled)
    }

    pub(super) fn changed(&self) -> InputError {
        InputError::Changed {
            input: self.input.clone(),
        }
    }

    pub(super) fn read_error(&self, source: io::Error) -> InputError {
        InputError::Read {
            input: self.input.clone(),
            source,
        }
    }
}

/// An output that is open.
pub(super) enum OpenOutput {
    /// Written directly and in turn.
    Direct(File),
    /// A file that has no name yet.
    Staged(Staged),
}

/// Gives a pipe room for several chunks, so that its ends wait for each other less often. What is no pipe, or may not
/// have so much, stays as it is.
fn roomy(file: &File) {
    const PIPE_BYTES: usize = 1 << 20;
    let _ = rustix::pipe::fcntl_setpipe_size(file, PIPE_BYTES);
}

impl OpenOutput {
    /// One that is written directly.
    pub(super) fn direct(file: File) -> Self {
        roomy(&file);
        Self::Direct(file)
    }

    pub(super) fn open(
        output: &Output,
        input: Option<&OpenInput>,
        overwrite: bool,
        mode: u32,
    ) -> Result<Self, OutputError> {
        let create_error = |source| OutputError::Create {
            output: output.clone(),
            source,
        };
        match (look(output, input, overwrite)?, output) {
            (Found::Direct, Output::Stdout) => {
                let file = rustix::io::dup(rustix::stdio::stdout()).map_err(|errno| create_error(errno.into()))?;
                Ok(Self::direct(file.into()))
            }
            (Found::Direct, Output::File(path)) => {
                let file = File::options().write(true).open(path).map_err(create_error)?;
                Ok(Self::direct(file))
            }
            (Found::Staged(path), _) => {
                let staged = Staged::create(output.clone(), path, overwrite, mode, true).map_err(create_error)?;
                Ok(Self::Staged(staged))
            }
        }
    }
}

impl Output {
    /// Whether it could be made, by what is to be seen now, so that nothing is fetched or sealed in vain. Only the
    /// sealing or opening itself says so for good.
    ///
    /// # Errors
    /// It exists and `overwrite` is not set, it is a folder, or its folder is not there.
    pub fn check(&self, overwrite: bool) -> Result<(), OutputError> {
        let Found::Staged(path) = look(self, None, overwrite)? else {
            return Ok(());
        };
        std::fs::metadata(folder_of(&path))
            .map(|_| ())
            .map_err(|source| OutputError::Create {
                output: self.clone(),
                source,
            })
    }
}

enum Found {
    Direct,
    /// The path that the finished file gets.
    Staged(PathBuf),
}

/// Looks at what stands where an output is to go.
fn look(output: &Output, input: Option<&OpenInput>, overwrite: bool) -> Result<Found, OutputError> {
    let create_error = |source| OutputError::Create {
        output: output.clone(),
        source,
    };
    let metadata = match output {
        Output::Stdout => {
            let stdout = rustix::fs::fstat(rustix::stdio::stdout()).map_err(|errno| create_error(errno.into()))?;
            let id = FileId {
                device: stdout.st_dev,
                inode: stdout.st_ino,
            };
            let regular = rustix::fs::FileType::from_raw_mode(stdout.st_mode).is_file();
            if regular && input.is_some_and(|input| input.id == id) {
                return Err(OutputError::SameFile { output: output.clone() });
            }
            return Ok(Found::Direct);
        }
        Output::File(path) => match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Staged(path.clone())),
            Err(source) => return Err(create_error(source)),
        },
    };
    let Output::File(path) = output else {
        return Ok(Found::Direct);
    };
    if metadata.is_dir() {
        return Err(OutputError::Directory { output: output.clone() });
    }
    let kind = metadata.file_type();
    if !kind.is_file() {
        debug_assert!(kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket());
        return Ok(Found::Direct);
    }
    if input.is_some_and(|input| input.id == FileId::of(&metadata)) {
        return Err(OutputError::SameFile { output: output.clone() });
    }
    if !overwrite {
        return Err(OutputError::Exists { output: output.clone() });
    }
    // A symbolic link stays one: what it points to is replaced, as writing through it would.
    path.canonicalize().map(Found::Staged).map_err(create_error)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Temporary names that exist now.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes the temporary files of this process: for whoever ends it on a signal. Most file systems know files without
/// names, and there is nothing to remove.
pub fn remove_temporary_files() {
    let mut names = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
    for name in names.drain(..) {
        let _ = std::fs::remove_file(name);
    }
}

/// A temporary name, removed on drop unless it was given up.
struct TemporaryName(Option<PathBuf>);

impl TemporaryName {
    /// A fresh name in `folder`, which `make` gives to a file.
    fn make<T>(folder: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(Self, T)> {
        loop {
            let mut drawn = [0; 8];
            getrandom::fill(&mut drawn).map_err(io::Error::other)?;
            let name = folder.join(format!(".eds-{}.part", data_encoding::HEXLOWER.encode(&drawn)));
            // Noted before it exists, so that no signal finds it unknown.
            lock_names().push(name.clone());
            let temporary = Self(Some(name.clone()));
            match make(&name) {
                Ok(made) => return Ok((temporary, made)),
                Err(error) => {
                    temporary.forget();
                    if error.kind() != io::ErrorKind::AlreadyExists {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// The file has its own name now, or never had this one.
    fn forget(mut self) {
        if let Some(name) = self.0.take() {
            lock_names().retain(|other| *other != name);
        }
    }
}

impl Drop for TemporaryName {
    fn drop(&mut self) {
        if let Some(name) = self.0.take() {
            let _ = std::fs::remove_file(&name);
            lock_names().retain(|other| *other != name);
        }
    }
}

fn lock_names() -> std::sync::MutexGuard<'static, Vec<PathBuf>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file that is being written and gets its name when it is whole.
pub(super) struct Staged {
    output: Output,
    path: PathBuf,
    overwrite: bool,
    pub(super) file: File,
    /// None for a file without a name.
    temporary: Option<TemporaryName>,
}

impl Staged {
    fn create(output: Output, path: PathBuf, overwrite: bool, mode: u32, nameless: bool) -> io::Result<Self> {
        let folder = folder_of(&path);
        let (file, temporary) = match nameless.then(|| create_nameless(folder, mode)) {
            Some(Ok(file)) => (file, None),
            // Whatever is wrong with the folder is said by the second attempt too.
            Some(Err(_)) | None => create_named(folder, mode)?,
        };
        Ok(Self {
            output,
            path,
            overwrite,
            file,
            temporary,
        })
    }

    /// Flushes the file, gives it its name, and flushes that.
    pub(super) fn finish(self, sync: bool) -> Result<(), OutputError> {
        if sync {
            self.flush()?;
        }
        let folder = folder_of(&self.path).to_owned();
        let output = self.output.clone();
        self.publish()?;
        if sync { flush_folder(&folder, &output) } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), OutputError> {
        self.file.sync_all().map_err(|source| OutputError::Write {
            output: self.output.clone(),
            source,
        })
    }

    fn publish(self) -> Result<(), OutputError> {
        let Self {
            output,
            path,
            overwrite,
            file,
            temporary,
        } = self;
        let published = match temporary {
            None => name_nameless(&file, &path, overwrite),
            Some(temporary) => rename(temporary, &path, overwrite),
        };
        published.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => OutputError::Exists { output },
            _ => OutputError::Create { output, source },
        })
    }
}

/// A file of any content that is being written and gets its name when it is whole: for what is no sealed file, or not
/// sealed there. It leaves nothing where it is dropped.
pub struct NewFile(Staged);

impl NewFile {
    /// Begins a file that will be somewhere under `folder`, which exists.
    ///
    /// # Errors
    /// Where none can be made there.
    pub fn under(folder: &Path) -> Result<Self, OutputError> {
        let output = Output::File(folder.to_owned());
        let name = folder.join("new");
        match Staged::create(output.clone(), name, false, 0o666, true) {
            Ok(staged) => Ok(Self(staged)),
            Err(source) => Err(OutputError::Create { output, source }),
        }
    }

    /// Begins a file that will be `path`, in a folder that exists, in place of what is there if `overwrite` says so.
    ///
    /// # Errors
    /// Where none can be made there.
    pub fn at(path: &Path, overwrite: bool) -> Result<Self, OutputError> {
        let output = Output::File(path.to_owned());
        match Staged::create(output.clone(), path.to_owned(), overwrite, 0o666, true) {
            Ok(staged) => Ok(Self(staged)),
            Err(source) => Err(OutputError::Create { output, source }),
        }
    }

    /// Leaves it to `batch` to flush the file and give it its name.
    pub fn finish_in(self, batch: &Batch) {
        batch.add(self.0);
    }

    /// What to write to.
    pub fn file(&self) -> &File {
        &self.0.file
    }

    /// Leaves it to `batch` to flush the file and name it `path`, in a folder of the same file system.
    pub fn publish_in(mut self, path: &Path, batch: &Batch) {
        self.0.output = Output::File(path.to_owned());
        self.0.path = path.to_owned();
        batch.add(self.0);
    }

    /// Flushes the file and gives it its name, in a folder of the same file system.
    ///
    /// # Errors
    /// Where the name is taken, or it cannot be written.
    pub fn publish(mut self, path: &Path) -> Result<(), OutputError> {
        self.0.output = Output::File(path.to_owned());
        self.0.path = path.to_owned();
        self.0.finish(true)
    }
}

/// A file without a name, for what may go to `output` only when it is whole.
///
/// # Errors
/// Where none can be made.
pub fn spool(output: &Output) -> Result<File, OutputError> {
    anonymous_file(output).map_err(|source| OutputError::Create {
        output: output.clone(),
        source,
    })
}

fn create_nameless(folder: &Path, mode: u32) -> io::Result<File> {
    // Without /proc the file could never get a name.
    std::fs::metadata("/proc/self/fd")?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::from_raw_mode(mode))?.into())
}

fn create_named(folder: &Path, mode: u32) -> io::Result<(File, Option<TemporaryName>)> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
    let (temporary, file) = TemporaryName::make(folder, |name| {
        Ok(File::from(rustix::fs::open(name, flags, Mode::from_raw_mode(mode))?))
    })?;
    Ok((file, Some(temporary)))
}

fn name_nameless(file: &File, path: &Path, overwrite: bool) -> io::Result<()> {
    let handle = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |to: &Path| rustix::fs::linkat(CWD, &handle, CWD, to, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from);
    match link(path) {
        // A link replaces nothing; a name that is there is replaced by way of another.
        Err(error) if overwrite && error.kind() == io::ErrorKind::AlreadyExists => {
            let (temporary, ()) = TemporaryName::make(folder_of(path), link)?;
            rename(temporary, path, true)
        }
        linked => linked,
    }
}

fn rename(temporary: TemporaryName, path: &Path, overwrite: bool) -> io::Result<()> {
    if overwrite {
        std::fs::rename(temporary.path(), path)?;
    } else {
        match rustix::fs::renameat_with(CWD, temporary.path(), CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => rename_by_claim(temporary.path(), path)?,
            Err(errno) => return Err(errno.into()),
        }
    }
    temporary.forget();
    Ok(())
}

/// Where the file system cannot rename without replacing: an empty file takes the name first, which is atomic.
fn rename_by_claim(temporary: &Path, path: &Path) -> io::Result<()> {
    File::options().write(true).create_new(true).open(path)?;
    std::fs::rename(temporary, path).inspect_err(|_| {
        let _ = std::fs::remove_file(path);
    })
}

/// Flushes names to disk. A folder that cannot be opened for reading, or a file system that cannot flush folders, has
/// no way to do it.
fn flush_folder(folder: &Path, output: &Output) -> Result<(), OutputError> {
    let flushed = File::open(folder).and_then(|folder| folder.sync_all());
    match flushed {
        Err(source)
            if source.kind() != io::ErrorKind::PermissionDenied
                && source.raw_os_error() != Some(Errno::INVAL.raw_os_error()) =>
        {
            Err(OutputError::Write {
                output: output.clone(),
                source,
            })
        }
        _ => Ok(()),
    }
}

/// A file of the process alone, in the folder where the output goes (or the system's temporary folder).
pub(super) fn anonymous_file(output: &Output) -> io::Result<File> {
    let temp;
    let folder = match output {
        Output::File(path) if std::fs::metadata(path).map_or(true, |metadata| metadata.is_file()) => folder_of(path),
        _ => {
            temp = std::env::temp_dir();
            &temp
        }
    };
    anonymous_file_in(folder)
}

/// A file of `folder` that has no name, or none for long.
pub(super) fn anonymous_file_in(folder: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::EXCL;
    match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        // Dropping the name removes it; the file lives on while it is open.
        Err(_) => create_named(folder, 0o600).map(|(file, _name)| file),
    }
}

/// Finished outputs of many calls, flushed side by side and named together: a disk flushes many files in not much more
/// time than one, and each folder needs it once.
///
/// Hand it to [`crate::sealed::SealOptions::batch`] and call [`Batch::commit`] every some dozen files: each of them is
/// open until then. What is not committed leaves nothing.
#[derive(Default)]
pub struct Batch {
    staged: Mutex<Vec<Staged>>,
}

impl Batch {
    /// A batch with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn add(&self, staged: Staged) {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).push(staged);
    }

    /// How many outputs wait for [`Batch::commit`].
    pub fn len(&self) -> usize {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Flushes all outputs and gives them their names. Answers for each, in the order in which they were finished;
    /// one that fails leaves nothing and does not hinder the others.
    pub fn commit(&self) -> Vec<(Output, Result<(), OutputError>)> {
        let staged = std::mem::take(&mut *self.staged.lock().unwrap_or_else(PoisonError::into_inner));
        let flushed = flush_side_by_side(&staged);
        let mut folders = std::collections::BTreeMap::new();
        let mut results = Vec::with_capacity(staged.len());
        for (staged, flushed) in staged.into_iter().zip(flushed) {
            let output = staged.output.clone();
            let folder = folder_of(&staged.path).to_owned();
            results.push((output, folder.clone(), flushed.and_then(|()| staged.publish())));
            folders.insert(folder, None::<io::Error>);
        }
        for (folder, error) in &mut folders {
            if let Err(OutputError::Write { source, .. }) = flush_folder(folder, &Output::File(folder.clone())) {
                *error = Some(source);
            }
        }
        let named = results.into_iter().map(|(output, folder, result)| {
            let unflushed = folders.get(&folder).and_then(Option::as_ref);
            let result = result.and_then(|()| match unflushed {
                None => Ok(()),
                Some(error) => Err(OutputError::Write {
                    output: output.clone(),
                    source: io::Error::new(error.kind(), error.to_string()),
                }),
            });
            (output, result)
        });
        named.collect()
    }
}

fn flush_side_by_side(staged: &[Staged]) -> Vec<Result<(), OutputError>> {
    const THREADS: usize = 8;
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::from_iter(staged.iter().map(|_| None)));
    let work = || {
        while let Some((number, one)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, staged.get(n)?)))
        {
            let flushed = one.flush();
            results.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(flushed);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..THREADS.min(staged.len()) {
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().map(|result| result.unwrap_or(Ok(()))).collect()
}

/// The name of an output for a file under `folder`: its last component plus `suffix`.
pub fn name_in(folder: &Path, input: &Path, suffix: &str) -> Option<PathBuf> {
    let mut name: OsString = input.file_name()?.to_owned();
    name.push(suffix);
    Some(folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn stage(path: &Path, overwrite: bool, nameless: bool) -> Staged {
        let staged = Staged::create(Output::File(path.into()), path.into(), overwrite, 0o640, nameless).unwrap();
        (&staged.file).write_all(b"new").unwrap();
        staged
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names = Vec::from_iter(
            std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap()),
        );
        names.sort();
        names
    }

    #[test]
    fn a_staged_file_gets_its_name_when_it_is_finished() {
        for nameless in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("out");
            let staged = stage(&path, false, nameless);
            assert!(!path.exists());
            staged.finish(true).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"new");
            assert_eq!(names(folder.path()), ["out"]);
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode & !0o640, 0, "{mode:o}");
        }
    }

    #[test]
    fn a_new_file_gets_its_name_last_and_never_anothers() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let write = || {
            let new = NewFile::under(folder.path()).unwrap();
            new.file().write_all(b"new").unwrap();
            new
        };
        drop(write());
        assert_eq!(names(folder.path()), ["inner"]);
        write().publish(&inner.join("out")).unwrap();
        assert_eq!(std::fs::read(inner.join("out")).unwrap(), b"new");
        let refused = write().publish(&inner.join("out")).unwrap_err();
        assert!(matches!(refused, OutputError::Exists { .. }), "{refused:?}");
        assert_eq!(names(folder.path()), ["inner"]);
    }

    #[test]
    fn a_dropped_file_leaves_nothing() {
        for nameless in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            drop(stage(&folder.path().join("out"), true, nameless));
            assert!(names(folder.path()).is_empty());
        }
    }

    #[test]
    fn who_comes_second_does_not_overwrite_unless_asked() {
        for nameless in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("out");
            let staged = stage(&path, false, nameless);
            std::fs::write(&path, "theirs").unwrap();
            let refused = staged.finish(true).unwrap_err();
            assert!(matches!(refused, OutputError::Exists { .. }), "{refused:?}");
            assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
            assert_eq!(names(folder.path()), ["out"]);
            stage(&path, true, nameless).finish(true).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"new");
            assert_eq!(names(folder.path()), ["out"]);
        }
    }

    #[test]
    fn a_claimed_name_is_refused_to_the_second() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, "a").unwrap();
        rename_by_claim(&from, &to).unwrap();
        std::fs::write(&from, "b").unwrap();
        assert_eq!(
            rename_by_claim(&from, &to).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(std::fs::read(&to).unwrap(), b"a");
    }

    #[test]
    fn a_batch_names_all_that_can_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let batch = Batch::new();
        for name in ["a", "b", "a", "c"] {
            batch.add(stage(&folder.path().join(name), false, true));
        }
        assert_eq!(batch.len(), 4);
        assert!(names(folder.path()).is_empty());
        let results = Vec::from_iter(batch.commit().into_iter().map(|(_, result)| result.is_ok()));
        assert_eq!(results, [true, true, false, true]);
        assert_eq!(names(folder.path()), ["a", "b", "c"]);
        assert!(batch.is_empty());
    }
}
