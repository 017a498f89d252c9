//! What a drill does, and to whom: kinds of harm, phases, the throw-away agents. Pure.
//!
//! ```text
//!   before           during                 after
//!   |--- seconds ---|-- harm --------------|--- seconds ---|
//!                    in force for `seconds`  ended: the victim recovers, and is timed
//! ```

use serde::{Serialize, Serializer};

/// The throw-away agent that is hurt.
pub(super) const VICTIM: &str = "drill-victim";
/// Throw-away agents that get a small turn again and again.
pub(super) const OTHERS: [&str; 2] = ["drill-other-1", "drill-other-2"];

/// Memory that the victim may have, in bytes: a Codex at rest needs about a quarter of it.
pub(super) const VICTIM_MEMORY_BYTES: u64 = 256 << 20;
/// Processes and threads that the victim may have: a Codex at rest has about 30.
pub(super) const VICTIM_PIDS: u32 = 256;
/// Tokens after which the victim's thread is compacted: above what Codex' own instructions need.
pub(super) const VICTIM_COMPACT_TOKENS: u32 = 20_000;

/// What the tool of `oom` holds at the most, in bytes, if nothing stops it: twice its limit.
pub(super) const HOG_BYTES: u64 = 512 << 20;
/// Memory that must be free on the host before `oom`, in bytes: what the tool may hold, twice.
pub(super) const HOG_FREE_BYTES: u64 = 1 << 30;
/// What one tool of `flood` prints, in bytes.
pub(super) const FLOOD_BYTES: u64 = 100_000_000;
/// Shells of `forks`, each with one child: what is alive at once, at the most, is twice that.
const SHELLS: u32 = 200;

/// How an agent is hurt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The model never answers.
    Stall,
    /// The worker is stopped by SIGSTOP.
    Stop,
    /// The worker is killed whenever it lives.
    Kill,
    /// A tool takes more memory than the agent may have.
    Oom,
    /// Tools print without end.
    Flood,
    /// A tool forks without end.
    Forks,
    /// A compaction never ends.
    Compact,
}

impl Kind {
    /// In the order of `all`: what is quiet first, what may leave the host busy last.
    pub(super) const ALL: [Self; 7] =
        [Self::Stall, Self::Stop, Self::Kill, Self::Compact, Self::Flood, Self::Oom, Self::Forks];

