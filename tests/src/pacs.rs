//! PACS for the tests: Orthanc and dcmtk's dcmqrscp, both from Debian, and one of ours that misbehaves on command.
//!
//! They run on free ports of this machine out of temporary folders, and end with the thread that started them.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dicom_net::association::{Acceptance, Association, Message};
use dicom_net::command::{Command as Dimse, Field, Status, element};
use dicom_net::dataset::{Attributes, FileMeta, Tag, tag};
use dicom_net::pdu::Reject;
use dicom_net::{AeTitle, Deadlines, Pacs, PacsOptions, Slots, Uid, contexts};
use tempfile::TempDir;

/// The title that the tests call themselves by.
pub const OURS: &str = "HYDRA";
/// The title of every PACS here.
pub const THEIRS: &str = "PACS";

/// Where Debian puts the DICOMweb plug-in of Orthanc.
const DICOMWEB: [&str; 3] = [
    "/usr/share/orthanc/plugins/libOrthancDicomWeb.so",
    "/usr/lib/orthanc/libOrthancDicomWeb.so",
    "/usr/local/share/orthanc/plugins/libOrthancDicomWeb.so",
];

/// A port that was free a moment ago.
///
/// # Panics
/// If there is none.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it has an address").port()
}

/// A PACS of ours on this machine, with deadlines that a test can wait for.
///
/// # Panics
/// Never: the titles are titles.
pub fn pacs(port: u16) -> Pacs {
    Pacs::new(options(port))
}

/// How to speak to it.
///
/// # Panics
/// Never: the titles are titles.
pub fn options(port: u16) -> PacsOptions {
    let title = |text: &str| AeTitle::new(text).expect("a title");
    let mut options = PacsOptions::new(title(OURS), title(THEIRS), "127.0.0.1", port);
    options.deadlines = Deadlines {
        connect: Duration::from_secs(20),
        association: Duration::from_secs(60),
        unit: Duration::from_secs(60),
        whole: Duration::from_secs(300),
    };
    options
}

/// A process with its folder.
struct Server {
    /// Goes with the process.
    folder: TempDir,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a program of Debian's `package` out of `folder`, and waits until it listens on each of the ports.
    fn start(program: &str, package: &str, arguments: &[&OsStr], folder: TempDir, ports: &[u16]) -> Self {
        let log = folder.path().join("log");
        let out = fs::File::create(&log).expect("a log");
        let child = Command::new(program)
            .args(arguments)
            .env("TCP_NODELAY", "1")
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a handle"))
            .stderr(out)
            .spawn()
            .unwrap_or_else(|error| panic!("`{program}` is needed (Debian: {package}): {error}"));
        let mut server = Self { folder, child };
        for port in ports {
            server.wait_for(&log, *port);
        }
        server
    }

