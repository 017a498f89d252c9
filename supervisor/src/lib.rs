//! One process, always up, knows nothing of Codex.

pub mod config;
pub mod machine;
