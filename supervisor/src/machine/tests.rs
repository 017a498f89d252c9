//! Tests of the whole machine, in a small world: named cases, then a thousand seeds.

mod agents;
mod chats;
mod ledger;
mod restarts;
mod simulation;
mod turns;
mod worker;
mod world;
