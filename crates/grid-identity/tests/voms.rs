//! Groups and roles: which attribute certificates give them, and every way to be refused.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use grid_identity::{ChainError, Credential, Identity, Policy, TrustStore, Voms, VomsError};
use rustls_pki_types::CertificateDer;
use testgrid::pki::voms::{AttributeTemplate, VomsServer, carrying, carrying_raw, targets};
use testgrid::pki::{Authority, Extension, Issued, Key, KeyKind, Name, Pki, PkiOptions, ProxyOptions, Validity};

const FQANS: &[&str] = &["/myvo", "/myvo/physicians/Role=radiologist"];
const HOST: &str = "voms.hydragrid.example";

struct Site {
    _directory: tempfile::TempDir,
    pki: Pki,
    server: VomsServer,
    alice: Issued,
    trust: TrustStore,
}

fn site() -> Site {
    let directory = tempfile::tempdir().unwrap();
    let pki = Pki::create(&directory.path().join("pki"), &PkiOptions::default()).unwrap();
    // each test vouches for whom it wants
    fs::remove_dir_all(pki.vomsdir()).unwrap();
    let authority = pki.authority().unwrap();
    let server = VomsServer::new(authority, "myvo", HOST).unwrap();
    let alice = authority.user(pki.user_dn("alice").unwrap()).unwrap();
    let voms = Voms::directory(pki.vomsdir())
        .for_hosts(vec!["ks.example.org".to_owned()])
        .with_interval(Duration::ZERO);
    let trust = TrustStore::directory(pki.certificates(), Policy::server()).unwrap();
    let trust = trust.with_interval(Duration::ZERO).with_voms(voms);
    let site = Site {
        _directory: directory,
        pki,
        server,
        alice,
        trust,
    };
    site.publish(&site.server);
    site
}

impl Site {
    fn authority(&self) -> &Authority {
        self.pki.authority().unwrap()
    }

    fn publish(&self, server: &VomsServer) {
        self.write_lsc(server, server.lsc().as_bytes());
    }

    fn write_lsc(&self, server: &VomsServer, text: &[u8]) {
        let path = self.pki.vomsdir().join(server.lsc_path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn template(&self) -> AttributeTemplate {
        self.server.template(&self.alice, FQANS)
    }

    fn with(&self, attributes: &[Vec<u8>]) -> Identity {
        self.see(&self.alice.proxy(&carrying(attributes)).unwrap())
    }

    fn see(&self, issued: &Issued) -> Identity {
        let identity = self.trust.verify_client(&chain(issued), SystemTime::now()).unwrap();
        assert_eq!(identity.dn, self.pki.user_dn("alice").unwrap());
        identity
    }

    /// Why the attribute certificate gives nothing.
    fn refused(&self, template: &AttributeTemplate) -> VomsError {
        nothing(self.with(&[self.server.sign(template).unwrap()]))
    }
}

fn chain(issued: &Issued) -> Vec<CertificateDer<'static>> {
    issued.chain().iter().cloned().map(CertificateDer::from).collect()
}

fn nothing(identity: Identity) -> VomsError {
    assert_eq!(identity.fqans, Vec::<String>::new());
    identity.voms_error.unwrap()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

#[test]
fn groups_and_roles_come_in_order_without_what_means_nothing() {
    let site = site();
    let fqans = [
        "/myvo/physicians/Role=NULL/Capability=NULL",
        "/myvo/Role=NULL",
        "/myvo",
        "/myvo/physicians/Role=radiologist/Capability=NULL",
    ];
    let seen = site.see(&site.server.proxy(&site.alice, &fqans).unwrap());
    assert_eq!(
        seen.fqans,
        ["/myvo/physicians", "/myvo", "/myvo/physicians/Role=radiologist"]
    );
    assert_eq!(seen.voms_error, None);
}

#[test]
fn without_an_attribute_certificate_or_without_voms_there_are_no_groups_and_nothing_is_wrong() {
    let site = site();
    let plain = site.alice.proxy(&ProxyOptions::default()).unwrap();
    for issued in [&plain, &site.alice] {
        let seen = site.see(issued);
        assert_eq!((seen.fqans, seen.voms_error), (Vec::new(), None));
    }
    let trust = TrustStore::directory(site.pki.certificates(), Policy::server()).unwrap();
    let proxy = site.server.proxy(&site.alice, FQANS).unwrap();
    let seen = trust.verify_client(&chain(&proxy), SystemTime::now()).unwrap();
    assert_eq!((seen.fqans, seen.voms_error), (Vec::new(), None));
}

#[test]
fn what_is_not_quite_as_the_standard_says_but_in_use_is_accepted() {
    let site = site();
    type Change = fn(&Site, &mut AttributeTemplate);
    let cases: &[(&str, Change)] = &[
        ("holder by issuer", |site, it| {
            it.holder = site.authority().name().clone();
        }),
        ("a clock that is ahead", |_, it| it.validity.from = now() + 200),
        ("unknown extension", |_, it| {
            it.extensions.push(Extension::new("1.2.3", false, vec![5, 0]));
        }),
        ("for this host", |_, it| {
            it.extensions.push(targets(&["a.org", "KS.example.org"], false));
        }),
        ("for this host, as VOMS says it", |_, it| {
            it.extensions
                .push(targets(&["https://ks.example.org:8443", "a.org"], true));
        }),
        ("with the authority's certificate", |site, it| {
            it.signers.push(site.authority().certificate().to_vec());
        }),
    ];
    for (what, change) in cases {
        let mut template = site.template();
        change(&site, &mut template);
        let seen = site.with(&[site.server.sign(&template).unwrap()]);
        assert_eq!(
            (seen.voms_error, seen.fqans.as_slice()),
            (None, &FQANS.map_owned()[..]),
            "{what}"
        );
    }
}

trait MapOwned {
    fn map_owned(&self) -> Vec<String>;
}

impl MapOwned for [&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|&text| text.to_owned()).collect()
    }
}

