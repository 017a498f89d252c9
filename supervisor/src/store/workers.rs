//! Who each agent's latest worker is: one row an agent, written whole and read whole.

use super::EVENT_BYTES_MAX;
use super::recall::{agent, unsigned, wrong};
use super::record::{amount, number};
use crate::machine::nouns::{Identity, Wall, WorkerRecord};
use protocol::text::clip;
use protocol::{AgentName, Incarnation};
use rusqlite::{Connection, Result, Row, params};

/// Writes a row over the one before.
pub(super) fn write(ledger: &Connection, agent: &AgentName, worker: &WorkerRecord, at: Wall) -> Result<()> {
    let process = worker.identity;
    let mut added = ledger.prepare_cached(
        "INSERT INTO workers (agent, incarnation, nonce, boot, pid, pidfd_inode, started, protocol, build, changed_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (agent) DO UPDATE SET
            incarnation = excluded.incarnation, nonce = excluded.nonce, boot = excluded.boot, pid = excluded.pid,
            pidfd_inode = excluded.pidfd_inode, started = excluded.started, protocol = excluded.protocol,
            build = excluded.build, changed_at = excluded.changed_at",
    )?;
    added.execute(params![
        agent.as_str(),
        number(worker.incarnation.0)?,
        number(worker.nonce)?,
        process.map(|p| format!("{:032x}", p.boot)),
        process.map(|p| p.pid),
        process.map(|p| p.inode.cast_signed()),
        process.map(|p| p.started.cast_signed()),
        worker.release.as_ref().map(|(protocol, _)| *protocol),
        worker.release.as_ref().map(|(_, build)| clip(build, EVENT_BYTES_MAX)),
        amount(at),
    ])?;
    Ok(())
}

/// Reads a row.
pub(super) fn read(row: &Row<'_>) -> Result<(AgentName, WorkerRecord)> {
    let number = |column: &str| row.get::<_, Option<i64>>(column).map(|n| n.unwrap_or(0).cast_unsigned());
    let identity = match (row.get::<_, Option<String>>("boot")?, row.get::<_, Option<u32>>("pid")?) {
        (Some(boot), Some(pid)) => {
            let boot = u128::from_str_radix(&boot, 16).map_err(|_| wrong("not a boot id"))?;
            Some(Identity { boot, pid, inode: number("pidfd_inode")?, started: number("started")? })
        }
        (Some(_) | None, Some(_) | None) => None,
    };
    let (protocol, build) = (row.get::<_, Option<u16>>("protocol")?, row.get::<_, Option<String>>("build")?);
    let record = WorkerRecord {
        incarnation: Incarnation(unsigned(row, "incarnation")?),
        nonce: unsigned(row, "nonce")?,
        identity,
        release: protocol.zip(build),
    };
    Ok((agent(row)?, record))
}
