//! What the tests of the whole share: the stand-ins of the outside world, and where the real Codex is found.

pub mod codex;
pub mod standin;