    fn wait_for(&mut self, log: &Path, port: u16) {
        let end = Instant::now() + Duration::from_secs(90);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = self.child.try_wait().expect("a child can be waited for");
            let text = || fs::read_to_string(log).unwrap_or_default();
            assert!(ended.is_none(), "it ended: {}", text());
            assert!(Instant::now() < end, "it is not ready: {}", text());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// An Orthanc.
pub struct Orthanc {
    _server: Server,
    /// Its DICOM port.
    pub port: u16,
    /// Its HTTP port.
    pub http: u16,
    /// Where it would send by C-MOVE.
    pub move_port: u16,
}

impl Orthanc {
    /// Starts one with nothing in it.
    ///
    /// # Panics
    /// If it is not installed, or does not start.
    pub fn start() -> Self {
        Self::start_with(&serde_json::json!({}))
    }

    /// Starts one with more in its configuration, or other things: the keys of `more`.
    ///
    /// # Panics
    /// If it is not installed, or does not start.
    pub fn start_with(more: &serde_json::Value) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [port, http, move_port] = [free_port(), free_port(), free_port()];
        let plugin = DICOMWEB.iter().find(|path| Path::new(path).exists());
        let plugin = plugin.expect("the DICOMweb plug-in is needed (Debian: orthanc-dicomweb)");
        let storage = folder.path().join("storage");
        let mut config = serde_json::json!({
            "Name": "test",
            "StorageDirectory": storage,
            "IndexDirectory": storage,
            "Plugins": [plugin],
            "HttpPort": http,
            "RemoteAccessAllowed": false,
            "AuthenticationEnabled": false,
            "DicomPort": port,
            "DicomAet": THEIRS,
            "DicomCheckCalledAet": false,
            "DicomAlwaysAllowEcho": true,
            "DicomAlwaysAllowStore": true,
            "DicomAlwaysAllowFind": true,
            "DicomAlwaysAllowGet": true,
            "DicomAlwaysAllowMove": true,
            "DicomModalities": { OURS: { "AET": OURS, "Host": "localhost", "Port": move_port,
                                         "UseDicomTls": !more["DicomTlsEnabled"].is_null() } },
            "UnknownSopClassAccepted": true,
            "SaveJobs": false,
            "ConcurrentJobs": 2,
            "DicomThreadsCount": 2,
            "HttpThreadsCount": 4,
            "DicomWeb": { "Enable": true, "Root": "/dicom-web/" },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let path = folder.path().join("orthanc.json");
        fs::write(&path, config.to_string()).expect("it can be written");
        let server = Server::start("Orthanc", "orthanc", &[path.as_os_str()], folder, &[port, http]);
        Self {
            _server: server,
            port,
            http,
            move_port,
        }
    }

    /// Its DICOMweb root.
    pub fn dicomweb(&self) -> String {
        format!("http://127.0.0.1:{}/dicom-web", self.http)
    }

    /// Puts files into it.
    ///
    /// # Panics
    /// If it does not take one.
    pub fn load(&self, files: &[Vec<u8>]) {
        load(self.port, files);
    }
}

/// Puts files into a PACS, by C-STORE.
///
/// # Panics
/// If it does not take one.
pub fn load(port: u16, files: &[Vec<u8>]) {
    let pacs = pacs(port);
    for file in files {
        pacs.store(&mut file.as_slice())
            .unwrap_or_else(|error| panic!("{error:?}"));
    }
}

/// A dcmqrscp, which speaks DIMSE alone.
pub struct Dcmqrscp {
    server: Server,
    /// Its port.
    pub port: u16,
    /// Where it would send by C-MOVE.
    pub move_port: u16,
}

impl Dcmqrscp {
    /// Starts one with nothing in it.
    ///
    /// # Panics
    /// If it is not installed, or does not start.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [port, move_port] = [free_port(), free_port()];
        let database = folder.path().join("db");
        fs::create_dir(&database).expect("a folder can be made");
        let config = format!(
            "NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n\
             HostTable BEGIN\nours = ({OURS}, 127.0.0.1, {move_port})\nHostTable END\n\
             VendorTable BEGIN\nVendorTable END\n\
             AETable BEGIN\n{THEIRS} {} RW (200, 1024mb) ANY\nAETable END\n",
            database.display()
        );
        let path = folder.path().join("dcmqrscp.cfg");
        fs::write(&path, config).expect("it can be written");
        let arguments = [OsStr::new("--debug"), OsStr::new("--config"), path.as_os_str()];
        let server = Server::start("dcmqrscp", "dcmtk", &arguments, folder, &[port]);
        Self {
            server,
            port,
            move_port,
        }
    }

    /// What it says that it does.
    pub fn log(&self) -> String {
        fs::read_to_string(self.server.folder.path().join("log")).unwrap_or_default()
    }
}

/// How a PACS of ours misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does what it should.
    None,
    /// It takes the connection and says nothing.
    Hang,
    /// It refuses the association.
    Refuse,
    /// It grants no role of a provider.
    NoRole,
    /// It closes the connection in the midst of this instance, counted from 0.
    DropAt(usize),
    /// It goes silent in the midst of this instance.
    StallAt(usize),
    /// It sends an instance of another study instead of this one.
    OtherAt(usize),
    /// It announces this instance as another one.
    MisnamedAt(usize),
    /// It sends this instance twice.
    TwiceAt(usize),
    /// It sends only the first bytes of this instance.
    BrokenAt(usize),
    /// It answers with what is no DICOM.
    Nonsense,
    /// It sends nothing until it is told to end.
    Waits,
    /// It says that it could not send this instance, and names it.
    FailAt(usize),
    /// It sends so many bytes more with each instance, all of them 0: no fault, but more than is held in memory.
    Longer(u64),
}

/// A PACS of ours that answers C-ECHO, C-FIND and C-GET, badly where asked.
pub struct FakePacs {
    /// Its port.
    pub port: u16,
    /// How often it was asked for instances.
    pub gets: Arc<AtomicUsize>,
    /// How often it was told to end that, and then released in good order.
    pub cancels: Arc<AtomicUsize>,
}

struct Holding {
    files: Vec<(FileMeta, Attributes, Vec<u8>)>,
    other: Vec<u8>,
    fault: Fault,
    gets: Arc<AtomicUsize>,
    cancels: Arc<AtomicUsize>,
}

impl FakePacs {
    /// Starts one that holds `files` of PS3.10, and `other`, an instance that nobody asks for.
    ///
    /// # Panics
    /// If it cannot listen, or a file is none.
    pub fn start(files: &[Vec<u8>], other: &[u8], fault: Fault) -> Self {
        Self::start_at(0, files, other, fault)
    }

