//! Every way for a chain to be refused has a test, and each of the rules that grid libraries miss.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use grid_identity::chain::{MAX_CERTIFICATES, MAX_PROXIES, OldProxies};
use grid_identity::{ChainError, Credential, CredentialError, Identity, Policy, TrustError, TrustStore};
use rustls_pki_types::CertificateDer;
use testgrid::pki::{Authority, Extension, INDEPENDENT, Issued, Key, KeyKind, Name, ProxyOptions, Validity, pem};

const BASE: &str = "/DC=org/DC=test";

/// An authority with its list and its policy in a directory.
struct World {
    directory: tempfile::TempDir,
    ca: Authority,
    alice: Issued,
}

fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let ca = Authority::new(&format!("{BASE}/CN=CA")).unwrap();
    let alice = ca.user(&format!("{BASE}/CN=alice")).unwrap();
    let world = World { directory, ca, alice };
    world.publish(&world.ca, "0a0a0a0a", &format!("{BASE}/*"));
    world
}

impl World {
    fn publish(&self, ca: &Authority, hash: &str, subjects: &str) {
        self.write(hash, "0", &ca.pem());
        self.write(hash, "r0", &pem("X509 CRL", &ca.crl().unwrap()));
        self.write(hash, "signing_policy", &policy(ca.name().slash(), subjects));
    }

    fn write(&self, hash: &str, extension: &str, text: &str) {
        fs::write(self.directory.path().join(format!("{hash}.{extension}")), text).unwrap();
    }

    fn trust(&self) -> TrustStore {
        TrustStore::directory(self.directory.path(), Policy::server()).unwrap()
    }

    fn verify(&self, issued: &Issued) -> Result<Identity, ChainError> {
        self.trust().verify_client(&ders(issued.chain()), SystemTime::now())
    }

    fn proxy(&self, options: &ProxyOptions) -> Result<Identity, ChainError> {
        self.verify(&self.alice.proxy(options).unwrap())
    }
}

fn policy(ca: &str, subjects: &str) -> String {
    format!("access_id_CA X509 '{ca}'\npos_rights globus CA:sign\ncond_subjects globus '\"{subjects}\"'\n")
}

fn ders(chain: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    chain.iter().map(|der| CertificateDer::from(der.clone())).collect()
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64
}

fn past() -> Validity {
    let now = seconds(SystemTime::now());
    Validity {
        from: now - 7200,
        to: now - 60,
    }
}

fn future() -> Validity {
    let now = seconds(SystemTime::now());
    Validity {
        from: now + 3600,
        to: now + 7200,
    }
}

macro_rules! refused {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {
        let refused = $result.unwrap_err();
        assert!(matches!(&refused, $pattern $(if $guard)?), "{refused} ({refused:?})");
    };
}

#[test]
fn a_chain_of_many_proxies_is_legal_up_to_the_bound() {
    let world = world();
    let mut proxy = world.alice.proxy(&ProxyOptions::default()).unwrap();
    for depth in 1..MAX_PROXIES {
        if depth == 20 {
            assert_eq!(world.verify(&proxy).unwrap().dn, format!("{BASE}/CN=alice"));
        }
        proxy = proxy.proxy(&ProxyOptions::default()).unwrap();
    }
    world.verify(&proxy).unwrap();
    let proxy = proxy.proxy(&ProxyOptions::default()).unwrap();
    refused!(world.verify(&proxy), ChainError::TooLong { found: 33, most: 32 });
}

#[test]
fn chains_are_bounded_in_number_and_size_before_anything_is_verified() {
    let world = world();
    let trust = world.trust();
    let now = SystemTime::now();
    refused!(trust.verify_client(&[], now), ChainError::Empty);
    let own = CertificateDer::from(world.alice.chain()[0].clone());
    let many = vec![own.clone(); MAX_CERTIFICATES + 1];
    refused!(trust.verify_client(&many, now), ChainError::TooLong { .. });
    let large = [own.clone(), CertificateDer::from(vec![0; 300_000])];
    refused!(trust.verify_client(&large, now), ChainError::TooLarge { .. });
    let garbage = [own, CertificateDer::from(vec![0; 30])];
    refused!(
        trust.verify_client(&garbage, now),
        ChainError::Malformed { position: 2, .. }
    );
}

