//! What a file may ask for that this release does not do: each is a warning at its place, for an operator who relies on
//! a thing must hear that it is not there.

use super::read::Span;
use super::report::{Problem, Sink};
use super::section::{Section, World};
use super::words::{Approval, Reviewer};
use std::collections::BTreeMap;

/// Warns of all of it. Called last: a sink that is full of warnings would only count the errors after them.
pub(super) fn warn(root: &Section<'_>, world: World<'_>, sink: &mut Sink) {
    reviewers(root, world, sink);
    jobs(root, sink);
}

/// A question that nobody can answer.
fn reviewers(root: &Section<'_>, world: World<'_>, sink: &mut Sink) {
    let defaults = root.sub("defaults");
    // By place: what stands in `[defaults]` is said once, however many agents it concerns.
    let mut places: BTreeMap<usize, (Span, Option<Span>)> = BTreeMap::new();
    for (_, table) in root.named("agents") {
        let agent = Section::new("agents.*", Some(table), world).behind(defaults.table());
        let asks = agent.word("approval", Approval::parse, Approval::Never) == Approval::OnRequest;
        let a_person = agent.word("reviewer", Reviewer::parse, Reviewer::Auto) == Reviewer::User;
        if let Some(approval) = agent.found::<String>("approval").filter(|_| asks && a_person) {
            let reviewer = agent.found::<String>("reviewer").map(|found| found.span);
            places.entry(approval.span.start).or_insert((approval.span, reviewer));
        }
    }
    for (approval, reviewer) in places.into_values() {
        let problem = Problem::warning(&approval, "nobody can be asked yet: every question of Codex is declined");
        let problem = problem.help("write `reviewer = \"auto\"` for Codex' own reviewer, or `approval = \"never\"`");
        sink.push(match reviewer {
            Some(reviewer) => problem.label("Codex asks").also(&reviewer, "a person is to answer"),
            None => problem.label("Codex asks, and without `reviewer` a person is to answer"),
        });
    }
}

/// Jobs that nothing starts.
fn jobs(root: &Section<'_>, sink: &mut Sink) {
    for table in root.tables("jobs") {
        let problem = Problem::warning(&table.span, "this release does not run jobs yet");
        let problem = problem.label("checked, but never started");
        sink.push(
            problem.help("until then, `cofferdam send` from cron or a systemd timer asks at a time of your choice"),
        );
    }
}