    /// As [`FakePacs::start`], at a port that is free.
    ///
    /// # Panics
    /// If it is not, or a file is none.
    pub fn start_at(port: u16, files: &[Vec<u8>], other: &[u8], fault: Fault) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let hold = |file: &Vec<u8>| {
            let mut rest = file.as_slice();
            let (meta, _) = FileMeta::read(&mut rest).expect("a file");
            let (identity, _) = dicom_net::dataset::read_identity(rest, &meta.transfer_syntax).expect("an instance");
            let attributes = Attributes::new()
                .with_uids(tag::STUDY, [&identity.study])
                .with_uids(tag::SERIES, [&identity.series])
                .with_uids(tag::SOP_INSTANCE, [&identity.instance])
                .with_uids(tag::SOP_CLASS, [&identity.class])
                // and of the image no more than what is its own: 64 rows
                .with(Tag(0x0008, 0x0060), "CT")
                .with(Tag(0x0028, 0x0010), "@\0");
            (meta, attributes, rest.to_vec())
        };
        let holding = Arc::new(Holding {
            files: files.iter().map(hold).collect(),
            other: other.to_vec(),
            fault,
            gets: Arc::default(),
            cancels: Arc::default(),
        });
        let (gets, cancels) = (Arc::clone(&holding.gets), Arc::clone(&holding.cancels));
        std::thread::spawn(move || {
            for tcp in listener.incoming() {
                let Ok(tcp) = tcp else { break };
                let holding = Arc::clone(&holding);
                // what the other side does to it is the test's business
                std::thread::spawn(move || drop(holding.converse(tcp)));
            }
        });
        Self { port, gets, cancels }
    }
}

type Converse<T> = Result<T, dicom_net::NetError>;