#[test]
fn no_cut_and_no_flipped_bit_of_a_proxy_gets_in() {
    let world = world();
    let trust = world.trust();
    let now = SystemTime::now();
    let proxy = world.alice.proxy(&ProxyOptions::default()).unwrap();
    let (leaf, rest) = (&proxy.chain()[0], ders(&proxy.chain()[1..]));
    let with = |leaf: Vec<u8>| -> Vec<CertificateDer<'static>> {
        std::iter::once(CertificateDer::from(leaf))
            .chain(rest.iter().cloned())
            .collect()
    };
    trust.verify_client(&with(leaf.clone()), now).unwrap();
    for length in 0..leaf.len() {
        assert!(
            trust.verify_client(&with(leaf[..length].to_vec()), now).is_err(),
            "cut to {length}"
        );
    }
    for bit in 0..leaf.len() * 8 {
        let mut damaged = leaf.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(trust.verify_client(&with(damaged), now).is_err(), "bit {bit}");
    }
}

#[test]
fn independent_and_unknown_policies_are_refused() {
    let world = world();
    let of = |language: &str| ProxyOptions {
        language: language.to_owned(),
        ..ProxyOptions::default()
    };
    refused!(world.proxy(&of(INDEPENDENT)), ChainError::IndependentProxy { .. });
    refused!(world.proxy(&of("1.2.3.4")), ChainError::UnknownLanguage { language, .. } if language == "1.2.3.4");
}

#[test]
fn a_limited_proxy_and_all_above_it_are_limited_and_identify_their_owner() {
    let world = world();
    let limited = world.alice.proxy(&ProxyOptions::limited()).unwrap();
    let above = limited.proxy(&ProxyOptions::default()).unwrap();
    for proxy in [&limited, &above] {
        let identity = world.verify(proxy).unwrap();
        assert!(identity.limited);
        assert_eq!(identity.dn, format!("{BASE}/CN=alice"));
    }
}

#[test]
fn path_lengths_bound_the_proxies_above() {
    let world = world();
    let bounded = |length| ProxyOptions {
        path_length: Some(length),
        ..ProxyOptions::default()
    };
    let none = world.alice.proxy(&bounded(0)).unwrap();
    world.verify(&none).unwrap();
    let above = none.proxy(&ProxyOptions::default()).unwrap();
    refused!(
        world.verify(&above),
        ChainError::PathLength {
            allowed: 0,
            found: 1,
            ..
        }
    );
    let one = world
        .alice
        .proxy(&bounded(1))
        .unwrap()
        .proxy(&ProxyOptions::default())
        .unwrap();
    world.verify(&one).unwrap();
    refused!(
        world.verify(&one.proxy(&bounded(9)).unwrap()),
        ChainError::PathLength {
            allowed: 1,
            found: 2,
            ..
        }
    );
}

