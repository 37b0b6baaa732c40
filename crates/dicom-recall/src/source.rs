//! The PACS as recall sees it, whichever protocol it is asked by.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use dicom_net::{
    AeTitle, Authorization, Dicomweb, Found, FoundStudies, MoveDestination, NetError, Pacs, PacsOptions, Query,
    ReceiverOptions, Retrieved, Sink, Slots, TlsError, Uid, Wanted, WebError, WebOptions,
};
use hydra_cli::{Code, Failure};
use zeroize::Zeroizing;

use crate::config::{Dimse, Method, PacsConfig, Web};
use crate::register::NARROWER;

/// The longest bearer token.
const LONGEST_TOKEN: u64 = 64 * 1024;

/// Why a PACS cannot be asked, or did not give.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Over DIMSE.
    #[error(transparent)]
    Net(#[from] NetError),
    /// It broke off when it was asked to send to us: how some answer for a title that they do not know.
    #[error(transparent)]
    Move(NetError),
    /// Over HTTP.
    #[error(transparent)]
    Web(#[from] WebError),
    /// TLS cannot be spoken.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The token for DICOMweb.
    #[error("cannot read the token in `{}`", path.display())]
    Token {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl SourceError {
    /// Whether asking again could help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Net(error) => match error {
                NetError::Refused { reject, .. } => reject.is_transient,
                NetError::NoRole { .. }
                | NetError::NoService { .. }
                | NetError::Listen { .. }
                | NetError::Tls { .. }
                | NetError::TooMany { .. }
                | NetError::Ignored { .. }
                | NetError::Stopped { .. } => false,
                _ => true,
            },
            Self::Web(error) => !matches!(
                error,
                WebError::Url(..)
                    | WebError::NotAllowed { .. }
                    | WebError::TooMany { .. }
                    | WebError::Ignored { .. }
                    | WebError::Stopped { .. }
                    | WebError::Local { .. }
            ),
            Self::Move(_) => true,
            Self::Tls(_) | Self::Token { .. } => false,
        }
    }

    /// The exit code: what must be configured otherwise, or what may be better later.
    pub fn code(&self) -> Code {
        match self {
            Self::Net(
                NetError::Refused { .. }
                | NetError::NoRole { .. }
                | NetError::NoService { .. }
                | NetError::Listen { .. }
                | NetError::Tls { .. }
                | NetError::Address { .. },
            )
            | Self::Web(WebError::Url(..) | WebError::NotAllowed { .. } | WebError::Local { .. })
            | Self::Tls(_)
            | Self::Token { .. } => Code::Config,
            Self::Net(NetError::TooMany { .. } | NetError::Ignored { .. })
            | Self::Web(WebError::TooMany { .. } | WebError::Ignored { .. }) => Code::Usage,
            _ => Code::Io,
        }
    }

    /// What to try.
    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Net(NetError::NoRole { .. } | NetError::NoService { service: "C-GET", .. }) => {
                Some("method = \"c-move\" or \"wado-rs\" in the configuration")
            }
            Self::Net(NetError::Refused { .. }) => {
                Some("the PACS's list of known titles, and `ae_title` and `aet` in the configuration")
            }
            Self::Net(NetError::Status {
                operation: "C-MOVE", ..
            })
            | Self::Move(_) => Some(
                "the PACS's table of titles to send to: `ae_title` must be in it, with our address and the port of \
                 `pacs.listen`",
            ),
            Self::Net(NetError::Listen { .. }) => Some(
                "whoever else listens at `pacs.listen`: a daemon that runs, most likely, and what it recalls needs no \
                 other",
            ),
            Self::Net(NetError::Tls { .. }) => Some(
                "`pacs.tls.authorities`, the name in `pacs.host`, which the PACS's certificate must have, and whether \
                 the PACS wants a certificate of ours",
            ),
            Self::Net(NetError::TooMany { .. }) | Self::Web(WebError::TooMany { .. }) => Some(NARROWER),
            Self::Net(NetError::Ignored { .. }) | Self::Web(WebError::Ignored { .. }) => {
                Some("the query without that key, or studies by their identifiers")
            }
            _ => None,
        }
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        let advice = error.advice();
        let failure = Self::new(error.code(), error);
        advice.into_iter().fold(failure, Failure::advise)
    }
}

/// A PACS.
pub enum Source {
    /// Asked by C-GET, or by C-MOVE where there is a destination for that.
    Dimse {
        /// The PACS.
        pacs: Pacs,
        /// Where it sends to.
        moving: Option<Box<Moving>>,
    },
    /// Asked by WADO-RS.
    Web(Dicomweb),
}

impl Source {
    /// Makes ready to ask. Nothing is asked yet.
    ///
    /// # Errors
    /// What on our side is in the way.
    pub fn open(config: &PacsConfig) -> Result<Self, SourceError> {
        let tls = config.tls.as_ref().map(|files| files.client(provider())).transpose()?;
        let slots = Slots::new(config.associations);
        if let Some(web) = &config.web {
            let options = WebOptions {
                url: web.url.clone(),
                tls,
                authorization: authorization(web)?,
                deadlines: config.deadlines,
                slots,
            };
            return Ok(Self::Web(Dicomweb::new(options)?));
        }
        let Some(dimse) = &config.dimse else {
            return Err(WebError::Url(String::new(), "none is configured").into());
        };
        let mut options = PacsOptions::new(dimse.calling.clone(), dimse.called.clone(), &dimse.host, dimse.port);
        options.tls = tls;
        options.deadlines = config.deadlines;
        options.slots = slots;
        Ok(Self::Dimse {
            pacs: Pacs::new(options),
            moving: (config.method == Method::CMove).then(|| {
                Box::new(Moving {
                    dimse: dimse.clone(),
                    config: config.clone(),
                    destination: Mutex::default(),
                })
            }),
        })
    }

