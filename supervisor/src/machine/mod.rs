//! Decides. Pure: no clock, no I/O, no waiting.

pub mod nouns;
pub mod setup;
pub mod words;
