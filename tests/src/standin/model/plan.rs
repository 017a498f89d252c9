//! Decides what one request gets: from its scene, the scripts in force, and how often each marker has played.
//!
//! ```text
//!   prompt:   [[hold A]] [[tool echo hi]]   [[500 x2]] [[slow 5x10ms]]
//!             `---- request 0 ----------'   `---- request 1 (the tool has answered) ----'
//! ```
//! The markers of a prompt are played in order; each tool call ends a request's share. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::scene::{FOLDED, Scene};
use super::script::{self, Call, Failure, Marker, Verb};

/// Tokens that a request is said to have cost, unless `[[tokens N]]` says otherwise.
pub(crate) const TOKENS: u64 = 110;
/// Bytes of one delta of a `[[big N]]` answer: about what a busy model sends in a second.
const BIG_DELTA_BYTES: usize = 16 * 1024;

/// What one request gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// The markers that made it, for the record.
    pub(crate) played: Vec<String>,
    /// In order, before the headers.
    pub(crate) waits: Vec<Wait>,
    /// Instead of a stream.
    pub(crate) failure: Option<Failure>,
    pub(crate) items: Vec<Item>,
    /// Between two deltas.
    pub(crate) pause: Duration,
    pub(crate) gate: Gate,
    pub(crate) end: End,
    pub(crate) tokens: u64,
    /// Per cent of the rate limit that is used up, told in headers.
    pub(crate) limits: Option<u8>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wait {
    Time(Duration),
    Hold(String),
    Forever,
}

/// What happens inside the stream: `Forever` before anything is said, the others after the first delta.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Gate {
    Open,
    Hold(String),
    Forever,
    Cut,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    Completed,
    Incomplete,
    Failed(String),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    Reasoning(String),
    /// The deltas of a message.
    Text(Vec<String>),
    Call(Call),
    /// Wait on for the command behind this output.
    Poll {
        output: usize,
        session: u64,
    },
}

/// Makes the plan. `door` is the script that the side door set for the model; `used` counts the plays of `xN` markers.
pub(crate) fn plan(scene: &Scene, door: Option<&str>, used: &mut BTreeMap<String, u32>) -> Plan {
    let (source, markers) = source(scene, door);
    let share = share(markers, scene);
    let mut plan = Plan {
        played: Vec::new(),
        waits: Vec::new(),
        failure: None,
        items: Vec::new(),
        pause: Duration::ZERO,
        gate: Gate::Open,
        end: End::Completed,
        tokens: TOKENS,
        limits: None,
    };
    let mut words = Words::default();
    for marker in share {
        if let Some(times) = marker.times {
            let plays = used.entry(format!("{}\n{source}", marker.raw)).or_default();
            if *plays >= times {
                continue;
            }
            *plays += 1;
        }
        plan.played.push(marker.raw);
        plan.take(marker.verb, &mut words);
        if plan.failure.is_some() || plan.waits.last() == Some(&Wait::Forever) {
            break;
        }
    }
    plan.speak(scene, words);
    plan
}

/// What the text of an answer is made of.
#[derive(Debug, Default)]
struct Words {
    said: Option<String>,
    recall: bool,
    ticks: u32,
    filler: usize,
}

impl Plan {
    fn take(&mut self, verb: Verb, words: &mut Words) {
        match verb {
            Verb::Say(text) => words.said = Some(text),
            Verb::Recall => words.recall = true,
            Verb::Slow { deltas, pause } => {
                words.ticks = deltas;
                self.pause = pause;
            }
            Verb::Big(bytes) => words.filler = bytes,
            Verb::Reason(text) => self.items.push(Item::Reasoning(text)),
            Verb::Tokens(tokens) => self.tokens = tokens,
            Verb::Limits(percent) => self.limits = Some(percent),
            Verb::Calls(calls) => self.items.extend(calls.into_iter().map(Item::Call)),
            Verb::Loop(command) => self.items.push(Item::Call(Call::Shell(command))),
            Verb::Delay(time) => self.waits.push(Wait::Time(time)),
            Verb::Hold(name) => self.waits.push(Wait::Hold(name)),
            Verb::HoldStream(name) => self.gate = Gate::Hold(name),
            Verb::Hang => self.waits.push(Wait::Forever),
            Verb::HangStream => self.gate = Gate::Forever,
            Verb::Cut => self.gate = Gate::Cut,
            Verb::Incomplete => self.end = End::Incomplete,
            Verb::Fail(failure) => self.failure = Some(failure),
            Verb::FailedStream(code) => self.end = End::Failed(code),
        }
    }

