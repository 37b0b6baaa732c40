//! Command sets of DIMSE messages (PS3.7, chapters 6 and 9, annex E): a few elements, always implicit VR little endian.

use std::collections::BTreeMap;

use crate::uid::Uid;

/// The longest command set that we take: those of the standard have a few hundred bytes.
pub const LONGEST_COMMAND: usize = 16 * 1024;
/// "No data set follows", in [`element::DATA_SET_TYPE`].
const NO_DATA_SET: u16 = 0x0101;

/// Elements of group 0000.
#[allow(missing_docs, reason = "the names are those of PS3.7, annex E")]
pub mod element {
    pub const AFFECTED_CLASS: u16 = 0x0002;
    pub const COMMAND_FIELD: u16 = 0x0100;
    pub const MESSAGE_ID: u16 = 0x0110;
    pub const MESSAGE_ID_RESPONDED: u16 = 0x0120;
    pub const MOVE_DESTINATION: u16 = 0x0600;
    pub const PRIORITY: u16 = 0x0700;
    pub const DATA_SET_TYPE: u16 = 0x0800;
    pub const STATUS: u16 = 0x0900;
    pub const AFFECTED_INSTANCE: u16 = 0x1000;
    pub const REMAINING: u16 = 0x1020;
    pub const COMPLETED: u16 = 0x1021;
    pub const FAILED: u16 = 0x1022;
    pub const WARNING: u16 = 0x1023;
    pub const MOVE_ORIGINATOR: u16 = 0x1030;
    pub const MOVE_ORIGINATOR_MESSAGE: u16 = 0x1031;
}

/// What a message asks or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs, reason = "the names are those of PS3.7")]
pub enum Field {
    StoreRequest = 0x0001,
    StoreReply = 0x8001,
    GetRequest = 0x0010,
    GetReply = 0x8010,
    FindRequest = 0x0020,
    FindReply = 0x8020,
    MoveRequest = 0x0021,
    MoveReply = 0x8021,
    EchoRequest = 0x0030,
    EchoReply = 0x8030,
    CancelRequest = 0x0fff,
}

impl Field {
    const ALL: [Self; 11] = [
        Self::StoreRequest,
        Self::StoreReply,
        Self::GetRequest,
        Self::GetReply,
        Self::FindRequest,
        Self::FindReply,
        Self::MoveRequest,
        Self::MoveReply,
        Self::EchoRequest,
        Self::EchoReply,
        Self::CancelRequest,
    ];

    /// The name in messages to people.
    pub fn name(self) -> &'static str {
        match self {
            Self::StoreRequest | Self::StoreReply => "C-STORE",
            Self::GetRequest | Self::GetReply => "C-GET",
            Self::FindRequest | Self::FindReply => "C-FIND",
            Self::MoveRequest | Self::MoveReply => "C-MOVE",
            Self::EchoRequest | Self::EchoReply => "C-ECHO",
            Self::CancelRequest => "C-CANCEL",
        }
    }
}

/// The status of an answer (PS3.7, annex C).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// Done.
    pub const SUCCESS: Self = Self(0x0000);
    /// More answers follow.
    pub const PENDING: Self = Self(0xff00);
    /// Cancelled on request.
    pub const CANCELLED: Self = Self(0xfe00);
    /// No room, or no time, for an instance.
    pub const OUT_OF_RESOURCES: Self = Self(0xa700);
    /// The data set is not of the class, or the instance, that the command says.
    pub const MISMATCH: Self = Self(0xa900);
    /// The data set cannot be understood.
    pub const NOT_UNDERSTOOD: Self = Self(0xc000);

    /// Whether more answers follow.
    pub fn is_pending(self) -> bool {
        matches!(self.0, 0xff00 | 0xff01)
    }

    /// Whether what was asked was done, with a warning perhaps.
    pub fn is_success(self) -> bool {
        self.0 == 0 || matches!(self.0, 0x0001 | 0x0107 | 0x0116) || self.0 >> 12 == 0xb
    }

    /// In words, where the standard has a word for it.
    pub fn words(self) -> &'static str {
        match self.0 {
            0x0000 => "success",
            0x0110 => "it could not process it",
            0x0122 => "it does not know the SOP class",
            0x0124 => "it does not allow it",
            0x0211 => "it does not know the operation",
            0xa701 => "it has no room to count the matches",
            0xa702 => "it cannot send the instances",
            0xa700..=0xa7ff => "it is out of resources",
            0xa801 => "it does not know the title to send to",
            0xa900..=0xa9ff => "the data set does not match the SOP class",
            0xb000..=0xbfff => "done in part",
            0xc000..=0xcfff => "it cannot do it",
            0xfe00 => "it was cancelled",
            _ => "a status that the standard does not know",
        }
    }
}

