//! Keys and files of the original against real stores: made with `-c`, written by OpenSSL, imported with shares of the
//! prime field. And what must never pass for one (`docs/src/formats/sealed-file.md`, "Files of the original").
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock};

use grid_identity::{Credential, Policy, TrustStore, tls};
use hydra_core::config::{StoreEndpoint, Timeouts};
use hydra_core::ids::{ChangeId, RegistrationId, StoreId};
use hydra_core::key_id::KeyId;
use hydra_core::keystore::client;
use hydra_core::keystore::quorum::{Message, Said};
use hydra_core::keystore::sharing::import_id;
use hydra_core::keystore::wire::{Confirm, Create, Scheme, Share, ShareData, Sharing, Status};
use hydra_core::permissions::PermissionRecord;
use hydra_core::sealed::legacy_cbc::{self, LegacyKey};
use hydra_core::sealed::{self, Header, Input, Output, SealOptions};
use hydra_core::secret::Key;
use hydra_core::shamir::glite;
use hydra_tests::desk::{Desk, SharedGrid};
use testgrid::GridOptions;

static GRID: LazyLock<SharedGrid> = LazyLock::new(|| SharedGrid::up(&GridOptions::default()));

const PLAIN: &[u8] = b"512 x 512 pixels, not a multiple of any block";
const NO_INTEGRITY: &str = "files of the original have no integrity";

fn desk() -> Desk {
    let desk = GRID.desk("alice");
    desk.write("plain", PLAIN);
    desk
}

fn registration_of(desk: &Desk, key_id: &str) -> RegistrationId {
    let status = desk.run_words("eds-key-status", &["--json", key_id]).exits(0).json();
    let id = &status["stores"][0]["entry"]["registration_id"];
    id.as_str().unwrap().parse().unwrap()
}

#[test]
fn a_key_for_a_cipher_of_the_original_makes_and_opens_its_files_with_a_warning() {
    let _whole = GRID.whole();
    let desk = desk();
    let made = desk
        .run("glite-eds-key-register -c bf-cbc -k 192 /legacy/glite")
        .exits(0);
    assert_eq!(
        made.stdout,
        "A key has been generated and registered for ID '/legacy/glite'\n"
    );
    let _ = made.says(NO_INTEGRITY);
    let made = desk.run("glite-eds-encrypt /legacy/glite plain sealed").exits(0);
    let _ = made.prints("successfully encrypted").says(NO_INTEGRITY);
    assert_eq!(desk.read("sealed").len(), PLAIN.len() / 8 * 8 + 8);
    let opened = desk.run("glite-eds-decrypt /legacy/glite sealed opened").exits(0);
    let _ = opened.prints("decrypted").says(NO_INTEGRITY);
    assert_eq!(desk.read("opened"), PLAIN);
    // the same under the modern names
    let opened = desk.run("eds-decrypt --json /legacy/glite sealed again").exits(0);
    assert_eq!(opened.json()["key_id"], "/legacy/glite");
    assert_eq!(desk.read("again"), PLAIN);
    let _ = desk.run("eds-cat /legacy/glite sealed").exits(0).prints("512 x 512");
    let status = desk.run("eds-key-status --json /legacy/glite").exits(0).json();
    let entry = &status["stores"][2]["entry"];
    assert_eq!((&entry["cipher"], &entry["key_bits"]), (&"bf-cbc".into(), &192.into()));
    // a file has no name of its key in it
    let _ = desk
        .run("eds-decrypt sealed nameless")
        .exits(65)
        .says("not a sealed file");
    assert!(!desk.path("nameless").exists());
}

#[test]
fn scripts_that_ask_for_other_key_lengths_get_that_of_the_cipher() {
    let _whole = GRID.whole();
    let desk = desk();
    let made = desk.run("glite-eds-key-register -c aes-256-cbc -k 128 /legacy/emi");
    let _ = made.exits(0).says("keys of `aes-256-cbc` have 256 bits");
    let _ = desk.run("glite-eds-encrypt -q /legacy/emi plain sealed").exits(0);
    let _ = desk.run("glite-eds-decrypt -q /legacy/emi sealed opened").exits(0);
    assert_eq!(desk.read("opened"), PLAIN);
    let _ = desk
        .run("eds-key-register --cipher AES-128-CBC --bits 256 /legacy/eds")
        .exits(0)
        .says("keys of `aes-128-cbc` have 128 bits");
}

