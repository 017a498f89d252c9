//! When all is quiet: what the ledger, the chats, the workspaces and the disk say.

use super::faults::Faults;
use super::flow::Flow;
use super::{AGENTS, Chaos, QUIET_WITHIN};
use cofferdam_tests::standin::telegram::What;
use cofferdam_tests::wait::until;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const MARK: &str = "(sent again: the first try may have arrived)";

/// Waits until every message, turn and post has its end.
pub(super) fn quiet(chaos: &Chaos, flow: &Flow) {
    const OPEN: &str = "SELECT 'update ' || id || ' of ' || bot FROM updates WHERE outcome IS NULL
         UNION ALL SELECT 'turn ' || id || ' of ' || agent FROM turns WHERE outcome IS NULL
         UNION ALL SELECT 'post ' || id || ': ' || why FROM posts WHERE state = 'waiting'";
    let updates = flow.chats.len() as u64;
    let told = || {
        let ps = chaos.world.cli(&["ps"]).stdout;
        format!("open: {:#?}\n{ps}\n{}", chaos.ledger(OPEN), chaos.world.story())
    };
    let look = || {
        let all = chaos.count("SELECT count(*) FROM updates") >= updates;
        (all && chaos.ledger(OPEN).is_empty()).then_some(())
    };
    until("every message, turn and post to end", QUIET_WITHIN, told, look);
}

/// One line a fact.
pub(super) fn report(chaos: &Chaos, flow: &Flow, faults: &Faults) -> String {
    let mut text = format!(
        "seed {}: {} messages by Telegram, {} by the command line (told no, by exit code: {:?})\n{faults}\n",
        chaos.dice.seed(),
        flow.chats.len(),
        flow.console.len(),
        flow.refused,
    );
    let groups = [
        ("updates", "SELECT outcome || ' ' || count(*) FROM updates GROUP BY outcome"),
        ("turns", "SELECT outcome || ' ' || coalesce(class, '') || ' ' || count(*) FROM turns GROUP BY outcome, class"),
        ("attempts", "SELECT runtime || ' ' || outcome || ' ' || count(*) FROM attempts GROUP BY runtime, outcome"),
        ("posts", "SELECT kind || ' ' || state || ' ' || count(*) FROM posts GROUP BY kind, state"),
    ];
    for (name, sql) in groups {
        writeln!(text, "{name}: {}", chaos.ledger(sql).join(", ")).unwrap();
    }
    if chaos.disk.is_none() {
        text.push_str("no full disk: this user may not mount\n");
    }
    text
}

/// Every message that was accepted is there once and has one end.
pub(super) fn ledger(chaos: &Chaos, flow: &Flow) {
    assert_eq!(chaos.count("SELECT count(*) FROM updates"), flow.chats.len() as u64, "each update once");
    for (tag, (bot, _, written)) in &flow.chats {
        let sql = format!("SELECT outcome FROM updates WHERE bot = 'bot{bot}' AND external = {}", written.update_id);
        assert_eq!(chaos.ledger(&sql).len(), 1, "{tag}");
    }
    for (tag, turn) in &flow.console {
        let found = chaos.ledger(&format!("SELECT prompt FROM turns WHERE id = {turn} AND outcome IS NOT NULL"));
        assert!(found.len() == 1 && found[0].contains(tag.as_str()), "{tag}: {found:?}");
    }
    // A turn that is told as done has one attempt that was; only what is safe is tried again.
    let twice = "SELECT turn_id FROM attempts WHERE outcome = 'completed' GROUP BY turn_id HAVING count(*) > 1";
    assert_eq!(chaos.ledger(twice), [""; 0], "completed twice");
    let open = "SELECT id FROM attempts WHERE outcome IS NULL";
    assert_eq!(chaos.ledger(open), [""; 0], "attempts without an end");
    let unsafe_ones = "SELECT earlier.turn_id FROM attempts AS earlier JOIN attempts AS later
        ON later.turn_id = earlier.turn_id AND later.id > earlier.id WHERE earlier.replay_safe = 0";
    assert_eq!(chaos.ledger(unsafe_ones), [""; 0], "what may have had an effect was tried again");
    let untold = "SELECT turns.id FROM turns WHERE source = 'telegram' AND outcome IN ('completed', 'failed')
        AND NOT EXISTS (SELECT 1 FROM posts WHERE posts.turn_id = turns.id AND kind = 'final' AND state = 'sent')";
    assert_eq!(chaos.ledger(untold), [""; 0], "ended, and the sender was not told");
    // A status message that nobody has read when its turn ends is of no more use.
    let dead = "SELECT kind || ' ' || why FROM posts WHERE state = 'dead' AND kind <> 'status'";
    assert_eq!(chaos.ledger(dead), [""; 0], "nothing was impossible to send");
}

