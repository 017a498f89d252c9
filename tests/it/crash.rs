//! Kills each of the three processes at each step of a turn, and asks: is nothing lost, nothing done twice, everybody told?
//!
//! ```text
//!   send -> ledger -> worker's socket | journal | Codex begins | model thinks | tool runs | tool ended | outcome -> ledger
//!                                     ^ never begun: sent again, same attempt
//!                                               words alone: a second attempt ^
//!                                                                a deed: failed, and what ran is told ^
//! ```

mod replay;
mod rollout;
mod starts;
mod storm;
