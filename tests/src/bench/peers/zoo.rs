//! The peers: how each is told of its children, started, asked, and found.
//!
//! ```text
//!   supervisord   one process, an INI file       s6-svscan, runsvdir   a folder of folders, a small process per child
//!   pm2           one process, a JSON file       pueued                one process, a command per task, no restarts
//! ```
//! Each has what it recommends for the output of a child: rotated files, svlogd, s6-log, or a file that grows.

use super::super::Fault;
use super::super::clock::until;
use super::lab::{Lab, WAIT_LIMIT, on_path};
use super::measure::Contestant;
use crate::processes;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A program that supervises others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    /// Programs that must be on `PATH`.
    needs: &'static [&'static str],
    /// How to get it.
    pub(super) package: &'static str,
    /// What prints its version.
    version: &'static [&'static str],
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Supervisord,
    S6,
    Runit,
    Pm2,
    Pueue,
}

/// All peers, in the order of the table.
pub(super) const PEERS: [Peer; 5] = [
    Peer {
        name: "s6",
        needs: &["s6-svscan", "s6-svstat", "s6-log"],
        package: "apt install s6",
        version: &["dpkg-query", "-W", "-f", "${Version}", "s6"],
        kind: Kind::S6,
    },
    Peer {
        name: "runit",
        needs: &["runsvdir", "sv", "svlogd"],
        package: "apt install runit",
        version: &["dpkg-query", "-W", "-f", "${Version}", "runit"],
        kind: Kind::Runit,
    },
    Peer {
        name: "supervisord",
        needs: &["supervisord", "supervisorctl"],
        package: "apt install supervisor, or pip install supervisor",
        version: &["supervisord", "--version"],
        kind: Kind::Supervisord,
    },
    Peer {
        name: "pm2",
        needs: &["pm2"],
        package: "npm install --global pm2",
        version: &["pm2", "--version"],
        kind: Kind::Pm2,
    },
    Peer {
        name: "pueue",
        needs: &["pueued", "pueue"],
        package: "cargo install pueue --locked",
        version: &["pueued", "--version"],
        kind: Kind::Pueue,
    },
];

impl Peer {
    /// Whether its programs are there.
    pub(super) fn is_installed(&self) -> bool {
        self.needs.iter().all(|program| on_path(program).is_some())
    }
}

/// A peer with its configuration, in a laboratory.
#[derive(Debug)]
pub(super) struct Running {
    peer: Peer,
    names: Vec<String>,
    lab: Lab,
    main: Option<u32>,
}

impl Running {
    pub(super) fn prepare(peer: Peer, names: &[String]) -> Result<Self, Fault> {
        let running = Self { peer, names: names.to_vec(), lab: Lab::new(names)?, main: None };
        match peer.kind {
            Kind::Supervisord => running.write_ini()?,
            Kind::S6 => running.write_services("s6-log n10 s1000000")?,
            Kind::Runit => running.write_services("svlogd")?,
            Kind::Pm2 => running.write_ecosystem()?,
            Kind::Pueue => running.write_yaml()?,
        }
        Ok(running)
    }

