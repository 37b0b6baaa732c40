//! `cargo demo --pacs`: from an image in a PACS to a file at a storage element that is not there until somebody asks
//! for it, with Orthanc and XRootD from Debian, for as long as the demo lasts. Orthanc cannot listen on loopback alone:
//! while the demo runs, neighbours reach its invented images.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::chore::{ChoreError, on, output, shown, succeed};
use crate::demo::{occurs, random_numbers};
use crate::dicom::{INVENTED, ct_slice};
use crate::scene::{Scene, chapter, say, time};
use crate::server::{Server, free_port, is_installed, orthanc, orthanc_config};
use crate::workspace::Workspace;

/// What it takes beside our own programs, and Debian's package of each.
const NEEDED: &[(&str, &str)] = &[
    ("Orthanc", "orthanc"),
    ("xrootd", "xrootd-server"),
    ("xrdcp", "xrootd-client"),
    ("xrdfs", "xrootd-client"),
    ("curl", "curl"),
    ("setpriv", "util-linux"),
];
/// What is not a program: XRootD's HTTP door and its prepare hook.
const PLUGINS: (&str, &str) = ("libXrdHttp", "xrootd-plugins");
/// The user that XRootD runs as where the demo is root's: it refuses to be root.
const USER: &str = "xrootd";
/// Slices of the study: one copied, one by HTTPS, one in part, three prepared.
const SLICES: u128 = 6;
/// How long a server may take to come up, and a file to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tells the story. Whatever happens, everything that was started is ended, and the folder is removed, unless it is to
/// be kept.
pub fn run(workspace: &Workspace, keep: bool) -> Result<(), ChoreError> {
    needed()?;
    workspace.build()?;
    let start = Instant::now();
    let programs = ["hydra-keystore", "dicom-recall", "eds-decrypt"];
    let mut story = Story::begin(workspace, &programs, SLICES, keep)?;
    story.tell()?;
    drop(story);
    say("");
    say(&format!(
        "All of it held, in {}. Next: docs/src/tutorial-pacs.md does the same by hand.",
        time(start.elapsed())
    ));
    Ok(())
}

pub(crate) fn needed() -> Result<(), ChoreError> {
    let mut packages: Vec<&str> = Vec::new();
    let missing = NEEDED.iter().filter(|(program, _)| !is_installed(program));
    packages.extend(missing.map(|(_, package)| *package));
    let folders = [
        "/usr/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
    ];
    let has_plugin = |folder: &&str| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name())
            .any(|name| name.to_string_lossy().starts_with(PLUGINS.0))
    };
    if !folders.iter().any(has_plugin) {
        packages.push(PLUGINS.1);
    }
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    Err(ChoreError::Missing {
        missing: format!(
            "this demo needs programs that are not installed, from {}",
            packages.join(", ")
        ),
        remedy: format!("sudo apt-get install --no-install-recommends {}", packages.join(" ")),
    })
}

pub(crate) struct Story {
    /// Ended from the last to the first, before the scene goes.
    servers: Vec<Server>,
    pub(crate) scene: Scene,
    is_root: bool,
    /// How many the study has.
    slices: u128,
}

impl Drop for Story {
    fn drop(&mut self) {
        while let Some(server) = self.servers.pop() {
            drop(server);
        }
    }
}

/// The ports of the servers.
pub(crate) struct Ports {
    orthanc: u16,
    dicom: u16,
    pub(crate) root: u16,
    https: u16,
}

impl Ports {
    /// Some that were free a moment ago.
    pub(crate) fn free() -> Result<Self, ChoreError> {
        Ok(Self {
            orthanc: free_port()?,
            dicom: free_port()?,
            root: free_port()?,
            https: free_port()?,
        })
    }
}

impl Story {
    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<PathBuf, ChoreError> {
        let path = self.scene.path(name);
        fs::write(&path, text).map_err(on("write", &path))?;
        Ok(path)
    }

    fn make(&self, name: &str) -> Result<PathBuf, ChoreError> {
        let path = self.scene.path(name);
        fs::create_dir_all(&path).map_err(on("make", &path))?;
        Ok(path)
    }

