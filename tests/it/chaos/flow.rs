//! Messages: people at two bots and the command line at all four agents, each text with a tag of its own.

use super::faults::Faults;
use super::{AGENTS, Chaos, OPEN_MAX, QUIET_WITHIN};
use cofferdam_tests::standin::telegram::Written;
use cofferdam_tests::wait::until;
use serde_json::Value;
use std::collections::BTreeMap;

/// Messages of a bot's conversation: who writes there.
pub(super) fn people(bot: usize) -> [i64; 3] {
    [[101, 102, 103], [201, 202, 203]][bot]
}

/// What was said, by tag.
#[derive(Default)]
pub(super) struct Flow {
    next: u64,
    /// Telegram: the bot, the person, the update.
    pub(super) chats: BTreeMap<String, (usize, i64, Written)>,
    /// The command line: the turn that was promised.
    pub(super) console: BTreeMap<String, u64>,
    /// The command line was told no, or nothing: by exit code.
    pub(super) refused: BTreeMap<i32, u64>,
}

impl Flow {
    /// Messages that were accepted or are Telegram's to keep.
    pub(super) fn said(&self) -> u64 {
        (self.chats.len() + self.console.len()) as u64
    }

    /// Says one thing somewhere.
    pub(super) fn say(&mut self, chaos: &mut Chaos) {
        self.next += 1;
        let tag = format!("m{}-", self.next);
        let text = prompt(chaos, &tag);
        if chaos.dice.throw(3) < 2 {
            let bot = usize::try_from(chaos.dice.throw(2)).unwrap();
            let person = people(bot)[usize::try_from(chaos.dice.throw(3)).unwrap()];
            let written = chaos.bots[bot].says(person, &text);
            self.chats.insert(tag, (bot, person, written));
            return;
        }
        let agent = AGENTS[usize::try_from(chaos.dice.throw(4)).unwrap()].0;
        let conversation = format!("c{}", chaos.dice.throw(2));
        let ran = chaos.world.cli(&["send", agent, &text, "--conversation", &conversation, "--no-wait", "--json"]);
        let lines = ran.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let accepted = lines.filter(|line| line["event"] == "accepted").find_map(|line| line["turn"].as_u64());
        match accepted {
            Some(turn) => {
                self.console.insert(tag, turn);
            }
            None => *self.refused.entry(ran.code).or_default() += 1,
        }
    }
}

/// Waits until few enough messages are open. Stopped processes go on meanwhile, or nothing would move.
pub(super) fn wait_room(chaos: &Chaos, faults: &mut Faults) {
    let open = || chaos.count("SELECT count(*) FROM turns WHERE outcome IS NULL");
    let taken =
        |chaos: &Chaos| chaos.bots.iter().map(|bot| bot.look(|account| account.unconfirmed() as u64)).sum::<u64>();
    if open() + taken(chaos) <= OPEN_MAX {
        return;
    }
    faults.heal_all_but_telegram(chaos);
    let story = || format!("{} open\n{}", open(), chaos.world.story());
    until("room for more messages", QUIET_WITHIN, story, || (open() + taken(chaos) <= OPEN_MAX / 2).then_some(()));
}

/// What a turn does: words, words that take a while, a deed, words after one failure of the provider.
fn prompt(chaos: &mut Chaos, tag: &str) -> String {
    match chaos.dice.throw(8) {
        0..=2 => format!("words of {tag}"),
        3 | 4 => format!("[[slow 5x30ms]] slow words of {tag}"),
        5 => format!("[[500 x1]] words of {tag} after a failure"),
        6 | 7 => format!("[[tool echo tool-of-{tag} >> done; sleep 0.1]] deed of {tag}"),
        side => panic!("a die with a side {side}"),
    }
}
