//! Handshakes between our two ends, in memory: who gets in, who does not, and that nothing is resumed.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use grid_identity::{ChainError, Credential, Policy, TrustStore, tls};
use rustls::{ClientConfig, ClientConnection, Error, ProtocolVersion, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, ServerName};
use testgrid::pki::{Pki, PkiOptions, ProxyOptions};

struct Ends {
    _directory: tempfile::TempDir,
    pki: Pki,
    server: Arc<ServerConfig>,
}

fn ends() -> Ends {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::create(&directory.path().join("pki"), &PkiOptions::default()).unwrap();
    let trust = TrustStore::directory(pki.certificates(), Policy::server()).unwrap();
    let (certificate, key) = pki.host("keystore1");
    let server = Arc::new(tls::server_config(&certificate, &key, Arc::new(trust)).unwrap());
    Ends {
        _directory: directory,
        pki,
        server,
    }
}

impl Ends {
    fn client(&self, credential: &Path) -> Arc<ClientConfig> {
        let credential = Credential::from_file(credential, None).unwrap();
        let trust = TrustStore::directory(self.pki.certificates(), Policy::client(false)).unwrap();
        Arc::new(tls::client_config(&credential, Arc::new(trust)).unwrap())
    }
}

/// What went wrong at the server, and at the client.
type Faults = Box<(Option<Error>, Option<Error>)>;

