//! The words of the command line.

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};
use protocol::AgentName;
use std::path::PathBuf;

const CONFIG_HELP: &str =
    "The configuration; else $COFFERDAM_CONFIG, ~/.config/cofferdam/cofferdam.toml, /etc/cofferdam/cofferdam.toml";

/// Runs many AI agents on one host, each in a process of its own.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version, propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
pub(super) struct Cli {
    /// The configuration.
    #[arg(long, global = true, value_name = "PATH", help = CONFIG_HELP)]
    pub(super) config: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub(super) command: Command,
}

/// How a listing is printed.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Shape {
    /// Print JSON for scripts
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the supervisor in the foreground
    ///
    /// SIGTERM: the supervisor leaves and its workers stay, so that a restart loses no turn.
    /// SIGINT: drain, then end everything; a second one kills.
    Run,
    /// End the supervisor and every agent, after the turns that run
    Shutdown {
        /// Do not wait for turns that run
        #[arg(long)]
        now: bool,
    },
    /// Show every agent
    Ps {
        #[command(flatten)]
        shape: Shape,
    },
    /// Is all well? Exit code 1 if messages cannot be taken
    Health {
        #[command(flatten)]
        shape: Shape,
    },
    /// Send a message to an agent and print its answer
    Send(Send),
    /// List turns, latest first, or show the story of one
    #[command(args_conflicts_with_subcommands = true)]
    Turns {
        #[command(subcommand)]
        one: Option<TurnsCommand>,
        #[command(flatten)]
        list: TurnsList,
    },
    /// Start agents
    Start(Agents),
    /// Let agents finish what runs, within their grace, and stop them
    Stop(Agents),
    /// Stop agents, then start them
    Restart(Agents),
    /// End agents and all that they started, at once
    Kill(Agents),
    /// Stop the running turns of an agent
    Interrupt {
        #[arg(value_parser = agent)]
        agent: AgentName,
        /// Only in this conversation
        #[arg(long, value_name = "C")]
        conversation: Option<String>,
    },
    /// Try a failed turn again, as a new turn, and print its answer
    Retry {
        /// Its number
        turn: u64,
        /// Return as soon as the new turn is in the ledger
        #[arg(long)]
        no_wait: bool,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Log an agent with a login of its own in to Codex
    Login {
        #[arg(value_parser = agent)]
        agent: AgentName,
        /// Passed to `codex login`, for example `-- --device-auth`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Print the log of an agent's worker
    Logs {
        #[arg(value_parser = agent)]
        agent: AgentName,
        /// Go on printing what is added
        #[arg(short, long)]
        follow: bool,
        /// How many of the last lines
        #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
        lines: usize,
        #[command(flatten)]
        shape: Shape,
    },
    /// Show what runs and waits at an agent
    Queue {
        #[arg(value_parser = agent)]
        agent: AgentName,
        #[command(flatten)]
        shape: Shape,
    },
    /// Hurt a throw-away agent on purpose and measure what the others feel
    ///
    /// Exit code 1 if a budget is missed, 75 if that happened on a host that was busy before. No configured agent is
    /// touched unless --agent names one.
    Drill(Drill),
    /// Check the configuration, without a supervisor
    Check {
        #[command(flatten)]
        shape: Shape,
    },
    /// Say what this host enforces of isolation and limits, and how to get the rest. Exit code 1 if a limit is not held
    Doctor {
        #[command(flatten)]
        shape: Shape,
    },
    /// Let the supervisor read its configuration again
    Reload,
    /// Replace the supervisor by another build; turns go on, workers follow one by one as they fall idle
    Upgrade {
        /// The new program; by default the one that runs this command
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
        /// Return as soon as the supervisor is replaced
        #[arg(long)]
        no_wait: bool,
    },
    /// Write a first configuration
    Init {
        /// Where; by default ~/.config/cofferdam/cofferdam.toml
        path: Option<PathBuf>,
        /// Name of the first agent
        #[arg(long, value_parser = agent, default_value = "assistant")]
        agent: AgentName,
        /// Your Telegram user id
        #[arg(long, default_value_t = 11_111_111)]
        owner: i64,
    },
    /// Print the version
    Version {
        #[command(flatten)]
        shape: Shape,
    },
    /// Print completions for a shell
    Completions { shell: clap_complete::Shell },
}

#[derive(Debug, Args)]
pub(super) struct Send {
    #[arg(value_parser = agent)]
    pub(super) agent: AgentName,
    /// What is said; `-` or nothing reads it from standard input
    pub(super) text: Option<String>,
    /// In this conversation
    #[arg(long, value_name = "C", default_value = "default")]
    pub(super) conversation: String,
    /// Return as soon as the message is in the ledger
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Print one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Drill {
    /// How
    #[arg(required = true, value_name = "KIND", value_parser = PossibleValuesParser::new(super::drill::words()))]
    pub(super) kinds: Vec<String>,
    /// Length of each phase: before, during, after
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(super) seconds: u64,
    /// Where report.json and latency.svg go; by default a folder of their own below drills/ in the state
    #[arg(long, value_name = "DIR")]
    pub(super) report: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Hurt this configured agent instead of a throw-away one, by `stop` and `kill` only
    #[arg(long, value_name = "NAME", value_parser = agent, requires = "yes_hurt_it")]
    pub(super) agent: Option<AgentName>,
    /// Yes, hurt the agent that --agent names
    #[arg(long, requires = "agent")]
    pub(super) yes_hurt_it: bool,
    /// Even if it runs turns, which may be lost
    #[arg(long, requires = "agent")]
    pub(super) even_if_busy: bool,
}

#[derive(Debug, Args)]
pub(super) struct TurnsList {
    /// Of this agent only
    #[arg(value_parser = agent)]
    pub(super) agent: Option<AgentName>,
    /// Failed ones only
    #[arg(long)]
    pub(super) failed: bool,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) most: u32,
    #[command(flatten)]
    pub(super) shape: Shape,
}

#[derive(Debug, Subcommand)]
pub(super) enum TurnsCommand {
    /// Tell the whole story of one turn
    Show {
        /// Its number
        turn: u64,
        #[command(flatten)]
        shape: Shape,
    },
}

#[derive(Debug, Args)]
pub(super) struct Agents {
    /// Which agents
    #[arg(required = true, value_name = "AGENT", value_parser = agent)]
    pub(super) agents: Vec<AgentName>,
}

fn agent(text: &str) -> Result<AgentName, protocol::ids::BadAgentName> {
    AgentName::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_words_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn turns_takes_an_agent_or_a_number_to_show() {
        let parse = |words: &[&str]| Cli::try_parse_from(std::iter::once(&"cofferdam").chain(words));
        let Command::Turns { one: None, list } = parse(&["turns", "a", "--failed"]).unwrap().command else { panic!() };
        assert!(list.failed && list.agent.is_some());
        let shown = parse(&["turns", "show", "7", "--json"]).unwrap().command;
        assert!(matches!(shown, Command::Turns { one: Some(TurnsCommand::Show { turn: 7, .. }), .. }), "{shown:?}");
        assert!(parse(&["turns", "Not An Agent"]).is_err());
        assert!(parse(&["kill"]).is_err());
        assert!(parse(&["ps", "--config", "x"]).is_ok());
    }

    #[test]
    fn a_configured_agent_is_hurt_only_by_a_word_that_says_so() {
        let parse = |words: &[&str]| Cli::try_parse_from(std::iter::once(&"cofferdam").chain(words));
        assert!(parse(&["drill", "stop", "kill"]).is_ok() && parse(&["drill", "all"]).is_ok());
        for bad in [&["drill"][..], &["drill", "tickle"], &["drill", "stop", "--agent", "a"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse(&["drill", "stop", "--seconds", "0"]).is_err());
        assert!(parse(&["drill", "stop", "--yes-hurt-it"]).is_err());
        assert!(parse(&["drill", "stop", "--agent", "a", "--yes-hurt-it"]).is_ok());
    }
}
