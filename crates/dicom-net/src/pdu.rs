//! Protocol data units of the upper layer (PS3.8, 9.3): bytes to values and back, without I/O.
//!
//! Data units are not here as values: they are cut into their pieces where they were read ([`next_value`]), so that no
//! instance is ever in memory as a whole.

use crate::uid::{AeTitle, LONGEST_TITLE, Uid};

/// Bytes in front of each unit: its type, a reserved one, and the length of what follows.
pub const HEADER_BYTES: usize = 6;
/// The longest data unit that we ask for, and take.
pub const LONGEST_DATA: u32 = 128 * 1024;
/// The longest unit of any other type that we take: 128 contexts with dozens of transfer syntaxes fit many times.
pub const LONGEST_OTHER: u32 = 512 * 1024;
/// The name of the application layer (PS3.7, A.2.1).
const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";

/// The type of a unit, its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of PS3.8")]
pub enum Kind {
    AssociateRequest = 1,
    AssociateAccept = 2,
    AssociateReject = 3,
    Data = 4,
    ReleaseRequest = 5,
    ReleaseReply = 6,
    Abort = 7,
}

/// What is wrong with bytes from the other side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PduError {
    /// A type that PS3.8 does not know.
    #[error("a unit of the unknown type {0}")]
    Kind(u8),
    /// Longer than was agreed, or than anything sensible.
    #[error("a unit of {bytes} bytes where at most {limit} were agreed")]
    Long {
        /// Its length.
        bytes: u32,
        /// The limit.
        limit: u32,
    },
    /// A part that ends behind its whole.
    #[error("a unit whose parts do not fit into it")]
    Cut,
    /// A unit at a time that has no place for it.
    #[error("a unit of type {0} where none was expected")]
    Unexpected(u8),
    /// A title that is none.
    #[error("a title that is none")]
    Title,
    /// An identifier that is none.
    #[error("an identifier that is none")]
    Uid,
    /// Another presentation context in the midst of a message, or one that was not agreed.
    #[error("data in presentation context {0}, which has no place there")]
    Context(u8),
}

/// The header of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// How many bytes follow.
    pub length: u32,
}

impl Header {
    /// Reads a header, and refuses a length that would only fill memory.
    ///
    /// # Errors
    /// Unknown types and lengths over the limits.
    pub fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Self, PduError> {
        let kind = match bytes[0] {
            1 => Kind::AssociateRequest,
            2 => Kind::AssociateAccept,
            3 => Kind::AssociateReject,
            4 => Kind::Data,
            5 => Kind::ReleaseRequest,
            6 => Kind::ReleaseReply,
            7 => Kind::Abort,
            other => return Err(PduError::Kind(other)),
        };
        let length = u32::from_be_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
        let limit = match kind {
            Kind::Data => LONGEST_DATA,
            _ => LONGEST_OTHER,
        };
        if length > limit {
            return Err(PduError::Long { bytes: length, limit });
        }
        Ok(Self { kind, length })
    }
}

/// A presentation context as the requestor proposes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// Odd, 1 to 255.
    pub id: u8,
    /// The SOP class.
    pub abstract_syntax: Uid,
    /// What its data sets may be encoded as.
    pub transfer_syntaxes: Vec<Uid>,
}

/// The answer to a proposed context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Which.
    pub id: u8,
    /// 0 accepted, 1 refused by the user, 2 no reason, 3 unknown SOP class, 4 no transfer syntax.
    pub result: u8,
    /// The transfer syntax, where it was accepted.
    pub transfer_syntax: Option<Uid>,
}

/// Who sends and who receives the instances of a SOP class over this association (PS3.7, D.3.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// The SOP class.
    pub class: Uid,
    /// Whether the requestor may be its user, who sends instances.
    pub user: bool,
    /// Whether the requestor may be its provider, who receives them.
    pub provider: bool,
}

/// What both sides say of themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserInformation {
    /// The longest data unit that this side takes; 0 for any.
    pub longest_data: u32,
    /// The implementation, where it is told.
    pub implementation: Option<Uid>,
    /// Its version, where it is told.
    pub version: Option<String>,
    /// Roles that are proposed, or accepted.
    pub roles: Vec<Role>,
}

/// A-ASSOCIATE-RQ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssociateRequest {
    /// Who is called.
    pub called: AeTitle,
    /// Who calls.
    pub calling: AeTitle,
    /// What about.
    pub contexts: Vec<Proposed>,
    /// And how.
    pub user: UserInformation,
}

/// A-ASSOCIATE-AC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssociateAccept {
    /// The answers to the contexts.
    pub contexts: Vec<Answered>,
    /// What the other side says of itself.
    pub user: UserInformation,
}

