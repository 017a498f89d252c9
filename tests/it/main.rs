//! Tests of the whole: real processes, the real Codex, the outside world played by the stand-ins.

mod standin;