#[test]
fn legacy_and_draft_proxies_are_told_apart_and_refused() {
    let world = world();
    let key = Key::generate(KeyKind::Ec).unwrap();
    let template = |name: &str, extensions: Vec<Extension>| {
        let mut template = world.ca.template(
            world.alice.name().with_common_name(name),
            key.public_der().to_vec(),
            extensions,
        );
        template.issuer = world.alice.name().clone();
        template
    };
    let sign = |template| {
        world
            .alice
            .sign(&template, Key::generate(KeyKind::Ec).unwrap())
            .unwrap()
    };
    for name in ["proxy", "limited proxy"] {
        refused!(
            world.verify(&sign(template(name, vec![Extension::key_usage(0x80)]))),
            ChainError::LegacyProxy { .. }
        );
    }
    let draft = Extension::new("1.3.6.1.4.1.3536.1.222", true, vec![0x30, 0]);
    refused!(
        world.verify(&sign(template("1", vec![draft]))),
        ChainError::DraftProxy { .. }
    );
    // Each is accepted where a server says so, and for no other kind.
    let accepting = |legacy, draft, issued: &Issued| {
        let policy = Policy::server().with_old_proxies(OldProxies { legacy, draft });
        let trust = TrustStore::directory(world.directory.path(), policy).unwrap();
        trust.verify_client(&ders(issued.chain()), SystemTime::now())
    };
    let legacy = |name| sign(template(name, vec![Extension::key_usage(0x80)]));
    let found = accepting(true, false, &legacy("proxy")).unwrap();
    assert_eq!((found.dn, found.limited), (format!("{BASE}/CN=alice"), false));
    assert!(accepting(true, false, &legacy("limited proxy")).unwrap().limited);
    refused!(accepting(false, true, &legacy("proxy")), ChainError::LegacyProxy { .. });
    let inherit = vec![0x30, 12, 0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 21, 1];
    let draft = || {
        let info = Extension::new("1.3.6.1.4.1.3536.1.222", true, inherit.clone());
        sign(template("1", vec![Extension::key_usage(0x80), info]))
    };
    assert_eq!(accepting(false, true, &draft()).unwrap().dn, format!("{BASE}/CN=alice"));
    refused!(accepting(true, false, &draft()), ChainError::DraftProxy { .. });
    let garbage = Extension::new("1.3.6.1.4.1.3536.1.222", true, vec![0x30, 0]);
    refused!(
        accepting(true, true, &sign(template("1", vec![garbage]))),
        ChainError::DraftProxy { .. }
    );
    // A proxy of today above an old one, which Globus refused too.
    let mixed = legacy("proxy").proxy(&ProxyOptions::default()).unwrap();
    refused!(accepting(true, true, &mixed), ChainError::ProxyExtension { .. });
    // Somebody else's name, or a signature by somebody else, makes no old proxy either.
    let bob = world.ca.user(&format!("{BASE}/CN=bob")).unwrap();
    let stolen = bob
        .sign(&template("proxy", vec![]), Key::generate(KeyKind::Ec).unwrap())
        .unwrap();
    assert!(accepting(true, true, &stolen).is_err());
    // without a sign of being a proxy, a certificate signed by a user is nobody's
    refused!(
        world.verify(&sign(template("2", vec![]))),
        ChainError::UnknownAuthority { .. } | ChainError::Certificate { .. }
    );
    // an end entity may be called proxy: what makes one is the extension alone
    let named = world.ca.user(&format!("{BASE}/CN=proxy")).unwrap();
    world.verify(&named).unwrap();
}

#[test]
fn a_proxy_is_named_after_its_issuer_and_by_it() {
    let world = world();
    let bob = world.ca.user(&format!("{BASE}/CN=bob")).unwrap();
    let key = Key::generate(KeyKind::Ec).unwrap();
    let proxy = |subject: Name, issuer: &Name| {
        let extensions = vec![
            Extension::key_usage(0x80),
            Extension::proxy_info(testgrid::pki::INHERIT_ALL, None),
        ];
        let mut template = world.ca.template(subject, key.public_der().to_vec(), extensions);
        template.issuer = issuer.clone();
        template
    };
    let sign = |template| {
        world
            .alice
            .sign(&template, Key::generate(KeyKind::Ec).unwrap())
            .unwrap()
    };
    let alice = world.alice.name();
    refused!(
        world.verify(&sign(proxy(alice.clone(), alice))),
        ChainError::ProxyName { .. }
    );
    refused!(
        world.verify(&sign(proxy(bob.name().with_common_name("1"), alice))),
        ChainError::ProxyName { .. }
    );
    let two = alice.with_common_name("1").with_common_name("2");
    refused!(world.verify(&sign(proxy(two, alice))), ChainError::ProxyName { .. });
    // Bob's name as issuer, but Alice's signature and certificate below
    refused!(
        world.verify(&sign(proxy(bob.name().with_common_name("1"), bob.name()))),
        ChainError::WrongIssuer { .. }
    );
    // Bob's certificate below, but Alice's signature
    let forged = sign(proxy(bob.name().with_common_name("1"), bob.name()));
    let chain = ders(&[forged.chain()[0].clone(), bob.chain()[0].clone()]);
    refused!(
        world.trust().verify_client(&chain, SystemTime::now()),
        ChainError::ProxySignature { .. }
    );
}

