//! A turn that fails, on both runtimes: it gets one class, words that help, a record, and the agent goes on.

mod clocks;
mod codex;
mod hung;
mod liveness;
mod policy;
mod provider;
mod quiet;
mod routes;
mod word;
