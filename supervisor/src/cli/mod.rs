//! The command line: words to a request, answers to a picture or to JSON.
//!
//! ```text
//!   args.rs ---> run ------------------------------> the daemon, in this process
//!           |--> ask.rs, send.rs --- control.sock --> show/: tables.rs, story.rs, json.rs --> screen.rs
//!           |--> drill/ --- control.sock, many times    hurts and measures
//!           `--> local.rs, logs.rs, doctor.rs         what needs no supervisor
//! ```
//! Every end is one [`Exit`]. Nothing here decides about agents; nothing that comes from outside reaches a terminal
//! untamed.

mod args;
mod ask;
mod clock;
mod doctor;
mod drill;
mod exit;
mod local;
mod logs;
mod screen;
mod send;
mod setup;
mod show;
mod texts;
mod upgrade;

pub use exit::Exit;
pub use texts::TEXT_BYTES_MAX;

use crate::config::Loaded;
use args::{Cli, Command, TurnsCommand};
use clap::Parser;
use exit::Failure;
use protocol::TurnId;
use protocol::control::{Request, Turns, Verb};
use screen::Screen;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::ExitCode;

/// Runs the command that the arguments of this process name. `run` is the daemon.
pub fn main(run: fn(Loaded) -> ExitCode) -> ExitCode {
    let parsed = match Cli::try_parse() {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error),
    };
    let screen = Screen::of_process();
    // The panic's own words are on standard error by then.
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| perform(parsed, run, &screen)));
    match ended {
        Ok(Ok(code)) => code,
        Ok(Err(failure)) => {
            if !failure.words.is_empty() {
                let sign = screen.err_look().paint(screen::Tone::Bad, "cofferdam:");
                screen.note(&format!("{sign} {}", failure.words.trim_end()));
            }
            failure.exit.into()
        }
        Err(_) => Exit::Bug.into(),
    }
}

/// The commands by name, as `--help` lists them.
pub fn commands() -> Vec<String> {
    <Cli as clap::CommandFactory>::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

/// Help and version end well, anything else is a wrong command line.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody reads it if this fails.
    drop(error.print());
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
    exit.into()
}

fn perform(cli: Cli, run: fn(Loaded) -> ExitCode, screen: &Screen) -> Result<ExitCode, Failure> {
    let flag = cli.config.as_deref();
    let asked = match cli.command {
        Command::Run => return Ok(run(setup::load(flag, screen)?)),
        Command::Shutdown { now } => ask::shut_down(flag, screen, now),
        Command::Ps { shape } => ask::ps(flag, screen, shape),
        Command::Health { shape } => return ask::health(flag, screen, shape).map(Into::into),
        Command::Send(send) => send::send(flag, screen, send),
        Command::Turns { one: Some(TurnsCommand::Show { turn, shape }), .. } => {
            ask::turn(flag, screen, TurnId(turn), shape)
        }
        Command::Turns { one: None, list } => {
            let turns = Turns { agent: list.agent, failed: list.failed, most: list.most };
            ask::turns(flag, screen, turns, list.shape)
        }
        Command::Start(agents) => ask::change(flag, screen, &Request::Agents(Verb::Start, agents.agents)),
        Command::Stop(agents) => ask::change(flag, screen, &Request::Agents(Verb::Stop, agents.agents)),
        Command::Restart(agents) => ask::change(flag, screen, &Request::Agents(Verb::Restart, agents.agents)),
        Command::Kill(agents) => ask::change(flag, screen, &Request::Agents(Verb::Kill, agents.agents)),
        Command::Interrupt { agent, conversation } => {
            ask::change(flag, screen, &Request::Interrupt(agent, conversation))
        }
        Command::Retry { turn, no_wait, json } => send::retry(flag, screen, TurnId(turn), json, !no_wait),
        Command::Queue { agent, shape } => ask::queue(flag, screen, agent, shape),
        Command::Reload => ask::change(flag, screen, &Request::Reload),
        Command::Upgrade { binary, no_wait } => upgrade::upgrade(flag, screen, binary, !no_wait),
        Command::Login { agent, arguments } => return local::login(flag, screen, &agent, &arguments).map(Into::into),
        Command::Logs { agent, follow, lines, shape } => logs::logs(flag, screen, &agent, lines, follow, shape),
        Command::Drill(arguments) => return drill::drill(flag, screen, &arguments).map(Into::into),
        Command::Check { shape } => local::check(flag, screen, shape),
        Command::Doctor { shape } => return doctor::doctor(flag, screen, shape).map(Into::into),
        Command::Init { path, agent, owner } => local::init(path.as_deref(), screen, &agent, owner),
        Command::Version { shape } => local::version(screen, shape),
        Command::Completions { shell } => local::completions(screen, shell),
    };
    asked.map(|()| Exit::Done.into())
}

/// The flag of the configuration, as every command passes it on.
type Flag<'a> = Option<&'a Path>;
