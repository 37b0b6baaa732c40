//! A TLS server on loopback in this process, for what misbehaves on command: it ends as a killed process ends.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use grid_identity::{Policy, TrustStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// One that runs until it is ended or dropped; its connections break off then.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the authorities in a folder vouch for.
pub(crate) fn trust(anchors: &Path) -> TrustStore {
    TrustStore::directory(anchors, Policy::server()).expect("the grid's authorities can be read")
}

impl Listening {
    /// Listens on a free port of 127.0.0.1 with a host's certificate; clients need one that `anchors` verify. Every
    /// connection is `serve`'s before its handshake.
    pub(crate) fn start<F>(
        certificate: &Path,
        key: &Path,
        anchors: &Path,
        serve: impl Fn(TcpStream, TlsAcceptor) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tls = grid_identity::tls::server_config(certificate, key, Arc::new(trust(anchors)));
        let tls = TlsAcceptor::from(Arc::new(tls.expect("the host certificate is good")));
        let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        socket.set_nonblocking(true).expect("a socket that tokio takes");
        let address = socket.local_addr().expect("it is bound");
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                let listener = TcpListener::from_std(socket).expect("a socket that tokio takes");
                let accept = async {
                    while let Ok((socket, _)) = listener.accept().await {
                        tokio::spawn(serve(socket, tls.clone()));
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Refuses connections from now on; whether nothing in it had panicked.
    pub(crate) fn end(&mut self) -> bool {
        drop(self.stop.take());
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.end();
    }
}
