//! The part of `cargo bench-report` about recall: a series out of a real PACS, from nothing to sealed and placed,
//! beside the bare fetch of the same series in the same round.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bench::{Programs, Race, command};
use crate::chore::{ChoreError, on, on_path, succeed};
use crate::dicom::{INVENTED, ct_slice};
use crate::scene::environment;
use crate::server::{Server, free_port, is_installed, orthanc, orthanc_config};

/// Slices of the series.
const SLICES: u128 = 200;
/// How long the PACS may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Debian's folder of its plug-in for DICOMweb.
const DICOMWEB: &str = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so";
const STUDY: &str = "2.25.1";

/// Measures in `folder`, each contestant as often as `rounds` says.
pub(crate) fn run(programs: &Programs, folder: &Path, rounds: usize) -> Result<(), ChoreError> {
    let others = Path::new(DICOMWEB).is_file() && on_path("curl") && on_path("getscu");
    if !is_installed("Orthanc") || !others {
        println!("\nRecall: Orthanc with DICOMweb, curl and getscu are not all installed, not measured");
        return Ok(());
    }
    let pacs = Pacs::start(folder)?;
    pacs.load(folder)?;
    let grid = folder.join("recall-grid");
    succeed(command(&programs.testgrid, &["up"]).arg(&grid))?;
    let measured = race(&programs.recall, folder, &grid, &pacs, rounds);
    succeed(command(&programs.testgrid, &["down"]).arg(&grid))?;
    measured
}

fn race(recall: &Path, folder: &Path, grid: &Path, pacs: &Pacs, rounds: usize) -> Result<(), ChoreError> {
    let variables = environment(&grid.join("env"))?;
    let write = |name: &str, text: String| fs::write(folder.join(name), text).map_err(on("write", folder));
    write("secret", "0123456789abcdef0123456789abcdef".to_owned())?;
    let deid = "[deid]\nsecret_file = \"secret\"\n";
    let dimse = "[pacs]\nmethod = \"c-get\"\nae_title = \"BENCH\"\naet = \"PACS\"\nhost = \"127.0.0.1\"\n";
    write("get.toml", format!("{dimse}port = {}\n{deid}", pacs.dicom))?;
    let root = format!("http://127.0.0.1:{}/dicom-web", pacs.http);
    write(
        "web.toml",
        format!("[pacs]\nmethod = \"wado-rs\"\ndicomweb = \"{root}\"\n{deid}"),
    )?;
    for name in ["placed", "fetched"] {
        fs::create_dir(folder.join(name)).map_err(on("make a folder in", folder))?;
    }
    let now = |config: &'static str| {
        let variables = &variables;
        move || {
            let mut now = command(recall, &["now", "-q", "--force", "-c", config, STUDY, "placed"]);
            now.envs(variables).current_dir(folder);
            now
        }
    };
    let port = pacs.dicom.to_string();
    let bytes = fs::metadata(folder.join("slice.dcm"))
        .map_err(on("look at", folder))?
        .len()
        * SLICES as u64;
    Race::new(format!(
        "A series of {SLICES} CT slices by C-GET; ratio to the bare fetch"
    ))
    .with("getscu, without Nagle's algorithm", || {
        let mut get = command("getscu", &["-aec", "PACS", "-od", "fetched", "127.0.0.1", &port]);
        get.args(["-k", "0008,0052=STUDY", "-k", &format!("0020,000D={STUDY}")]);
        get.env("TCP_NODELAY", "1").current_dir(folder);
        get
    })
    .with("dicom-recall now: de-identified, sealed, placed", now("get.toml"))
    .run(rounds, Some(bytes))?;
    let url = format!("{root}/studies/{STUDY}");
    let accept = "Accept: multipart/related; type=\"application/dicom\"; transfer-syntax=*";
    Race::new(format!(
        "A series of {SLICES} CT slices by WADO-RS; ratio to the bare fetch"
    ))
    .with("curl", || {
        let mut curl = command("curl", &["-sS", "--fail", "-H", accept, "-o", "fetched/all", &url]);
        curl.current_dir(folder);
        curl
    })
    .with("dicom-recall now: de-identified, sealed, placed", now("web.toml"))
    .run(rounds, Some(bytes))
}

/// An Orthanc with its ports.
struct Pacs {
    _server: Server,
    dicom: u16,
    http: u16,
}

impl Pacs {
    fn start(folder: &Path) -> Result<Self, ChoreError> {
        let (dicom, http) = (free_port()?, free_port()?);
        let mut config = orthanc_config("bench", &folder.join("pacs"), http, dicom);
        config["Plugins"] = json!([DICOMWEB]);
        config["DicomWeb"] = json!({ "Enable": true, "Root": "/dicom-web/" });
        let path: PathBuf = folder.join("orthanc.json");
        fs::write(&path, config.to_string()).map_err(on("write", &path))?;
        let mut start = orthanc();
        start.arg(&path).env("TCP_NODELAY", "1");
        start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let pacs = Self {
            _server: Server::start("Orthanc", &mut start)?,
            dicom,
            http,
        };
        let end = Instant::now() + PATIENCE;
        while [dicom, http]
            .iter()
            .any(|port| TcpStream::connect(("127.0.0.1", *port)).is_err())
        {
            if Instant::now() > end {
                return Err(ChoreError::NotAsPromised("Orthanc does not come up".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(pacs)
    }

    fn load(&self, folder: &Path) -> Result<(), ChoreError> {
        let slice = folder.join("slice.dcm");
        let url = format!("http://127.0.0.1:{}/instances", self.http);
        for number in 0..SLICES {
            fs::write(&slice, ct_slice(&INVENTED, [1, 2, 1000 + number, 9])).map_err(on("write", &slice))?;
            let mut send = command("curl", &["-sS", "--fail", "--data-binary", "@slice.dcm", &url]);
            succeed(send.current_dir(folder))?;
        }
        Ok(())
    }
}
