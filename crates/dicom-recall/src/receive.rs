//! `dicom-recall receive`: takes images that are pushed to it, by C-STORE and STOW-RS, registers them, and by rule
//! sends them on to the PACS, where they stay nearline, or seals them at once. Whoever sent an image is told of success
//! only when it is safe (`docs/src/commands/dicom-recall.md`).

#![allow(
    missing_docs,
    reason = "a doc comment on a flattened group would become the help of the whole command"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dicom_deid::Profile;
use dicom_net::{AeTitle, Arrival, NetError, Receiver, ReceiverOptions, Sink, Taken, TlsFiles};
use eds::args::Stores;
use eds::session::Session;
use hydra_cli::{Code, Failure, output};
use hydra_service::Limits;
use serde::Deserialize;

use crate::CONFIG;
use crate::config::{Config, PacsConfig, Place};
use crate::destination::{Destination, Folder};
use crate::door::{self, Ends, Host, HostTable, Principals};
use crate::intake::{Intake, Onward, Rule, Ways};
use crate::ledger::open_or_make;
use crate::link::{Link, LinkError};
use crate::now::config_failure;
use crate::registry::{LocalRegistry, Registry};
use crate::source::Source;
use crate::stow;
use crate::transport::{LineConfig, LineTable, Role};

/// How long associations and requests that are open at the end may take to finish.
const GRACE: Duration = Duration::from_secs(10);

/// `dicom-recall receive`.
#[derive(Debug, clap::Args)]
pub struct Receive {
    /// The configuration
    #[arg(env = "DICOM_RECALL_CONFIG", default_value = CONFIG)]
    pub config: PathBuf,
    #[command(flatten)]
    pub stores: Stores,
}

/// `[receive]`, as it stands in the configuration.
#[derive(Debug, Default, Deserialize)]
pub struct ReceiveTable {
    then: Option<String>,
    place_listen: Option<String>,
    listen: Option<String>,
    ae_title: Option<String>,
    #[serde(default)]
    callers: Vec<String>,
    #[serde(default = "usual_associations")]
    associations: usize,
    tls: Option<TlsTable>,
    stow: Option<String>,
    stow_tls: Option<HostTable>,
    #[serde(default)]
    senders: Vec<String>,
    #[serde(default = "usual_instances")]
    stow_instances: usize,
    #[serde(default = "usual_keys_s")]
    keys_s: u64,
    #[serde(default)]
    pacs_has_them: bool,
}

fn usual_associations() -> usize {
    8
}

fn usual_keys_s() -> u64 {
    60
}

fn usual_instances() -> usize {
    10_000
}

#[derive(Debug, Deserialize)]
struct TlsTable {
    authorities: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// What becomes of an image that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The PACS gets it, and it waits there until somebody asks for it.
    Nearline,
    /// It is sealed and placed at once.
    Seal,
}

/// How images are received.
#[derive(Debug, Clone)]
pub struct ReceiveConfig {
    /// What becomes of them.
    pub then: Then,
    /// How the agent is reached, where images are sealed for one.
    pub line: Option<LineConfig>,
    /// For how long a key is held.
    pub keys_for: Duration,
    /// C-STORE.
    pub dimse: Option<ReceiveDimse>,
    /// STOW-RS.
    pub web: Option<ReceiveWeb>,
    /// Something else gives the PACS what is sealed here, so that it can be recalled.
    pub pacs_has_them: bool,
}

/// How images are received by C-STORE.
#[derive(Debug, Clone)]
pub struct ReceiveDimse {
    /// Where.
    pub listen: String,
    /// Our title.
    pub title: AeTitle,
    /// Who may send; anybody with a certificate where it is empty.
    pub callers: Vec<AeTitle>,
    /// How many associations at once.
    pub associations: usize,
    /// TLS, with certificates of both sides.
    pub tls: Option<TlsFiles>,
}

