//! Whom a running store believes, while what it goes by changes under its hands.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use common::{Client, PROGRAM, config, run};
use serde_json::json;
use testgrid::pki::voms::VomsServer;
use testgrid::pki::{Authority, Extension, Issued, Key, KeyKind, Pki, PkiOptions, ProxyOptions, Validity, pem};
use testgrid::{Grid, GridOptions};

struct Site {
    folder: tempfile::TempDir,
    pki: Pki,
    grid: Grid,
}

impl Site {
    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::create(&folder.path().join("pki"), &PkiOptions::default()).unwrap();
        let options = GridOptions {
            stores: 1,
            threshold: 1,
            commands: false,
            pki: Some(pki.directory().to_owned()),
            programs: Path::new(PROGRAM).parent().map(PathBuf::from),
            store_settings: settings.to_owned(),
            ..GridOptions::default()
        };
        let grid = Grid::up(&folder.path().join("grid"), &options).unwrap();
        Self { folder, pki, grid }
    }

    fn alice(&self) -> Issued {
        self.pki
            .authority()
            .unwrap()
            .user(self.pki.user_dn("alice").unwrap())
            .unwrap()
    }

    /// Who the store says it is; none where it lets nobody in.
    async fn who(&self, issued: &Issued) -> Option<serde_json::Value> {
        self.client(issued).get("/v1/whoami").await
    }

    fn client(&self, issued: &Issued) -> Client {
        Client::presenting(&self.grid, self.pki.proxy("alice-plain").as_path(), issued)
    }

    fn list(&self) -> PathBuf {
        let entries = std::fs::read_dir(self.pki.certificates()).unwrap();
        let mut paths = entries.map(|entry| entry.unwrap().path());
        paths
            .find(|path| path.extension().is_some_and(|extension| extension == "r0"))
            .unwrap()
    }
}

