//! A file system with hardly any room, for tests of full disks. It takes root to mount one.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Mounted; gone with this.
#[derive(Debug)]
pub struct SmallDisk {
    at: Option<PathBuf>,
}

impl SmallDisk {
    /// Mounts one of that size (`768k`) over a folder; where that cannot be, says so on standard error.
    pub fn mount(folder: &Path, size: &str) -> Option<Self> {
        if mounted(folder, &format!("size={size}")) {
            let at = Some(folder.to_owned());
            return Some(Self { at });
        }
        // not what a passing test would keep to itself
        let text = "not run: no file system can be mounted here, which needs root";
        let _ = writeln!(std::io::stderr(), "{text}");
        None
    }

    /// Gives it another size; answers whether that was done.
    pub fn resize(&self, size: &str) -> bool {
        let at = self.at.as_deref();
        at.is_some_and(|at| mounted(at, &format!("remount,size={size}")))
    }

    /// Unmounts it; answers whether that was done.
    pub fn unmount(mut self) -> bool {
        self.at.take().is_some_and(|at| unmounted(&at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Some(at) = self.at.take() {
            unmounted(&at);
        }
    }
}

fn mounted(folder: &Path, options: &str) -> bool {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", options, "eds-test"]).arg(folder);
    rustix::process::geteuid().is_root() && mount.status().is_ok_and(|status| status.success())
}

fn unmounted(folder: &Path) -> bool {
    let status = Command::new("umount").arg(folder).status();
    status.is_ok_and(|status| status.success())
}
