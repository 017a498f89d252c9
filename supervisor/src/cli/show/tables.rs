//! The listings: agents, health, turns, what waits.

use crate::cli::screen::{Look, Tone, bytes, duration, one_line, wrap};
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};
use protocol::control::{AgentRow, AgentState, ChannelRow, Health, HealthStatus, LastError, QueueRow, TurnRow};
use protocol::envelope::By;
use std::collections::BTreeMap;

/// Narrowest last column, in characters: below that a line is rather wrapped than clipped to nothing.
const LAST_CHARACTERS_MIN: usize = 16;

/// Blanks between two columns.
const GAP: u16 = 2;

/// A listing without borders: the columns are enough. The last column gets what remains of the width.
struct Listing<'a> {
    look: &'a Look,
    header: &'a [&'a str],
    /// Columns of numbers.
    right: &'a [usize],
    rows: Vec<Vec<(String, Option<Tone>)>>,
}

impl Listing<'_> {
    fn row<const N: usize>(&mut self, cells: [(String, Option<Tone>); N]) {
        self.rows.push(cells.into());
    }

    /// What the last column may take, in characters.
    fn rest(&self) -> usize {
        let wide = |column: usize| {
            let header = self.header.get(column).map_or(0, |word| word.chars().count());
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|(text, _)| text.chars().count());
            cells.max().unwrap_or(0).max(header) + usize::from(GAP)
        };
        let others: usize = (0..self.header.len().saturating_sub(1)).map(wide).sum();
        usize::from(self.look.width).saturating_sub(others).max(LAST_CHARACTERS_MIN)
    }

    fn draw(self) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(self.look.width + GAP);
        if self.look.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.set_header(self.header.iter().map(|word| Cell::new(word).add_attribute(Attribute::Dim)));
        let (rest, last) = (self.rest(), self.header.len().saturating_sub(1));
        for row in &self.rows {
            table.add_row(row.iter().enumerate().map(|(column, (text, tone))| {
                let text = if column == last { one_line(text, rest) } else { text.clone() };
                tone.map_or_else(|| Cell::new(&text), |tone| toned(&text, tone))
            }));
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, GAP));
            if self.right.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.trim_fmt() + "\n"
    }
}

fn plain(text: impl Into<String>) -> (String, Option<Tone>) {
    (text.into(), None)
}

fn toned(text: &str, tone: Tone) -> Cell {
    let cell = Cell::new(text);
    match tone {
        Tone::Good => cell.fg(Color::Green),
        Tone::Busy => cell.fg(Color::Cyan),
        Tone::Warn => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
        Tone::Faint => cell.add_attribute(Attribute::Dim),
        Tone::Strong => cell.add_attribute(Attribute::Bold),
    }
}

const fn tone_of(state: AgentState) -> Tone {
    match state {
        AgentState::Down => Tone::Faint,
        AgentState::Adopting | AgentState::Starting | AgentState::Draining | AgentState::Stopping => Tone::Warn,
        AgentState::Ready => Tone::Good,
        AgentState::Busy => Tone::Busy,
        AgentState::Backoff | AgentState::Failed => Tone::Bad,
    }
}

/// Every agent, then what is wrong with those that have trouble.
pub(crate) fn agents(rows: &[AgentRow], look: &Look) -> String {
    if rows.is_empty() {
        return "no agents are configured\n".to_owned();
    }
    let header = ["AGENT", "STATE", "FOR", "RUNS", "WAITS", "MEMORY", "DOING"];
    let mut listing = Listing { look, header: &header, right: &[3, 4, 5], rows: Vec::new() };
    for row in rows {
        let leaving = row.wanted == "down" && !matches!(row.state, AgentState::Down | AgentState::Stopping);
        let arrow = if leaving { " \u{2192} down" } else { "" };
        listing.row([
            (row.agent.to_string(), Some(Tone::Strong)),
            (format!("{}{arrow}", row.state.as_str()), Some(tone_of(row.state))),
            plain(look.age(row.since)),
            plain(count(row.running)),
            plain(count(row.queued)),
            plain(if row.processes == 0 { "-".to_owned() } else { bytes(row.rss_bytes) }),
            plain(doing(row.phase.as_deref(), row.phase_since, look)),
        ]);
    }
    let mut picture = listing.draw();
    for row in rows {
        if let Some(error) = row.last_error.as_ref().filter(|error| error.streak > 0) {
            picture.push_str(&trouble(row, error, look));
        }
    }
    picture.push_str(&rungs(rows, look));
    let old: Vec<&str> = rows.iter().filter(|row| row.outdated).map(|row| row.agent.as_str()).collect();
    if !old.is_empty() {
        let words = format!("of an earlier build, replaced as they fall idle: {}", old.join(", "));
        picture.extend(["\n", &wrap(&words, look.width, "")]);
    }
    picture
}

