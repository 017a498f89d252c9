//! The five messages that every release understands: Hello, Finished, Ack, Drain, Kill. Encoded by hand, never changed.
//!
//! ```text
//!  body = field*      field = u8 tag | u32 length (little-endian) | bytes
//! ```
//! A reader skips tags that it does not know and takes a default for tags that are missing, so that a field can be
//! added without a new protocol. A tag keeps its meaning for ever.

use crate::failure::FailureClass;
use crate::hello::{Hello, Role};
use crate::ids::{AgentName, AttemptId, Incarnation, TurnId};
use crate::text::{Text, TextFile};

/// Frame kinds of the stable messages. Kinds below 16 are theirs alone.
pub mod kind {
    /// [`super::Hello`], both ways.
    pub const HELLO: u16 = 1;
    /// Supervisor to worker: an outcome is in the ledger; the body is the attempt.
    pub const ACK: u16 = 2;
    /// Supervisor to worker: finish what runs, take nothing new, leave. No body.
    pub const DRAIN: u16 = 3;
    /// Supervisor to worker: end everything and leave. No body.
    pub const KILL: u16 = 4;
    /// Worker to supervisor: [`super::Finished`].
    pub const FINISHED: u16 = 5;
}

/// How a turn or an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is an answer.
    Completed,
    /// Somebody stopped it.
    Interrupted,
    /// There is none, and the class says why.
    Failed(FailureClass),
}

impl Outcome {
    /// The stable word: `completed`, `interrupted`, `failed`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Interrupted => "interrupted",
            Self::Failed(_) => "failed",
        }
    }

    /// The class of a failure.
    pub const fn class(self) -> Option<FailureClass> {
        match self {
            Self::Completed | Self::Interrupted => None,
            Self::Failed(class) => Some(class),
        }
    }

    /// Reads the two words back. An unknown class of a newer release is a model error.
    pub fn parse(outcome: &str, class: Option<&str>) -> Option<Self> {
        match outcome {
            "completed" => Some(Self::Completed),
            "interrupted" => Some(Self::Interrupted),
            "failed" => Some(Self::Failed(class.and_then(FailureClass::parse).unwrap_or(FailureClass::ModelError))),
            _ => None,
        }
    }
}

/// How an attempt ended, with all that its story needs. Repeated until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Which attempt; the key by which an outcome is taken once.
    pub attempt: AttemptId,
    /// The turn that it tried.
    pub turn: TurnId,
    /// How it ended.
    pub outcome: Outcome,
    /// The answer, or what there is of it.
    pub text: Text,
    /// Codex' thread, if one had begun.
    pub thread: Option<String>,
    /// The raw words of the failure, bounded and without secrets.
    pub detail: String,
    /// Whether a replay cannot repeat an effect: the prompt was never written, or nothing but words came of it.
    pub replay_safe: bool,
    /// The commands and changes that had run, in order, as a person reads them. Bounded.
    pub ran: Vec<String>,
    /// Exit code of the Codex child, if it ended.
    pub exit_code: Option<i32>,
    /// Signal that ended the Codex child.
    pub signal: Option<i32>,
    /// The last lines of the child's stderr, bounded.
    pub stderr: String,
    /// When the limit ends, in Unix seconds.
    pub resets_at: Option<u64>,
    /// From the begin of the attempt to its first event, in milliseconds.
    pub first_event_ms: Option<u64>,
    /// From the begin of the attempt to its end, in milliseconds.
    pub duration_ms: u64,
    /// Tokens of this turn: read by the model.
    pub input_tokens: u64,
    /// Tokens of this turn: written by the model.
    pub output_tokens: u64,
    /// Version of Codex, if it told one.
    pub codex_version: Option<String>,
}

