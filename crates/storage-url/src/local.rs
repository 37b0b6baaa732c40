//! `file:`: files of this machine. A stored file appears whole or not at all.

use std::io::{self, ErrorKind, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hyper::body::Bytes;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::{Adler32, PIECE, Source, Stat, StorageError, StorageUrl, Stored};

/// A file that is being read.
pub(crate) struct Reading {
    url: String,
    file: tokio::fs::File,
}

impl Reading {
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, StorageError> {
        let mut buffer = vec![0; PIECE];
        let read = self.file.read(&mut buffer).await;
        let read = read.map_err(|source| StorageError::Local {
            url: self.url.clone(),
            doing: "read",
            source,
        })?;
        buffer.truncate(read);
        Ok((read > 0).then(|| buffer.into()))
    }
}

pub(crate) async fn get(url: &StorageUrl, offset: u64) -> Result<Reading, StorageError> {
    let opened = async {
        let mut file = tokio::fs::File::open(path(url)).await?;
        if file.metadata().await?.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        if offset > 0 {
            file.seek(SeekFrom::Start(offset)).await?;
        }
        Ok(file)
    };
    let file = opened.await.map_err(failed(url, "read"))?;
    Ok(Reading {
        url: url.to_string(),
        file,
    })
}

pub(crate) async fn put(url: &StorageUrl, mut source: Source, overwrite: bool) -> Result<Stored, StorageError> {
    let mut path = path(url);
    // a link stays one: what it leads to is replaced
    if overwrite && let Ok(real) = tokio::fs::canonicalize(&path).await {
        path = real;
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut builder = tempfile::Builder::new();
    // less the umask, as for any file that is made
    let permissions = std::fs::Permissions::from_mode(0o666);
    let made = builder
        .prefix(".eds-")
        .suffix(".part")
        .permissions(permissions)
        .tempfile_in(folder);
    let (file, temporary) = made.map_err(failed(url, "make"))?.into_parts();
    let mut file = tokio::fs::File::from_std(file);
    let mut buffer = vec![0; PIECE];
    let (mut sum, mut bytes) = (Adler32::default(), 0);
    loop {
        let read = source.read(&mut buffer).await;
        let read = read.map_err(|source| StorageError::Source {
            url: url.to_string(),
            source,
        })?;
        if read == 0 {
            break;
        }
        sum.update(&buffer[..read]);
        bytes += read as u64;
        file.write_all(&buffer[..read]).await.map_err(failed(url, "write"))?;
    }
    let written = async {
        file.flush().await?;
        file.sync_all().await
    };
    written.await.map_err(failed(url, "write"))?;
    let named = match overwrite {
        true => temporary.persist(&path),
        false => temporary.persist_noclobber(&path),
    };
    named.map_err(|error| failed(url, "make")(error.error))?;
    // the name, too, is to outlive a crash; a folder that cannot be opened has no way
    if let Ok(folder) = std::fs::File::open(folder) {
        folder.sync_all().map_err(failed(url, "write"))?;
    }
    Ok(Stored {
        bytes,
        adler32: sum.value(),
        checked: false,
    })
}

pub(crate) async fn stat(url: &StorageUrl) -> Result<Stat, StorageError> {
    let metadata = tokio::fs::metadata(path(url)).await.map_err(failed(url, "look at"))?;
    Ok(Stat {
        bytes: metadata.is_file().then_some(metadata.len()),
    })
}

pub(crate) async fn remove(url: &StorageUrl) -> Result<(), StorageError> {
    tokio::fs::remove_file(path(url)).await.map_err(failed(url, "remove"))
}

fn path(url: &StorageUrl) -> PathBuf {
    url.local_path().unwrap_or_default()
}

fn failed(url: &StorageUrl, doing: &'static str) -> impl Fn(io::Error) -> StorageError {
    let url = url.to_string();
    move |source| {
        let url = url.clone();
        match source.kind() {
            // of a file that is made, its folder is missing
            ErrorKind::NotFound if doing != "make" => StorageError::NotFound { url },
            ErrorKind::AlreadyExists => StorageError::Exists { url },
            ErrorKind::PermissionDenied => StorageError::Refused {
                url,
                source: Box::new(source),
            },
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StorageError::Full {
                url,
                source: Box::new(source),
            },
            _ => StorageError::Local { url, doing, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_one_where_what_it_leads_to_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (link, file) = (folder.path().join("link"), folder.path().join("file"));
        std::fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let url = StorageUrl::parse(&format!("file://{}", link.display())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let put = |overwrite| {
            let source: Source = Box::new(io::Cursor::new(b"new".to_vec()));
            runtime.block_on(put(&url, source, overwrite))
        };
        assert!(matches!(put(false), Err(StorageError::Exists { .. })));
        put(true).unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
    }
}
