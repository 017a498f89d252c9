//! How many bytes have come in over the TCP connections of a process: whether its provider still speaks.
//!
//! ```text
//!  /proc/PID/fd/N -> socket:[INODE]       which sockets are its own
//!  NETLINK_SOCK_DIAG, all established ---> INODE, tcp_info.bytes_received
//! ```
//! The counters of `/proc/PID/io` leave sockets out. The kernel's answer is read as bytes, with every length checked.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;

/// Most that is read of the kernel's answer for one family, in bytes: some 10,000 connections. What lies behind counts as
/// nothing.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Room for one piece of an answer, in bytes: the kernel makes none larger than 32 KiB.
const PIECE_BYTES: usize = 32 * 1024;

/// `AF_INET` and `AF_INET6`.
const FAMILIES: [u8; 2] = [2, 10];

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ENDS: [u16; 2] = [2, 3];
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// `INET_DIAG_INFO`, an attribute that holds a `tcp_info`.
const INFO: u16 = 2;
/// Bit of `TCP_ESTABLISHED` among the states.
const ESTABLISHED: u32 = 1 << 1;
/// Sizes of `nlmsghdr` and `inet_diag_msg`; where the latter holds its inode.
const HEADER: usize = 16;
const MESSAGE: usize = 72;
const INODE_AT: usize = 68;
/// Where `tcp_info` holds `tcpi_bytes_received`, since Linux 4.1.
const RECEIVED_AT: usize = 128;

/// Bytes that have come in over the open TCP connections of these processes. 0 where the kernel does not tell.
pub fn received(pids: &[u32]) -> u64 {
    let inodes: BTreeSet<u32> = pids.iter().flat_map(|pid| sockets_of(*pid)).collect();
    if inodes.is_empty() {
        return 0;
    }
    FAMILIES.iter().map(|family| ask(*family, &inodes).unwrap_or(0)).fold(0, u64::saturating_add)
}

fn sockets_of(pid: u32) -> Vec<u32> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let inode = |path: std::path::PathBuf| {
        let to = fs::read_link(path).ok()?;
        to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    descriptors.filter_map(|entry| inode(entry.path())).collect()
}

fn ask(family: u8, inodes: &BTreeSet<u32>) -> rustix::io::Result<u64> {
    let flags = SocketFlags::CLOEXEC;
    let kernel = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))?;
    send(kernel.as_fd(), &request(family), SendFlags::empty())?;
    let mut piece = vec![0; PIECE_BYTES];
    let (mut sum, mut read) = (0_u64, 0);
    while read < ANSWER_BYTES_MAX {
        let (length, _) = recv(kernel.as_fd(), piece.as_mut_slice(), RecvFlags::DONTWAIT)?;
        let (found, over) = parse(piece.get(..length).unwrap_or_default(), inodes);
        sum = sum.saturating_add(found);
        read += length;
        if over || length == 0 {
            break;
        }
    }
    Ok(sum)
}

/// An `nlmsghdr` and an `inet_diag_req_v2` for every established connection of a family.
fn request(family: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + 56);
    bytes.extend(72_u32.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, TCP, 1 << (INFO - 1), 0]);
    bytes.extend(ESTABLISHED.to_ne_bytes());
    bytes.extend([0; 48]);
    bytes
}

/// What a piece of the answer holds for these sockets, and whether it was the last.
fn parse(mut piece: &[u8], inodes: &BTreeSet<u32>) -> (u64, bool) {
    let mut sum = 0_u64;
    while let (Some(length), Some(kind)) = (u32_at(piece, 0), u16_at(piece, 4)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(message) = piece.get(HEADER..length) else { return (sum, true) };
        if ENDS.contains(&kind) {
            return (sum, true);
        }
        if u32_at(message, INODE_AT).is_some_and(|inode| inodes.contains(&inode)) {
            sum = sum.saturating_add(received_of(message.get(MESSAGE..).unwrap_or_default()));
        }
        piece = piece.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    (sum, false)
}

/// The counter among the attributes of a connection.
fn received_of(mut attributes: &[u8]) -> u64 {
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = usize::from(length);
        let Some(value) = attributes.get(4..length) else { return 0 };
        if kind == INFO {
            let bytes = value.get(RECEIVED_AT..RECEIVED_AT + 8).and_then(|bytes| bytes.try_into().ok());
            return bytes.map_or(0, u64::from_ne_bytes);
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    0
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn bytes_that_come_in_are_counted_and_those_that_go_out_are_not() {
        let own = [std::process::id()];
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let before = received(&own);
        near.write_all(&[7; 5000]).unwrap();
        far.read_exact(&mut [0; 5000]).unwrap();
        assert_eq!(received(&own) - before, 5000, "one of the two sockets took them");
        assert_eq!(received(&[u32::MAX]), 0);
    }

    #[test]
    fn a_request_is_as_long_as_it_says() {
        let bytes = request(2);
        assert_eq!(u32_at(&bytes, 0).unwrap() as usize, bytes.len());
    }

    proptest! {
        #[test]
        fn any_answer_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), first in 0_u32..400) {
            let mut bytes = bytes;
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&first.to_ne_bytes());
            }
            parse(&bytes, &BTreeSet::from([0]));
            received_of(&bytes);
        }
    }
}