impl Holding {
    fn converse(&self, mut tcp: TcpStream) -> Converse<()> {
        match self.fault {
            Fault::Hang => {
                std::thread::sleep(crate::DEADLINE);
                return Ok(());
            }
            Fault::Nonsense => {
                let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                std::thread::sleep(Duration::from_millis(200));
                return Ok(());
            }
            _ => {}
        }
        let cut = tcp.try_clone().expect("a handle");
        let decide = |request: &dicom_net::pdu::AssociateRequest| {
            if self.fault == Fault::Refuse {
                return Err(Reject {
                    is_transient: false,
                    source: 1,
                    reason: 3,
                });
            }
            let mut contexts = contexts::accept(&request.contexts);
            for (answer, proposed) in contexts.iter_mut().zip(&request.contexts) {
                // accepted all that is asked for
                (answer.result, answer.transfer_syntax) = (0, proposed.transfer_syntaxes.first().cloned());
            }
            let roles = if self.fault == Fault::NoRole {
                Vec::new()
            } else {
                request.user.roles.clone()
            };
            Ok(Acceptance { contexts, roles })
        };
        let (mut association, _) = Association::accept(tcp, None, Deadlines::default(), decide)?;
        while let Some(message) = association.receive()? {
            match message.command.field() {
                Field::EchoRequest => association.reply(&message, Status::SUCCESS)?,
                Field::FindRequest => self.find(&mut association, &message)?,
                Field::GetRequest => self.get(&mut association, &message, &cut)?,
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    fn asked(&self, query: &Attributes) -> Vec<usize> {
        let fits = |attributes: &Attributes| {
            [tag::STUDY, tag::SERIES, tag::SOP_INSTANCE].into_iter().all(|tag| {
                let asked = query.uids(tag);
                asked.is_empty() || attributes.uid(tag).is_ok_and(|own| asked.contains(&own))
            })
        };
        let numbered = self.files.iter().enumerate();
        numbered
            .filter(|(_, (_, attributes, _))| fits(attributes))
            .map(|(number, _)| number)
            .collect()
    }

    fn find(&self, association: &mut Association, message: &Message) -> Converse<()> {
        let query = Attributes::decode(&association.small_data()?).expect("a query");
        let is_series = query.text(tag::QUERY_LEVEL).as_deref() == Some("SERIES");
        let mut seen: Vec<Option<Uid>> = Vec::new();
        for number in self.asked(&query) {
            let attributes = &self.files[number].1;
            let series = attributes.uid(tag::SERIES).ok();
            if is_series && seen.contains(&series) {
                continue;
            }
            seen.push(series);
            let pending = Dimse::reply(&message.command, Status::PENDING);
            association.send(message.context, pending, Some(&attributes.encode()))?;
        }
        association.reply(message, Status::SUCCESS)
    }

    fn get(&self, association: &mut Association, message: &Message, cut: &TcpStream) -> Converse<()> {
        self.gets.fetch_add(1, Ordering::AcqRel);
        let query = Attributes::decode(&association.small_data()?).expect("a query");
        let mut failed = Vec::new();
        if self.fault == Fault::Waits {
            let next = association.expect()?;
            assert_eq!(next.command.field(), Field::CancelRequest);
            return self.cancelled(association, message);
        }
        for (number, index) in self.asked(&query).into_iter().enumerate() {
            let (meta, _, data) = &self.files[index];
            let mut meta = meta.clone();
            let mut data = data.as_slice();
            let mut times = 1;
            match self.fault {
                Fault::DropAt(at) if at == number => {
                    self.begin(association, &meta, data)?;
                    let _ = cut.shutdown(std::net::Shutdown::Both);
                    return Ok(());
                }
                Fault::StallAt(at) if at == number => {
                    self.begin(association, &meta, data)?;
                    std::thread::sleep(crate::DEADLINE);
                    return Ok(());
                }
                Fault::OtherAt(at) if at == number => {
                    let mut rest = self.other.as_slice();
                    meta = FileMeta::read(&mut rest).expect("a file").0;
                    data = rest;
                }
                Fault::MisnamedAt(at) if at == number => meta.instance = Uid::new("2.25.4711").expect("an identifier"),
                Fault::TwiceAt(at) if at == number => times = 2,
                Fault::BrokenAt(at) if at == number => data = &data[..30],
                Fault::FailAt(at) if at == number => {
                    failed.push(meta.instance);
                    continue;
                }
                _ => {}
            }
            for _ in 0..times {
                let more = match self.fault {
                    Fault::Longer(bytes) => bytes,
                    _ => 0,
                };
                self.send(association, &meta, data, more)?;
                let mut answer = association.expect()?;
                if answer.command.field() == Field::CancelRequest {
                    let id = message.command.number(element::MESSAGE_ID).expect("a number");
                    assert_eq!(answer.command.answers(id), Ok(()));
                    answer = association.expect()?;
                    assert_eq!(answer.command.status(), Ok(Status::OUT_OF_RESOURCES));
                    return self.cancelled(association, message);
                }
                if answer.command.status() != Ok(Status::SUCCESS) {
                    failed.push(meta.instance.clone());
                }
            }
        }
        let status = if failed.is_empty() {
            Status::SUCCESS
        } else {
            Status(0xb000)
        };
        let mut reply = Dimse::reply(&message.command, status);
        let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        reply.set_number(element::FAILED, count(failed.len()));
        reply.set_number(
            element::COMPLETED,
            count(self.files.len() - failed.len().min(self.files.len())),
        );
        let names = Attributes::new().with_uids(tag::FAILED_INSTANCES, &failed).encode();
        association.send(message.context, reply, (!failed.is_empty()).then_some(names.as_slice()))
    }

    /// Says that it ended on request, as it was told.
    fn cancelled(&self, association: &mut Association, message: &Message) -> Converse<()> {
        association.reply(message, Status::CANCELLED)?;
        if association.receive()?.is_none() {
            self.cancels.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    fn request(&self, association: &mut Association, meta: &FileMeta) -> (u8, Dimse) {
        let agreed = association.agreed().iter();
        let mut fitting = agreed.filter(|agreed| agreed.class == meta.class);
        let context = fitting
            .find(|agreed| agreed.transfer_syntax == meta.transfer_syntax)
            .expect("a context")
            .id;
        let id = association.next_message();
        let mut command = Dimse::request(Field::StoreRequest, id, &meta.class);
        command.set_uid(element::AFFECTED_INSTANCE, &meta.instance);
        (context, command)
    }

    fn send(&self, association: &mut Association, meta: &FileMeta, data: &[u8], more: u64) -> Converse<()> {
        let (context, command) = self.request(association, meta);
        association.send_stream(context, command, &mut data.chain(std::io::repeat(0).take(more)))
    }

    /// Sends most of an instance, and no end of it.
    fn begin(&self, association: &mut Association, meta: &FileMeta, data: &[u8]) -> Converse<()> {
        struct Endless<'a>(&'a [u8]);
        impl std::io::Read for Endless<'_> {
            fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
                if self.0.is_empty() {
                    return Err(std::io::Error::other("no more"));
                }
                self.0.read(out)
            }
        }
        let (context, command) = self.request(association, meta);
        let most = &data[..data.len() * 3 / 4];
        match association.send_stream(context, command, &mut Endless(most)) {
            Err(dicom_net::NetError::Source { .. }) => Ok(()),
            other => other,
        }
    }
}

/// Ends TLS in front of a server of HTTP on this machine, as reverse proxies do.
pub struct Front {
    /// Its port.
    pub port: u16,
    _runtime: tokio::runtime::Runtime,
}

impl Front {
    /// Starts one before `to`.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn start(to: u16, tls: Arc<rustls::ServerConfig>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut outside = acceptor.accept(tcp).await?;
                    let mut inside = tokio::net::TcpStream::connect(("127.0.0.1", to)).await?;
                    tokio::io::copy_bidirectional(&mut outside, &mut inside).await
                });
            }
        });
        Self {
            port,
            _runtime: runtime,
        }
    }

    /// The root of the DICOMweb of an Orthanc behind it.
    pub fn dicomweb(&self) -> String {
        format!("https://localhost:{}/dicom-web", self.port)
    }
}

