//! What goes wrong with a bot's calls: set by tests, used up call by call.

use serde::Deserialize;

/// A fault that the next calls meet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Fault {
    /// Only calls of this method; any if absent.
    #[serde(default)]
    pub method: Option<String>,
    /// How many calls meet it before it is gone.
    #[serde(default = "once")]
    pub times: u32,
    /// What happens to them.
    pub kind: FaultKind,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// An error answer in the form of the Bot API; nothing is done.
    Error {
        /// HTTP status and `error_code`.
        code: u16,
        /// What `description` says.
        description: String,
        /// `parameters.retry_after`, in seconds.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// An HTML page with this status, as a proxy sends; nothing is done.
    Html {
        /// HTTP status.
        code: u16,
    },
    /// The connection is closed; nothing is done.
    CutBefore,
    /// All is done, then the connection is closed: the caller never hears of the success.
    CutAfter,
    /// The call is handled after this pause.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// The call is handled when the test releases this name.
    Hold(String),
    /// The call is handled, and answered when the test releases this name.
    HoldAfter(String),
    /// No answer, ever; nothing is done.
    Hang,
}

impl Fault {
    /// The next call of any method meets `kind`.
    pub fn next(kind: FaultKind) -> Self {
        Self { method: None, times: 1, kind }
    }

    /// The next call of `method` meets `kind`.
    pub fn on(method: &str, kind: FaultKind) -> Self {
        Self { method: Some(method.to_owned()), times: 1, kind }
    }

    /// As many calls meet it.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }
}

impl FaultKind {
    /// 429 with `retry_after` in seconds.
    pub fn flood(retry_after: u64) -> Self {
        let description = format!("Too Many Requests: retry after {retry_after}");
        Self::Error { code: 429, description, retry_after: Some(retry_after) }
    }

    /// 502 in the form of the Bot API.
    pub fn bad_gateway() -> Self {
        Self::Error { code: 502, description: "Bad Gateway".to_owned(), retry_after: None }
    }

    /// 401: the token was revoked.
    pub fn unauthorized() -> Self {
        Self::Error { code: 401, description: "Unauthorized".to_owned(), retry_after: None }
    }

    /// 403: the person has blocked the bot.
    pub fn blocked() -> Self {
        let description = "Forbidden: bot was blocked by the user".to_owned();
        Self::Error { code: 403, description, retry_after: None }
    }
}

fn once() -> u32 {
    1
}

/// Takes the first fault that this call meets, and counts it.
pub(crate) fn take(faults: &mut Vec<Fault>, method: &str) -> Option<FaultKind> {
    let meets = |fault: &Fault| fault.method.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(method));
    faults.retain(|fault| fault.times > 0);
    let fault = faults.iter_mut().find(|fault| meets(fault))?;
    fault.times -= 1;
    Some(fault.kind.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_met_in_order_and_wear_out() {
        let mut faults = vec![Fault::on("sendMessage", FaultKind::CutAfter).times(2), Fault::next(FaultKind::Hang)];
        assert_eq!(take(&mut faults, "getMe"), Some(FaultKind::Hang));
        assert_eq!(take(&mut faults, "getMe"), None);
        assert_eq!(take(&mut faults, "sendmessage"), Some(FaultKind::CutAfter));
        assert_eq!(take(&mut faults, "sendMessage"), Some(FaultKind::CutAfter));
        assert_eq!(take(&mut faults, "sendMessage"), None);
    }

    #[test]
    fn the_side_door_writes_them_as_json() {
        let read = |text: &str| serde_json::from_str::<Fault>(text).unwrap();
        let flood = r#"{"method":"sendMessage","times":3,"kind":{"error":{"code":429,"description":"Too Many Requests: retry after 5","retry_after":5}}}"#;
        assert_eq!(read(flood), Fault::on("sendMessage", FaultKind::flood(5)).times(3));
        assert_eq!(read(r#"{"kind":"cut_after"}"#), Fault::next(FaultKind::CutAfter));
    }
}