impl Finished {
    /// An end without a story: the start of one.
    pub fn new(attempt: AttemptId, turn: TurnId, outcome: Outcome) -> Self {
        Self {
            attempt,
            turn,
            outcome,
            text: Text::empty(),
            thread: None,
            detail: String::new(),
            replay_safe: false,
            ran: Vec::new(),
            exit_code: None,
            signal: None,
            stderr: String::new(),
            resets_at: None,
            first_event_ms: None,
            duration_ms: 0,
            input_tokens: 0,
            output_tokens: 0,
            codex_version: None,
        }
    }
}

/// Why a body is not the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StableError {
    /// A field's length runs past the body.
    #[error("a field runs past the end of the message")]
    Cut,
    /// A field that must be there is missing or malformed.
    #[error("field {0} is missing or malformed")]
    Field(u8),
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        // A body is far below 4 GiB: the frame limit refuses it long before.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.push(tag);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, tag: u8, text: &str) {
        if !text.is_empty() {
            self.bytes(tag, text.as_bytes());
        }
    }

    fn number(&mut self, tag: u8, number: u64) {
        self.bytes(tag, &number.to_le_bytes());
    }

    fn maybe(&mut self, tag: u8, number: Option<u64>) {
        if let Some(number) = number {
            self.number(tag, number);
        }
    }
}

/// The fields of a body, read once.
struct Fields<'a>(Vec<(u8, &'a [u8])>);

impl<'a> Fields<'a> {
    fn read(mut body: &'a [u8]) -> Result<Self, StableError> {
        let mut fields = Vec::new();
        while let Some((tag, rest)) = body.split_first() {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or(StableError::Cut)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (value, rest) = rest.split_at_checked(length).ok_or(StableError::Cut)?;
            fields.push((*tag, value));
            body = rest;
        }
        Ok(Self(fields))
    }

    fn get(&self, tag: u8) -> Option<&'a [u8]> {
        self.0.iter().find(|(t, _)| *t == tag).map(|(_, value)| *value)
    }

    fn text(&self, tag: u8) -> Result<String, StableError> {
        let bytes = self.get(tag).unwrap_or_default();
        String::from_utf8(bytes.to_vec()).map_err(|_| StableError::Field(tag))
    }

    fn maybe_text(&self, tag: u8) -> Result<Option<String>, StableError> {
        self.get(tag).map(|_| self.text(tag)).transpose()
    }

    fn maybe(&self, tag: u8) -> Result<Option<u64>, StableError> {
        self.get(tag)
            .map(|bytes| bytes.try_into().map(u64::from_le_bytes).map_err(|_| StableError::Field(tag)))
            .transpose()
    }

    fn number(&self, tag: u8) -> Result<u64, StableError> {
        self.maybe(tag)?.ok_or(StableError::Field(tag))
    }

    fn all_texts(&self, tag: u8) -> Result<Vec<String>, StableError> {
        self.0
            .iter()
            .filter(|(t, _)| *t == tag)
            .map(|(_, value)| String::from_utf8(value.to_vec()).map_err(|_| StableError::Field(tag)))
            .collect()
    }
}

/// The body of a hello.
pub fn encode_hello(hello: &Hello) -> Vec<u8> {
    let mut out = Writer::default();
    out.number(
        1,
        match hello.role {
            Role::Supervisor => 1,
            Role::Worker => 2,
        },
    );
    out.number(2, u64::from(hello.protocol));
    out.text(3, hello.agent.as_str());
    out.number(4, hello.incarnation.0);
    out.text(5, &hello.build);
    if hello.nonce != 0 {
        out.number(6, hello.nonce);
    }
    out.0
}

/// The hello that a body holds.
///
/// # Errors
/// See [`StableError`].
pub fn decode_hello(body: &[u8]) -> Result<Hello, StableError> {
    let fields = Fields::read(body)?;
    let role = match fields.number(1)? {
        1 => Role::Supervisor,
        2 => Role::Worker,
        _ => return Err(StableError::Field(1)),
    };
    Ok(Hello {
        role,
        protocol: u16::try_from(fields.number(2)?).map_err(|_| StableError::Field(2))?,
        agent: AgentName::parse(&fields.text(3)?).map_err(|_| StableError::Field(3))?,
        incarnation: Incarnation(fields.number(4)?),
        build: fields.text(5)?,
        nonce: fields.maybe(6)?.unwrap_or(0),
    })
}

