//! References to models, and who decides on which runtime they run.
//!
//! ```text
//!  codex-cli/gpt-5.5     prefix: runtime codex-cli, provider openai
//!  ollama/glm-5.1        provider ollama; runtime from the agent, [models], the provider, [defaults], else codex
//! ```

use super::model::{Provider, RuntimeFrom};
use super::read::{Span, Spot};
use super::report::{Problem, Sink};
use super::section::{Found, Layer, Section, World};
use super::value::{Bad, echo, nearest};
use protocol::{Route, Runtime};
use std::collections::BTreeMap;

/// The provider that Codex has built in.
pub(super) const OPENAI: &str = "openai";

/// Longest name of a model in bytes; it is shown in every listing.
const MODEL_BYTES_MAX: usize = 128;

/// What the tables of providers and models say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy<'a> {
    pub(super) providers: &'a BTreeMap<String, Provider>,
    /// By provider and model.
    pub(super) models: &'a BTreeMap<(String, String), Runtime>,
}

/// A reference to a model, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// The runtime that the reference itself asks for.
    pub(super) prefix: Option<Runtime>,
    pub(super) provider: String,
    pub(super) model: String,
}

impl Reference {
    /// Takes `text` apart.
    pub(super) fn parse(text: &str, providers: &BTreeMap<String, Provider>) -> Result<Self, Bad> {
        let shown = echo(text);
        let Some((head, model)) = text.split_once('/') else {
            let bad = Bad::new(format!("the model {shown} has no provider"), "must be PROVIDER/MODEL");
            return Err(Bad { help: Some(format!("did you mean \"{OPENAI}/{text}\"?")), ..bad });
        };
        let bad_char = |c: char| c.is_whitespace() || c.is_control() || c == '"';
        if model.is_empty() || model.len() > MODEL_BYTES_MAX || model.contains(bad_char) {
            let label = "after the provider, a name of 1 to 128 bytes without blanks is expected";
            return Err(Bad::new(format!("bad name of a model in {shown}"), label));
        }
        if let Some(runtime) = Runtime::parse(head) {
            if let Some((provider, rest)) = model.split_once('/').filter(|(p, _)| providers.contains_key(*p)) {
                let bad =
                    Bad::new(format!("{shown} names a runtime and a provider"), format!("{head}/ means {OPENAI}/"));
                let help = format!("write \"{provider}/{rest}\" and `runtime = \"{runtime}\"`");
                return Err(Bad { help: Some(help), ..bad });
            }
            return Ok(Self { prefix: Some(runtime), provider: OPENAI.to_owned(), model: model.to_owned() });
        }
        if !providers.contains_key(head) {
            let bad = Bad::new(format!("the provider {} is unknown", echo(head)), "no such table in [providers]");
            let help = match nearest(head, providers.keys().map(String::as_str)) {
                _ if head == "openai-codex" => format!("write \"{OPENAI}/{model}\""),
                Some(near) => format!("did you mean \"{near}/{model}\"?"),
                None => format!("a table [providers.{head}] would make it; known are {}", known(providers)),
            };
            return Err(Bad { help: Some(help), ..bad });
        }
        Ok(Self { prefix: None, provider: head.to_owned(), model: model.to_owned() })
    }

    fn on(self, runtime: Runtime) -> Route {
        Route { runtime, provider: self.provider, model: self.model }
    }
}

