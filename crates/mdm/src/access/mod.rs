//! `mdm-getacl` and `mdm-setacl`: who may do what with the name of a file, with both halves of its attributes and with
//! its key, shown together and changed together (`docs/src/commands/mdm.md`).

mod edit;
mod table;

pub use set::{SETACL_EXAMPLES, SetAcl, setacl};
pub use show::{GETACL_EXAMPLES, GetAcl, getacl};

mod set;
mod show;

use clap::ValueEnum;
use eds::session::{Session, SessionError};
use hydra_cli::Failure;
use mdm_catalog::wire::{Part, Records};
use std::cell::OnceCell;

use hydra_core::permissions::PermissionRecord;

/// What has permissions of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Piece {
    /// The name, with replicas, size and checksums.
    Name,
    /// The anonymous half of the attributes.
    Anonymous,
    /// The identifying half of the attributes.
    Identifying,
    /// The key, at its stores.
    Key,
}

impl Piece {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Name, Self::Anonymous, Self::Identifying, Self::Key];

    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Anonymous => "anonymous",
            Self::Identifying => "identifying",
            Self::Key => "key",
        }
    }

    /// What the catalogue calls it; it has not the key.
    fn part(self) -> Option<Part> {
        match self {
            Self::Name => Some(Part::Name),
            Self::Anonymous => Some(Part::Anonymous),
            Self::Identifying => Some(Part::Identifying),
            Self::Key => None,
        }
    }

    /// Its record among those of an entry.
    fn of(self, records: &Records) -> Option<&PermissionRecord> {
        match self {
            Self::Name => Some(&records.name),
            Self::Anonymous => Some(&records.anonymous),
            Self::Identifying => records.identifying.as_ref(),
            Self::Key => None,
        }
    }
}

/// The key stores, opened when the first key is asked about: names and halves need none.
struct KeyStores<'a> {
    stores: &'a eds::args::Stores,
    session: OnceCell<Result<Session, String>>,
    failed: OnceCell<Failure>,
}

impl<'a> KeyStores<'a> {
    fn new(stores: &'a eds::args::Stores) -> Self {
        Self {
            stores,
            session: OnceCell::new(),
            failed: OnceCell::new(),
        }
    }

    /// The session, or in words why there is none.
    fn session(&self) -> Result<&Session, String> {
        let opened = self.session.get_or_init(|| {
            Session::open(self.stores).map_err(|error: SessionError| {
                let text = error.to_string();
                let _ = self.failed.set(error.into());
                text
            })
        });
        opened.as_ref().map_err(Clone::clone)
    }

    /// Why there is no session, once.
    fn into_failure(self) -> Option<Failure> {
        self.failed.into_inner()
    }
}
