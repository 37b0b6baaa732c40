//! A connection with deadlines: TCP or TLS over it, read in units and written whole.
//!
//! The deadline is at the socket itself: whoever sends byte by byte would otherwise keep TLS reading at a single
//! record, with the full time for each byte.
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
/// How often whoever waits looks whether to go on.
const LOOK: Duration = Duration::from_millis(100);
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

/// A socket that waits no longer than to a moment, however often it is asked.
struct Timed {
    tcp: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(left.max(SHORTEST))
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.tcp.set_read_timeout(Some(self.left()?))?;
            match self.tcp.read(buffer) {
                Err(error) if is_passing(&error) => {}
                result => return result,
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.tcp.set_write_timeout(Some(self.left()?))?;
            match self.tcp.write(bytes) {
                Err(error) if is_passing(&error) => {}
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Stream {
    Plain(Timed),
    Client(Box<StreamOwned<ClientConnection, Timed>>),
    Server(Box<StreamOwned<ServerConnection, Timed>>),
}

impl Stream {
    fn timed(&mut self) -> &mut Timed {
        match self {
            Self::Plain(timed) => timed,
            Self::Client(tls) => &mut tls.sock,
            Self::Server(tls) => &mut tls.sock,
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(timed) => &timed.tcp,
            Self::Client(tls) => &tls.sock.tcp,
            Self::Server(tls) => &tls.sock.tcp,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(timed) => timed.read(buffer),
            Self::Client(tls) => tls.read(buffer),
            Self::Server(tls) => tls.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(timed) => timed.write(bytes),
            Self::Client(tls) => tls.write(bytes),
            Self::Server(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(timed) => timed.flush(),
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
                    let timed = timed(tcp, deadlines);
                    let stream = match tls {
                        None => Stream::Plain(timed),
                        Some(config) => {
                            let connection = client(host, config).map_err(|error| tls_error(&peer, error))?;
                            Stream::Client(Box::new(StreamOwned::new(connection, timed)))
                        }
                    };
                    let mut wire = Self::over(stream, peer, deadlines)?;
                    wire.shake_hands()?;
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
        let timed = timed(tcp, deadlines);
        let stream = match tls {
            None => Stream::Plain(timed),
            Some(config) => {
                let connection = ServerConnection::new(Arc::clone(config));
                let connection = connection.map_err(|error| tls_error(&peer, io::Error::other(error)))?;
                Stream::Server(Box::new(StreamOwned::new(connection, timed)))
            }
        };
        let mut wire = Self::over(stream, peer, deadlines)?;
        wire.shake_hands()?;
        Ok(wire)
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

    /// The TLS handshake, if there is one.
    fn shake_hands(&mut self) -> Result<(), NetError> {
        let until = self.until(Waiting::Association, self.deadlines.association);
        self.stream.timed().until = until.at;
        let done = match &mut self.stream {
            Stream::Plain(_) => return Ok(()),
            Stream::Client(tls) => finish(&mut tls.conn, &mut tls.sock),
            Stream::Server(tls) => finish(&mut tls.conn, &mut tls.sock),
        };
        match done {
            Err(error) if is_timeout(&error) => Err(self.late(until)),
            result => result.map_err(|error| tls_error(&self.peer, error)),
        }
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
            self.fill(until)?;
        }
        Ok(())
    }

    /// Reads what there is into the buffer, which is empty.
    fn fill(&mut self, until: Until) -> Result<(), NetError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.read_some(&mut buffer, until);
        self.buffer = buffer;
        (self.start, self.end) = (0, read?);
        Ok(())
    }

    /// Waits for the next unit to begin, as long as it may take; false once `goes_on` is.
    pub(crate) fn wait(&mut self, goes_on: &dyn Fn() -> bool) -> Result<bool, NetError> {
        let until = self.until(Waiting::Data, self.deadlines.unit);
        while self.start == self.end {
            if !goes_on() {
                return Ok(false);
            }
            let at = until.at.min(Instant::now() + LOOK);
            match self.fill(Until { at, ..until }) {
                Err(NetError::Late { .. }) if Instant::now() < until.at => {}
                filled => filled?,
            }
        }
        Ok(true)
    }

    /// From now on all that is still to be done may take so long.
    pub(crate) fn hurry(&mut self, longest: Duration) {
        self.whole = Instant::now() + longest;
    }

    fn read_some(&mut self, out: &mut [u8], until: Until) -> Result<usize, NetError> {
        self.stream.timed().until = until.at;
        match self.stream.read(out) {
            Ok(0) => Err(NetError::Closed {
                peer: self.peer.clone(),
            }),
            Ok(read) => Ok(read),
            Err(error) if is_timeout(&error) => Err(self.late(until)),
            Err(error) => Err(self.broken(error)),
        }
    }

    /// Writes bytes, all of them.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), NetError> {
        let until = self.until(Waiting::Sending, self.deadlines.unit);
        self.stream.timed().until = until.at;
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(0) => {
                    return Err(NetError::Closed {
                        peer: self.peer.clone(),
                    });
                }
                Ok(written) => bytes = &bytes[written..],
                Err(error) if is_timeout(&error) => return Err(self.late(until)),
                Err(error) => return Err(self.broken(error)),
            }
        }
        match self.stream.flush() {
            Err(error) if is_timeout(&error) => Err(self.late(until)),
            result => result.map_err(|error| self.broken(error)),
        }
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

fn timed(tcp: TcpStream, deadlines: Deadlines) -> Timed {
    let until = Instant::now() + deadlines.association;
    Timed { tcp, until }
}

fn client(host: &str, config: &Arc<ClientConfig>) -> io::Result<ClientConnection> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)
}

/// Without data, so that whoever is called answers a handshake before it waits for a request.
fn finish<D>(connection: &mut rustls::ConnectionCommon<D>, socket: &mut Timed) -> io::Result<()> {
    while connection.is_handshaking() {
        connection.complete_io(socket)?;
    }
    Ok(())
}

fn tls_error(peer: &Peer, source: io::Error) -> NetError {
    let peer = peer.clone();
    NetError::Tls { peer, source }
}

/// Whether the system only woke us: the deadline is looked at again.
fn is_passing(error: &io::Error) -> bool {
    is_timeout(error) || error.kind() == io::ErrorKind::Interrupted
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