#[test]
fn a_cipher_or_length_that_is_none_registers_nothing() {
    let _whole = GRID.whole();
    let desk = desk();
    for options in [
        "-c aes-256-gcm",
        "-c nonsense",
        "-c bf-cbc -k 8",
        "-c bf-cbc -k 12x",
        "-c bf-cbc -k -128",
        "-k 128",
        "-k many",
        "-c eds-1 -k 128",
    ] {
        let _ = desk
            .run(&format!("glite-eds-key-register {options} /legacy/none"))
            .exits(255)
            .says("Error during glite_eds_register: ");
    }
    for options in [
        "--cipher nonsense",
        "--cipher bf-cbc --bits 8",
        "--bits 128",
        "--cipher bf-cbc --bits x",
    ] {
        let _ = desk.run(&format!("eds-key-register {options} /legacy/none")).exits(2);
    }
    let _ = desk.run("eds-key-status /legacy/none").exits(77);
    // these mean our own suite
    for (at, options) in ["-k 256", "-t", "-c eds-1", "-c eds-1 -k 256"].iter().enumerate() {
        let _ = desk
            .run(&format!("glite-eds-key-register {options} /legacy/own{at}"))
            .exits(0);
        let _ = desk
            .run(&format!("glite-eds-encrypt -q /legacy/own{at} plain own{at}"))
            .exits(0);
        assert!(desk.read(&format!("own{at}")).starts_with(b"\x89EDS"), "{options}");
    }
}

/// What the original did on each of these: exit 0 and garbage, or half a file (D-9, D-13).
#[test]
fn damage_that_the_padding_shows_leaves_no_output() {
    let _whole = GRID.whole();
    let desk = desk();
    let _ = desk
        .run("eds-key-register --cipher aes-192-cbc /legacy/damage")
        .exits(0);
    let _ = desk.run("eds-encrypt /legacy/damage plain sealed").exits(0);
    let good = desk.read("sealed");
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (name, bytes) in [
        ("flipped", flipped.as_slice()),
        ("cut", &good[..good.len() - 16]),
        ("ragged", &good[..good.len() - 1]),
        ("empty", b""),
    ] {
        desk.write(name, bytes);
        let _ = desk
            .run(&format!("eds-decrypt /legacy/damage {name} opened"))
            .exits(65)
            .says("is damaged");
        let _ = desk
            .run(&format!("glite-eds-decrypt /legacy/damage {name} opened"))
            .exits(255)
            .says("is damaged");
        let piped = desk.run(&format!("eds-cat /legacy/damage {name}")).exits(65);
        assert_eq!(piped.stdout, "", "{name}");
    }
    assert!(!desk.path("opened").exists());
}

#[test]
fn keys_open_the_files_of_their_own_cipher_alone() {
    let _whole = GRID.whole();
    let desk = desk();
    let _ = desk.run("eds-key-register --cipher bf-cbc /legacy/old").exits(0);
    let _ = desk.run("eds-key-register /legacy/new").exits(0);
    let _ = desk.run("eds-encrypt /legacy/old plain raw").exits(0);
    // raw CBC, but the key is not for it
    for (command, code) in [("eds-decrypt", 65), ("glite-eds-decrypt", 255)] {
        let _ = desk
            .run(&format!("{command} /legacy/new raw opened"))
            .exits(code)
            .says("not a sealed file");
    }
    // a header that names the old key, over anything: no option makes it pass
    let header = Header::of_registration(
        KeyId::new("/legacy/old").unwrap(),
        registration_of(&desk, "/legacy/old"),
    );
    let (from, to) = (Input::File(desk.path("plain")), Output::File(desk.path("forged")));
    sealed::seal(&Key::random().unwrap(), &header, &from, &to, &SealOptions::default()).unwrap();
    for command in [
        "eds-decrypt",
        "eds-decrypt /legacy/old",
        "glite-eds-decrypt /legacy/old",
    ] {
        let code = if command.starts_with("glite") { 255 } else { 65 };
        let _ = desk
            .run(&format!("{command} forged opened"))
            .exits(code)
            .says("its cipher is `bf-cbc`");
    }
    assert!(!desk.path("opened").exists());
}

