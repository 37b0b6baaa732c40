//! Other people's servers in demos and benches: processes that end with who started them, ports, and Orthanc.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::chore::{ChoreError, on_path};

/// A running server; it ends with this.
pub(crate) struct Server {
    /// What messages call it.
    pub(crate) name: &'static str,
    pub(crate) child: Child,
}

impl Server {
    /// Starts it.
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self, ChoreError> {
        let child = command.spawn().map_err(|source| ChoreError::Start {
            program: name.to_owned(),
            source,
        })?;
        Ok(Self { name, child })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago: Orthanc and XRootD cannot be told to take any.
pub(crate) fn free_port() -> Result<u16, ChoreError> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    let address = bound.map_err(|source| ChoreError::Start {
        program: "a server on 127.0.0.1".to_owned(),
        source,
    })?;
    Ok(address.port())
}

/// Whether a program is there: Debian has servers where ordinary users do not look.
pub(crate) fn is_installed(program: &str) -> bool {
    on_path(program) || Path::new("/usr/sbin").join(program).is_file()
}

/// How Orthanc is started.
pub(crate) fn orthanc() -> Command {
    Command::new(if on_path("Orthanc") {
        "Orthanc"
    } else {
        "/usr/sbin/Orthanc"
    })
}

/// The configuration of an Orthanc with nothing in it, which is called PACS and lets everybody ask.
pub(crate) fn orthanc_config(name: &str, storage: &Path, http: u16, dicom: u16) -> Value {
    json!({
        "Name": name, "StorageDirectory": storage, "IndexDirectory": storage,
        "HttpPort": http, "RemoteAccessAllowed": false, "AuthenticationEnabled": false,
        "DicomPort": dicom, "DicomAet": "PACS", "DicomCheckCalledAet": false,
        "DicomAlwaysAllowEcho": true, "DicomAlwaysAllowFind": true, "DicomAlwaysAllowGet": true,
        "SaveJobs": false,
    })
}
