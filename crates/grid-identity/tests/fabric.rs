//! A whole fabric as the test grid lays it out: who gets in, who is refused and why, and that changes are noticed.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;
use std::time::{Duration, SystemTime};

use grid_identity::{ChainError, Credential, Identity, Method, Policy, TrustStore, Voms};
use testgrid::pki::{MEMBERS, Pki, PkiOptions};

fn fabric() -> (tempfile::TempDir, Pki) {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::create(&directory.path().join("pki"), &PkiOptions::default()).unwrap();
    (directory, pki)
}

fn verify(trust: &TrustStore, credential: &Path) -> Result<Identity, ChainError> {
    let credential = Credential::from_file(credential, None).unwrap();
    trust.verify_client(credential.chain(), SystemTime::now())
}

#[test]
fn every_credential_of_the_fabric_is_who_it_says_or_refused() {
    let (_directory, pki) = fabric();
    let trust = TrustStore::directory(pki.certificates(), Policy::server()).unwrap();
    assert_eq!(trust.problems(), []);
    assert_eq!(trust.authorities(), ["/DC=org/DC=hydragrid/CN=Hydra Test CA"]);
    for user in ["alice", "bob", "carol", "admin"] {
        let dn = pki.user_dn(user).unwrap();
        let own = verify(&trust, &pki.proxy(&format!("{user}-eec"))).unwrap();
        assert_eq!(
            (own.dn.as_str(), own.method, own.limited),
            (dn, Method::Certificate, false)
        );
        let proxy = verify(&trust, &pki.proxy(&format!("{user}-plain"))).unwrap();
        assert_eq!(
            (proxy.dn.as_str(), proxy.method, proxy.limited),
            (dn, Method::Proxy, false)
        );
        assert!(proxy.not_after < own.not_after, "the proxy ends first");
    }
    let delegated = verify(&trust, &pki.proxy("alice-plain-delegated")).unwrap();
    assert_eq!(delegated.dn, pki.user_dn("alice").unwrap());
    assert!(verify(&trust, &pki.proxy("alice-limited")).unwrap().limited);
    for file in ["dave-eec", "dave-plain"] {
        let refused = verify(&trust, &pki.proxy(file)).unwrap_err();
        assert!(
            matches!(&refused, ChainError::Revoked { dn } if dn.ends_with("/CN=dave")),
            "{refused}"
        );
    }
    for file in ["mallory-eec", "mallory-plain"] {
        let refused = verify(&trust, &pki.proxy(file)).unwrap_err();
        assert!(matches!(&refused, ChainError::UnknownAuthority { .. }), "{refused}");
    }
}

#[test]
fn members_of_the_vos_have_their_groups_and_roles_and_others_have_none() {
    let (_directory, pki) = fabric();
    let trust = TrustStore::directory(pki.certificates(), Policy::server()).unwrap();
    let trust = trust.with_voms(Voms::directory(pki.vomsdir()));
    for (name, user, _, fqans) in MEMBERS {
        let seen = verify(&trust, &pki.proxy(name));
        if *user == "dave" {
            assert!(matches!(seen, Err(ChainError::Revoked { .. })), "{seen:?}");
            continue;
        }
        let seen = seen.unwrap();
        assert_eq!(seen.dn, pki.user_dn(user).unwrap());
        assert_eq!(seen.fqans, *fqans, "{name}");
    }
    let delegated = verify(&trust, &pki.proxy("alice-delegated")).unwrap();
    assert_eq!(delegated.fqans, MEMBERS[0].3);
    for name in ["alice-plain", "carol-plain", "admin-eec"] {
        assert!(verify(&trust, &pki.proxy(name)).unwrap().fqans.is_empty(), "{name}");
    }
    assert_eq!(pki.working_proxy("alice"), pki.proxy("alice"));
    assert_eq!(pki.working_proxy("carol"), pki.proxy("carol-plain"));
}

#[test]
fn a_revocation_is_noticed_without_a_restart_also_for_a_chain_that_verified_before() {
    let (_directory, mut pki) = fabric();
    let trust = TrustStore::directory(pki.certificates(), Policy::server())
        .unwrap()
        .with_interval(Duration::ZERO);
    let bob = Credential::from_file(&pki.proxy("bob-plain"), None).unwrap();
    let alice = Credential::from_file(&pki.proxy("alice-plain"), None).unwrap();
    let now = SystemTime::now();
    let verified = trust.verify(bob.chain(), now).unwrap();
    let others = trust.verify(alice.chain(), now).unwrap();
    trust.recheck(&verified, now).unwrap();

    let serial = serial(&bob.chain()[1]);
    pki.authority_mut().unwrap().revoke_serial(serial);
    pki.write_crl().unwrap();
    let refused = trust.recheck(&verified, now).unwrap_err();
    assert!(matches!(refused, ChainError::Revoked { .. }), "{refused}");
    assert!(trust.verify_client(bob.chain(), now).is_err());
    trust.recheck(&others, now).unwrap();
}