#[test]
fn many_files_go_with_one_fetch_also_mixed_with_sealed_ones() {
    let _whole = GRID.whole();
    let desk = desk();
    let _ = desk.run("eds-key-register --cipher des-ede3-cbc /legacy/many").exits(0);
    desk.write("other", b"another");
    let made = desk.run("eds-encrypt /legacy/many --out-dir . plain other").exits(0);
    assert_eq!(made.stderr.matches(NO_INTEGRITY).count(), 1, "{}", made.stderr);
    fs::create_dir(desk.path("opened")).unwrap();
    let opened = desk
        .run("eds-decrypt -i /legacy/many --out-dir opened plain.eds other.eds")
        .exits(0);
    assert_eq!(opened.stderr.matches(NO_INTEGRITY).count(), 1, "{}", opened.stderr);
    assert_eq!(
        (desk.read("opened/plain"), desk.read("opened/other")),
        (PLAIN.to_vec(), b"another".to_vec())
    );
    // without a key id only those with a header can be opened
    let _ = desk.run("eds-key-register /legacy/beside").exits(0);
    let _ = desk.run("eds-encrypt /legacy/beside plain beside.eds").exits(0);
    let _ = desk
        .run("eds-decrypt -f --out-dir opened plain.eds beside.eds")
        .exits(65)
        .says("`plain.eds` has no header that can be read")
        .says("1 of 2 files were not opened");
    assert_eq!(desk.read("opened/beside"), PLAIN);
}

#[test]
fn an_exported_key_opens_its_files_without_stores() {
    let _whole = GRID.whole();
    let desk = desk();
    let _ = desk.run("eds-key-register -c cast5-cbc -b 80 /legacy/export").exits(0);
    let _ = desk.run("eds-encrypt /legacy/export plain sealed").exits(0);
    let exported = desk.run("eds-key-export --json /legacy/export --raw key").exits(0);
    let _ = exported.json();
    assert_eq!(desk.read("key").len(), 10);
    let said = exported.stderr;
    let options = said
        .split("eds-decrypt ")
        .nth(1)
        .unwrap()
        .split(" IN OUT")
        .next()
        .unwrap();
    let mut alone = GRID.desk("alice");
    for name in ["EDS_CONFIG", "GLITE_SD_PLUGIN", "X509_USER_PROXY"] {
        alone.unset(name);
    }
    alone.write("key", desk.read("key"));
    alone.write("sealed", desk.read("sealed"));
    let _ = Command::new("chmod")
        .arg("600")
        .arg(alone.path("key"))
        .status()
        .unwrap();
    let _ = alone
        .run(&format!("eds-decrypt {options} sealed opened"))
        .exits(0)
        .says(NO_INTEGRITY);
    assert_eq!(alone.read("opened"), PLAIN);
    // no such keyset, and nothing is left of it
    let _ = desk.run("eds-key-export /legacy/export --tink-keyset keyset").exits(65);
    assert!(!desk.path("keyset").exists());
    for wrong in [
        "--legacy-cipher cast5-cbc --legacy-iv 00",
        "--legacy-cipher nonsense --legacy-iv 0011223344556677",
        "--legacy-cipher cast5-cbc",
        "--legacy-iv 0011223344556677",
    ] {
        let _ = alone
            .run(&format!("eds-decrypt --key-file key {wrong} sealed out"))
            .exits(2);
    }
    let _ = alone
        .run("eds-decrypt --key-file key --legacy-cipher aes-256-cbc --legacy-iv 00112233445566770011223344556677 sealed out")
        .exits(78)
        .says("a key of 80 bits is none for `aes-256-cbc`");
    assert!(!alone.path("out").exists());
}

