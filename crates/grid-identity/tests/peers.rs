//! Against OpenSSL and the VOMS tools: they accept what we make and refuse what we refuse, and we read what they make.
//! Every test here is named `peer_*` and needs `openssl`, or `voms-proxy-fake`, of the system.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use grid_identity::{ChainError, Credential, CredentialError, Identity, Method, Policy, TrustStore};
use testgrid::pki::{KeyKind, Name, Pki, PkiOptions, pem};
use zeroize::Zeroizing;

fn run(program: &mut Command) -> (bool, String) {
    let output = program.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.get_program().display()));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn openssl_verifies(pki: &Pki, credential: &Path) -> (bool, String) {
    let mut openssl = Command::new("openssl");
    openssl.args([
        "verify",
        "-allow_proxy_certs",
        "-crl_check_all",
        "-purpose",
        "sslclient",
        "-auth_level",
        "2",
    ]);
    openssl
        .arg("-CApath")
        .arg(pki.certificates())
        .arg("-untrusted")
        .arg(credential)
        .arg(credential);
    run(&mut openssl)
}

fn verify(trust: &TrustStore, credential: &Path) -> Result<Identity, ChainError> {
    let credential = Credential::from_file(credential, None).unwrap();
    trust.verify_client(credential.chain(), SystemTime::now())
}

fn credentials(pki: &Pki) -> Vec<PathBuf> {
    let folder = fs::read_dir(pki.directory().join("proxies")).unwrap();
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn is_refused(file: &Path) -> bool {
    let name = file.file_name().unwrap().to_string_lossy();
    name.starts_with("dave") || name.starts_with("mallory")
}

#[test]
fn peer_openssl_agrees_about_every_credential_of_our_fabric() {
    for key in [KeyKind::Ec, KeyKind::Rsa] {
        let directory = tempfile::tempdir().unwrap();
        let options = PkiOptions {
            key,
            ..PkiOptions::default()
        };
        let pki = Pki::create(&directory.path().join("pki"), &options).unwrap();
        let trust = TrustStore::directory(pki.certificates(), Policy::server()).unwrap();
        let files = credentials(&pki);
        assert_eq!(files.len(), 21);
        for file in files {
            let (accepted, said) = openssl_verifies(&pki, &file);
            assert_eq!(accepted, !is_refused(&file), "{}: {said}", file.display());
            assert_eq!(verify(&trust, &file).is_ok(), accepted, "{}", file.display());
        }
    }
}

#[test]
fn peer_openssl_finds_our_authorities_by_the_same_hash() {
    let directory = tempfile::tempdir().unwrap();
    for dn in [
        "/DC=org/DC=hydragrid/CN=Hydra Test CA",
        "/C=DE/O=Some  Where /OU=A+B/CN=CA 1",
        "/DC=Org/emailAddress=Ca@Example.ORG/CN=Mixed Case",
    ] {
        let authority = testgrid::pki::Authority::new(dn).unwrap();
        let path = directory.path().join("ca.pem");
        fs::write(&path, authority.pem()).unwrap();
        let (ok, said) = run(Command::new("openssl")
            .args(["x509", "-noout", "-subject_hash", "-in"])
            .arg(&path));
        assert!(ok, "{said}");
        assert_eq!(said.trim(), Name::parse(dn).unwrap().hash(), "{dn}");
    }
}

#[test]
fn peer_openssl_prints_the_same_slash_form() {
    let directory = tempfile::tempdir().unwrap();
    let authority = testgrid::pki::Authority::new("/CN=CA").unwrap();
    let base = Name::parse("/DC=org/C=DE/ST=x/L=y/O=z/OU=ü/UID=7/emailAddress=a@b.c").unwrap();
    for value in ["host/a.example.org", "People/CN=admin", "a+UID=1", "Zoë", "tab\there"] {
        let name = base.with_common_name(value);
        let key = testgrid::pki::Key::generate(KeyKind::Ec).unwrap();
        let der = authority
            .template(name, key.public_der().to_vec(), Vec::new())
            .sign(authority.key())
            .unwrap();
        let path = directory.path().join("cert.pem");
        fs::write(&path, pem("CERTIFICATE", &der)).unwrap();
        let mut openssl = Command::new("openssl");
        let (ok, said) = run(openssl
            .args(["x509", "-noout", "-subject", "-nameopt", "compat", "-in"])
            .arg(&path));
        assert!(ok, "{said}");
        let ours = grid_identity::Certificate::parse(&der).unwrap();
        assert_eq!(said.trim().trim_start_matches("subject=").trim(), ours.dn());
    }
}

#[test]
fn peer_openssl_reads_our_revocation_lists() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::create(&directory.path().join("pki"), &PkiOptions::default()).unwrap();
    let mut openssl = Command::new("openssl");
    openssl
        .args(["crl", "-noout", "-text", "-CApath"])
        .arg(pki.certificates());
    let (ok, said) = run(openssl.arg("-in").arg(pki.certificates().join("HydraTestCA.crl")));
    assert!(
        ok && said.contains("verify OK") && said.matches("Serial Number").count() == 1,
        "{said}"
    );
}

