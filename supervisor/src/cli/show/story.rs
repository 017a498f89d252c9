//! `turns show`: what happened to one turn, readable at three in the morning.

use super::tables::{state_words, tone_of_turn};
use crate::cli::screen::{Look, Tone, duration, tame, wrap};
use protocol::control::{AttemptStory, TurnStory};

/// Lines of a prompt, an answer or a stderr that are shown; the ledger and `--json` have the rest.
const LINES_MAX: usize = 20;

/// The whole story.
pub(crate) fn story(story: &TurnStory, look: &Look) -> String {
    let mut page = Page { text: String::new(), look };
    page.head(story);
    page.section("asked");
    page.block(&story.prompt);
    page.section("what happened");
    page.timeline(story);
    for attempt in &story.attempts {
        page.attempt(attempt);
    }
    page.section("answer");
    page.block(if story.answer.is_empty() { "(none)" } else { &story.answer });
    if !story.posts.is_empty() {
        page.section("posts");
        for (state, words) in &story.posts {
            page.line(&format!("  {state:<9} {}", tame(words)));
        }
    }
    if let Some(next) = &story.next_step {
        page.section("next step");
        let next = next.replace("ID", &story.row.turn.to_string()).replace("AGENT", &story.row.agent);
        page.block(&next);
        if !next.contains("retry") && story.row.state == "failed" {
            page.block(&format!("`cofferdam retry {}` tries it again", story.row.turn));
        }
    }
    page.text
}

struct Page<'a> {
    text: String,
    look: &'a Look,
}

impl Page<'_> {
    fn line(&mut self, text: &str) {
        self.text.push_str(text.trim_end());
        self.text.push('\n');
    }

    fn section(&mut self, title: &str) {
        self.text.push('\n');
        let title = self.look.paint(Tone::Strong, title);
        self.line(&title);
    }

    /// Text from outside, indented, its first lines.
    fn block(&mut self, text: &str) {
        let tamed = tame(text.trim_end());
        for line in tamed.lines().take(LINES_MAX) {
            self.text.push_str(&wrap(line, self.look.width, "  "));
            if line.is_empty() {
                self.text.push('\n');
            }
        }
        let more = tamed.lines().count().saturating_sub(LINES_MAX);
        if more > 0 {
            let note = self.look.paint(Tone::Faint, &format!("  ... {more} more lines"));
            self.line(&note);
        }
    }

    fn head(&mut self, story: &TurnStory) {
        let row = &story.row;
        let look = self.look;
        let state = look.paint(tone_of_turn(&row.state), &state_words(&row.state, row.class.as_deref()));
        let title = look.paint(Tone::Strong, &format!("turn {} of {}", row.turn, row.agent));
        self.line(&format!("{title}  {state}"));
        let took = row.ended_at.map(|end| format!(", took {}", duration(end.saturating_sub(row.accepted_at))));
        self.line(&format!(
            "{} ({} ago) from {}{}",
            look.at(row.accepted_at),
            look.age(row.accepted_at),
            tame(&story.source),
            took.unwrap_or_default(),
        ));
        let repeats = story.retry_of.map(|turn| format!(", a retry of turn {turn}")).unwrap_or_default();
        self.line(&format!("conversation {}{repeats}", tame(&row.conversation)));
    }

    /// Everything with a time, in order, as seconds since the message was accepted.
    fn timeline(&mut self, story: &TurnStory) {
        let mut moments = vec![(story.row.accepted_at, "accepted".to_owned())];
        for a in &story.attempts {
            let where_to = format!("{} on {}", a.model, a.runtime);
            moments.push((
                a.begun_at,
                format!("attempt {} sent to run {} of the worker: {where_to}", a.attempt, a.incarnation),
            ));
            if let Some(first) = a.first_event_ms {
                moments
                    .push((a.begun_at.saturating_add(first), format!("attempt {}: first event of Codex", a.attempt)));
            }
            if let Some(at) = a.started_at {
                let thread = a.thread.as_deref().map(|t| format!(" on thread {t}")).unwrap_or_default();
                moments.push((at, format!("attempt {}: Codex runs it{thread}", a.attempt)));
            }
            if let Some(at) = a.ended_at {
                moments.push((at, format!("attempt {} {}", a.attempt, state_words(&a.state, a.class.as_deref()))));
            }
        }
        moments.extend(story.events.iter().cloned());
        if let Some(end) = story.row.ended_at {
            moments.push((end, state_words(&story.row.state, story.row.class.as_deref())));
        }
        moments.sort_by_key(|(at, _)| *at);
        for (at, words) in moments {
            let offset = format!("+{}", duration(at.saturating_sub(story.row.accepted_at)));
            self.line(&format!("  {offset:>8}  {}", tame(&words)));
        }
    }

    fn attempt(&mut self, a: &AttemptStory) {
        let look = self.look;
        self.section(&format!("attempt {}", a.attempt));
        let state = look.paint(tone_of_turn(&a.state), &state_words(&a.state, a.class.as_deref()));
        self.row("route", &format!("{} on {}", a.model, a.runtime));
        self.row("state", &(state + &exit_words(a)));
        self.row("said", &a.detail);
        self.row("ran", &a.ran.join("\n"));
        if a.state != "completed" && a.ended_at.is_some() {
            let again = if a.replay_safe {
                "safe: nothing but words came of it"
            } else {
                "not safe: an effect could be repeated"
            };
            self.row("replay", again);
        }
        if let Some(reset) = a.resets_at {
            self.row("reset", &look.at(reset.saturating_mul(1000)));
        }
        if a.tokens != (0, 0) {
            self.row("tokens", &format!("{} read, {} written", a.tokens.0, a.tokens.1));
        }
        self.row("codex", a.codex_version.as_deref().unwrap_or(""));
        self.row("stderr", &a.stderr);
    }

    /// A named value; its further lines stand below the first, only the last ones of a long one.
    fn row(&mut self, name: &str, value: &str) {
        let painted = value.contains('\u{1b}') && self.look.colour && name == "state";
        let tamed = if painted { value.into() } else { tame(value.trim_end()) };
        let lines: Vec<&str> = tamed.lines().collect();
        let from = lines.len().saturating_sub(LINES_MAX);
        for (index, line) in lines.iter().skip(from).enumerate() {
            let name = if index == 0 { name } else { "" };
            self.line(&format!("  {name:<7} {line}"));
        }
    }
}

fn exit_words(a: &AttemptStory) -> String {
    match (a.exit_code, a.signal) {
        (Some(code), _) => format!(", Codex left with exit code {code}"),
        (None, Some(signal)) => format!(", Codex was ended by signal {signal}"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_failed_turn_tells_its_story() {
        insta::assert_snapshot!(story(&samples::story(), &samples::look()));
    }

    #[test]
    fn a_turn_that_waits_is_short() {
        let waiting = TurnStory {
            row: samples::turns()[0].clone(),
            source: "console".into(),
            retry_of: None,
            prompt: "hello".into(),
            answer: String::new(),
            next_step: None,
            attempts: Vec::new(),
            events: Vec::new(),
            posts: Vec::new(),
        };
        insta::assert_snapshot!(story(&waiting, &samples::look()));
    }

    #[test]
    fn a_hostile_stderr_is_tamed_and_clipped() {
        let mut hostile = samples::story();
        hostile.attempts[0].stderr = "\u{1b}]0;owned\u{7}\n".repeat(500);
        let page = story(&hostile, &Look { colour: false, ..samples::look() });
        assert!(!page.contains('\u{1b}') && page.lines().count() < 80, "{page}");
    }
}
