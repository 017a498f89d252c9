//! What the shipped systemd units call when they stop.
//!
//! ```text
//!                     job of the unit    ExecStop: unit stop         the supervisor     ExecStopPost: unit stopped
//!  systemctl stop     stop               drain, end everything       has ended          end what is left
//!  systemctl restart  restart            nothing: workers stay       SIGTERM, leaves    controllers off
//!  it died, watchdog  none               (not called)                has ended          controllers off
//!  it left by itself  none               nothing                     has ended          controllers off
//! ```
//! systemd calls `ExecStop` for `stop` and for `restart` alike; which one it is stands in the unit's job. Whoever cannot be
//! asked is taken for a restart: workers that stay by mistake leave by themselves, workers that end by mistake cost turns.

use super::args::{Unit, UnitCommand};
use super::exit::{Exit, Failure};
use super::screen::Screen;
use super::{Flag, ask};
use crate::process::spawn;
use crate::process::unit::{Group, Job, job};

pub(super) fn unit(flag: Flag<'_>, screen: &Screen, command: UnitCommand) -> Result<(), Failure> {
    match command {
        UnitCommand::Stop { unit, within } => {
            if !stays_stopped(&unit, screen) {
                screen.note("the unit is to start again: workers stay");
                return Ok(());
            }
            match ask::shut_down_within(flag, screen, within) {
                // It has left by itself: `stopped` sees to the rest.
                Err(failure) if failure.exit == Exit::NoSupervisor => Ok(()),
                other => other,
            }
        }
        UnitCommand::Stopped { unit } => stopped(&unit, screen),
    }
}

fn stopped(unit: &Unit, screen: &Screen) -> Result<(), Failure> {
    let group = Group::of_unit(&unit.name).map_err(|e| Failure::because(Exit::Failed, "tidy the unit's cgroup", &e))?;
    if stays_stopped(unit, screen) {
        let ended = group.end().map_err(|e| Failure::because(Exit::Failed, "end what is left of the unit", &e))?;
        if ended > 0 {
            screen.note(&format!("{ended} processes were left and have been ended"));
        }
    }
    group.release().map_err(|e| Failure::because(Exit::Failed, "give the unit's controllers back", &e))
}

fn stays_stopped(unit: &Unit, screen: &Screen) -> bool {
    match spawn::jobs_of(&unit.name, unit.user) {
        Ok(listing) => job(&listing, &unit.name) == Some(Job::Stop),
        Err(error) => {
            screen.note(&format!("systemctl does not say why the unit stops ({error}): workers stay"));
            false
        }
    }
}
