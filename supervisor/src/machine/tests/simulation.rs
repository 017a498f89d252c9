//! A thousand seeds: messages, deaths, lost sessions, duplicates, operators and crashes of the supervisor in every order.
//!
//! The promises are asserted where they can be broken: by the ledger (one end each, nothing unsafe tried again), by the
//! workers (one attempt of a turn, one turn of a thread), by the world (records before acts, one process an agent) and by
//! [`World::check`]. Here is what only the end shows: with an obliging world everything comes to its end.

use super::world::*;
use crate::machine::lifecycle::State;
use crate::machine::nouns::*;
use crate::machine::setup::{QueueMode, Setup};
use crate::machine::words::{Delivery, Input};
use proptest::prelude::*;
use protocol::control::{Reply, Request, Verb};
use protocol::{AgentName, FailureClass, Outcome, TurnId};

/// A small generator (xorshift): the seed is the test's.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }
}

impl Dice {
    fn word(&mut self, from: &[&'static str]) -> &'static str {
        self.pick::<&str>(from)
    }
}

const MODES: [QueueMode; 4] = [QueueMode::Steer, QueueMode::Queue, QueueMode::Collect, QueueMode::Interrupt];

/// Days pass from deadline to deadline: a longer timeout makes fewer of them. The default has tests of its own.
const HEARTBEAT_MS: u64 = 60_000;

fn a_world(dice: &mut Dice) -> World {
    let mut setup = setup();
    for policy in setup.agents.values_mut() {
        policy.queue = *dice.pick(&MODES);
        policy.queue_max = 12;
        policy.heartbeat_ms = HEARTBEAT_MS;
        policy.max_turns = 1 + u32::try_from(dice.roll(3)).unwrap();
    }
    let mut world = World::asleep(setup);
    world.starts = false;
    for place in world.places.values_mut() {
        place.takes_steers = dice.roll(2) == 0;
    }
    world
}

fn outcome(dice: &mut Dice) -> Outcome {
    match dice.roll(4) {
        0 | 1 => Outcome::Completed,
        2 => Outcome::Interrupted,
        _ => Outcome::Failed(*dice.pick(FailureClass::ALL)),
    }
}

/// Something inside: a commit, a word, some news, Codex goes on. Most of what happens.
fn inside(world: &mut World, dice: &mut Dice, agent: &AgentName) {
    match dice.roll(5) {
        0 => (0..=dice.roll(4)).for_each(|_| {
            world.commit();
        }),
        1 => (0..=dice.roll(2)).for_each(|_| {
            world.word();
        }),
        2 => (0..=dice.roll(4)).for_each(|_| {
            world.news(agent);
        }),
        3 => {
            let place = world.places.get_mut(agent).unwrap();
            let running = place.running();
            let Some((attempt, _)) = (!running.is_empty() && !place.stopped).then(|| *dice.pick(&running)) else {
                return;
            };
            match dice.roll(8) {
                0..=5 => place.start(attempt),
                6 => place.run_tool(attempt),
                _ => place.end(attempt, outcome(dice), "words"),
            }
        }
        _ => world.tick += dice.roll(300),
    }
}

fn person(world: &mut World, dice: &mut Dice) {
    let bot = dice.word(&["abot", "bbot"]);
    let user = *dice.pick(&[FRIEND, FRIEND, FRIEND, FRIEND, FRIEND, OWNER, OWNER, 99]);
    match dice.roll(8) {
        0..=2 => world.write(bot, user, "do this"),
        3 => world.write(bot, user, dice.word(&["/stop", "/new", "/retry", "/status", "/help"])),
        4 => drop(world.send(dice.word(&["a", "b"]), dice.word(&["x", "y"]), "do that")),
        5 if !world.channel.is_empty() => {
            // Telegram hands over the latest again, in their order.
            let from = world.channel.len().saturating_sub(3);
            (from..world.channel.len()).for_each(|at| world.deliver(at));
        }
        6 if dice.roll(4) == 0 => world.update(bot, UpdateKind::Other { what: "photo".into(), from: None }),
        _ => drop(world.ask(dice.pick(&[Request::Health, Request::Ps, Request::Retry(TurnId(1))]).clone())),
    }
}

fn channel(world: &mut World, dice: &mut Dice) {
    let Some(post) = world.in_flight.pop() else { return };
    let delivery = match dice.roll(8) {
        0 => Delivery::Later(dice.roll(60_000)),
        1 => Delivery::Failed("503".into()),
        2 => Delivery::Uncertain("cut".into()),
        3 => Delivery::Unformatted("bad".into()),
        4 => Delivery::Impossible("blocked".into()),
        5 => Delivery::Sent { message: Some(5), more: true },
        _ => Delivery::Sent { message: Some(6), more: false },
    };
    world.give(Input::Delivered(post.id, delivery));
}

fn trouble(world: &mut World, dice: &mut Dice, agent: &AgentName) {
    match dice.roll(12) {
        0..=2 => world.die(agent, "signal 9"),
        3..=4 => world.lose_session(agent),
        5 => {
            let place = world.places.get_mut(agent).unwrap();
            place.stopped = !place.stopped && place.process.is_some() && dice.roll(2) == 0;
        }
        6 => {
            if !world.broken.remove(agent) && dice.roll(3) == 0 {
                world.broken.insert(agent.clone());
            }
        }
        7..=8 => world.restart(),
        9 => {
            world.give(Input::Leave);
            while world.commit() {}
            world.restart();
        }
        10 => {
            let input = if dice.roll(4) == 0 { Input::LedgerStuck("full".into()) } else { Input::LedgerWell };
            world.give(input);
        }
        _ => {
            let place = world.places.get_mut(agent).unwrap();
            if let Some(process) = &mut place.process {
                process.draining = true;
            }
        }
    }
}

fn operator(world: &mut World, dice: &mut Dice, agent: &AgentName) {
    let verb = *dice.pick(&[Verb::Start, Verb::Start, Verb::Start, Verb::Stop, Verb::Restart, Verb::Kill]);
    match dice.roll(6) {
        0..=2 => drop(world.ask(Request::Agents(verb, vec![agent.clone()]))),
        3 => drop(world.ask(Request::Interrupt(agent.clone(), None))),
        4 => {
            let mut setup = world.setup.clone();
            if dice.roll(3) > 0 || setup.agents.remove(agent).is_none() {
                let policy = super::world::setup().agents[agent].clone();
                setup.agents.insert(agent.clone(), policy);
            }
            world.setup = setup.clone();
            world.give(Input::Reloaded(None, Box::new(setup)));
        }
        _ => {
            if dice.roll(8) == 0 {
                world.give(Input::ShutDown);
            }
        }
    }
}

fn due(world: &mut World) {
    if let Some((at, _)) = world.machine.deadline() {
        world.tick = world.tick.max(at);
        // The workers that can, say that they live.
        world.beat();
        world.timeout();
    }
}

fn chaos(world: &mut World, dice: &mut Dice, steps: u64) {
    for _ in 0..steps {
        let agent = name(dice.word(&["a", "b"]));
        match dice.roll(100) {
            0..=75 => inside(world, dice, &agent),
            76..=82 => person(world, dice),
            83..=87 => channel(world, dice),
            88..=89 => trouble(world, dice, &agent),
            90 => operator(world, dice, &agent),
            _ => due(world),
        }
        if world.gone {
            world.restart();
        }
    }
}

/// From here on everything obliges: nobody dies, every turn completes, every post arrives, everybody is wanted up.
fn peace(world: &mut World) {
    world.broken.clear();
    world.starts = true;
    world.setup = Setup { agents: setup().agents, ..world.setup.clone() };
    world.setup.agents.values_mut().for_each(|policy| policy.heartbeat_ms = HEARTBEAT_MS);
    if world.machine.word() != "staying" {
        for _ in 0..60 {
            world.pass(10_000);
            finish_all(world);
        }
        assert!(world.gone, "the shutdown does not end: {:?}", world.machine.agents);
        world.restart();
    }
    world.give(Input::LedgerWell);
    world.give(Input::Reloaded(None, Box::new(world.setup.clone())));
    world.settle();
    for place in world.places.values_mut() {
        place.stopped = false;
    }
    for agent in ["a", "b"] {
        world.ask(Request::Agents(Verb::Start, vec![name(agent)]));
    }
    // From deadline to deadline, for as long as a patient person would wait.
    let end = world.tick + 3 * 24 * 60 * 60 * 1_000;
    while world.tick < end {
        world.settle();
        finish_all(world);
        world.arrive();
        if is_quiet(world) {
            return;
        }
        due(world);
    }
}

fn is_quiet(world: &World) -> bool {
    world.machine.turns.is_empty()
        && world.ledger.posts.values().all(|post| post.end.is_some())
        && world.pending.is_empty()
        && world.words.is_empty()
        && world.machine.callers.is_empty()
        && world.machine.agents.values().all(|agent| agent.life.is_up())
}

fn finish_all(world: &mut World) {
    for agent in ["a", "b"].map(name) {
        let place = world.places.get_mut(&agent).unwrap();
        for (attempt, _) in place.running() {
            place.end(attempt, Outcome::Completed, "");
        }
    }
    world.settle();
}

fn all_is_over(world: &World) {
    for (id, turn) in &world.ledger.turns {
        assert!(turn.end.is_some(), "turn {id} never ended: {:?}", world.machine.turns.get(id));
    }
    for (id, (update, end)) in &world.ledger.updates {
        let end = end.as_ref().unwrap_or_else(|| panic!("update {id} never ended: {update:?}"));
        let turn = world.ledger.turns.values().find(|turn| turn.new.update == Some(*id));
        if let Some((ended, _, _)) = turn.and_then(|turn| turn.end.as_ref()) {
            let fits = match ended {
                TurnEnd::Outcome(Outcome::Completed) => matches!(end, UpdateEnd::Answered),
                TurnEnd::Outcome(Outcome::Failed(_)) => matches!(end, UpdateEnd::Failed),
                TurnEnd::Outcome(Outcome::Interrupted) | TurnEnd::Cancelled(_) => {
                    matches!(end, UpdateEnd::Cancelled(_))
                }
                TurnEnd::Joined(into) => *end == UpdateEnd::Joined(*into),
            };
            assert!(fits, "update {id} ended {end:?}, its turn {ended:?}");
        }
    }
    for (id, post) in &world.ledger.posts {
        assert!(post.end.is_some(), "post {id} never ended: {:?}", post.open);
    }
    for (update, confirmed) in &world.channel {
        assert!(confirmed, "{update:?} was never confirmed");
    }
    for (id, turn) in &world.ledger.turns {
        // The sender saw the end of what was not made part of another turn.
        let Source::Telegram(_) = turn.new.source else { continue };
        let joined = matches!(turn.end, Some((TurnEnd::Joined(_), _, _)));
        let finals = world.ledger.posts.values().map(|post| &post.open.post);
        let finals = finals.filter(|post| post.turn == Some(*id) && post.kind == PostKind::Final).count();
        assert_eq!(finals, usize::from(!joined), "the ends that the sender of turn {id} saw");
    }
    for (caller, said) in &world.replies {
        // The rows of `ps` are completed by the daemon, which says done.
        assert!(
            matches!(said.last(), Some(Reply::Done | Reply::Refused(_) | Reply::Ps(_))),
            "{caller:?} waits for ever: {said:?}"
        );
    }
    for agent in world.machine.agents.values() {
        assert!(matches!(agent.life.state(), State::Up { .. }), "{:?}", agent.life);
        assert!(agent.lanes.is_empty());
    }
    assert!(world.machine.callers.is_empty() && world.machine.attempts.is_empty());
}

fn simulate(seed: u64, steps: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut world = a_world(&mut dice);
    chaos(&mut world, &mut dice, steps);
    peace(&mut world);
    all_is_over(&world);
}

/// A quarter of the thousand: four tests, so that they run beside each other.
fn quarter(which: u64) {
    let fails = |seed: &u64| std::panic::catch_unwind(|| simulate(*seed, 1_000)).is_err();
    let bad: Vec<u64> = (which * 250..(which + 1) * 250).filter(fails).take(3).collect();
    assert!(bad.is_empty(), "seeds {bad:?} fail");
}

#[test]
fn a_thousand_seeds_first_quarter() {
    quarter(0);
}

#[test]
fn a_thousand_seeds_second_quarter() {
    quarter(1);
}

#[test]
fn a_thousand_seeds_third_quarter() {
    quarter(2);
}

#[test]
fn a_thousand_seeds_last_quarter() {
    quarter(3);
}

/// What happens to one agent, without the numbers that agents share.
fn told(world: &World, agent: &AgentName) -> Vec<String> {
    let of = |id: &TurnId| world.ledger.turns[id].new.conversation.agent == *agent;
    let turns = world.ledger.turns.iter().filter(|(id, _)| of(id)).map(|(_, turn)| {
        let tries = turn.attempts.iter().map(|id| world.ledger.attempts[id].0.route.to_string());
        let (end, _, at) = turn.end.as_ref().expect("an end");
        let (conversation, accepted) = (&turn.new.conversation.name, turn.new.at);
        format!("{conversation} {accepted} {at} {} {:?}", end.as_str(), tries.collect::<Vec<_>>())
    });
    turns.collect()
}

/// One step of `b`'s day, and perhaps something that goes wrong with `a`.
fn day(steps: &[(u8, u8)], with_a: bool) -> Vec<String> {
    let mut world = World::new();
    for (what, harm) in steps {
        let b = name("b");
        match what % 4 {
            0 | 1 => drop(world.send("b", if what % 8 < 4 { "x" } else { "y" }, "work")),
            2 => {
                let place = world.places.get_mut(&b).unwrap();
                if let Some((attempt, _)) = place.running().first() {
                    place.end(*attempt, Outcome::Completed, "");
                }
            }
            _ => world.write("bbot", FRIEND, "hello"),
        }
        if with_a {
            let a = name("a");
            match harm % 8 {
                0 => world.die(&a, "signal 9"),
                1 => world.lose_session(&a),
                2 => world.places.get_mut(&a).unwrap().stopped = true,
                3 => drop(world.broken.insert(a)),
                4 => (0..6).for_each(|_| world.write("abot", FRIEND, "flood")),
                5 => (0..6).for_each(|n| {
                    let _sent = world.send("a", &n.to_string(), "flood");
                }),
                6 => drop(world.ask(Request::Agents(Verb::Kill, vec![a]))),
                _ => drop(world.ask(Request::Agents(Verb::Restart, vec![a]))),
            }
        }
        world.pass(u64::from(what / 4) * 100);
    }
    for _ in 0..20 {
        for (attempt, _) in world.places[&name("b")].running() {
            world.places.get_mut(&name("b")).unwrap().end(attempt, Outcome::Completed, "");
        }
        world.pass(1_000);
    }
    told(&world, &name("b"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever happens to one agent changes nothing of what happens to the other, to the millisecond.
    #[test]
    fn ones_trouble_is_not_the_others(steps in prop::collection::vec(any::<(u8, u8)>(), 1..40)) {
        prop_assert_eq!(day(&steps, false), day(&steps, true));
    }
}
