//! What a world will be: its configuration, written down piece by piece.

use super::{Binaries, World};
use crate::codex::codex_binary;
use crate::standin::model::ModelServer;
use crate::standin::telegram::TelegramServer;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// What a world will be.
#[derive(Debug)]
pub struct Builder {
    binaries: Binaries,
    top: String,
    defaults: String,
    agents: Vec<(String, String)>,
    rest: String,
    codex: PathBuf,
}

impl Builder {
    pub(super) fn new(binaries: Binaries) -> Self {
        Self {
            binaries,
            top: String::new(),
            defaults: String::new(),
            agents: Vec::new(),
            rest: String::new(),
            codex: codex_binary(),
        }
    }

    /// Adds an agent with these lines of its table.
    #[must_use]
    pub fn agent(mut self, name: &str, lines: &str) -> Self {
        self.agents.push((name.to_owned(), lines.to_owned()));
        self
    }

    /// Adds lines to the top of the file.
    #[must_use]
    pub fn top(mut self, lines: &str) -> Self {
        self.top.push_str(lines);
        self.top.push('\n');
        self
    }

    /// Adds lines to `[defaults]`.
    #[must_use]
    pub fn defaults(mut self, lines: &str) -> Self {
        self.defaults.push_str(lines);
        self.defaults.push('\n');
        self
    }

    /// Adds tables to the end of the file.
    #[must_use]
    pub fn rest(mut self, lines: &str) -> Self {
        self.rest.push_str(lines);
        self.rest.push('\n');
        self
    }

    /// Another program than the real Codex.
    #[must_use]
    pub fn codex(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.codex);
        self
    }

    /// Adds a bot of `agent` that `owner` may write to, at a stand-in Telegram.
    #[must_use]
    pub fn bot(self, name: &str, agent: &str, token: &str, server: &TelegramServer, owner: i64) -> Self {
        let url = server.url();
        self.rest(&format!(
            "[telegram.{name}]\ntoken = \"{token}\"\nagent = \"{agent}\"\nallow = [{owner}]\nowners = [{owner}]\napi_root = \"{url}\""
        ))
    }

    /// Writes the files and starts the stand-in model; no supervisor yet.
    ///
    /// # Panics
    /// When the machine does not allow it.
    #[expect(clippy::expect_used, reason = "what fails in a test fails the test")]
    pub fn build(self) -> World {
        // Not below /tmp: Codex refuses some of its helpers there. Short: a socket's path has 107 bytes.
        let dir = tempfile::Builder::new().prefix("cfd-").tempdir_in("/var/tmp").expect("a folder for the world");
        let model = ModelServer::start().expect("a stand-in model");
        let root = dir.path();
        fs::create_dir(root.join("home")).expect("a home");
        let mut text = format!(
            "state_dir = \"s\"\nworker_command = \"{}\"\n{}\n[codex]\ncommand = \"{}\"\n\n[providers.standin]\nbase_url = {:?}\napi_key_env = \"STANDIN_KEY\"\n\n[defaults]\nmodel = \"standin/gpt-5.5\"\nauth = \"none\"\nsandbox = \"danger-full-access\"\nstop_grace = \"5s\"\n{}\n",
            self.binaries.worker.display(),
            self.top,
            self.codex.display(),
            model.base_url(),
            self.defaults
        );
        for (name, lines) in &self.agents {
            let workspace = root.join(format!("work-{name}"));
            fs::create_dir(&workspace).expect("a workspace");
            write!(text, "[agents.{name}]\nworkspace = \"{}\"\n{lines}\n\n", workspace.display()).expect("text");
        }
        text.push_str(&self.rest);
        let world = World { binaries: self.binaries, model, supervisor: None, dir };
        world.write_config(&text);
        world
    }

    /// Builds the world, starts the supervisor and waits until every agent is ready.
    pub fn start(self) -> World {
        let mut world = self.build();
        world.run();
        world.wait_ready();
        world
    }
}
