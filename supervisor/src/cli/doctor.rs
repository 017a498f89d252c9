//! `doctor`: what this host really enforces of the isolation and of the limits that the configuration asks for, and how to
//! get the rest. It changes nothing, and needs no supervisor.
//!
//! ```text
//!   worker probe --- runs bwrap as a Codex child would -.
//!   process::cgroup --- looks, divides nothing ---------+--> findings: ok | warn | fail, each with its remedy
//!   protocol::envelope --- the table of limits ---------'
//! ```

use super::args::Shape;
use super::exit::{Exit, Failure};
use super::screen::{Screen, Tone, wrap};
use super::{Flag, setup};
use crate::config::{Agent, Cgroup, Config, Environment};
use crate::process::cgroup::{Groups, Wish};
use crate::process::spawn::{self, Probe};
use protocol::envelope::{self, Bound, By, Controllers};
use protocol::from_worker::Isolation;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    level: Level,
    /// `host`, or the name of an agent.
    about: String,
    what: String,
    words: String,
    /// What would make it better.
    remedy: Option<String>,
}

impl Finding {
    fn new(level: Level, about: &str, what: &str, words: impl Into<String>) -> Self {
        Self { level, about: about.to_owned(), what: what.to_owned(), words: words.into(), remedy: None }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// What is said where a controller is missing.
const DELEGATE: &str = "run under a systemd unit with Delegate=yes (deploy/cofferdam.service), or set `cgroup` to a folder of \
                        cgroup v2 that you may divide";

/// Looks at the host and at each agent. Exit code 1 if something that was asked for is not there.
pub(super) fn doctor(flag: Flag<'_>, screen: &Screen, shape: Shape) -> Result<Exit, Failure> {
    let config = setup::load(flag, screen)?.config;
    let findings = examine(&config);
    if shape.json {
        screen.json(&findings)?;
    } else {
        screen.print(&picture(&findings, screen))?;
    }
    let fails = findings.iter().any(|finding| finding.level == Level::Fail);
    Ok(if fails { Exit::Failed } else { Exit::Done })
}

fn examine(config: &Config) -> Vec<Finding> {
    let wish = match &config.cgroup {
        Cgroup::Auto => Wish::Auto,
        Cgroup::None => Wish::Never,
        Cgroup::At(path) => Wish::At(path.clone()),
    };
    let groups = Groups::find(&wish, &config.state_dir);
    let controllers = groups.as_ref().map(Groups::controllers).unwrap_or_default();
    let mut findings = vec![match &groups {
        Ok(groups) => {
            let words = format!("each worker and each Codex child gets a cgroup below {}", groups.root().display());
            Finding::new(Level::Ok, "host", "cgroup", words)
        }
        Err(error) => Finding::new(Level::Warn, "host", "cgroup", format!("none: {error}")).remedy(DELEGATE),
    }];
    findings.push(of_controllers(controllers));
    let probes = probes(config);
    for (command, probe) in &probes {
        findings.push(of_probe(command, probe));
    }
    for agent in config.agents.values() {
        let namespace = matches!(probes.get(&agent.codex_command.display().to_string()), Some(Probe::Namespace(_)));
        findings.push(of_rung(agent, Isolation::of(namespace, groups.is_ok())));
        let bounds = envelope::bounds(&agent.limits.for_worker(), controllers);
        findings.extend(bounds.into_iter().map(|bound| of_bound(agent, bound)));
    }
    findings
}

/// Tries each Codex of the configuration once, in the way in which a worker would.
fn probes(config: &Config) -> BTreeMap<String, Probe> {
    let path = Environment::of_process().var("PATH").unwrap_or_default().to_owned();
    let mut commands: Vec<String> = config.agents.values().map(|a| a.codex_command.display().to_string()).collect();
    commands.sort();
    commands.dedup();
    let worker = spawn::worker_program(config.worker_command.as_deref());
    let probe = |command: &str| match &worker {
        Ok(worker) => spawn::probe(worker, Path::new(command), &path),
        Err(error) => Probe::Failed(error.to_string()),
    };
    commands.into_iter().map(|command| (command.clone(), probe(&command))).collect()
}

fn of_controllers(have: Controllers) -> Finding {
    let all = [("memory", have.memory), ("pids", have.pids), ("cpu", have.cpu), ("io", have.io)];
    let names = |there: bool| all.iter().filter(|(_, have)| *have == there).map(|(name, _)| *name).collect::<Vec<_>>();
    let (there, missing) = (names(true).join(" "), names(false).join(" "));
    if missing.is_empty() {
        return Finding::new(Level::Ok, "host", "controllers", format!("{there}: limits are the kernel's"));
    }
    let words = format!("{} to hand down, without {missing}", if there.is_empty() { "none" } else { &there });
    Finding::new(Level::Warn, "host", "controllers", words).remedy(DELEGATE)
}

fn of_probe(command: &str, probe: &Probe) -> Finding {
    match probe {
        Probe::Namespace(bwrap) => {
            let words = format!("each child of {command} gets a PID and mount namespace by {bwrap}");
            Finding::new(Level::Ok, "host", "namespace", words)
        }
        Probe::None(why) => {
            let remedy = "allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, \
                          kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces above 0), or install bubblewrap";
            Finding::new(Level::Warn, "host", "namespace", format!("none for {command}: {why}")).remedy(remedy)
        }
        Probe::NoCodex => {
            let words = format!("there is no program {command}");
            let remedy = "npm install --global @openai/codex, or set `codex.command`";
            Finding::new(Level::Fail, "host", "codex", words).remedy(remedy)
        }
        Probe::Failed(why) => {
            let words = format!("the worker cannot be asked: {why}");
            Finding::new(Level::Fail, "host", "worker", words).remedy("set `worker_command`")
        }
    }
}

fn of_rung(agent: &Agent, rung: Isolation) -> Finding {
    let name = agent.name.as_str();
    match rung {
        Isolation::NamespaceAndCgroup | Isolation::Namespace => {
            Finding::new(Level::Ok, name, "isolation", rung.to_string())
        }
        Isolation::Cgroup => {
            let words = "cgroup: a kill leaves nothing behind, but its tools see the files of others";
            Finding::new(Level::Warn, name, "isolation", words)
        }
        Isolation::BestEffort | Isolation::Untried => {
            let words = "best-effort: a hostile tool can outlive its turn, and sees the files of others";
            Finding::new(Level::Warn, name, "isolation", words)
        }
    }
}

fn of_bound(agent: &Agent, bound: Bound) -> Finding {
    let what = format!("limits.{}", bound.limit);
    let finding = |level, words: &str| Finding::new(level, agent.name.as_str(), &what, words);
    match bound.by {
        By::Kernel => finding(Level::Ok, "by the kernel, for all of its processes together"),
        By::Rlimit => finding(Level::Ok, "by a resource limit of each process"),
        By::Sampling => {
            let words = "by sampling: its worker looks ten times a second; what is quicker may pass it for that long";
            finding(Level::Warn, words).remedy(DELEGATE)
        }
        By::Priority => {
            finding(Level::Warn, "by priority of Codex and its tools: no share is guaranteed").remedy(DELEGATE)
        }
        By::Upkeep => finding(Level::Ok, "by its worker, between turns; nothing is refused, owners are told at 80 %"),
        By::Nothing => finding(Level::Fail, "by nothing on this host").remedy(DELEGATE),
    }
}

fn picture(findings: &[Finding], screen: &Screen) -> String {
    let look = &screen.look;
    let mut text = String::new();
    let mut last_remedy = "";
    for finding in findings {
        let (word, tone) = match finding.level {
            Level::Ok => ("ok  ", Tone::Good),
            Level::Warn => ("warn", Tone::Warn),
            Level::Fail => ("fail", Tone::Bad),
        };
        let line = format!("{}: {}: {}", finding.about, finding.what, finding.words);
        let body = wrap(&line, look.width, "      ");
        text.extend([&look.paint(tone, word), "  ", body.trim_start()]);
        // What would help twice is said once.
        if let Some(remedy) = finding.remedy.as_deref().filter(|remedy| *remedy != last_remedy) {
            text.push_str(&wrap(&format!("next: {remedy}"), look.width, "      "));
            last_remedy = remedy;
        }
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_holding_a_limit_is_a_level_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let source = "[agents.a]\nmodel = \"openai/x\"\nlimits = { cpu_max = 50, pids_max = 64, cpu_weight = 10 }\n";
        std::fs::write(&file, source).unwrap();
        let config = setup::load(Some(&file), &Screen::plain()).unwrap().config;
        let agent = config.agents.values().next().unwrap();
        let levels = |have| {
            let bounds = envelope::bounds(&agent.limits.for_worker(), have);
            bounds.into_iter().map(|bound| of_bound(agent, bound).level).collect::<Vec<_>>()
        };
        // In the order of the table: cpu_weight, cpu_max, pids_max, core_size.
        assert_eq!(levels(Controllers::default()), [Level::Warn, Level::Fail, Level::Warn, Level::Ok]);
        let rich = Controllers { memory: true, pids: true, cpu: true, io: true };
        assert_eq!(levels(rich), [Level::Ok; 4]);
        assert_eq!(
            (of_controllers(rich).level, of_controllers(Controllers::default()).level),
            (Level::Ok, Level::Warn)
        );
    }

    #[test]
    fn a_remedy_is_said_once_for_what_follows() {
        let finding = |what| Finding::new(Level::Warn, "host", what, "none").remedy("do it");
        let page = picture(&[finding("a"), finding("b")], &Screen::plain());
        assert_eq!(page, "warn  host: a: none\n      next: do it\nwarn  host: b: none");
    }
}