/// How images are received by STOW-RS.
#[derive(Debug, Clone)]
pub struct ReceiveWeb {
    /// Where.
    pub listen: std::net::SocketAddr,
    /// TLS, with certificates of both sides; without it only on this machine.
    pub host: Option<Host>,
    /// Who may send over TLS.
    pub senders: Principals,
    /// The most instances in one request.
    pub instances: usize,
}

impl ReceiveTable {
    /// Checks it; `place` is what is given of a line, and what it means.
    pub fn check(
        self,
        faults: &mut Vec<String>,
        folder: &Path,
        pacs: Option<&PacsConfig>,
        place: (LineTable, Option<&Place>),
    ) -> Option<ReceiveConfig> {
        let then = match self.then.as_deref() {
            Some("nearline") => Some(Then::Nearline),
            Some("seal") => Some(Then::Seal),
            other => {
                let text = other.map_or_else(|| "is missing:".to_owned(), |other| format!("`{other}` is none of"));
                faults.push(format!("`receive.then` {text} `nearline`, `seal`"));
                None
            }
        };
        let line = line(faults, folder, then, self.place_listen, place);
        if self.listen.is_none() && self.stow.is_none() {
            faults.push("give one of `receive.listen` and `receive.stow`, or both".to_owned());
        }
        let usual_title = pacs
            .and_then(|pacs| pacs.dimse.as_ref())
            .map(|dimse| dimse.calling.to_string());
        let dimse = self.listen.and_then(|listen| {
            let mut title = |name: &str, text: &str| {
                let parsed = AeTitle::new(text);
                parsed.map_err(|error| faults.push(format!("`{name}`: {error}"))).ok()
            };
            let callers = self
                .callers
                .iter()
                .filter_map(|text| title("receive.callers", text))
                .collect();
            let own = self.ae_title.or(usual_title);
            let own = own.map(|text| title("receive.ae_title", &text));
            let own = own.unwrap_or_else(|| {
                faults.push("`receive.ae_title` is missing".to_owned());
                None
            });
            if self.callers.is_empty() && self.tls.is_none() {
                faults.push("without `receive.tls` `receive.callers` must say who may send".to_owned());
            }
            if self.associations == 0 {
                faults.push("`receive.associations`: at least 1".to_owned());
            }
            Some(ReceiveDimse {
                listen,
                title: own?,
                callers,
                associations: self.associations,
                tls: self.tls.map(|tls| TlsFiles {
                    authorities: folder.join(tls.authorities),
                    own: Some((folder.join(tls.certificate), folder.join(tls.key))),
                }),
            })
        });
        let senders = Principals::check(faults, "receive.senders", &self.senders);
        let web = self.stow.and_then(|text| {
            let listen = door::address(faults, "receive.stow", Some(&text));
            let host = self
                .stow_tls
                .map(|table| table.check(faults, "receive.stow_tls", folder));
            let is_here = listen.is_none_or(|listen| listen.ip().is_loopback());
            match &host {
                None if !is_here => {
                    faults.push("`receive.stow`: only on loopback without `receive.stow_tls`".to_owned());
                }
                Some(_) if senders.is_empty() => {
                    faults.push("`receive.senders` must say who may send by STOW-RS".to_owned());
                }
                _ => {}
            }
            Some(ReceiveWeb {
                listen: listen?,
                host: host.map_or(Some(None), |host| host.map(Some))?,
                senders: senders.clone(),
                instances: self.stow_instances.max(1),
            })
        });
        Some(ReceiveConfig {
            then: then?,
            line: line?,
            keys_for: Duration::from_secs(self.keys_s),
            dimse,
            web,
            pacs_has_them: self.pacs_has_them,
        })
    }
}

