//! Reads `[[...]]` markers: the words in which a prompt, a model's name or the side door says what the model does.
//!
//! The table of all markers is in the doc of [`super`]. Pure: text in, markers out.

use std::time::Duration;

use serde_json::Value;

/// One marker, as written and as understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Marker {
    /// The text between the brackets.
    pub(crate) raw: String,
    pub(crate) verb: Verb,
    /// `xN`: plays for the first N requests that meet it.
    pub(crate) times: Option<u32>,
    /// `@MODEL`: plays for this model alone.
    pub(crate) model: Option<String>,
    /// `compact-`: plays for compaction requests, and for those alone.
    pub(crate) compact: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verb {
    Say(String),
    Recall,
    Slow { deltas: u32, pause: Duration },
    Big(usize),
    Reason(String),
    Tokens(u64),
    Limits(u8),
    Calls(Vec<Call>),
    Loop(String),
    Delay(Duration),
    Hold(String),
    HoldStream(String),
    Hang,
    HangStream,
    Cut,
    Incomplete,
    Fail(Failure),
    FailedStream(String),
}

/// What the model asks Codex to run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    /// A command by whatever shell tool the request offers; waits for its end.
    Shell(String),
    /// The same, but the model goes on while the command runs.
    Background(String),
    /// The same, asking for leave to run outside the sandbox.
    Escalated(String),
    /// Any function tool with these arguments.
    Function(String, Value),
    /// Any freeform tool with this input.
    Custom(String, String),
}

/// An answer that is no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Bad,
    Context,
    Unauthorized,
    /// A challenge for browsers.
    ChallengePage,
    /// A refusal by the same guard, which Codex knows by its words.
    BlockedPage,
    NoModel,
    RateLimit,
    UsageLimit(Reset),
    Quota,
    Server,
    Overloaded,
    Drop,
}

/// When a usage limit ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reset {
    /// Seconds from the request on.
    In(u64),
    /// Unix seconds.
    At(u64),
}

/// Seconds until a usage limit ends, unless the marker says otherwise.
const RESET_SECONDS: u64 = 3_600;
/// Prefix of the models whose name is a script.
const MODEL_PREFIX: &str = "standin-";

/// The markers in `text`, and what is left of it without them. What is not understood stays as text, so that a slip shows in
/// the answer.
pub(crate) fn read(text: &str) -> (Vec<Marker>, String) {
    let mut markers = Vec::new();
    let mut rest = String::new();
    let mut left = text;
    while let Some((before, after)) = left.split_once("[[") {
        rest.push_str(before);
        let found = after.split_once("]]").and_then(|(raw, after)| Some((marker(raw)?, after)));
        if let Some((found, after)) = found {
            markers.push(found);
            left = after;
        } else {
            rest.push_str("[[");
            left = after;
        }
    }
    rest.push_str(left);
    (markers, rest.trim().to_owned())
}

/// The script that a model's name is: `standin-compact-hang` plays `[[compact-hang]]`. Dashes after the verb are spaces.
pub(crate) fn of_model(model: &str) -> Option<Marker> {
    let raw = model.strip_prefix(MODEL_PREFIX)?;
    marker(raw).or_else(|| marker(&raw.replace('-', " ")))
}

fn marker(raw: &str) -> Option<Marker> {
    let raw = raw.trim();
    let (compact, body) = match raw.strip_prefix("compact-").or_else(|| raw.strip_prefix("compact ")) {
        Some(body) => (true, body.trim()),
        None => (false, raw),
    };
    let (word, argument) = body.split_once(char::is_whitespace).unwrap_or((body, ""));
    if let Some(verb) = free_text(word, argument.trim()) {
        return Some(Marker { raw: raw.to_owned(), verb, times: None, model: None, compact });
    }
    let mut words: Vec<&str> = argument.split_whitespace().collect();
    let mut times = None;
    let mut model = None;
    while let Some(last) = words.last().copied() {
        if let Some(count) = last.strip_prefix('x').and_then(|count| count.parse().ok()) {
            times = Some(count);
        } else if let Some(name) = last.strip_prefix('@') {
            model = Some(name.to_owned());
        } else {
            break;
        }
        words.pop();
    }
    let verb = worded(word, &words)?;
    Some(Marker { raw: raw.to_owned(), verb, times, model, compact })
}

/// The verbs whose argument is text of any form: no suffixes are read from it.
fn free_text(word: &str, text: &str) -> Option<Verb> {
    let owned = || text.to_owned();
    Some(match word {
        "say" => Verb::Say(owned()),
        "reason" => Verb::Reason(owned()),
        "tool" => Verb::Calls(vec![Call::Shell(owned())]),
        "tools" => Verb::Calls(text.split(";;").map(|one| Call::Shell(one.trim().to_owned())).collect()),
        "background" => Verb::Calls(vec![Call::Background(owned())]),
        "escalate" => Verb::Calls(vec![Call::Escalated(owned())]),
        "loop" => Verb::Loop(owned()),
        "call" => {
            let (name, arguments) = text.split_once(char::is_whitespace).unwrap_or((text, "{}"));
            Verb::Calls(vec![Call::Function(name.to_owned(), serde_json::from_str(arguments).ok()?)])
        }
        "custom" => {
            let (name, input) = text.split_once(char::is_whitespace)?;
            Verb::Calls(vec![Call::Custom(name.to_owned(), input.to_owned())])
        }
        _ => return None,
    })
}