/// Which way a [`Drip`] is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To whoever connects.
    Back,
    /// To whoever is connected to.
    There,
}

/// Passes a connection on to another port of this machine; one way, after so many bytes, byte by byte, which is never
/// quite silence.
pub struct Drip {
    /// Its port.
    pub port: u16,
}

impl Drip {
    /// A byte this often, so many times; then it ends.
    const EVERY: Duration = Duration::from_millis(50);
    const TIMES: usize = 200;

    /// Starts one for a single connection.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn start(to: u16, way: Way, after: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            let Ok((caller, _)) = listener.accept() else { return };
            let Ok(called) = TcpStream::connect(("127.0.0.1", to)) else {
                return;
            };
            let (Ok(caller_too), Ok(called_too)) = (caller.try_clone(), called.try_clone()) else {
                return;
            };
            let limit = |of| if way == of { after } else { usize::MAX };
            let (back, there) = (limit(Way::Back), limit(Way::There));
            std::thread::spawn(move || pass(called_too, caller_too, back));
            pass(caller, called, there);
        });
        Self { port }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut quick: usize) {
    let mut buffer = vec![0; 16 * 1024];
    let mut drops = 0;
    let _ = to.set_nodelay(true);
    while drops < Drip::TIMES {
        let length = buffer.len().min(quick.max(1));
        let Ok(read @ 1..) = from.read(&mut buffer[..length]) else {
            break;
        };
        if quick == 0 {
            std::thread::sleep(Drip::EVERY);
            drops += 1;
        }
        quick = quick.saturating_sub(read);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

/// The slots of a client that wants only one association at once.
pub fn single() -> Slots {
    Slots::new(1)
}

/// A folder with files as they are.
///
/// # Panics
/// If they cannot be written.
pub fn folder_of(files: &[Vec<u8>]) -> (TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |(number, file): (usize, &Vec<u8>)| {
        let path = folder.path().join(format!("{number}.dcm"));
        fs::write(&path, file).expect("it can be written");
        path
    };
    let paths = files.iter().enumerate().map(write).collect();
    (folder, paths)
}
