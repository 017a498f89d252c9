//! The machine on the bench: named cases, lines recorded from a real Codex (`captures/`), and the promises.

mod app;
mod archive;
mod bench;
mod disk;
mod exec;
mod life;
mod limits;
mod liveness;
mod promises;