/// On which rungs of containment the agents are, and which limits nothing holds.
fn rungs(rows: &[AgentRow], look: &Look) -> String {
    let mut by_rung: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in rows {
        by_rung.entry(&row.isolation).or_default().push(row.agent.as_str());
    }
    let told: Vec<String> = match by_rung.iter().next() {
        Some((rung, _)) if by_rung.len() == 1 => vec![(*rung).to_owned()],
        Some(_) | None => by_rung.iter().map(|(rung, names)| format!("{rung} ({})", names.join(", "))).collect(),
    };
    let mut text = format!("\n{}", wrap(&format!("isolation: {}", told.join(", ")), look.width, ""));
    for row in rows {
        let loose = row.limits.iter().filter(|bound| bound.by == By::Nothing);
        let loose: Vec<String> = loose.map(|bound| format!("limits.{}", bound.limit)).collect();
        if !loose.is_empty() {
            let line = format!("{}: nothing holds {} here; see `cofferdam doctor`", row.agent, loose.join(", "));
            text.push_str(&look.paint(Tone::Warn, &wrap(&line, look.width, "")));
        }
    }
    text
}

fn count(number: u32) -> String {
    if number == 0 { "-".to_owned() } else { number.to_string() }
}

fn doing(phase: Option<&str>, since: Option<u64>, look: &Look) -> String {
    match (phase, since) {
        (Some(phase), Some(since)) => format!("{} {phase}", look.age(since)),
        (Some(phase), None) => phase.to_owned(),
        (None, _) => String::new(),
    }
}

fn trouble(row: &AgentRow, error: &LastError, look: &Look) -> String {
    let times = if error.streak > 1 { format!("{} times in a row, last ", error.streak) } else { String::new() };
    let head = look.paint(Tone::Bad, &format!("{}: {}", row.agent, error.class));
    let advice = protocol::FailureClass::parse(&error.class).map(|class| class.policy().next_step);
    let given_up = matches!(row.state, AgentState::Failed | AgentState::Down);
    let of_worker =
        if given_up { "`cofferdam logs AGENT`, then `cofferdam start AGENT`" } else { "`cofferdam logs AGENT`" };
    let advice = advice.unwrap_or(of_worker).replace("AGENT", row.agent.as_str());
    // Without its number the turn is found in the list.
    let found = error.turn.map_or(format!("turns {} --failed", row.agent), |turn| format!("turns show {turn}"));
    let advice = advice.replace("turns show ID", &found);
    let text = wrap(&one_line(&error.text, TROUBLE_CHARACTERS_MAX), look.width, "  ");
    let next = wrap(&format!("next: {advice}"), look.width, "  ");
    format!("\n{head} ({times}{} ago)\n{text}{next}", look.age(error.at))
}

/// Longest words of a failure below the agents, in characters.
const TROUBLE_CHARACTERS_MAX: usize = 240;

/// Is all well?
pub(crate) fn health(health: &Health, look: &Look) -> String {
    let tone = match health.status {
        HealthStatus::Ok => Tone::Good,
        HealthStatus::Degraded => Tone::Warn,
        HealthStatus::Failing => Tone::Bad,
    };
    let agents: Vec<String> = health.agents.iter().filter(|(_, n)| **n > 0).map(|(s, n)| format!("{n} {s}")).collect();
    let agents = if agents.is_empty() { "none".to_owned() } else { agents.join(", ") };
    let mut picture = format!(
        "{}  cofferdam {}, up {}\n\nagents    {agents}\nledger    {}\n\n",
        look.paint(tone, health.status.as_str()),
        health.version,
        duration(health.uptime_s.saturating_mul(1000)),
        health.ledger,
    );
    let mut listing = Listing { look, header: &["CHANNEL", "WAITING", "STATE"], right: &[1], rows: Vec::new() };
    for ChannelRow { channel, state, waiting } in &health.channels {
        let tone = if state == "ok" { Tone::Good } else { Tone::Bad };
        listing.row([plain(channel), plain(count(*waiting)), (state.clone(), Some(tone))]);
    }
    picture.push_str(&listing.draw());
    for ChannelRow { channel, state, .. } in &health.channels {
        // What a row has no room for names the remedy.
        if state.chars().count() > STATE_CHARACTERS_MAX {
            let text = wrap(&one_line(state, TROUBLE_CHARACTERS_MAX * 2), look.width, "  ");
            picture.extend(["\n", &look.paint(Tone::Bad, channel), "\n", &text]);
        }
    }
    if let Some(why) = &health.upgrade_failed {
        let text = wrap(&one_line(why, TROUBLE_CHARACTERS_MAX * 2), look.width, "  ");
        picture.extend(["\n", &look.paint(Tone::Bad, "the last upgrade failed"), "\n", &text]);
    }
    picture
}

