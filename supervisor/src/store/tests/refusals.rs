//! What is no ledger is refused by name, and nothing is written over.

use super::super::OpenError;
use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn refusal(path: &Path) -> OpenError {
    open(path, &quick(0)).map(drop).unwrap_err()
}

/// Refuses with words that name the path and a remedy, and leaves the file as it is.
fn refused_and_untouched(path: &Path, remedy: &str) -> OpenError {
    let before = fs::read(path).unwrap();
    let error = refusal(path);
    let words = error.to_string();
    assert!(words.contains(&*path.to_string_lossy()) && words.contains(remedy), "{words}");
    assert_eq!(fs::read(path).unwrap(), before);
    error
}

#[test]
fn the_ledger_is_private_and_says_how_it_works() {
    let place = Place::new();
    let (store, memory) = place.open();
    assert!(memory.ledger > 0);
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    let path = place.path();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for name in ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.lock"] {
        assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
    }
    let mode: String = place.shell().query_row("PRAGMA journal_mode", [], |r| r.get(0)).unwrap();
    assert_eq!(mode, "wal");
    drop(store);
    assert_eq!(place.memory().ledger, memory.ledger);
    assert_ne!(Place::new().memory().ledger, memory.ledger);
}

#[test]
fn wide_rights_of_an_old_file_are_taken_back() {
    let place = Place::new();
    drop(place.open());
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let kept = place.open();
    assert_eq!(fs::metadata(place.path()).unwrap().permissions().mode() & 0o777, 0o600);
    drop(kept);
}

#[test]
fn a_second_supervisor_is_told_the_first_ones_pid() {
    let place = Place::new();
    let first = place.open();
    let error = refusal(&place.path());
    assert!(matches!(error, OpenError::Locked { .. }));
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    drop(first);
    drop(place.open());
}

#[test]
fn a_folder_is_no_ledger() {
    let place = Place::new();
    fs::create_dir_all(place.path()).unwrap();
    let error = refusal(&place.path());
    assert!(matches!(error, OpenError::Folder(_)) && error.to_string().contains("move it away"), "{error}");
}

#[test]
fn an_empty_file_is_a_lost_ledger() {
    let place = Place::new();
    drop(place.open());
    fs::write(place.path(), "").unwrap();
    assert!(matches!(refused_and_untouched(&place.path(), "restore"), OpenError::Empty(_)));
}

#[test]
fn a_log_without_its_ledger_is_kept() {
    let place = Place::new();
    let log = place.path().with_file_name("ledger.db-wal");
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    fs::write(&log, "frames").unwrap();
    let error = refusal(&place.path());
    assert!(matches!(error, OpenError::LogAlone(_)) && error.to_string().contains("restore"), "{error}");
    assert_eq!(fs::read(&log).unwrap(), b"frames");
    assert!(!place.path().exists());
}

#[test]
fn other_files_are_no_ledger() {
    let place = Place::new();
    fs::create_dir_all(place.path().parent().unwrap()).unwrap();
    fs::write(place.path(), "a letter to a friend, long enough to have a header ".repeat(100)).unwrap();
    assert!(matches!(refused_and_untouched(&place.path(), "move it away"), OpenError::NotALedger(_)));
    fs::remove_file(place.path()).unwrap();
    place.shell().execute_batch("CREATE TABLE recipes (x); PRAGMA user_version = 1;").unwrap();
    assert!(matches!(refused_and_untouched(&place.path(), "move it away"), OpenError::NotALedger(_)));
}

#[test]
fn a_newer_ledger_is_refused_with_both_versions() {
    let place = Place::new();
    drop(place.open());
    place.shell().execute_batch("PRAGMA user_version = 99; PRAGMA wal_checkpoint(TRUNCATE);").unwrap();
    let error = refused_and_untouched(&place.path(), "install the newer release");
    assert!(matches!(error, OpenError::Newer { found: 99, known: 2, .. }));
}

fn filled() -> Place {
    let place = Place::new();
    let (store, _) = place.open();
    for id in 1..=200 {
        commit(&store, vec![Record::Turn(NewTurn { prompt: "x".repeat(2_000), ..new_turn(id, None) })]).unwrap();
    }
    drop(store);
    place
}

#[test]
fn a_broken_header_is_refused() {
    let place = filled();
    let mut bytes = fs::read(place.path()).unwrap();
    bytes[..16].fill(b'x');
    fs::write(place.path(), &bytes).unwrap();
    assert!(matches!(refused_and_untouched(&place.path(), "backup"), OpenError::NotALedger(_)));
}

#[test]
fn a_broken_page_is_refused() {
    let place = filled();
    let mut bytes = fs::read(place.path()).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    fs::write(place.path(), &bytes).unwrap();
    assert!(matches!(refused_and_untouched(&place.path(), ".recover"), OpenError::Damaged { .. }));
}

#[test]
fn a_fault_that_the_reads_of_the_start_would_not_meet_is_found() {
    let place = Place::new();
    let (store, _) = place.open();
    commit(&store, (1..=20).map(turn).collect()).unwrap();
    drop(store);
    let root: i64 = place
        .shell()
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'turns'", [], |row| row.get(0))
        .unwrap();
    let mut bytes = fs::read(place.path()).unwrap();
    // The pointers to the first two rows, of two bytes each, stand behind the eight bytes of a leaf's header.
    let pointers = (usize::try_from(root).unwrap() - 1) * 4096 + 8;
    bytes[pointers..pointers + 4].rotate_left(2);
    fs::write(place.path(), &bytes).unwrap();
    let error = refused_and_untouched(&place.path(), ".recover");
    assert!(matches!(&error, OpenError::Damaged { what, .. } if what.contains("out of order")), "{error}");
}

#[test]
fn a_truncated_file_is_refused() {
    let place = filled();
    let bytes = fs::read(place.path()).unwrap();
    for length in [bytes.len() / 2, bytes.len() - 4096, 5000, 100, 1] {
        fs::write(place.path(), &bytes[..length]).unwrap();
        let error = refused_and_untouched(&place.path(), "backup");
        assert!(matches!(error, OpenError::Damaged { .. } | OpenError::NotALedger(_)), "{length}: {error:?}");
    }
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    // The superuser may write any folder: a place that nobody may write and one that is no folder serve instead.
    let error = refusal(Path::new("/proc/1/nowhere/ledger.db"));
    assert!(error.to_string().contains("/proc/1/nowhere"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let error = refusal(&folder.path().join("file/ledger.db"));
    assert!(error.to_string().contains("/file") && error.to_string().contains("check"), "{error}");
}

#[test]
fn leftovers_of_a_first_start_that_was_cut_are_no_obstacle() {
    let place = Place::new();
    fs::create_dir_all(place.path().parent().unwrap()).unwrap();
    fs::write(place.path().with_file_name("ledger.db.new"), "half").unwrap();
    drop(place.open());
    assert!(!place.path().with_file_name("ledger.db.new").exists());
}
