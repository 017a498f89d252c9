//! The things that the machine decides about, as plain values: what leaves and the store share with it.

mod worker;
pub use worker::{Identity, WorkerRecord};

use protocol::stable::Finished;
use protocol::{AgentName, AttemptId, FailureClass, Incarnation, Outcome, Route, TurnId};
use std::fmt;

/// Unix milliseconds: for records and people.
pub type Wall = u64;

/// An instant of the machine: both clocks as the daemon read them for one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that only goes forward: for every wait.
    pub tick: u64,
    /// Unix milliseconds, which may jump: for records alone.
    pub wall: Wall,
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A row of the inbox.
    UpdateId
}
number! {
    /// A row of the outbox.
    PostId
}
number! {
    /// A connection of the command line. Lives in memory only.
    CallerId
}
number! {
    /// A channel's wait for the commit of an update. Lives in memory only.
    ReceiptId
}

/// One chat (and topic) with one agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conversation {
    /// Whose.
    pub agent: AgentName,
    /// `console:NAME`, `telegram:BOT:CHAT` or `telegram:BOT:CHAT:TOPIC`, `job:NAME`.
    pub name: String,
}

/// Where a turn came from and where its end goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `cofferdam send`.
    Console,
    /// A chat. The answer leaves by the bot and topic that it came in on.
    Telegram(ChatMessage),
}

impl Source {
    /// `console` or `telegram:BOT:CHAT`.
    pub fn describe(&self) -> String {
        match self {
            Self::Console => "console".to_owned(),
            Self::Telegram(message) => format!("telegram:{}:{}", message.chat.bot, message.chat.chat),
        }
    }
}

/// A chat of a bot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chat {
    /// The bot's key in the configuration.
    pub bot: String,
    /// Telegram's chat id.
    pub chat: i64,
    /// Forum topic.
    pub topic: Option<i64>,
}

/// A message in a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// Where.
    pub chat: Chat,
    /// Telegram's message id.
    pub message: i64,
    /// Who wrote it.
    pub user: i64,
}

/// What came in from a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The bot's key in the configuration.
    pub bot: String,
    /// Telegram's number of it: unique per bot.
    pub external: i64,
    /// What it is.
    pub kind: UpdateKind,
    /// The update as it came, bounded, for the inbox.
    pub raw: String,
}

/// What an update is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateKind {
    /// A text message of a person.
    Text {
        /// Where and by whom.
        from: ChatMessage,
        /// Whether the chat is with one person.
        private: bool,
        /// The text.
        text: String,
    },
    /// A kind that is not handled: kept, and refused politely where somebody can be told.
    Other {
        /// Telegram's word for it: `photo`, `edited_message`, `callback_query`.
        what: String,
        /// Where and by whom, if that can be known.
        from: Option<ChatMessage>,
    },
}

/// The one end of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateEnd {
    /// Its turn has an answer, or its command was carried out.
    Answered,
    /// It became part of another turn.
    Joined(TurnId),
    /// It was not taken; the sender saw why, or may not be told.
    Refused(String),
    /// Somebody withdrew it.
    Cancelled(String),
    /// Its turn failed, and the sender was told.
    Failed,
}

impl UpdateEnd {
    /// The stable word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Joined(_) => "joined",
            Self::Refused(_) => "refused",
            Self::Cancelled(_) => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// A row of the inbox as it is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUpdate {
    /// Its number.
    pub id: UpdateId,
    /// What came.
    pub update: Update,
    /// When.
    pub at: Wall,
}

/// A turn as it is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTurn {
    /// Its number.
    pub id: TurnId,
    /// Whose, and where.
    pub conversation: Conversation,
    /// Where it came from.
    pub source: Source,
    /// The update that brought it, if one did.
    pub update: Option<UpdateId>,
    /// What is asked.
    pub prompt: String,
    /// The turn that it repeats.
    pub retry_of: Option<TurnId>,
    /// When it was accepted.
    pub at: Wall,
}

/// How a turn ended, for its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnEnd {
    /// An attempt's outcome, or one that the supervisor gives.
    Outcome(Outcome),
    /// It never ran.
    Cancelled(String),
    /// It became part of another.
    Joined(TurnId),
}

impl TurnEnd {
    /// The word of the state column.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Outcome(outcome) => outcome.as_str(),
            Self::Cancelled(_) => "cancelled",
            Self::Joined(_) => "joined",
        }
    }

    /// The failure class.
    pub const fn class(&self) -> Option<FailureClass> {
        match self {
            Self::Outcome(outcome) => outcome.class(),
            Self::Cancelled(_) | Self::Joined(_) => None,
        }
    }
}

/// What a post is for. Finals come before errors, errors before notices, when a bot must choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PostKind {
    /// The end of a turn.
    Final,
    /// A refusal, or the answer to a command.
    Notice,
    /// A warning to an owner.
    Alert,
    /// The message that tells what a long turn does; it is edited, and removed at the end.
    Status,
    /// Removal of a status message: `edits` names it.
    Remove,
}

impl PostKind {
    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Final => "final",
            Self::Notice => "notice",
            Self::Alert => "alert",
            Self::Status => "status",
            Self::Remove => "remove",
        }
    }

    /// Reads the stable word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Final, Self::Notice, Self::Alert, Self::Status, Self::Remove].into_iter().find(|k| k.as_str() == word)
    }
}

