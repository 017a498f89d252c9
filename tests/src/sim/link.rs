//! Connections between the supervisor and a worker: real frames as bytes, cut anywhere, late, and lost in the middle.
//!
//! ```text
//!   ToWorker   --encode--> bytes --cut--> chunks, each with its delay --> FrameReader --> the worker's driver
//!   FromWorker --encode--> bytes --cut--> chunks, each with its delay --> FrameReader --> the supervisor's loop
//! ```

use super::host::Word;
use super::serve::ToProc;
use super::world::{Event, World};
use protocol::frame::{self, Frame, FrameReader};
use protocol::hello::{Accord, Role};
use protocol::{AgentName, FromWorker, Hello, Incarnation, ToWorker};
use supervisor::machine::words::Input;

/// Kinds below this are the stable ones.
const STABLE_KINDS_END: u16 = 16;

/// How long a worker may take for its hello, and a process that lives for its socket. Milliseconds.
const HELLO_MS: u64 = 2_000;
/// Between two looks for the socket of a process that lives. Milliseconds.
const NOBODY_PAUSE_MS: u64 = 50;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Host,
    Worker,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) agent: AgentName,
    /// The run that was dialled, 0 if any will do.
    pub(crate) dialled: Incarnation,
    /// The run that answered.
    pub(crate) incarnation: Incarnation,
    /// The life of the supervisor that dialled.
    pub(crate) life: u64,
    /// It was dialled right after the worker's start.
    pub(crate) first: bool,
    /// The supervisor has heard the hello.
    pub(crate) met: bool,
    pub(crate) host_open: bool,
    pub(crate) worker_open: bool,
    /// What the worker heard in the supervisor's hello.
    pub(crate) accord: Option<Accord>,
    to_host: (FrameReader, u64),
    to_worker: (FrameReader, u64),
}

impl World {
    /// Dials an agent's worker; both ends say hello.
    pub(crate) fn dial(&mut self, agent: &AgentName, dialled: Incarnation, since: Option<u64>) {
        let alive = self.places[agent].process.as_ref().filter(|process| process.listening && !process.left);
        let Some((incarnation, theirs)) = alive.map(|process| (process.incarnation, process.hello(agent))) else {
            if let Some(since) = since.filter(|since| self.tick < since + HELLO_MS && self.is_known_to_live(agent)) {
                return self.soon(NOBODY_PAUSE_MS, Word::Dial(agent.clone(), dialled, since));
            }
            return self.undialled(agent, dialled, "no worker listens");
        };
        let id = self.number();
        let link = Link {
            agent: agent.clone(),
            dialled,
            incarnation,
            life: self.host.life,
            first: since.is_none(),
            met: false,
            host_open: true,
            worker_open: true,
            accord: None,
            to_host: (FrameReader::new(), self.tick),
            to_worker: (FrameReader::new(), self.tick),
        };
        self.links.insert(id, link);
        self.note("dial", id, || format!("{agent} {dialled} finds {incarnation}"));
        let ours = Hello::new(Role::Supervisor, agent.clone(), dialled);
        let ours = ToWorker::Hello(Hello { protocol: self.host.protocol, ..ours });
        let theirs = FromWorker::Hello(theirs);
        self.send(id, Side::Worker, &ours.to_frame().expect("a frame"));
        self.later(HELLO_MS, Event::HelloLimit(id));
        if self.places[agent].process.as_ref().is_some_and(|process| process.stopped) {
            // A stopped process accepts nothing; its hello comes when it goes on.
            self.reach(agent, incarnation, ToProc::Hello(id, theirs));
        } else {
            self.send(id, Side::Host, &theirs.to_frame().expect("a frame"));
        }
    }

    pub(crate) fn dial_failed(&mut self, agent: &AgentName, dialled: Incarnation, why: &str) {
        let input = Input::LinkFailed(agent.clone(), dialled, why.to_owned());
        self.tell_host(input);
    }

    /// Writes a frame towards `side`.
    pub(crate) fn send(&mut self, id: u64, side: Side, frame: &Frame) {
        let bytes = frame::encode(frame.kind, &frame.body).expect("a frame within the limit");
        let Some(link) = self.links.get(&id) else { return };
        let from_open = if side == Side::Host { link.worker_open } else { link.host_open };
        if !from_open {
            return;
        }
        let calm = self.calm.is_some();
        let mut rest = bytes.as_slice();
        let mut at = if side == Side::Host { link.to_host.1 } else { link.to_worker.1 };
        while !rest.is_empty() {
            let cut = if self.dice.one_in(3) { 1 + self.dice.index(rest.len()) } else { rest.len() };
            let (now, later) = rest.split_at(cut.min(rest.len()));
            rest = later;
            let delay = if !calm && self.dice.one_in(40) { self.dice.roll(400) } else { self.dice.roll(3) };
            at = at.max(self.tick + delay);
            self.at(at, Event::Bytes(id, side, now.to_vec()));
        }
        if let Some(link) = self.links.get_mut(&id) {
            let door = if side == Side::Host { &mut link.to_host } else { &mut link.to_worker };
            door.1 = at;
        }
    }

