//! What a Codex child does, as inputs of the machine.

use super::Driver;
use crate::codex::child::Event;
use crate::codex::pipe::Line;
use crate::journal::JournalError;
use crate::machine::io::Input;
use protocol::FromWorker;

impl Driver {
    pub(super) fn on_child(&mut self, event: Event) -> Result<(), JournalError> {
        match event {
            Event::Rung(isolation, why) => {
                self.machine.set_isolation(isolation);
                if let Some(why) = why {
                    self.tell(FromWorker::Note(why));
                }
                Ok(())
            }
            Event::Spawned(id, pid) => {
                self.looks.begin(id, pid);
                self.take(Input::Spawned(id, pid))
            }
            Event::SpawnFailed(id, failure) => {
                self.children.remove(&id);
                self.take(Input::SpawnFailed(id, failure))
            }
            Event::Line(id, Line::Text(text), permit) => {
                let taken = self.take(Input::Line(id, text));
                drop(permit);
                taken
            }
            Event::Line(id, Line::TooLong(bytes), _) => self.take(Input::LineTooLong(id, bytes)),
            Event::Exited(id, exit) => {
                self.children.remove(&id);
                self.looks.end(id);
                self.take(Input::Exited(id, exit))
            }
        }
    }
}
