//! Why an attribute certificate gives no groups and roles.

use std::time::SystemTime;

use crate::asn1::DerError;
use crate::chain::ChainError;
use crate::time;

/// Why an attribute certificate gives no groups and roles. The text may go to its owner: it names no paths.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VomsError {
    /// It is none, or not of the kind that VOMS servers issue.
    #[error("the attribute certificate does not parse")]
    Malformed(#[source] DerError),
    /// More than anybody needs.
    #[error("there are more than {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// The URI of its authority names no VO and host, or one that is no file name.
    #[error("`{uri}` names no VO and VOMS server")]
    Authority {
        /// What it says, without what does not print.
        uri: String,
    },
    /// A group or role that cannot be one.
    #[error("`{fqan}` is no group or role")]
    Fqan {
        /// What it says, without what does not print.
        fqan: String,
    },
    /// A group or role of another VO.
    #[error("a VOMS server of `{vo}` gives the group or role `{fqan}`, which is none of that VO")]
    ForeignFqan {
        /// The VO.
        vo: String,
        /// The group or role.
        fqan: String,
    },
    /// Issued to somebody else.
    #[error("the attributes of `{vo}` were issued to `{holder}`, not to the owner `{owner}`")]
    Holder {
        /// The VO.
        vo: String,
        /// To whom.
        holder: String,
        /// Who presents it.
        owner: String,
    },
    /// Issued for another certificate of the same name.
    #[error("the attributes of `{vo}` were issued for another certificate of `{owner}`")]
    HolderSerial {
        /// The VO.
        vo: String,
        /// Who presents it.
        owner: String,
    },
    /// Not begun.
    #[error("the attributes of `{vo}` are not valid before {}", time::text(time::seconds(*from)))]
    NotYetValid {
        /// The VO.
        vo: String,
        /// From when on they are.
        from: SystemTime,
    },
    /// Over.
    #[error("the attributes of `{vo}` expired at {}", time::text(time::seconds(*since)))]
    Expired {
        /// The VO.
        vo: String,
        /// Since when.
        since: SystemTime,
    },
    /// A critical extension that is not understood.
    #[error("the attributes of `{vo}` have the unknown critical extension {oid}")]
    UnknownExtension {
        /// The VO.
        vo: String,
        /// Which.
        oid: String,
    },
    /// For other hosts than this one.
    #[error("the attributes of `{vo}` are for other hosts than this one")]
    Targets {
        /// The VO.
        vo: String,
    },
    /// Without the certificate of who signed it.
    #[error("the attributes of `{vo}` come without the certificate of the VOMS server")]
    NoSigner {
        /// The VO.
        vo: String,
    },
    /// Signed by somebody else than it says.
    #[error("the attributes of `{vo}` say that `{issuer}` issued them, but come with the certificate of `{signer}`")]
    Issuer {
        /// The VO.
        vo: String,
        /// Who should have.
        issuer: String,
        /// Whose certificate comes with it.
        signer: String,
    },
    /// Certificates that are no chain.
    #[error("the certificates that come with the attributes of `{vo}` are no chain")]
    SignerOrder {
        /// The VO.
        vo: String,
    },
    /// The site does not know that server of that VO.
    #[error("there is no LSC file for the VO `{vo}` and the VOMS server `{host}`")]
    NoLsc {
        /// The VO.
        vo: String,
        /// The server.
        host: String,
    },
    /// The LSC file is there, but of no use.
    #[error("the LSC file for the VO `{vo}` and the VOMS server `{host}` cannot be used: {what}")]
    Lsc {
        /// The VO.
        vo: String,
        /// The server.
        host: String,
        /// What is wrong with it.
        what: String,
    },
    /// Signed by another than the LSC file names.
    #[error(
        "the VOMS server `{signer}` or its issuer is not the one that the LSC file for the VO `{vo}` and `{host}` names"
    )]
    LscMismatch {
        /// The VO.
        vo: String,
        /// The server, as its URI says.
        host: String,
        /// The server, as its certificate says.
        signer: String,
    },
    /// The server's certificate does not verify.
    #[error("the certificate of the VOMS server of `{vo}` does not verify")]
    Signer {
        /// The VO.
        vo: String,
        /// Why.
        #[source]
        source: Box<ChainError>,
    },
    /// MD5 or something unknown.
    #[error("the attributes of `{vo}` are signed with {algorithm}, which is not accepted")]
    Algorithm {
        /// The VO.
        vo: String,
        /// Name or object identifier.
        algorithm: String,
    },
    /// The signature is not the server's.
    #[error("the attributes of `{vo}` were not signed by `{signer}`")]
    Signature {
        /// The VO.
        vo: String,
        /// Who should have.
        signer: String,
    },
}

impl VomsError {
    /// The text with that of its cause: all of it in one line.
    pub fn in_full(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

/// Bytes of outside for a message: printable, and not too many.
pub(super) fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 128;
    let mut text = bytes[..bytes.len().min(MOST)].escape_ascii().to_string();
    if bytes.len() > MOST {
        text.push('…');
    }
    text
}
