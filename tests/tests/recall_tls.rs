//! DICOM and DICOMweb over TLS, with certificates of an authority of one's own: a real Orthanc that wants to know us
//! and one that does not, every refusal by its name, and peers that send byte by byte.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use dicom_net::association::{Acceptance, Association};
use dicom_net::dataset::FileMeta;
use dicom_net::{
    AeTitle, Arrival, Deadlines, Dicomweb, MoveDestination, NetError, Pacs, PacsOptions, ReceiverOptions, Taken,
    TlsFiles, Uid, Waiting, Wanted, WebError, WebOptions, contexts,
};
use hydra_tests::desk::{Desk, SharedGrid};
use hydra_tests::files_under;
use hydra_tests::pacs::{Drip, FakePacs, Fault, Front, OURS, Orthanc, THEIRS, Way, free_port, options, single};
use hydra_xtask::dicom::{INVENTED, ct_study};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tempfile::TempDir;
use testgrid::GridOptions;
use testgrid::pki::{Authority, Extension, Issued, Key, KeyKind, Name, Validity};

static GRID: LazyLock<SharedGrid> = LazyLock::new(|| SharedGrid::up(&GridOptions::default()));

/// A hospital's authority, and the files that it gave out.
struct Hospital {
    folder: TempDir,
    authority: Authority,
}

impl Hospital {
    fn new() -> Self {
        Self::called("Hospital")
    }

