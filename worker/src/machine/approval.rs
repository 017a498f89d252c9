//! Decides the answer to each request of the app-server. Every one is answered, or Codex would wait for ever.
//!
//! ```text
//!  item/commandExecution/requestApproval, item/fileChange/requestApproval   {"decision":"decline"}
//!  item/permissions/requestApproval                                         {"permissions":{}}   nothing granted
//!  item/tool/requestUserInput                                               {"answers":{}}
//!  mcpServer/elicitation/request                                            {"action":"decline","content":null}
//!  item/tool/call                                                           {"success":false, ..}
//!  execCommandApproval, applyPatchApproval                                  {"decision":"denied"}
//!  anything else                                                            an error
//! ```
//! Nobody can be asked, so whatever needs a person is refused in the form of its kind, and the turn goes on.

use serde_json::{Value, json};

/// Code of a refusal for which a request has no form of its own: JSON-RPC's "method not found".
const NO_SUCH_METHOD: i64 = -32601;

/// What is sent back, and what a person may want to know of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    /// The result, or the code and text of an error.
    pub(super) result: Result<Value, (i64, String)>,
    /// What was refused, if it was something that a person could have allowed.
    pub(super) refused: Option<String>,
}

/// The answer to a request.
pub(super) fn answer(method: &str, params: &Value) -> Answer {
    let what = |key: &str| params.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let refuse = |result: Value, refused: String| Answer { result: Ok(result), refused: Some(refused) };
    match method {
        "item/commandExecution/requestApproval" => {
            refuse(json!({"decision": "decline"}), format!("the command {}", what("command")))
        }
        "item/fileChange/requestApproval" => {
            refuse(json!({"decision": "decline"}), format!("a change of files {}", what("reason")))
        }
        "item/permissions/requestApproval" => {
            refuse(json!({"permissions": {}}), format!("more permissions {}", what("reason")))
        }
        "item/tool/requestUserInput" => refuse(json!({"answers": {}}), "a question to the user".into()),
        "mcpServer/elicitation/request" => refuse(
            json!({"action": "decline", "content": null}),
            format!("a question of a tool server: {}", what("message")),
        ),
        "execCommandApproval" => refuse(json!({"decision": "denied"}), "a command".into()),
        "applyPatchApproval" => refuse(json!({"decision": "denied"}), "a patch".into()),
        "item/tool/call" => Answer {
            result: Ok(json!({
                "contentItems": [{"type": "inputText", "text": "this tool is not available"}],
                "success": false,
            })),
            refused: None,
        },
        _ => Answer { result: Err((NO_SUCH_METHOD, format!("{method} is not served here"))), refused: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_form() {
        for (method, answered) in [
            ("item/commandExecution/requestApproval", Some(json!({"decision": "decline"}))),
            ("item/fileChange/requestApproval", Some(json!({"decision": "decline"}))),
            ("item/permissions/requestApproval", Some(json!({"permissions": {}}))),
            ("item/tool/requestUserInput", Some(json!({"answers": {}}))),
            ("mcpServer/elicitation/request", Some(json!({"action": "decline", "content": null}))),
            ("execCommandApproval", Some(json!({"decision": "denied"}))),
            ("applyPatchApproval", Some(json!({"decision": "denied"}))),
            ("account/chatgptAuthTokens/refresh", None),
            ("attestation/generate", None),
            ("currentTime/read", None),
            ("what/ever", None),
        ] {
            assert_eq!(answer(method, &json!({"command": 7})).result.ok(), answered, "{method}");
        }
        assert_eq!(answer("item/tool/call", &Value::Null).result.map(|v| v["success"].clone()), Ok(json!(false)));
    }
}
