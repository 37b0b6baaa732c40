//! Real storage elements for the tests: XRootD (root and https) and the Globus GridFTP server, both from Debian.
//!
//! They run as an unprivileged user, on free ports of this machine, out of temporary folders, and end with the thread
//! that started them. Certificates have RSA keys: XRootD's own security knows no others.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testgrid::pki::voms::{VomsServer, carrying};
use testgrid::pki::{KeyKind, Pki, PkiOptions, ProxyOptions};

use crate::door::wait_for;
use crate::hospital::Place;

/// The user that servers run as where the tests are root's: Debian's xrootd-server makes it.
const USER: &str = "xrootd";

/// A security fabric that grids of fifteen years ago could have made.
pub struct Fabric {
    /// Where it is.
    pub pki: Pki,
    /// Alice's proxy, with her groups.
    pub alice: PathBuf,
    /// Bob's.
    pub bob: PathBuf,
    /// Takes the folder away at the end of this process: its standard input closes then.
    _keeper: Child,
}

impl Fabric {
    /// Makes one in a temporary folder, which goes when this process ends: a static is never dropped.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn make() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder").keep();
        let keeper = Command::new("sh")
            .args(["-c", "cat; rm -rf \"$1\"", "keeper"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let options = PkiOptions {
            key: KeyKind::Rsa,
            ..PkiOptions::default()
        };
        let pki = Pki::create(&folder, &options).expect("certificates");
        let member = |name: &str, fqans: &[&str]| {
            let authority = pki.authority().expect("an authority of ours");
            let host = "voms.hydragrid.example";
            let dn = format!("/DC=org/DC=hydragrid/OU=Hosts/CN={host}");
            let server = authority.host_with(&dn, &[host], KeyKind::Ec).expect("a VOMS server");
            let server = VomsServer::with(authority, "myvo", host, server);
            let dn = pki.user_dn(name).expect("a user");
            let validity = testgrid::pki::Validity::usual();
            let user = authority.user_with(dn, KeyKind::Rsa, validity).expect("a certificate");
            let mut template = server.template(&user, fqans);
            template.validity = ProxyOptions::default().validity;
            let proxy = user.proxy(&ProxyOptions {
                key: KeyKind::Rsa,
                ..carrying(&[server.sign(&template).expect("an attribute certificate")])
            });
            let path = folder.join("proxies").join(format!("{name}-rsa.pem"));
            fs::write(&path, proxy.expect("a proxy").credential_pem()).expect("it can be written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
            path
        };
        Self {
            alice: member("alice", &["/myvo", "/myvo/physicians"]),
            bob: member("bob", &["/myvo", "/myvo/researchers"]),
            pki,
            _keeper: keeper.expect("a shell"),
        }
    }
}

/// A server process with its folder.
struct Server {
    folder: TempDir,
    child: Option<Child>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    fn folder() -> TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its mode can be set");
        folder
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self
            .child
            .as_ref()
            .and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?));
        kill_process(pid.expect("it runs"), signal).expect("it is ours");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The end of what it logged.
    fn log(&self) -> String {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        let from = text.len().saturating_sub(2000);
        text.get(from..).unwrap_or(&text).to_owned()
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Gives a file or folder to the user of the servers, where we may.
pub(crate) fn give(path: &Path) {
    if !is_root() {
        return;
    }
    let ids = fs::read_to_string("/etc/passwd").expect("users");
    let line = ids
        .lines()
        .find(|line| line.starts_with(&format!("{USER}:")))
        .expect("the user of the servers");
    let ids: Vec<u32> = line
        .split(':')
        .skip(2)
        .take(2)
        .filter_map(|id| id.parse().ok())
        .collect();
    chown(path, ids.first().copied(), ids.get(1).copied()).expect("root may");
}

/// A copy of a host's certificate and key that the servers' user can read.
fn host_files(fabric: &Fabric, folder: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = fabric.pki.host("se");
    let (to_certificate, to_key) = (folder.join("hostcert.pem"), folder.join("hostkey.pem"));
    fs::copy(certificate, &to_certificate).expect("it can be copied");
    fs::copy(key, &to_key).expect("it can be copied");
    // a copy, for the fabric lies where only its owner may go
    let anchors = folder.join("certificates");
    fs::create_dir(&anchors).expect("a folder");
    for entry in fs::read_dir(fabric.pki.certificates())
        .expect("trust anchors")
        .flatten()
    {
        fs::copy(entry.path(), anchors.join(entry.file_name())).expect("it can be copied");
    }
    for path in [&to_certificate, &to_key] {
        give(path);
    }
    (to_certificate, to_key)
}

/// A port that was free a moment ago: these servers cannot be told to take any.
fn free_port() -> u16 {
    let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    socket.local_addr().expect("it is bound").port()
}

/// A command that ends with the thread that starts it, and runs without privileges.
pub(crate) fn unprivileged(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]);
    }
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