#[test]
fn a_proxy_has_no_rights_of_its_own() {
    let world = world();
    let with = |extension: Extension| ProxyOptions {
        extensions: vec![extension],
        ..ProxyOptions::default()
    };
    refused!(
        world.proxy(&with(Extension::basic_constraints(true))),
        ChainError::ProxyExtension { .. }
    );
    refused!(
        world.proxy(&with(Extension::alternative_names(&["a.org"]))),
        ChainError::ProxyExtension { .. }
    );
    refused!(
        world.proxy(&with(Extension::purposes(true, false))),
        ChainError::Purpose { .. }
    );
    refused!(
        world.proxy(&with(Extension::new("1.2.3.4", true, vec![5, 0]))),
        ChainError::UnknownExtension { .. }
    );
    refused!(
        world.proxy(&with(Extension::proxy_info(INDEPENDENT, None))),
        ChainError::Malformed { .. }
    );
    world
        .proxy(&with(Extension::new("1.2.3.4", false, vec![5, 0])))
        .unwrap();
    world.proxy(&with(Extension::basic_constraints(false))).unwrap();
}

#[test]
fn dates_count_at_every_level() {
    let world = world();
    let with = |validity| ProxyOptions {
        validity,
        ..ProxyOptions::default()
    };
    refused!(world.proxy(&with(past())), ChainError::Expired { .. });
    refused!(world.proxy(&with(future())), ChainError::NotYetValid { .. });
    let above_expired = world
        .alice
        .proxy(&with(past()))
        .unwrap()
        .proxy(&ProxyOptions::default())
        .unwrap();
    refused!(world.verify(&above_expired), ChainError::Expired { .. });
    for (validity, expired) in [(past(), true), (future(), false)] {
        let user = world
            .ca
            .user_with(&format!("{BASE}/CN=x"), KeyKind::Ec, validity)
            .unwrap();
        for issued in [&user, &user.proxy(&ProxyOptions::default()).unwrap()] {
            let refused = world.verify(issued).unwrap_err();
            assert_eq!(matches!(refused, ChainError::Expired { .. }), expired, "{refused}");
            assert_eq!(matches!(refused, ChainError::NotYetValid { .. }), !expired, "{refused}");
        }
    }
    // an authority that has expired certifies nobody any more
    let old = Authority::with(&format!("{BASE}/CN=Old"), KeyKind::Ec, past()).unwrap();
    world.publish(&old, "0b0b0b0b", &format!("{BASE}/*"));
    let user = old.user(&format!("{BASE}/CN=y")).unwrap();
    refused!(world.verify(&user), ChainError::Expired { dn, .. } if dn.ends_with("CN=Old"));
}

