//! A full disk: nothing is lost, order is kept, the ballast goes and comes back.

use super::super::OpenError;
use super::*;
use crate::machine::nouns::Event;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::path::Path;

const DISK_BYTES: u64 = 4 << 20;
const BALLAST_BYTES: u64 = 1 << 20;

/// A disk of a few MiB that only this thread and its children see; `None` where this user may not mount.
struct Disk(TempDir);

impl Disk {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let nothing: Option<&str> = None;
        let private = unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing));
        let size = format!("size={DISK_BYTES}");
        let made = private
            .and_then(|()| mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some(size.as_str())));
        if let Err(error) = made {
            println!("skipped: this user may not mount a small disk: {error}");
            return None;
        }
        Some(Self(folder))
    }

    fn ledger(&self) -> std::path::PathBuf {
        self.0.path().join("ledger.db")
    }

    /// Takes every byte that is left.
    fn fill(&self) -> std::path::PathBuf {
        let hog = self.0.path().join("hog");
        for size in [64 * 1024, 4096] {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(&hog).unwrap();
            while std::io::Write::write_all(&mut file, &vec![7; size]).is_ok() {}
        }
        hog
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

fn ballast(path: &Path) -> bool {
    path.with_file_name("ballast").exists()
}

fn events(count: u64) -> Vec<Vec<Record>> {
    let event = |n| Event { at: n, agent: None, turn: None, what: format!("{n} {}", "x".repeat(3_000)) };
    (1..=count).map(|n| vec![Record::Event(event(n))]).collect()
}

#[test]
fn a_full_disk_costs_time_and_nothing_else() {
    let Some(disk) = Disk::new() else { return };
    let (store, _) = open(&disk.ledger(), &quick(BALLAST_BYTES)).unwrap();
    assert!(ballast(&disk.ledger()));
    assert_eq!(*store.state().borrow(), StoreState::Well);
    let hog = disk.fill();
    // Ends commit on the room of the ballast, and the state says that nothing new should be taken.
    commit(&store, vec![turn(1); 1]).unwrap();
    for records in events(20) {
        commit(&store, records).unwrap();
    }
    let stuck = until(&store, |s| matches!(s, StoreState::Stuck(_)));
    let StoreState::Stuck(why) = stuck else { unreachable!() };
    assert!(why.contains("free space on it") && why.contains("ledger.db"), "{why}");
    assert!(!ballast(&disk.ledger()));
    // That room is used up too: everything waits.
    let hog_too = hog.with_file_name("hog2");
    fs::rename(&hog, &hog_too).unwrap();
    disk.fill();
    let tickets: Vec<_> = events(300).into_iter().map(|records| store.commit(records)).collect();
    until(&store, |s| matches!(s, StoreState::Stuck(why) if why.contains("is full")));
    fs::remove_file(&hog).unwrap();
    fs::remove_file(&hog_too).unwrap();
    for ticket in tickets {
        assert_eq!(ticket.blocking_wait(), Ok(()));
    }
    until(&store, |s| *s == StoreState::Well);
    assert!(ballast(&disk.ledger()));
    drop(store);
    let shell = rusqlite::Connection::open(disk.ledger()).unwrap();
    let mut order = shell.prepare("SELECT at FROM events WHERE id > 20 ORDER BY id").unwrap();
    let order: Vec<u64> =
        order.query_map([], |row| row.get::<_, i64>(0)).unwrap().map(|n| n.unwrap().cast_unsigned()).collect();
    assert_eq!(order, (1..=300).collect::<Vec<_>>());
}

#[test]
fn a_start_on_a_full_disk_lives_on_the_ballast() {
    let Some(disk) = Disk::new() else { return };
    let (store, _) = open(&disk.ledger(), &quick(BALLAST_BYTES)).unwrap();
    commit(&store, vec![turn(1)]).unwrap();
    drop(store);
    let hog = disk.fill();
    let (store, memory) = open(&disk.ledger(), &quick(BALLAST_BYTES)).unwrap();
    assert_eq!(memory.turns.len(), 1);
    commit(&store, vec![turn(2)]).unwrap();
    until(&store, |s| matches!(s, StoreState::Stuck(_)));
    fs::remove_file(hog).unwrap();
    commit(&store, vec![turn(3)]).unwrap();
    until(&store, |s| *s == StoreState::Well);
}

#[test]
fn a_first_start_on_a_full_disk_is_refused_with_the_remedy() {
    let Some(disk) = Disk::new() else { return };
    let hog = disk.fill();
    let error = open(&disk.ledger(), &quick(BALLAST_BYTES)).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Full(_)), "{error:?}");
    assert!(error.to_string().contains("free space"), "{error}");
    fs::remove_file(hog).unwrap();
    drop(open(&disk.ledger(), &quick(BALLAST_BYTES)).unwrap());
}

#[test]
fn a_disk_that_is_read_only_is_named() {
    let Some(disk) = Disk::new() else { return };
    drop(open(&disk.ledger(), &quick(0)).unwrap());
    let nothing: Option<&str> = None;
    mount(nothing, disk.0.path(), nothing, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, nothing).unwrap();
    let error = open(&disk.ledger(), &quick(0)).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Unwritable { .. }), "{error:?}");
    assert!(error.to_string().contains("cannot be written"), "{error}");
}

#[test]
fn a_ballast_that_finds_no_room_is_told_and_no_reason_to_refuse() {
    let place = Place::new();
    let (store, _) = open(&place.path(), &quick(u64::MAX / 4)).unwrap();
    assert!(matches!(&*store.state().borrow(), StoreState::Stuck(why) if why.contains("nearly full")));
    commit(&store, vec![turn(1)]).unwrap();
}
