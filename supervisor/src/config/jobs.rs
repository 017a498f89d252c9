//! Jobs: who is asked what and when, and where the answer goes.

use super::model::{Bot, Deliver, Job};
use super::read::{Span, Table};
use super::report::{Problem, Sink};
use super::resolve::Names;
use super::section::{Section, World};
use super::value::{echo, nearest};
use super::words::{Catchup, OnUncertain, Overlap};
use croner::Cron;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::str::FromStr;

/// Longest cron expression in bytes; a list of every minute of an hour has 170.
const CRON_BYTES_MAX: usize = 256;

/// Longest name of a job in bytes; it is shown in every listing.
const NAME_BYTES_MAX: usize = 64;

/// All jobs that could be read whole, in the order of the file.
pub(super) fn jobs(
    root: &Section<'_>,
    names: &Names<'_>,
    bots: &BTreeMap<String, Bot>,
    world: World<'_>,
    sink: &mut Sink,
) -> Vec<Job> {
    let mut seen: BTreeMap<String, Span> = BTreeMap::new();
    let mut all = Vec::new();
    for table in root.tables("jobs") {
        let section = Section::new("jobs.*", Some(table), world);
        let name = name(table, &section, &mut seen, sink);
        let agent = section.required("agent", &table.span, sink);
        let agent = agent.and_then(|found| names.agent(&found.value, &found.span, sink));
        let timezone = timezone(&section, sink);
        let cron = cron(table, &section, &timezone, sink);
        let prompt = prompt(table, &section, sink);
        let deliver = deliver(&section, names, bots, sink);
        let (Some(name), Some(agent), Some(cron), Some(prompt)) = (name, agent, cron, prompt) else { continue };
        all.push(Job {
            name,
            cron,
            timezone,
            prompt,
            deliver,
            overlap: section.word("overlap", Overlap::parse, Overlap::Skip),
            catchup: section.word("catchup", Catchup::parse, Catchup::None),
            on_uncertain: section.word("on_uncertain", OnUncertain::parse, OnUncertain::Fail),
            agent,
        });
    }
    all
}

fn name(table: &Table, section: &Section<'_>, seen: &mut BTreeMap<String, Span>, sink: &mut Sink) -> Option<String> {
    let found = section.required("name", &table.span, sink)?;
    let good = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '.';
    if found.value.is_empty() || found.value.len() > NAME_BYTES_MAX || !found.value.chars().all(good) {
        let label = "must be 1 to 64 bytes of letters, digits, _, - and .";
        sink.push(Problem::error(&found.span, format!("bad name of a job: {}", echo(&found.value))).label(label));
        return None;
    }
    if let Some(first) = seen.get(&found.value) {
        let problem = Problem::error(&found.span, format!("job {} is named twice", echo(&found.value)));
        sink.push(problem.label("and here again").also(first, "first here"));
        return None;
    }
    seen.insert(found.value.clone(), found.span);
    Some(found.value)
}

fn timezone(section: &Section<'_>, sink: &mut Sink) -> String {
    let Some(found) = section.found::<String>("timezone") else { return section.get("timezone") };
    if TimeZone::get(&found.value).is_err() {
        let problem = Problem::error(&found.span, format!("no time zone is called {}", echo(&found.value)));
        let known: Vec<String> = if sink.is_full() {
            Vec::new()
        } else {
            jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect()
        };
        let problem = problem.label("unknown time zone");
        sink.push(match nearest(&found.value, known.iter().map(String::as_str)) {
            Some(near) => problem.help(format!("did you mean \"{near}\"?")),
            None => problem.help("write one such as \"Europe/Berlin\" or \"UTC\""),
        });
    }
    found.value
}

fn cron(table: &Table, section: &Section<'_>, timezone: &str, sink: &mut Sink) -> Option<String> {
    let found = section.required("cron", &table.span, sink)?;
    let why = match checked(&found.value) {
        Err(why) => why,
        Ok(cron) if fires(&cron, timezone) => return Some(found.value),
        Ok(_) => "there is no such date".to_owned(),
    };
    let problem = Problem::error(&found.span, format!("bad cron expression {}", echo(&found.value))).label(why);
    sink.push(problem.help("minute hour day month weekday, such as \"30 7 * * mon-fri\""));
    None
}

fn checked(text: &str) -> Result<Cron, String> {
    if text.len() > CRON_BYTES_MAX {
        return Err(format!("is longer than {CRON_BYTES_MAX} bytes"));
    }
    if !text.is_ascii() {
        return Err("holds a character that no cron expression has".to_owned());
    }
    Cron::from_str(text).map_err(|error| {
        let text = error.to_string();
        let why = text.split_once(": ").map_or(text.as_str(), |(_, why)| why);
        let mut chars = why.trim_end_matches('.').chars();
        chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
    })
}

/// Whether `cron` fires at all after a day that is the same on every host: 29 February comes, 30 February never.
fn fires(cron: &Cron, timezone: &str) -> bool {
    let zone = TimeZone::get(timezone).unwrap_or(TimeZone::UTC);
    let from = Timestamp::UNIX_EPOCH.to_zoned(zone);
    cron.find_next_occurrence(&from, true).is_ok()
}

fn prompt(table: &Table, section: &Section<'_>, sink: &mut Sink) -> Option<String> {
    let found = section.required("prompt", &table.span, sink)?;
    if found.value.trim().is_empty() {
        sink.push(Problem::error(&found.span, "the prompt is empty").label("nothing is asked"));
        return None;
    }
    Some(found.value)
}

fn deliver(section: &Section<'_>, names: &Names<'_>, bots: &BTreeMap<String, Bot>, sink: &mut Sink) -> Deliver {
    let Some(found) = section.found::<String>("deliver").filter(|found| found.value != "none") else {
        return Deliver::None;
    };
    let parts: Vec<&str> = found.value.split(':').collect();
    let number = |text: &&str| text.parse::<i64>().ok().filter(|n| *n != 0);
    let target = match parts.as_slice() {
        ["telegram", bot, chat] => number(chat).map(|chat| (*bot, chat, None)),
        ["telegram", bot, chat, topic] => {
            number(chat).zip(number(topic)).map(|(chat, topic)| (*bot, chat, Some(topic)))
        }
        _ => None,
    };
    let Some((bot, chat, topic)) = target else {
        let problem = Problem::error(&found.span, format!("unknown target {}", echo(&found.value)));
        let help = "CHAT and TOPIC are numbers; without `deliver` the answer stays in the ledger";
        sink.push(problem.label("must be telegram:BOT:CHAT or telegram:BOT:CHAT:TOPIC").help(help));
        return Deliver::None;
    };
    if !names.bots.contains_key(bot) {
        let problem =
            Problem::error(&found.span, format!("no bot is called {}", echo(bot))).label("unknown bot").derived();
        sink.push(match nearest(bot, names.bots.keys().copied()) {
            Some(near) => problem.help(format!("did you mean \"telegram:{near}:{chat}\"?")),
            None => problem.help(format!("a table [telegram.{bot}] would make it")),
        });
    } else if bots.get(bot).is_some_and(|b| !b.allow.contains(&chat) && !b.owners.contains(&chat)) {
        let problem = Problem::warning(&found.span, format!("chat {chat} is not heard by bot {}", echo(bot)));
        sink.push(problem.label("gets answers, but cannot ask back").help("add it to `allow`").derived());
    }
    Deliver::Telegram { bot: bot.to_owned(), chat, topic }
}