    /// Adds the polls that are due and, if nothing is to be called, the text.
    fn speak(&mut self, scene: &Scene, words: Words) {
        let running = scene.outputs.iter().enumerate();
        let polls: Vec<Item> =
            running.filter_map(|(output, heard)| Some(Item::Poll { output, session: heard.session? })).collect();
        if !polls.is_empty() {
            self.items = polls;
            return;
        }
        if self.items.iter().any(|item| matches!(item, Item::Call(_))) {
            return;
        }
        let text = if scene.compaction { summary(scene, words.said) } else { answer(scene, &words) };
        let mut deltas: Vec<String> = (1..=words.ticks).map(|tick| format!("{tick} ")).collect();
        let mut left = words.filler;
        while left > 0 {
            let bytes = left.min(BIG_DELTA_BYTES);
            deltas.push(filler(bytes));
            left -= bytes;
        }
        deltas.push(text);
        self.items.push(Item::Text(deltas));
    }
}

/// Which script is in force, with the name under which its plays are counted: the side door's, else the prompt's, else the
/// model's. A compaction is ruled by the last prompt that says anything of compactions.
fn source(scene: &Scene, door: Option<&str>) -> (String, Vec<Marker>) {
    let fit = |text: &str| {
        let (mut markers, _rest) = script::read(text);
        markers.retain(|marker| {
            marker.compact == scene.compaction && marker.model.as_ref().is_none_or(|model| *model == scene.model)
        });
        markers
    };
    if let Some(door) = door {
        let markers = fit(door);
        if !markers.is_empty() {
            return (format!("door {door}"), markers);
        }
    }
    let reach = if scene.compaction { scene.prompts.len() } else { 1 };
    for prompt in scene.prompts.iter().rev().take(reach) {
        let markers = fit(prompt);
        if !markers.is_empty() {
            return (prompt.clone(), markers);
        }
    }
    let markers = script::of_model(&scene.model).into_iter().filter(|marker| marker.compact == scene.compaction);
    (scene.model.clone(), markers.collect())
}

/// The markers of this request: those after the calls that have been answered, up to the next calls.
fn share(markers: Vec<Marker>, scene: &Scene) -> Vec<Marker> {
    let mut answered = if scene.compaction { 0 } else { scene.folded + scene.outputs.len() };
    let mut share = Vec::new();
    for mut marker in markers {
        match &mut marker.verb {
            Verb::Calls(calls) if calls.len() <= answered => {
                answered -= calls.len();
                share.clear();
            }
            Verb::Calls(calls) => {
                // An interrupted batch may have been answered in part: the rest is asked for.
                calls.drain(..answered);
                share.push(marker);
                return share;
            }
            Verb::Loop(_) => {
                share.push(marker);
                return share;
            }
            Verb::Say(_)
            | Verb::Recall
            | Verb::Slow { .. }
            | Verb::Big(_)
            | Verb::Reason(_)
            | Verb::Tokens(_)
            | Verb::Limits(_)
            | Verb::Delay(_)
            | Verb::Hold(_)
            | Verb::HoldStream(_)
            | Verb::Hang
            | Verb::HangStream
            | Verb::Cut
            | Verb::Incomplete
            | Verb::Fail(_)
            | Verb::FailedStream(_) => share.push(marker),
        }
    }
    share
}

fn answer(scene: &Scene, words: &Words) -> String {
    if let Some(said) = &words.said {
        return said.clone();
    }
    if words.recall {
        let earlier = scene.prompts.split_last().map_or(&[][..], |(_last, earlier)| earlier);
        return format!("recall: {}", serde_json::Value::from(earlier));
    }
    let mut text = String::new();
    for output in &scene.outputs {
        let exit = output.exit.map(|code| format!(" exit {code}")).unwrap_or_default();
        let _infallible = writeln!(text, "tool{exit}: {}", output.said.trim_end());
    }
    let (_markers, rest) = script::read(scene.prompt());
    text + "echo: " + &rest
}

fn summary(scene: &Scene, said: Option<String>) -> String {
    let said = said.unwrap_or_else(|| format!("summary of {} prompts", scene.prompts.len()));
    format!("{said}; {FOLDED}{}.", scene.folded + scene.outputs.len())
}

/// Lines of text, as long as asked for to the byte.
fn filler(bytes: usize) -> String {
    const LINE: &str = "All work and no play makes a dull stand-in, line after line of it.\n";
    let mut text = LINE.repeat(bytes / LINE.len() + 1);
    text.truncate(bytes);
    text
}

