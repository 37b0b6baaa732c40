//! The query language of the catalogue (`docs/src/formats/query.md`): read into a typed tree, and from there into SQL that
//! has bound parameters only.