fn serial(certificate: &[u8]) -> u64 {
    testgrid::pki::serial_of(certificate).unwrap()
}

#[test]
fn a_chain_that_verified_ends_with_its_dates() {
    let (_directory, pki) = fabric();
    let trust = TrustStore::directory(pki.certificates(), Policy::server()).unwrap();
    let alice = Credential::from_file(&pki.proxy("alice-plain"), None).unwrap();
    let verified = trust.verify(alice.chain(), SystemTime::now()).unwrap();
    let end = alice.not_after();
    trust.recheck(&verified, end).unwrap();
    let refused = trust.recheck(&verified, end + Duration::from_secs(1)).unwrap_err();
    assert!(matches!(&refused, ChainError::Expired { .. }), "{refused}");
    assert_eq!(alice.expired_since(end), None);
    assert_eq!(alice.expired_since(end + Duration::from_secs(1)), Some(end));
}

#[test]
fn servers_fail_closed_and_clients_check_what_is_there() {
    type Expected = fn(&ChainError) -> bool;
    let no_list: Expected = |error| matches!(error, ChainError::NoRevocationList { .. });
    let no_policy: Expected = |error| matches!(error, ChainError::NoSigningPolicy { .. });
    for (missing, expected) in [
        (&["HydraTestCA.crl"][..], no_list),
        (&["HydraTestCA.signing_policy", "HydraTestCA.namespaces"][..], no_policy),
    ] {
        let (_directory, pki) = fabric();
        let server = TrustStore::directory(pki.certificates(), Policy::server())
            .unwrap()
            .with_interval(Duration::ZERO);
        verify(&server, &pki.proxy("alice-plain")).unwrap();
        for file in missing {
            std::fs::remove_file(pki.certificates().join(file)).unwrap();
        }
        let refused = verify(&server, &pki.proxy("alice-plain")).unwrap_err();
        assert!(expected(&refused), "{missing:?}: {refused}");
        let client = TrustStore::directory(pki.certificates(), Policy::client(false)).unwrap();
        verify(&client, &pki.proxy("alice-plain")).unwrap();
        let strict = TrustStore::directory(pki.certificates(), Policy::client(true)).unwrap();
        assert_eq!(
            verify(&strict, &pki.proxy("alice-plain")).is_err(),
            missing == ["HydraTestCA.crl"]
        );
    }
}

#[test]
fn a_list_that_should_have_been_replaced_refuses_at_servers_but_still_revokes_at_clients() {
    let (_directory, pki) = fabric();
    let later = SystemTime::now() + Duration::from_secs(30 * 86_400 - 3600 + 7200);
    let alice = Credential::from_file(&pki.proxy("alice-eec"), None).unwrap();
    let dave = Credential::from_file(&pki.proxy("dave-eec"), None).unwrap();
    // Certificates and the list end within the same seconds: replace the list by one that ends tomorrow.
    let authority = pki.authority().unwrap();
    let now = later.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64 - 30 * 86_400;
    let short = authority
        .crl_with(testgrid::pki::Validity {
            from: now,
            to: now + 86_400,
        })
        .unwrap();
    std::fs::write(
        pki.certificates().join("HydraTestCA.crl"),
        testgrid::pki::pem("X509 CRL", &short),
    )
    .unwrap();

    let at = SystemTime::now() + Duration::from_secs(3 * 86_400);
    let server = TrustStore::directory(pki.certificates(), Policy::server()).unwrap();
    let refused = server.verify_client(alice.chain(), at).unwrap_err();
    assert!(
        matches!(&refused, ChainError::RevocationListExpired { .. }),
        "{refused}"
    );
    let client = TrustStore::directory(pki.certificates(), Policy::client(false)).unwrap();
    client.verify_client(alice.chain(), at).unwrap();
    assert!(matches!(
        client.verify_client(dave.chain(), at),
        Err(ChainError::Revoked { .. })
    ));
}

#[test]
fn a_chain_that_verified_is_looked_at_again_when_the_revocation_list_runs_out() {
    let (_directory, pki) = fabric();
    let now = SystemTime::now();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    let short = testgrid::pki::Validity {
        from: seconds - 60,
        to: seconds + 3600,
    };
    let list = pki.authority().unwrap().crl_with(short).unwrap();
    std::fs::write(
        pki.certificates().join("HydraTestCA.crl"),
        testgrid::pki::pem("X509 CRL", &list),
    )
    .unwrap();
    let server = TrustStore::directory(pki.certificates(), Policy::server()).unwrap();
    let alice = Credential::from_file(&pki.proxy("alice-plain"), None).unwrap();
    let verified = server.verify(alice.chain(), now).unwrap();
    server.recheck(&verified, now + Duration::from_secs(3000)).unwrap();
    let refused = server.recheck(&verified, now + Duration::from_secs(7200)).unwrap_err();
    assert!(matches!(refused, ChainError::RevocationListExpired { .. }), "{refused}");
}
