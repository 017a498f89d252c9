//! What a run reached: every pair of a state and an input of both machines, every kind of input, every fault.
//!
//! What no run can reach stands in [`UNREACHABLE`], what few runs reach in [`RARE`], each with the reason. A pair that is
//! neither reached nor listed fails the thousand seeds, and so does one that is reached and called unreachable.

mod pairs;
mod words;

pub(crate) use words::{Looks, input_word, life_pairs};

use pairs::{FAULTS, INPUTS, LIFE, LIFE_INPUTS, RARE, Row, TURN, TURN_INPUTS, UNREACHABLE};
use std::collections::BTreeMap;
use std::fmt::Write;
use supervisor::machine::words::Input;
use words::{concerns, turn_input};
use worker::machine::io::Input as WorkerInput;
use worker::machine::probe::Standing;

/// Counts of what was reached.
#[derive(Clone, Debug, Default)]
pub struct Cover {
    counts: BTreeMap<(&'static str, &'static str, &'static str), u64>,
}

impl Cover {
    fn count(&mut self, table: &'static str, state: &'static str, input: &'static str) {
        *self.counts.entry((table, state, input)).or_default() += 1;
    }

    pub(crate) fn fault(&mut self, fault: &'static str) {
        self.count("fault", fault, "");
    }

    pub(crate) fn host(&mut self, input: &Input, pairs: &[(&'static str, &'static str)]) {
        self.count("input", input_word(input), "");
        for (state, input) in pairs {
            self.count("worker's life", state, input);
            if *input == "old news" {
                self.count("input", "old news", "");
            }
        }
    }

    pub(crate) fn worker(&mut self, standings: &[Standing], input: &WorkerInput) {
        for standing in standings.iter().filter(|standing| concerns(input, standing)) {
            if let Some(word) = turn_input(input) {
                self.count("turn", standing.state, word);
            }
        }
    }

    /// Adds what another run reached.
    pub fn add(&mut self, other: &Self) {
        for (pair, count) in &other.counts {
            *self.counts.entry(*pair).or_default() += count;
        }
    }

    fn all() -> Vec<(&'static str, &'static str, &'static str)> {
        let pairs = |table, states: &'static [&'static str], inputs: &'static [&'static str]| {
            states.iter().flat_map(move |state| inputs.iter().map(move |input| (table, *state, *input)))
        };
        let alone = |table, words: &'static [&'static str]| words.iter().map(move |word| (table, *word, ""));
        let life = pairs("worker's life", &LIFE, &LIFE_INPUTS);
        life.chain(pairs("turn", &TURN, &TURN_INPUTS))
            .chain(alone("input", &INPUTS))
            .chain(alone("fault", &FAULTS))
            .collect()
    }

    /// What is wrong: what was not reached and is not called unreachable, and the reverse.
    pub fn gaps(&self) -> Vec<String> {
        let mut gaps = Vec::new();
        let all = Self::all();
        for pair in &all {
            let reached = self.counts.contains_key(pair);
            let (table, state, input) = pair;
            match (reached, why(UNREACHABLE, pair)) {
                (false, None) if why(RARE, pair).is_none() => {
                    gaps.push(format!("{table}: {state} x {input} was never reached"));
                }
                (true, Some(why)) => gaps.push(format!("{table}: {state} x {input} was reached, although: {why}")),
                (true, None) | (false, Some(_) | None) => {}
            }
        }
        gaps.extend(
            self.counts.keys().filter(|pair| !all.contains(pair)).map(|pair| format!("{pair:?} is not listed")),
        );
        gaps
    }

    /// The tables.
    pub fn table(&self) -> String {
        let mut text = String::new();
        self.matrix("worker's life", &LIFE, &LIFE_INPUTS, &mut text);
        self.matrix("turn", &TURN, &TURN_INPUTS, &mut text);
        for (table, words) in [("input", &INPUTS[..]), ("fault", &FAULTS[..])] {
            text.push('\n');
            for word in words {
                let count = self.counts.get(&(table, *word, "")).copied().unwrap_or(0);
                add(&mut text, format_args!("{table:<8} {word:<48} {count:>8}\n"));
            }
        }
        text
    }

    fn matrix(&self, table: &'static str, states: &[&'static str], inputs: &[&'static str], text: &mut String) {
        add(text, format_args!("\n{table:<14}"));
        for state in states {
            add(text, format_args!("{state:>10}"));
        }
        text.push('\n');
        for input in inputs {
            add(text, format_args!("{input:<14}"));
            for state in states {
                let pair = (table, *state, *input);
                match self.counts.get(&pair) {
                    Some(count) => add(text, format_args!("{count:>10}")),
                    None if why(UNREACHABLE, &pair).is_some() => text.push_str("         -"),
                    None => text.push_str("         0"),
                }
            }
            text.push('\n');
        }
    }
}

/// A text takes everything.
fn add(text: &mut String, words: std::fmt::Arguments<'_>) {
    text.write_fmt(words).ok();
}

fn why(rows: &[Row], (table, state, input): &(&str, &str, &str)) -> Option<&'static str> {
    let holds = |listed: &[&str], word: &str| listed.contains(&"*") || listed.contains(&word);
    let row = rows.iter().find(|(of, states, inputs, _)| of == table && holds(states, state) && holds(inputs, input));
    row.map(|(_, _, _, why)| *why)
}
