//! Commands that need no supervisor: check, init, login, version, completions.

use super::args::{Cli, Shape};
use super::exit::{Exit, Failure};
use super::screen::{Screen, Tone};
use super::{Flag, setup};
use crate::config::{Auth, Config, Environment, Report, Severity, places, template};
use crate::process::folder::Owner;
use crate::process::spawn;
use crate::store;
use clap::CommandFactory;
use protocol::AgentName;
use protocol::version::Release;
use serde_json::json;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Says everything that is wrong with the configuration, or that nothing is.
pub(super) fn check(flag: Flag<'_>, screen: &Screen, shape: Shape) -> Result<(), Failure> {
    let path = setup::path(flag)?;
    let checked = Config::load(&path, &Environment::of_process());
    if shape.json {
        let report = checked.as_ref().map_or_else(|report| report, |loaded| &loaded.warnings);
        screen.json(&json!({
            "ok": checked.is_ok(), "path": path.display().to_string(), "problems": problems(report),
        }))?;
        return checked.map(drop).map_err(|_| Failure::silent(Exit::Config));
    }
    let loaded = checked.map_err(|report| setup::broken(&report, screen))?;
    if !loaded.warnings.is_empty() {
        screen.err(&format!("{}\n", loaded.warnings.render(screen.err_colour())));
    }
    let config = &loaded.config;
    let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let parts = [count(config.agents.len(), "agent"), count(config.bots.len(), "bot"), count(config.jobs.len(), "job")];
    let ok = screen.look.paint(Tone::Good, "ok");
    screen.print(&format!("{ok}  {}: {}", path.display(), parts.join(", ")))?;
    Ok(())
}

fn problems(report: &Report) -> Vec<serde_json::Value> {
    let problem = |p: &crate::config::Problem| {
        let severity = match p.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let (line, column) = p.place.unzip();
        json!({ "severity": severity, "message": p.message, "help": p.help, "line": line, "column": column })
    };
    report.problems().iter().map(problem).collect()
}

/// Writes a first configuration; never over one that exists.
pub(super) fn init(path: Option<&Path>, screen: &Screen, agent: &AgentName, owner: i64) -> Result<(), Failure> {
    let env = Environment::of_process();
    let place = path.map(Path::to_owned).or_else(|| places(&env).into_iter().next());
    let Some(path) = place else { return Err(Failure::new(Exit::Usage, "say where: `cofferdam init PATH`")) };
    let write = || {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
        file.write_all(template(agent, owner).as_bytes())
    };
    match write() {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let words =
                format!("{} exists and is left as it is; `cofferdam init PATH` writes elsewhere", path.display());
            return Err(Failure::new(Exit::Failed, words));
        }
        Err(error) => return Err(Failure::because(Exit::Failed, &format!("write {}", path.display()), &error)),
    }
    screen.print(&format!(
        "wrote {}\n\nnext:\n  1. put the bot's token into {agent}.token beside it (chmod 600) and your user id into owners\n  \
         2. cofferdam check\n  3. cofferdam run",
        path.display()
    ))?;
    Ok(())
}

/// Runs `codex login` for an agent with a login of its own; explains where the login is for the others.
pub(super) fn login(flag: Flag<'_>, screen: &Screen, agent: &AgentName, arguments: &[String]) -> Result<Exit, Failure> {
    let config = setup::load(flag, screen)?.config;
    let Some(known) = config.agents.get(agent) else {
        let names: Vec<&str> = config.agents.keys().map(AgentName::as_str).collect();
        let words = format!("there is no agent {agent}; there are: {}", names.join(", "));
        return Err(Failure::new(Exit::Failed, words));
    };
    match known.auth {
        Auth::Own => {}
        Auth::Shared => {
            let words = format!(
                "{agent} shares your own Codex login (auth = \"shared\"): run `codex login`, and every such agent has it\n\
                 for a login of its own set auth = \"own\" in [agents.{agent}]"
            );
            return Err(Failure::new(Exit::Failed, words));
        }
        Auth::None => {
            let words = format!("{agent} uses no login (auth = \"none\"): the key of its provider is enough");
            return Err(Failure::new(Exit::Failed, words));
        }
    }
    let user = known.user.as_ref().map(|user| Owner { uid: user.uid, gid: user.gid });
    let codex = &known.codex_command;
    match spawn::login(codex, &config.agent_dir(agent), user, arguments) {
        Ok(status) if status.success() => Ok(Exit::Done),
        Ok(status) => {
            let words = format!("codex login ended with {}", crate::process::exit::plain_words(status));
            Err(Failure::new(Exit::Failed, words))
        }
        Err(error) => Err(Failure::because(Exit::Failed, &format!("run {}", codex.display()), &error)),
    }
}

/// The version of this binary and of its wire.
pub(super) fn version(screen: &Screen, shape: Shape) -> Result<(), Failure> {
    let (Release { protocol, build }, ledger) = (Release::current(), store::VERSION);
    if shape.json {
        screen.json(&json!({ "version": build, "protocol": protocol, "ledger": ledger }))?;
    } else {
        screen.print(&format!("cofferdam {build} (protocol {protocol}, ledger {ledger})"))?;
    }
    Ok(())
}

/// Completions for a shell.
pub(super) fn completions(screen: &Screen, shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "cofferdam", &mut script);
    screen.print(&String::from_utf8_lossy(&script))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn init_writes_a_configuration_that_is_right_and_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/c.toml");
        let agent = AgentName::parse("ops").unwrap();
        init(Some(&path), &Screen::plain(), &agent, 7).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let token = path.with_file_name("ops.token");
        std::fs::write(&token, "1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        check(Some(&path), &Screen::plain(), Shape { json: false }).unwrap();
        assert_eq!(init(Some(&path), &Screen::plain(), &agent, 7).unwrap_err().exit, Exit::Failed);
    }

    #[test]
    fn login_explains_a_shared_login() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "[defaults]\nmodel = \"openai/gpt-5.5\"\n[agents.a]\n").unwrap();
        let a = AgentName::parse("a").unwrap();
        let told = login(Some(&path), &Screen::plain(), &a, &[]).unwrap_err().words;
        assert!(told.contains("codex login") && told.contains("auth = \"own\""), "{told}");
        let b = AgentName::parse("b").unwrap();
        assert!(login(Some(&path), &Screen::plain(), &b, &[]).unwrap_err().words.contains("there are: a"));
    }

    #[test]
    fn completions_are_made_for_every_shell() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            completions(&Screen::plain(), shell).unwrap();
        }
    }
}