#[test]
fn weak_keys_and_algorithms_are_refused() {
    let world = world();
    let key = Key::generate(KeyKind::Ec).unwrap();
    let user = format!("{BASE}/CN=weak");
    let mut sha1 = world.ca.template(
        Name::parse(&user).unwrap(),
        key.public_der().to_vec(),
        vec![Extension::key_usage(0x80)],
    );
    // sha1WithRSAEncryption
    sha1.algorithm = Some(vec![0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5, 5, 0]);
    refused!(world.verify(&world.ca.issue(sha1, key).unwrap()), ChainError::WeakAlgorithm { algorithm, .. } if algorithm == "RSA and SHA-1");

    let rsa = |bytes: usize| {
        // SEQUENCE { SEQUENCE { rsaEncryption, NULL }, BIT STRING { SEQUENCE { modulus, 65537 } } }
        let element = |tag: u8, content: Vec<u8>| {
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            let head = match content.len() {
                0..=127 => vec![tag, length[1]],
                128..=255 => vec![tag, 0x81, length[1]],
                _ => vec![tag, 0x82, length[0], length[1]],
            };
            [head, content].concat()
        };
        let modulus = element(2, [vec![0], vec![0xc3; bytes]].concat());
        let pair = element(0x30, [modulus, vec![2, 3, 1, 0, 1]].concat());
        let algorithm = vec![0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
        element(0x30, [algorithm, element(3, [vec![0], pair].concat())].concat())
    };
    let with_key = |public: Vec<u8>| {
        let template = world
            .ca
            .template(Name::parse(&user).unwrap(), public, vec![Extension::key_usage(0x80)]);
        world.ca.issue(template, Key::generate(KeyKind::Ec).unwrap()).unwrap()
    };
    refused!(
        world.verify(&with_key(rsa(128))),
        ChainError::WeakKey { bits: 1024, .. }
    );
    world.verify(&with_key(rsa(256))).unwrap();
    let no_signatures = world.ca.template(
        Name::parse(&user).unwrap(),
        Key::generate(KeyKind::Ec).unwrap().public_der().to_vec(),
        vec![Extension::key_usage(0x20)],
    );
    let issued = world
        .ca
        .issue(no_signatures, Key::generate(KeyKind::Ec).unwrap())
        .unwrap();
    refused!(world.verify(&issued), ChainError::NotForSignatures { .. });
}

#[test]
fn a_proxy_without_its_owner_and_an_authority_as_a_client_are_refused() {
    let world = world();
    let proxy = world.alice.proxy(&ProxyOptions::default()).unwrap();
    let alone = ders(&proxy.chain()[..1]);
    refused!(
        world.trust().verify_client(&alone, SystemTime::now()),
        ChainError::NoEndEntity { .. }
    );
    let authority = ders(&[world.ca.certificate().to_vec()]);
    refused!(
        world.trust().verify_client(&authority, SystemTime::now()),
        ChainError::Authority { .. }
    );
    // the client may add its authority
    let mut whole = ders(proxy.chain());
    whole.push(CertificateDer::from(world.ca.certificate().to_vec()));
    world.trust().verify_client(&whole, SystemTime::now()).unwrap();
}

#[test]
fn a_user_with_the_name_of_an_authority_is_none() {
    let world = world();
    // The same name as the authority's, but another key: what mallory would make.
    let twin = Authority::new(&format!("{BASE}/CN=CA")).unwrap();
    let forged = twin.user(&format!("{BASE}/CN=alice")).unwrap();
    refused!(world.verify(&forged), ChainError::Signature { .. });
}

#[test]
fn a_signing_policy_must_be_that_authoritys_and_cover_the_subject() {
    let world = world();
    let stranger = world.ca.user("/DC=net/CN=stranger").unwrap();
    refused!(world.verify(&stranger), ChainError::SigningPolicy { .. });
    refused!(
        world.verify(&stranger.proxy(&ProxyOptions::default()).unwrap()),
        ChainError::SigningPolicy { .. }
    );
    // a policy under the right hash that names another authority says nothing about this one
    world.write("0a0a0a0a", "signing_policy", &policy("/DC=org/CN=Other", "*"));
    refused!(world.verify(&world.alice), ChainError::NoSigningPolicy { .. });
    // one that is not understood counts for nothing, and is told
    world.write("0a0a0a0a", "signing_policy", "neg_rights globus CA:sign\n");
    refused!(world.verify(&world.alice), ChainError::NoSigningPolicy { .. });
    assert_eq!(world.trust().problems().len(), 1);
    // namespaces alone are enough; both bind where both are there
    let namespaces = format!("TO Issuer \"{BASE}/CN=CA\" PERMIT Subject \"{BASE}/CN=a.*\"\n");
    world.write("0a0a0a0a", "namespaces", &namespaces);
    world.verify(&world.alice).unwrap();
    let bob = world.ca.user(&format!("{BASE}/CN=bob")).unwrap();
    refused!(world.verify(&bob), ChainError::SigningPolicy { .. });
    world.write(
        "0a0a0a0a",
        "signing_policy",
        &policy(&format!("{BASE}/CN=CA"), &format!("{BASE}/*")),
    );
    refused!(world.verify(&bob), ChainError::SigningPolicy { .. });
}

#[test]
fn a_forged_revocation_list_refuses_and_never_hides_the_genuine_one() {
    let world = world();
    let twin = Authority::new(&format!("{BASE}/CN=CA")).unwrap();
    let now = seconds(SystemTime::now());
    let forged = pem(
        "X509 CRL",
        &twin
            .crl_with(Validity {
                from: now,
                to: now + 9_000_000,
            })
            .unwrap(),
    );
    world.write("0a0a0a0a", "r1", &forged);
    world.verify(&world.alice).unwrap();
    world.write("0a0a0a0a", "r0", &forged);
    refused!(world.verify(&world.alice), ChainError::RevocationList { .. });
    let lenient = TrustStore::directory(world.directory.path(), Policy::client(false)).unwrap();
    refused!(
        lenient.verify_client(&ders(world.alice.chain()), SystemTime::now()),
        ChainError::RevocationList { .. }
    );
}

#[test]
fn of_several_lists_the_newest_genuine_one_counts() {
    let mut world = world();
    let now = seconds(SystemTime::now());
    let list = |world: &World, from| {
        pem(
            "X509 CRL",
            &world.ca.crl_with(Validity { from, to: now + 9_000 }).unwrap(),
        )
    };
    let old = list(&world, now - 500);
    let serial = testgrid::pki::serial_of(&world.alice.chain()[0]).unwrap();
    world.ca.revoke_serial(serial);
    let new = list(&world, now - 100);
    for (first, second) in [(&old, &new), (&new, &old)] {
        world.write("0a0a0a0a", "r0", first);
        world.write("0a0a0a0a", "r1", second);
        refused!(world.verify(&world.alice), ChainError::Revoked { .. });
    }
}

#[test]
fn authorities_below_authorities_need_their_own_list_and_policy_and_may_be_revoked() {
    let mut world = world();
    let below = world.ca.subordinate(&format!("{BASE}/CN=Sub CA")).unwrap();
    let user = below.user(&format!("{BASE}/CN=deep")).unwrap();
    assert_eq!(user.chain().len(), 2);
    refused!(world.verify(&user), ChainError::NoRevocationList { .. });
    world.write("0b0b0b0b", "r0", &pem("X509 CRL", &below.crl().unwrap()));
    refused!(world.verify(&user), ChainError::NoSigningPolicy { .. });
    world.write(
        "0b0b0b0b",
        "signing_policy",
        &policy(below.name().slash(), &format!("{BASE}/*")),
    );
    world.verify(&user).unwrap();
    world.verify(&user.proxy(&ProxyOptions::default()).unwrap()).unwrap();
    // from the directory instead of from the client
    let alone = ders(&user.chain()[..1]);
    refused!(
        world.trust().verify_client(&alone, SystemTime::now()),
        ChainError::UnknownAuthority { .. }
    );
    world.write("0b0b0b0b", "0", &below.pem());
    world.trust().verify_client(&alone, SystemTime::now()).unwrap();
    // it lies among the trust anchors, and yet its revocation by the one above counts
    world.ca.revoke_serial(below.own_serial());
    world.write("0a0a0a0a", "r0", &pem("X509 CRL", &world.ca.crl().unwrap()));
    refused!(world.verify(&user), ChainError::Revoked { .. });
}

#[test]
fn a_directory_tells_what_it_cannot_use() {
    let world = world();
    world.write("0c0c0c0c", "0", &world.alice.certificate_pem());
    world.write("0d0d0d0d", "0", "no certificate at all");
    world.write(
        "0e0e0e0e",
        "r0",
        "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
    );
    let problems: Vec<String> = world
        .trust()
        .problems()
        .into_iter()
        .map(|problem| problem.what)
        .collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].ends_with("is no authority"), "{problems:?}");
    let empty = tempfile::tempdir().unwrap();
    let nothing = TrustStore::directory(empty.path(), Policy::server());
    assert!(matches!(nothing, Err(TrustError::Nothing { .. })));
    let nowhere = TrustStore::directory(empty.path().join("none"), Policy::server());
    assert!(matches!(nowhere, Err(TrustError::Read { .. })));
}