/// Runs a handshake to its end, or to the first error: of the server, then of the client.
fn shake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &'static str,
) -> Result<(ClientConnection, ServerConnection), Faults> {
    let mut client = ClientConnection::new(Arc::clone(client), ServerName::try_from(name).unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let mut faults = (None, None);
    for _ in 0..16 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() && faults.0.is_none() {
            server.read_tls(&mut rest).unwrap();
            faults.0 = server.process_new_packets().err();
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() && faults.1.is_none() {
            client.read_tls(&mut rest).unwrap();
            faults.1 = client.process_new_packets().err();
        }
    }
    if faults.0.is_some() || faults.1.is_some() {
        return Err(Box::new(faults));
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

#[test]
fn certificates_and_proxies_get_in_and_the_server_knows_whose_they_are() {
    let ends = ends();
    let trust = TrustStore::directory(ends.pki.certificates(), Policy::server()).unwrap();
    for file in ["alice-eec", "alice-plain", "alice-plain-delegated", "alice-limited"] {
        let (client, server) = shake(&ends.client(&ends.pki.proxy(file)), &ends.server, "localhost").unwrap();
        assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        let identity = trust
            .verify_client(server.peer_certificates().unwrap(), SystemTime::now())
            .unwrap();
        assert_eq!(identity.dn, ends.pki.user_dn("alice").unwrap(), "{file}");
    }
}

#[test]
fn hosts_are_known_by_name_and_by_address() {
    let ends = ends();
    let client = ends.client(&ends.pki.proxy("bob-plain"));
    for name in ["localhost", "127.0.0.1", "::1", "keystore1.hydragrid.example"] {
        shake(&client, &ends.server, name).unwrap();
    }
    let (_, fault) = *shake(&client, &ends.server, "keystore2.hydragrid.example").unwrap_err();
    let fault = fault.unwrap();
    assert!(
        matches!(tls::refusal(&fault), Some(ChainError::ServerName { .. })),
        "{fault}"
    );
}

#[test]
fn revoked_and_unknown_users_fail_the_handshake_and_are_told_why() {
    let ends = ends();
    for (file, words) in [
        ("dave-plain", "CertificateRevoked"),
        ("dave-eec", "CertificateRevoked"),
        ("mallory-plain", "UnknownCA"),
    ] {
        let (server, client) = *shake(&ends.client(&ends.pki.proxy(file)), &ends.server, "localhost").unwrap_err();
        assert!(server.is_some(), "{file}");
        let told = client.unwrap().to_string();
        assert!(told.contains(words), "{file}: {told}");
    }
}

#[test]
fn nobody_gets_in_without_a_certificate_unless_the_server_says_so() {
    let ends = ends();
    let provider = Arc::clone(tls::provider());
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from(ends.pki.authority().unwrap().certificate()))
        .unwrap();
    let anonymous = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let anonymous = Arc::new(anonymous);
    assert!(shake(&anonymous, &ends.server, "localhost").unwrap_err().0.is_some());

    let trust = Arc::new(TrustStore::directory(ends.pki.certificates(), Policy::server()).unwrap());
    let (certificate, key) = ends.pki.host("keystore1");
    let optional = tls::ClientCertificate::Optional;
    let lenient = Arc::new(tls::server_config_with(&certificate, &key, trust, optional).unwrap());
    let (_, server) = shake(&anonymous, &lenient, "localhost").unwrap();
    assert!(server.peer_certificates().is_none());
    assert!(shake(&ends.client(&ends.pki.proxy("dave-eec")), &lenient, "localhost").is_err());
}

#[test]
fn a_second_connection_is_verified_like_the_first() {
    let ends = ends();
    let client = ends.client(&ends.pki.proxy("alice-plain"));
    for _ in 0..3 {
        let (client, server) = shake(&client, &ends.server, "localhost").unwrap();
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(server.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[test]
fn a_proxy_may_not_pose_as_a_server_nor_a_user_as_a_host() {
    let ends = ends();
    let directory = tempfile::tempdir().unwrap();
    let host = ends
        .pki
        .authority()
        .unwrap()
        .host("/DC=org/DC=hydragrid/CN=h", &["localhost"])
        .unwrap();
    let proxy = host.proxy(&ProxyOptions::default()).unwrap();
    let user = ends.pki.authority().unwrap().user("/DC=org/DC=hydragrid/CN=u").unwrap();
    for (what, issued) in [("proxy", &proxy), ("user", &user)] {
        let path = directory.path().join(what);
        write_private(&path, &issued.credential_pem());
        let trust = Arc::new(TrustStore::directory(ends.pki.certificates(), Policy::server()).unwrap());
        let server = Arc::new(tls::server_config(&path, &path, trust).unwrap());
        let client = ends.client(&ends.pki.proxy("alice-plain"));
        let fault = shake(&client, &server, "localhost").unwrap_err().1.unwrap();
        let refused = tls::refusal(&fault).unwrap();
        assert!(
            matches!(
                refused,
                ChainError::ProxyExtension { .. } | ChainError::Purpose { purpose: "servers", .. }
            ),
            "{what}: {refused}"
        );
    }
}

#[test]
fn a_client_believes_no_server_that_is_revoked() {
    let mut ends = ends();
    let (certificate, _) = ends.pki.host("keystore1");
    let client = ends.client(&ends.pki.proxy("alice-plain"));
    let host = Credential::from_cert_and_key(&certificate, &ends.pki.host("keystore1").1, None).unwrap();
    let serial = testgrid::pki::serial_of(&host.chain()[0]).unwrap();
    ends.pki.authority_mut().unwrap().revoke_serial(serial);
    ends.pki.write_crl().unwrap();
    // a client that has read the lists before learns it at its next look, a new one at once
    shake(&client, &ends.server, "localhost").unwrap();
    let client = ends.client(&ends.pki.proxy("alice-plain"));
    let fault = shake(&client, &ends.server, "localhost").unwrap_err().1.unwrap();
    assert!(
        matches!(tls::refusal(&fault), Some(ChainError::Revoked { .. })),
        "{fault}"
    );
}

#[test]
fn a_kept_connection_is_told_when_its_client_was_revoked() {
    let mut ends = ends();
    let trust = TrustStore::directory(ends.pki.certificates(), Policy::server()).unwrap();
    let trust = trust.with_interval(Duration::ZERO);
    let (_, server) = shake(&ends.client(&ends.pki.proxy("bob-plain")), &ends.server, "localhost").unwrap();
    let verified = trust
        .verify(server.peer_certificates().unwrap(), SystemTime::now())
        .unwrap();
    trust.recheck(&verified, SystemTime::now()).unwrap();
    let own = &server.peer_certificates().unwrap()[1];
    ends.pki
        .authority_mut()
        .unwrap()
        .revoke_serial(testgrid::pki::serial_of(own).unwrap());
    ends.pki.write_crl().unwrap();
    assert!(matches!(
        trust.recheck(&verified, SystemTime::now()),
        Err(ChainError::Revoked { .. })
    ));
}

fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