fn openssl(direction: &str, cipher: &str, key: &[u8], iv: &str, from: &Path, to: &Path) {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let status = Command::new("openssl")
        .args(["enc", direction, &format!("-{cipher}"), "-K", &hex, "-iv", iv])
        .args(["-provider", "legacy", "-provider", "default"])
        .args(["-in".as_ref(), from, "-out".as_ref(), to])
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn peer_openssl_opens_what_the_commands_write_and_writes_what_they_open() {
    let _whole = GRID.whole();
    let desk = desk();
    for cipher in ["bf-cbc", "aes-256-cbc", "des-ede3-cbc"] {
        let key_id = format!("/legacy/openssl/{cipher}");
        let _ = desk
            .run(&format!("glite-eds-key-register -q -c {cipher} {key_id}"))
            .exits(0);
        let _ = desk
            .run(&format!("glite-eds-encrypt -q {key_id} plain sealed"))
            .exits(0);
        let exported = desk
            .run(&format!("eds-key-export --json {key_id} --raw {cipher}.key"))
            .exits(0);
        let iv = exported.json()["iv"].as_str().unwrap().to_owned();
        let key = desk.read(&format!("{cipher}.key"));
        openssl("-d", cipher, &key, &iv, &desk.path("sealed"), &desk.path("theirs"));
        assert_eq!(desk.read("theirs"), PLAIN);
        openssl("-e", cipher, &key, &iv, &desk.path("plain"), &desk.path("old"));
        let _ = desk.run(&format!("glite-eds-decrypt -q {key_id} old opened")).exits(0);
        assert_eq!(desk.read("opened"), PLAIN);
    }
}

/// Puts a key as an original Hydra left it into the stores: shares of the prime field, no check value.
fn import(desk: &Desk, key_id: &str, key: &[u8], iv: &str, spoil: Option<usize>) {
    let grid = GRID.whole();
    let pki = grid.pki().unwrap();
    let urls = grid.urls();
    let endpoints: Vec<StoreEndpoint> = urls
        .iter()
        .map(|url| StoreEndpoint {
            url: url.clone(),
            name: url.clone(),
            id: None,
        })
        .collect();
    let credential = Credential::from_file(desk.variable("X509_USER_PROXY").as_ref(), None).unwrap();
    let trust = TrustStore::directory(pki.certificates(), Policy::client(true)).unwrap();
    let tls = tls::client_config(&credential, Arc::new(trust)).unwrap();
    let stores: Vec<StoreId> = (1..=3).map(|n| format!("store{n}").parse().unwrap()).collect();
    let sharing = Sharing {
        generation: 0,
        m: 2,
        n: 3,
        stores,
        check: None,
    };
    let key_id = KeyId::new(key_id).unwrap();
    let registration_id = import_id(key_id.as_str(), &iv.to_uppercase(), "blowfish", 2);
    let record = PermissionRecord::new(credential.dn(), None, ChangeId::random().unwrap());
    let mut shares = glite::split_bytes(key, 3, 2).unwrap();
    if let Some(place) = spoil {
        let mut bytes = shares[place].expose().to_vec();
        bytes[1] ^= 1;
        shares[place] = hydra_core::secret::SecretBytes::new(bytes);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let clients = client::clients(&endpoints, Timeouts::default(), tls).unwrap();
        for ((client, data), index) in clients.iter().zip(shares).zip(1..) {
            let create = Create {
                key_id: key_id.clone(),
                registration_id,
                cipher: "blowfish".to_owned(),
                key_bits: u32::try_from(key.len() * 8).unwrap(),
                iv: iv.to_owned(),
                sharing: sharing.clone(),
                share: Share {
                    scheme: Scheme::Gf65521,
                    index,
                    m: 2,
                    n: 3,
                    data: ShareData(data),
                },
                permissions: record.clone(),
            };
            let confirm = Confirm {
                key_id: key_id.clone(),
                registration_id,
                sharing: sharing.clone(),
                force: false,
            };
            for message in [Message::Create(Box::new(create)), Message::Confirm(confirm)] {
                let heard = client.ask(&message).await.unwrap();
                assert!(
                    matches!(&heard.said, Said::Changed(changed) if changed.status == Status::Ok),
                    "store {index} refused"
                );
            }
        }
    });
}

