//! The text of `config.toml`: quiet defaults, then the agent, then the operator's own keys, then our safety keys.
//!
//! ```text
//!  quiet defaults  <  route, providers, sandbox  <  [agents.NAME.codex]  <  safety keys
//! ```
//! The safety keys are those that a promise rests on: what tools may touch, that nobody waits for an answer that will
//! not come, that a lost network ends, that turns do not start by themselves, and that tools do not see keys.

use super::Homes;
use protocol::to_worker::{Configure, Provider, Reviewer};
use std::path::Path;
use toml::{Table, Value};

/// Variables of Codex itself that its tools have no business with.
const HIDDEN_FROM_TOOLS: [&str; 4] = ["CODEX_HOME", "CODEX_API_KEY", "CODEX_ACCESS_TOKEN", "CODEX_SQLITE_HOME"];

/// Tables that Codex writes into its configuration by itself.
const WRITTEN_BY_CODEX: [&str; 4] = ["projects", "notice", "tui", "hooks"];

/// The rendered text.
///
/// # Errors
/// When the agent's extra settings are no TOML.
pub fn config(configure: &Configure, homes: &Homes) -> Result<String, toml::de::Error> {
    let mut table = quiet();
    merge(&mut table, agent(configure, homes));
    merge(&mut table, configure.codex_extra.parse::<Table>()?);
    let safety = safety(configure, homes, &table);
    merge(&mut table, safety);
    Ok(format!("# Rendered by cofferdam. Settings of your own go to [agents.NAME.codex].\n{table}"))
}

/// Whether `found` differs from what we rendered (kept beside `rendered`) or render only in what Codex itself writes.
pub(super) fn only_codex_wrote(found: &str, text: &str, rendered: &Path) -> bool {
    let plain = |text: &str| {
        let mut table = text.parse::<Table>().ok()?;
        table.retain(|key, _| !WRITTEN_BY_CODEX.contains(&key));
        Some(table)
    };
    let Some(found) = plain(found) else { return false };
    let before = std::fs::read_to_string(rendered.with_extension("toml")).unwrap_or_default();
    [text, &before].iter().any(|ours| plain(ours).is_some_and(|ours| ours == found))
}

fn quiet() -> Table {
    table([
        ("check_for_update_on_startup", false.into()),
        ("analytics", table([("enabled", false.into())]).into()),
        ("feedback", table([("enabled", false.into())]).into()),
        ("history", table([("persistence", "none".into())]).into()),
        (
            "features",
            ["plugins", "remote_plugin", "apps", "shell_snapshot"]
                .map(|name| (name.to_owned(), Value::from(false)))
                .into_iter()
                .collect::<Table>()
                .into(),
        ),
    ])
}

fn agent(configure: &Configure, homes: &Homes) -> Table {
    let route = &configure.default_route;
    let providers: Table = configure.providers.iter().map(|p| (p.name.clone(), provider(p).into())).collect();
    let workspace = homes.workspace.display().to_string();
    let mut projects = Table::new();
    projects.insert(workspace, table([("trust_level", "trusted".into())]).into());
    let mut agent = table([("projects", projects.into())]);
    if !route.model.is_empty() {
        agent.insert("model".to_owned(), route.model.clone().into());
    }
    if !route.provider.is_empty() {
        agent.insert("model_provider".to_owned(), route.provider.clone().into());
    }
    if !providers.is_empty() {
        agent.insert("model_providers".to_owned(), providers.into());
    }
    agent
}

fn provider(provider: &Provider) -> Table {
    let mut entry = table([
        ("name", provider.name.clone().into()),
        ("base_url", provider.base_url.clone().into()),
        ("wire_api", "responses".into()),
        ("requires_openai_auth", false.into()),
        ("supports_websockets", false.into()),
    ]);
    if let Some(variable) = &provider.api_key_env {
        entry.insert("env_key".to_owned(), variable.clone().into());
    }
    entry
}