fn make_folder(path: &Path) {
    fs::create_dir_all(path).expect("a folder");
    give(path);
}

/// How a nearline file is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staging {
    /// One command for each, which ends when it is there.
    Sync,
    /// One process for all, which says when.
    Async,
}

/// XRootD with two doors, `root:` and `https:`. Alice may write below `/myvo` and read below `/refused`; bob nothing.
pub struct Xrootd {
    server: Server,
    root_port: u16,
    https_port: u16,
}

impl Xrootd {
    /// Starts one.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start(fabric: &Fabric) -> Self {
        let folder = Server::folder();
        let path = folder.path().to_owned();
        make_folder(&path.join("data"));
        for name in ["data/myvo", "data/refused", "admin"] {
            make_folder(&path.join(name));
        }
        let (root_port, https_port) = (free_port(), free_port());
        Self::configure(fabric, &path, root_port, https_port);
        let mut xrootd = Self {
            server: Server { folder, child: None },
            root_port,
            https_port,
        };
        xrootd.run();
        xrootd
    }

    fn configure(fabric: &Fabric, path: &Path, root_port: u16, https_port: u16) {
        let (certificate, key) = host_files(fabric, path);
        let alice = fabric.pki.user_dn("alice").expect("a user");
        fs::write(path.join("gridmap"), format!("\"{alice}\" alice\n")).expect("it can be written");
        fs::write(path.join("authdb"), "u alice /myvo a /refused rl\n").expect("it can be written");
        let [certificate, key] = [certificate, key].map(|path| path.display().to_string());
        let at = path.display();
        let text = format!(
            "all.role server\n\
             all.adminpath {at}/admin\n\
             all.pidpath {at}/admin\n\
             xrd.port {root_port}\n\
             xrd.network nodnr\n\
             oss.localroot {at}/data\n\
             all.export /myvo\n\
             all.export /refused\n\
             xrootd.seclib libXrdSec.so\n\
             sec.protocol gsi -certdir:{at}/certificates -cert:{certificate} -key:{key} -gridmap:{at}/gridmap \
             -gmapopt:1 -crl:1\n\
             sec.protbind * only gsi\n\
             ofs.authorize 1\n\
             acc.authdb {at}/authdb\n\
             xrootd.chksum max 2 adler32\n\
             xrd.protocol XrdHttp:{https_port} libXrdHttp.so\n\
             http.cert {certificate}\n\
             http.key {key}\n\
             http.cadir {at}/certificates\n\
             http.gridmap {at}/gridmap\n\
             http.selfhttps2http no\n"
        );
        fs::write(path.join("xrootd.cfg"), text).expect("it can be written");
    }

    /// Starts one in front of an agent: what is below `/eds` is nearline until somebody asks for it. Anybody may read.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn nearline(fabric: &Fabric, place: &Place, staging: Staging) -> Self {
        let folder = Server::folder();
        let path = folder.path().to_owned();
        for name in ["admin", "bin", "fail"] {
            make_folder(&path.join(name));
        }
        let (root_port, https_port) = (free_port(), free_port());
        let (certificate, key) = host_files(fabric, &path);
        let (ours, socket) = (crate::program("dicom-recall"), place.path("ask"));
        let hook = |name: &str, options: &str| {
            let (ours, socket) = (ours.display(), socket.display());
            let script = format!("#!/bin/sh\nexec {ours} {name} --socket {socket} {options} \"$@\"\n");
            let path = path.join("bin").join(name);
            fs::write(&path, script).expect("it can be written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode can be set");
        };
        let at = path.display();
        hook("rss", "");
        hook("stage", &format!("--fail-folder {at}/fail --wait 60 --"));
        hook("queue", "--wait 60");
        hook("prep", "");
        let stage = match staging {
            Staging::Sync => format!("oss.stagecmd sync {at}/bin/stage"),
            Staging::Async => format!("oss.stagecmd async |{at}/bin/queue"),
        };
        // the last number, for how long a failure stands, has to be longer than a client waits before it asks again
        let text = format!(
            "all.role server\n\
             all.adminpath {at}/admin\n\
             all.pidpath {at}/admin\n\
             xrd.port {root_port}\n\
             xrd.network nodnr\n\
             oss.localroot {}\n\
             all.export /eds r/o stage check nodread noxattrs\n\
             oss.rsscmd {at}/bin/rss\n\
             {stage}\n\
             oss.xfr fdir {at}/fail deny 1 keep 30 8 50m 1 6\n\
             xrootd.async off\n\
             ofs.preplib libXrdOfsPrepGPI.so -admit all -maxfiles 1000 -maxreq 64 -run {at}/bin/prep\n\
             xrd.protocol XrdHttp:{https_port} libXrdHttp.so\n\
             http.cert {}\n\
             http.key {}\n\
             http.cadir {at}/certificates\n\
             http.selfhttps2http no\n",
            place.path("se").display(),
            certificate.display(),
            key.display(),
        );
        fs::write(path.join("xrootd.cfg"), text).expect("it can be written");
        let mut xrootd = Self {
            server: Server { folder, child: None },
            root_port,
            https_port,
        };
        xrootd.run();
        xrootd
    }

    /// Starts it again after [`Self::kill`].
    ///
    /// # Panics
    /// If it does not come up.
    pub fn restart(&mut self) {
        self.run();
    }

    /// `localhost:PORT`, for `xrdfs`.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.root_port)
    }

    /// Something in its own folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.server.path(name)
    }

    /// What it logged last.
    pub fn said(&self) -> String {
        self.server.log()
    }

    fn run(&mut self) {
        let path = self.server.folder.path();
        let log = fs::File::create(path.join("log")).expect("a log");
        let child = unprivileged("xrootd")
            .arg("-c")
            .arg(path.join("xrootd.cfg"))
            .current_dir(path.join("admin"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn();
        self.server.child = Some(child.expect("xrootd is installed"));
        let ports = [self.root_port, self.https_port];
        let log = || self.server.log();
        wait_for(&format!("xrootd: {}", log()), || {
            ports
                .iter()
                .all(|port| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok())
        });
    }

    /// `root://…` of a path.
    pub fn root(&self, path: &str) -> String {
        format!("root://localhost:{}/{path}", self.root_port)
    }

    /// `https://…` of a path.
    pub fn https(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.https_port)
    }

    /// Where a path lies on disk.
    pub fn on_disk(&self, path: &str) -> PathBuf {
        self.server.path(&format!("data{path}"))
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Stops it in the middle of whatever it does.
    pub fn hang(&self) {
        self.server.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.server.signal(Signal::CONT);
    }
}

/// A GridFTP server. Alice is mapped to the servers' user; bob to nobody.
pub struct GridFtp {
    server: Server,
    port: u16,
}

impl GridFtp {
    /// Starts one.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start(fabric: &Fabric) -> Self {
        let folder = Server::folder();
        let path = folder.path();
        make_folder(&path.join("data"));
        let (certificate, key) = host_files(fabric, path);
        let alice = fabric.pki.user_dn("alice").expect("a user");
        let name = match is_root() {
            true => USER.to_owned(),
            false => std::env::var("USER").unwrap_or_default(),
        };
        fs::write(path.join("gridmap"), format!("\"{alice}\" {name}\n")).expect("it can be written");
        let port = free_port();
        let log = fs::File::create(path.join("log")).expect("a log");
        give(&path.join("log"));
        let child = unprivileged("/usr/sbin/globus-gridftp-server")
            .args([
                "-no-detach",
                "-control-interface",
                "127.0.0.1",
                "-data-interface",
                "127.0.0.1",
            ])
            .args(["-p", &port.to_string()])
            .env("X509_USER_CERT", certificate)
            .env("X509_USER_KEY", key)
            .env("X509_CERT_DIR", path.join("certificates"))
            .env("GRIDMAP", path.join("gridmap"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn();
        let server = Server {
            child: Some(child.expect("globus-gridftp-server is installed")),
            folder,
        };
        wait_for("the GridFTP server", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { server, port }
    }

    /// `gsiftp://…` of a name in its folder.
    pub fn url(&self, name: &str) -> String {
        format!("gsiftp://localhost:{}{}", self.port, self.on_disk(name).display())
    }

    /// Where a name lies on disk.
    pub fn on_disk(&self, name: &str) -> PathBuf {
        self.server.path(&format!("data/{name}"))
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.server.kill();
    }
}
