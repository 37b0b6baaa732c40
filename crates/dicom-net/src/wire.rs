//! A connection with deadlines: TCP or TLS over it, read in units and written whole.
//!
//! Nagle's algorithm is off: with it a C-GET waits for a delayed acknowledgement at every instance, 40 to 50 ms each.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::error::{NetError, Peer, ProtocolError, Waiting};
use crate::pdu::{HEADER_BYTES, Header};

/// What is read from the connection at once, where there is that much.
const READ_BYTES: usize = 64 * 1024;
/// A socket without a deadline would wait for ever, and one of zero is refused by the system.
const SHORTEST: Duration = Duration::from_millis(1);

/// How long the other side may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For a connection, of each of its addresses.
    pub connect: Duration,
    /// For the TLS handshake, and for the answer to the request for an association.
    pub association: Duration,
    /// For each data unit.
    pub unit: Duration,
    /// For a whole exchange: all that is done over one association.
    pub whole: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            association: Duration::from_secs(20),
            // a PACS may have to fetch from its own archive before the first instance comes
            unit: Duration::from_secs(120),
            whole: Duration::from_secs(4 * 3600),
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Client(tls) => &tls.sock,
            Self::Server(tls) => &tls.sock,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Client(tls) => tls.read(buffer),
            Self::Server(tls) => tls.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Client(tls) => tls.write(bytes),
            Self::Server(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Client(tls) => tls.flush(),
            Self::Server(tls) => tls.flush(),
        }
    }
}

/// A moment by which something must be done, with what to say if it is not.
#[derive(Clone, Copy)]
struct Until {
    at: Instant,
    waiting: Waiting,
    allowed: Duration,
}