/// A-ASSOCIATE-RJ, or the codes of an A-ABORT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject {
    /// Whether it is worth to try again.
    pub is_transient: bool,
    /// Who refused.
    pub source: u8,
    /// Why.
    pub reason: u8,
}

impl Reject {
    /// In words of PS3.8, 9.3.4.
    pub fn words(self) -> &'static str {
        match (self.source, self.reason) {
            (1, 1) => "no reason given",
            (1, 2) => "it does not know the application context",
            (1, 3) => "it does not know our title",
            (1, 7) => "it does not go by the title that was called",
            (2, 1) => "no reason given by its protocol machine",
            (2, 2) => "it does not know the version of the protocol",
            (3, 1) => "it has no time now",
            (3, 2) => "it has as many associations as it takes",
            _ => "for a reason that the standard does not know",
        }
    }

    /// Writes the unit.
    pub fn encode(self) -> Vec<u8> {
        let result = if self.is_transient { 2 } else { 1 };
        fixed(Kind::AssociateReject, [0, result, self.source, self.reason])
    }

    /// Reads what follows the header.
    ///
    /// # Errors
    /// Where it is too short.
    pub fn decode(body: &[u8]) -> Result<Self, PduError> {
        let [_, result, source, reason, ..] = *body else {
            return Err(PduError::Cut);
        };
        Ok(Self {
            is_transient: result == 2,
            source,
            reason,
        })
    }
}

/// A release, asked for or answered.
pub fn release(kind: Kind) -> Vec<u8> {
    fixed(kind, [0; 4])
}

/// The end of an association by its user (0) or its protocol machine (2).
pub fn abort(source: u8, reason: u8) -> Vec<u8> {
    fixed(Kind::Abort, [0, 0, source, reason])
}

fn fixed(kind: Kind, body: [u8; 4]) -> Vec<u8> {
    [[kind as u8, 0, 0, 0, 0, 4].as_slice(), &body].concat()
}

/// A piece of a message within a data unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// The presentation context.
    pub context: u8,
    /// Of the command set, not the data set.
    pub is_command: bool,
    /// Nothing of that set follows.
    pub is_last: bool,
    /// Where its bytes lie in the body of the unit.
    pub start: usize,
    /// Where they end.
    pub end: usize,
}

