//! Secret sharing: a secret becomes n shares, any m of which join to it again, while m-1 tell nothing but its length.
//!
//! [`gf256`] is the arithmetic that keys and files of today use, [`share`] the text form in which people carry its
//! shares (`docs/src/formats/shares.md`), [`glite`] the format of gLite's tools (`docs/src/formats/glite-shares.md`).

pub mod gf256;
pub mod glite;
pub mod share;
