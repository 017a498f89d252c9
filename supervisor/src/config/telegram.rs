//! Telegram bots: their tokens, and who is heard.

use super::files;
use super::model::{Bot, Secret};
use super::read::{Span, Spot};
use super::report::{Problem, Sink};
use super::resolve::{Names, check_name, check_url, is_variable};
use super::section::{Found, Section, World};
use super::value::echo;
use protocol::AgentName;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Largest file of a token in bytes: a token has about 46.
const TOKEN_FILE_BYTES_MAX: u64 = 4_096;

/// All bots that could be read whole.
pub(super) fn bots(root: &Section<'_>, names: &Names<'_>, world: World<'_>, sink: &mut Sink) -> BTreeMap<String, Bot> {
    let mut all = BTreeMap::new();
    let mut tokens: BTreeMap<Secret, Span> = BTreeMap::new();
    env_of_agents(root, world, sink);
    for (name, table) in root.named("telegram") {
        let section = Section::new("telegram.*", Some(table), world);
        check_name("bot", &name.value, &name.span, sink);
        let token = token(&section, name, world, sink);
        let agent = section.required("agent", &name.span, sink);
        let agent = agent.and_then(|found| names.agent(&found.value, &found.span, sink));
        let Some(token) = token else { continue };
        if let Some(first) = tokens.get(&token.value) {
            let problem = Problem::error(&token.span, format!("bot `{}` has the token of another bot", name.value));
            let problem = problem.label("the same token").also(first, "first used here");
            sink.push(problem.help("Telegram gives each message to one of them only: a token for each bot"));
        } else {
            tokens.insert(token.value.clone(), token.span);
        }
        let Some(agent) = agent else { continue };
        all.insert(name.value.clone(), bot(name, token.value, agent, &section, sink));
    }
    all
}

fn bot(name: &Spot<String>, token: Secret, agent: AgentName, section: &Section<'_>, sink: &mut Sink) -> Bot {
    let ids = |key: &str| section.get::<Vec<Spot<i64>>>(key);
    let allow: BTreeSet<i64> = ids("allow").into_iter().map(|id| id.value).collect();
    let owners: BTreeSet<i64> = ids("owners").iter().map(|id| id.value).collect();
    for id in ids("owners").iter().filter(|id| id.value <= 0) {
        let label = "a user's id is greater than 0; groups and channels cannot be owners";
        sink.push(Problem::error(&id.span, format!("{} is no user", id.value)).label(label));
    }
    if allow.is_empty() && owners.is_empty() {
        let problem = Problem::warning(&name.span, format!("bot `{}` hears nobody", name.value));
        sink.push(
            problem.label("`allow` and `owners` are empty").help("put your Telegram user id into `owners`").derived(),
        );
    }
    let api_root = section.found::<String>("api_root");
    if let Some(root) = &api_root
        && let Err(why) = check_url(&root.value)
    {
        sink.push(Problem::error(&root.span, format!("bad address {}", echo(&root.value))).label(why));
    }
    Bot {
        name: name.value.clone(),
        token,
        token_file: section.path("token_file").map(|found| found.value),
        agent,
        allow,
        owners,
        api_root: section.get::<String>("api_root").trim_end_matches('/').to_owned(),
    }
}

/// The token, from one of the three places that may hold it. `None`: it was reported.
fn token(section: &Section<'_>, name: &Spot<String>, world: World<'_>, sink: &mut Sink) -> Option<Spot<Secret>> {
    let ways = ["token_file", "token_env", "token"].map(|way| section.gives(way).map(|entry| (way, entry)));
    let mut given = ways.into_iter().flatten();
    let Some((way, entry)) = given.next() else {
        let problem = Problem::error(&name.span, format!("bot `{}` has no token", name.value));
        let help = "put the token into a file of mode 0600 and name it: token_file = \"NAME.token\"";
        sink.push(problem.label("`token_file` or `token_env` must be given here").help(help).derived());
        return None;
    };
    if let Some((other, second)) = given.next() {
        let problem = Problem::error(&second.key, format!("bot `{}` has two tokens", name.value));
        sink.push(problem.label(format!("`{other}` as well")).also(&entry.key, format!("`{way}` is given")));
        return None;
    }
    let secret = match way {
        "token_file" => from_file(&section.path("token_file")?, world, sink)?,
        "token_env" => from_env(&section.found("token_env")?, world, sink)?,
        _ => from_here(&section.found("token")?, world, sink)?,
    };
    if !is_token(secret.reveal()) {
        let problem = Problem::error(&entry.span, format!("what bot `{}` has is no token", name.value));
        sink.push(problem.label("a token is a number, a colon, and letters").help("@BotFather gives one"));
        return None;
    }
    Some(Spot { value: secret, span: entry.span.clone() })
}