#[test]
fn peer_keys_that_openssl_encrypted_open_with_their_passphrase_alone() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::create(&directory.path().join("pki"), &PkiOptions::default()).unwrap();
    let (certificate, key) = pki.user("alice");
    let encrypted = directory.path().join("encrypted.pem");
    let ask = |text: &'static str| move || Some(Zeroizing::new(text.to_owned()));
    for form in [
        &["pkcs8", "-topk8"][..],
        &["pkcs8", "-topk8", "-scrypt"],
        &["ec", "-aes256"],
    ] {
        let mut openssl = Command::new("openssl");
        openssl
            .args(form)
            .args(["-passout", "pass:right", "-in"])
            .arg(&key)
            .arg("-out")
            .arg(&encrypted);
        let (ok, said) = run(&mut openssl);
        assert!(ok, "{said}");
        fs::set_permissions(&encrypted, fs::Permissions::from_mode(0o600)).unwrap();
        let read = |ask: Option<&dyn Fn() -> Option<Zeroizing<String>>>| {
            Credential::from_cert_and_key(&certificate, &encrypted, ask)
        };
        if form[0] == "ec" {
            assert!(matches!(
                read(Some(&ask("right"))),
                Err(CredentialError::OldEncryption { .. })
            ));
            continue;
        }
        assert_eq!(read(Some(&ask("right"))).unwrap().dn(), pki.user_dn("alice").unwrap());
        assert!(matches!(
            read(Some(&ask("wrong"))),
            Err(CredentialError::WrongPassphrase { .. })
        ));
        assert!(matches!(
            read(Some(&|| None)),
            Err(CredentialError::NoPassphrase { .. })
        ));
        assert!(matches!(read(None), Err(CredentialError::NoPassphrase { .. })));
    }
}

#[test]
fn peer_a_certificate_that_openssl_signed_with_sha1_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let options = PkiOptions {
        key: KeyKind::Rsa,
        ..PkiOptions::default()
    };
    let pki = Pki::create(&directory.path().join("pki"), &options).unwrap();
    let ca = pki.directory().join("ca/trusted");
    let (_, key) = pki.user("alice");
    let request = directory.path().join("request.pem");
    let certificate = directory.path().join("sha1.pem");
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-new", "-subj", "/DC=org/DC=hydragrid/CN=old", "-key"])
        .arg(&key);
    let (ok, said) = run(openssl.arg("-out").arg(&request));
    assert!(ok, "{said}");
    let mut openssl = Command::new("openssl");
    openssl
        .args(["x509", "-req", "-sha1", "-set_serial", "77", "-in"])
        .arg(&request)
        .arg("-CA")
        .arg(ca.join("ca.pem"));
    let (ok, said) = run(openssl
        .arg("-CAkey")
        .arg(ca.join("ca.key"))
        .arg("-out")
        .arg(&certificate));
    assert!(ok, "{said}");
    let credential = Credential::from_cert_and_key(&certificate, &key, None).unwrap();
    let trust = TrustStore::directory(pki.certificates(), Policy::server()).unwrap();
    let refused = trust.verify_client(credential.chain(), SystemTime::now()).unwrap_err();
    assert!(matches!(refused, ChainError::WeakAlgorithm { .. }), "{refused}");
}