/// A connection.
pub(crate) struct Wire {
    stream: Stream,
    pub(crate) peer: Peer,
    deadlines: Deadlines,
    whole: Instant,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Wire {
    /// Connects; with TLS where there is a configuration for it.
    pub(crate) fn connect(
        host: &str,
        port: u16,
        tls: Option<&Arc<ClientConfig>>,
        peer: Peer,
        deadlines: Deadlines,
    ) -> Result<Self, NetError> {
        let address = |source| NetError::Address {
            peer: peer.clone(),
            source,
        };
        let mut last = None;
        for one in (host, port).to_socket_addrs().map_err(address)? {
            match TcpStream::connect_timeout(&one, deadlines.connect) {
                Ok(tcp) => {
                    let mut wire = Self::over(Stream::Plain(tcp), peer, deadlines)?;
                    if let Some(tls) = tls {
                        wire.start_tls(host, tls)?;
                    }
                    return Ok(wire);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(match last {
            Some(error) if is_timeout(&error) => NetError::Late {
                peer,
                waiting: Waiting::Connection,
                seconds: deadlines.connect.as_secs(),
            },
            Some(source) => NetError::Connect { peer, source },
            None => address(io::ErrorKind::NotFound.into()),
        })
    }

    /// Takes a connection that somebody made to us.
    pub(crate) fn accepted(
        tcp: TcpStream,
        tls: Option<&Arc<ServerConfig>>,
        peer: Peer,
        deadlines: Deadlines,
    ) -> Result<Self, NetError> {
        let stream = match tls {
            None => Stream::Plain(tcp),
            Some(config) => {
                let connection = ServerConnection::new(Arc::clone(config)).map_err(|error| NetError::Tls {
                    peer: peer.clone(),
                    source: io::Error::other(error),
                })?;
                Stream::Server(Box::new(StreamOwned::new(connection, tcp)))
            }
        };
        Self::over(stream, peer, deadlines)
    }

    fn over(stream: Stream, peer: Peer, deadlines: Deadlines) -> Result<Self, NetError> {
        let wire = Self {
            stream,
            peer,
            deadlines,
            whole: Instant::now() + deadlines.whole,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
        };
        let set = wire.stream.tcp().set_nodelay(true);
        set.map_err(|error| wire.broken(error))?;
        Ok(wire)
    }

    fn start_tls(&mut self, host: &str, config: &Arc<ClientConfig>) -> Result<(), NetError> {
        let tls = |source| NetError::Tls {
            peer: self.peer.clone(),
            source,
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| tls(io::Error::other(error)))?;
        let connection = ClientConnection::new(Arc::clone(config), name);
        let mut connection = connection.map_err(|error| tls(io::Error::other(error)))?;
        let Stream::Plain(tcp) = &self.stream else {
            return Ok(());
        };
        let mut tcp = tcp.try_clone().map_err(tls)?;
        let until = self.until(Waiting::Association, self.deadlines.association);
        while connection.is_handshaking() {
            let left = until.at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.late(until));
            }
            let limits = tcp.set_read_timeout(Some(left.max(SHORTEST)));
            limits
                .and_then(|()| tcp.set_write_timeout(Some(left.max(SHORTEST))))
                .map_err(tls)?;
            match connection.complete_io(&mut tcp) {
                Err(error) if is_timeout(&error) => return Err(self.late(until)),
                result => result.map(|_| ()).map_err(tls)?,
            }
        }
        self.stream = Stream::Client(Box::new(StreamOwned::new(connection, tcp)));
        Ok(())
    }

    /// Reads a unit's header, and what follows it into `body`. `waiting` tells which deadline holds.
    pub(crate) fn read_unit(&mut self, body: &mut Vec<u8>, waiting: Waiting) -> Result<Header, NetError> {
        let allowed = match waiting {
            Waiting::Association => self.deadlines.association,
            _ => self.deadlines.unit,
        };
        let until = self.until(waiting, allowed);
        let mut header = [0; HEADER_BYTES];
        self.read_exact(&mut header, until)?;
        let header = Header::decode(header).map_err(|error| self.protocol(error))?;
        body.resize(usize::try_from(header.length).unwrap_or(usize::MAX), 0);
        self.read_exact(body, until)?;
        Ok(header)
    }

    fn read_exact(&mut self, mut out: &mut [u8], until: Until) -> Result<(), NetError> {
        while !out.is_empty() {
            if self.start < self.end {
                let count = out.len().min(self.end - self.start);
                let (now, later) = out.split_at_mut(count);
                now.copy_from_slice(&self.buffer[self.start..self.start + count]);
                self.start += count;
                out = later;
                continue;
            }
            // what is as long as the buffer gains nothing by it
            if out.len() >= self.buffer.len() {
                let read = self.read_some(out, until)?;
                out = &mut out[read..];
                continue;
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = self.read_some(&mut buffer, until);
            self.buffer = buffer;
            (self.start, self.end) = (0, read?);
        }
        Ok(())
    }

    fn read_some(&mut self, out: &mut [u8], until: Until) -> Result<usize, NetError> {
        loop {
            let left = self.left(until)?;
            let set = self.stream.tcp().set_read_timeout(Some(left));
            match set.and_then(|()| self.stream.read(out)) {
                Ok(0) => {
                    return Err(NetError::Closed {
                        peer: self.peer.clone(),
                    });
                }
                Ok(read) => return Ok(read),
                Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    /// Writes bytes, all of them.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), NetError> {
        let until = self.until(Waiting::Sending, self.deadlines.unit);
        while !bytes.is_empty() {
            let left = self.left(until)?;
            let set = self.stream.tcp().set_write_timeout(Some(left));
            match set.and_then(|()| self.stream.write(bytes)) {
                Ok(0) => {
                    return Err(NetError::Closed {
                        peer: self.peer.clone(),
                    });
                }
                Ok(written) => bytes = &bytes[written..],
                Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
        let flushed = self.stream.flush();
        flushed.map_err(|error| self.broken(error))
    }

    /// Ends the connection at once.
    pub(crate) fn shut(&self) {
        let _ = self.stream.tcp().shutdown(Shutdown::Both);
    }

    fn until(&self, waiting: Waiting, allowed: Duration) -> Until {
        let at = Instant::now() + allowed;
        if at > self.whole {
            return Until {
                at: self.whole,
                waiting: Waiting::Whole,
                allowed: self.deadlines.whole,
            };
        }
        Until { at, waiting, allowed }
    }

    fn left(&self, until: Until) -> Result<Duration, NetError> {
        let left = until.at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.late(until));
        }
        Ok(left.max(SHORTEST))
    }

    fn late(&self, until: Until) -> NetError {
        NetError::Late {
            peer: self.peer.clone(),
            waiting: until.waiting,
            seconds: until.allowed.as_secs(),
        }
    }

    fn broken(&self, source: io::Error) -> NetError {
        let peer = self.peer.clone();
        match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                NetError::Closed { peer }
            }
            io::ErrorKind::InvalidData => NetError::Tls { peer, source },
            _ => NetError::Broken { peer, source },
        }
    }

    pub(crate) fn protocol(&self, error: impl Into<ProtocolError>) -> NetError {
        NetError::Protocol {
            peer: self.peer.clone(),
            source: error.into(),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
