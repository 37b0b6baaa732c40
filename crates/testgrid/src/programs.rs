//! The programs of the project: where they are, that they are of one build, and the names they go by.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::GridError;

/// Every program that users of a grid call.
pub const PROGRAMS: &[&str] = &[
    "dicom-deid",
    "dicom-recall",
    "eds-cat",
    "eds-check",
    "eds-chmod",
    "eds-decrypt",
    "eds-encrypt",
    "eds-getacl",
    "eds-get",
    "eds-key-export",
    "eds-key-register",
    "eds-key-repair",
    "eds-key-reshare",
    "eds-key-rotate",
    "eds-key-status",
    "eds-key-unregister",
    "eds-setacl",
    "eds-put",
    "eds-rm",
    "eds-whoami",
    "hydra-keystore",
    "mdm",
    "mdm-catalog",
    "ssss-join",
    "ssss-split",
    "testgrid",
];

/// Other names, those of the original among them, each with the program that answers to it.
pub const ALIASES: &[(&str, &str)] = &[
    ("glite-eds-chmod", "eds-chmod"),
    ("glite-eds-decrypt", "eds-decrypt"),
    ("glite-eds-encrypt", "eds-encrypt"),
    ("glite-eds-getacl", "eds-getacl"),
    ("glite-eds-key-register", "eds-key-register"),
    ("glite-eds-key-unregister", "eds-key-unregister"),
    ("glite-eds-setacl", "eds-setacl"),
    ("glite-eds-get", "eds-get"),
    ("glite-eds-put", "eds-put"),
    ("glite-eds-rm", "eds-rm"),
    ("glite-ssss-generate-key", "ssss-split"),
    ("glite-ssss-join-key", "ssss-join"),
    ("glite-ssss-join-passwd", "ssss-join"),
    ("glite-ssss-split-key", "ssss-split"),
    ("glite-ssss-split-passwd", "ssss-split"),
    ("lcg-cp", "mdm"),
    ("lcg-cr", "mdm"),
    ("lcg-del", "mdm"),
    ("lcg-gt", "mdm"),
    ("lcg-la", "mdm"),
    ("lcg-lg", "mdm"),
    ("lcg-lr", "mdm"),
    ("lcg-rep", "mdm"),
    ("mdcli", "mdm"),
    ("mdm-find", "mdm"),
    ("mdm-get", "mdm"),
    ("mdm-getacl", "mdm"),
    ("mdm-ls", "mdm"),
    ("mdm-mkdir", "mdm"),
    ("mdm-register", "mdm"),
    ("mdm-rm", "mdm"),
    ("mdm-schema", "mdm"),
    ("mdm-set", "mdm"),
    ("mdm-setacl", "mdm"),
    ("mdm-show", "mdm"),
    ("mdm-withdraw", "mdm"),
];

/// The folder of the programs: that of the running one; of a test, the one above.
pub(crate) fn folder() -> Result<PathBuf, GridError> {
    let own = std::env::current_exe().map_err(|source| GridError::File {
        path: "/proc/self/exe".into(),
        source,
    })?;
    let folder = own.parent().unwrap_or(Path::new("/"));
    let folder = match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().unwrap_or(folder),
        _ => folder,
    };
    Ok(folder.to_owned())
}

/// One program, if it is there and of our version.
pub(crate) fn find(folder: &Path, name: &str) -> Result<PathBuf, GridError> {
    let path = folder.join(name);
    let refuse = |what: String| GridError::Program {
        path: path.clone(),
        what,
    };
    if !path.is_file() {
        return Err(refuse("is not there: build the whole workspace".to_owned()));
    }
    let answer = Command::new(&path)
        .arg("--version")
        .output()
        .map_err(|source| GridError::File {
            path: path.clone(),
            source,
        })?;
    let text = String::from_utf8_lossy(&answer.stdout);
    let expected = env!("CARGO_PKG_VERSION");
    match text.split_ascii_whitespace().last() {
        Some(version) if answer.status.success() && version == expected => Ok(path),
        Some(version) => Err(refuse(format!("is of version {version}, not {expected}"))),
        None => Err(refuse("does not tell its version".to_owned())),
    }
}
