//! Commands that ask the supervisor one thing and show its answer.

use super::args::Shape;
use super::exit::{Exit, Failure};
use super::screen::Screen;
use super::show::json::Line;
use super::show::{story, tables};
use super::{Flag, setup};
use crate::control::{Client, ClientError};
use protocol::control::{HealthStatus, Reply, Request, SendEvent, Turns};
use protocol::{AgentName, TurnId};
use std::time::Duration;

/// The longest wait for an answer that the supervisor has at hand, in seconds. It answers within milliseconds.
const ANSWER_S: u64 = 10;

/// Asks what is answered at once; every answer but the last goes to `show`.
fn look_up(
    flag: Flag<'_>,
    screen: &Screen,
    request: &Request,
    mut show: impl FnMut(Reply) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let config = setup::load_folders(flag, screen)?;
    let patience = Some(Duration::from_secs(ANSWER_S));
    let mut client = Client::ask(&config.control_socket(), request, patience)?;
    loop {
        match client.next_reply()? {
            Reply::Done => return Ok(()),
            Reply::Refused(refused) => return Err(refused.into()),
            other @ (Reply::Health(_)
            | Reply::Ps(_)
            | Reply::Event(_)
            | Reply::Turns(_)
            | Reply::Turn(_)
            | Reply::Queue(_)
            | Reply::Guests(_)
            | Reply::Note(_)) => show(other)?,
        }
    }
}

/// An answer to another question: the supervisor's bug.
pub(super) fn unasked(reply: &Reply) -> Failure {
    Failure::new(Exit::Bug, format!("the supervisor answered another question: {reply:?}"))
}

pub(super) fn ps(flag: Flag<'_>, screen: &Screen, shape: Shape) -> Result<(), Failure> {
    look_up(flag, screen, &Request::Ps, |reply| {
        let Reply::Ps(rows) = reply else { return Err(unasked(&reply)) };
        Ok(if shape.json { screen.json(&rows) } else { screen.print(&tables::agents(&rows, &screen.look)) }?)
    })
}

pub(super) fn health(flag: Flag<'_>, screen: &Screen, shape: Shape) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    look_up(flag, screen, &Request::Health, |reply| {
        let Reply::Health(health) = reply else { return Err(unasked(&reply)) };
        if health.status == HealthStatus::Failing {
            exit = Exit::Failed;
        }
        Ok(if shape.json { screen.json(&health) } else { screen.print(&tables::health(&health, &screen.look)) }?)
    })?;
    Ok(exit)
}

pub(super) fn turns(flag: Flag<'_>, screen: &Screen, turns: Turns, shape: Shape) -> Result<(), Failure> {
    look_up(flag, screen, &Request::Turns(turns), |reply| {
        let Reply::Turns(rows) = reply else { return Err(unasked(&reply)) };
        Ok(if shape.json { screen.json(&rows) } else { screen.print(&tables::turns(&rows, &screen.look)) }?)
    })
}

pub(super) fn turn(flag: Flag<'_>, screen: &Screen, turn: TurnId, shape: Shape) -> Result<(), Failure> {
    look_up(flag, screen, &Request::Turn(turn), |reply| {
        let Reply::Turn(told) = reply else { return Err(unasked(&reply)) };
        Ok(if shape.json { screen.json(&told) } else { screen.print(&story::story(&told, &screen.look)) }?)
    })
}

pub(super) fn queue(flag: Flag<'_>, screen: &Screen, agent: AgentName, shape: Shape) -> Result<(), Failure> {
    look_up(flag, screen, &Request::Queue(agent), |reply| {
        let Reply::Queue(rows) = reply else { return Err(unasked(&reply)) };
        Ok(if shape.json { screen.json(&rows) } else { screen.print(&tables::queue(&rows, &screen.look)) }?)
    })
}

/// Asks for a change and waits until it has happened; the supervisor has its own limits for that.
pub(super) fn change(flag: Flag<'_>, screen: &Screen, request: &Request) -> Result<(), Failure> {
    let config = setup::load_folders(flag, screen)?;
    let mut client = Client::ask(&config.control_socket(), request, None)?;
    until_done(&mut client, screen)
}

/// As [`change`]; a supervisor that leaves has done what was asked.
pub(super) fn shut_down(flag: Flag<'_>, screen: &Screen, now: bool) -> Result<(), Failure> {
    let config = setup::load_folders(flag, screen)?;
    let mut client = Client::ask(&config.control_socket(), &Request::Shutdown { now }, None)?;
    loop {
        match client.next_reply() {
            Ok(Reply::Done) | Err(ClientError::Left) => return Ok(()),
            Ok(Reply::Refused(refused)) => return Err(refused.into()),
            Ok(reply) => tell(&reply, screen)?,
            Err(error) => return Err(error.into()),
        }
    }
}

fn until_done(client: &mut Client, screen: &Screen) -> Result<(), Failure> {
    loop {
        match client.next_reply()? {
            Reply::Done => return Ok(()),
            Reply::Refused(refused) => return Err(refused.into()),
            reply @ (Reply::Health(_)
            | Reply::Ps(_)
            | Reply::Event(_)
            | Reply::Turns(_)
            | Reply::Turn(_)
            | Reply::Queue(_)
            | Reply::Guests(_)
            | Reply::Note(_)) => tell(&reply, screen)?,
        }
    }
}

/// What a change says while it happens.
fn tell(reply: &Reply, screen: &Screen) -> Result<(), Failure> {
    match reply {
        Reply::Note(note) => Ok(screen.print_foreign(note)?),
        Reply::Event(SendEvent::Accepted { turn }) => Ok(screen.print(&format!("turn {turn}"))?),
        Reply::Event(event) => Ok(screen.json(&Line::of(event, ""))?),
        Reply::Health(_)
        | Reply::Ps(_)
        | Reply::Turns(_)
        | Reply::Turn(_)
        | Reply::Queue(_)
        | Reply::Guests(_)
        | Reply::Done
        | Reply::Refused(_) => Err(unasked(reply)),
    }
}
