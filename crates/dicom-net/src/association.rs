//! An association, asked for or accepted, and the messages that go over it (PS3.7, PS3.8).
//!
//! Data sets are read as they come, a data unit at a time, so that memory does not depend on their size; the other side
//! waits meanwhile, because nothing is read ahead.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::command::{Command, CommandError, LONGEST_COMMAND, Status};
use crate::contexts::{Proposal, known};
use crate::dataset::ANSWER_LIMIT;
use crate::error::{NetError, Peer, Waiting};
use crate::pdu::{
    self, Answered, AssociateAccept, AssociateRequest, Kind, LONGEST_DATA, PduError, Reject, Role, UserInformation,
    Value,
};
use crate::uid::{AeTitle, Uid};
use crate::wire::{Deadlines, Wire};

/// Bytes around a piece in a data unit.
const AROUND: usize = 6;
/// No peer needs smaller units than this, and with smaller ones hardly anything would fit.
const SHORTEST_DATA: usize = 128;

/// A presentation context that both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// Its number.
    pub id: u8,
    /// The SOP class.
    pub class: Uid,
    /// How data sets are encoded.
    pub transfer_syntax: Uid,
}

/// The command set of a message; its data set, if there is one, is read next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The presentation context.
    pub context: u8,
    /// What it says.
    pub command: Command,
}

/// What an acceptor agrees to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// The answers to the proposed contexts.
    pub contexts: Vec<Answered>,
    /// The roles that it grants.
    pub roles: Vec<Role>,
}

/// How many associations there may be at once, so that a PACS has time for the clinic.
#[derive(Clone)]
pub struct Slots(Arc<(Mutex<usize>, Condvar)>);

/// The right to one association; given back on drop.
pub(crate) struct Slot(Slots);

impl Slots {
    /// At most `most`, and at least one.
    pub fn new(most: usize) -> Self {
        Self(Arc::new((Mutex::new(most.max(1)), Condvar::new())))
    }

