//! What the tests of the whole share: a world with a real supervisor in it, the stand-ins of the outside, and where the
//! real Codex is found.

pub mod bench;
pub mod codex;
pub mod processes;
pub mod release;
pub mod sim;
pub mod standin;
pub mod wait;
pub mod world;

// The simulation shares its ledger with the tests of the supervisor's machine, which names it so.
use supervisor::machine;
