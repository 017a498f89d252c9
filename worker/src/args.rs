//! What the supervisor hands over at birth. Read by hand: five words do not need a parser's start-up time.

use protocol::{AgentName, Incarnation};
use std::path::PathBuf;

/// Who this worker is and where its things lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// The agent that is served.
    pub agent: AgentName,
    /// The run of the worker.
    pub incarnation: Incarnation,
    /// The agent's own folder, absolute.
    pub agent_dir: PathBuf,
    /// Where to listen, absolute.
    pub socket: PathBuf,
    /// The only user who may dial.
    pub supervisor_uid: u32,
    /// The agent's cgroup, absolute, if there is one.
    pub cgroup: Option<PathBuf>,
    /// The user and group to become, as `UID:GID`, never root. None: stays who it is.
    pub user: Option<(u32, u32)>,
    /// What the supervisor wrote down before it started this process; said again in the hello. 0: nothing.
    pub nonce: u64,
}

/// How a worker is started.
pub const USAGE: &str = "cofferdam-worker --agent NAME --incarnation N --agent-dir DIR --socket PATH --supervisor-uid UID [--nonce N] [--cgroup DIR] [--user UID:GID]";

/// Why the arguments are no start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// A word that is not known.
    #[error("unknown argument {0:?}; a supervisor starts me as: {USAGE}")]
    Unknown(String),
    /// A word without its value.
    #[error("{0} needs a value; a supervisor starts me as: {USAGE}")]
    NoValue(&'static str),
    /// A word that is not there.
    #[error("{0} is missing; a supervisor starts me as: {USAGE}")]
    Missing(&'static str),
    /// A value that is none.
    #[error("{0} cannot be {1:?}")]
    Bad(&'static str, String),
}

const NAMES: [&str; 8] =
    ["--agent", "--incarnation", "--agent-dir", "--socket", "--supervisor-uid", "--nonce", "--cgroup", "--user"];

impl Args {
    /// Reads the words behind the program's name. The last of equal words wins.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, ArgsError> {
        let mut values: [Option<String>; NAMES.len()] = Default::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let found = NAMES.iter().zip(values.iter_mut()).find(|(name, _)| **name == word);
            let Some((name, value)) = found else {
                return Err(ArgsError::Unknown(word));
            };
            *value = Some(words.next().ok_or(ArgsError::NoValue(name))?);
        }
        let [agent, incarnation, agent_dir, socket, uid, nonce, cgroup, user] = values;
        let need = |value: Option<String>, name| value.ok_or(ArgsError::Missing(name));
        let agent = need(agent, "--agent")?;
        Ok(Self {
            agent: AgentName::parse(&agent).map_err(|_| ArgsError::Bad("--agent", agent))?,
            incarnation: Incarnation(number(need(incarnation, "--incarnation")?, "--incarnation")?),
            agent_dir: absolute(need(agent_dir, "--agent-dir")?, "--agent-dir")?,
            socket: absolute(need(socket, "--socket")?, "--socket")?,
            supervisor_uid: number(need(uid, "--supervisor-uid")?, "--supervisor-uid")?,
            cgroup: cgroup.map(|dir| absolute(dir, "--cgroup")).transpose()?,
            user: user.map(identity).transpose()?,
            nonce: nonce.map_or(Ok(0), |nonce| number(nonce, "--nonce"))?,
        })
    }
}

fn number<T: std::str::FromStr>(text: String, name: &'static str) -> Result<T, ArgsError> {
    text.parse().map_err(|_| ArgsError::Bad(name, text))
}

/// `UID:GID`; root is no user of an agent.
fn identity(text: String) -> Result<(u32, u32), ArgsError> {
    let numbers = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    numbers.filter(|(uid, _)| *uid != 0).ok_or(ArgsError::Bad("--user", text))
}

fn absolute(text: String, name: &'static str) -> Result<PathBuf, ArgsError> {
    let path = PathBuf::from(&text);
    if path.is_absolute() { Ok(path) } else { Err(ArgsError::Bad(name, text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Args, ArgsError> {
        Args::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn reads_what_the_supervisor_says() {
        let args = parse("--agent a --incarnation 7 --agent-dir /d --socket /s --supervisor-uid 0").unwrap();
        assert_eq!((args.agent.as_str(), args.incarnation.0, args.supervisor_uid, args.nonce), ("a", 7, 0, 0));
        assert_eq!(args.cgroup, None);
        let args = parse("--agent a --incarnation 7 --agent-dir /d --socket /s --supervisor-uid 0 --nonce 9").unwrap();
        assert_eq!((args.nonce, args.user), (9, None));
        let args = parse("--agent a --incarnation 7 --agent-dir /d --socket /s --supervisor-uid 0 --user 7:8").unwrap();
        assert_eq!(args.user, Some((7, 8)));
    }

    #[test]
    fn refuses_what_is_no_start() {
        let base = "--agent a --incarnation 7 --agent-dir /d --socket /s";
        assert_eq!(parse(base), Err(ArgsError::Missing("--supervisor-uid")));
        assert_eq!(parse("--x"), Err(ArgsError::Unknown("--x".into())));
        assert_eq!(parse("--agent"), Err(ArgsError::NoValue("--agent")));
        for (name, bad) in [
            ("--supervisor-uid", "-1"),
            ("--agent-dir", "d"),
            ("--agent", "A/b"),
            ("--incarnation", "x"),
            ("--cgroup", "c"),
            ("--nonce", "x"),
            ("--user", "7"),
            ("--user", "0:0"),
            ("--user", "nobody:8"),
        ] {
            let words = format!("{base} --supervisor-uid 0 {name} {bad}");
            assert!(matches!(parse(&words), Err(ArgsError::Bad(n, _)) if n == name), "{words}");
        }
    }
}