#[test]
fn a_file_of_authorities_serves_clients() {
    let world = world();
    let file = world.directory.path().join("bundle.pem");
    fs::write(&file, world.ca.pem() + &pem("X509 CRL", &world.ca.crl().unwrap())).unwrap();
    let chain = ders(world.alice.chain());
    TrustStore::file(&file, Policy::client(true))
        .unwrap()
        .verify_client(&chain, SystemTime::now())
        .unwrap();
    let server = TrustStore::file(&file, Policy::server()).unwrap();
    refused!(
        server.verify_client(&chain, SystemTime::now()),
        ChainError::NoSigningPolicy { .. }
    );
}

#[test]
fn trust_is_read_again_only_after_its_interval() {
    let mut world = world();
    let patient = world.trust().with_interval(Duration::from_secs(3600));
    let serial = testgrid::pki::serial_of(&world.alice.chain()[0]).unwrap();
    world.ca.revoke_serial(serial);
    world.write("0a0a0a0a", "r0", &pem("X509 CRL", &world.ca.crl().unwrap()));
    let chain = ders(world.alice.chain());
    patient.verify_client(&chain, SystemTime::now()).unwrap();
    let eager = patient.with_interval(Duration::ZERO);
    refused!(
        eager.verify_client(&chain, SystemTime::now()),
        ChainError::Revoked { .. }
    );
}

