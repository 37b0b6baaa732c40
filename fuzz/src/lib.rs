//! The functions that are fuzzed: the same file that the workspace's tests replay the corpus with.

#[path = "../../tests/src/replay.rs"]
pub mod replay;
