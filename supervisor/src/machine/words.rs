//! What can happen to the supervisor's machine, and what it wants done.
//!
//! ```text
//!   channels, links, processes,        +---------+   Record*  --> one transaction
//!   command line, deadlines  -- Input ->| machine |
//!                                      +---------+   the rest --> performed after that commit,
//!                                                                 [`Effect::is_urgent`] ones at once
//! ```

use super::nouns::{CallerId, Chat, Identity, Post, PostId, ReceiptId, Record, Update};
use super::setup::{Agent, Setup};
use protocol::control::{Reply, Request};
use protocol::guest::Guests;
use protocol::hello::Accord;
use protocol::journal::Reading;
use protocol::{AgentName, FromWorker, Incarnation, ToWorker};
use std::collections::BTreeMap;

/// What stands between a prompt and a text that joined it. The store puts them together with the same.
pub const JOINT: &str = "\n\n";

/// Largest prompt in bytes: larger ones are no message but a file, and a file belongs into the workspace.
pub const PROMPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What can happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// An update came; the receipt is given back once it is in the ledger.
    Update(ReceiptId, Box<Update>),
    /// A bot's poller is well again, or what is wrong with it.
    Polling(String, Result<(), String>),
    /// What became of a piece of a post.
    Delivered(PostId, Delivery),
    /// The server wants this bot to pause for so many milliseconds, in answer to something that is no post.
    Flooded(String, u64),
    /// The command line asks. A long text has been read from its file.
    Asked(CallerId, Request),
    /// The command line is gone.
    CallerGone(CallerId),
    /// A caller's guests may begin: it is known how they are served.
    Hosted(CallerId, BTreeMap<AgentName, Agent>),
    /// Nothing of this guest is left on disk.
    Cleared(AgentName),
    /// What the ledger knows of a turn that somebody wants to try again.
    Recalled(Asker, Option<Box<Recalled>>),
    /// A worker process runs.
    Spawned(AgentName, Incarnation, Identity),
    /// It could not be started.
    SpawnFailed(AgentName, Incarnation, String),
    /// The worker's socket answered with a good hello. The incarnation is the worker's own word.
    Linked(AgentName, Linked),
    /// The process of an old worker is known, by its number, although it did not say a good hello.
    Found(AgentName, Incarnation, u32),
    /// Nothing answers at the socket of this run, or not as it should. The run is 0 if an unknown worker was dialled.
    LinkFailed(AgentName, Incarnation, String),
    /// The session with this run ended.
    LinkLost(AgentName, Incarnation, String),
    /// A worker says something.
    Said(AgentName, Incarnation, FromWorker),
    /// A worker process ended, in words.
    Exited(AgentName, Incarnation, String),
    /// What a dead worker left has been ended, and its journal read.
    Swept(AgentName, Incarnation, Swept),
    /// Everything that had arrived from this run when [`Effect::ReadOut`] asked has been given to the machine.
    ReadOut(AgentName, Incarnation),
    /// Our own loop came round so many milliseconds late, a second or more: given before the input that came late.
    Lagged(u64),
    /// The configuration was read again.
    Reloaded(Option<CallerId>, Box<Setup>),
    /// It was read again and is wrong; the report.
    ReloadRefused(Option<CallerId>, String),
    /// SIGTERM: leave, workers stay.
    Leave,
    /// SIGINT on a terminal: drain, then end everything; the second one kills.
    ShutDown,
    /// The ledger cannot be written, in words.
    LedgerStuck(String),
    /// It can again.
    LedgerWell,
    /// The deadline has come.
    Timeout,
}

/// A session with a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// Its run, by its own word.
    pub incarnation: Incarnation,
    /// Its process, by the kernel's word.
    pub pid: u32,
    /// What may be said.
    pub accord: Accord,
    /// What it was given at birth, by its own word.
    pub nonce: u64,
    /// Its process, by the kernel's word.
    pub identity: Identity,
    /// The protocol of its hello.
    pub protocol: u16,
    /// The build of its hello.
    pub build: String,
    /// It is not of our build, or the file that it runs has been replaced.
    pub outdated: bool,
}

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Processes that were ended.
    pub ended: u32,
    /// Processes that could not be ended.
    pub left: u32,
    /// What the journal holds; `None` if it could not be read.
    pub journal: Option<Reading>,
}

