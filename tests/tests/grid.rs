//! `testgrid` as its users type it: a grid whose credentials ran out (`docs/src/commands/testgrid.md`).
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::PathBuf;
use std::process::Command;

use hydra_tests::{Ended, program, run};
use tempfile::TempDir;

/// A grid that is made and ended by the command alone.
struct Typed(TempDir);

impl Typed {
    fn up(arguments: &[&str]) -> Self {
        let typed = Self(tempfile::tempdir().unwrap());
        let ended = typed.testgrid("up", arguments);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        typed
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("grid")
    }

    fn testgrid(&self, verb: &str, arguments: &[&str]) -> Ended {
        let mut command = Command::new(program("testgrid"));
        run(command.arg(verb).arg(self.path()).args(arguments))
    }

    /// Lines for a shell with the grid's variables.
    fn shell(&self, lines: &str) -> Ended {
        let script = format!("set -e; . ./grid/env; {lines}");
        run(Command::new("sh").args(["-c", &script]).current_dir(self.0.path()))
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        let _ = self.testgrid("down", &[]);
    }
}

#[test]
fn a_grid_whose_credentials_ran_out_is_good_again_when_renewed_and_its_keys_open() {
    let grid = Typed::up(&["--stores", "2", "--threshold", "1"]);
    let made = grid.shell("echo pixels >plain; eds-key-register -q /renew/key; eds-encrypt -q /renew/key plain sealed");
    assert_eq!(made.code, Some(0), "{made:?}");
    // what ran out is as good as what is not there
    let proxy = grid.path().join("pki/proxies/alice.pem");
    let before = std::fs::read(&proxy).unwrap();
    std::fs::write(&proxy, "").unwrap();
    std::fs::remove_file(grid.path().join("pki/certificates/HydraTestCA.crl")).unwrap();
    assert_ne!(grid.shell("eds-cat -q sealed").code, Some(0));

    let stopped = grid.testgrid("kill", &["2"]);
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    let renewed = grid.testgrid("renew", &[]);
    assert_eq!(renewed.code, Some(0), "{renewed:?}");
    let opened = grid.shell("eds-cat -q sealed; eds-whoami");
    assert_eq!(opened.code, Some(75), "one that did not run was started: {opened:?}");
    assert!(opened.stdout.starts_with("pixels\n"), "{opened:?}");
    let started = grid.testgrid("start", &["2"]);
    assert_eq!(started.code, Some(0), "{started:?}");
    let after = grid.shell("eds-key-register -q /renew/other; eds-key-status /renew/key; eds-whoami");
    assert_eq!(after.code, Some(0), "{after:?}");
    assert!(after.stdout.contains("/renew/key: registered"), "{after:?}");
    // what was given out before is worth nothing
    std::fs::write(grid.0.path().join("old.pem"), before).unwrap();
    let old = grid.shell("chmod 600 old.pem; X509_USER_PROXY=old.pem eds-cat -q sealed");
    assert_ne!(old.code, Some(0), "{old:?}");
    for left in ["pki.new", "pki.old"] {
        assert!(!grid.path().join(left).exists(), "{left}");
    }

    let pki = grid.path().join("pki").to_string_lossy().into_owned();
    let other = Typed::up(&["--stores", "1", "--threshold", "1", "--pki", &pki]);
    let refused = other.testgrid("renew", &[]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("were given to this grid"), "{refused:?}");
}
