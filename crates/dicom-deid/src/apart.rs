//! Whether the file of the private half is apart from what goes out: by what paths mean, not by how they are written.

use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Whether two paths mean the same file or folder, whatever its names; also of what is not there yet.
pub fn is_same(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
    match (id(one), id(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => meant(one) == meant(other),
    }
}

/// Whether a path is inside a folder, or the folder itself; also of what is not there yet.
pub fn is_inside(path: &Path, folder: &Path) -> bool {
    meant(path).starts_with(meant(folder))
}

/// A path without links and `..`, as far as it is there.
fn meant(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let resolved = absolute.ancestors().find_map(|ancestor| {
        let rest = absolute.strip_prefix(ancestor).ok()?;
        Some(ancestor.canonicalize().ok()?.join(rest))
    });
    let resolved = resolved.unwrap_or(absolute);
    match std::fs::read_link(&resolved) {
        // a link to what is not there yet
        Ok(target) => resolved.parent().unwrap_or(&resolved).join(target),
        Err(_) => resolved,
    }
}

/// Makes a file that is appended to one that its owner alone can read. One that begins otherwise than such files do is
/// somebody else's, and left alone.
///
/// # Errors
/// Where that cannot be, or it is somebody else's.
#[cfg(feature = "command")]
pub(crate) fn claim(file: &std::fs::File, path: &Path) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if metadata.len() > 0 {
        let mut first = [0];
        std::fs::File::open(path)?.read_exact(&mut first)?;
        if first != *b"{" {
            return Err(io::Error::other("it is there already, and no private half"));
        }
    }
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_paths_mean_counts() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        std::fs::create_dir(at("out")).unwrap();
        std::os::unix::fs::symlink(at("out"), at("link")).unwrap();
        std::os::unix::fs::symlink("out/new", at("dangling")).unwrap();
        std::fs::write(at("in.dcm"), "x").unwrap();
        std::fs::hard_link(at("in.dcm"), at("again.dcm")).unwrap();
        for (one, other) in [
            ("new", "out/../new"),
            ("out/new", "link/new"),
            ("in.dcm", "again.dcm"),
            ("dangling", "out/new"),
            ("out/a/b", "link/./a/b"),
        ] {
            assert!(is_same(&at(one), &at(other)), "{one} {other}");
        }
        assert!(!is_same(&at("new"), &at("out/new")));
        for inside in ["out", "link/x", "out/not/there", "dangling", "link/../out/x"] {
            assert!(is_inside(&at(inside), &at("out")), "{inside}");
        }
        for outside in ["outer", "out/../x", "in.dcm"] {
            assert!(!is_inside(&at(outside), &at("out")), "{outside}");
        }
        assert!(is_inside(&at("no/x"), &at("no")), "neither is there");
    }
}
