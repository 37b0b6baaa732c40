//! What a store decides.
