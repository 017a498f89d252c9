//! The listings: agents, health, turns, what waits.

use crate::cli::screen::{Look, Tone, bytes, duration, one_line};
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};
use protocol::control::{AgentRow, AgentState, ChannelRow, Health, HealthStatus, LastError, QueueRow, TurnRow};

/// Longest prompt in a table, in characters: what remains of 80 columns.
const PROMPT_CHARACTERS_MAX: usize = 32;

/// Longest words for what an agent does, in characters.
const DOING_CHARACTERS_MAX: usize = 24;

/// A table without borders: the columns are enough.
fn table(look: &Look, header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(look.width);
    if look.colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(|word| Cell::new(word).add_attribute(Attribute::Dim)));
    table
}

fn finish(mut table: Table, right: &[usize]) -> String {
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
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
    let header = ["AGENT", "STATE", "FOR", "RUNS", "WAITS", "MEMORY", "PROCS", "DOING"];
    let mut table = table(look, &header);
    for row in rows {
        let settling = row.wanted == "down" && !matches!(row.state, AgentState::Down | AgentState::Stopping);
        let state =
            if settling { format!("{} \u{2192} down", row.state.as_str()) } else { row.state.as_str().to_owned() };
        table.add_row([
            toned(row.agent.as_str(), Tone::Strong),
            toned(&state, tone_of(row.state)),
            Cell::new(look.age(row.since)),
            Cell::new(count(row.running)),
            Cell::new(count(row.queued)),
            Cell::new(if row.processes == 0 { "-".to_owned() } else { bytes(row.rss_bytes) }),
            Cell::new(count(row.processes)),
            Cell::new(doing(row, look)),
        ]);
    }
    let mut picture = finish(table, &[3, 4, 5, 6]);
    for row in rows {
        if let Some(error) = row.last_error.as_ref().filter(|error| error.streak > 0) {
            picture.push_str(&trouble(row, error, look));
        }
    }
    picture
}

fn count(number: u32) -> String {
    if number == 0 { "-".to_owned() } else { number.to_string() }
}

fn doing(row: &AgentRow, look: &Look) -> String {
    match (&row.phase, row.phase_since) {
        (Some(phase), Some(since)) => format!("{} {}", one_line(phase, DOING_CHARACTERS_MAX), look.age(since)),
        (Some(phase), None) => one_line(phase, DOING_CHARACTERS_MAX),
        (None, _) => String::new(),
    }
}

fn trouble(row: &AgentRow, error: &LastError, look: &Look) -> String {
    let times = if error.streak > 1 { format!("{} times in a row, last ", error.streak) } else { String::new() };
    let head = format!("{}: {}", row.agent, error.class);
    let width = usize::from(look.width).saturating_sub(2);
    let next =
        protocol::FailureClass::parse(&error.class).map(|c| c.policy().next_step.replace("AGENT", row.agent.as_str()));
    let next = next.unwrap_or_else(|| format!("`cofferdam logs {}`", row.agent));
    format!(
        "\n{} ({times}{} ago)\n  {}\n  next: {next}\n",
        look.paint(Tone::Bad, &head),
        look.age(error.at),
        one_line(&error.text, width),
    )
}

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
    let mut table = table(look, &["CHANNEL", "WAITING", "STATE"]);
    for ChannelRow { channel, state, waiting } in &health.channels {
        let tone = if state == "ok" { Tone::Good } else { Tone::Bad };
        table.add_row([Cell::new(channel), Cell::new(count(*waiting)), toned(&one_line(state, 200), tone)]);
    }
    picture.push_str(&finish(table, &[1]));
    picture
}

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

/// State of a turn, with the class of a failure.
pub(super) fn state_words(state: &str, class: Option<&str>) -> String {
    class.map_or_else(|| state.to_owned(), |class| format!("{state}: {class}"))
}

/// Turns, latest first.
pub(crate) fn turns(rows: &[TurnRow], look: &Look) -> String {
    if rows.is_empty() {
        return "no turns\n".to_owned();
    }
    let mut table = table(look, &["TURN", "AGENT", "ASKED", "STATE", "TOOK", "PROMPT"]);
    for row in rows {
        let took = row.ended_at.map_or_else(|| "-".to_owned(), |end| duration(end.saturating_sub(row.accepted_at)));
        table.add_row([
            Cell::new(row.turn),
            Cell::new(&row.agent),
            Cell::new(format!("{} ago", look.age(row.accepted_at))),
            toned(&state_words(&row.state, row.class.as_deref()), tone_of_turn(&row.state)),
            Cell::new(took),
            Cell::new(one_line(&row.prompt, PROMPT_CHARACTERS_MAX)),
        ]);
    }
    finish(table, &[0])
}

/// What runs and waits at an agent.
pub(crate) fn queue(rows: &[QueueRow], look: &Look) -> String {
    if rows.is_empty() {
        return "nothing runs or waits\n".to_owned();
    }
    let mut table = table(look, &["TURN", "PLACE", "CONVERSATION", "ASKED", "PROMPT"]);
    for row in rows {
        let tone = if row.place == "running" { Tone::Busy } else { Tone::Warn };
        table.add_row([
            Cell::new(row.turn),
            toned(&row.place, tone),
            Cell::new(one_line(&row.conversation, PROMPT_CHARACTERS_MAX)),
            Cell::new(format!("{} ago", look.age(row.accepted_at))),
            Cell::new(one_line(&row.prompt, PROMPT_CHARACTERS_MAX)),
        ]);
    }
    finish(table, &[0])
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
        insta::assert_snapshot!(fits(agents(&samples::agents(), &samples::look())), @"");
        assert_eq!(agents(&[], &samples::look()), "no agents are configured\n");
    }

    #[test]
    fn health_at_a_glance() {
        insta::assert_snapshot!(fits(health(&samples::health(), &samples::look())), @"");
    }

    #[test]
    fn turns_latest_first() {
        insta::assert_snapshot!(fits(turns(&samples::turns(), &samples::look())), @"");
    }

    #[test]
    fn what_waits() {
        insta::assert_snapshot!(fits(queue(&samples::queue(), &samples::look())), @"");
    }

    #[test]
    fn colour_only_where_it_is_wanted() {
        let look = Look { colour: true, ..samples::look() };
        assert!(agents(&samples::agents(), &look).contains('\u{1b}'));
        assert!(!agents(&samples::agents(), &samples::look()).contains('\u{1b}'));
    }
}