/// Longest state of a channel that its row has room for, in characters, at a width of 80 and with a long name.
const STATE_CHARACTERS_MAX: usize = 45;

/// The tone of a turn's state.
pub(super) fn tone_of_turn(state: &str) -> Tone {
    match state {
        "completed" => Tone::Good,
        "running" => Tone::Busy,
        "failed" => Tone::Bad,
        "interrupted" | "waiting" | "queued" => Tone::Warn,
        _ => Tone::Faint,
    }
}

/// State of a turn with the class of a failure.
pub(super) fn state_words(state: &str, class: Option<&str>) -> String {
    class.map_or_else(|| state.to_owned(), |class| format!("{state}: {class}"))
}

/// Turns, latest first.
pub(crate) fn turns(rows: &[TurnRow], look: &Look) -> String {
    if rows.is_empty() {
        return "no turns\n".to_owned();
    }
    let header = ["TURN", "AGENT", "AGO", "STATE", "TOOK", "PROMPT"];
    let mut listing = Listing { look, header: &header, right: &[0], rows: Vec::new() };
    for row in rows {
        let took = row.ended_at.map_or_else(|| "-".to_owned(), |end| duration(end.saturating_sub(row.accepted_at)));
        // The class says that it failed.
        let state = row.class.clone().unwrap_or_else(|| row.state.clone());
        listing.row([
            plain(row.turn.to_string()),
            plain(&row.agent),
            plain(look.age(row.accepted_at)),
            (state, Some(tone_of_turn(&row.state))),
            plain(took),
            plain(&row.prompt),
        ]);
    }
    listing.draw()
}

/// What runs and waits at an agent.
pub(crate) fn queue(rows: &[QueueRow], look: &Look) -> String {
    if rows.is_empty() {
        return "nothing runs or waits\n".to_owned();
    }
    let header = ["TURN", "PLACE", "AGO", "CONVERSATION", "DOING", "PROMPT"];
    let mut listing = Listing { look, header: &header, right: &[0], rows: Vec::new() };
    for row in rows {
        let tone = if row.place == "running" { Tone::Busy } else { Tone::Warn };
        listing.row([
            plain(row.turn.to_string()),
            (row.place.clone(), Some(tone)),
            plain(look.age(row.accepted_at)),
            plain(&row.conversation),
            plain(doing(row.phase.as_deref(), row.phase_since, look)),
            plain(&row.prompt),
        ]);
    }
    listing.draw()
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn fits(picture: String) -> String {
        for line in picture.lines() {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        }
        picture
    }

    #[test]
    fn agents_at_a_glance() {
        insta::assert_snapshot!(fits(agents(&samples::agents(), &samples::look())));
        assert_eq!(agents(&[], &samples::look()), "no agents are configured\n");
    }

    #[test]
    fn health_at_a_glance() {
        insta::assert_snapshot!(fits(health(&samples::health(), &samples::look())));
    }

    #[test]
    fn a_fault_that_does_not_fit_its_row_is_told_in_full() {
        let mut ailing = samples::health();
        for channel in &mut ailing.channels {
            channel.state = "the token was refused: Unauthorized: check token_file or token_env, then reload".into();
        }
        let shown = fits(health(&ailing, &samples::look()));
        assert!(shown.ends_with("reload\n"), "{shown}");
    }

    #[test]
    fn turns_latest_first() {
        insta::assert_snapshot!(fits(turns(&samples::turns(), &samples::look())));
    }

    #[test]
    fn what_waits() {
        insta::assert_snapshot!(fits(queue(&samples::queue(), &samples::look())));
    }

    #[test]
    fn colour_only_where_it_is_wanted() {
        let look = Look { colour: true, ..samples::look() };
        assert!(agents(&samples::agents(), &look).contains('\u{1b}'));
        assert!(!agents(&samples::agents(), &samples::look()).contains('\u{1b}'));
    }
}