    /// Waits for one to be free.
    pub(crate) fn take(&self, longest: Duration) -> Option<Slot> {
        let until = Instant::now() + longest;
        let (free, freed) = &*self.0;
        let mut count = free.lock().unwrap_or_else(PoisonError::into_inner);
        while *count == 0 {
            let left = until.checked_duration_since(Instant::now())?;
            let waited = freed.wait_timeout(count, left);
            count = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *count -= 1;
        Some(Slot(self.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (free, freed) = &*self.0.0;
        *free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        freed.notify_one();
    }
}

/// An association. Dropped without [`Association::release`] it is aborted.
pub struct Association {
    wire: Wire,
    agreed: Vec<Agreed>,
    provided: BTreeSet<Uid>,
    /// The longest piece that the other side takes.
    longest: usize,
    /// The data unit that is being read, and how far.
    body: Vec<u8>,
    at: usize,
    in_unit: bool,
    /// What of the unit's last piece of a data set nobody has read yet.
    unread: std::ops::Range<usize>,
    /// The context of a data set that was not read to its end.
    pending: Option<u8>,
    /// Why a data set could not be read on: readers can only say that they failed.
    fault: Option<NetError>,
    messages: u16,
    is_open: bool,
    _slot: Option<Slot>,
}

/// What `answers` to a request leave agreed.
fn agreed(request: &AssociateRequest, answers: Vec<Answered>) -> Vec<Agreed> {
    let agree = |answered: Answered| {
        let proposed = request.contexts.iter().find(|context| context.id == answered.id)?;
        Some(Agreed {
            id: answered.id,
            class: proposed.abstract_syntax.clone(),
            transfer_syntax: answered.transfer_syntax?,
        })
    };
    answers.into_iter().filter_map(agree).collect()
}

/// What stands next on the association.
enum Piece {
    Value(Value),
    Release,
}

impl Association {
    /// Asks for an association over a connection.
    pub(crate) fn request(
        wire: Wire,
        calling: &AeTitle,
        called: &AeTitle,
        proposal: Proposal,
        slot: Option<Slot>,
    ) -> Result<Self, NetError> {
        let request = AssociateRequest {
            called: called.clone(),
            calling: calling.clone(),
            contexts: proposal.contexts,
            user: ourselves(proposal.roles),
        };
        let mut new = Self::new(wire, slot);
        new.wire.write(&request.encode())?;
        let header = new.wire.read_unit(&mut new.body, Waiting::Association)?;
        let peer = || new.wire.peer.clone();
        let accept = match header.kind {
            Kind::AssociateAccept => AssociateAccept::decode(&new.body).map_err(|error| new.wire.protocol(error))?,
            Kind::AssociateReject => {
                let reject = Reject::decode(&new.body).map_err(|error| new.wire.protocol(error))?;
                return Err(NetError::Refused { peer: peer(), reject });
            }
            Kind::Abort => return Err(NetError::Aborted { peer: peer() }),
            other => return Err(new.wire.protocol(PduError::Unexpected(other as u8))),
        };
        new.agreed = agreed(&request, accept.contexts);
        let granted = accept.user.roles.into_iter().filter(|role| role.provider);
        new.provided = granted.map(|role| role.class).collect();
        new.agree_on_length(accept.user.longest_data);
        new.is_open = true;
        Ok(new)
    }

    /// Accepts an association that somebody asks for over `tcp`, as `decide` says.
    ///
    /// # Errors
    /// Where nobody asked for one, or it was refused.
    pub fn accept(
        tcp: TcpStream,
        tls: Option<&Arc<rustls::ServerConfig>>,
        deadlines: Deadlines,
        decide: impl FnOnce(&AssociateRequest) -> Result<Acceptance, Reject>,
    ) -> Result<(Self, AssociateRequest), NetError> {
        let address = tcp
            .peer_addr()
            .map_or_else(|_| "a peer".to_owned(), |address| address.to_string());
        let wire = Wire::accepted(tcp, tls, Peer::new(address.as_str()), deadlines)?;
        let mut new = Self::new(wire, None);
        let header = new.wire.read_unit(&mut new.body, Waiting::Association)?;
        if header.kind != Kind::AssociateRequest {
            return Err(new.wire.protocol(PduError::Unexpected(header.kind as u8)));
        }
        let request = AssociateRequest::decode(&new.body).map_err(|error| new.wire.protocol(error))?;
        new.wire.peer = Peer::new(format!("{}@{address}", request.calling));
        let acceptance = match decide(&request) {
            Ok(acceptance) => acceptance,
            Err(reject) => {
                new.wire.write(&reject.encode())?;
                let peer = new.wire.peer.clone();
                return Err(NetError::Refused { peer, reject });
            }
        };
        let answer = AssociateAccept {
            contexts: acceptance.contexts,
            user: ourselves(acceptance.roles),
        };
        new.wire.write(&answer.encode(&request))?;
        new.agreed = agreed(&request, answer.contexts);
        new.agree_on_length(request.user.longest_data);
        new.is_open = true;
        Ok((new, request))
    }

    fn new(wire: Wire, slot: Option<Slot>) -> Self {
        Self {
            wire,
            agreed: Vec::new(),
            provided: BTreeSet::new(),
            longest: SHORTEST_DATA,
            body: Vec::new(),
            at: 0,
            in_unit: false,
            unread: 0..0,
            pending: None,
            fault: None,
            messages: 0,
            is_open: false,
            _slot: slot,
        }
    }

    fn agree_on_length(&mut self, theirs: u32) {
        let ours = LONGEST_DATA as usize;
        let most = match theirs as usize {
            0 => ours,
            theirs => theirs.clamp(SHORTEST_DATA, ours),
        };
        // fragments have an even number of bytes (PS3.8, E.1)
        self.longest = (most - AROUND) & !1;
    }

    /// The other side.
    pub fn peer(&self) -> &Peer {
        &self.wire.peer
    }

    /// What both sides agreed on.
    pub fn agreed(&self) -> &[Agreed] {
        &self.agreed
    }

    /// A context of `class`, if one was agreed on.
    pub fn context_of(&self, class: &str) -> Option<&Agreed> {
        self.agreed.iter().find(|agreed| agreed.class.as_str() == class)
    }

    /// The context with this number.
    ///
    /// # Errors
    /// Where it was not agreed on.
    pub fn context(&self, id: u8) -> Result<&Agreed, NetError> {
        let agreed = self.agreed.iter().find(|agreed| agreed.id == id);
        agreed.ok_or_else(|| self.wire.protocol(PduError::Context(id)))
    }

    /// Whether the other side lets us receive instances of `class` although we asked for the association.
    pub fn provides(&self, class: &Uid) -> bool {
        self.provided.contains(class)
    }

    /// The number of the next request.
    pub fn next_message(&mut self) -> u16 {
        self.messages = self.messages.wrapping_add(1);
        self.messages
    }

    /// Sends a message; whether a data set follows is set here.
    ///
    /// # Errors
    /// Where it cannot be sent.
    pub fn send(&mut self, context: u8, command: Command, data: Option<&[u8]>) -> Result<(), NetError> {
        let mut command = command;
        command.set_has_data(data.is_some());
        let mut out = Vec::new();
        self.pieces(&mut out, context, true, &command.encode());
        if let Some(data) = data {
            self.pieces(&mut out, context, false, data);
        }
        self.wire.write(&out)
    }

    fn pieces(&self, out: &mut Vec<u8>, context: u8, is_command: bool, bytes: &[u8]) {
        let mut pieces = bytes.chunks(self.longest).peekable();
        if pieces.peek().is_none() {
            pdu::encode_value(out, context, is_command, true, &[]);
        }
        while let Some(piece) = pieces.next() {
            pdu::encode_value(out, context, is_command, pieces.peek().is_none(), piece);
        }
    }

    /// Sends a message whose data set is as long as it will be.
    ///
    /// # Errors
    /// Where it cannot be sent, or `data` cannot be read: the association is then of no more use.
    pub fn send_stream(&mut self, context: u8, command: Command, data: &mut dyn Read) -> Result<(), NetError> {
        let mut command = command;
        command.set_has_data(true);
        let mut out = Vec::new();
        self.pieces(&mut out, context, true, &command.encode());
        let mut piece = Vec::with_capacity(self.longest);
        loop {
            piece.clear();
            let read = (&mut *data).take(self.longest as u64).read_to_end(&mut piece);
            read.map_err(|error| NetError::Source {
                peer: self.wire.peer.clone(),
                source: crate::dataset::DataError::Read(error),
            })?;
            // a last piece may be empty, so nobody has to look ahead
            let is_last = piece.len() < self.longest;
            pdu::encode_value(&mut out, context, false, is_last, &piece);
            self.wire.write(&out)?;
            out.clear();
            if is_last {
                return Ok(());
            }
        }
    }

    /// The next message; none once the other side released the association. What is left of the data set before is
    /// passed over.
    ///
    /// # Errors
    /// Where there is no message, or it is none.
    pub fn receive(&mut self) -> Result<Option<Message>, NetError> {
        self.drain()?;
        let mut bytes = Vec::new();
        let mut context = None;
        loop {
            let value = match self.piece()? {
                Piece::Value(value) => value,
                Piece::Release if context.is_none() => {
                    self.is_open = false;
                    self.wire.write(&pdu::release(Kind::ReleaseReply))?;
                    return Ok(None);
                }
                Piece::Release => return Err(self.released()),
            };
            if !value.is_command || context.is_some_and(|context| context != value.context) {
                return Err(self.wire.protocol(PduError::Context(value.context)));
            }
            context = Some(value.context);
            bytes.extend_from_slice(&self.body[value.start..value.end]);
            if bytes.len() > LONGEST_COMMAND {
                return Err(self.wire.protocol(CommandError::Long));
            }
            if value.is_last {
                let command = Command::decode(&bytes).map_err(|error| self.wire.protocol(error))?;
                self.pending = command.has_data().then_some(value.context);
                return Ok(Some(Message {
                    context: value.context,
                    command,
                }));
            }
        }
    }

    /// Waits for the next message, as long as it may take; false once `goes_on` is.
    pub(crate) fn wait(&mut self, goes_on: &dyn Fn() -> bool) -> Result<bool, NetError> {
        self.drain()?;
        let next = |wire: &Wire, body: &[u8], at| pdu::next_value(body, at).map_err(|error| wire.protocol(error));
        if self.in_unit && next(&self.wire, &self.body, self.at)?.is_some() {
            return Ok(true);
        }
        self.wire.wait(goes_on)
    }

    /// From now on all that is still to be done may take so long.
    pub(crate) fn hurry(&mut self, longest: Duration) {
        self.wire.hurry(longest);
    }

    /// The next message, which there must be.
    ///
    /// # Errors
    /// As for [`Association::receive`], and where the association was released.
    pub fn expect(&mut self) -> Result<Message, NetError> {
        self.receive()?.ok_or_else(|| self.released())
    }

    /// The data set of the message that was received last, as it comes in; empty where there is none.
    pub fn data(&mut self) -> Data<'_> {
        Data(self)
    }

    /// A small data set as a whole.
    ///
    /// # Errors
    /// Where it cannot be read, or is not small.
    pub fn small_data(&mut self) -> Result<Vec<u8>, NetError> {
        let mut bytes = Vec::new();
        let read = self.data().take(ANSWER_LIMIT as u64 + 1).read_to_end(&mut bytes);
        self.check()?;
        if read.is_err() || bytes.len() > ANSWER_LIMIT {
            return Err(self.wire.protocol(crate::dataset::DataError::Long(ANSWER_LIMIT)));
        }
        Ok(bytes)
    }

    /// Why a data set could not be read on, if it could not.
    pub(crate) fn check(&mut self) -> Result<(), NetError> {
        self.fault.take().map_or(Ok(()), Err)
    }

    /// Passes over what is left of a data set.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub fn drain(&mut self) -> Result<(), NetError> {
        self.check()?;
        self.unread = 0..0;
        while self.pending.is_some() {
            self.data_piece()?;
        }
        Ok(())
    }

    /// Answers a request.
    ///
    /// # Errors
    /// Where the answer cannot be sent.
    pub fn reply(&mut self, message: &Message, status: Status) -> Result<(), NetError> {
        self.send(message.context, Command::reply(&message.command, status), None)
    }

    /// Ends the association in good order. What the other side makes of it is no matter any more.
    pub fn release(mut self) {
        self.is_open = false;
        if self.wire.write(&pdu::release(Kind::ReleaseRequest)).is_ok() {
            // it may have sent something before it saw the request
            let mut left = 16;
            while left > 0 && !matches!(self.next_unit(), Ok(Kind::ReleaseReply) | Err(_)) {
                left -= 1;
            }
        }
        self.wire.shut();
    }

    fn next_unit(&mut self) -> Result<Kind, NetError> {
        let header = self.wire.read_unit(&mut self.body, Waiting::Association)?;
        Ok(header.kind)
    }

    fn piece(&mut self) -> Result<Piece, NetError> {
        loop {
            if self.in_unit {
                let value = pdu::next_value(&self.body, self.at).map_err(|error| self.wire.protocol(error))?;
                if let Some(value) = value {
                    self.at = value.end;
                    return Ok(Piece::Value(value));
                }
                self.in_unit = false;
            }
            let header = self.wire.read_unit(&mut self.body, Waiting::Data)?;
            match header.kind {
                Kind::Data => (self.in_unit, self.at) = (true, 0),
                Kind::ReleaseRequest => return Ok(Piece::Release),
                Kind::Abort => {
                    self.is_open = false;
                    let peer = self.wire.peer.clone();
                    return Err(NetError::Aborted { peer });
                }
                other => return Err(self.wire.protocol(PduError::Unexpected(other as u8))),
            }
        }
    }

    /// The next piece of the data set that is being read.
    fn data_piece(&mut self) -> Result<Value, NetError> {
        let value = match self.piece()? {
            Piece::Value(value) => value,
            Piece::Release => return Err(self.released()),
        };
        if value.is_command || self.pending != Some(value.context) {
            return Err(self.wire.protocol(PduError::Context(value.context)));
        }
        if value.is_last {
            self.pending = None;
        }
        Ok(value)
    }

    fn released(&self) -> NetError {
        NetError::Released {
            peer: self.wire.peer.clone(),
        }
    }

    pub(crate) fn protocol(&self, error: impl Into<crate::error::ProtocolError>) -> NetError {
        self.wire.protocol(error)
    }
}

impl Drop for Association {
    fn drop(&mut self) {
        if self.is_open {
            let _ = self.wire.write(&pdu::abort(0, 0));
        }
        self.wire.shut();
    }
}

/// A data set as it comes in.
pub struct Data<'a>(&'a mut Association);

impl Read for Data<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let association = &mut *self.0;
        while association.unread.is_empty() {
            if association.fault.is_some() {
                return Err(io::Error::other("the association failed"));
            }
            if association.pending.is_none() || out.is_empty() {
                return Ok(0);
            }
            match association.data_piece() {
                Ok(value) => association.unread = value.start..value.end,
                Err(error) => {
                    let text = io::Error::other(error.to_string());
                    association.fault = Some(error);
                    return Err(text);
                }
            }
        }
        let count = out.len().min(association.unread.len());
        let start = association.unread.start;
        out[..count].copy_from_slice(&association.body[start..start + count]);
        association.unread.start += count;
        Ok(count)
    }
}

fn ourselves(roles: Vec<Role>) -> UserInformation {
    UserInformation {
        longest_data: LONGEST_DATA,
        implementation: Some(known(crate::IMPLEMENTATION)),
        version: Some(crate::IMPLEMENTATION_VERSION.to_owned()),
        roles,
    }
}