// --- credentials ------------------------------------------------------------------------------------------------------

fn write(directory: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_credential_says_whose_it_is_and_until_when() {
    let world = world();
    let place = tempfile::tempdir().unwrap();
    let proxy = world
        .alice
        .proxy(&ProxyOptions::limited())
        .unwrap()
        .proxy(&ProxyOptions::default())
        .unwrap();
    let path = write(place.path(), "proxy", &proxy.credential_pem(), 0o600);
    let credential = Credential::from_file(&path, None).unwrap();
    assert_eq!(credential.dn(), format!("{BASE}/CN=alice"));
    assert!(credential.is_proxy() && credential.is_limited());
    assert_eq!(credential.source(), path);
    assert_eq!(credential.chain().len(), 3);
    let shown = format!("{credential:?}");
    assert!(!shown.contains("key:") && shown.contains("alice"), "{shown}");

    let certificate = write(place.path(), "usercert.pem", &world.alice.certificate_pem(), 0o644);
    let key = write(place.path(), "userkey.pem", &world.alice.key().pem(), 0o400);
    let credential = Credential::from_cert_and_key(&certificate, &key, None).unwrap();
    assert!(!credential.is_proxy());
}

#[test]
fn keys_that_others_can_touch_or_that_do_not_fit_are_not_used() {
    let world = world();
    let place = tempfile::tempdir().unwrap();
    let text = world.alice.credential_pem();
    for mode in [0o644, 0o640, 0o604, 0o620, 0o602] {
        let path = write(place.path(), "exposed", &text, mode);
        let refused = Credential::from_file(&path, None).unwrap_err();
        assert!(
            matches!(refused, CredentialError::Exposed { .. }),
            "{mode:o}: {refused}"
        );
    }
    let bob = world.ca.user(&format!("{BASE}/CN=bob")).unwrap();
    type Expected = fn(&CredentialError) -> bool;
    let cases: [(&str, String, Expected); 5] = [
        ("other key", world.alice.certificate_pem() + &bob.key().pem(), |e| {
            matches!(e, CredentialError::Mismatch { .. })
        }),
        ("no key", world.alice.certificate_pem(), |e| {
            matches!(e, CredentialError::NoKey { .. })
        }),
        ("no certificate", bob.key().pem(), |e| {
            matches!(e, CredentialError::NoCertificate { .. })
        }),
        ("cut", text[..text.len() - 40].to_owned(), |e| {
            matches!(e, CredentialError::Damaged { .. })
        }),
        ("empty", String::new(), |e| matches!(e, CredentialError::NoKey { .. })),
    ];
    for (what, text, expected) in cases {
        let path = write(place.path(), "case", &text, 0o600);
        let refused = Credential::from_file(&path, None).unwrap_err();
        assert!(expected(&refused), "{what}: {refused}");
    }
    let nowhere = Credential::from_file(&place.path().join("none"), None).unwrap_err();
    assert!(matches!(nowhere, CredentialError::Read { .. }));
    let folder = Credential::from_file(place.path(), None).unwrap_err();
    assert!(matches!(folder, CredentialError::NoFile { .. }));
    let fifo = place.path().join("fifo");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let fifo = Credential::from_file(&fifo, None).unwrap_err();
    assert!(matches!(fifo, CredentialError::NoFile { .. }));
}