/// What became of a piece of a post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is there, as this message; `more` pieces follow.
    Sent {
        /// Telegram's id.
        message: Option<i64>,
        /// Whether the post has further pieces.
        more: bool,
    },
    /// The server wants a pause of so many milliseconds. Nothing was sent.
    Later(u64),
    /// It failed and was not sent: the server or the network.
    Failed(String),
    /// Nobody knows: the connection was lost after the request had been written.
    Uncertain(String),
    /// The server refuses the formatting.
    Unformatted(String),
    /// It can never be sent: the chat is gone, the bot is blocked.
    Impossible(String),
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Change the ledger.
    Record(Record),
    /// Tell a channel that its update is in the ledger.
    Receipt(ReceiptId),
    /// Answer the command line.
    Reply(CallerId, Reply),
    /// Answer the command line from the ledger: it alone knows ended turns.
    Look(CallerId, Look),
    /// Find an ended turn that is to be tried again.
    Recall(Asker),
    /// Start a worker process, and give it this number to prove itself with.
    Spawn(AgentName, Incarnation, u64),
    /// Dial the worker's socket, say hello and how the agent is served.
    Dial(AgentName, Incarnation),
    /// Say this to the worker.
    Tell(AgentName, ToWorker),
    /// Say again how the agent is served: its configuration changed.
    Configure(AgentName),
    /// Ask the worker process to end: SIGTERM.
    Terminate(AgentName, u32),
    /// End the worker process now: SIGKILL.
    Kill(AgentName, u32),
    /// End what a dead worker left, read its journal.
    Sweep(AgentName, Incarnation),
    /// Read everything that has arrived from this run, then answer with [`Input::ReadOut`].
    ReadOut(AgentName, Incarnation),
    /// Hear a bot from this offset on.
    Hear(String, i64),
    /// Stop to hear it.
    Unhear(String),
    /// Send the next piece of a post.
    Deliver(Post),
    /// Change a status message; the newest text wins, a loss is no matter.
    EditStatus {
        /// Where.
        chat: Chat,
        /// Telegram's id of the message.
        message: i64,
        /// Plain text.
        text: String,
    },
    /// Show that somebody types.
    Typing(Chat),
    /// Read the configuration again.
    Reload(Option<CallerId>),
    /// Look whether this program can take our place; if so we leave for it.
    Upgrade(CallerId, String),
    /// Find out how a caller's guests are served.
    Host(CallerId, Guests),
    /// Remove the folder of a guest that is gone.
    Clear(AgentName),
    /// Leave: workers stay if they were not ended before.
    Exit,
}

/// Who wants a turn tried again, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The command line, by the turn's number.
    Caller(CallerId, protocol::TurnId),
    /// A chat: its conversation's latest turn.
    Chat(super::nouns::ChatMessage, super::nouns::Conversation, super::nouns::UpdateId),
}

/// An ended turn, as the ledger has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// As it was accepted.
    pub turn: super::nouns::NewTurn,
    /// Its state, in the ledger's word.
    pub state: String,
}

/// A question that the ledger answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The latest turns.
    Turns(protocol::control::Turns),
    /// One turn's story.
    Turn(protocol::TurnId),
}

impl Effect {
    /// Whether it must not wait for a commit: it changes nothing that a record is about, and a wait could be long.
    pub const fn is_urgent(&self) -> bool {
        match self {
            // The replies tell what memory holds. A record that the same input happened to make must not hold them up:
            // a ledger that cannot be written is what somebody asks about.
            Self::Kill(..)
            | Self::ReadOut(..)
            | Self::Typing(_)
            | Self::EditStatus { .. }
            | Self::Look(..)
            | Self::Recall(_)
            | Self::Reply(_, Reply::Health(_) | Reply::Ps(_) | Reply::Queue(_))
            // Nothing rests on it, and a commit is not what it measures.
            | Self::Tell(_, ToWorker::Ping(_)) => true,
            Self::Record(_)
            | Self::Receipt(_)
            | Self::Reply(..)
            | Self::Spawn(..)
            | Self::Dial(..)
            | Self::Tell(..)
            | Self::Configure(_)
            | Self::Terminate(..)
            | Self::Sweep(..)
            | Self::Hear(..)
            | Self::Unhear(_)
            | Self::Deliver(_)
            | Self::Reload(_)
            | Self::Upgrade(..)
            | Self::Host(..)
            | Self::Clear(_)
            | Self::Exit => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_from_memory_waits_for_no_commit_and_an_end_does() {
        let urgent = |reply| Effect::Reply(CallerId(1), reply).is_urgent();
        assert!(urgent(Reply::Ps(Vec::new())) && urgent(Reply::Queue(Vec::new())));
        assert!(!urgent(Reply::Done) && !urgent(Reply::Note(String::new())));
    }
}
