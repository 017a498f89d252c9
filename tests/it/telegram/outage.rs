//! What can go wrong with hearing: it is told in `health`, and passes without a loss.

use super::{OWNER, Scene, reads, token};
use crate::both::wait;
use cofferdam_tests::standin::client::call;
use cofferdam_tests::standin::telegram::{Account, Fault, FaultKind, TelegramServer};
use cofferdam_tests::wait::{LIMIT, until};
use serde_json::{Value, json};

/// The state of the bot as `health` tells it, with the status of the whole.
fn channel(scene: &Scene, name: &str) -> (String, String) {
    let health = scene.world.cli(&["health", "--json"]).json();
    let rows = health["channels"].as_array().cloned().unwrap_or_default();
    let row = rows.into_iter().find(|row| row["channel"] == format!("telegram:{name}")).unwrap_or_default();
    (health["status"].as_str().unwrap_or_default().to_owned(), row["state"].as_str().unwrap_or_default().to_owned())
}

fn channel_says(scene: &Scene, name: &str, text: &str) -> String {
    let told = || format!("{:?}\n{}", channel(scene, name), scene.world.story());
    let (status, _) = until(&format!("{name} to be {text:?}"), LIMIT, told, || {
        Some(channel(scene, name)).filter(|(_, state)| state.contains(text))
    });
    status
}

#[test]
fn a_second_poller_is_survived() {
    let scene = Scene::new("");
    let poll = |timeout: u32| {
        let path = format!("/bot{}/getUpdates", token(7001));
        let body = json!({"timeout": timeout});
        wait(call(scene.server.address(), "POST", &path, Some(&body))).unwrap()
    };
    // It takes our poll away, and ours takes that one away when it comes back.
    let (code, answer) = poll(20);
    assert_eq!(code, 409, "{answer}");
    scene.says("still there?");
    scene.reads("echo: still there?");
    assert_eq!(channel_says(&scene, "main", "ok"), "ok");
    scene.rest();
    let told = scene.ledger("SELECT what FROM events WHERE what LIKE 'bot main%' ORDER BY id");
    assert!(told[0].contains("another program is polling this bot"), "{told:?}");
    assert!(told.last().is_some_and(|last| last.contains("is heard again")), "{told:?}");
}

#[test]
fn every_fault_of_a_poll_is_survived() {
    let scene = Scene::new("");
    for kind in [
        FaultKind::Html { code: 502 },
        FaultKind::CutBefore,
        FaultKind::CutAfter,
        FaultKind::flood(1),
        FaultKind::bad_gateway(),
    ] {
        scene.bot.fault(Fault::on("getUpdates", kind));
    }
    let first = scene.bot.says(OWNER, "through it all");
    scene.reads("echo: through it all");
    // The answer to a poll that was cut was not confirmed: nothing is lost by it.
    let second = scene.bot.says(OWNER, "and again");
    scene.reads("echo: and again");
    wait(scene.bot.wait_confirmed(second.update_id, LIMIT));
    assert!(second.update_id > first.update_id);
    scene.rest();
    assert_eq!(scene.texts(), ["echo: through it all", "echo: and again"]);
    assert_eq!(channel_says(&scene, "main", "ok"), "ok");
}

#[test]
fn a_revoked_token_is_told_in_health_and_mended_without_a_restart() {
    let mut scene = Scene::silent("", |builder| builder);
    scene.bot.fault(Fault::next(FaultKind::unauthorized()).times(1_000));
    scene.says("before it works");
    scene.world.run();
    scene.world.wait_ready();
    assert_eq!(channel_says(&scene, "main", "the bot token is refused"), "degraded");
    let health = scene.world.cli(&["health"]);
    assert!(health.stdout.contains("check token_file or token_env"), "the remedy is named: {}", health.stdout);
    scene.bot.no_faults();
    scene.reads("echo: before it works");
    assert_eq!(channel_says(&scene, "main", "ok"), "ok");
    scene.rest();
}

#[test]
fn a_telegram_that_is_gone_for_a_while_costs_nothing() {
    let mut scene = Scene::new("");
    let port = scene.server.address().port();
    scene.says("[[hold h]] asked before");
    scene.held("h");
    // It goes, and an answer is ready meanwhile.
    scene.server = TelegramServer::start().unwrap();
    scene.world.model.release("h");
    scene.ledger_says("SELECT outcome FROM turns", &["completed"]);
    let console = scene.world.send("a", "c", "on the console");
    assert_eq!(console["text"], "echo: on the console");
    let fault = channel_says(&scene, "main", "network");
    assert_eq!(fault, "degraded");
    scene.server = TelegramServer::start_on(port, false).unwrap();
    scene.bot = scene.server.bot(&token(7001), "main_bot");
    // The new one numbers its updates anew; the real one goes on.
    scene.bot.update(json!({"update_id": 700_001_000, "nothing": Value::Null}));
    reads(&scene.world, &scene.bot, OWNER, "echo: asked before");
    scene.says("asked after");
    scene.reads("echo: asked after");
    assert_eq!(channel_says(&scene, "main", "ok"), "ok");
    scene.rest();
    let finals = "SELECT body || ' ' || maybe_repeated FROM posts WHERE kind = 'final'";
    assert_eq!(scene.ledger(finals), ["echo: asked before 0", "echo: asked after 0"]);
}

#[test]
fn a_bot_that_a_reload_adds_is_heard_and_one_that_it_removes_is_not() {
    let scene = Scene::new("");
    let other = scene.server.bot(&token(7002), "other_bot");
    let text = std::fs::read_to_string(scene.world.config()).unwrap();
    scene.world.write_config(&text.replace("[telegram.main]", "[telegram.other]").replace(&token(7001), &token(7002)));
    let reloaded = scene.world.cli(&["reload"]);
    assert_eq!(reloaded.code, 0, "{reloaded:?}");
    let unheard = |account: &Account| (account.polls_open() == 0).then_some(());
    wait(scene.bot.wait_for("the end of the old poll", LIMIT, unheard));
    other.says(OWNER, "hello");
    reads(&scene.world, &other, OWNER, "echo: hello");
    scene.rest();
}
