//! One process, always up, knows nothing of Codex.

pub mod cli;
pub mod config;
pub mod control;
pub mod link;
pub mod machine;
pub mod process;
