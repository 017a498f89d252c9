//! What a channel hears, as plain values. Decides nothing: what an update means is the machine's business.
//!
//! ```text
//!   Telegram --getUpdates--> telegram::poll --Heard{bot, news}--> daemon   (news: Started, Batch, Fault, Recovered)
//!   Telegram <--sendMessage- telegram::perform <----- Request ---- daemon   (answer: SendResult)
//! ```
//!
//! An update of a kind that nobody handles is kept as [`Update::Other`]: it is recorded and refused politely, never lost.

pub mod telegram;

/// Longest raw JSON kept of an [`Update::Other`], in bytes. Enough to see what it was; a forwarded album or a poll with
/// all options fits, and a hostile server cannot fill the ledger with it.
pub const RAW_BYTES_MAX: usize = 16 * 1024;

/// Longest user name kept, in bytes. Telegram allows 64 characters each for first and last name.
pub const USER_NAME_BYTES_MAX: usize = 256;

/// Longest name of an update's kind, in bytes. Telegram's longest is `deleted_business_messages` with 25.
pub const KIND_BYTES_MAX: usize = 64;

/// Longest text quoted from the message that was replied to, in bytes: one Telegram message of 4096 characters.
pub const QUOTE_BYTES_MAX: usize = 16 * 1024;

/// One update, decoded leniently: a field that is missing or of another type than expected reads as absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// A message with text.
    Text {
        /// Telegram's number of the update; unique per bot, mostly ascending.
        update_id: i64,
        /// Where it came from and who wrote it.
        origin: Origin,
        /// The text, not empty.
        text: String,
        /// The message that it answers.
        reply_to: Option<ReplyTo>,
    },
    /// Anything else: a photo, an edit, a button, a membership change, a kind that is not known yet.
    Other {
        /// Telegram's number of the update; unique per bot, mostly ascending.
        update_id: i64,
        /// What it is: `photo`, `voice`, `edited_message`, `callback_query`, ...; `unreadable` where the JSON made no
        /// sense beyond its number, `unknown` where nothing in it is known. At most [`KIND_BYTES_MAX`] bytes.
        kind: String,
        /// Where it came from, where that could be told. With it a refusal can be delivered.
        origin: Option<Origin>,
        /// Caption, edited text or button data, at most [`QUOTE_BYTES_MAX`] bytes.
        text: Option<String>,
        /// The update as valid JSON of at most [`RAW_BYTES_MAX`] bytes; what is longer is
        /// `{"cut":true,"bytes":N,"head":"..."}` with the beginning of it as text.
        raw: String,
    },
}

/// The place and the person that an update came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The chat's number; negative for groups and channels.
    pub chat: i64,
    /// What sort of chat it is.
    pub chat_kind: ChatKind,
    /// The forum topic inside the chat. A reply thread in an ordinary group is none.
    pub topic: Option<i64>,
    /// The person's (or bot's) number; absent for posts of a channel.
    pub user: Option<i64>,
    /// How to call the person, at most [`USER_NAME_BYTES_MAX`] bytes; may be empty.
    pub user_name: String,
    /// Whether the sender is a bot.
    pub is_bot: bool,
    /// The message, for replies to it.
    pub message_id: Option<i64>,
}

/// The sort of a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatKind {
    /// One person and the bot.
    Private,
    /// A basic group.
    Group,
    /// A supergroup, with or without topics.
    Supergroup,
    /// A broadcast channel.
    Channel,
    /// A sort that this build does not know.
    Unknown,
}

/// The message that was replied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// Its number in the same chat.
    pub message_id: i64,
    /// Who wrote it, where known.
    pub user: Option<i64>,
    /// The quoted part, else its text or caption; at most [`QUOTE_BYTES_MAX`] bytes.
    pub text: Option<String>,
}

impl Update {
    /// Telegram's number of the update.
    pub const fn id(&self) -> i64 {
        match self {
            Self::Text { update_id, .. } | Self::Other { update_id, .. } => *update_id,
        }
    }

    /// Where it came from, where that is known.
    pub const fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Text { origin, .. } => Some(origin),
            Self::Other { origin, .. } => origin.as_ref(),
        }
    }
}

impl ChatKind {
    /// The stable name, as Telegram spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Group => "group",
            Self::Supergroup => "supergroup",
            Self::Channel => "channel",
            Self::Unknown => "unknown",
        }
    }

    /// Reads Telegram's name; an unknown name is [`ChatKind::Unknown`].
    pub fn parse(name: &str) -> Self {
        match name {
            "private" => Self::Private,
            "group" => Self::Group,
            "supergroup" => Self::Supergroup,
            "channel" => Self::Channel,
            _ => Self::Unknown,
        }
    }
}
