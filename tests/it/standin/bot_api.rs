//! The Telegram stand-in, called as a bot calls it, and its faults.

use std::net::SocketAddr;
use std::time::Duration;

use cofferdam_tests::standin::client::{CallError, call};
use cofferdam_tests::standin::telegram::{Account, Bot, Fault, FaultKind, TelegramServer, What, Writing};
use serde_json::{Value, json};

/// How long any single wait may take before the test fails.
const WAIT: Duration = Duration::from_secs(30);
const TOKEN: &str = "42:secret";

fn start() -> (TelegramServer, Bot) {
    let server = TelegramServer::start().unwrap();
    let bot = server.bot(TOKEN, "research_bot");
    (server, bot)
}

async fn api(address: SocketAddr, method: &str, params: Value) -> Result<(u16, Value), CallError> {
    call(address, "POST", &format!("/bot{TOKEN}/{method}"), Some(&params)).await
}

async fn ok(server: &TelegramServer, method: &str, params: Value) -> Value {
    let (status, answer) = api(server.address(), method, params).await.unwrap();
    assert_eq!((status, &answer["ok"]), (200, &Value::from(true)), "{answer}");
    answer["result"].clone()
}

fn ids(updates: &Value) -> Vec<i64> {
    updates.as_array().unwrap().iter().map(|update| update["update_id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn an_update_is_handed_out_until_it_is_confirmed() {
    let (server, bot) = start();
    let first = bot.says(7, "/start now");
    let second = bot.writes(Writing { kind: Some("group".to_owned()), user: Some(7), ..Writing::private(-5, "hi") });
    let updates = ok(&server, "getUpdates", json!({})).await;
    assert_eq!(ids(&updates), [first.update_id, second.update_id]);
    assert_eq!(updates[0]["message"]["from"]["id"], 7);
    assert_eq!(updates[0]["message"]["entities"][0]["length"], 6);
    assert_eq!(updates[1]["message"]["chat"]["type"], "group");
    let again = ok(&server, "getUpdates", json!({"offset": second.update_id, "limit": 1})).await;
    assert_eq!(ids(&again), [second.update_id]);
    bot.wait_confirmed(first.update_id, WAIT).await;
    assert_eq!(ok(&server, "getUpdates", json!({"offset": second.update_id + 1})).await, json!([]));
    assert_eq!(bot.look(Account::unconfirmed), 0);
}

#[tokio::test]
async fn a_poll_waits_and_a_second_poll_ends_it() {
    let (server, bot) = start();
    let address = server.address();
    let poll = |offset: i64| tokio::spawn(api(address, "getUpdates", json!({"timeout": 50, "offset": offset})));
    let first = poll(0);
    bot.wait_polling(WAIT).await;
    let second = poll(0);
    let (status, answer) = first.await.unwrap().unwrap();
    assert_eq!(status, 409);
    assert!(answer["description"].as_str().unwrap().contains("terminated by other getUpdates request"));
    let raw = bot.update(json!({"future_thing": [1, 2]}));
    let (_, answer) = second.await.unwrap().unwrap();
    assert_eq!(ids(&answer["result"]), [raw]);
    let third = poll(raw + 1);
    bot.wait_for("the poll", WAIT, |account| (account.polls_open() == 1).then_some(())).await;
    third.abort();
    bot.wait_for("its end", WAIT, |account| (account.polls_open() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_person_sees_what_the_bot_wrote() {
    let (server, bot) = start();
    let asked = bot.says(7, "question").message_id;
    ok(&server, "sendChatAction", json!({"chat_id": 7, "action": "typing"})).await;
    let sent =
        ok(&server, "sendMessage", json!({"chat_id": 7, "text": "draft", "reply_parameters": {"message_id": asked}}));
    let sent = sent.await;
    assert_eq!((&sent["from"]["id"], &sent["reply_to_message"]["from"]["id"]), (&json!(42), &json!(7)));
    let id = sent["message_id"].as_i64().unwrap();
    ok(&server, "editMessageText", json!({"chat_id": 7, "message_id": id, "text": "final"})).await;
    let shown = bot.wait_text(7, "final", WAIT).await;
    assert_eq!((shown.edits, shown.reply_to), (1, Some(asked)));
    assert_eq!(bot.texts(7), ["final"]);
    let happened: Vec<What> = bot.events(7).into_iter().map(|event| event.what).collect();
    assert!(
        matches!(&happened[..], [What::Heard { .. }, What::Action { .. }, What::Sent { .. }, What::Edited { .. }]),
        "{happened:?}"
    );
    let press = bot.presses(7, id, 7, "yes").unwrap();
    let updates = ok(&server, "getUpdates", json!({"offset": press})).await;
    let query = &updates[0]["callback_query"];
    assert_eq!((query["data"].as_str(), query["message"]["text"].as_str()), (Some("yes"), Some("final")));
    ok(&server, "answerCallbackQuery", json!({"callback_query_id": query["id"]})).await;
    bot.edits(7, asked, "other question").unwrap();
    let updates = ok(&server, "getUpdates", json!({"offset": press + 1})).await;
    assert_eq!(updates[0]["edited_message"]["text"], "other question");
}

#[tokio::test]
async fn faults_do_what_they_say() {
    let (server, bot) = start();
    let send = |text: &str| api(server.address(), "sendMessage", json!({"chat_id": 7, "text": text}));
    bot.fault(Fault::on("sendMessage", FaultKind::flood(5)));
    let (status, answer) = send("flood").await.unwrap();
    assert_eq!((status, answer["parameters"]["retry_after"].as_u64()), (429, Some(5)));
    bot.fault(Fault::next(FaultKind::Html { code: 502 }));
    assert!(send("page").await.unwrap().1.as_str().unwrap().contains("<html>"));
    bot.fault(Fault::next(FaultKind::CutBefore));
    assert!(send("before").await.is_err());
    assert!(bot.texts(7).is_empty());
    bot.fault(Fault::next(FaultKind::CutAfter));
    assert!(send("after").await.is_err());
    assert_eq!(bot.texts(7), ["after"]);
    bot.fault(Fault::next(FaultKind::Hold("gate".to_owned())));
    let held = tokio::spawn(send("held"));
    server.wait_held("gate", WAIT).await;
    assert_eq!(bot.texts(7), ["after"]);
    server.release("gate");
    assert_eq!(held.await.unwrap().unwrap().0, 200);
    let statuses: Vec<_> = bot.calls("sendMessage").iter().map(|call| (call.status, call.done)).collect();
    let expected = [(Some(429), false), (Some(502), false), (None, false), (None, true), (Some(200), true)];
    assert_eq!(statuses, expected);
}

#[tokio::test]
async fn strangers_are_refused() {
    let (server, _bot) = start();
    let (status, answer) = call(server.address(), "GET", "/bot9:none/getMe", None).await.unwrap();
    assert_eq!((status, answer["description"].as_str()), (401, Some("Unauthorized")));
    let (status, _) = call(server.address(), "GET", "/bot42:secret/doNothing", None).await.unwrap();
    assert_eq!(status, 404);
    let (status, _) = call(server.address(), "GET", "/elsewhere", None).await.unwrap();
    assert_eq!(status, 404);
}

#[tokio::test]
async fn the_side_door_serves_a_person() {
    let (server, bot) = start();
    let address = server.address();
    let door = |method: &'static str, path: String, body: Option<Value>| async move {
        call(address, method, &format!("/_standin{path}"), body.as_ref()).await.unwrap()
    };
    let (status, said) = door("POST", format!("/bot/{TOKEN}/say"), Some(json!({"chat": 7, "text": "hello"}))).await;
    assert_eq!((status, said["message_id"].as_i64()), (200, Some(1)));
    let (_, chat) = door("GET", format!("/bot/{TOKEN}/chat/7"), None).await;
    assert_eq!(chat["messages"][0]["text"], "hello");
    let (_, events) = door("GET", format!("/bot/{TOKEN}/chat/7/next?after=0&wait_ms=1000"), None).await;
    assert_eq!(events[0]["what"], "heard");
    let fault = json!({"times": 2, "kind": {"error": {"code": 500, "description": "Internal Server Error"}}});
    assert_eq!(door("POST", format!("/bot/{TOKEN}/fault"), Some(fault)).await.0, 200);
    assert_eq!(call(server.address(), "GET", "/bot42:secret/getMe", None).await.unwrap().0, 500);
    assert_eq!(door("DELETE", format!("/bot/{TOKEN}/fault"), None).await.0, 200);
    assert_eq!(call(server.address(), "GET", "/bot42:secret/getMe", None).await.unwrap().0, 200);
    assert_eq!(door("GET", format!("/bot/{TOKEN}/calls?method=getMe"), None).await.1.as_array().unwrap().len(), 2);
    assert_eq!(door("POST", "/bot/9:none/say".to_owned(), Some(json!({"chat": 7, "text": "x"}))).await.0, 404);
    assert_eq!(bot.look(Account::unconfirmed), 1);
}
