//! A provider of storage: takes instances that others send, for C-MOVE ([`crate::MoveDestination`]) and for what is
//! pushed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use crate::association::{Acceptance, Association, Message};
use crate::command::{CommandError, Field, Status};
use crate::contexts;
use crate::error::NetError;
use crate::intake::{Arrival, Intake, Sink, Taken};
use crate::pdu::{AssociateRequest, Reject};
use crate::uid::AeTitle;
use crate::wire::Deadlines;

/// How long to wait before connections are taken again when the system has no more of them.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections over the number of associations that are heard, only to be told to come again.
const REFUSALS: usize = 16;

/// How to receive.
#[derive(Clone)]
pub struct ReceiverOptions {
    /// Our title: who calls another is refused.
    pub title: AeTitle,
    /// Who may call; empty for everybody.
    pub callers: Vec<AeTitle>,
    /// How many associations at once; who comes when there are as many is asked to come again.
    pub most_associations: usize,
    /// How long the others may take.
    pub deadlines: Deadlines,
    /// TLS, if it is spoken.
    pub tls: Option<Arc<ServerConfig>>,
}

impl ReceiverOptions {
    /// From everybody, eight associations at once, without TLS.
    pub fn new(title: AeTitle) -> Self {
        Self {
            title,
            callers: Vec::new(),
            most_associations: 8,
            deadlines: Deadlines::default(),
            tls: None,
        }
    }
}

/// What is done with each C-STORE request of one association, which goes on afterwards.
pub(crate) type Store<'s> = dyn FnMut(Association, &Message) -> Result<Association, NetError> + Send + 's;

/// A listening provider of storage.
pub struct Receiver {
    listener: TcpListener,
    address: SocketAddr,
    options: ReceiverOptions,
}

/// Ends a [`Receiver`], from any thread.
pub struct Stop {
    is_set: AtomicBool,
    address: SocketAddr,
}

impl Stop {
    /// Takes no more associations from now on.
    pub fn now(&self) {
        self.is_set.store(true, Ordering::Release);
        // whoever waits for a connection sees this one, and the flag
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }

    fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }
}

impl Receiver {
    /// Listens at `address`, for example `0.0.0.0:11112`.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn listen(address: &str, options: ReceiverOptions) -> Result<Self, NetError> {
        let bound = TcpListener::bind(address).and_then(|listener| {
            let address = listener.local_addr()?;
            Ok((listener, address))
        });
        let (listener, bound) = bound.map_err(|source| NetError::Listen {
            address: address.to_owned(),
            source,
        })?;
        Ok(Self {
            listener,
            address: bound,
            options,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its title.
    pub fn title(&self) -> &AeTitle {
        &self.options.title
    }

    /// What ends it.
    pub fn stop(&self) -> Stop {
        let mut address = self.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Stop {
            is_set: AtomicBool::new(false),
            address,
        }
    }

    /// Takes whatever instances are sent, until `stop`: each association has a thread of its own that calls `sink`.
    pub fn receive(&self, stop: &Stop, sink: &(dyn Fn(&Arrival, &mut dyn io::Read) -> Taken + Sync)) {
        self.receive_each(stop, PAUSE, &|_| Box::new(sink));
    }

    /// The same with a sink for each association, made for its caller's title. Associations that are open at the end
    /// get `grace`.
    pub fn receive_each<'s>(&self, stop: &Stop, grace: Duration, sinks: &(dyn Fn(&AeTitle) -> Box<Sink<'s>> + Sync)) {
        self.serve(stop, grace, &|caller| {
            let mut sink = sinks(caller);
            Box::new(move |mut association, message| {
                Intake::new(None, &mut *sink).store(&mut association, message)?;
                Ok(association)
            })
        });
    }

    /// The same with what is done with each C-STORE request of an association.
    pub(crate) fn serve<'s>(&self, stop: &Stop, grace: Duration, begin: &(dyn Fn(&AeTitle) -> Box<Store<'s>> + Sync)) {
        let open = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let mut running = Vec::new();
            while !stop.is_set() {
                let tcp = match self.listener.accept() {
                    Ok((tcp, _)) => tcp,
                    Err(error) => {
                        tracing::warn!(%error, "cannot take a connection");
                        std::thread::sleep(PAUSE);
                        continue;
                    }
                };
                if stop.is_set() {
                    break;
                }
                running.retain(|(thread, _): &(std::thread::ScopedJoinHandle<'_, ()>, _)| !thread.is_finished());
                let Ok(handle) = tcp.try_clone() else { continue };
                let before = open.load(Ordering::Acquire);
                if before >= self.options.most_associations.saturating_add(REFUSALS) {
                    // whoever connects and says nothing costs no more threads than this
                    continue;
                }
                let handle = Arc::new(handle);
                let closing = Arc::clone(&handle);
                open.fetch_add(1, Ordering::AcqRel);
                let open = &open;
                let thread = scope.spawn(move || {
                    let conversed = catch_unwind(AssertUnwindSafe(|| self.converse(tcp, before, begin)));
                    open.fetch_sub(1, Ordering::AcqRel);
                    match conversed {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            tracing::warn!(error = &error as &dyn std::error::Error, "an association failed");
                        }
                        Err(_) => {
                            tracing::error!("a fault of this program ended an association");
                            let _ = closing.shutdown(Shutdown::Both);
                        }
                    }
                });
                running.push((thread, handle));
            }
            let end = Instant::now() + grace;
            while Instant::now() < end && running.iter().any(|(thread, _)| !thread.is_finished()) {
                std::thread::sleep(Duration::from_millis(5));
            }
            for (_, handle) in running {
                let _ = handle.shutdown(Shutdown::Both);
            }
        });
    }

    fn converse<'s>(
        &self,
        tcp: TcpStream,
        before: usize,
        begin: &(dyn Fn(&AeTitle) -> Box<Store<'s>> + Sync),
    ) -> Result<(), NetError> {
        let options = &self.options;
        let decide = |request: &AssociateRequest| self.decide(request, before);
        let (mut association, request) = Association::accept(tcp, options.tls.as_ref(), options.deadlines, decide)?;
        let mut store = begin(&request.calling);
        while let Some(message) = association.receive()? {
            match message.command.field() {
                Field::StoreRequest => association = store(association, &message)?,
                Field::EchoRequest => association.reply(&message, Status::SUCCESS)?,
                // what it would cancel is done by the time that this is read
                Field::CancelRequest => {}
                other => return Err(association.protocol(CommandError::Unexpected(other.name()))),
            }
        }
        Ok(())
    }

    fn decide(&self, request: &AssociateRequest, before: usize) -> Result<Acceptance, Reject> {
        let options = &self.options;
        let refuse = |is_transient, source, reason| {
            Err(Reject {
                is_transient,
                source,
                reason,
            })
        };
        if before >= options.most_associations.max(1) {
            return refuse(true, 3, 2);
        }
        if request.called != options.title {
            return refuse(false, 1, 7);
        }
        if !options.callers.is_empty() && !options.callers.contains(&request.calling) {
            return refuse(false, 1, 3);
        }
        Ok(Acceptance {
            contexts: contexts::accept(&request.contexts),
            // whoever asks for an association sends; nobody can retrieve here
            roles: Vec::new(),
        })
    }
}
