//! A message on its way through everything: console, ledger, worker, the real Codex on both runtimes, and back.

mod long;
mod queue;
mod stop;
mod tools;
mod turns;
