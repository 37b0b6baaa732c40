//! Keys of an original Hydra, imported into three real stores, and used.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;

use grid_identity::Credential;
use hydra_core::config::{ClientConfig, CrlPolicy, StoreEndpoint, Timeouts, Trust, TrustAnchors};
use hydra_core::key_id::KeyId;
use hydra_core::keystore::hydra::{FetchError, Hydra, Purpose};
use hydra_core::sealed::legacy_cbc::{self, LegacyKey};
use hydra_core::sealed::{Input, Output, SealOptions};
use hydra_tests::program;
use testgrid::{Grid, GridOptions};

#[test]
fn imported_keys_open_are_unverified_and_belong_to_their_owner() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::up(&folder.path().join("grid"), &GridOptions::default()).unwrap();
    let alice = grid.pki().unwrap().user_dn("alice").unwrap().to_owned();
    let mut ids = Vec::new();
    for number in 1..=3 {
        let config = std::fs::read_to_string(grid.store_directory(number).join("hydra-keystore.toml")).unwrap();
        let line = config
            .lines()
            .find_map(|line| line.strip_prefix("store_id = \""))
            .unwrap();
        ids.push(line.trim_end_matches('"').to_owned());
        grid.terminate(number).unwrap();
    }
    for (number, name) in (1..=3).zip(["a.sql", "b.sql", "c.sql"]) {
        let made = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../crates/keystore/tests/dumps")
            .join(name);
        let text = std::fs::read_to_string(made).unwrap();
        let own = folder.path().join(name);
        std::fs::write(&own, text.replace("/O=Utopia/OU=Radiology/CN=Alice Example", &alice)).unwrap();
        let output = std::process::Command::new(program("hydra-keystore"))
            .arg("import-legacy")
            .arg(grid.store_directory(number).join("hydra-keystore.toml"))
            .arg("--dump")
            .arg(&own)
            .args(["--stores", &ids.join(",")])
            .output()
            .unwrap();
        let (out, error) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(output.status.code(), Some(1), "{out}{error}");
        assert!(out.contains("skipped /myvo/nokey: it has no key"), "{out}");
        assert!(error.contains("keys are not imported"), "{error}");
        grid.start(number).unwrap();
    }
    let variables = grid.variables().unwrap();
    let run = |user: &str, name: &str, arguments: &[&str]| {
        let proxy = grid.pki().unwrap().proxy(user);
        let mut command = std::process::Command::new(program(name));
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let output = command.env("X509_USER_PROXY", proxy).args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), output.stdout, error)
    };
    let (code, out, error) = run("alice-plain", "eds-key-status", &["/myvo/home/secret"]);
    let out = String::from_utf8_lossy(&out).into_owned();
    assert!(code == Some(0) && out.contains("unverified"), "{out}{error}");
    let config = ClientConfig {
        stores: grid
            .urls()
            .into_iter()
            .map(|url| StoreEndpoint {
                name: url.clone(),
                url,
                id: None,
            })
            .collect(),
        threshold: 2,
        min_threshold: 2,
        trust: Trust {
            anchors: TrustAnchors::Directory(grid.pki().unwrap().certificates()),
            crl: CrlPolicy::Require,
        },
        timeouts: Timeouts::default(),
        defaults: hydra_core::config::defaults::Defaults::default(),
        sources: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let fetch = |user: &str, key_id: &str| {
        let credential = Credential::from_file(&grid.pki().unwrap().proxy(user), None).unwrap();
        let hydra = Hydra::new(config.clone(), &credential).unwrap();
        runtime.block_on(hydra.fetch(&KeyId::imported(key_id).unwrap(), Purpose::Seal))
    };
    let fetched = fetch("alice-plain", "/myvo/home/secret").unwrap();
    let expected: Vec<u8> = (0..16).map(|byte| byte * 0x11).collect();
    assert_eq!(fetched.key.expose(), expected);
    assert_eq!((fetched.verified, fetched.constants.cipher.as_str()), (false, "bf-cbc"));
    assert_eq!(fetched.constants.iv, "0102030405060708");
    // a file that the original encrypted under it opens
    let old = LegacyKey::new("bf-cbc", &expected, &fetched.constants.iv).unwrap();
    let [plain, encrypted, opened] = ["plain", "old", "opened"].map(|name| folder.path().join(name));
    std::fs::write(&plain, "512 x 512 pixels").unwrap();
    let (from, to) = (Input::File(plain), Output::File(encrypted.clone()));
    legacy_cbc::seal(&old, &from, &to, &SealOptions::default()).unwrap();
    let [encrypted, out] = [&encrypted, &opened].map(|path| path.to_str().unwrap());
    let (code, _, error) = run("alice-plain", "eds-decrypt", &["/myvo/home/secret", encrypted, out]);
    assert!(code == Some(0) && error.contains("no check value"), "{error}");
    assert_eq!(std::fs::read(&opened).unwrap(), b"512 x 512 pixels");
    // Whoever had no right there has none here.
    assert!(matches!(
        fetch("bob-plain", "/myvo/scans/a_b"),
        Err(FetchError::NotFound { .. })
    ));
    assert!(fetch("alice-plain", "/myvo/scans/a_b").is_ok());
}