/// The line to the agent, if there has to be one: that of the daemon where it dials, and where it listens one beside
/// it.
fn line(
    faults: &mut Vec<String>,
    folder: &Path,
    then: Option<Then>,
    own: Option<String>,
    (table, place): (LineTable, Option<&Place>),
) -> Option<Option<LineConfig>> {
    let line = match place {
        Some(Place::Agent(line)) if then == Some(Then::Seal) => Some(line),
        _ => None,
    };
    match (line, own) {
        (None, None) => Some(None),
        (Some(line), None) if line.role == Role::Connect => Some(Some(line.clone())),
        (Some(line), Some(own)) if line.role == Role::Listen => {
            let table = LineTable {
                listen: Some(own),
                ..table
            };
            let own = table.check(faults, "receive.place_listen", folder)?;
            if own.address == line.address {
                faults.push("`receive.place_listen` is `place.listen`, where the daemon listens".to_owned());
            }
            Some(Some(own))
        }
        (Some(_), None) => {
            let text = "`receive.place_listen` is missing: at `place.listen` the agent reaches the daemon";
            faults.push(text.to_owned());
            None
        }
        (_, Some(_)) => {
            faults.push("`receive.place_listen` is for `seal` with `place.listen`".to_owned());
            None
        }
    }
}

/// `dicom-recall receive`: until a signal ends it.
///
/// # Errors
/// What was in the way.
pub fn receive(args: &Receive) -> Result<(), Failure> {
    let config = Config::read(&args.config).map_err(config_failure)?;
    let wanting = || Failure::new(Code::Config, "nothing is configured to be received").advise("a table [receive]");
    let receive = config.receive.clone().ok_or_else(wanting)?;
    let web = receive.web.as_ref();
    let tls = web.and_then(|web| web.host.as_ref()).map(Host::open).transpose()?;
    hydra_service::log::start(&config.log).map_err(|error| Failure::new(Code::Config, error))?;
    let (intake, link) = intake(&config, &receive, &args.stores)?;
    let intake = Arc::new(intake);
    let receiver = receive
        .dimse
        .as_ref()
        .map(|dimse| listen(dimse, &config.pacs))
        .transpose()?;
    door::runtime()?.block_on(async {
        let mut ends = Ends::watch()?;
        let (stopping, told) = tokio::sync::watch::channel(false);
        // what is on the line may still get to its place after a signal
        let mut line = tokio::spawn(keep_line(link));
        let dimse = receiver.map(|receiver| {
            output::print_line(&format!(
                "listening on dicom://{} as {}",
                receiver.address(),
                receiver.title()
            ))?;
            let stop = Arc::new(receiver.stop());
            let (intake, shared) = (Arc::clone(&intake), Arc::clone(&stop));
            let thread = std::thread::spawn(move || {
                receiver.receive_each(&shared, GRACE, &|caller| sink(&intake, caller));
            });
            Ok::<_, Failure>((stop, thread))
        });
        let dimse = dimse.transpose()?;
        let web = match web {
            Some(web) => {
                let (listener, address) = door::listen(web.listen).await?;
                let scheme = if tls.is_some() { "https" } else { "http" };
                output::print_line(&format!("listening on {scheme}://{address}/studies"))?;
                let limits = stow_limits();
                let router = stow::router(Arc::clone(&intake), web, &limits);
                Some(tokio::spawn(stow::serve(listener, tls, router, limits, told)))
            }
            None => None,
        };
        tracing::info!(then = ?receive.then, "receiving");
        let mut ended = Ok(());
        tokio::select! {
            () = ends.come() => {}
            failed = &mut line => ended = failed.unwrap_or(Ok(())).map_err(|error| Failure::new(Code::Config, error)),
        }
        tracing::info!("stopping");
        let _ = stopping.send(true);
        if let Some((stop, thread)) = dimse {
            stop.now();
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                return Err(Failure::new(Code::Failed, "the receiver ended badly"));
            }
        }
        if let Some(web) = web {
            let _ = web.await;
        }
        ended
    })
}

/// Keeps the line to the agent up, if there is one; ends only where that cannot even begin.
async fn keep_line(link: Option<Arc<Link>>) -> Result<(), LinkError> {
    if let Some(link) = link {
        link.keep_up().await?;
    }
    std::future::pending().await
}