fn known(providers: &BTreeMap<String, Provider>) -> String {
    /// More names do not help.
    const NAMES_SHOWN_MAX: usize = 8;
    providers.keys().take(NAMES_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn report(span: &Span, bad: Bad, sink: &mut Sink) {
    let problem = Problem::error(span, bad.message).label(bad.label).derived();
    sink.push(match bad.help {
        Some(help) => problem.help(help),
        None => problem,
    });
}

/// The policy by model.
pub(super) fn models(
    root: &Section<'_>,
    providers: &BTreeMap<String, Provider>,
    world: World<'_>,
    sink: &mut Sink,
) -> BTreeMap<(String, String), Runtime> {
    let mut all = BTreeMap::new();
    for (name, table) in root.named("models") {
        let section = Section::new("models.*", Some(table), world);
        let runtime = section.found::<String>("runtime").and_then(|r| Runtime::parse(&r.value));
        match Reference::parse(&name.value, providers) {
            Err(bad) => report(&name.span, bad, sink),
            Ok(Reference { prefix: Some(_), model, .. }) => {
                let label = "a policy is for a model, whatever its runtime";
                let problem = Problem::error(&name.span, format!("{} names a runtime", echo(&name.value))).label(label);
                sink.push(problem.help(format!("write [models.\"{OPENAI}/{model}\"]")));
            }
            Ok(Reference { prefix: None, provider, model }) => {
                if let Some(runtime) = runtime {
                    all.insert((provider, model), runtime);
                }
            }
        }
    }
    all
}

/// An agent's first route and who chose its runtime. `None`: it was reported.
pub(super) fn first(
    agent: &Section<'_>,
    defaults: &Section<'_>,
    name: &Spot<String>,
    policy: Policy<'_>,
    sink: &mut Sink,
) -> Option<(Route, RuntimeFrom)> {
    let model = agent.required("model", &name.span, sink)?;
    let reference = match Reference::parse(&model.value, policy.providers) {
        Ok(reference) => reference,
        Err(bad) => {
            report(&model.span, bad, sink);
            return None;
        }
    };
    let runtime = agent.found::<String>("runtime");
    let layer = |layer: Layer| runtime.as_ref().filter(|r| r.layer == layer).and_then(|r| Runtime::parse(&r.value));
    if let Some(prefix) = reference.prefix {
        prefix_and_runtime(prefix, &model, agent, defaults, sink);
        return Some((reference.on(prefix), RuntimeFrom::Prefix));
    }
    let by_model = policy.models.get(&(reference.provider.clone(), reference.model.clone())).copied();
    let by_provider = policy.providers.get(&reference.provider).and_then(|p| p.runtime);
    let (runtime, from) = [
        (layer(Layer::Own), RuntimeFrom::Agent),
        (by_model, RuntimeFrom::Model),
        (by_provider, RuntimeFrom::Provider),
        (layer(Layer::Defaults), RuntimeFrom::Defaults),
    ]
    .into_iter()
    .find_map(|(runtime, from)| Some((runtime?, from)))
    .unwrap_or((Runtime::Codex, RuntimeFrom::BuiltIn));
    Some((reference.on(runtime), from))
}

/// Says that a table asks for two runtimes, or that the agent's own word loses against the prefix in `[defaults]`.
fn prefix_and_runtime(
    prefix: Runtime,
    model: &Found<String>,
    agent: &Section<'_>,
    defaults: &Section<'_>,
    sink: &mut Sink,
) {
    let table = if model.layer == Layer::Own { agent } else { defaults };
    let same_table =
        table.found::<String>("runtime").filter(|r| table.gives("runtime").is_some_and(|e| e.span == r.span));
    if let Some(runtime) = same_table.filter(|r| Runtime::parse(&r.value).is_some_and(|r| r != prefix)) {
        let message = format!("the model asks for runtime {prefix}, the table for {}", runtime.value);
        let problem = Problem::error(&runtime.span, message).label(format!("this says {}", runtime.value));
        let help = format!("drop `runtime`, or write the model as \"{OPENAI}/...\"");
        sink.push(problem.also(&model.span, format!("the prefix says {prefix}")).help(help));
    }
    let own = agent.found::<String>("runtime").filter(|r| r.layer == Layer::Own && model.layer == Layer::Defaults);
    if let Some(own) = own.filter(|r| Runtime::parse(&r.value).is_some_and(|r| r != prefix)) {
        let problem =
            Problem::warning(&own.span, format!("this runtime loses against the prefix {prefix}/ of the model"));
        let problem = problem.label("has no effect").also(&model.span, "the model comes from here");
        sink.push(problem.help(format!("write the model as \"{OPENAI}/...\"")));
    }
}

/// An agent's fallbacks, without those that are its first route or stand twice.
pub(super) fn fallbacks(first: &Route, agent: &Section<'_>, policy: Policy<'_>, sink: &mut Sink) -> Vec<Route> {
    let mut all: Vec<Route> = Vec::new();
    for spot in agent.get::<Vec<Spot<String>>>("fallbacks") {
        let reference = match Reference::parse(&spot.value, policy.providers) {
            Ok(reference) => reference,
            Err(bad) => {
                report(&spot.span, bad, sink);
                continue;
            }
        };
        let runtime = reference.prefix.unwrap_or(first.runtime);
        let route = reference.on(runtime);
        if route == *first || all.contains(&route) {
            let what = if route == *first { "the agent's first route" } else { "an earlier fallback" };
            let problem = Problem::warning(&spot.span, format!("this fallback is {what}")).label(route.to_string());
            sink.push(problem.help("drop it: a failure that got here would only be met again").derived());
        } else {
            all.push(route);
        }
    }
    all
}