    /// With nothing in it.
    pub(crate) fn begin(
        workspace: &Workspace,
        programs: &[&str],
        slices: u128,
        keep: bool,
    ) -> Result<Self, ChoreError> {
        Ok(Self {
            servers: Vec::new(),
            scene: Scene::begin(workspace, programs, keep)?,
            is_root: succeed(Command::new("id").arg("-u"))?.trim() == "0",
            slices,
        })
    }

    fn tell(&mut self) -> Result<(), ChoreError> {
        let ports = Ports::free()?;
        chapter("A hospital: a PACS (Orthanc) with a CT series of a patient who does not exist.");
        self.orthanc(&ports)?;
        let study = self.study(&ports)?;

        chapter("Three key stores on this machine; any two of them together give a key back, no single one can.");
        self.scene.up()?;

        chapter(
            "In the hospital: the series gets names and a key. Each image is sealed once, to know its size and digest.",
        );
        self.configure(&ports)?;
        self.scene
            .show(&mut self.recall(&["register", "--exact-size", &study]))?;
        let names = self.names()?;

        chapter(
            "Beside the storage element (XRootD): an agent without a key. The hospital's daemon keeps a line to it.",
        );
        self.start_recall()?;
        self.xrootd(&ports)?;
        self.wait_until_listed(&names, &ports)?;
        let door = format!("root://localhost:{}", ports.root);
        let first = &names[0];
        self.is_nearline(&door, first)?;

        chapter("Somebody copies the first image. It is fetched, de-identified, sealed and placed meanwhile.");
        let url = format!("{door}/{first}");
        self.scene.show(
            self.scene
                .command("xrdcp", &["--silent", &url, "first.eds"])
                .env("XRD_LOGLEVEL", "Error"),
        )?;
        chapter("Somebody else copies another one by HTTPS.");
        self.by_https(&ports, &names[1], "second.eds", &[])?;
        chapter("And of a third one, of which nothing is there yet, a hundred bytes from the middle.");
        self.by_https(&ports, &names[2], "part.eds", &["--range", "1000-1099"])?;
        self.by_https(&ports, &names[2], "third.eds", &[])?;
        if self.scene.read("third.eds")?.get(1000..1100) != Some(self.scene.read("part.eds")?.as_slice()) {
            return Err(ChoreError::NotAsPromised("the range has other bytes".to_owned()));
        }
        say("    they are those of the whole file");
        for name in ["first.eds", "second.eds", "third.eds"] {
            self.sealed(name)?;
        }

        chapter("The other three are asked for in one request, before anybody reads them.");
        self.prepared(&door, &names[3..])?;

        chapter("Whoever has a right to the key opens them: the pixels are all there, and nobody's name.");
        self.opened("first.eds", "first.dcm", "0.dcm")?;
        self.opened("second.eds", "second.dcm", "1.dcm")?;
        chapter("Bob has the files too. The key is not his.");
        self.scene.refused_to_bob(&["first.eds"])?;

        chapter("The bytes are taken off the storage element, and come again: the same file.");
        self.scene.show(&mut self.recall(&["evict", first]))?;
        self.wait(&format!("`{first}` to go"), |story| {
            Ok(!story.scene.path("se").join(&first[1..]).exists())
        })?;
        self.is_nearline(&door, first)?;
        let url = format!("{door}/{first}");
        self.scene.show(
            self.scene
                .command("xrdcp", &["--silent", &url, "again.eds"])
                .env("XRD_LOGLEVEL", "Error"),
        )?;
        self.scene
            .show(&mut self.scene.command("sha256sum", &["first.eds", "again.eds"]))?;
        if self.scene.read("first.eds")? != self.scene.read("again.eds")? {
            return Err(ChoreError::NotAsPromised(
                "the second recall gave another file".to_owned(),
            ));
        }
        chapter("What the storage element has, looked through for the patient: files, the agent's database, its log.");
        self.names_nobody()
    }