    /// The word of the command line.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Stall => "stall",
            Self::Stop => "stop",
            Self::Kill => "kill",
            Self::Oom => "oom",
            Self::Flood => "flood",
            Self::Forks => "forks",
            Self::Compact => "compact",
        }
    }

    /// What it does, in a few words.
    pub(super) const fn about(self) -> &'static str {
        match self {
            Self::Stall => "its model never answers",
            Self::Stop => "its worker is stopped (SIGSTOP)",
            Self::Kill => "its worker is killed again and again (SIGKILL)",
            Self::Oom => "its tool takes all memory that it gets",
            Self::Flood => "its tools print 100 MB again and again",
            Self::Forks => "its tool forks without end",
            Self::Compact => "its thread is compacted for ever",
        }
    }

    /// Whether it uses the processor, so that only `cpu.weight` can keep it from others.
    pub(super) const fn is_cpu_bound(self) -> bool {
        match self {
            Self::Oom | Self::Flood | Self::Forks => true,
            Self::Stall | Self::Stop | Self::Kill | Self::Compact => false,
        }
    }

    /// Whether the model must play along, so that a configured agent cannot be hurt this way.
    pub(super) const fn needs_model(self) -> bool {
        match self {
            Self::Stop | Self::Kill => false,
            Self::Stall | Self::Oom | Self::Flood | Self::Forks | Self::Compact => true,
        }
    }

    /// What the victim's tool runs.
    pub(super) fn command(self, seconds: u64) -> Option<String> {
        match self {
            Self::Flood => Some(format!("head -c {FLOOD_BYTES} /dev/zero | tr '\\0' x")),
            // `tail` must hold all of it before it can print any, and nobody reads what it prints.
            Self::Oom => Some(format!("head -c {HOG_BYTES} /dev/zero | tail -c {HOG_BYTES} | sleep {seconds}")),
            // Each shell forks one child after the other. It ends by itself, whatever becomes of us.
            Self::Forks => Some(format!(
                "for i in $(seq {SHELLS}); do (n=0; while [ $n -lt {} ]; do sleep 0.5; n=$((n+1)); done) & done; wait",
                seconds.saturating_mul(2)
            )),
            Self::Stall | Self::Stop | Self::Kill | Self::Compact => None,
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The words that the command line takes.
pub(in crate::cli) fn words() -> Vec<&'static str> {
    Kind::ALL.iter().map(|kind| kind.as_str()).chain(["all"]).collect()
}

/// The kinds of these words, each once, in order.
pub(super) fn kinds(words: &[String]) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for word in words {
        for kind in Kind::ALL.into_iter().filter(|kind| word == "all" || word == kind.as_str()) {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
    }
    kinds
}

/// Whether a configured agent may be hurt in these ways; if not, why.
pub(super) fn may_hurt(agent: &str, kinds: &[Kind]) -> Result<(), String> {
    let not: Vec<&str> = kinds.iter().filter(|kind| kind.needs_model()).map(|kind| kind.as_str()).collect();
    if !not.is_empty() {
        return Err(format!(
            "{agent} cannot be hurt by {}: that takes a model that plays along, which only the throw-away agent has; \
             `stop` and `kill` work on any agent",
            not.join(", ")
        ));
    }
    Ok(())
}

/// Part of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    Before,
    During,
    After,
}

impl Phase {
    pub(super) const ALL: [Self; 3] = [Self::Before, Self::During, Self::After];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::During => "during",
            Self::After => "after",
        }
    }
}

/// Where the phases of one drill meet, in seconds since its begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Times {
    /// The harm began.
    pub(super) hurt: f64,
    /// It was ended.
    pub(super) ended: f64,
    /// All was over.
    pub(super) over: f64,
}

impl Times {
    /// The phase of this second. What began in a phase belongs to it, whenever it ended.
    pub(super) fn phase(&self, at: f64) -> Phase {
        if at < self.hurt {
            Phase::Before
        } else if at < self.ended {
            Phase::During
        } else {
            Phase::After
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &[&str]) -> Vec<Kind> {
        kinds(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn kinds_are_taken_once_and_in_order() {
        assert_eq!(said(&["kill", "stop", "kill"]), [Kind::Kill, Kind::Stop]);
        assert_eq!(said(&["all"]), Kind::ALL);
        assert_eq!(said(&["forks", "all"]).len(), Kind::ALL.len());
        assert_eq!(words().len(), Kind::ALL.len() + 1);
    }

    #[test]
    fn a_configured_agent_is_only_stopped_and_killed() {
        assert_eq!(may_hurt("a", &[Kind::Stop, Kind::Kill]), Ok(()));
        let why = may_hurt("a", &[Kind::Stop, Kind::Oom, Kind::Flood]).unwrap_err();
        assert!(why.contains("by oom, flood:"), "{why}");
    }

    #[test]
    fn what_runs_on_its_own_ends_on_its_own() {
        assert!(Kind::Forks.command(10).unwrap().contains("-lt 20 "));
        assert!(Kind::Oom.command(10).unwrap().ends_with("sleep 10"));
        assert!(Kind::ALL.iter().filter(|kind| kind.command(1).is_some()).all(|kind| kind.is_cpu_bound()));
    }

    #[test]
    fn a_sample_belongs_to_the_phase_in_which_it_began() {
        let times = Times { hurt: 1.0, ended: 2.0, over: 3.0 };
        let phases = [0.0, 0.999, 1.0, 1.999, 2.0, 9.0].map(|at| times.phase(at).as_str());
        assert_eq!(phases, ["before", "before", "during", "during", "after", "after"]);
    }
}