/// What is wrong with a command set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Longer than any.
    #[error("a command set of more than {LONGEST_COMMAND} bytes")]
    Long,
    /// An element that ends behind the whole.
    #[error("a command set whose elements do not fit into it")]
    Cut,
    /// An element of another group.
    #[error("a command set with an element of group {0:04x}")]
    Group(u16),
    /// An element that is missing or of another length.
    #[error("a command set without the element (0000,{0:04x}) as it should be")]
    Element(u16),
    /// A command that we do not know.
    #[error("the unknown command {0:04x}")]
    Field(u16),
    /// Another command than the one that has its place here.
    #[error("a {0} where none has a place")]
    Unexpected(&'static str),
    /// An answer to another request.
    #[error("an answer to request {0}, which was not made")]
    Answer(u16),
}

/// A command set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    field: Field,
    elements: BTreeMap<u16, Vec<u8>>,
}

impl Command {
    /// A request about instances of `class`.
    pub fn request(field: Field, message_id: u16, class: &Uid) -> Self {
        let mut command = Self {
            field,
            elements: BTreeMap::new(),
        };
        command.set_uid(element::AFFECTED_CLASS, class);
        command.set_number(element::COMMAND_FIELD, field as u16);
        command.set_number(element::MESSAGE_ID, message_id);
        command.set_number(element::DATA_SET_TYPE, NO_DATA_SET);
        command
    }

    /// The answer to `request`.
    pub fn reply(request: &Self, status: Status) -> Self {
        let field = match request.field {
            Field::StoreRequest => Field::StoreReply,
            Field::GetRequest => Field::GetReply,
            Field::FindRequest => Field::FindReply,
            Field::MoveRequest => Field::MoveReply,
            _ => Field::EchoReply,
        };
        let mut command = Self {
            field,
            elements: BTreeMap::new(),
        };
        for name in [element::AFFECTED_CLASS, element::AFFECTED_INSTANCE] {
            if let Some(value) = request.elements.get(&name) {
                command.elements.insert(name, value.clone());
            }
        }
        command.set_number(element::COMMAND_FIELD, field as u16);
        let message_id = request.number(element::MESSAGE_ID).unwrap_or(0);
        command.set_number(element::MESSAGE_ID_RESPONDED, message_id);
        command.set_number(element::DATA_SET_TYPE, NO_DATA_SET);
        command.set_number(element::STATUS, status.0);
        command
    }

    /// "Do not go on with that request": it has no SOP class and gets no answer of its own.
    pub fn cancel(message_id: u16) -> Self {
        let mut command = Self {
            field: Field::CancelRequest,
            elements: BTreeMap::new(),
        };
        command.set_number(element::COMMAND_FIELD, Field::CancelRequest as u16);
        command.set_number(element::MESSAGE_ID_RESPONDED, message_id);
        command.set_number(element::DATA_SET_TYPE, NO_DATA_SET);
        command
    }

    /// What it is.
    pub fn field(&self) -> Field {
        self.field
    }

    /// Says whether a data set follows.
    pub fn set_has_data(&mut self, has_data: bool) {
        self.set_number(element::DATA_SET_TYPE, if has_data { 1 } else { NO_DATA_SET });
    }

    /// Whether a data set follows.
    pub fn has_data(&self) -> bool {
        self.number(element::DATA_SET_TYPE) != Ok(NO_DATA_SET)
    }

    /// Sets an element of two bytes.
    pub fn set_number(&mut self, name: u16, value: u16) {
        self.elements.insert(name, value.to_le_bytes().to_vec());
    }

    /// Sets an identifier.
    pub fn set_uid(&mut self, name: u16, value: &Uid) {
        self.set_padded(name, value.as_str(), 0);
    }

    /// Sets a title.
    pub fn set_text(&mut self, name: u16, value: &str) {
        self.set_padded(name, value, b' ');
    }

    fn set_padded(&mut self, name: u16, value: &str, padding: u8) {
        let mut bytes = value.as_bytes().to_vec();
        if bytes.len() % 2 == 1 {
            bytes.push(padding);
        }
        self.elements.insert(name, bytes);
    }

    /// A title, without its padding; none where there is none.
    pub fn text(&self, name: u16) -> Option<&str> {
        let text = self
            .elements
            .get(&name)
            .and_then(|value| std::str::from_utf8(value).ok())?;
        Some(text.trim_matches([' ', '\0'])).filter(|text| !text.is_empty())
    }

    /// An element of two bytes.
    ///
    /// # Errors
    /// Where it is missing or longer.
    pub fn number(&self, name: u16) -> Result<u16, CommandError> {
        let value = self
            .elements
            .get(&name)
            .and_then(|value| value.as_slice().try_into().ok());
        value.map(u16::from_le_bytes).ok_or(CommandError::Element(name))
    }

    /// An identifier.
    ///
    /// # Errors
    /// Where it is missing or none.
    pub fn uid(&self, name: u16) -> Result<Uid, CommandError> {
        let value = self.elements.get(&name).and_then(|value| Uid::from_value(value).ok());
        value.ok_or(CommandError::Element(name))
    }

    /// The status of an answer.
    ///
    /// # Errors
    /// Where it is missing.
    pub fn status(&self) -> Result<Status, CommandError> {
        self.number(element::STATUS).map(Status)
    }