/// What goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Its number.
    pub id: PostId,
    /// The turn that it is about.
    pub turn: Option<TurnId>,
    /// What it is for.
    pub kind: PostKind,
    /// Where it goes.
    pub to: Chat,
    /// The message that it answers.
    pub reply_to: Option<i64>,
    /// Telegram's id of the message that it removes.
    pub edits: Option<i64>,
    /// Markdown.
    pub body: String,
    /// Pieces of it that have been sent; it may be sent in several.
    pub sent_pieces: u32,
    /// Tries of the next piece.
    pub tries: u32,
    /// An earlier try of the next piece may have arrived.
    pub maybe_repeated: bool,
    /// Telegram refused the formatting: send plain text.
    pub plain: bool,
    /// When it was made.
    pub at: Wall,
}

/// What became of a post, or of a piece of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostState {
    /// Another try, not before this time.
    Waiting {
        /// Unix milliseconds.
        not_before: Wall,
        /// See [`Post`].
        sent_pieces: u32,
        /// See [`Post`].
        tries: u32,
        /// See [`Post`].
        maybe_repeated: bool,
        /// See [`Post`].
        plain: bool,
        /// Why the last try failed, if it did.
        why: String,
    },
    /// It is there; the id of its last message.
    Sent(Option<i64>),
    /// It will never be sent.
    Dead(String),
}

/// A try of a turn as it is sent to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAttempt {
    /// Its number.
    pub id: AttemptId,
    /// Of which turn.
    pub turn: TurnId,
    /// The worker's run.
    pub incarnation: Incarnation,
    /// Where it runs.
    pub route: Route,
    /// The thread that it resumes.
    pub thread: Option<String>,
    /// When it was sent.
    pub at: Wall,
}

/// One change of the ledger. All records of one input commit together.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// An update is accepted. A second of the same bot and number changes nothing.
    Update(NewUpdate),
    /// Its one end.
    UpdateEnded(UpdateId, UpdateEnd, Wall),
    /// The bot's next offset.
    Offset(String, i64),
    /// A turn is accepted.
    Turn(NewTurn),
    /// A turn ended; the text is what the sender gets.
    TurnEnded(TurnId, TurnEnd, String, Wall),
    /// A turn is tried.
    Attempt(NewAttempt),
    /// Codex runs it, on this thread.
    AttemptStarted(AttemptId, String, Wall),
    /// An attempt ended.
    AttemptEnded(Box<Finished>, Wall),
    /// The current thread of a conversation; `None` begins a fresh one.
    Thread(Conversation, Option<String>),
    /// A post is made.
    Post(Post),
    /// What became of it.
    PostState(PostId, PostState, Wall),
    /// What is wanted of an agent: up or down.
    Wanted(AgentName, bool),
    /// A worker is about to be started.
    Incarnation(AgentName, Incarnation, Wall),
    /// Who an agent's latest worker is, as far as it is known.
    Worker(AgentName, Box<WorkerRecord>, Wall),
    /// Something that belongs to a story.
    Event(Event),
}

/// Something that belongs to a story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Wall,
    /// Whose.
    pub agent: Option<AgentName>,
    /// About which turn.
    pub turn: Option<TurnId>,
    /// What happened, for people.
    pub what: String,
}

/// What the ledger remembers at the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Identity of this ledger.
    pub ledger: u64,
    /// The largest numbers given so far.
    pub last: LastNumbers,
    /// Turns without an end, by number. The texts that joined one stand in its prompt, see [`super::words::JOINT`].
    pub turns: Vec<OpenTurn>,
    /// Posts that wait, by number. Status messages of open turns are among them even if they are sent.
    pub posts: Vec<OpenPost>,
    /// Current threads.
    pub threads: Vec<(Conversation, String)>,
    /// What is known of a failure streak: the latest completed and failed turns of each agent, agents by name, latest
    /// first, at most so many as a streak needs: `(agent, class, text, when)`. The text is the beginning of what the
    /// sender got, and empty for a completed turn.
    pub endings: Vec<(AgentName, Option<FailureClass>, String, Wall)>,
    /// Agents that are not wanted up.
    pub down: Vec<AgentName>,
    /// The latest worker of each agent, by name.
    pub workers: Vec<(AgentName, WorkerRecord)>,
    /// Next offset of each bot.
    pub offsets: Vec<(String, i64)>,
    /// Updates without an end that brought no turn.
    pub stranded: Vec<Stranded>,
    /// Updates that a bot may hand over again, as `(bot, external)`, in that order: an update of them is given its
    /// receipt and nothing else. They are those of the last 48 hours (Telegram keeps an update for 24) that are not far
    /// below the bot's offset (what is below was confirmed), of the latest 20,000.
    pub seen: Vec<(String, i64)>,
}

/// An update that was taken and, by the end of the last supervisor, not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranded {
    /// Which.
    pub update: UpdateId,
    /// Who is to be told.
    pub from: Option<ChatMessage>,
}

/// The largest numbers given so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastNumbers {
    /// Of updates.
    pub update: u64,
    /// Of turns.
    pub turn: u64,
    /// Of attempts.
    pub attempt: u64,
    /// Of posts.
    pub post: u64,
    /// Of incarnations, over all agents.
    pub incarnation: u64,
}

/// A turn without an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTurn {
    /// As it was accepted.
    pub turn: NewTurn,
    /// Its tries, in order.
    pub attempts: Vec<OldAttempt>,
}

/// A try that the ledger knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldAttempt {
    /// As it was sent.
    pub attempt: NewAttempt,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// Whether its worker said that Codex runs it.
    pub started: bool,
}

/// A post that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPost {
    /// As it stands.
    pub post: Post,
    /// Unix milliseconds before which it must not be tried.
    pub not_before: Wall,
    /// A sent status message: its id.
    pub message: Option<i64>,
}
