//! How fast processes come, go and come back.

use super::ask::{Asker, PATIENCE, name};
use super::clock::{ms, now, pause, until};
use super::host;
use super::table::{Budget, Samples, Table};
use super::{Fault, Plan, agent, agents, started};
use crate::processes;
use crate::world::World;
use protocol::control::Verb;
use protocol::from_worker::FromWorker;
use protocol::to_worker::{Approval, Auth, Clocks, Configure, Home, Limits, Reviewer, Sandbox};
use protocol::{Incarnation, Route, Runtime, ToWorker};
use std::path::Path;
use std::time::Duration;
use supervisor::link::{self, Happened, Target};
use supervisor::process::spawn::{WorkerSpec, spawn_worker};
use tokio::sync::mpsc;

/// Between two rounds, so that one does not disturb the next.
const BREATH: Duration = Duration::from_millis(50);
/// What a tool leaves running: children, a session of its own, and grandchildren in it.
const TREE: &str =
    "[[tool sleep 601 & setsid sleep 602 & setsid nohup sh -c 'sleep 603 & sleep 604' >/dev/null 2>&1 & wait]]";
/// Processes of that tree at the least, with the worker and its Codex.
const TREE_MIN: usize = 6;

/// A worker's process to its `Ready`, by the supervisor's own code without the supervisor around it.
pub(super) fn spawn(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let world = plan.world().build();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut bound, mut ready) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds(100) {
        let (first, second) = runtime.block_on(spawn_once(&world, plan, round as u64 + 1))?;
        bound.push(first);
        ready.push(second);
        pause(BREATH);
    }
    Table::heading("processes come and go");
    Table::row("worker: spawn to socket bound, ms", &Samples::new(bound));
    table.judged("worker: spawn to ready, ms", &Samples::new(ready), Budget::Median(5.0));
    Ok(())
}

async fn spawn_once(world: &World, plan: &Plan, round: u64) -> Result<(f64, f64), Fault> {
    let (agent, incarnation) = (name("spawned")?, Incarnation(round));
    let (dir, socket) = (world.state().join("agents/spawned"), world.root().join("r/spawned.sock"));
    let uid = nix::unistd::getuid().as_raw();
    let spec = WorkerSpec {
        cgroup: None,
        program: plan.binaries.worker.clone(),
        agent: agent.clone(),
        incarnation,
        agent_dir: dir,
        socket: socket.clone(),
        nonce: 0,
        user: None,
        supervisor_uid: uid,
    };
    let begin = now();
    let running = spawn_worker(&spec).map_err(|error| Fault(error.to_string()))?;
    running.listening.await.map_err(Fault)?;
    let bound = ms(begin.elapsed());
    let dialled =
        link::dial(&Target { socket, agent, incarnation, uid }).await.map_err(|e| Fault(e.error.to_string()))?;
    let (news, mut heard) = mpsc::channel(16);
    let session = dialled.begin(news);
    let configure = ToWorker::Configure(Box::new(configure(&world.workspace("spawned"))));
    session.tell(&configure).map_err(|error| Fault(error.to_string()))?;
    loop {
        let news = tokio::time::timeout(PATIENCE, heard.recv()).await.ok().flatten();
        match news.ok_or_else(|| Fault("the worker did not become ready".into()))?.happened {
            Happened::Said(FromWorker::Ready(_)) => break,
            Happened::Said(_) | Happened::ReadOut => {}
            Happened::Lost(why) => return Err(Fault(why)),
        }
    }
    let ready = ms(begin.elapsed());
    running.handle.kill().map_err(|error| Fault(error.to_string()))?;
    running.exited.await;
    Ok((bound, ready))
}

fn configure(workspace: &Path) -> Configure {
    Configure {
        ledger: 7,
        workspace: workspace.display().to_string(),
        codex_command: "codex".into(),
        default_route: Route { runtime: Runtime::Codex, provider: "standin".into(), model: "gpt-5.5".into() },
        providers: vec![],
        auth: Auth::None,
        sandbox: Sandbox::DangerFullAccess,
        network: true,
        writable: vec![],
        approval: Approval::Never,
        reviewer: Reviewer::User,
        home: Home::Private,
        real_home: "/nonexistent".into(),
        home_share: vec![],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        env_secret: vec![],
        codex_extra: String::new(),
        masked: vec![],
        limits: Limits::default(),
        max_turns: 3,
        clocks: Clocks {
            first_event_ms: 60_000,
            silence_ms: 600_000,
            turn_ms: 3_600_000,
            compaction_ms: 600_000,
            idle_after_ms: 600_000,
            orphan_after_ms: 600_000,
            stop_grace_ms: 500,
            heartbeat_ms: 15_000,
        },
    }
}