/// The fabric that OpenSSL and voms-proxy-fake make, attribute certificates included.
#[test]
fn peer_every_credential_of_a_fabric_made_by_the_grids_own_tools_is_who_it_says_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/peers/make-grid-pki.sh");
    for key in ["ec", "rsa"] {
        let place = directory.path().join(key);
        let (ok, said) = run(Command::new("bash")
            .arg(&script)
            .args(["--quiet", "--key", key])
            .arg(&place));
        assert!(ok, "{said}");
        let pki = Pki::open(&place).unwrap();
        assert_eq!(pki.stores(), 5);
        let trust = TrustStore::directory(pki.certificates(), Policy::server()).unwrap();
        assert_eq!(trust.problems(), []);
        let files = credentials(&pki);
        assert_eq!(files.len(), 21);
        for file in files {
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            let user = name.split('-').next().unwrap();
            match verify(&trust, &file) {
                Ok(identity) => {
                    assert!(!is_refused(&file), "{name}");
                    assert_eq!(identity.dn, pki.user_dn(user).unwrap(), "{name}");
                    let own = name.ends_with("-eec");
                    assert_eq!(
                        identity.method,
                        if own { Method::Certificate } else { Method::Proxy },
                        "{name}"
                    );
                    assert_eq!(identity.limited, name.ends_with("-limited"), "{name}");
                }
                Err(ChainError::Revoked { .. }) => assert_eq!(user, "dave"),
                Err(ChainError::UnknownAuthority { .. }) => assert_eq!(user, "mallory"),
                Err(other) => panic!("{name}: {other}"),
            }
        }
    }
}

/// curl presents a whole proxy chain to a server of ours, over a real socket.
#[test]
fn peer_curl_gets_in_with_a_proxy_and_a_revoked_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::create(&directory.path().join("pki"), &PkiOptions::default()).unwrap();
    let trust = std::sync::Arc::new(TrustStore::directory(pki.certificates(), Policy::server()).unwrap());
    let (certificate, key) = pki.host("keystore1");
    let config = grid_identity::tls::server_config(&certificate, &key, trust.clone()).unwrap();
    let config = std::sync::Arc::new(config);
    for (file, gets_in) in [
        ("alice-plain-delegated", true),
        ("alice-eec", true),
        ("dave-plain", false),
        ("mallory-eec", false),
    ] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = {
            let (config, trust) = (config.clone(), trust.clone());
            std::thread::spawn(move || answer(&listener, config, &trust))
        };
        let credential = pki.proxy(file);
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "20",
            "--cert",
        ])
        .arg(&credential);
        curl.arg("--key")
            .arg(&credential)
            .arg("--capath")
            .arg(pki.certificates());
        let (ok, said) = run(curl.arg(format!("https://localhost:{port}/")));
        server.join().unwrap();
        assert_eq!(ok, gets_in, "{file}: {said}");
        if gets_in {
            assert_eq!(said, pki.user_dn("alice").unwrap());
        }
    }
}

/// Answers one request with the DN of who asks; what goes wrong ends it.
fn answer(listener: &std::net::TcpListener, config: std::sync::Arc<rustls::ServerConfig>, trust: &TrustStore) {
    let (mut socket, _) = listener.accept().unwrap();
    let mut connection = rustls::ServerConnection::new(config).unwrap();
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    let mut request: Vec<u8> = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 1024];
        match std::io::Read::read(&mut stream, &mut piece) {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend(&piece[..count]),
        }
    }
    let chain = stream.conn.peer_certificates().unwrap().to_vec();
    let dn = trust.verify_client(&chain, SystemTime::now()).unwrap().dn;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{dn}",
        dn.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
}
