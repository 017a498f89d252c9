//! x

pub mod channel;