/// The supervisor's start to 8 ready agents; homes and ledger are there from an earlier run.
pub(super) fn start(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let (mut world, asker) = started(agents(plan.world(), 8, ""), 8)?;
    let mut all = Vec::new();
    for _ in 0..plan.rounds(20) {
        let ran = world.cli(&["shutdown", "--now"]);
        if ran.code != 0 {
            return Err(Fault(ran.stderr));
        }
        world.wait_ended();
        pause(BREATH);
        let begin = now();
        world.run();
        asker.until_ready(8)?;
        all.push(ms(begin.elapsed()));
    }
    table.judged("supervisor: start to 8 agents ready, ms", &Samples::new(all), Budget::Max(300.0));
    Ok(())
}

/// Each of 50 idle workers is killed once, so that none has to wait for a pause.
pub(super) fn killed_worker(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let (_world, asker) = started(agents(plan.world(), 50, ""), 50)?;
    let mut all = Vec::new();
    for (agent, pid) in asker.workers()?.into_iter().take(plan.rounds(50)) {
        pause(BREATH);
        let begin = now();
        processes::kill9(pid);
        let noticed = until(PATIENCE, || (asker.count("ready") < 50).then_some(()));
        noticed.ok_or_else(|| Fault(format!("nobody noticed the death of {agent}'s worker")))?;
        asker.until_ready(50)?;
        all.push(ms(begin.elapsed()));
    }
    table.judged("idle worker: SIGKILL to replacement ready (of 50), ms", &Samples::new(all), Budget::Median(10.0));
    Ok(())
}

/// `kill` of an agent whose turn runs a tree of tools, until the kernel knows none of its processes.
pub(super) fn kill(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let (_world, asker) = started(plan.world().agent("a0", "runtime = \"codex-cli\""), 1)?;
    let (mut all, mut sizes) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds(20) {
        asker.send("a0", &format!("c{round}"), TREE)?;
        let worker = asker.worker("a0")?;
        let tree = until(PATIENCE, || {
            let tree = host::tree(worker);
            let sleeps = tree.iter().filter(|pid| processes::command_line(**pid).starts_with("sleep 60")).count();
            (tree.len() >= TREE_MIN && sleeps >= 4).then_some(tree)
        });
        let tree = tree.ok_or_else(|| Fault("the tool's tree did not grow".into()))?;
        let begin = now();
        let killer = asker.clone();
        let killing = std::thread::spawn(move || killer.change(Verb::Kill, "a0"));
        let gone = until(PATIENCE, || (!tree.iter().any(|pid| processes::is_alive(*pid))).then_some(()));
        all.push(ms(begin.elapsed()));
        gone.ok_or_else(|| Fault("something survived the kill".into()))?;
        killing.join().map_err(|_| Fault("the kill panicked".into()))??;
        sizes.push(f64::from(u32::try_from(tree.len()).unwrap_or(u32::MAX)));
        asker.change(Verb::Start, "a0")?;
        asker.until_ready(1)?;
    }
    table.judged("agent with a tree of tools: kill to nothing left, ms", &Samples::new(all), Budget::P99(50.0));
    Table::row("  processes of that tree", &Samples::new(sizes));
    Ok(())
}

/// The supervisor is killed in the middle of a turn; another one starts at once and the model goes on.
pub(super) fn killed_supervisor(plan: &Plan, table: &mut Table) -> Result<(), Fault> {
    let (mut world, asker) = started(plan.world().agent("a0", "runtime = \"codex\""), 1)?;
    asker.answer("a0", "c", "warm")?;
    let waiting = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (mut all, mut requests) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds(20) {
        let (hold, prompt) = (format!("k{round}"), format!("killed{round}x"));
        let turn = asker.send("a0", "c", &format!("[[hold {hold}]] {prompt}"))?;
        waiting.block_on(world.model.wait_held(&hold, PATIENCE));
        let begin = now();
        world.kill_supervisor();
        world.run();
        world.model.release(&hold);
        let ended = until(PATIENCE, || asker.story(turn).filter(|story| story.row.ended_at.is_some()));
        all.push(ms(begin.elapsed()));
        let ended = ended.ok_or_else(|| Fault("the turn did not end".into()))?;
        if ended.row.state != "completed" {
            return Err(Fault(format!("the turn ended {}", ended.row.state)));
        }
        requests.push(f64::from(u32::try_from(world.model.count_prompt(&prompt)).unwrap_or(u32::MAX)));
    }
    table.judged("supervisor killed in mid-turn: to the answer, ms", &Samples::new(all), Budget::Max(1000.0));
    table.judged("  requests that the model saw for it", &Samples::new(requests), Budget::Max(1.0));
    Ok(())
}

/// The pids of the workers of [`agents`], in their order.
pub(super) fn workers_in_order(asker: &Asker, count: usize) -> Result<Vec<u32>, Fault> {
    let all = asker.workers()?;
    let of = |index: usize| all.iter().find(|(name, _)| *name == agent(index)).map(|(_, pid)| *pid);
    (0..count).map(|index| of(index).ok_or_else(|| Fault(format!("{} has no worker", agent(index))))).collect()
}
