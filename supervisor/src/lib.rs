//! The supervisor: channels, ledger, workers, control.

pub mod control;
pub mod link;
pub mod machine;
pub mod process;
