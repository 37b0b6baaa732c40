//! `dicom-recall check`: tries everything that a recall needs, a line for each, and fetches no image.

use std::path::Path;

use dicom_net::{NetError, STORAGE_CLASSES, Uid};
use eds::failure::Because;
use eds::session::{Session, find_credential, overrides};
use eds::voice::Voice;
use grid_identity::Credential;
use hydra_cli::{Code, Failure};
use hydra_core::config::load::{self, Surroundings};
use hydra_core::sealed::NewFile;
use mdm_catalog::config::DatabaseSource;
use serde_json::{Value, json};

use crate::config::{Config, Method, Place};
use crate::database::{Database, DatabaseError};
use crate::door::{self, Host};
use crate::ledger::database_failure;
use crate::now::config_failure;
use crate::source::{self, Source, SourceError};
use crate::transport::{End, LineConfig, TransportError};
use crate::{Check, secret};

/// Classes whose role is asked for: what most of every archive is.
const USUAL_CLASSES: [&str; 6] = [
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.128",
];

/// What was found out, line by line.
struct Findings {
    voice: Voice,
    lines: Vec<Value>,
    worst: Option<Code>,
}

impl Findings {
    fn good(&mut self, what: &str, text: &str) -> Result<(), Failure> {
        self.lines.push(json!({ "what": what, "ok": true, "text": text }));
        self.voice.result(&format!("ok      {what}: {text}"))
    }

    fn bad(&mut self, what: &str, failure: &Failure) -> Result<(), Failure> {
        let lines = failure.lines();
        let text = lines.first().map_or("", |line| line.trim_start_matches("error: "));
        self.lines
            .push(json!({ "what": what, "ok": false, "text": text, "code": failure.code as u8 }));
        self.voice.result(&format!("failed  {what}: {text}"))?;
        for line in lines.iter().skip(1) {
            self.voice.result(&format!("      {line}"))?;
        }
        let is_worse = |code: Code| eds::failure::severity(failure.code) > eds::failure::severity(code);
        if self.worst.is_none_or(is_worse) {
            self.worst = Some(failure.code);
        }
        Ok(())
    }
}

/// `dicom-recall check`.
///
/// # Errors
/// The worst of what is wrong, after all was printed.
pub fn check(args: &Check) -> Result<(), Failure> {
    let voice = Voice::new(&args.manners);
    let config = Config::read(&args.config).map_err(config_failure)?;
    let mut findings = Findings {
        voice,
        lines: Vec::new(),
        worst: None,
    };
    findings.good("configuration", &args.config.display().to_string())?;
    pacs(&config, &mut findings)?;
    stores(args, &config, &mut findings)?;
    registry(&config, &mut findings)?;
    place(&config, &mut findings)?;
    receive(&config, &mut findings)?;
    voice.json(&json!({ "findings": findings.lines }))?;
    match findings.worst {
        None => Ok(()),
        Some(code) => {
            let bad = findings.lines.iter().filter(|line| line["ok"] == false).count();
            Err(Failure::new(
                code,
                format!("{bad} of {} checks failed", findings.lines.len()),
            ))
        }
    }
}

fn pacs(config: &Config, findings: &mut Findings) -> Result<(), Failure> {
    let source = match Source::open(&config.pacs) {
        Ok(source) => source,
        Err(error) => return findings.bad("pacs", &error.into()),
    };
    let peer = source.peer();
    match source.echo() {
        Ok(()) => findings.good("pacs", &format!("{peer} answers"))?,
        Err(error) => return findings.bad("pacs", &error.into()),
    }
    if config.pacs.method == Method::CMove {
        let dimse = config.pacs.dimse.as_ref();
        let listen = dimse.map_or("", |dimse| dimse.listen.as_str());
        return match source.listen() {
            Ok(()) => findings.good("method", &format!("c-move, and {listen} can be listened at")),
            Err(SourceError::Net(NetError::Listen { source, .. })) if is_in_use(&source) => {
                findings.good("method", &format!("c-move, and {listen} is in use: by the daemon?"))
            }
            Err(error) => findings.bad("method", &error.into()),
        };
    }
    let (Source::Dimse { pacs, .. }, Method::CGet) = (&source, config.pacs.method) else {
        return findings.good("method", config.pacs.method.name());
    };
    let classes: Vec<Uid> = USUAL_CLASSES.iter().filter_map(|uid| Uid::new(uid).ok()).collect();
    match pacs.offer(&classes) {
        Ok(offer) if offer.classes.is_empty() => {
            let peer = pacs.peer().clone();
            let none = SourceError::Net(NetError::NoRole { peer });
            findings.bad("method", &none.into())
        }
        Ok(offer) => {
            let name = |class: &Uid| {
                let known = STORAGE_CLASSES.iter().find(|(uid, _)| *uid == class.as_str());
                known.map_or(class.as_str(), |(_, name)| *name).to_owned()
            };
            let offered: Vec<String> = offer.classes.iter().map(|(class, _)| name(class)).collect();
            findings.good("method", &format!("c-get, among others of {}", offered.join(", ")))
        }
        Err(error) => findings.bad("method", &SourceError::from(error).into()),
    }
}