    /// Bytes arrive at an end.
    pub(crate) fn bytes(&mut self, id: u64, side: Side, bytes: &[u8]) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match side {
            Side::Host if link.host_open => {
                link.to_host.0.push(bytes);
                loop {
                    let Some(link) = self.links.get_mut(&id).filter(|link| link.host_open) else { return };
                    let Some(frame) = link.to_host.0.next_frame().expect("whole frames") else { return };
                    self.host_hears(id, &frame);
                }
            }
            Side::Worker if link.worker_open => {
                let (agent, incarnation) = (link.agent.clone(), link.incarnation);
                self.reach(&agent, incarnation, ToProc::Bytes(id, bytes.to_vec()));
            }
            Side::Host | Side::Worker => {}
        }
    }

    /// Bytes that a worker reads, as messages.
    pub(crate) fn worker_reads(&mut self, id: u64, bytes: &[u8]) {
        if let Some(link) = self.links.get_mut(&id) {
            link.to_worker.0.push(bytes);
        }
        loop {
            let Some(link) = self.links.get_mut(&id).filter(|link| link.worker_open) else { return };
            let Some(frame) = link.to_worker.0.next_frame().expect("whole frames") else { return };
            if link.accord == Some(Accord::DrainOnly) && frame.kind >= STABLE_KINDS_END {
                continue;
            }
            let Some(message) = ToWorker::from_frame(&frame).expect("a message") else { continue };
            let (agent, incarnation) = (link.agent.clone(), link.incarnation);
            self.note("to worker", u64::from(frame.kind), || format!("{agent} {message:?}"));
            self.worker_hears(&agent, incarnation, id, message);
        }
    }

    fn host_hears(&mut self, id: u64, frame: &Frame) {
        let Some(message) = FromWorker::from_frame(frame).expect("a message") else { return };
        let Some(link) = self.links.get(&id) else { return };
        let (agent, incarnation, met) = (link.agent.clone(), link.incarnation, link.met);
        self.note("from worker", u64::from(frame.kind), || format!("{agent} {incarnation} {message:?}"));
        match message {
            FromWorker::Hello(hello) => self.meet(id, &hello),
            message if met => {
                self.give(Input::Said(agent, incarnation, message));
            }
            message => panic!("{message:?} came before the hello"),
        }
    }

    /// Ends a connection at one end; what is on its way from there still arrives.
    pub(crate) fn close(&mut self, id: u64, side: Side) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (other, at) = match side {
            Side::Host => {
                link.host_open = false;
                (Side::Worker, link.to_worker.1)
            }
            Side::Worker => {
                link.worker_open = false;
                (Side::Host, link.to_host.1)
            }
        };
        self.at(at, Event::Closed(id, other));
    }

    /// Loses a connection with everything that is on its way.
    pub(crate) fn cut(&mut self, id: u64) {
        self.note("cut", id, String::new);
        let Some(link) = self.links.get_mut(&id) else { return };
        let (host, worker) = (link.host_open, link.worker_open);
        (link.host_open, link.worker_open) = (false, false);
        if host {
            self.host_lost(id, "reset");
        }
        if worker && let Some(link) = self.links.get(&id) {
            let (agent, incarnation) = (link.agent.clone(), link.incarnation);
            self.reach(&agent, incarnation, ToProc::Closed(id));
        }
        self.links.remove(&id);
    }

    /// The other end has closed.
    pub(crate) fn closed(&mut self, id: u64, side: Side) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match side {
            Side::Host if link.host_open => {
                link.host_open = false;
                self.host_lost(id, "closed");
            }
            Side::Worker if link.worker_open => {
                link.worker_open = false;
                let (agent, incarnation) = (link.agent.clone(), link.incarnation);
                self.reach(&agent, incarnation, ToProc::Closed(id));
            }
            Side::Host | Side::Worker => {}
        }
        if self.links.get(&id).is_some_and(|link| !link.host_open && !link.worker_open) {
            self.links.remove(&id);
        }
    }

    fn host_lost(&mut self, id: u64, why: &str) {
        let Some(link) = self.links.get(&id).filter(|link| link.life == self.host.life) else { return };
        let (agent, incarnation, dialled, met) = (link.agent.clone(), link.incarnation, link.dialled, link.met);
        if met {
            self.host.forget_session(&agent, id);
            self.give(Input::LinkLost(agent, incarnation, why.to_owned()));
        } else {
            self.undialled(&agent, dialled, "closed before the hello");
        }
    }

    /// A worker that has not said hello in time is stopped or wedged.
    pub(crate) fn hello_limit(&mut self, id: u64) {
        let Some(link) = self.links.get(&id).filter(|link| link.host_open && !link.met) else { return };
        if link.life != self.host.life {
            return;
        }
        let (agent, dialled) = (link.agent.clone(), link.dialled);
        self.close(id, Side::Host);
        self.undialled(&agent, dialled, "no hello in time");
    }
}
