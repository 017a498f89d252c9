//! What an agent may see and touch of the others, of the supervisor and of their secrets: nothing.

mod disk;
mod files;
mod limits;
mod numbers;
mod orphans;
mod rollouts;
mod rungs;
mod secrets;
mod tools;
mod users;

use cofferdam_tests::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

/// The environment of a process.
fn environment(pid: u32) -> BTreeMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.split('\0')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// What a process has open, as the kernel names it. A socket with a name in the file system is named by it.
fn open_files(pid: u32) -> BTreeSet<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap_or_default();
    let named: BTreeMap<&str, &str> = table
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            Some((*words.get(6)?, *words.get(7)?))
        })
        .collect();
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    links
        .map(|link| {
            let text = link.display().to_string();
            let inode = text.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            inode.and_then(|inode| named.get(inode)).map_or(text.clone(), |path| (*path).to_owned())
        })
        .collect()
}

fn agent_dir(world: &World, agent: &str) -> PathBuf {
    world.state().join("agents").join(agent)
}

/// The cgroup of a process.
fn group_of(pid: u32) -> PathBuf {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let group =
        table.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().trim_start_matches('/').to_owned();
    let tops = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
    let top = tops.into_iter().find(|top| top.join("cgroup.procs").exists()).unwrap_or_default();
    top.join(group)
}
