//! The model stand-in's side door and the paths beside `/v1/responses`, over HTTP alone.

use std::time::Duration;

use cofferdam_tests::standin::client::call;
use cofferdam_tests::standin::model::{Fate, Kind, ModelServer};
use serde_json::{Value, json};

/// How long any single wait may take before the test fails.
const WAIT: Duration = Duration::from_secs(30);

fn request(prompt: &str) -> Value {
    let content = json!([{"type": "input_text", "text": prompt}]);
    json!({"model": "gpt-5.5", "input": [{"type": "message", "role": "user", "content": content}]})
}

#[tokio::test]
async fn the_side_door_tells_waits_and_rules() {
    let model = ModelServer::start().unwrap();
    let address = model.address();
    let door = |method: &'static str, path: &'static str, body: Option<Value>| async move {
        call(address, method, &format!("/_standin/{path}"), body.as_ref()).await.unwrap()
    };
    let next = tokio::spawn(door("GET", "next?after=0&text=hello&wait_ms=30000", None));
    let asked = tokio::spawn(async move {
        call(address, "POST", "/v1/responses", Some(&request("hello [[hold gate]]"))).await.unwrap()
    });
    let (_, seen) = next.await.unwrap();
    assert_eq!((&seen["seq"], &seen["kind"], &seen["played"][0]), (&json!(1), &json!("turn"), &json!("hold gate")));
    model.wait_held("gate", WAIT).await;
    assert_eq!(door("GET", "held", None).await.1, json!({"gate": 1}));
    assert_eq!(door("POST", "release/gate", None).await.0, 204);
    let (status, stream) = asked.await.unwrap();
    assert_eq!(status, 200);
    assert!(stream.as_str().unwrap().contains("event: response.completed"), "{stream}");
    assert_eq!(door("GET", "count?text=hello", None).await.1, json!({"count": 1}));

    let script = json!({"model": "*", "script": "[[500 x1]]"});
    assert_eq!(door("POST", "script", Some(script)).await.0, 204);
    let ask = || async { call(address, "POST", "/v1/responses", Some(&request("again"))).await.unwrap().0 };
    assert_eq!((ask().await, ask().await), (500, 200));
    assert_eq!(door("GET", "requests?text=again", None).await.1.as_array().unwrap().len(), 2);
    assert_eq!(door("POST", "reset", None).await.0, 204);
    assert_eq!(door("GET", "requests", None).await.1, json!([]));
    assert_eq!(door("GET", "next?wait_ms=1", None).await.1, Value::Null);
}

#[tokio::test]
async fn what_is_no_turn_is_answered_and_noted() {
    let model = ModelServer::start().unwrap();
    let get = |path: &'static str| call(model.address(), "GET", path, None);
    assert_eq!(get("/v1/responses").await.unwrap().0, 426);
    assert_eq!(get("/v1/models").await.unwrap().1["data"][0]["id"], "gpt-5.5");
    assert_eq!(get("/v2/nothing").await.unwrap().0, 404);
    let (status, _) = call(model.address(), "POST", "/v1/responses", Some(&json!("no request"))).await.unwrap();
    assert_eq!(status, 200);
    let seen: Vec<_> = model.requests().iter().map(|request| (request.kind, request.fate)).collect();
    let kinds = [Kind::Upgrade, Kind::Models, Kind::Other, Kind::Turn];
    assert_eq!(seen, kinds.map(|kind| (kind, Fate::Answered)));
}