#[test]
fn forged_attribute_certificates_give_nothing() {
    type Change = fn(&Site, &mut AttributeTemplate);
    type Expected = fn(&VomsError) -> bool;
    let site = site();
    let cases: &[(&str, Change, Expected)] = &[
        (
            "of somebody else",
            |site, it| it.holder = Name::parse(site.pki.user_dn("bob").unwrap()).unwrap(),
            |error| matches!(error, VomsError::Holder { .. }),
        ),
        (
            "of the proxy, not of its owner",
            |_, it| it.holder = it.holder.with_common_name("1"),
            |error| matches!(error, VomsError::Holder { .. }),
        ),
        (
            "of another certificate",
            |_, it| it.holder_serial += 1,
            |error| matches!(error, VomsError::HolderSerial { .. }),
        ),
        (
            "expired",
            |_, it| it.validity.to = now() - 2,
            |error| matches!(error, VomsError::Expired { .. }),
        ),
        (
            "not yet valid",
            |_, it| it.validity.from = now() + 600,
            |error| matches!(error, VomsError::NotYetValid { .. }),
        ),
        (
            "another VO's group",
            |_, it| it.fqans.push(b"/labvo".to_vec()),
            |error| matches!(error, VomsError::ForeignFqan { .. }),
        ),
        (
            "a VO whose name begins alike",
            |_, it| it.fqans.push(b"/myvox/a".to_vec()),
            |error| matches!(error, VomsError::ForeignFqan { .. }),
        ),
        (
            "a group with a line break",
            |_, it| it.fqans.push(b"/myvo/a\n/labvo".to_vec()),
            |error| matches!(error, VomsError::Fqan { fqan } if fqan == "/myvo/a\\n/labvo"),
        ),
        (
            "a group of 64 KiB",
            |_, it| it.fqans.push([&b"/myvo/"[..], &[b'a'; 65536]].concat()),
            |error| matches!(error, VomsError::Fqan { fqan } if fqan.len() < 200),
        ),
        (
            "ten thousand groups",
            |_, it| it.fqans = vec![b"/myvo".to_vec(); 10_000],
            |error| matches!(error, VomsError::TooMany { .. }),
        ),
        (
            "a VO that leaves the directory",
            |_, it| it.uri = format!("../vomsdir/myvo://{HOST}:15000"),
            |error| matches!(error, VomsError::Authority { .. }),
        ),
        (
            "a host that leaves the directory",
            |_, it| it.uri = format!("myvo://../myvo/{HOST}:15000"),
            |error| matches!(error, VomsError::Authority { .. }),
        ),
        (
            "another host without LSC file",
            |_, it| it.uri = "myvo://other.example.org:15000".to_owned(),
            |error| matches!(error, VomsError::NoLsc { .. }),
        ),
        (
            "another VO without folder",
            |_, it| {
                it.uri = format!("labvo://{HOST}:15000");
                it.fqans = vec![b"/labvo".to_vec()];
            },
            |error| matches!(error, VomsError::NoLsc { .. }),
        ),
        (
            "unknown critical extension",
            |_, it| it.extensions.push(Extension::new("1.2.3", true, vec![5, 0])),
            |error| matches!(error, VomsError::UnknownExtension { oid, .. } if oid == "1.2.3"),
        ),
        (
            "one extension twice",
            |_, it| {
                it.extensions
                    .extend([targets(&["ks.example.org"], false), targets(&["a"], false)]);
            },
            |error| matches!(error, VomsError::Malformed(_)),
        ),
        (
            "for another host",
            |_, it| it.extensions.push(targets(&["other.example.org"], false)),
            |error| matches!(error, VomsError::Targets { .. }),
        ),
        (
            "for another host, as VOMS says it",
            |_, it| it.extensions.push(targets(&["x.ks.example.org"], true)),
            |error| matches!(error, VomsError::Targets { .. }),
        ),
        (
            "for no host",
            |_, it| it.extensions.push(targets(&[], false)),
            |error| matches!(error, VomsError::Targets { .. }),
        ),
        (
            "without the server's certificate",
            |_, it| it.signers.clear(),
            |error| matches!(error, VomsError::NoSigner { .. }),
        ),
        (
            "by somebody else than it says",
            |_, it| it.issuer = Name::parse("/CN=somebody else").unwrap(),
            |error| matches!(error, VomsError::Issuer { .. }),
        ),
        (
            "with certificates that are no chain",
            |site, it| it.signers.push(site.alice.chain()[0].clone()),
            |error| matches!(error, VomsError::SignerOrder { .. }),
        ),
        (
            "with a hundred certificates",
            |_, it| it.signers = vec![it.signers[0].clone(); 100],
            |error| matches!(error, VomsError::TooMany { .. }),
        ),
        (
            "labelled with MD5",
            |_, it| it.algorithm = Some(b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04\x05\x00".to_vec()),
            |error| matches!(error, VomsError::Algorithm { .. }),
        ),
        (
            "labelled with RSA and SHA-1, by a key that is no RSA key",
            |_, it| it.algorithm = Some(b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00".to_vec()),
            |error| matches!(error, VomsError::Signature { .. }),
        ),
    ];
    for (what, change, expected) in cases {
        let mut template = site.template();
        change(&site, &mut template);
        let error = site.refused(&template);
        assert!(expected(&error), "{what}: {}", error.in_full());
        assert!(!error.in_full().contains(char::is_control), "{what}: {error:?}");
    }
}

#[test]
fn a_signature_by_another_key_is_none() {
    let site = site();
    let other = Key::generate(KeyKind::Ec).unwrap();
    let error = nothing(site.with(&[site.template().sign(&other).unwrap()]));
    assert!(matches!(error, VomsError::Signature { .. }), "{error}");
    // Nor does the user's own key do, whatever certificate comes along.
    let error = nothing(site.with(&[site.template().sign(site.alice.key()).unwrap()]));
    assert!(matches!(error, VomsError::Signature { .. }), "{error}");
}

#[test]
fn no_changed_bit_of_an_attribute_certificate_goes_unnoticed() {
    let site = site();
    let mut template = site.template();
    template.fqans.truncate(1);
    let good = site.server.sign(&template).unwrap();
    assert_eq!(site.with(std::slice::from_ref(&good)).fqans, ["/myvo"]);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        nothing(site.with(&[bad]));
    }
}

#[test]
fn garbage_gives_nothing() {
    let site = site();
    let good = site.server.sign(&site.template()).unwrap();
    let see = |value: Vec<u8>| nothing(site.see(&site.alice.proxy(&carrying_raw(value)).unwrap()));
    for value in [
        Vec::new(),
        vec![0x30, 0],
        vec![0x30, 2, 0x30, 0],
        vec![0xff; 300],
        vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        [0x30, 0x80].repeat(20_000),
        good.clone(),
    ] {
        let error = see(value);
        assert!(matches!(error, VomsError::Malformed(_)), "{error}");
    }
    for step in 1..20 {
        let cut = good[..good.len() * step / 20].to_vec();
        let error = nothing(site.with(&[cut]));
        assert!(matches!(error, VomsError::Malformed(_)), "{error}");
    }
    let many: Vec<Vec<u8>> = vec![vec![0x30, 0]; 17];
    assert!(matches!(nothing(site.with(&many)), VomsError::TooMany { .. }));
}

#[test]
fn lsc_files_say_whom_to_believe_at_once() {
    let site = site();
    let proxy = site.server.proxy(&site.alice, FQANS).unwrap();
    let dn = site.server.own().dn();
    for (text, believed) in [
        (format!("{dn}\n/DC=org/CN=Other CA\n"), false),
        (format!("/CN=other\n{}\n", site.authority().name().slash()), false),
        (format!("{dn}\n"), false),
        (format!("{dn}\nno DN\n"), false),
        (format!("/CN=a\n/CN=b\n------ NEXT\n{}", site.server.lsc()), true),
    ] {
        site.write_lsc(&site.server, text.as_bytes());
        let seen = site.see(&proxy);
        assert_eq!(!seen.fqans.is_empty(), believed, "{text}: {:?}", seen.voms_error);
        let expected = |error: &VomsError| matches!(error, VomsError::LscMismatch { .. } | VomsError::Lsc { .. });
        assert_eq!(seen.voms_error.as_ref().is_some_and(expected), !believed, "{text}");
    }
    let path = site.pki.vomsdir().join(site.server.lsc_path());
    fs::remove_file(&path).unwrap();
    assert!(matches!(nothing(site.see(&proxy)), VomsError::NoLsc { .. }));
    fs::create_dir(&path).unwrap();
    assert!(matches!(nothing(site.see(&proxy)), VomsError::Lsc { .. }));
}

#[test]
fn servers_are_checked_like_everybody_else() {
    type Expected = fn(&ChainError) -> bool;
    let mut site = site();
    let authority = site.authority();
    let elsewhere = Authority::new("/DC=org/DC=elsewhere/CN=Unknown CA").unwrap();
    let dn = "/DC=org/DC=hydragrid/OU=Hosts/CN=voms";
    let made = |dn: &str, change: &dyn Fn(&mut testgrid::pki::Template)| {
        let key = Key::generate(KeyKind::Ec).unwrap();
        let extensions = authority.usual_extensions(&key);
        let mut template = authority.template(Name::parse(dn).unwrap(), key.public_der().to_vec(), extensions);
        change(&mut template);
        VomsServer::with(authority, "myvo", "other", authority.issue(template, key).unwrap())
    };
    let revoked = made(dn, &|_| {});
    let serial = testgrid::pki::serial_of(&revoked.own().chain()[0]).unwrap();
    let fine = made(dn, &|_| {});
    let old = Validity {
        from: now() - 7200,
        to: now() - 3600,
    };
    let cases: Vec<(&str, VomsServer, Expected)> = vec![
        (
            "unknown authority",
            VomsServer::new(&elsewhere, "myvo", "other").unwrap(),
            |error| matches!(error, ChainError::UnknownAuthority { .. }),
        ),
        ("expired", made(dn, &|it| it.validity = old), |error| {
            matches!(error, ChainError::Expired { .. })
        }),
        ("revoked", revoked, |error| matches!(error, ChainError::Revoked { .. })),
        (
            "against the signing policy",
            made("/DC=org/DC=elsewhere/CN=voms", &|_| {}),
            |error| matches!(error, ChainError::SigningPolicy { .. }),
        ),
        (
            "an authority",
            made(dn, &|it| it.extensions = vec![Extension::basic_constraints(true)]),
            |error| matches!(error, ChainError::Authority { .. }),
        ),
        (
            "not for signatures",
            made(dn, &|it| it.extensions[1] = Extension::key_usage(0x20)),
            |error| matches!(error, ChainError::NotForSignatures { .. }),
        ),
        (
            "for time stamps",
            made(dn, &|it| {
                let stamps = b"\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x08".to_vec();
                it.extensions.push(Extension::new("2.5.29.37", false, stamps));
            }),
            |error| matches!(error, ChainError::Purpose { purpose: "hosts", .. }),
        ),
        (
            "a user's proxy",
            VomsServer::with(
                authority,
                "myvo",
                "other",
                site.alice.proxy(&ProxyOptions::default()).unwrap(),
            ),
            |error| matches!(error, ChainError::ProxyExtension { .. }),
        ),
    ];
    let proxies: Vec<(&str, String, Vec<u8>, Expected)> = cases
        .into_iter()
        .map(|(what, server, expected)| {
            let signed = server.sign(&server.template(&site.alice, FQANS)).unwrap();
            // An LSC file that names exactly what comes along.
            let dns: Vec<String> = server
                .own()
                .chain()
                .iter()
                .map(|der| grid_identity::Certificate::parse(der).unwrap())
                .flat_map(|certificate| [certificate.dn().to_owned(), certificate.issuer_dn().to_owned()])
                .collect();
            (what, dns.join("\n"), signed, expected)
        })
        .collect();
    site.publish(&fine);
    let good = fine.sign(&fine.template(&site.alice, FQANS)).unwrap();
    assert_eq!(site.with(&[good]).fqans, FQANS);
    site.pki.authority_mut().unwrap().revoke_serial(serial);
    site.pki.write_crl().unwrap();
    for (what, lsc, signed, expected) in proxies {
        site.write_lsc(&fine, lsc.as_bytes());
        match nothing(site.with(&[signed])) {
            VomsError::Signer { source, .. } => assert!(expected(&source), "{what}: {source}"),
            other => panic!("{what}: {}", other.in_full()),
        }
    }
}

#[test]
fn the_newest_proxy_with_attributes_decides_even_if_they_are_bad() {
    let site = site();
    let good = site.server.proxy(&site.alice, FQANS).unwrap();
    let mut above = good.proxy(&ProxyOptions::default()).unwrap();
    for _ in 0..18 {
        above = above.proxy(&ProxyOptions::default()).unwrap();
    }
    assert_eq!(site.see(&above).fqans, FQANS);
    let lower = site
        .server
        .sign(&site.server.template(&site.alice, &["/myvo"]))
        .unwrap();
    assert_eq!(site.see(&good.proxy(&carrying(&[lower])).unwrap()).fqans, ["/myvo"]);
    let bad = good.proxy(&carrying_raw(vec![5, 0])).unwrap();
    assert!(matches!(nothing(site.see(&bad)), VomsError::Malformed(_)));
}

#[test]
fn each_vo_stands_for_itself() {
    let site = site();
    let lab = VomsServer::new(site.authority(), "labvo", "voms.lab.hydragrid.example").unwrap();
    let labs = lab.sign(&lab.template(&site.alice, &["/labvo"])).unwrap();
    let mine = site.server.sign(&site.template()).unwrap();
    let seen = site.with(&[labs.clone(), mine.clone()]);
    assert_eq!(seen.fqans, FQANS);
    assert!(matches!(seen.voms_error, Some(VomsError::NoLsc { vo, .. }) if vo == "labvo"));
    site.publish(&lab);
    let seen = site.with(&[labs, mine]);
    assert_eq!(seen.fqans, ["/labvo", FQANS[0], FQANS[1]]);
    assert_eq!(seen.voms_error, None);
}

#[test]
fn groups_and_roles_end_and_change_while_the_connection_stays() {
    let site = site();
    let start = SystemTime::now();
    let mut template = site.template();
    template.validity.to = now() + 600;
    let signed = site.server.sign(&template).unwrap();
    let proxy = site.alice.proxy(&carrying(&[signed])).unwrap();
    let verified = site.trust.verify(&chain(&proxy), start).unwrap();
    assert_eq!(verified.identity().fqans, FQANS);
    let at = |seconds| {
        site.trust
            .recheck(&verified, start + Duration::from_secs(seconds))
            .unwrap()
    };
    assert_eq!(at(500).fqans, FQANS);
    let later = at(700);
    assert!(matches!(later.voms_error, Some(VomsError::Expired { .. })));
    assert_eq!((later.fqans.len(), verified.identity().fqans.len()), (0, 0));
    assert_eq!(at(500).fqans, FQANS);

    fs::remove_file(site.pki.vomsdir().join(site.server.lsc_path())).unwrap();
    assert!(matches!(at(1).voms_error, Some(VomsError::NoLsc { .. })));
    site.publish(&site.server);
    assert_eq!(at(1).fqans, FQANS);
}

#[test]
fn attributes_that_begin_later_come_to_a_kept_connection() {
    let site = site();
    let start = SystemTime::now();
    let mut template = site.template();
    template.validity.from = now() + 1000;
    let signed = site.server.sign(&template).unwrap();
    let proxy = site.alice.proxy(&carrying(&[signed])).unwrap();
    let verified = site.trust.verify(&chain(&proxy), start).unwrap();
    assert_eq!(verified.identity().fqans.len(), 0);
    let later = site.trust.recheck(&verified, start + Duration::from_secs(800)).unwrap();
    assert_eq!(later.fqans, FQANS);
}

#[test]
fn a_client_reads_what_its_own_proxy_claims() {
    let site = site();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.pem");
    let read = |issued: &Issued| {
        fs::write(&path, issued.credential_pem()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Credential::from_file(&path, None).unwrap().fqans().to_vec()
    };
    let fqans = ["/myvo/b/Role=NULL", "/myvo", "/myvo/a"];
    let proxy = site.server.proxy(&site.alice, &fqans).unwrap();
    assert_eq!(read(&proxy), ["/myvo/b", "/myvo", "/myvo/a"]);
    assert_eq!(read(&proxy.proxy(&ProxyOptions::default()).unwrap()).len(), 3);
    assert_eq!(read(&site.alice), Vec::<String>::new());
    let garbage = site.alice.proxy(&carrying_raw(vec![1, 2, 3])).unwrap();
    assert_eq!(read(&garbage), Vec::<String>::new());
}