/// Asks until it is so: files are looked at again within seconds.
async fn until(mut so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so().await {
        assert!(Instant::now() < deadline, "it never came to be");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn twenty_levels_of_proxies_get_in_and_more_than_the_bound_do_not() {
    let site = Site::new("");
    let mut proxy = site.alice();
    for level in 1..=33 {
        proxy = proxy.proxy(&ProxyOptions::default()).unwrap();
        if level == 20 || level == 32 {
            let who = site.who(&proxy).await.unwrap();
            assert_eq!(
                (&who["dn"], &who["method"]),
                (&json!(site.alice().dn()), &json!("proxy"))
            );
        }
    }
    assert_eq!(site.who(&proxy).await, None);
}

#[tokio::test]
async fn a_revocation_list_that_expires_closes_the_store_also_to_who_is_in_and_a_new_one_opens_it() {
    let site = Site::new("");
    let authority = site.pki.authority().unwrap();
    let alice = site.alice();
    let kept = site.client(&alice);
    assert!(kept.get("/v1/whoami").await.unwrap()["dn"].is_string());
    let now = Validity::lasting(Duration::ZERO).from;
    let expired = authority
        .crl_with(Validity {
            from: now - 7200,
            to: now - 60,
        })
        .unwrap();
    std::fs::write(site.list(), pem("X509 CRL", &expired)).unwrap();
    until(async || site.who(&alice).await.is_none()).await;
    // On a connection that was open, each request is looked at; then it is closed.
    until(async || {
        kept.get("/v1/whoami")
            .await
            .is_none_or(|answer| answer["status"] == 401)
    })
    .await;
    std::fs::write(site.list(), pem("X509 CRL", &authority.crl().unwrap())).unwrap();
    until(async || site.who(&alice).await.is_some()).await;
}

#[tokio::test]
async fn a_host_certificate_that_is_replaced_is_presented_without_a_restart_once_it_fits_its_key() {
    let site = Site::new("");
    let alice = site.alice();
    let (certificate, key) = site.pki.host("keystore1");
    let good = [&certificate, &key].map(|path| std::fs::read(path).unwrap());
    let stranger = Authority::new("/DC=org/DC=stranger/CN=CA").unwrap();
    let other = stranger
        .host("/DC=org/DC=stranger/CN=ks", &["localhost", "127.0.0.1"])
        .unwrap();
    let logged = |words: &str| std::fs::read_to_string(site.grid.store_log(1)).unwrap().contains(words);
    assert!(site.who(&alice).await.is_some());
    // between the exchange of one file and the other they do not fit: the old one stays
    std::fs::write(&certificate, other.certificate_pem()).unwrap();
    until(async || {
        let served = site.who(&alice).await.is_some();
        assert!(served, "the store presents a certificate without its key");
        logged("cannot read the host's certificate again")
    })
    .await;
    std::fs::write(&key, other.key().pem()).unwrap();
    // this client does not believe the stranger: that it gets in no more shows that the store presents the new one
    until(async || site.who(&alice).await.is_none()).await;
    std::fs::write(&certificate, &good[0]).unwrap();
    std::fs::write(&key, &good[1]).unwrap();
    until(async || site.who(&alice).await.is_some()).await;
}

#[tokio::test]
async fn a_vo_that_changes_its_certificate_is_believed_once_its_file_says_so() {
    let site = Site::new("");
    let authority = site.pki.authority().unwrap();
    let server = VomsServer::new(authority, "movevo", "voms.example.org").unwrap();
    let lsc = site.pki.vomsdir().join(server.lsc_path());
    std::fs::create_dir_all(lsc.parent().unwrap()).unwrap();
    std::fs::write(&lsc, server.lsc()).unwrap();
    let name = server.own().dn().replace("voms.example.org", "moved.example.org");
    assert_ne!(name, server.own().dn());
    let own = authority.host(&name, &["moved.example.org"]).unwrap();
    let moved = VomsServer::with(authority, "movevo", "voms.example.org", own);
    let believed = async |server: &VomsServer| {
        let who = site
            .who(&server.proxy(&site.alice(), &["/movevo"]).unwrap())
            .await
            .unwrap();
        who["fqans"] == json!(["/movevo"])
    };
    assert!(believed(&server).await && !believed(&moved).await);
    std::fs::write(&lsc, format!("{}------\n{}", server.lsc(), moved.lsc())).unwrap();
    until(async || believed(&moved).await).await;
    assert!(believed(&server).await);
    std::fs::write(&lsc, moved.lsc()).unwrap();
    until(async || !believed(&server).await).await;
    assert!(believed(&moved).await);
}

#[tokio::test]
async fn clocks_that_are_minutes_off_are_told() {
    let site = Site::new("");
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let now = i64::try_from(now).unwrap();
    let proxy = |from: i64, to: i64| {
        let options = ProxyOptions {
            validity: Validity {
                from: now + from,
                to: now + to,
            },
            ..ProxyOptions::default()
        };
        site.alice().proxy(&options).unwrap()
    };
    assert!(site.who(&proxy(-300, 3600)).await.is_some());
    assert_eq!(site.who(&proxy(180, 3600)).await, None);
    assert_eq!(site.who(&proxy(-3600, -60)).await, None);
    let log = std::fs::read_to_string(site.grid.store_log(1)).unwrap();
    assert!(
        log.contains("is not valid before") && log.contains("expired at"),
        "{log}"
    );
}

#[tokio::test]
async fn old_proxies_get_in_where_the_configuration_says_so() {
    let mut site = Site::new("");
    let (alice, key) = (site.alice(), Key::generate(KeyKind::Ec).unwrap());
    let authority = site.pki.authority().unwrap();
    let extensions = vec![Extension::key_usage(0x80)];
    let subject = alice.name().with_common_name("proxy");
    let mut template = authority.template(subject, key.public_der().to_vec(), extensions);
    template.issuer = alice.name().clone();
    let legacy = alice.sign(&template, key).unwrap();
    assert_eq!(site.who(&legacy).await, None);
    let log = std::fs::read_to_string(site.grid.store_log(1)).unwrap();
    assert!(log.contains("is a legacy proxy"), "{log}");
    // A grid writes the configuration anew at each start: this one is served by hand.
    site.grid.terminate(1).unwrap();
    let config = config(&site.grid);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[tls]\n", "[tls]\nlegacy_proxies = true\n")).unwrap();
    let mut command = std::process::Command::new(PROGRAM);
    let log = std::fs::File::create(site.folder.path().join("log")).unwrap();
    let command = command.args(["serve", &config]).stdout(std::process::Stdio::piped());
    let mut child = command.stderr(log).spawn().unwrap();
    let mut line = String::new();
    let out = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
    let mut client = site.client(&legacy);
    client.url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
    let who = client.get("/v1/whoami").await;
    child.kill().unwrap();
    child.wait().unwrap();
    let log = std::fs::read_to_string(site.folder.path().join("log")).unwrap();
    assert_eq!(who.expect(&log)["dn"], json!(alice.dn()));
}

#[test]
fn check_says_that_a_file_of_authorities_lets_nobody_in() {
    let site = Site::new("");
    let config = config(&site.grid);
    let text = std::fs::read_to_string(&config).unwrap();
    let authority = site.folder.path().join("ca.pem");
    std::fs::write(&authority, site.pki.authority().unwrap().pem()).unwrap();
    let line = text.lines().find(|line| line.starts_with("ca_dir")).unwrap();
    std::fs::write(
        &config,
        text.replace(line, &format!("ca_file = \"{}\"", authority.display())),
    )
    .unwrap();
    let (code, _, error) = run(&["check", &config]);
    assert!(code == 78 && error.contains("no client gets in"), "{error}");
    std::fs::write(&config, text).unwrap();
    assert_eq!(run(&["check", &config]).0, 0);
}
