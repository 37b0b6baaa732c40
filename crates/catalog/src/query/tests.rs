//! The language as a whole: what it reads and refuses.
