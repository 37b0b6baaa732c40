//! Against the VOMS tools of the system: we read and verify what `voms-proxy-fake` makes, `voms-proxy-info` reads what
//! we make. Every test here is named `peer_*`.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use grid_identity::{Credential, Identity, Policy, TrustStore, Voms, VomsError};
use testgrid::pki::voms::VomsServer;
use testgrid::pki::{KeyKind, Pki, PkiOptions, Validity};

fn run(program: &mut Command) -> String {
    let output = program.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.get_program().display()));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{}: {text}", program.get_program().display());
    text
}

fn trust(pki: &Pki, host: &str) -> TrustStore {
    let voms = Voms::directory(pki.vomsdir()).for_hosts(vec![host.to_owned()]);
    let trust = TrustStore::directory(pki.certificates(), Policy::server()).unwrap();
    trust.with_voms(voms)
}

fn verify(trust: &TrustStore, file: &Path) -> (Credential, Identity) {
    let credential = Credential::from_file(file, None).unwrap();
    let identity = trust.verify_client(credential.chain(), SystemTime::now()).unwrap();
    (credential, identity)
}

#[test]
fn peer_voms_proxy_fake_gives_groups_and_roles() {
    let directory = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/make-grid-pki.sh");
    for key in ["ec", "rsa"] {
        let place = directory.path().join(key);
        run(Command::new("bash")
            .arg(&script)
            .args(["--quiet", "--key", key])
            .arg(&place));
        let pki = Pki::open(&place).unwrap();
        let trust = trust(&pki, "ks.example.org");
        for (file, fqans) in [
            (
                "alice",
                &["/myvo", "/myvo/physicians", "/myvo/physicians/Role=radiologist"][..],
            ),
            ("alice-physician", &["/myvo", "/myvo/physicians"]),
            (
                "alice-delegated",
                &["/myvo", "/myvo/physicians", "/myvo/physicians/Role=radiologist"],
            ),
            ("bob", &["/myvo", "/myvo/researchers"]),
            ("bob-labvo", &["/labvo", "/labvo/physicians"]),
            ("admin", &["/myvo", "/myvo/Role=hydra-admin"]),
            ("alice-plain", &[]),
            ("carol-eec", &[]),
        ] {
            let (credential, identity) = verify(&trust, &pki.proxy(file));
            assert_eq!(identity.voms_error, None, "{file}");
            assert_eq!(identity.fqans, fqans, "{file}");
            assert_eq!(credential.fqans(), fqans, "{file}");
        }
        let fake = |name: &str, more: &[&str]| {
            let part = |kind: &str, user: &str, file: &str| pki.directory().join(kind).join(user).join(file);
            let mut fake = Command::new("voms-proxy-fake");
            fake.env("HOME", directory.path())
                .args(["-rfc", "-quiet", "-bits", "2048", "-hours", "4", "-voms", "myvo"])
                .args([
                    "-uri",
                    "voms.hydragrid.example:15000",
                    "-fqan",
                    "/myvo/Role=NULL/Capability=NULL",
                ])
                .arg("-cert")
                .arg(part("users", "bob", "usercert.pem"))
                .arg("-key")
                .arg(part("users", "bob", "userkey.pem"))
                .arg("-certdir")
                .arg(pki.certificates())
                .arg("-hostcert")
                .arg(part("voms", "myvo", "hostcert.pem"))
                .arg("-hostkey")
                .arg(part("voms", "myvo", "hostkey.pem"))
                .arg("-out")
                .arg(pki.proxy(name))
                .args(more);
            run(&mut fake);
            verify(&trust, &pki.proxy(name)).1
        };
        // This tool writes an empty list of hosts whichever it is given: for no host at all.
        let targeted = fake("targeted", &["-target", "ks.example.org"]);
        assert!(
            matches!(targeted.voms_error, Some(VomsError::Targets { .. })),
            "{targeted:?}"
        );
        let tailed = fake("tailed", &[]);
        assert_eq!((tailed.fqans, tailed.voms_error), (vec!["/myvo".to_owned()], None));
        let foreign = fake("foreign", &["-fqan", "/labvo"]);
        assert!(
            matches!(foreign.voms_error, Some(VomsError::ForeignFqan { .. })),
            "{foreign:?}"
        );
        let lost = fake("lost", &["-uri", "../myvo/voms.hydragrid.example:15000"]);
        assert!(matches!(lost.voms_error, Some(VomsError::Authority { .. })), "{lost:?}");
    }
}

#[test]
fn peer_voms_proxy_info_reads_what_we_sign() {
    let directory = tempfile::tempdir().unwrap();
    let options = PkiOptions {
        key: KeyKind::Rsa,
        ..PkiOptions::default()
    };
    let pki = Pki::create(&directory.path().join("pki"), &options).unwrap();
    let authority = pki.authority().unwrap();
    let host = "voms.hydragrid.example";
    let own = authority.host_with(
        &format!("/DC=org/DC=hydragrid/OU=Hosts/CN={host}"),
        &[host],
        KeyKind::Rsa,
    );
    let server = VomsServer::with(authority, "myvo", host, own.unwrap());
    let lsc = pki.vomsdir().join(server.lsc_path());
    fs::create_dir_all(lsc.parent().unwrap()).unwrap();
    fs::write(&lsc, server.lsc()).unwrap();
    let alice = authority
        .user_with(pki.user_dn("alice").unwrap(), KeyKind::Rsa, Validity::usual())
        .unwrap();
    let fqans = ["/myvo/physicians/Role=radiologist", "/myvo"];
    let path = pki.proxy("ours");
    fs::write(&path, server.proxy(&alice, &fqans).unwrap().credential_pem()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(verify(&trust(&pki, "x"), &path).1.fqans, fqans);
    let mut info = Command::new("voms-proxy-info");
    info.env("X509_CERT_DIR", pki.certificates())
        .env("X509_VOMS_DIR", pki.vomsdir())
        .env("HOME", directory.path());
    let said = run(info.arg("-fqan").arg("-file").arg(&path));
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with('/'))
        .collect();
    let plain: Vec<&str> = lines
        .iter()
        .map(|line| line.trim_end_matches("/Capability=NULL").trim_end_matches("/Role=NULL"))
        .collect();
    assert_eq!(plain, fqans, "{said}");
}
