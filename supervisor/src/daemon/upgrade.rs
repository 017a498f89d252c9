//! Another program takes our place: the same process, number, arguments and environment, so that neither systemd nor a
//! terminal notices; the workers stay.
//!
//! ```text
//!   upgrade PROGRAM --> does it run? its ledger as new as ours? is our configuration right for it?
//!                          | no: refused, nothing has happened
//!                          v yes
//!   told, then we leave as by SIGTERM: the ledger closed, workers as they are --> exec PROGRAM --> it adopts them
//!                                                                                   | fails
//!                                                                                   v
//!                                                                  exec ourselves: as if nothing had been asked
//! ```
//! A program that passes these questions and still dies after the exec leaves workers that run on; whoever watches the
//! supervisor (systemd, a person) starts it or the old one again, and that one adopts them.

use super::{Daemon, EXIT_BUG, Word, workers};
use crate::machine::nouns::CallerId;
use crate::machine::words::Input;
use crate::process::exit;
use crate::process::spawn::{self, Said};
use crate::store;
use protocol::control::{Refused, RefusedKind, Reply};
use serde::Deserialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long a new program may take for each question: reading a configuration takes milliseconds.
const QUESTION_WITHIN: Duration = Duration::from_secs(10);

/// Longest words of a new program that are told, in bytes.
const WORDS_MAX: usize = 2_000;

/// This very program, also when its file has been replaced or removed.
const OURSELVES: &str = "/proc/self/exe";

/// Variable by which we tell ourselves, after our own exec, why we are still here.
const FAILED: &str = "COFFERDAM_UPGRADE_FAILED";

/// Why the program that was to take our place did not, if it did not.
pub(super) fn failed_before() -> Option<String> {
    std::env::var(FAILED).ok()
}

/// A program that can take our place.
#[derive(Clone, Debug)]
pub(super) struct Successor {
    program: PathBuf,
    build: String,
    protocol: u16,
}

/// What `cofferdam version --json` says, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Told {
    version: String,
    protocol: u16,
    ledger: i64,
}

impl Successor {
    /// Becomes it. Returns only if neither it nor we can be run.
    pub(super) fn take_over(self) -> ExitCode {
        let error = spawn::become_program(&self.program, (FAILED, None));
        let why = format!("{} cannot be run ({error}): the old program goes on", self.program.display());
        tracing::error!("{why}");
        let error = spawn::become_program(Path::new(OURSELVES), (FAILED, Some(&why)));
        tracing::error!(%error, "the old program cannot be run again");
        ExitCode::from(EXIT_BUG)
    }
}

impl Daemon {
    /// Asks a program whether it can take our place.
    pub(super) fn upgrade(&self, caller: CallerId, program: PathBuf) {
        let config = self.config.path.clone();
        self.task(async move { Word::Successor(caller, examine(program, &config).await) });
    }

    /// It can, and we leave for it; or it cannot, and nothing has happened.
    pub(super) fn succeeded(&mut self, caller: CallerId, successor: Result<Successor, String>) {
        match successor {
            Err(why) => {
                self.answer(caller, &Reply::Refused(Refused { kind: RefusedKind::Failed, why }));
            }
            Ok(successor) => {
                let Successor { program, build, protocol } = &successor;
                let program = program.display();
                tracing::info!(%program, build, protocol, "a new program takes our place; workers stay");
                let note = format!("checked: {program} is {build} (protocol {protocol}) and takes this configuration");
                self.answer(caller, &Reply::Note(note));
                self.answer(caller, &Reply::Done);
                self.successor = Some(successor);
                self.handle(Input::Leave);
            }
        }
    }
}

async fn examine(program: PathBuf, config: &Path) -> Result<Successor, String> {
    let version = ask(&program, &["version".into(), "--json".into()]).await?;
    let told: Told = serde_json::from_str(&version.stdout)
        .map_err(|error| format!("{} does not tell its version as we do: {error}", program.display()))?;
    if told.ledger < store::VERSION {
        return Err(format!(
            "{} is {} and knows ledgers up to version {}; this one is of version {}: install a newer release",
            program.display(),
            told.version,
            told.ledger,
            store::VERSION
        ));
    }
    ask(&program, &["check".into(), "--config".into(), config.into()]).await?;
    Ok(Successor { program, build: told.version, protocol: told.protocol })
}

/// Asks it one thing, to which it must say yes.
async fn ask(program: &Path, words: &[OsString]) -> Result<Said, String> {
    let question = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let said = spawn::ask(program, words, QUESTION_WITHIN).await;
    let said = said.map_err(|error| format!("{} cannot be run: {}", program.display(), workers::chain(&error)))?;
    if said.status.success() {
        return Ok(said);
    }
    let how = exit::plain_words(said.status);
    let words = protocol::text::clip(said.stderr.trim(), WORDS_MAX);
    Err(format!("`{} {question}` ended with {how}: nothing was changed\n{words}", program.display()))
}
