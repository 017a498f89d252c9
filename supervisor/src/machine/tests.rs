//! Tests of the whole machine, in a small world: named cases, then a thousand seeds.

#![expect(
    unreachable_pub,
    clippy::wildcard_enum_match_arm,
    reason = "the modules are one test; a question about one case is not about those to come"
)]

mod agents;
mod chats;
mod guests;
mod heartbeat;
mod ledger;
mod restarts;
mod rolling;
mod simulation;
mod turns;
mod worker;
mod world;