    fn write_ini(&self) -> Result<(), Fault> {
        let root = self.lab.text("");
        let mut text = format!(
            "[supervisord]\nnodaemon=true\nlogfile={root}s.log\npidfile={root}s.pid\nchildlogdir={root}\nminfds=4096\n\
             [unix_http_server]\nfile={root}s.sock\n[supervisorctl]\nserverurl=unix://{root}s.sock\n\
             [rpcinterface:supervisor]\n\
             supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        );
        for name in &self.names {
            let command = self.lab.child(name);
            write!(text, "[program:{name}]\ncommand={command}\nautorestart=true\n")
                .map_err(|e| Fault(e.to_string()))?;
        }
        let flood = self.lab.text("bin/flood");
        write!(text, "[program:flood]\ncommand={flood}\nautorestart=false\n").map_err(|e| Fault(e.to_string()))?;
        Ok(fs::write(self.lab.path("s.conf"), text)?)
    }

    /// A folder of services; the one that floods has a logger, which writes to `flog`.
    fn write_services(&self, logger: &str) -> Result<(), Fault> {
        for name in &self.names {
            fs::create_dir_all(self.lab.path(&format!("svc/{name}")))?;
            self.lab.script(&format!("svc/{name}/run"), &format!("exec {}", self.lab.child(name)))?;
        }
        fs::create_dir_all(self.lab.path("svc/flood/log"))?;
        fs::create_dir(self.lab.path("flog"))?;
        self.lab.script("svc/flood/run", &format!("exec {}", self.lab.text("bin/flood")))?;
        self.lab.script("svc/flood/log/run", &format!("exec {logger} {}", self.lab.text("flog")))
    }

    fn write_ecosystem(&self) -> Result<(), Fault> {
        let app = |name: &str| {
            let script = self.lab.text(&format!("bin/{name}"));
            json!({"name": name, "script": script, "args": [], "interpreter": "none", "exec_mode": "fork"})
        };
        let mut apps: Vec<_> = self.names.iter().map(|name| app(name)).collect();
        for app in &mut apps {
            app["args"] = json!([super::lab::SLEEPER_WORD]);
        }
        apps.push(app("flood"));
        Ok(fs::write(self.lab.path("eco.config.json"), json!({ "apps": apps }).to_string())?)
    }

    fn write_yaml(&self) -> Result<(), Fault> {
        let root = self.lab.text("");
        let text = format!(
            "client: {{}}\ndaemon: {{}}\nshared:\n  pueue_directory: {root}pq\n  use_unix_socket: true\n  \
             runtime_directory: {root}\n  unix_socket_path: {root}p.sock\nprofiles: {{}}\n"
        );
        Ok(fs::write(self.lab.path("p.yml"), text)?)
    }

    fn pueue(&self, words: &[&str]) -> Result<f64, Fault> {
        let config = self.lab.text("p.yml");
        let all: Vec<&str> = ["pueue", "-c", &config].into_iter().chain(words.iter().copied()).collect();
        self.lab.run(&all)
    }

    /// Starts the supervisor; `again` over the state that an earlier one left.
    fn launch(&mut self, again: bool) -> Result<(), Fault> {
        let pid = match self.peer.kind {
            Kind::Supervisord => self.lab.launch(&["supervisord", "-c", &self.lab.text("s.conf")])?,
            Kind::S6 => self.lab.launch(&["s6-svscan", &self.lab.text("svc")])?,
            Kind::Runit => self.lab.launch(&["runsvdir", &self.lab.text("svc")])?,
            Kind::Pm2 => {
                self.lab.run(&["pm2", "start", &self.lab.text("eco.config.json")])?;
                let pid = fs::read_to_string(self.lab.path("pm2/pm2.pid"))?;
                pid.trim().parse().map_err(|_| Fault("pm2.pid holds no pid".into()))?
            }
            Kind::Pueue => {
                let pid = self.lab.launch(&["pueued", "-c", &self.lab.text("p.yml")])?;
                let ready = until(WAIT_LIMIT, || self.pueue(&["status", "--json"]).ok());
                ready.ok_or_else(|| Fault("pueued does not answer".into()))?;
                if !again {
                    self.pueue(&["parallel", &(self.names.len() + 2).to_string()])?;
                    for name in &self.names {
                        self.pueue(&["add", "--", &self.lab.child(name)])?;
                    }
                    self.pueue(&["add", "--", &self.lab.text("bin/flood")])?;
                }
                pid
            }
        };
        self.main = Some(pid);
        Ok(())
    }
}

impl Contestant for Running {
    fn title(&self) -> String {
        let said = self.lab.says(self.peer.version);
        // Some say their name before it.
        let version = said.split_whitespace().next_back().unwrap_or("of unknown version");
        format!("{} {version}", self.peer.name)
    }

    fn start(&mut self) -> Result<(), Fault> {
        let known = super::lab::pids();
        self.launch(false)?;
        let all = until(WAIT_LIMIT, || (self.lab.children(&known).len() >= self.names.len()).then_some(()));
        all.ok_or_else(|| {
            let running = self.lab.children(&BTreeSet::new()).len();
            Fault(format!("only {running} of {} children run", self.names.len()))
        })
    }

    fn again(&mut self) -> Result<(), Fault> {
        self.launch(true)
    }

    fn children(&self) -> Vec<(String, u32)> {
        self.lab.children(&BTreeSet::new())
    }

    fn restarts(&self) -> bool {
        self.peer.kind != Kind::Pueue
    }

    fn is_replaced(&self, name: &str, known: &BTreeSet<u32>) -> bool {
        self.lab.children(known).iter().any(|(found, _)| found == name)
    }

    fn status(&self) -> Command {
        let config = |name: &str| self.lab.text(name);
        match self.peer.kind {
            Kind::Supervisord => self.lab.command(&["supervisorctl", "-c", &config("s.conf"), "status"]),
            Kind::S6 => self.lab.command(&["s6-svstat", &config(&format!("svc/{}", self.names[0]))]),
            Kind::Runit => {
                let mut command = self.lab.command(&["sv", "status"]);
                command.args(self.names.iter().map(|name| config(&format!("svc/{name}"))));
                command
            }
            Kind::Pm2 => self.lab.command(&["pm2", "jlist"]),
            Kind::Pueue => self.lab.command(&["pueue", "-c", &config("p.yml"), "status", "--json"]),
        }
    }

    fn remark(&self) -> String {
        let (status, output) = match self.peer.kind {
            Kind::Supervisord => ("supervisorctl status", "files of 50 MB, ten of them"),
            Kind::S6 => ("s6-svstat of one child", "s6-log, ten files of 1 MB"),
            Kind::Runit => ("sv status of all children", "svlogd, ten files of 1 MB"),
            Kind::Pm2 => ("pm2 jlist", "a file without limit"),
            Kind::Pueue => ("pueue status --json", "a file without limit; it never starts a task again"),
        };
        format!("{}: status: {status}; output: {output}", self.peer.name)
    }

    fn own(&self) -> Vec<u32> {
        self.lab.own()
    }

    fn kill(&mut self) -> Result<(), Fault> {
        let main = self.main.take().ok_or_else(|| Fault("no supervisor runs".into()))?;
        if processes::is_alive(main) { self.lab.kill(main) } else { Err(Fault("the supervisor had gone".into())) }
    }

    fn flood(&mut self) -> Result<(), Fault> {
        self.lab.flood()
    }

    fn folder(&self) -> PathBuf {
        self.lab.path("")
    }
}