    /// Whether it answers the request `message_id`.
    ///
    /// # Errors
    /// Where it answers another.
    pub fn answers(&self, message_id: u16) -> Result<(), CommandError> {
        match self.number(element::MESSAGE_ID_RESPONDED)? {
            answered if answered == message_id => Ok(()),
            other => Err(CommandError::Answer(other)),
        }
    }

    /// Writes the command set.
    pub fn encode(&self) -> Vec<u8> {
        let mut rest = Vec::new();
        for (name, value) in &self.elements {
            put(&mut rest, *name, value);
        }
        let mut out = Vec::with_capacity(rest.len() + 12);
        put(
            &mut out,
            0,
            &u32::try_from(rest.len()).unwrap_or(u32::MAX).to_le_bytes(),
        );
        out.extend(rest);
        out
    }

    /// Reads a command set.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, CommandError> {
        if bytes.len() > LONGEST_COMMAND {
            return Err(CommandError::Long);
        }
        let mut elements = BTreeMap::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_first_chunk::<8>().ok_or(CommandError::Cut)?;
            let [g0, g1, e0, e1, a, b, c, d] = *head;
            let group = u16::from_le_bytes([g0, g1]);
            if group != 0 {
                return Err(CommandError::Group(group));
            }
            let length = u32::from_le_bytes([a, b, c, d]) as usize;
            let (value, rest) = rest.split_at_checked(length).ok_or(CommandError::Cut)?;
            let name = u16::from_le_bytes([e0, e1]);
            // the group's length: the elements are counted as they come
            if name != 0 {
                elements.insert(name, value.to_vec());
            }
            bytes = rest;
        }
        let mut command = Self {
            field: Field::EchoRequest,
            elements,
        };
        let field = command.number(element::COMMAND_FIELD)?;
        let known = Field::ALL.into_iter().find(|known| *known as u16 == field);
        command.field = known.ok_or(CommandError::Field(field))?;
        Ok(command)
    }
}

fn put(out: &mut Vec<u8>, name: u16, value: &[u8]) {
    out.extend([0, 0]);
    out.extend(name.to_le_bytes());
    out.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Command {
        let class = Uid::new("1.2.840.10008.5.1.4.1.1.2").unwrap();
        let mut command = Command::request(Field::StoreRequest, 7, &class);
        command.set_uid(element::AFFECTED_INSTANCE, &Uid::new("2.25.17").unwrap());
        command.set_has_data(true);
        command
    }

    #[test]
    fn a_command_reads_back_with_its_length_in_front() {
        let bytes = store().encode();
        assert_eq!(bytes[8..12], u32::try_from(bytes.len() - 12).unwrap().to_le_bytes());
        let read = Command::decode(&bytes).unwrap();
        assert_eq!(read, store());
        assert!(read.has_data());
        assert_eq!(read.uid(element::AFFECTED_INSTANCE).unwrap().as_str(), "2.25.17");
    }

    #[test]
    fn an_answer_names_request_and_instance() {
        let reply = Command::reply(&store(), Status::MISMATCH);
        assert_eq!(reply.field(), Field::StoreReply);
        assert!(!reply.has_data());
        assert_eq!(reply.answers(7), Ok(()));
        assert_eq!(reply.answers(8), Err(CommandError::Answer(7)));
        assert_eq!(reply.status(), Ok(Status::MISMATCH));
        assert_eq!(reply.uid(element::AFFECTED_INSTANCE).unwrap().as_str(), "2.25.17");
    }

    #[test]
    fn what_is_no_command_set_is_refused() {
        let bytes = store().encode();
        assert_eq!(Command::decode(&bytes[..bytes.len() - 1]), Err(CommandError::Cut));
        assert_eq!(Command::decode(&[]), Err(CommandError::Element(element::COMMAND_FIELD)));
        assert_eq!(Command::decode(&[2, 0, 0, 0, 0, 0, 0, 0]), Err(CommandError::Group(2)));
        assert_eq!(
            Command::decode(&[0, 0, 0, 1, 2, 0, 0, 0, 0x50, 0]),
            Err(CommandError::Field(0x50))
        );
        assert_eq!(Command::decode(&vec![0; LONGEST_COMMAND + 1]), Err(CommandError::Long));
    }

    #[test]
    fn titles_are_read_without_their_padding() {
        let mut command = store();
        assert_eq!(command.text(element::MOVE_ORIGINATOR), None);
        command.set_text(element::MOVE_ORIGINATOR, "HYDRA");
        assert_eq!(command.text(element::MOVE_ORIGINATOR), Some("HYDRA"));
        command.set_text(element::MOVE_ORIGINATOR, "  ");
        assert_eq!(command.text(element::MOVE_ORIGINATOR), None);
    }

    #[test]
    fn statuses_are_told_apart() {
        assert!(Status(0xff01).is_pending() && !Status(0xff01).is_success());
        assert!(Status(0xb000).is_success() && !Status(0xa702).is_success());
        assert_eq!(Status(0xa801).words(), "it does not know the title to send to");
    }
}