/// The body of an acknowledgement.
pub fn encode_ack(attempt: AttemptId) -> Vec<u8> {
    let mut out = Writer::default();
    out.number(1, attempt.0);
    out.0
}

/// The attempt that a body acknowledges.
///
/// # Errors
/// See [`StableError`].
pub fn decode_ack(body: &[u8]) -> Result<AttemptId, StableError> {
    Fields::read(body)?.number(1).map(AttemptId)
}

fn signed(number: i32) -> u64 {
    u64::from(number.cast_unsigned())
}

fn unsigned(tag: u8, number: u64) -> Result<i32, StableError> {
    u32::try_from(number).map(u32::cast_signed).map_err(|_| StableError::Field(tag))
}

/// The body of an outcome.
pub fn encode_finished(end: &Finished) -> Vec<u8> {
    let mut out = Writer::default();
    out.number(1, end.attempt.0);
    out.number(2, end.turn.0);
    out.text(3, end.outcome.as_str());
    out.text(4, end.outcome.class().map_or("", FailureClass::as_str));
    match &end.text {
        Text::Inline(text) => out.text(5, text),
        Text::File(file) => {
            out.text(5, &file.head);
            out.text(6, &file.path);
            out.number(7, file.bytes);
            out.bytes(8, &file.sha256);
        }
    }
    if let Some(thread) = &end.thread {
        out.text(9, thread);
    }
    out.text(10, &end.detail);
    out.number(11, u64::from(end.replay_safe));
    for ran in &end.ran {
        out.bytes(12, ran.as_bytes());
    }
    out.maybe(13, end.exit_code.map(signed));
    out.maybe(14, end.signal.map(signed));
    out.text(15, &end.stderr);
    out.maybe(16, end.resets_at);
    out.maybe(17, end.first_event_ms);
    out.number(18, end.duration_ms);
    out.number(19, end.input_tokens);
    out.number(20, end.output_tokens);
    if let Some(version) = &end.codex_version {
        out.text(21, version);
    }
    out.0
}

/// The outcome that a body holds.
///
/// # Errors
/// See [`StableError`].
pub fn decode_finished(body: &[u8]) -> Result<Finished, StableError> {
    let fields = Fields::read(body)?;
    let class = fields.maybe_text(4)?;
    let outcome = Outcome::parse(&fields.text(3)?, class.as_deref()).ok_or(StableError::Field(3))?;
    let mut end = Finished::new(AttemptId(fields.number(1)?), TurnId(fields.number(2)?), outcome);
    end.text = decode_text(&fields)?;
    end.thread = fields.maybe_text(9)?;
    end.detail = fields.text(10)?;
    end.replay_safe = fields.maybe(11)?.unwrap_or(0) == 1;
    end.ran = fields.all_texts(12)?;
    end.exit_code = fields.maybe(13)?.map(|n| unsigned(13, n)).transpose()?;
    end.signal = fields.maybe(14)?.map(|n| unsigned(14, n)).transpose()?;
    end.stderr = fields.text(15)?;
    end.resets_at = fields.maybe(16)?;
    end.first_event_ms = fields.maybe(17)?;
    end.duration_ms = fields.maybe(18)?.unwrap_or(0);
    end.input_tokens = fields.maybe(19)?.unwrap_or(0);
    end.output_tokens = fields.maybe(20)?.unwrap_or(0);
    end.codex_version = fields.maybe_text(21)?;
    Ok(end)
}

fn decode_text(fields: &Fields<'_>) -> Result<Text, StableError> {
    let head = fields.text(5)?;
    let Some(path) = fields.maybe_text(6)? else {
        return Ok(Text::Inline(head));
    };
    let sha256 = fields.get(8).and_then(|hash| hash.try_into().ok()).ok_or(StableError::Field(8))?;
    Ok(Text::File(TextFile { path, bytes: fields.number(7)?, sha256, head }))
}