/// Nobody reads an answer twice without the mark, and nobody without a cause.
pub(super) fn chats(chaos: &Chaos, flow: &Flow, faults: &Faults) {
    let mut answers: BTreeMap<(usize, i64), Vec<String>> = BTreeMap::new();
    for (bot, chat) in [0, 1].into_iter().flat_map(|bot| super::flow::people(bot).map(|chat| (bot, chat))) {
        let events = chaos.bots[bot].events(chat);
        let sent = events.into_iter().filter_map(|event| match event.what {
            What::Sent { text, .. } => Some(text),
            What::Heard { .. }
            | What::Edited { .. }
            | What::Deleted { .. }
            | What::Action { .. }
            | What::Reacted { .. } => None,
        });
        answers.insert((bot, chat), sent.filter(|text| text.contains("echo: ")).collect());
    }
    for (tag, (bot, chat, _)) in &flow.chats {
        let here: Vec<_> = answers[&(*bot, *chat)].iter().filter(|text| text.contains(tag.as_str())).collect();
        let bare = here.iter().filter(|text| !text.contains(MARK)).count();
        assert!(bare <= 1, "{tag} is answered {bare} times without a mark: {here:?}");
        let elsewhere = answers.iter().filter(|(place, _)| **place != (*bot, *chat));
        let strays = elsewhere.flat_map(|(_, texts)| texts).filter(|text| text.contains(tag.as_str())).count();
        assert_eq!(strays, 0, "{tag} is answered in another chat");
    }
    let marks = answers.values().flatten().filter(|text| text.contains(MARK)).count() as u64;
    let marked = chaos.count("SELECT count(*) FROM posts WHERE maybe_repeated <> 0");
    assert!(marks <= marked, "{marks} marks, {marked} posts that may be repeated");
    let causes = faults.of("SIGKILL supervisor")
        + faults.of("SIGTERM supervisor")
        + faults.of("telegram cut after send")
        + faults.of("telegram cut before");
    // Each cause can catch one post on its way of each chat.
    assert!(marked <= causes * 6, "{marked} posts may be repeated, and only {causes} causes");
}

/// No deed is done twice.
pub(super) fn deeds(chaos: &Chaos) {
    let mut all = 0;
    for (agent, _, _) in AGENTS {
        let done = fs::read_to_string(chaos.world.workspace(agent).join("done")).unwrap_or_default();
        let mut times: BTreeMap<&str, u32> = BTreeMap::new();
        done.lines().for_each(|line| *times.entry(line).or_default() += 1);
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "{agent} did twice: {twice:?}");
        all += times.len();
    }
    assert!(all > 0, "a run without deeds proves nothing");
}

/// What we keep on disk grows with the messages at most, and the journals not even so.
pub(super) fn sizes(chaos: &Chaos, messages: u64) {
    let state = chaos.world.state();
    let ledger = size(&state.join("ledger.db")) + size(&state.join("ledger.db-wal"));
    assert!(ledger < (8 << 20) + messages * (16 << 10), "the ledger has {ledger} bytes after {messages} messages");
    for (agent, _, _) in AGENTS {
        let home = state.join("agents").join(agent);
        let journal = size(&home.join("journal"));
        assert!(journal < 8 << 20, "the journal of {agent} has {journal} bytes");
        let log = size(&home.join("log"));
        assert!(log < 64 << 20, "the logs of {agent} have {log} bytes");
    }
}

/// Bytes of a file, or of all files at and below a folder.
fn size(at: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(at) else { return fs::metadata(at).map_or(0, |file| file.len()) };
    entries.flatten().map(|entry| size(&entry.path())).sum()
}
