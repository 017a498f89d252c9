//! What a drill found: the JSON report, the table for people, the words. Pure.

use super::host::Machine;
use super::plan::{Kind, Phase, Times};
use super::stats::{Sample, Summary, ratio};
use super::verdict::{Ground, Probe, Verdict, judge, worst};
use crate::cli::screen::{Look, Tone};
use comfy_table::{Cell, CellAlignment, Table};
use serde::Serialize;

/// The whole report, as `report.json` holds it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) version: &'static str,
    /// Unix milliseconds.
    pub(super) at: u64,
    pub(super) machine: Machine,
    /// Agents of the configuration beside which it was done.
    pub(super) agents: usize,
    /// Length of a phase in seconds.
    pub(super) seconds: u64,
    pub(super) drills: Vec<Drill>,
    pub(super) verdict: Verdict,
}

/// One kind of harm and what came of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Drill {
    pub(super) kind: Kind,
    pub(super) victim: String,
    pub(super) times: Times,
    pub(super) proof: Proof,
    /// From the end of the harm to the victim's next answer, in seconds; `None`: not while it was waited for.
    pub(super) recovered_s: Option<f64>,
    pub(super) probes: Vec<Probed>,
    pub(super) verdict: Verdict,
}

/// What shows that harm was done.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Proof {
    /// Whether it was.
    pub(super) harmed: bool,
    pub(super) words: String,
}

/// One series in three phases.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Probed {
    pub(super) probe: Probe,
    pub(super) before: Summary,
    pub(super) during: Summary,
    pub(super) after: Summary,
    pub(super) ratio_median: Option<f64>,
    pub(super) ratio_p99: Option<f64>,
    pub(super) ratio_median_after: Option<f64>,
    pub(super) verdict: Verdict,
}

impl Probed {
    pub(super) fn of(probe: Probe, kind: Kind, samples: &[Sample], times: &Times, ground: Ground) -> Self {
        let [before, during, after] = Phase::ALL.map(|phase| Summary::of(samples, times, phase));
        Self {
            probe,
            before,
            during,
            after,
            ratio_median: ratio(before.median, during.median),
            ratio_p99: ratio(before.p99, during.p99),
            ratio_median_after: ratio(before.median, after.median),
            verdict: judge(probe, kind, &before, &during, ground),
        }
    }
}

impl Drill {
    /// The verdict of its probes; a harm that was none, or a victim that stays down, misses every budget.
    pub(super) fn judged(mut self) -> Self {
        let probes = worst(self.probes.iter().map(|probed| probed.verdict));
        self.verdict = if self.proof.harmed && self.recovered_s.is_some() { probes } else { Verdict::Missed };
        self
    }
}

/// The table of one drill, with what was done above and what was seen below it.
pub(super) fn table(drill: &Drill, look: &Look) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).force_no_tty();
    let header =
        ["", "median before", "during", "after", "ratio", "p99 before", "during", "after", "ratio", "n", "verdict"];
    table.set_header(header);
    for probed in &drill.probes {
        let ms = |ms: f64, summary: &Summary| if summary.count == 0 { "-".to_owned() } else { format!("{ms:.2}") };
        let all = [&probed.before, &probed.during, &probed.after];
        let mut row = vec![format!("{}, ms", probed.probe.as_str())];
        row.extend(all.map(|summary| ms(summary.median, summary)));
        row.push(times(probed.ratio_median));
        row.extend(all.map(|summary| ms(summary.p99, summary)));
        row.push(times(probed.ratio_p99));
        row.push(all.map(|summary| summary.count.to_string()).join("/"));
        row.push(look.paint(tone(probed.verdict), probed.verdict.as_str()));
        table.add_row(row.into_iter().map(Cell::new));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if (1..10).contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let name = look.paint(Tone::Strong, drill.kind.as_str());
    let mut text = format!("{name}  {}: {}\n{}\n", drill.victim, drill.kind.about(), table.trim_fmt());
    let harmed = if drill.proof.harmed { "" } else { "NO HARM WAS DONE: " };
    text.extend(["  proof: ", harmed, &drill.proof.words, "\n"]);
    let failed: usize = drill.probes.iter().map(|probed| probed.during.failed + probed.after.failed).sum();
    if failed > 0 {
        text.extend([format!("  {failed} measurement(s) of others failed\n")]);
    }
    let recovered = match drill.recovered_s {
        Some(seconds) => format!(
            "  the victim recovered in {seconds:.2} s
"
        ),
        None => "  THE VICTIM DID NOT RECOVER while it was waited for
"
        .to_owned(),
    };
    text.push_str(&recovered);
    text
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("x{ratio:.2}"))
}

const fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Within => Tone::Good,
        Verdict::NoBudget | Verdict::TooFew => Tone::Faint,
        Verdict::Busy => Tone::Warn,
        Verdict::Missed => Tone::Bad,
    }
}

/// The last lines: where it was measured, what it means.
pub(super) fn closing(report: &Report, look: &Look) -> String {
    let machine = &report.machine;
    let gib = machine.memory_bytes / (1 << 30);
    let mut text = format!(
        "{} cores, {gib} GiB, Linux {}; load {} before, {} after; {} configured agent(s)\n",
        machine.cores, machine.kernel, machine.load_before, machine.load_after, report.agents
    );
    if machine.was_busy() {
        text.push_str("the host was busy before anything was hurt: the ratios say less than they could\n");
    }
    if !machine.cpu_weight && report.drills.iter().any(|drill| drill.kind.is_cpu_bound()) {
        text.push_str("cpu.weight is not enforced here: ratios of turns beside a busy processor have no budget\n");
    }
    text.extend(["verdict: ", &look.paint(tone(report.verdict), report.verdict.as_str()), "\n"]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::screen::Screen;

    fn drill(kind: Kind, during_ms: f64) -> Drill {
        let times = Times { hurt: 1.0, ended: 2.0, over: 3.0 };
        let samples: Vec<Sample> = (0..90)
            .map(|i| Sample {
                at_s: f64::from(i) / 30.0,
                ms: if (30..60).contains(&i) { during_ms } else { 10.0 },
                ok: true,
            })
            .collect();
        let ground = Ground { weighted: false, busy: false };
        let probes = vec![Probed::of(Probe::Turns, kind, &samples, &times, ground)];
        let proof = Proof { harmed: true, words: "it was".into() };
        let victim = "drill-victim".into();
        Drill { kind, victim, times, proof, recovered_s: Some(0.5), probes, verdict: Verdict::TooFew }.judged()
    }

    #[test]
    fn figures_and_words_agree() {
        let told = table(&drill(Kind::Stall, 20.0), &Screen::plain().look);
        for words in ["x2.00", "MISSED", "30/30/30", "proof: it was", "recovered in 0.50 s", "its model never answers"]
        {
            assert!(told.contains(words), "{words}: {told}");
        }
        assert!(table(&drill(Kind::Flood, 20.0), &Screen::plain().look).contains("no budget"));
    }

    #[test]
    fn a_harm_that_was_none_is_no_success() {
        let well = drill(Kind::Stall, 10.0);
        assert_eq!(well.verdict, Verdict::Within);
        let none = Drill { proof: Proof::default(), ..well.clone() }.judged();
        assert_eq!(none.verdict, Verdict::Missed);
        assert!(table(&none, &Screen::plain().look).contains("NO HARM"));
        let down = Drill { recovered_s: None, ..well }.judged();
        assert_eq!(down.verdict, Verdict::Missed);
        assert!(table(&down, &Screen::plain().look).contains("DID NOT RECOVER"));
    }

    #[test]
    fn the_report_is_json_with_stable_words() {
        let drills = vec![drill(Kind::Kill, 10.0)];
        let report = Report {
            version: "1",
            at: 1,
            machine: Machine::look(false),
            agents: 2,
            seconds: 1,
            drills,
            verdict: Verdict::Within,
        };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["drills"][0]["kind"], "kill");
        assert_eq!(json["drills"][0]["probes"][0]["probe"], "turns");
        assert_eq!(json["drills"][0]["probes"][0]["during"]["count"], 30);
        assert_eq!(json["verdict"], "within");
    }
}