fn worded(word: &str, words: &[&str]) -> Option<Verb> {
    let only = || if let [one] = words { Some(*one) } else { None };
    let none = |verb: Verb| words.is_empty().then_some(verb);
    match word {
        "recall" => none(Verb::Recall),
        "slow" => {
            let (deltas, pause) = only()?.split_once('x')?;
            Some(Verb::Slow { deltas: deltas.parse().ok()?, pause: duration(pause)? })
        }
        "big" => Some(Verb::Big(size(only()?)?)),
        "tokens" => Some(Verb::Tokens(only()?.parse().ok()?)),
        "limits" => Some(Verb::Limits(only()?.parse().ok()?)),
        "delay" => Some(Verb::Delay(duration(only()?)?)),
        "hold" => Some(Verb::Hold(only()?.to_owned())),
        "hold-stream" => Some(Verb::HoldStream(only()?.to_owned())),
        "hang" => none(Verb::Hang),
        "hang-stream" => none(Verb::HangStream),
        "cut" => none(Verb::Cut),
        "incomplete" => none(Verb::Incomplete),
        "failed" => Some(Verb::FailedStream(only()?.to_owned())),
        _ => Some(Verb::Fail(failure(word, words)?)),
    }
}

fn failure(word: &str, words: &[&str]) -> Option<Failure> {
    let failure = match word {
        "400" => Failure::Bad,
        "context" => Failure::Context,
        "401" => Failure::Unauthorized,
        "403" => Failure::ChallengePage,
        "blocked" => Failure::BlockedPage,
        "404" => Failure::NoModel,
        "429" => Failure::RateLimit,
        "usage-limit" => return Some(Failure::UsageLimit(reset(words)?)),
        "quota" => Failure::Quota,
        "500" => Failure::Server,
        "503" => Failure::Overloaded,
        "drop" => Failure::Drop,
        _ => return None,
    };
    words.is_empty().then_some(failure)
}

fn reset(words: &[&str]) -> Option<Reset> {
    match words {
        [] => Some(Reset::In(RESET_SECONDS)),
        ["in", seconds] => Some(Reset::In(seconds.parse().ok()?)),
        ["at", seconds] => Some(Reset::At(seconds.parse().ok()?)),
        _ => None,
    }
}

fn duration(text: &str) -> Option<Duration> {
    if let Some(count) = text.strip_suffix("ms") {
        return Some(Duration::from_millis(count.parse().ok()?));
    }
    Some(Duration::from_secs(text.strip_suffix('s')?.parse().ok()?))
}

fn size(text: &str) -> Option<usize> {
    let (count, unit) = match text.char_indices().next_back()? {
        (at, 'K') => (text.get(..at)?, 1 << 10),
        (at, 'M') => (text.get(..at)?, 1 << 20),
        _ => (text, 1),
    };
    count.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verbs(text: &str) -> Vec<Verb> {
        read(text).0.into_iter().map(|marker| marker.verb).collect()
    }

    #[test]
    fn markers_are_taken_out_and_the_rest_is_kept() {
        let (markers, rest) = read("do [[hold A]] this [[500 x2 @gpt-5.4]] now [[slow 20x100ms]]");
        assert_eq!(rest, "do  this  now");
        assert_eq!(markers.len(), 3);
        assert_eq!(markers[0].verb, Verb::Hold("A".to_owned()));
        assert_eq!((markers[1].times, markers[1].model.as_deref()), (Some(2), Some("gpt-5.4")));
        assert_eq!(markers[1].verb, Verb::Fail(Failure::Server));
        assert_eq!(markers[2].verb, Verb::Slow { deltas: 20, pause: Duration::from_millis(100) });
    }

    #[test]
    fn a_command_may_end_like_a_suffix() {
        assert_eq!(verbs("[[tool echo x2]]"), [Verb::Calls(vec![Call::Shell("echo x2".to_owned())])]);
        let two = vec![Call::Shell("echo a".to_owned()), Call::Shell("echo b".to_owned())];
        assert_eq!(verbs("[[tools echo a ;; echo b]]"), [Verb::Calls(two)]);
    }

    #[test]
    fn what_is_not_understood_stays_text() {
        for text in [
            "[[hagn]]",
            "[[hold]]",
            "[[slow 3]]",
            "[[ -f x ]]",
            "[[401 now]]",
            "[[open",
            "[[big 9999999999999999999M]]",
        ] {
            assert_eq!(read(text), (vec![], text.to_owned()), "{text}");
        }
        let (markers, rest) = read("[[ a [[hang]]");
        assert_eq!((markers.len(), rest.as_str()), (1, "[[ a"));
    }

    #[test]
    fn a_model_may_be_a_script() {
        let hang = of_model("standin-compact-hang").unwrap();
        assert_eq!((hang.compact, hang.verb), (true, Verb::Hang));
        assert_eq!(of_model("standin-401").unwrap().verb, Verb::Fail(Failure::Unauthorized));
        assert_eq!(of_model("standin-usage-limit").unwrap().verb, Verb::Fail(Failure::UsageLimit(Reset::In(3_600))));
        assert_eq!(
            of_model("standin-slow-3x10ms").unwrap().verb,
            Verb::Slow { deltas: 3, pause: Duration::from_millis(10) }
        );
        assert_eq!(of_model("standin-hang-stream").unwrap().verb, Verb::HangStream);
        assert_eq!(of_model("gpt-5.5"), None);
        assert_eq!(of_model("standin-nonsense"), None);
    }
}