#[cfg(test)]
mod tests {
    use super::super::scene::Output;
    use super::*;

    fn scene(prompts: &[&str], outputs: usize) -> Scene {
        Scene {
            model: "gpt-5.5".to_owned(),
            prompts: prompts.iter().map(|&prompt| prompt.to_owned()).collect(),
            outputs: vec![Output { said: "hi\n".to_owned(), exit: Some(0), session: None }; outputs],
            ..Scene::default()
        }
    }

    fn once(scene: &Scene) -> Plan {
        plan(scene, None, &mut BTreeMap::new())
    }

    fn text(plan: &Plan) -> String {
        match plan.items.last() {
            Some(Item::Text(deltas)) => deltas.concat(),
            other => panic!("no text: {other:?}"),
        }
    }

    #[test]
    fn without_markers_it_echoes() {
        assert_eq!(text(&once(&scene(&["hello"], 0))), "echo: hello");
        assert_eq!(text(&once(&scene(&["a [[recall]]", "b", "[[recall]]"], 0))), r#"recall: ["a [[recall]]","b"]"#);
        assert_eq!(text(&once(&scene(&["go [[slow 3x1ms]]"], 0))), "1 2 3 echo: go");
        assert_eq!(text(&once(&scene(&["[[big 40K]] [[say end]]"], 0))).len(), 40 * 1024 + 3);
    }

    #[test]
    fn each_call_ends_a_share() {
        let prompt = ["[[hold A]] [[tools a ;; b]] [[500]] [[tool c]] [[say done]]"];
        let first = once(&scene(&prompt, 0));
        assert_eq!((first.waits.len(), first.items.len(), first.failure), (1, 2, None));
        assert_eq!(once(&scene(&prompt, 1)).items, [Item::Call(Call::Shell("b".to_owned()))]);
        let second = once(&scene(&prompt, 2));
        assert_eq!((second.waits.len(), second.failure), (0, Some(Failure::Server)));
        assert_eq!(text(&once(&scene(&prompt, 3))), "done");
        assert_eq!(text(&once(&scene(&["[[tool echo hi]] x"], 1))), "tool exit 0: hi\necho: x");
        let folded = Scene { folded: 1, ..scene(&["[[tool echo hi]] x"], 0) };
        assert_eq!(text(&once(&folded)), "echo: x");
    }

    #[test]
    fn counted_markers_wear_out() {
        let mut used = BTreeMap::new();
        let scene = scene(&["[[500 x2]] [[401 x1 @gpt-5.5]] [[429 @other]] hi"], 0);
        let played: Vec<_> = (0..4).map(|_| plan(&scene, None, &mut used).failure).collect();
        assert_eq!(played, [Some(Failure::Server), Some(Failure::Server), Some(Failure::Unauthorized), None]);
    }

    #[test]
    fn compactions_obey_their_own_markers_alone() {
        let mut scene = scene(&["[[compact-500 x1]] [[hang]] a", "b"], 1);
        scene.compaction = true;
        let mut used = BTreeMap::new();
        assert_eq!(plan(&scene, None, &mut used).failure, Some(Failure::Server));
        let then = plan(&scene, None, &mut used);
        assert_eq!((then.failure, then.waits.len()), (None, 0));
        assert_eq!(text(&then), "summary of 2 prompts; tool outputs folded: 1.");
        scene.compaction = false;
        assert_eq!(once(&scene).failure, None);
    }

    #[test]
    fn the_side_door_outranks_the_prompt_and_the_prompt_the_model() {
        let mut scene = scene(&["[[401]]"], 0);
        scene.model = "standin-503".to_owned();
        let failure = |scene: &Scene, door| plan(scene, door, &mut BTreeMap::new()).failure;
        assert_eq!(failure(&scene, Some("[[500]]")), Some(Failure::Server));
        assert_eq!(failure(&scene, Some("[[compact-500]]")), Some(Failure::Unauthorized));
        scene.prompts = vec!["hi".to_owned()];
        assert_eq!(failure(&scene, None), Some(Failure::Overloaded));
    }

    #[test]
    fn a_command_that_runs_on_is_waited_for() {
        let mut scene = scene(&["[[tool sleep 60]]"], 1);
        scene.outputs[0].session = Some(7);
        assert_eq!(once(&scene).items, [Item::Poll { output: 0, session: 7 }]);
    }
}
