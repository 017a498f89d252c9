//! The only loop, and the only place where the machine meets the world.
//!
//! ```text
//!   1 fire what is due        deadline, beat
//!   2 wait for one source     link | children | SIGTERM | the next deadline  -> Input
//!   3 Machine::handle         -> Effects
//!   4 and 5 perform them      in order: a Journal is on disk before the next effect
//!   6 log the input and what followed
//! ```
//! What an effect answers at once (a rollout that was read) becomes the next input of the same round.

mod child;
mod effects;
mod ground;
mod look;

use crate::args::Args;
use crate::clock::{self, Clock};
use crate::codex::cgroup::Group;
use crate::codex::child::Event;
use crate::codex::nursery::{Handle, Nursery};
use crate::codex::rollout;
use crate::home::Homes;
use crate::journal::{Journal, JournalError};
use crate::link::{self, LinkError, LinkEvent, Session};
use crate::machine::Machine;
use crate::machine::io::{ChildId, Input, Tick};
use crate::texts::{self, Texts};
use protocol::from_worker::{Beat, Progress};
use protocol::hello::Accord;
use protocol::journal::{Reading, Standing};
use protocol::to_worker::{Begin, Configure};
use protocol::{AttemptId, FromWorker, Text, ToWorker};
use rustix::fs::Mode;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

/// Between two beats while something runs, in milliseconds.
const BEAT_BUSY_MS: u64 = 2000;

/// The longest pause between two beats, in milliseconds: orphans are reaped with them.
const BEAT_MS_MAX: u64 = 30_000;

/// Beats within the time after which the supervisor gives a silent worker up: two may be late.
const BEATS_PER_TIMEOUT: u64 = 3;

/// Events that wait for the loop, of each source. Beyond it the source waits, and that is the back-pressure.
const EVENTS_MAX: usize = 64;

/// News that are kept while there is no supervisor, beside what the machine says again.
const WAITING_MAX: usize = 256;

/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long the children's trees may take to go when the worker leaves.
const BURIAL: Duration = Duration::from_secs(6);

/// Why the worker ends before it is done.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// There is no socket.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// What must survive cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A signal cannot be listened for, or the supervisor cannot be told.
    #[error("cannot start: {0}")]
    Start(#[source] std::io::Error),
}

/// What this process was given at its start.
#[derive(Debug)]
pub struct Start {
    /// The mask of its children's files.
    pub umask: Mode,
    /// Its agent's cgroup, if there is one.
    pub group: Option<Group>,
}

/// Serves the agent until everything is done.
pub async fn run(args: &Args, start: Start) -> Result<(), DriverError> {
    let (journal, reading) = Journal::open(&args.agent_dir)?;
    let listener = link::listen(&args.socket)?;
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(DriverError::Start)?;
    let (link_sender, mut link_events) = mpsc::channel(EVENTS_MAX);
    let (child_sender, mut child_events) = mpsc::channel(EVENTS_MAX);
    let (disk_sender, mut disk_events) = mpsc::channel(2);
    let mut driver = Driver::new(args, start, (journal, reading), child_sender, disk_sender);
    driver.machine.set_controllers(driver.nursery.controllers());
    let mut door = ground::Door::open(listener, args.clone(), link_sender);
    say_listening().map_err(DriverError::Start)?;
    let ended = loop {
        if let Err(error) = driver.fire_due(&mut door) {
            break Err(error);
        }
        if driver.left {
            break Ok(());
        }
        let due = driver.next_due();
        let handled = tokio::select! {
            Some(event) = link_events.recv() => driver.on_link(event),
            Some(event) = child_events.recv() => driver.on_child(event),
            Some(found) = disk_events.recv() => driver.take(found),
            _ = terminate.recv() => driver.take(Input::Terminate),
            () = sleep_until(driver.clock.instant(due)) => Ok(()),
        };
        if let Err(error) = handled {
            break Err(error);
        }
    };
    driver.leave(&mut child_events).await;
    door.close();
    ended.map_err(DriverError::from)
}

/// One line on stdout is the supervisor's signal to dial; then stdout is closed. A supervisor that died meanwhile hears
/// nothing, and the next one finds the socket.
fn say_listening() -> std::io::Result<()> {
    use std::io::Write;
    let mut stdout = std::io::stdout();
    match stdout.write_all(b"listening\n").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(null)?;
    Ok(())
}

/// All that the worker holds.
struct Driver {
    args: Args,
    clock: Clock,
    machine: Machine,
    journal: Journal,
    texts: Texts,
    nursery: Arc<Nursery>,
    child_sender: mpsc::Sender<Event>,
    /// Where is told what was found in the agent's folder.
    disk_sender: mpsc::Sender<Input>,
    children: BTreeMap<ChildId, Handle>,
    looks: look::Looks,
    session: Option<Session>,
    /// The session has been told to the machine.
    linked: bool,
    /// News that may not be lost and that nobody has heard.
    waiting: VecDeque<FromWorker>,
    /// The latest progress of each running attempt, with what was dropped before it: told again to a new supervisor.
    latest: BTreeMap<AttemptId, Progress>,
    /// The file whose lock we hold.
    lock: ground::Mark,
    /// Open attempts of the last incarnation, until it is known whose they are.
    recovered: Vec<Standing>,
    /// Outcomes that are journaled, and where their text lies if it is not inline.
    journaled: BTreeMap<AttemptId, Option<Text>>,
    configure: Option<Configure>,
    beat_due: Tick,
    left: bool,
}