fn registry(config: &Config, findings: &mut Findings) -> Result<(), Failure> {
    let Some(source) = &config.database else { return Ok(()) };
    let shown = match source {
        DatabaseSource::File(path) => path.display().to_string(),
        // it has no password: that is refused
        DatabaseSource::Postgres { url, .. } => url.clone(),
    };
    match Database::open(source) {
        Ok(_) => findings.good("registry", &shown),
        Err(DatabaseError::Missing { .. }) => match source {
            DatabaseSource::File(path) if !folder_of(path).is_dir() => {
                let text = format!(
                    "`{}` is not there, where the registry is to be made",
                    folder_of(path).display()
                );
                findings.bad("registry", &Failure::new(Code::CannotCreate, text))
            }
            _ => findings.good("registry", &format!("{shown}, not made yet")),
        },
        Err(error) => findings.bad("registry", &database_failure(error)),
    }
}

fn place(config: &Config, findings: &mut Findings) -> Result<(), Failure> {
    match &config.place {
        None => Ok(()),
        // what is dropped without a name was never there
        Some(Place::Folder(root)) => match NewFile::under(root) {
            Ok(_) => findings.good("place", &format!("files can be put into {}", root.display())),
            Err(error) => findings.bad("place", &Failure::new(Code::CannotCreate, error)),
        },
        Some(Place::Agent(line)) => match agent(line) {
            Ok(text) => findings.good("place", &text),
            Err(failure) => findings.bad("place", &failure),
        },
    }
}

/// Our end of the line: what TLS needs, and the agent's end where we dial it. Nothing is said to it.
fn agent(line: &LineConfig) -> Result<String, Failure> {
    let address = &line.address;
    let config = |error: TransportError| Failure::new(Code::Config, error);
    if let Some(security) = &line.security {
        let own = Credential::from_cert_and_key(&security.certificate, &security.key, None);
        own.map_err(|error| config(TransportError::Credential(error)))?;
    }
    let passing = |error: TransportError| match error {
        TransportError::Io { .. } | TransportError::Slow(_) => Failure::new(Code::TryLater, error),
        error => config(error),
    };
    door::runtime()?.block_on(async {
        match End::open(line).await {
            Ok(End::Dialer(dialer)) => {
                dialer.dial().await.map_err(passing)?;
                Ok(format!("the agent at {address} answers"))
            }
            Ok(End::Door(_)) => Ok(format!("the agent can be waited for at {address}")),
            Err(TransportError::Io { source, .. }) if is_in_use(&source) => {
                Ok(format!("{address}, where the agent dials, is in use: by the daemon?"))
            }
            Err(error) => Err(config(error)),
        }
    })
}

/// Where images are pushed to.
fn receive(config: &Config, findings: &mut Findings) -> Result<(), Failure> {
    let Some(receive) = &config.receive else { return Ok(()) };
    if let Some(line) = &receive.line {
        match agent(line) {
            Ok(text) => findings.good("receive", &text)?,
            Err(failure) => findings.bad("receive", &failure)?,
        }
    }
    if let Some(dimse) = &receive.dimse {
        let own = dimse
            .tls
            .as_ref()
            .map(|files| files.server(source::provider()))
            .transpose();
        match own {
            Ok(_) => listening(findings, &dimse.listen)?,
            Err(error) => findings.bad("receive", &Failure::new(Code::Config, error))?,
        }
    }
    if let Some(web) = &receive.web {
        match web.host.as_ref().map(Host::open).transpose() {
            Ok(_) => listening(findings, &web.listen.to_string())?,
            Err(failure) => findings.bad("receive", &failure)?,
        }
    }
    Ok(())
}

/// Whether somebody could listen there.
fn listening(findings: &mut Findings, address: &str) -> Result<(), Failure> {
    match std::net::TcpListener::bind(address) {
        Ok(_) => findings.good("receive", &format!("{address} can be listened at")),
        Err(error) if is_in_use(&error) => {
            findings.good("receive", &format!("{address} is in use: by `dicom-recall receive`?"))
        }
        Err(error) => {
            let error = Because::new(format!("cannot listen at {address}"), error);
            findings.bad("receive", &Failure::new(Code::Config, error))
        }
    }
}

fn is_in_use(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::AddrInUse
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

fn stores(args: &Check, config: &Config, findings: &mut Findings) -> Result<(), Failure> {
    let around = Surroundings::of_process();
    let loaded = load::load(&overrides(&args.stores), &around).map_err(eds::failure::config);
    let found = find_credential(&around).map_err(Failure::from);
    let (loaded, found) = match (loaded, found) {
        (Ok(loaded), Ok(found)) => (loaded, found),
        (loaded, found) => {
            if let Err(failure) = &loaded {
                findings.bad("stores", failure)?;
            }
            if let Err(failure) = &found {
                findings.bad("credential", failure)?;
            }
            return Ok(());
        }
    };
    findings.good("credential", found.credential.dn())?;
    let need = usize::from(loaded.threshold);
    let session = Session::from_parts(loaded, &found.credential).map_err(Failure::from)?;
    let checks = session.wait(session.hydra.check());
    let faults: Vec<_> = checks
        .iter()
        .filter_map(|check| check.answer.as_ref().err().cloned())
        .collect();
    let ready = checks.len() - faults.len();
    let text = format!("{ready} of {} are ready, {need} are needed", checks.len());
    if faults.is_empty() {
        findings.good("stores", &text)?;
    } else {
        findings.bad("stores", &Failure::new(Code::TryLater, Because::faults(text, &faults)))?;
    }
    match secret::secret(&session, &config.secret) {
        Ok(_) => findings.good("secret", "can be read"),
        Err(failure) => findings.bad("secret", &failure),
    }
}
