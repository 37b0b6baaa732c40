//! The query language of the catalogue (`docs/src/formats/query.md`): read into a typed tree ([`parse`]), held against
//! the attributes that the caller knows of ([`fn@resolve`]), and from there turned into SQL that has bound parameters
//! only ([`sql`]). [`cursor`] says where a page ended.

pub mod cursor;
mod lexer;
mod parser;
pub mod resolve;
pub mod sql;
mod tree;
pub mod value;

#[cfg(test)]
pub(crate) mod tests;

pub use cursor::Position;
pub use parser::{MAX_DEPTH, MAX_QUERY_BYTES, MAX_TESTS, MAX_VALUES, ParseError, parse};
pub use resolve::{Attributes, Column, Field, Known, ResolveError, Resolved, resolve};
pub use sql::{Scope, Tokens};
pub use tree::{Check, Comparison, Condition, Literal, Name, Order, Query, Test};

/// Words that mean something in a query, so that no attribute can be found by such a name.
const KEYWORDS: [&str; 14] = [
    "and", "or", "not", "in", "like", "between", "is", "null", "order", "by", "asc", "desc", "limit", "escape",
];

/// Whether an attribute of this name could not be searched by: a word of the language or a field that every file has.
pub fn is_reserved(name: &str) -> bool {
    let folded = name.to_ascii_lowercase();
    KEYWORDS.contains(&folded.as_str()) || folded == "where" || Field::named(name).is_some()
}