impl Driver {
    fn new(
        args: &Args,
        start: Start,
        (journal, reading): (Journal, Reading),
        child_sender: mpsc::Sender<Event>,
        disk_sender: mpsc::Sender<Input>,
    ) -> Self {
        let Start { umask, group } = start;
        let damage = (reading.damaged_bytes > 0).then(|| {
            let bytes = reading.damaged_bytes;
            FromWorker::Note(format!("{bytes} bytes of the agent's journal are damaged: what they told is uncertain"))
        });
        let texts = Texts::new(&args.agent_dir);
        texts.tidy(&reading.open.keys().copied().collect());
        let clock = Clock::start();
        let beat_due = clock.now();
        Self {
            args: args.clone(),
            machine: Machine::new(args.incarnation.0),
            nursery: Nursery::new(args, umask, group),
            recovered: reading.open.into_values().collect(),
            clock,
            journal,
            texts,
            child_sender,
            disk_sender,
            children: BTreeMap::new(),
            looks: look::Looks::default(),
            session: None,
            linked: false,
            waiting: damage.into_iter().collect(),
            latest: BTreeMap::new(),
            lock: ground::Mark::of(&args.agent_dir.join(crate::lock::LOCK_FILE)),
            journaled: BTreeMap::new(),
            configure: None,
            beat_due,
            left: false,
        }
    }

    fn fire_due(&mut self, door: &mut ground::Door) -> Result<(), JournalError> {
        let now = self.clock.now();
        self.beat_due = self.beat_by(now);
        if now >= self.beat_due {
            self.beat(now);
            door.look();
            self.stand()?;
        }
        if self.machine.deadline().is_some_and(|(due, _)| due <= now) { self.take(Input::Timeout) } else { Ok(()) }
    }

    /// When something is due next. A deadline that stays due after its timeout waits a millisecond, and no loop spins.
    fn next_due(&self) -> Tick {
        let now = self.clock.now();
        let deadline = self.machine.deadline().map_or(Tick(u64::MAX), |(due, _)| due);
        deadline.min(self.beat_by(now)).max(Tick(now.0 + 1))
    }

    fn beat_by(&self, now: Tick) -> Tick {
        self.beat_due.min(Tick(now.0 + self.beat_pause_ms()))
    }

    /// The beat is written by this loop, so that one which is stopped or spins is found by its silence.
    fn beat_pause_ms(&self) -> u64 {
        let busy = self.machine.running() > 0 || self.machine.children() > 0;
        let longest = if busy { BEAT_BUSY_MS } else { BEAT_MS_MAX };
        (self.machine.heartbeat_ms() / BEATS_PER_TIMEOUT).min(longest)
    }

    fn beat(&mut self, now: Tick) {
        self.nursery.reap();
        self.beat_due = Tick(now.0 + self.beat_pause_ms());
        if self.linked {
            self.tell(FromWorker::Beat(Beat { running: self.machine.running(), children: self.machine.children() }));
        }
    }

    fn on_link(&mut self, event: LinkEvent) -> Result<(), JournalError> {
        match event {
            LinkEvent::Up(session) => self.on_up(session),
            LinkEvent::Message(id, message) if self.is_current(id) => self.on_message(message),
            LinkEvent::Down(id, why) if self.is_current(id) => {
                tracing::info!(why, "the supervisor has gone");
                self.session = None;
                self.unlink()
            }
            // A session that was replaced says nothing that counts.
            LinkEvent::Message(..) | LinkEvent::Down(..) => Ok(()),
        }
    }

    fn is_current(&self, id: u64) -> bool {
        self.session.as_ref().is_some_and(|session| session.id == id)
    }

    fn on_up(&mut self, session: Session) -> Result<(), JournalError> {
        if let Some(older) = self.session.take() {
            older.close();
            self.unlink()?;
        }
        let accord = session.accord;
        self.session = Some(session);
        match accord {
            // The machine hears of the supervisor when it has said how the agent is served: only then is it known
            // whose the outcomes in the journal are.
            Accord::Full => Ok(()),
            Accord::DrainOnly => {
                self.recover()?;
                self.link()?;
                self.take(Input::Drain)
            }
        }
    }

    fn link(&mut self) -> Result<(), JournalError> {
        self.linked = true;
        self.take(Input::LinkUp)?;
        for news in std::mem::take(&mut self.waiting) {
            self.tell(news);
        }
        self.tell_latest();
        Ok(())
    }

