//! Decides. Pure: no clock, no I/O.

pub mod io;
