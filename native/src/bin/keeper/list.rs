//! The mounts that the agent told of.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::{helper, say};

/// Mounts that are remembered: more than a node has layers.
const MOUNTS_MAX: usize = 1 << 16;

#[derive(Default)]
pub struct List {
    mounts: Vec<Vec<u8>>,
}

impl List {
    pub fn take(&mut self, record: &[u8]) {
        if let Some(path) = record.strip_prefix(b"mount ") {
            // a successor says it again of what it goes on with
            if self.mounts.len() < MOUNTS_MAX && !self.mounts.iter().any(|mount| mount == path) {
                self.mounts.push(path.to_owned());
            }
        } else if let Some(path) = record.strip_prefix(b"unmount ")
            && let Some(index) = self.mounts.iter().rposition(|mount| mount == path)
        {
            self.mounts.remove(index);
        }
    }

    /// What `detach` detaches, as the end of a sentence.
    pub fn detached(&self) -> String {
        let mounts: Vec<_> = self.mounts.iter().map(|path| OsStr::from_bytes(path).to_string_lossy()).collect();
        if mounts.is_empty() { String::new() } else { format!("; what it mounted is detached: {}", mounts.join(", ")) }
    }

    pub fn detach(&mut self) {
        for path in self.mounts.drain(..).rev() {
            // looked at each time: a mount takes those below it along
            let is_ours = kind(&path).is_some_and(|kind| kind == "erofs" || kind == "fuse" || kind.starts_with("fuse."));
            if is_ours && let Err(error) = detach(&path) {
                say(&format!("detaching {}: {error}", OsStr::from_bytes(&path).display()));
            }
        }
    }
}

/// The type of the mount that is seen at a path, by the mount table: a stat could wait for an agent that is gone.
fn kind(path: &[u8]) -> Option<String> {
    // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
    let table = fs::read("/proc/self/mountinfo").ok()?;
    let line = table.split(|&byte| byte == b'\n').rev().find(|line| {
        let point = line.split(|&byte| byte == b' ').nth(4);
        point.is_some_and(|point| unescape(point) == path)
    })?;
    let text = String::from_utf8_lossy(line);
    let (_, after) = text.split_once(" - ")?;
    after.split(' ').next().map(str::to_owned)
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match (first, after) {
            (b'\\', &[a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    out
}

/// By fusermount3 where this user may not.
fn detach(path: &[u8]) -> io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(Errno::PERM | Errno::ACCESS) => helper::unmount(OsStr::from_bytes(path), true),
        done => Ok(done?),
    }
}
