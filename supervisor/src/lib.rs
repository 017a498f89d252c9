//! One process, always up, knows nothing of Codex.

pub mod channel;
pub mod config;
pub mod machine;
pub mod store;