    /// Copies a file, or a part of it, from the HTTPS door.
    fn by_https(&self, ports: &Ports, name: &str, to: &str, more: &[&str]) -> Result<(), ChoreError> {
        let url = format!("https://localhost:{}{name}", ports.https);
        let anchors = self.scene.variable("X509_CERT_DIR");
        let arguments = [&["-sS", "--fail", "--capath", &anchors], more, &["-o", to, &url]].concat();
        self.scene.show(&mut self.scene.command("curl", &arguments)).map(drop)
    }

    /// Asks for some in one request, and asks after it until all are there.
    fn prepared(&self, door: &str, names: &[String]) -> Result<(), ChoreError> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let prepare = [&[door, "prepare", "-s"], names.as_slice()].concat();
        let request = self.scene.show(&mut self.scene.command("xrdfs", &prepare))?;
        let query = [&[door, "query", "prepare", request.trim()], names.as_slice()].concat();
        self.wait("the prepared files", |story| {
            let told = succeed(&mut story.scene.command("xrdfs", &query))?;
            let told: Option<Value> = serde_json::from_str(told.trim().trim_end_matches('\0')).ok();
            let files = told.as_ref().and_then(|told| told["responses"].as_array());
            Ok(files.is_some_and(|files| files.iter().all(|file| file["online"] == true)))
        })?;
        for name in names {
            let told = self
                .scene
                .show(&mut self.scene.command("xrdfs", &[door, "stat", name]))?;
            if told.contains("Offline") {
                return Err(ChoreError::NotAsPromised(format!(
                    "`{name}` was prepared, and is not there"
                )));
            }
        }
        Ok(())
    }

    /// Orthanc, with nothing in it.
    pub(crate) fn orthanc(&mut self, ports: &Ports) -> Result<(), ChoreError> {
        let storage = self.make("pacs")?;
        let mut config = orthanc_config("demo", &storage, ports.orthanc, ports.dicom);
        config["DicomThreadsCount"] = 2.into();
        config["HttpThreadsCount"] = 2.into();
        let path = self.write("orthanc.json", config.to_string())?;
        self.start("Orthanc", orthanc().arg(path))?;
        self.wait_for_port(ports.orthanc)?;
        self.wait_for_port(ports.dicom)
    }

    /// A series of invented slices in the PACS; answers what the PACS calls the study.
    pub(crate) fn study(&self, ports: &Ports) -> Result<String, ChoreError> {
        let [study, series, image, frame] = random_numbers()?;
        for number in 0..self.slices {
            let slice = ct_slice(&INVENTED, [study, series, image.wrapping_add(number), frame]);
            let name = format!("{number}.dcm");
            self.write(&name, &slice)?;
            let url = format!("http://127.0.0.1:{}/instances", ports.orthanc);
            let data = format!("@{name}");
            succeed(
                &mut self
                    .scene
                    .command("curl", &["-sS", "--fail", "--data-binary", &data, &url]),
            )?;
        }
        say(&format!(
            "    {} slices; patient {}, number {}",
            self.slices, INVENTED.name, INVENTED.id
        ));
        Ok(format!("2.25.{study}"))
    }

    /// The files of daemon and agent.
    pub(crate) fn configure(&self, ports: &Ports) -> Result<(), ChoreError> {
        let mut secret = Vec::new();
        for number in random_numbers()? {
            secret.extend(number.to_be_bytes());
        }
        let secret = self.write("secret", &secret[..32])?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).map_err(on("close", &secret))?;
        let dicom = ports.dicom;
        self.write(
            "recall.toml",
            format!(
                "[pacs]\nmethod = \"c-get\"\nae_title = \"HYDRA\"\naet = \"PACS\"\nhost = \"127.0.0.1\"\nport = {dicom}\n\
                 [deid]\nsecret_file = \"secret\"\n[registry]\ndatabase = \"recall.db\"\n\
                 [place]\nconnect = \"unix:line.sock\"\n"
            ),
        )?;
        self.make("se/eds")?;
        self.make("fail")?;
        self.write(
            "place.toml",
            "root = \"se\"\ndatabase = \"place.db\"\n[line]\nlisten = \"unix:line.sock\"\n\
             [ask]\nsocket = \"place.sock\"\nmode = \"0666\"\n[xrootd]\nfail_folder = \"fail\"\n",
        )?;
        Ok(())
    }

    /// What is registered, in order.
    pub(crate) fn names(&self) -> Result<Vec<String>, ChoreError> {
        let text = succeed(&mut self.recall(&["ls", "--json"]))?;
        let names = text.lines().filter_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            Some(line["name"].as_str()?.to_owned())
        });
        let names: Vec<String> = names.collect();
        if u128::try_from(names.len()).unwrap_or(0) == self.slices {
            Ok(names)
        } else {
            Err(ChoreError::NotAsPromised(format!(
                "{} images are registered",
                names.len()
            )))
        }
    }

    pub(crate) fn start_recall(&mut self) -> Result<(), ChoreError> {
        let place = self.scene.path("place.toml").to_string_lossy().into_owned();
        let mut agent = self.scene.own("dicom-recall", &["place", &place]);
        say(&format!("    $ {} &", shown(&agent)));
        self.start("agent", &mut agent)?;
        self.wait("the agent", |story| Ok(story.scene.path("place.sock").exists()))?;
        let mut daemon = self.recall(&["daemon"]);
        say(&format!("    $ {} &", shown(&daemon)));
        self.start("daemon", &mut daemon)
    }

    /// XRootD with our hooks, as an ordinary user.
    pub(crate) fn xrootd(&mut self, ports: &Ports) -> Result<(), ChoreError> {
        let at = self.scene.folder().display().to_string();
        // a copy, for this repository may lie where only its owner may go
        let (from, to) = (
            self.scene.grid.join("bin/dicom-recall"),
            self.make("bin")?.join("dicom-recall"),
        );
        fs::copy(&from, &to).map_err(on("copy", &from))?;
        // hooks get no environment of ours, and XRootD parts their command at blanks
        for (hook, more) in [("rss", ""), ("stage", "--fail-folder \"$here/fail\" -- "), ("prep", "")] {
            let text = format!(
                "#!/bin/sh\nhere='{at}'\nexec \"$here/bin/dicom-recall\" {hook} --socket \"$here/place.sock\" {more}\"$@\"\n"
            );
            let path = self.write(hook, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(on("open", &path))?;
        }
        self.make("xrootd")?;
        let host = self.scene.grid.join("pki/hosts/se");
        for (from, to) in [
            ("hostcert.pem", "xrootd/hostcert.pem"),
            ("hostkey.pem", "xrootd/hostkey.pem"),
        ] {
            let (from, to) = (host.join(from), self.scene.path(to));
            fs::copy(&from, &to).map_err(on("copy", &from))?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o400)).map_err(on("close", &to))?;
        }
        self.anchors()?;
        let text = format!(
            "all.role server\nall.adminpath {at}/xrootd\nall.pidpath {at}/xrootd\nxrd.port {}\nxrd.network nodnr\n\
             oss.localroot {at}/se\nall.export /eds r/o stage check nodread noxattrs\n\
             oss.rsscmd {at}/rss\noss.stagecmd sync {at}/stage\noss.xfr fdir {at}/fail deny 10 keep 30 8 50m 1 1\n\
             xrootd.async off\nofs.preplib libXrdOfsPrepGPI.so -admit all -maxfiles 1000 -maxreq 64 -run {at}/prep\n\
             xrd.protocol XrdHttp:{} libXrdHttp.so\nhttp.cert {at}/xrootd/hostcert.pem\n\
             http.key {at}/xrootd/hostkey.pem\nhttp.cadir {at}/xrootd/certificates\nhttp.selfhttps2http no\n",
            ports.root, ports.https
        );
        self.write("xrootd.cfg", text)?;
        let mut command = Command::new("setpriv");
        if self.is_root {
            self.give()?;
            command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]);
        }
        command
            .args(["--pdeathsig", "KILL", "xrootd", "-c"])
            .arg(self.scene.path("xrootd.cfg"))
            .current_dir(self.scene.path("xrootd"));
        self.start("xrootd", &mut command)?;
        self.wait_for_port(ports.root)?;
        self.wait_for_port(ports.https)
    }

    /// Authorities where XRootD's user may read them.
    fn anchors(&self) -> Result<(), ChoreError> {
        let from = PathBuf::from(self.scene.variable("X509_CERT_DIR"));
        let to = self.make("xrootd/certificates")?;
        for entry in fs::read_dir(&from).map_err(on("read", &from))?.flatten() {
            fs::copy(entry.path(), to.join(entry.file_name())).map_err(on("copy", &entry.path()))?;
        }
        Ok(())
    }

    /// Gives XRootD's user what it needs: its own folder, and a way to what it serves.
    fn give(&self) -> Result<(), ChoreError> {
        let number = |flag: &str| {
            let text = succeed(Command::new("id").args([flag, USER]))?;
            let number = text.trim().parse::<u32>();
            number.map_err(|_| ChoreError::NotAsPromised(format!("there is no user `{USER}`")))
        };
        let (uid, gid) = (number("-u")?, number("-g")?);
        for name in ["xrootd", "xrootd/hostcert.pem", "xrootd/hostkey.pem", "fail"] {
            let path = self.scene.path(name);
            chown(&path, Some(uid), Some(gid)).map_err(on("give away", &path))?;
        }
        // the way in for it, and for nobody to list what else is here
        let path = self.scene.folder();
        fs::set_permissions(path, fs::Permissions::from_mode(0o711)).map_err(on("open", path))
    }

    /// Entries go over the line some time after both ends are up; XRootD then knows the files.
    pub(crate) fn wait_until_listed(&self, names: &[String], ports: &Ports) -> Result<(), ChoreError> {
        let door = format!("root://localhost:{}", ports.root);
        let last = names.last().cloned().unwrap_or_default();
        self.wait("the storage element to know the files", |story| {
            let mut stat = story.scene.command("xrdfs", &[&door, "stat", &last]);
            // the client's own patience with a door that is not open yet is two minutes
            stat.env("XRD_CONNECTIONWINDOW", "1").env("XRD_CONNECTIONRETRY", "1");
            Ok(output(&mut stat)?.status.success())
        })
    }

    /// The storage element knows a file, and does not have it.
    fn is_nearline(&self, door: &str, name: &str) -> Result<(), ChoreError> {
        let told = self
            .scene
            .show(&mut self.scene.command("xrdfs", &[door, "stat", name]))?;
        if told.contains("Offline") && !self.scene.path("se").join(&name[1..]).exists() {
            say("    it is known, and not there");
            Ok(())
        } else {
            Err(ChoreError::NotAsPromised(format!("`{name}` is there already")))
        }
    }

    /// A file that came has nothing of the patient.
    fn sealed(&self, name: &str) -> Result<(), ChoreError> {
        let bytes = self.scene.read(name)?;
        let telling = [INVENTED.name, INVENTED.id, INVENTED.institution];
        if let Some(telling) = telling.iter().find(|telling| occurs(&bytes, telling.as_bytes())) {
            return Err(ChoreError::NotAsPromised(format!("`{telling}` shows in `{name}`")));
        }
        say(&format!("    {name}: {} bytes, sealed", bytes.len()));
        Ok(())
    }

    /// Opens a file, and holds it against what the modality made.
    fn opened(&self, sealed: &str, opened: &str, original: &str) -> Result<(), ChoreError> {
        self.scene.show(&mut self.scene.own("eds-decrypt", &[sealed, opened]))?;
        let (new, old) = (self.scene.read(opened)?, self.scene.read(original)?);
        let name = |bytes: &[u8]| occurs(bytes, INVENTED.name.as_bytes()) || occurs(bytes, INVENTED.id.as_bytes());
        if name(&new) || !name(&old) {
            return Err(ChoreError::NotAsPromised(format!("the patient shows in `{opened}`")));
        }
        // pixels come last in the invented slices
        let pixels = old.len().saturating_sub(512 * 512 * 2);
        if !occurs(&new, &old[pixels..]) {
            return Err(ChoreError::NotAsPromised(format!("`{opened}` has other pixels")));
        }
        say(&format!(
            "    `{}` is in the PACS's file: yes; in {opened}: no; its pixels are the same",
            INVENTED.name
        ));
        Ok(())
    }

    /// Nothing that the storage element's administrator can look at has anything of the patient.
    fn names_nobody(&self) -> Result<(), ChoreError> {
        self.names_nobody_beside(&[])
    }

    /// Nor have these.
    pub(crate) fn names_nobody_beside(&self, more: &[PathBuf]) -> Result<(), ChoreError> {
        let mut paths = more.to_vec();
        paths.extend([
            self.scene.path("se"),
            self.scene.path("place.toml"),
            self.scene.path("agent.log"),
            self.scene.path("xrootd.log"),
        ]);
        for name in ["place.db", "place.db-wal"] {
            paths.extend(Some(self.scene.path(name)).filter(|path| path.exists()));
        }
        let mut looked_at = 0;
        while let Some(path) = paths.pop() {
            if path.is_dir() {
                let entries = fs::read_dir(&path).map_err(on("read", &path))?;
                paths.extend(entries.flatten().map(|entry| entry.path()));
                continue;
            }
            let bytes = fs::read(&path).map_err(on("read", &path))?;
            looked_at += 1;
            for telling in [INVENTED.name, INVENTED.id, INVENTED.born, INVENTED.institution] {
                if occurs(&bytes, telling.as_bytes()) {
                    let text = format!("`{telling}` shows in `{}`", path.display());
                    return Err(ChoreError::NotAsPromised(text));
                }
            }
        }
        say(&format!("    {looked_at} files looked through: nothing"));
        Ok(())
    }

    /// `dicom-recall` in the hospital.
    pub(crate) fn recall(&self, arguments: &[&str]) -> Command {
        let mut command = self.scene.own("dicom-recall", arguments);
        command.env("DICOM_RECALL_CONFIG", self.scene.path("recall.toml"));
        command
    }

    /// Starts a server; what it says goes into a file of its name.
    fn start(&mut self, name: &'static str, command: &mut Command) -> Result<(), ChoreError> {
        let log = self.scene.path(format!("{name}.log"));
        let out = File::create(&log).map_err(on("write", &log))?;
        let err = out.try_clone().map_err(on("write", &log))?;
        let server = Server::start(name, command.stdin(Stdio::null()).stdout(out).stderr(err))?;
        self.servers.push(server);
        Ok(())
    }

    fn wait_for_port(&mut self, port: u16) -> Result<(), ChoreError> {
        self.wait("a server", |_| Ok(TcpStream::connect(("127.0.0.1", port)).is_ok()))?;
        self.all_run()
    }

    pub(crate) fn wait(&self, what: &str, is_so: impl Fn(&Self) -> Result<bool, ChoreError>) -> Result<(), ChoreError> {
        let end = Instant::now() + PATIENCE;
        while !is_so(self)? {
            self.scene.go_on()?;
            if Instant::now() > end {
                return Err(ChoreError::NotAsPromised(format!(
                    "waited in vain for {what}\n{}",
                    self.logs()
                )));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn all_run(&mut self) -> Result<(), ChoreError> {
        for server in &mut self.servers {
            if let Ok(Some(status)) = server.child.try_wait() {
                let text = format!("{} ended with {status}", server.name);
                return Err(ChoreError::NotAsPromised(format!("{text}\n{}", self.logs())));
            }
        }
        Ok(())
    }

    /// The ends of all logs.
    fn logs(&self) -> String {
        let of = |server: &Server| {
            let text = fs::read_to_string(self.scene.path(format!("{}.log", server.name))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(6).collect();
            let lines: Vec<&str> = lines.into_iter().rev().collect();
            format!("{}:\n{}", server.name, lines.join("\n"))
        };
        self.servers.iter().map(of).collect::<Vec<_>>().join("\n")
    }
}