/// The piece that begins at `at` in the body of a data unit; none at its end.
///
/// # Errors
/// Where it does not fit.
pub fn next_value(body: &[u8], at: usize) -> Result<Option<Value>, PduError> {
    let rest = body.get(at..).ok_or(PduError::Cut)?;
    if rest.is_empty() {
        return Ok(None);
    }
    let [a, b, c, d, context, control, ..] = *rest else {
        return Err(PduError::Cut);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    // the length counts context and control too
    if length < 2 || length > rest.len() - 4 {
        return Err(PduError::Cut);
    }
    Ok(Some(Value {
        context,
        is_command: control & 1 != 0,
        is_last: control & 2 != 0,
        start: at + 6,
        end: at + 4 + length,
    }))
}

/// Writes a data unit with one piece.
pub fn encode_value(out: &mut Vec<u8>, context: u8, is_command: bool, is_last: bool, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend([Kind::Data as u8, 0]);
    out.extend((length + 6).to_be_bytes());
    out.extend((length + 2).to_be_bytes());
    out.extend([context, u8::from(is_command) | u8::from(is_last) << 1]);
    out.extend(bytes);
}

impl AssociateRequest {
    /// Writes the unit.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = prelude(&self.called, &self.calling);
        for context in &self.contexts {
            let mut inner = vec![context.id, 0, 0, 0];
            item(&mut inner, 0x30, context.abstract_syntax.as_str().as_bytes());
            for syntax in &context.transfer_syntaxes {
                item(&mut inner, 0x40, syntax.as_str().as_bytes());
            }
            item(&mut body, 0x20, &inner);
        }
        item(&mut body, 0x50, &self.user.encode());
        whole(Kind::AssociateRequest, &body)
    }

    /// Reads what follows the header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(body: &[u8]) -> Result<Self, PduError> {
        let (called, calling) = titles(body)?;
        let mut contexts = Vec::new();
        let mut user = None;
        for_each_item(body.get(68..).ok_or(PduError::Cut)?, |kind, bytes| {
            match kind {
                0x20 => contexts.push(decode_proposed(bytes)?),
                0x50 => user = Some(UserInformation::decode(bytes)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(Self {
            called,
            calling,
            contexts,
            user: user.ok_or(PduError::Cut)?,
        })
    }
}

impl AssociateAccept {
    /// Writes the unit, the answer to `request`.
    pub fn encode(&self, request: &AssociateRequest) -> Vec<u8> {
        let mut body = prelude(&request.called, &request.calling);
        for context in &self.contexts {
            let mut inner = vec![context.id, 0, context.result, 0];
            // there must be one even where the context is refused; it has no meaning then
            let syntax = context.transfer_syntax.as_ref().map_or("", Uid::as_str);
            item(&mut inner, 0x40, syntax.as_bytes());
            item(&mut body, 0x21, &inner);
        }
        item(&mut body, 0x50, &self.user.encode());
        whole(Kind::AssociateAccept, &body)
    }

    /// Reads what follows the header.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(body: &[u8]) -> Result<Self, PduError> {
        let mut contexts = Vec::new();
        let mut user = None;
        for_each_item(body.get(68..).ok_or(PduError::Cut)?, |kind, bytes| {
            match kind {
                0x21 => contexts.push(decode_answered(bytes)?),
                0x50 => user = Some(UserInformation::decode(bytes)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(Self {
            contexts,
            user: user.ok_or(PduError::Cut)?,
        })
    }
}

impl UserInformation {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        item(&mut out, 0x51, &self.longest_data.to_be_bytes());
        if let Some(implementation) = &self.implementation {
            item(&mut out, 0x52, implementation.as_str().as_bytes());
        }
        for role in &self.roles {
            let class = role.class.as_str().as_bytes();
            let length = u16::try_from(class.len()).unwrap_or(u16::MAX);
            let mut inner = length.to_be_bytes().to_vec();
            inner.extend(class);
            inner.extend([u8::from(role.user), u8::from(role.provider)]);
            item(&mut out, 0x54, &inner);
        }
        if let Some(version) = &self.version {
            item(&mut out, 0x55, version.as_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, PduError> {
        let mut user = Self {
            longest_data: 0,
            implementation: None,
            version: None,
            roles: Vec::new(),
        };
        for_each_item(bytes, |kind, bytes| {
            match kind {
                0x51 => user.longest_data = u32::from_be_bytes(bytes.try_into().map_err(|_| PduError::Cut)?),
                // nothing depends on who made the other side: what is no identifier is passed over
                0x52 => user.implementation = Uid::from_value(bytes).ok(),
                0x54 => user.roles.push(decode_role(bytes)?),
                0x55 => user.version = Some(String::from_utf8_lossy(bytes).into_owned()),
                _ => {}
            }
            Ok(())
        })?;
        Ok(user)
    }
}

fn decode_proposed(bytes: &[u8]) -> Result<Proposed, PduError> {
    let [id, _, _, _, ref items @ ..] = *bytes else {
        return Err(PduError::Cut);
    };
    let mut abstract_syntax = None;
    let mut transfer_syntaxes = Vec::new();
    for_each_item(items, |kind, bytes| {
        match kind {
            0x30 => abstract_syntax = Some(uid(bytes)?),
            0x40 => transfer_syntaxes.push(uid(bytes)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(Proposed {
        id,
        abstract_syntax: abstract_syntax.ok_or(PduError::Cut)?,
        transfer_syntaxes,
    })
}

fn decode_answered(bytes: &[u8]) -> Result<Answered, PduError> {
    let [id, _, result, _, ref items @ ..] = *bytes else {
        return Err(PduError::Cut);
    };
    let mut transfer_syntax = None;
    for_each_item(items, |kind, bytes| {
        // with a refused context it has no meaning, and often no content
        if kind == 0x40 && result == 0 {
            transfer_syntax = Some(uid(bytes)?);
        }
        Ok(())
    })?;
    Ok(Answered {
        id,
        result,
        transfer_syntax,
    })
}

fn decode_role(bytes: &[u8]) -> Result<Role, PduError> {
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or(PduError::Cut)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (class, roles) = rest.split_at_checked(length).ok_or(PduError::Cut)?;
    let [user, provider, ..] = *roles else {
        return Err(PduError::Cut);
    };
    Ok(Role {
        class: uid(class)?,
        user: user != 0,
        provider: provider != 0,
    })
}

fn uid(bytes: &[u8]) -> Result<Uid, PduError> {
    Uid::from_value(bytes).map_err(|_| PduError::Uid)
}

fn prelude(called: &AeTitle, calling: &AeTitle) -> Vec<u8> {
    // the version of the protocol, and two bytes of nothing
    let mut body = vec![0, 1, 0, 0];
    for title in [called, calling] {
        let mut padded = [b' '; LONGEST_TITLE];
        padded[..title.as_str().len()].copy_from_slice(title.as_str().as_bytes());
        body.extend(padded);
    }
    body.extend([0; 32]);
    item(&mut body, 0x10, APPLICATION_CONTEXT.as_bytes());
    body
}

fn titles(body: &[u8]) -> Result<(AeTitle, AeTitle), PduError> {
    let title = |at: usize| {
        let bytes = body.get(at..at + LONGEST_TITLE).ok_or(PduError::Cut)?;
        let text = std::str::from_utf8(bytes).map_err(|_| PduError::Title)?;
        AeTitle::new(text.trim_matches('\0')).map_err(|_| PduError::Title)
    };
    Ok((title(4)?, title(20)?))
}

fn whole(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind as u8, 0];
    out.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(body);
    out
}

fn item(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.extend([kind, 0]);
    out.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(bytes);
}

fn for_each_item(mut rest: &[u8], mut take: impl FnMut(u8, &[u8]) -> Result<(), PduError>) -> Result<(), PduError> {
    while !rest.is_empty() {
        let ([kind, _, high, low], behind) = rest.split_first_chunk::<4>().ok_or(PduError::Cut)?;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (bytes, behind) = behind.split_at_checked(length).ok_or(PduError::Cut)?;
        take(*kind, bytes)?;
        rest = behind;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::new(text).unwrap()
    }

    fn request() -> AssociateRequest {
        AssociateRequest {
            called: AeTitle::new("PACS").unwrap(),
            calling: AeTitle::new("HYDRA").unwrap(),
            contexts: vec![Proposed {
                id: 1,
                abstract_syntax: uid("1.2.840.10008.1.1"),
                transfer_syntaxes: vec![uid("1.2.840.10008.1.2"), uid("1.2.840.10008.1.2.1")],
            }],
            user: UserInformation {
                longest_data: LONGEST_DATA,
                implementation: Some(uid("2.25.1")),
                version: Some("X".into()),
                roles: vec![Role {
                    class: uid("1.2.840.10008.5.1.4.1.1.2"),
                    user: false,
                    provider: true,
                }],
            },
        }
    }

    #[test]
    fn a_request_reads_back() {
        let bytes = request().encode();
        let header = Header::decode(*bytes.first_chunk().unwrap()).unwrap();
        assert_eq!(header.kind, Kind::AssociateRequest);
        assert_eq!(header.length as usize, bytes.len() - HEADER_BYTES);
        assert_eq!(AssociateRequest::decode(&bytes[HEADER_BYTES..]).unwrap(), request());
    }

    #[test]
    fn an_answer_reads_back_and_a_refused_context_has_no_syntax() {
        let accept = AssociateAccept {
            contexts: vec![
                Answered {
                    id: 1,
                    result: 0,
                    transfer_syntax: Some(uid("1.2.840.10008.1.2")),
                },
                Answered {
                    id: 3,
                    result: 4,
                    transfer_syntax: None,
                },
            ],
            user: request().user,
        };
        let bytes = accept.encode(&request());
        assert_eq!(AssociateAccept::decode(&bytes[HEADER_BYTES..]).unwrap(), accept);
    }

    #[test]
    fn a_request_cut_anywhere_is_refused() {
        let bytes = request().encode();
        let body = &bytes[HEADER_BYTES..];
        for end in 0..body.len() {
            assert!(AssociateRequest::decode(&body[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn pieces_of_a_data_unit_are_found_and_those_that_do_not_fit_refused() {
        let mut unit = Vec::new();
        encode_value(&mut unit, 3, true, false, b"abc");
        let mut second = Vec::new();
        encode_value(&mut second, 3, false, true, b"");
        unit.extend(&second[HEADER_BYTES..]);
        let body = &unit[HEADER_BYTES..];
        let first = next_value(body, 0).unwrap().unwrap();
        assert_eq!(&body[first.start..first.end], b"abc");
        assert!(first.is_command && !first.is_last && first.context == 3);
        let last = next_value(body, first.end).unwrap().unwrap();
        assert!(!last.is_command && last.is_last && last.start == last.end);
        assert_eq!(next_value(body, last.end), Ok(None));
        assert_eq!(next_value(&body[..8], 0), Err(PduError::Cut));
        assert_eq!(next_value(&[0, 0, 0, 1, 3, 0], 0), Err(PduError::Cut));
    }

    #[test]
    fn lengths_that_only_fill_memory_are_refused() {
        let header = |kind, length: u32| {
            let [a, b, c, d] = length.to_be_bytes();
            Header::decode([kind, 0, a, b, c, d])
        };
        assert!(header(4, LONGEST_DATA).is_ok());
        assert!(matches!(header(4, LONGEST_DATA + 1), Err(PduError::Long { .. })));
        assert!(matches!(header(1, u32::MAX), Err(PduError::Long { .. })));
        assert_eq!(header(8, 0), Err(PduError::Kind(8)));
    }

    #[test]
    fn refusals_read_back() {
        let reject = Reject {
            is_transient: true,
            source: 3,
            reason: 2,
        };
        assert_eq!(Reject::decode(&reject.encode()[HEADER_BYTES..]).unwrap(), reject);
        assert!(reject.words().contains("as many associations"));
    }
}
