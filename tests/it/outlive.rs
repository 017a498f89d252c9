//! Workers outlive the supervisor: how one comes into the ledger, how the next supervisor tells the living from the dead
//! and the wrong, and how a supervisor is replaced under running turns.

mod classes;
mod ground;
mod spawns;
mod upgrades;

use crate::binaries;
use crate::scenes::on;
use cofferdam_tests::release;
use cofferdam_tests::wait::{LIMIT, until};
use cofferdam_tests::world::{Binaries, World};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder for programs that stand before those under test.
pub(crate) fn programs() -> TempDir {
    tempfile::Builder::new().prefix("cfd-p-").tempdir_in("/var/tmp").unwrap()
}

/// A shell script as a program; replaced as a whole, as an installation does it.
pub(crate) fn program(path: &Path, script: &str) -> PathBuf {
    let fresh = path.with_extension("new");
    fs::write(&fresh, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&fresh, path).unwrap();
    path.to_owned()
}

/// A program under test as another release.
pub(crate) fn as_release(path: &Path, real: &Path, protocol_and_build: &str) -> PathBuf {
    let variable = release::VARIABLE;
    program(path, &format!("{variable}='{protocol_and_build}' exec {} \"$@\"", real.display()))
}

/// A world of one agent, `a`, whose worker is started by this script; the real one is `$REAL`. Not started.
pub(crate) fn with_script(dir: &Path, runtime: &str, script: &str) -> World {
    let real = binaries().worker;
    let worker = program(&dir.join("worker"), &format!("REAL={}\n{script}", real.display()));
    World::builder(Binaries { worker, ..binaries() }).agent("a", &on(runtime)).build()
}

/// One value of the agent's row in the ledger's table of workers; `None` if there is no row or no value.
pub(crate) fn recorded(world: &World, column: &str) -> Option<String> {
    // Never made by a look: an empty file is no ledger.
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
    let ledger = rusqlite::Connection::open_with_flags(world.state().join("ledger.db"), flags).ok()?;
    let sql = format!("SELECT CAST({column} AS TEXT) FROM workers WHERE agent = 'a'");
    ledger.query_row(&sql, [], |row| row.get::<_, Option<String>>(0)).ok()?
}

/// Changes the agent's row behind the back of everybody; no supervisor runs.
pub(crate) fn change(world: &World, assignment: &str) {
    let ledger = rusqlite::Connection::open(world.state().join("ledger.db")).unwrap();
    let changed = ledger.execute(&format!("UPDATE workers SET {assignment} WHERE agent = 'a'"), []).unwrap();
    assert_eq!(changed, 1);
}

/// Waits for a value in the agent's row.
pub(crate) fn is_recorded(world: &World, column: &str) -> String {
    until(&format!("{column} in the ledger"), LIMIT, || world.story(), || recorded(world, column))
}

/// Every process that was started as a worker of the agent `a` of this world.
pub(crate) fn workers_of(world: &World) -> Vec<u32> {
    let dir = world.state().join("agents/a").display().to_string();
    let is_worker = |pid: &u32| {
        let line = cofferdam_tests::processes::command_line(*pid);
        line.contains("--agent-dir") && line.contains(&format!("{dir} "))
    };
    cofferdam_tests::processes::marked(&dir).into_iter().filter(is_worker).collect()
}