fn stow_limits() -> Limits {
    Limits {
        // a study of some gigabytes over a slow line
        request_ms: 4 * 3600 * 1000,
        in_flight: 8,
        connections: 64,
        stop_ms: u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX),
        ..Limits::default()
    }
}

/// Where images come in, and the line to the agent, if they go over one.
fn intake(config: &Config, receive: &ReceiveConfig, stores: &Stores) -> Result<(Intake, Option<Arc<Link>>), Failure> {
    let database = open_or_make(config)?;
    let registry: Arc<dyn Registry> = Arc::new(LocalRegistry::new(database));
    let link = receive.line.clone().map(|line| {
        let registry = Arc::clone(&registry);
        Arc::new(Link::new(line, registry, None, Arc::default()))
    });
    let rule = match (receive.then, &config.place, &link) {
        (Then::Nearline, ..) => Rule::Nearline(onward(&config.pacs)?),
        (Then::Seal, Some(Place::Folder(root)), _) => Rule::Seal(Arc::new(Folder::new(root, true, true))),
        (Then::Seal, _, Some(link)) => Rule::Seal(Arc::clone(link) as Arc<dyn Destination + Send + Sync>),
        (Then::Seal, ..) => {
            let text = "nowhere to put images that are sealed at once";
            return Err(Failure::new(Code::Config, text).advise("[place] in the configuration"));
        }
    };
    let session = Session::open(stores)?;
    let secret = crate::secret::secret(&session, &config.secret)?;
    let profile = Profile::new(config.deid.clone(), &secret);
    let intake = Intake {
        profile,
        names: config.names.clone(),
        key_per: config.key_per,
        registry,
        stores: stores.clone(),
        session: Mutex::new((Instant::now(), Arc::new(session))),
        keys_for: receive.keys_for,
        rule,
        busy: Mutex::default(),
    };
    Ok((intake, link))
}

/// Where images go on to. Nothing is asked of it yet.
fn onward(config: &PacsConfig) -> Result<Onward, Failure> {
    // nothing is received for a C-MOVE here, whose port is the daemon's
    let mut config = config.clone();
    config.method = match config.method {
        crate::config::Method::CMove => crate::config::Method::CGet,
        method => method,
    };
    let longest = config.deadlines.association;
    Ok(match Source::open(&config)? {
        Source::Dimse { pacs, .. } => {
            let ways = (0..config.associations).map(|_| pacs.storing()).collect();
            Onward::Dimse(Ways::new(ways, longest))
        }
        Source::Web(first) => {
            let mut ways = vec![first];
            while ways.len() < config.associations {
                if let Source::Web(next) = Source::open(&config)? {
                    ways.push(next);
                }
            }
            Onward::Web(Ways::new(ways, longest))
        }
    })
}

fn listen(dimse: &ReceiveDimse, pacs: &PacsConfig) -> Result<Receiver, Failure> {
    let mut options = ReceiverOptions::new(dimse.title.clone());
    options.callers = dimse.callers.clone();
    options.most_associations = dimse.associations;
    options.deadlines = pacs.deadlines;
    let provider = Arc::clone(grid_identity::tls::provider());
    let tls = dimse.tls.as_ref().map(|files| files.server(provider)).transpose();
    options.tls = tls.map_err(|error| Failure::new(Code::Config, error))?;
    let listening = Receiver::listen(&dimse.listen, options);
    listening.map_err(|error: NetError| Failure::new(Code::Config, error))
}

/// What takes the instances of one association.
fn sink<'s>(intake: &Arc<Intake>, caller: &AeTitle) -> Box<Sink<'s>> {
    tracing::info!(%caller, "an association");
    let mut visit = intake.visit();
    Box::new(move |arrival: &Arrival, file: &mut dyn std::io::Read| -> Taken { visit.take(arrival, file) })
}
