//! Secret sharing: a secret becomes n shares, any m of which join to it again, while m-1 tell nothing but its length.
//!
//! [`gf256`] is the arithmetic that keys and files of today use.

pub mod gf256;