fn safety(configure: &Configure, homes: &Homes, so_far: &Table) -> Table {
    let reviewer = match configure.reviewer {
        Reviewer::User => "user",
        Reviewer::Auto => "auto_review",
    };
    let mut roots: Vec<Value> =
        [&homes.home, &homes.tmp].iter().map(|path| path.display().to_string().into()).collect();
    roots.extend(configure.writable.iter().map(|path| path.clone().into()));
    let mut hidden: Vec<Value> = HIDDEN_FROM_TOOLS.iter().map(|name| (*name).into()).collect();
    hidden.extend(configure.env_secret.iter().map(|name| name.clone().into()));
    let theirs = so_far.get("shell_environment_policy").and_then(|p| p.get("exclude")).and_then(Value::as_array);
    hidden.extend(theirs.into_iter().flatten().cloned());
    table([
        ("approval_policy", configure.approval.as_str().into()),
        ("approvals_reviewer", reviewer.into()),
        ("sandbox_mode", configure.sandbox.as_str().into()),
        ("cli_auth_credentials_store", "file".into()),
        (
            "sandbox_workspace_write",
            table([("network_access", configure.network.into()), ("writable_roots", roots.into())]).into(),
        ),
        ("features", table([("unbounded_connection_retries", false.into()), ("goals", false.into())]).into()),
        // The children's environment is an allow-list already: what is not secret in it is meant for the tools.
        (
            "shell_environment_policy",
            table([("exclude", hidden.into()), ("ignore_default_excludes", true.into())]).into(),
        ),
    ])
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Lays `over` on `under`: tables are merged, everything else is replaced.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::tests::configure;
    use protocol::to_worker::{Approval, Sandbox};
    use std::path::Path;

    fn rendered(change: impl FnOnce(&mut Configure)) -> Table {
        let mut configure = configure(Path::new("/agent"));
        change(&mut configure);
        config(&configure, &Homes::of(Path::new("/agent"), &configure)).unwrap().parse().unwrap()
    }

    #[test]
    fn the_operators_keys_are_merged_and_ours_come_last() {
        let table = rendered(|c| {
            c.sandbox = Sandbox::ReadOnly;
            c.approval = Approval::Never;
            c.env_secret = vec!["MOCK_KEY".into()];
            c.codex_extra = r#"
                model_reasoning_effort = "high"
                sandbox_mode = "danger-full-access"
                approval_policy = "on-request"
                [features]
                apps = true
                goals = true
                [model_providers.mock]
                request_max_retries = 1
                [shell_environment_policy]
                inherit = "core"
                exclude = ["THEIRS"]
            "#
            .into();
        });
        assert_eq!(table["sandbox_mode"].as_str(), Some("read-only"));
        assert_eq!(table["approval_policy"].as_str(), Some("never"));
        assert_eq!(table["model_reasoning_effort"].as_str(), Some("high"));
        assert_eq!(table["features"]["apps"].as_bool(), Some(true));
        assert_eq!(table["features"]["goals"].as_bool(), Some(false));
        let provider = &table["model_providers"]["mock"];
        assert_eq!(provider["request_max_retries"].as_integer(), Some(1));
        assert_eq!(provider["wire_api"].as_str(), Some("responses"));
        let excluded = table["shell_environment_policy"]["exclude"].as_array().unwrap();
        for name in ["MOCK_KEY", "THEIRS", "CODEX_HOME"] {
            assert!(excluded.iter().any(|v| v.as_str() == Some(name)), "{name}");
        }
        assert_eq!(table["shell_environment_policy"]["inherit"].as_str(), Some("core"));
    }

    #[test]
    fn the_whole_text_is_stable() {
        let mut configure = configure(Path::new("/agent"));
        configure.writable = vec!["/data".into()];
        insta::assert_snapshot!(config(&configure, &Homes::of(Path::new("/agent"), &configure)).unwrap());
    }

    #[test]
    fn settings_that_are_no_toml_are_refused() {
        let mut configure = configure(Path::new("/agent"));
        configure.codex_extra = "= 1".into();
        assert!(config(&configure, &Homes::of(Path::new("/agent"), &configure)).is_err());
    }
}