/// Whether `text` could be a token; whether it is one, only Telegram knows.
fn is_token(text: &str) -> bool {
    /// Three times what a token has today.
    const TOKEN_BYTES_MAX: usize = 150;
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    text.len() <= TOKEN_BYTES_MAX
        && text.split_once(':').is_some_and(|(id, tail)| {
            !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()) && !tail.is_empty() && tail.bytes().all(good)
        })
}

fn from_file(found: &Found<PathBuf>, world: World<'_>, sink: &mut Sink) -> Option<Secret> {
    let path = found.value.display();
    let content = match files::read(&found.value, TOKEN_FILE_BYTES_MAX) {
        Ok(content) => content,
        Err(why) => {
            sink.push(
                Problem::error(&found.span, format!("cannot read the token in {path}: {why}")).label("not readable"),
            );
            return None;
        }
    };
    if !content.is_private() && !is_credential(&found.value, world) {
        let message = format!("others may read the token in {path} (mode {:04o})", content.mode);
        let problem = Problem::error(&found.span, message).label("must be readable by its owner alone");
        sink.push(problem.help(format!("run `chmod 600 {path}`; if others have seen it, @BotFather gives a new one")));
        return None;
    }
    let text = String::from_utf8(content.bytes).unwrap_or_default();
    Some(Secret::new(text.trim().to_owned()))
}

/// systemd hands credentials over in a folder of its own, closed to others whatever the modes of the files.
fn is_credential(path: &Path, world: World<'_>) -> bool {
    world.env.var("CREDENTIALS_DIRECTORY").is_some_and(|dir| path.starts_with(dir) && dir.starts_with('/'))
}

fn from_env(found: &Found<String>, world: World<'_>, sink: &mut Sink) -> Option<Secret> {
    if !is_variable(&found.value) {
        let label = "must be the name of a variable, not the token itself";
        sink.push(Problem::error(&found.span, "bad name of a variable").label(label));
        return None;
    }
    let secret = world.env.secret(&found.value);
    if secret.is_none() {
        let problem = Problem::error(&found.span, format!("${} is not set", found.value)).label("holds no token");
        sink.push(problem.help("set it where the supervisor is started, or use `token_file`"));
    }
    secret
}

fn from_here(found: &Found<String>, world: World<'_>, sink: &mut Sink) -> Option<Secret> {
    if !world.file_private {
        let problem = Problem::error(&found.span, "others may read the token in this file");
        let help = "run `chmod 600` on this file, or move the token to a file of its own and name it in `token_file`";
        sink.push(problem.label("allowed only if the file is readable by its owner alone").help(help));
        return None;
    }
    Some(Secret::new(found.value.trim().to_owned()))
}

/// Says that an agent would be handed the variable that holds a bot's token.
fn env_of_agents(root: &Section<'_>, world: World<'_>, sink: &mut Sink) {
    let bots = root.named("telegram").iter();
    let tokens: BTreeMap<String, Span> = bots
        .filter_map(|(_, table)| Section::new("telegram.*", Some(table), world).found::<String>("token_env"))
        .map(|found| (found.value, found.span))
        .collect();
    let defaults = root.sub("defaults");
    let tables = root.named("agents").iter().map(|(_, table)| Some(table)).chain([defaults.table()]);
    for table in tables.flatten() {
        let agent = Section::new("agents.*", Some(table), world);
        for spot in agent.get::<Vec<Spot<String>>>("env_pass") {
            if let Some(token) = tokens.get(&spot.value) {
                let problem = Problem::error(&spot.span, format!("${} holds the token of a bot", spot.value));
                sink.push(problem.label("must not reach an agent").also(token, "the bot reads it here"));
            }
        }
    }
}
