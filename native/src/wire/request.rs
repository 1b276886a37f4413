//! What the kernel asks.
#![forbid(unsafe_code)]

use super::IN_HEADER;
use crate::bytes::{u32_at, u64_at};

pub mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const TMPFILE: u32 = 51;
}

/// A request as it came.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub opcode: u32,
    pub unique: u64,
    pub node: u64,
    /// The thread that asks, as our PID namespace numbers it; 0 when it is in none below ours. Its user the kernel tells only to those who
    /// do not have idmapped mounts.
    pub pid: u32,
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// None when the bytes are no request: then there is nothing to answer to.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        Some(Self {
            opcode: u32_at(bytes, 4)?,
            unique: u64_at(bytes, 8)?,
            node: u64_at(bytes, 16)?,
            pid: u32_at(bytes, 32)?,
            body: bytes.get(IN_HEADER..)?,
        })
    }

    /// The NUL-terminated name that follows `skip` bytes of arguments.
    pub fn name(&self, skip: usize) -> Option<&'a [u8]> {
        let rest = self.body.get(skip..)?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        rest.get(..end)
    }

    /// Offset and size of READ, READDIR and READDIRPLUS.
    pub fn window(&self) -> Option<(u64, u32)> {
        Some((u64_at(self.body, 8)?, u32_at(self.body, 16)?))
    }

    /// The first number of the arguments: size of GETXATTR and LISTXATTR.
    pub fn size(&self) -> Option<u32> {
        u32_at(self.body, 0)
    }

    /// Calls `each` with the nodes of FORGET or BATCH_FORGET, and how often the kernel was told of each.
    pub fn forgotten(&self, mut each: impl FnMut(u64, u64)) {
        if self.opcode == op::FORGET {
            if let Some(times) = u64_at(self.body, 0) {
                each(self.node, times);
            }
            return;
        }
        // struct fuse_batch_forget_in { u32 count, u32 dummy }, then count times { u64 nodeid, u64 nlookup }
        let count = u32_at(self.body, 0).unwrap_or(0) as usize;
        let records = self.body.get(8..).unwrap_or_default();
        for record in records.chunks_exact(16).take(count) {
            if let (Some(node), Some(times)) = (u64_at(record, 0), u64_at(record, 8)) {
                each(node, times);
            }
        }
    }

    /// The request that an INTERRUPT is about.
    pub fn interrupted(&self) -> Option<u64> {
        u64_at(self.body, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_is_what_the_request_holds_and_no_more() {
        let forgotten = |opcode, body: &[u8]| {
            let mut all = Vec::new();
            Request { opcode, unique: 0, node: 9, pid: 0, body }.forgotten(|node, times| all.push((node, times)));
            all
        };
        assert_eq!(forgotten(op::FORGET, &3u64.to_le_bytes()), [(9, 3)]);
        assert_eq!(forgotten(op::FORGET, &[3, 0, 0]), []);
        let mut body = [2u32, 0].map(u32::to_le_bytes).concat();
        body.extend([5u64, 1, 6, 2, 7].map(u64::to_le_bytes).concat());
        assert_eq!(forgotten(op::BATCH_FORGET, &body), [(5, 1), (6, 2)]);
        body[0] = 1;
        assert_eq!(forgotten(op::BATCH_FORGET, &body), [(5, 1)]);
        body[..4].fill(0xff);
        assert_eq!(forgotten(op::BATCH_FORGET, &body), [(5, 1), (6, 2)]);
        assert_eq!(forgotten(op::BATCH_FORGET, &body[..6]), []);
    }

    #[test]
    fn whatever_comes_nothing_is_read_beyond_it() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        for _ in 0..100_000 {
            let length = next() as usize % 160;
            let mut bytes: Vec<u8> = (0..length).map(|_| next() as u8).collect();
            // numbers that mean something, more often than by chance
            if length >= 8 {
                let opcode = [op::FORGET, op::BATCH_FORGET, op::READ, op::LOOKUP, op::INIT][next() as usize % 5];
                bytes[4..8].copy_from_slice(&opcode.to_le_bytes());
            }
            let Some(request) = Request::parse(&bytes) else {
                assert!(length < IN_HEADER);
                continue;
            };
            assert_eq!(request.body.len(), length - IN_HEADER);
            let mut forgotten = 0;
            request.forgotten(|_, _| forgotten += 1);
            assert!(forgotten <= request.body.len() / 8);
            for skip in [0, 4, 16, usize::MAX] {
                assert!(request.name(skip).is_none_or(|name| !name.contains(&0) && skip + name.len() < request.body.len()));
            }
            let _ = (request.window(), request.size(), request.interrupted());
            let _ = crate::wire::init(request.body, true);
        }
    }

    #[test]
    fn a_name_ends_at_its_nul() {
        let request = Request { opcode: 1, unique: 1, node: 1, pid: 0, body: b"ab\0cd" };
        assert_eq!(request.name(0), Some(&b"ab"[..]));
        assert_eq!(request.name(3), None);
        assert_eq!(request.name(9), None);
    }
}
