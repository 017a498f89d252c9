//! What `ps` and `health` say: from memory alone, so that they answer whatever the agents do.

use super::Machine;
use super::nouns::Now;
use protocol::control::{AgentRow, ChannelRow, Health, HealthStatus};

impl Machine {
    /// One row an agent. Memory and processes are the daemon's to fill in.
    pub(super) fn rows(&self) -> Vec<AgentRow> {
        self.agents
            .iter()
            .map(|(name, agent)| {
                let running = self.running_of(name);
                let process = agent.life.process();
                let route = self.setup.agents.get(name).and_then(|policy| policy.routes.first());
                let longest = self.turns_of(name).filter(|turn| turn.runs()).min_by_key(|turn| turn.accepted_tick);
                let doing = longest.and_then(|turn| turn.doing.as_ref());
                AgentRow {
                    agent: name.clone(),
                    wanted: if agent.life.wanted_up() { "up" } else { "down" }.to_owned(),
                    state: agent.life.word(running > 0),
                    pid: process.and_then(|p| p.pid),
                    incarnation: process.map(|p| p.incarnation.0),
                    runtime: route.map(|r| r.runtime.to_string()).unwrap_or_default(),
                    model: route.map(|r| format!("{}/{}", r.provider, r.model)).unwrap_or_default(),
                    running,
                    queued: self.waiting_of(name),
                    rss_bytes: 0,
                    processes: 0,
                    restarts: agent.life.restarts(),
                    last_error: agent.streak.last().cloned(),
                    since: agent.since,
                    phase: doing.map(|d| d.phase.with(&d.detail)),
                    phase_since: doing.map(super::Doing::since),
                    isolation: agent.isolation.to_string(),
                    limits: agent.bounds.clone(),
                    build: process
                        .and(agent.known.as_ref())
                        .and_then(|known| known.release.as_ref())
                        .map(|(_, build)| build.clone()),
                    outdated: process.is_some() && agent.outdated,
                }
            })
            .collect()
    }

    pub(super) fn health(&self, now: Now) -> Health {
        let agents = self.overview.words().iter().map(|(word, count)| ((*word).to_owned(), *count)).collect();
        let mut ailing = self.overview.any_ails();
        ailing |= self.setup.bots.keys().any(|name| self.bots.get(name).is_some_and(|bot| bot.fault.is_some()));
        let status = match (&self.ledger_stuck, ailing) {
            (Some(_), _) => HealthStatus::Failing,
            (None, true) => HealthStatus::Degraded,
            (None, false) => HealthStatus::Ok,
        };
        Health {
            status,
            version: protocol::version::Release::current().build.clone(),
            uptime_s: now.tick.saturating_sub(self.began.tick) / 1_000,
            agents,
            ledger: self.ledger_stuck.clone().unwrap_or_else(|| "ok".to_owned()),
            channels: self.channels(),
            // The daemon's to fill in: the machine knows of no programs.
            upgrade_failed: None,
        }
    }

    fn channels(&self) -> Vec<ChannelRow> {
        let console = ChannelRow { channel: "console".into(), state: "ok".into(), waiting: 0 };
        let bots = self.setup.bots.keys().map(|name| ChannelRow {
            channel: format!("telegram:{name}"),
            state: self.bots.get(name).and_then(|bot| bot.fault.clone()).unwrap_or_else(|| "ok".into()),
            waiting: self.outbox.waiting(name),
        });
        std::iter::once(console).chain(bots).collect()
    }
}