    fn unlink(&mut self) -> Result<(), JournalError> {
        if std::mem::replace(&mut self.linked, false) { self.take(Input::LinkDown) } else { Ok(()) }
    }

    fn on_message(&mut self, message: ToWorker) -> Result<(), JournalError> {
        match message {
            ToWorker::Hello(_) => Ok(()),
            ToWorker::Ack(attempt) => {
                self.texts.forget(attempt);
                self.journaled.remove(&attempt);
                self.take(Input::Acked(attempt))
            }
            ToWorker::Drain => self.take(Input::Drain),
            ToWorker::Kill => {
                self.children.values().for_each(Handle::kill);
                self.take(Input::Terminate)
            }
            ToWorker::Configure(configure) => self.on_configure(configure),
            ToWorker::Begin(begin) => self.on_begin(begin),
            ToWorker::Steer(steer) => match texts::read(&steer.text) {
                Ok(text) => self.take(Input::Steer { attempt: steer.attempt, turn: steer.turn, text }),
                Err(error) => {
                    self.tell(FromWorker::Note(format!("a steering text was lost: {error}")));
                    let (attempt, turn) = (steer.attempt, steer.turn);
                    self.tell(FromWorker::Steered(protocol::from_worker::Steered { attempt, turn, taken: false }));
                    Ok(())
                }
            },
            ToWorker::Interrupt(interrupt) => self.take(Input::Interrupt(interrupt.attempt, interrupt.reason)),
            ToWorker::Archive(threads) => self.take(Input::Spared(threads)),
            ToWorker::Ping(nonce) => {
                self.tell(FromWorker::Pong(nonce));
                Ok(())
            }
        }
    }

    fn on_configure(&mut self, configure: Box<Configure>) -> Result<(), JournalError> {
        if let Some(aside) = self.journal.adopt(configure.ledger)? {
            self.recovered.clear();
            self.tell(FromWorker::Note(format!("outcomes of another ledger are kept in {}", aside.display())));
        }
        let variable = |name: &str| configure.env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        crate::log::set_secrets(configure.env_secret.iter().filter_map(|name| variable(name)));
        self.clock.set_zone(variable("TZ").as_deref());
        match Homes::of(&self.args.agent_dir, &configure).render(&self.args.agent_dir, &configure) {
            Ok(notes) => {
                for note in notes {
                    self.tell(FromWorker::Note(note));
                }
                self.configure = Some((*configure).clone());
                self.recover()?;
                self.take(Input::Configured(configure))?;
            }
            // An agent without homes is never ready; what it ran with before stays in force.
            Err(error) => {
                self.recover()?;
                self.tell(FromWorker::Note(format!("the agent's homes cannot be made: {error}")));
            }
        }
        if self.linked { Ok(()) } else { self.link() }
    }

    /// Tells the machine what the last incarnation left, once.
    fn recover(&mut self) -> Result<(), JournalError> {
        let standings = std::mem::take(&mut self.recovered);
        if standings.is_empty() {
            return Ok(());
        }
        let ended = standings.iter().filter_map(|standing| standing.ended.as_ref());
        self.journaled.extend(ended.map(|end| (end.attempt, None)));
        self.take(Input::Recovered(standings))
    }

    fn on_begin(&mut self, begin: Box<Begin>) -> Result<(), JournalError> {
        self.set_local_time();
        self.stand()?;
        if !self.machine.knows(begin.attempt) && !self.journal.make_room()? {
            self.refuse_for_room(&begin);
            return Ok(());
        }
        match texts::read(&begin.prompt) {
            Ok(prompt) => {
                let homes = self.args.agent_dir.join("codex-home");
                let rollout_bytes = begin.thread.as_deref().map_or(0, |thread| rollout::size(&homes, thread));
                self.take(Input::Begin { begin, prompt, rollout_bytes, wall_ms: clock::wall_ms() })
            }
            Err(error) => self.take(Input::PromptLost { begin, why: error.to_string() }),
        }
    }

    fn set_local_time(&mut self) {
        self.machine.set_local_time(clock::wall_ms(), self.clock.utc_offset_s());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use protocol::to_worker::Configure;
    use protocol::to_worker::{Approval, Auth, Clocks, Home, Limits, Provider, Reviewer, Sandbox};
    use protocol::{Route, Runtime};
    use std::path::Path;

    /// A configuration that every test may change.
    pub(crate) fn configure(agent_dir: &Path) -> Configure {
        Configure {
            ledger: 7,
            workspace: agent_dir.join("workspace").display().to_string(),
            codex_command: "codex".into(),
            default_route: Route { runtime: Runtime::CodexCli, provider: "mock".into(), model: "gpt-5.5".into() },
            providers: vec![Provider {
                name: "mock".into(),
                base_url: "http://127.0.0.1:9/v1".into(),
                api_key_env: Some("MOCK_KEY".into()),
            }],
            auth: Auth::None,
            sandbox: Sandbox::WorkspaceWrite,
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
                stop_grace_ms: 2000,
                heartbeat_ms: 15_000,
            },
        }
    }
}
