//! Sealed files: AES256-GCM-HKDF streaming behind a header of 512 bytes, as `docs/src/formats/sealed-file.md` lays it
//! out.
//!
//! [`seal`] makes a sealed file, [`seal_reader`] one of what is read from anywhere, [`seal_reader_into`] writes one
//! to anywhere, [`SealedInput`] opens one, [`RangeReader`] reads a piece of one, [`sizes`] turns one size into the
//! other. [`header`] and [`stream`] decide about bytes and do no I/O; [`place`] opens inputs and makes outputs appear
//! whole or not at all. [`legacy_cbc`] reads and writes files of the original, which have no header and no integrity;
//! [`Opened`] tells the two apart.

mod engine;
mod file;
mod flow;
pub mod header;
pub mod legacy_cbc;
pub mod place;
mod range;
pub mod sizes;
pub mod stream;
mod synthetic;

pub use file::{
    OpenError, OpenOptions, Opened, Progress, Report, SealError, SealOptions, SealedInput, Trouble, seal,
    seal_bytes_into, seal_reader, seal_reader_into,
};
pub use flow::{Pipe, pass_into, seal_into};
pub use header::{Header, HeaderError};
pub use place::{Batch, Input, InputError, NewFile, Output, OutputError, remove_temporary_files, spool};
pub use range::{RangeReader, ReadAt};

#[cfg(test)]
mod tests;
