//! The supervisor: channels, ledger, workers, control.

pub mod machine;
pub mod store;
