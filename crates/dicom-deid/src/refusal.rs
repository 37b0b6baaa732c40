//! Why an object is refused: typed, and never with a value of the patient in its text.

use std::io;

use crate::element::Tag;

/// Why nothing was written, or why what was written must be dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Reading failed.
    #[error("cannot read the object")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error("cannot write the object")]
    Write(#[source] io::Error),
    /// No file of PS3.10.
    #[error("no DICOM file: {what}")]
    NotDicom {
        /// What is missing.
        what: &'static str,
    },
    /// A directory of a medium, which is a list of patients.
    #[error("a DICOMDIR, which lists patients and holds no image")]
    Dicomdir,
    /// A transfer syntax that cannot be looked into.
    #[error("transfer syntax {uid} is not supported")]
    TransferSyntax {
        /// Which.
        uid: String,
    },
    /// The object ends in the middle of an element.
    #[error("the object is cut off at byte {at}")]
    Truncated {
        /// Where it ends.
        at: u64,
    },
    /// Bytes that are no elements, or a length that reaches over the end of its sequence.
    #[error("the object is damaged at byte {at}: {what}")]
    Malformed {
        /// Where.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// Bytes after the last element.
    #[error("bytes that are no DICOM follow the object at byte {at}")]
    TrailingGarbage {
        /// Where they begin.
        at: u64,
    },
    /// More than a limit allows.
    #[error("the object has more than {limit} {what}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// An object without the identifiers that every object has.
    #[error("the object has no {keyword}")]
    Missing {
        /// Which attribute.
        keyword: &'static str,
    },
    /// Content items of a structured report, and the option that cleans them is not set.
    #[error("a structured report, whose content is only written with the option clean-structured-content")]
    StructuredContent,
    /// A document of another format.
    #[error("an encapsulated document, which cannot be looked into")]
    EncapsulatedDocument,
    /// Something that a person should look at first.
    #[error("{0}")]
    Review(Flag),
    /// A value of the patient inside a value that is no text.
    #[error("a value of the patient stands in the binary attribute {tag}")]
    PatientInBinary {
        /// Which.
        tag: Tag,
    },
    /// Bytes behind the last pixel that are no padding.
    #[error("bytes at {at} behind the last pixel, which belong to no image")]
    BehindPixels {
        /// Where in the object.
        at: u64,
    },
    /// A compressed image that is not built as its format wants it.
    #[error("the compressed pixels are damaged at byte {at}: {what}")]
    PixelStream {
        /// Where in the object.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// What a person should look at: refused, or passed on with the flag where [`crate::Options::flag_instead`] asks for
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flag {
    /// (0028,0301) says YES.
    #[error("burned-in annotation: the pixels name somebody")]
    BurnedIn,
    /// Of a kind that is known for text in its pixels, and (0028,0301) does not say NO.
    #[error("pixels of a kind that often has text burned in, and nothing says that there is none")]
    MaybeBurnedIn,
    /// An overlay in unused bits of the pixels.
    #[error("an overlay drawn into unused bits of the pixels")]
    EmbeddedOverlay,
    /// Video, whose stream may carry text.
    #[error("video, whose stream cannot be looked into")]
    Video,
    /// A face may be recognised, and the option clean-recognizable-visual-features is set.
    #[error("pixels that may show a face")]
    RecognizableFeatures,
}

impl Flag {
    /// A name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::BurnedIn => "burned-in",
            Self::MaybeBurnedIn => "maybe-burned-in",
            Self::EmbeddedOverlay => "embedded-overlay",
            Self::Video => "video",
            Self::RecognizableFeatures => "recognizable-features",
        }
    }
}

/// What kind of refusal it is, for exit codes and queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalKind {
    /// The object itself: exit code 65. Another attempt ends the same way.
    Object,
    /// Reading or writing failed: exit code 74.
    Io,
}

impl Refusal {
    /// What kind of refusal it is.
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::Read(_) | Self::Write(_) => RefusalKind::Io,
            _ => RefusalKind::Object,
        }
    }

    /// A name for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Read(_) => "read",
            Self::Write(_) => "write",
            Self::NotDicom { .. } => "not-dicom",
            Self::Dicomdir => "dicomdir",
            Self::TransferSyntax { .. } => "transfer-syntax",
            Self::Truncated { .. } => "truncated",
            Self::Malformed { .. } => "malformed",
            Self::TrailingGarbage { .. } => "trailing-garbage",
            Self::TooLarge { .. } => "too-large",
            Self::Missing { .. } => "missing",
            Self::StructuredContent => "structured-content",
            Self::EncapsulatedDocument => "encapsulated-document",
            Self::Review(flag) => flag.name(),
            Self::PatientInBinary { .. } => "patient-in-binary",
            Self::BehindPixels { .. } => "behind-pixels",
            Self::PixelStream { .. } => "pixel-stream",
        }
    }
}