/// A file of the original proves nothing: whoever sealed it anew unseen would vouch for what may be damaged.
#[test]
fn rotating_a_key_of_the_original_is_refused_before_anything_is_made() {
    let _whole = GRID.whole();
    let desk = desk();
    let _ = desk.run("eds-key-register --cipher bf-cbc /legacy/turn").exits(0);
    let _ = desk.run("eds-encrypt /legacy/turn plain sealed").exits(0);
    let before = desk.read("sealed");
    let _ = desk
        .run("eds-key-rotate /legacy/turn /legacy/turned sealed")
        .exits(65)
        .says("its cipher is `bf-cbc`")
        .says("try: eds-decrypt /legacy/turn FILE PLAIN, look at it, and eds-encrypt /legacy/turned PLAIN FILE.eds");
    assert_eq!(desk.read("sealed"), before);
    let _ = desk.run("eds-key-status /legacy/turned").exits(77);
}

#[test]
fn an_imported_key_opens_old_files_and_is_said_to_be_unverified() {
    let desk = desk();
    let (key, iv) = ([0x11; 16], "0123456789abcdef");
    import(&desk, "/legacy/imported", &key, iv, None);
    let old = LegacyKey::new("bf-cbc", &key, iv).unwrap();
    let (from, to) = (Input::File(desk.path("plain")), Output::File(desk.path("old")));
    legacy_cbc::seal(&old, &from, &to, &SealOptions::default()).unwrap();
    let mut grid = GRID.alone();
    for command in ["eds-decrypt", "glite-eds-decrypt"] {
        let _ = desk
            .run(&format!("{command} /legacy/imported old {command}"))
            .exits(0)
            .says("was imported and has no check value")
            .says(NO_INTEGRITY);
        assert_eq!(desk.read(command), PLAIN);
    }
    let status = desk.run("eds-key-status /legacy/imported").exits(0);
    let _ = status.prints("2 of 3 (generation 0, confirmed, unverified)");
    let status = desk.run("eds-key-status --json /legacy/imported").exits(0).json();
    assert_eq!(status["stores"][0]["entry"]["sharings"][0]["verified"], false);
    // two are enough
    grid.kill(2);
    let _ = desk.run("eds-decrypt /legacy/imported old opened").exits(0);
    assert_eq!(desk.read("opened"), PLAIN);
    // what is made under it is as the original made it
    let _ = desk.run("eds-encrypt /legacy/imported plain new").exits(0);
    assert_eq!(desk.read("new"), desk.read("old"));
}

/// Nothing proves such a key but that all its shares agree, so whoever seals waits for all, however slow.
#[test]
fn a_wrong_share_of_an_imported_key_is_noticed_before_anything_is_sealed_also_if_a_store_is_slow() {
    let desk = desk();
    import(&desk, "/legacy/spoilt", &[0x22; 16], "0123456789abcdef", Some(1));
    let mut grid = GRID.alone();
    for command in [
        "eds-encrypt /legacy/spoilt plain sealed",
        "eds-key-export /legacy/spoilt --raw sealed",
    ] {
        let _ = desk.run(command).exits(75);
    }
    // an honest one answers long after the hedge delay, and in time
    for honest in [1, 3] {
        grid.hang(honest);
        let sealing = desk.start("eds-encrypt", &["/legacy/spoilt", "plain", "sealed"]);
        std::thread::sleep(std::time::Duration::from_secs(1));
        grid.start_again();
        let ended = sealing.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(75), "{ended:?}");
    }
    assert!(!desk.path("sealed").exists());
}