    fn called(name: &str) -> Self {
        let authority = Authority::with(&format!("/O=Nowhere/CN={name}"), KeyKind::Rsa, Validity::usual()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let hospital = Self { folder, authority };
        let host = |name: &str| {
            let dn = format!("/O=Nowhere/CN={name}");
            hospital.authority.host_with(&dn, &["localhost"], KeyKind::Rsa).unwrap()
        };
        hospital.write("pacs", &host("pacs"));
        hospital.write("recall", &host("recall"));
        hospital
    }

    fn write(&self, name: &str, issued: &Issued) {
        let (certificate, key) = (issued.certificate_pem(), issued.key().pem());
        fs::write(self.path(&format!("{name}.crt")), certificate).unwrap();
        fs::write(self.path(&format!("{name}.key")), key).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn files(&self, own: Option<&str>) -> TlsFiles {
        TlsFiles {
            authorities: self.path("ca.pem"),
            own: own.map(|name| (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")))),
        }
    }

    fn client(&self, own: Option<&str>) -> Arc<ClientConfig> {
        self.files(own).client(provider()).unwrap()
    }

    fn server(&self, own: &str) -> Arc<ServerConfig> {
        self.files(Some(own)).server(provider()).unwrap()
    }

    /// An Orthanc that speaks DICOM over TLS. Its HTTP is plain: Debian's falls over its own HTTPS.
    fn orthanc(&self, is_mutual: bool) -> Orthanc {
        Orthanc::start_with(&json!({
            "DicomTlsEnabled": true,
            "DicomTlsCertificate": self.path("pacs.crt"),
            "DicomTlsPrivateKey": self.path("pacs.key"),
            "DicomTlsTrustedCertificates": self.path("ca.pem"),
            "DicomTlsRemoteCertificateRequired": is_mutual,
        }))
    }

    /// What ends TLS in front of its HTTP.
    fn front(&self, orthanc: &Orthanc, is_mutual: bool) -> Front {
        let tls = if is_mutual {
            self.server("pacs")
        } else {
            let chain = CertificateDer::pem_file_iter(self.path("pacs.crt")).unwrap();
            let key = PrivateKeyDer::from_pem_file(self.path("pacs.key")).unwrap();
            let builder = ServerConfig::builder_with_provider(provider());
            let builder = builder
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth();
            let chain = chain.collect::<Result<_, _>>().unwrap();
            Arc::new(builder.with_single_cert(chain, key).unwrap())
        };
        Front::start(orthanc.http, tls)
    }

    fn pacs(&self, port: u16, own: Option<&str>) -> PacsOptions {
        let mut options = options(port);
        options.host = "localhost".to_owned();
        options.tls = Some(self.client(own));
        options
    }

    fn web(&self, url: String, own: Option<&str>) -> Dicomweb {
        let options = WebOptions {
            url,
            tls: Some(self.client(own)),
            authorization: None,
            deadlines: options(0).deadlines,
            slots: single(),
        };
        Dicomweb::new(options).unwrap()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn uid(number: u128) -> Uid {
    Uid::new(&format!("2.25.{number}")).unwrap()
}

fn study(number: u128) -> Wanted {
    Wanted {
        study: uid(number),
        series: None,
        instances: Vec::new(),
    }
}

fn data(file: &[u8]) -> (Uid, Vec<u8>) {
    let mut rest = file;
    let (meta, _) = FileMeta::read(&mut rest).unwrap();
    (meta.instance, rest.to_vec())
}

/// The data sets that come, by instance.
fn collect<R>(retrieve: impl FnOnce(&mut dicom_net::Sink<'_>) -> R) -> (R, BTreeMap<Uid, Vec<u8>>) {
    let mut came = BTreeMap::new();
    let result = retrieve(&mut |_: &Arrival, file: &mut dyn Read| {
        let mut bytes = Vec::new();
        if file.read_to_end(&mut bytes).is_err() {
            return Taken::Dropped;
        }
        let (instance, bytes) = data(&bytes);
        came.insert(instance, bytes);
        Taken::Kept
    });
    (result, came)
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[test]
fn peer_orthanc_gives_and_takes_over_mutual_tls() {
    let hospital = Hospital::new();
    let orthanc = hospital.orthanc(true);
    let files = ct_study(&INVENTED, 6001);
    let expected: BTreeMap<Uid, Vec<u8>> = files.iter().map(|file| data(file)).collect();
    let pacs = Pacs::new(hospital.pacs(orthanc.port, Some("recall")));
    pacs.echo().unwrap();
    let mut storing = pacs.storing();
    for file in &files {
        storing.store(&mut file.as_slice()).unwrap();
    }
    storing.rest();
    assert_eq!(pacs.instances(&study(6001)).unwrap().len(), 3);
    let (retrieved, came) = collect(|sink| pacs.get(&study(6001), &[], sink));
    assert_eq!(retrieved.unwrap().kept.len(), 3);
    assert!(came == expected, "other bytes by C-GET");

    let mut receiving = ReceiverOptions::new(AeTitle::new(OURS).unwrap());
    receiving.tls = Some(hospital.server("recall"));
    let destination = MoveDestination::listen(&format!("127.0.0.1:{}", orthanc.move_port), receiving).unwrap();
    let (retrieved, came) = collect(|sink| pacs.fetch_by_move(&study(6001), &destination, sink));
    assert_eq!(retrieved.unwrap().kept.len(), 3);
    assert!(came == expected, "other bytes by C-MOVE");
    drop(destination);

    let front = hospital.front(&orthanc, true);
    let web = hospital.web(front.dicomweb(), Some("recall"));
    web.echo().unwrap();
    let (retrieved, came) = collect(|sink| web.retrieve(&study(6001), sink));
    assert_eq!(retrieved.unwrap().kept.len(), 3);
    assert!(came == expected, "other bytes by WADO-RS");
    web.store(&uid(6002), &ct_study(&INVENTED, 6002)[0]).unwrap();

    whoever_is_not_known_is_refused(&hospital, &orthanc, &front);
    the_command_speaks_tls(&hospital, &orthanc, &front);
}

fn whoever_is_not_known_is_refused(hospital: &Hospital, orthanc: &Orthanc, front: &Front) {
    let stranger = Hospital::called("Stranger");
    let echo = |options: PacsOptions| told(&Pacs::new(options).echo().unwrap_err());
    let get = |web: &Dicomweb| told(&web.echo().unwrap_err());
    // who they are is looked at by us
    let wrong = echo(stranger.pacs(orthanc.port, Some("recall")));
    assert!(wrong.starts_with("TLS with PACS@localhost:"), "{wrong}");
    assert!(wrong.contains("UnknownIssuer"), "{wrong}");
    let wrong = get(&stranger.web(front.dicomweb(), Some("recall")));
    assert!(
        wrong.contains("no answer from https://localhost:") && wrong.contains("UnknownIssuer"),
        "{wrong}"
    );
    let mut elsewhere = hospital.pacs(orthanc.port, Some("recall"));
    elsewhere.host = "127.0.0.1".to_owned();
    let wrong = echo(elsewhere);
    assert!(wrong.contains("certificate not valid for name"), "{wrong}");
    let url = front.dicomweb().replace("localhost", "127.0.0.1");
    let wrong = get(&hospital.web(url, Some("recall")));
    assert!(wrong.contains("certificate not valid for name"), "{wrong}");
    // and who we are by them: with TLS 1.3 that is told after our own handshake
    for error in [
        Pacs::new(hospital.pacs(orthanc.port, None)).echo().unwrap_err(),
        Pacs::new(options(orthanc.port)).echo().unwrap_err(),
    ] {
        let is_named = matches!(
            error,
            NetError::Tls { .. } | NetError::Closed { .. } | NetError::Broken { .. } | NetError::Protocol { .. }
        );
        assert!(is_named, "{error:?}");
    }
    let web = hospital.web(front.dicomweb(), None);
    assert!(
        matches!(web.echo(), Err(WebError::Connection { .. })),
        "no certificate of ours"
    );
}

fn the_command_speaks_tls(hospital: &Hospital, orthanc: &Orthanc, front: &Front) {
    let _whole = GRID.whole();
    let desk = GRID.desk("alice");
    desk.write("secret", [7; 32]);
    let dimse = |method: &str| {
        format!(
            "method = \"{method}\"\nae_title = \"{OURS}\"\naet = \"{THEIRS}\"\nhost = \"localhost\"\nport = {}\n\
             listen = \"127.0.0.1:{}\"",
            orthanc.port, orthanc.move_port
        )
    };
    let web = format!("method = \"wado-rs\"\ndicomweb = \"{}\"", front.dicomweb());
    let ways = [("get", dimse("c-get")), ("move", dimse("c-move")), ("web", web)];
    let mut placed = Vec::new();
    for (name, pacs) in &ways {
        configure(&desk, pacs, &hospital.files(Some("recall")));
        fs::create_dir(desk.path(name)).unwrap();
        let _ = desk.run("dicom-recall check recall.toml").exits(0);
        let now = ["now", "-c", "recall.toml", "2.25.6001/2.25.600111", name];
        let _ = desk.run_words("dicom-recall", &now).exits(0);
        placed.push(files_under(&desk.path(name)));
    }
    assert_eq!(placed[0].len(), 2);
    assert!(
        placed.iter().all(|one| *one == placed[0]),
        "the same files by every way"
    );
    // another authority: it is said what is wrong, and what to look at
    let stranger = Hospital::called("Stranger");
    configure(&desk, &ways[0].1, &stranger.files(Some("recall")));
    let now = ["now", "-c", "recall.toml", "2.25.6001", "get"];
    let ended = desk.run_words("dicom-recall", &now).exits(78);
    for words in ["TLS with PACS@localhost", "UnknownIssuer", "pacs.tls.authorities"] {
        assert!(ended.stderr.contains(words), "{words}: {ended:?}");
    }
}

fn configure(desk: &Desk, pacs: &str, tls: &TlsFiles) {
    let (certificate, key) = tls.own.as_ref().unwrap();
    let text = format!(
        "[pacs]\n{pacs}\n[pacs.deadlines]\nconnect_s = 20\nassociation_s = 20\nunit_s = 20\n\
         [pacs.tls]\nauthorities = {:?}\ncertificate = {certificate:?}\nkey = {key:?}\n\
         [deid]\nsecret_file = \"secret\"\n",
        tls.authorities
    );
    desk.write("recall.toml", text);
}

#[test]
fn peer_orthanc_that_does_not_ask_who_we_are_is_looked_at_all_the_same() {
    let hospital = Hospital::new();
    let orthanc = hospital.orthanc(false);
    Pacs::new(hospital.pacs(orthanc.port, None)).echo().unwrap();
    let front = hospital.front(&orthanc, false);
    hospital.web(front.dicomweb(), None).echo().unwrap();
    let stranger = Hospital::called("Stranger");
    let wrong = told(&Pacs::new(stranger.pacs(orthanc.port, None)).echo().unwrap_err());
    assert!(wrong.contains("UnknownIssuer"), "{wrong}");
}

/// Accepts one association over TLS, or not; what became of it.
fn accept_one(
    tls: Option<Arc<ServerConfig>>,
    deadlines: Deadlines,
) -> (u16, std::thread::JoinHandle<Result<(), NetError>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (tcp, _) = listener.accept().unwrap();
        let decide = |request: &dicom_net::pdu::AssociateRequest| {
            let contexts = contexts::accept(&request.contexts);
            Ok(Acceptance {
                contexts,
                roles: Vec::new(),
            })
        };
        let (mut association, _) = Association::accept(tcp, tls.as_ref(), deadlines, decide)?;
        while association.receive()?.is_some() {
            association.drain()?;
        }
        Ok(())
    });
    (port, thread)
}

#[test]
fn certificates_that_are_over_or_not_yet_and_peers_without_tls_are_named() {
    let hospital = Hospital::new();
    let now = Validity::lasting(Duration::ZERO).to;
    let times = [
        ("expired", now - 20 * 86_400, now - 10 * 86_400, "certificate expired"),
        (
            "early",
            now + 10 * 86_400,
            now + 20 * 86_400,
            "certificate not valid yet",
        ),
    ];
    for (name, from, to, words) in times {
        let key = Key::generate(KeyKind::Rsa).unwrap();
        let authority = &hospital.authority;
        let mut extensions = authority.usual_extensions(&key);
        extensions.push(Extension::purposes(true, true));
        extensions.push(Extension::alternative_names(&["localhost"]));
        let subject = Name::parse("/O=Nowhere/CN=another time").unwrap();
        let mut template = authority.template(subject, key.public_der().to_vec(), extensions);
        template.validity = Validity { from, to };
        hospital.write(name, &authority.issue(template, key).unwrap());
        let (port, thread) = accept_one(Some(hospital.server(name)), Deadlines::default());
        let wrong = told(&Pacs::new(hospital.pacs(port, Some("recall"))).echo().unwrap_err());
        assert!(
            wrong.contains("TLS with PACS@localhost:") && wrong.contains(words),
            "{wrong}"
        );
        let refused = thread.join().unwrap().unwrap_err();
        assert!(
            matches!(refused, NetError::Tls { .. } | NetError::Closed { .. }),
            "{refused:?}"
        );
    }
    // whoever calls us without a certificate, or with a stranger's, is not let in
    for own in [
        hospital.client(None),
        Hospital::called("Stranger").client(Some("recall")),
    ] {
        let (port, thread) = accept_one(Some(hospital.server("pacs")), Deadlines::default());
        let mut options = hospital.pacs(port, None);
        options.tls = Some(own);
        assert!(Pacs::new(options).echo().is_err());
        let refused = thread.join().unwrap().unwrap_err();
        assert!(matches!(refused, NetError::Tls { .. }), "{refused:?}");
    }
    // TLS with one who speaks none, and the other way round
    let plain = FakePacs::start(&ct_study(&INVENTED, 6003), &ct_study(&INVENTED, 1)[0], Fault::None);
    let error = Pacs::new(hospital.pacs(plain.port, None)).echo().unwrap_err();
    assert!(
        matches!(error, NetError::Tls { .. } | NetError::Closed { .. }),
        "{error:?}"
    );
    let (port, thread) = accept_one(Some(hospital.server("pacs")), Deadlines::default());
    assert!(Pacs::new(options(port)).echo().is_err());
    let refused = thread.join().unwrap().unwrap_err();
    assert!(matches!(refused, NetError::Tls { .. }), "{refused:?}");
    assert!(matches!(
        Pacs::new(hospital.pacs(free_port(), None)).echo(),
        Err(NetError::Connect { .. })
    ));
}

#[test]
fn who_sends_byte_by_byte_keeps_nobody_beyond_the_deadline() {
    let hospital = Hospital::new();
    let files = ct_study(&INVENTED, 6004);
    let long = Duration::from_secs(300);
    let within = |unit, whole| Deadlines {
        connect: long,
        association: long,
        unit,
        whole,
    };
    let second = Duration::from_secs(1);
    let after = 100_000;
    // somebody sends to us: all that they do has a deadline
    for tls in [false, true] {
        let (port, thread) = accept_one(tls.then(|| hospital.server("pacs")), within(long, 2 * second));
        let drip = Drip::start(port, Way::There, after);
        let mut options = hospital.pacs(drip.port, Some("recall"));
        options.tls = options.tls.filter(|_| tls);
        let sent = Pacs::new(options).store(&mut files[0].as_slice());
        assert!(sent.is_err());
        let error = thread.join().unwrap().unwrap_err();
        let is_late = matches!(
            error,
            NetError::Late {
                waiting: Waiting::Whole,
                ..
            }
        );
        assert!(is_late, "TLS: {tls}: {error:?}");
    }
    // we fetch: every piece has a deadline
    let mutual = hospital.orthanc(true);
    let mut storing = Pacs::new(hospital.pacs(mutual.port, Some("recall"))).storing();
    storing.store(&mut files[0].as_slice()).unwrap();
    storing.rest();
    let plain = FakePacs::start(&files, &ct_study(&INVENTED, 1)[0], Fault::None);
    for (tls, port) in [(false, plain.port), (true, mutual.port)] {
        let drip = Drip::start(port, Way::Back, after);
        let mut options = hospital.pacs(drip.port, Some("recall"));
        options.tls = options.tls.filter(|_| tls);
        options.deadlines = within(2 * second, long);
        let came = Mutex::new(0);
        let got = Pacs::new(options).get(
            &study(6004),
            &[],
            &mut |_: &Arrival, file: &mut dyn Read| match std::io::copy(file, &mut std::io::sink()) {
                Ok(_) => {
                    *came.lock().unwrap() += 1;
                    Taken::Kept
                }
                Err(_) => Taken::Dropped,
            },
        );
        let error = got.unwrap_err();
        let is_late = matches!(
            error,
            NetError::Late {
                waiting: Waiting::Data,
                ..
            }
        );
        assert!(is_late && *came.lock().unwrap() == 0, "TLS: {tls}: {error:?}");
    }
}