    /// Listens for what a C-MOVE sends, if it comes that way, from now on and not only once something is retrieved.
    ///
    /// # Errors
    /// Where somebody else does.
    pub fn listen(&self) -> Result<(), SourceError> {
        match self {
            Self::Dimse {
                moving: Some(moving), ..
            } => moving.destination().map(|_| ()),
            _ => Ok(()),
        }
    }

    /// Ends retrievals by DIMSE that are under way, as far as the sinks that take what comes do not, and lets no more
    /// begin.
    pub fn stop(&self) {
        if let Self::Dimse { pacs, .. } = self {
            pacs.stop();
        }
    }

    /// Its name in messages.
    pub fn peer(&self) -> String {
        match self {
            Self::Dimse { pacs, .. } => pacs.peer().to_string(),
            Self::Web(web) => web.peer().to_string(),
        }
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// Where it does not.
    pub fn echo(&self) -> Result<(), SourceError> {
        match self {
            Self::Dimse { pacs, .. } => Ok(pacs.echo()?),
            Self::Web(web) => Ok(web.echo()?),
        }
    }

    /// The studies that fit a query, if they are no more than `most`.
    ///
    /// # Errors
    /// Where it does not say.
    pub fn studies_that_fit(&self, query: &Query, most: usize) -> Result<FoundStudies, SourceError> {
        match self {
            Self::Dimse { pacs, .. } => Ok(pacs.studies_that_fit(query, most)?),
            Self::Web(web) => Ok(web.studies_that_fit(query, most)?),
        }
    }

    /// What it has of what is wanted.
    ///
    /// # Errors
    /// Where it does not say.
    pub fn find(&self, wanted: &Wanted) -> Result<Vec<Found>, SourceError> {
        match self {
            Self::Dimse { pacs, .. } => Ok(pacs.instances(wanted)?),
            Self::Web(web) => Ok(web.instances(wanted)?),
        }
    }

    /// Retrieves what is wanted, of these SOP classes.
    ///
    /// # Errors
    /// Where the exchange failed; what came before is whole.
    pub fn retrieve(&self, wanted: &Wanted, classes: &[Uid], sink: &mut Sink<'_>) -> Result<Retrieved, SourceError> {
        match self {
            Self::Dimse { pacs, moving: None } => Ok(pacs.get(wanted, classes, sink)?),
            Self::Dimse {
                pacs,
                moving: Some(moving),
            } => {
                let moved = pacs.fetch_by_move(wanted, &*moving.destination()?, sink);
                moved.map_err(|error| match error {
                    NetError::Aborted { .. } => SourceError::Move(error),
                    error => error.into(),
                })
            }
            Self::Web(web) => Ok(web.retrieve(wanted, sink)?),
        }
    }
}

/// Where a PACS sends to by C-MOVE: it listens once something is retrieved, for all that is asked for at once. Whoever
/// only looks leaves the port to a daemon.
pub struct Moving {
    dimse: Dimse,
    config: PacsConfig,
    destination: Mutex<Option<Arc<MoveDestination>>>,
}

impl Moving {
    fn destination(&self) -> Result<Arc<MoveDestination>, SourceError> {
        let mut destination = self.destination.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listening) = &*destination {
            return Ok(Arc::clone(listening));
        }
        let listening = Arc::new(listen(&self.dimse, &self.config)?);
        *destination = Some(Arc::clone(&listening));
        Ok(listening)
    }
}

fn listen(dimse: &Dimse, config: &PacsConfig) -> Result<MoveDestination, SourceError> {
    let title: AeTitle = dimse.calling.clone();
    let mut options = ReceiverOptions::new(title);
    // what is asked for over TLS does not come without
    options.tls = config.tls.as_ref().map(|files| files.server(provider())).transpose()?;
    options.deadlines = config.deadlines;
    // some PACS send under another title than the one they are called by: what comes is held against what was asked
    options.callers = Vec::new();
    // a PACS may send over several associations for each move, and leave them open
    options.most_associations = options.most_associations.max(4 * config.associations);
    Ok(MoveDestination::listen(&dimse.listen, options)?)
}

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn authorization(web: &Web) -> Result<Option<Authorization>, SourceError> {
    let Some(path) = web.token_file.clone() else {
        return Ok(None);
    };
    read_short(&path).map_err(|source| SourceError::Token {
        path: path.clone(),
        source,
    })?;
    // whoever renews it writes the file anew
    Ok(Some(Arc::new(move || {
        Ok(format!("Bearer {}", read_short(&path)?.trim()))
    })))
}

fn read_short(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)?
        .take(LONGEST_TOKEN)
        .read_to_string(&mut text)?;
    Ok(text)
}
