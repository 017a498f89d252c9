//! The configuration that `cofferdam init` writes: one agent behind one Telegram bot, all else as comments.

use protocol::AgentName;

/// A whole configuration as text. `agent` is the agent's name, `owner` the Telegram id of its owner; the token is
/// expected in the file `AGENT.token` beside it.
pub fn template(agent: &AgentName, owner: i64) -> String {
    TEMPLATE.replace("AGENT", agent.as_str()).replace("OWNER", &owner.to_string())
}

const TEMPLATE: &str = r#"# Cofferdam. `cofferdam check` says what is wrong with this file; README.md has every key.
# Relative paths are relative to this file, durations are "90s", "10m", "1h30m", sizes are "512M", "2G".

# state_dir = "~/.local/state/cofferdam"    # ledger, homes, journals
# max_turns = 16                            # turns at once beyond each agent's first

# [codex]
# command = "codex"                         # name on PATH, or a path

# A provider beside `openai`, which is built in. It must serve /responses.
# [providers.ollama]
# base_url    = "http://127.0.0.1:11434/v1"
# api_key_env = "OLLAMA_API_KEY"            # passed to agents whose routes use this provider, to no other

[defaults]                                  # any key of an agent
model = "openai/gpt-5.5"                    # PROVIDER/MODEL; codex-cli/MODEL runs `codex exec` for each turn

[agents.AGENT]
# workspace = "~/AGENT"                     # where it works; without it, a folder in state_dir
# fallbacks = ["openai/gpt-5.4"]            # where to go when a failure allows it
# runtime   = "codex"                       # codex (kept warm) or codex-cli (one process for each turn)
# auth      = "shared"                      # shared (your ~/.codex/auth.json), own (cofferdam login AGENT), none
# queue     = "steer"                       # a message during a turn: steer, queue, collect, interrupt
# sandbox   = "workspace-write"             # read-only, workspace-write, danger-full-access
# network   = true                          # lets tools reach the network
# env_pass  = ["GITHUB_TOKEN"]              # nothing else of the environment gets through but the basics

# [agents.AGENT.codex]                      # merged into the config.toml of its Codex
# model_reasoning_effort = "high"

[telegram.AGENT_bot]
token_file = "AGENT.token"                  # from @BotFather; chmod 600
agent      = "AGENT"
owners     = [OWNER]                        # Telegram user ids: may operate, and get alerts
# allow    = [22222222]                     # further users and chats that are heard
"#;
