//! The FUSE protocol as bytes (`include/uapi/linux/fuse.h`), version 7.41: what we read of requests and write in answers.
#![forbid(unsafe_code)]

mod answer;
mod init;
mod request;

pub use answer::{Attributes, Entry, Listing, inval_entry, inval_inode, opened, out_header, statfs, xattr_size};
pub use init::{Negotiated, init};
pub use request::{Request, op};

// Both machines we run on are little-endian, and the protocol is the host's order.
#[cfg(not(target_endian = "little"))]
compile_error!("the wire format is written little-endian");

pub const ROOT_ID: u64 = 1;

pub const NOTIFY_INVAL_INODE: i32 = 2;
pub const NOTIFY_INVAL_ENTRY: i32 = 3;
/// All that was read and not answered comes again (Linux 6.9).
pub const NOTIFY_RESEND: i32 = 7;

pub const IN_HEADER: usize = 40;
pub const OUT_HEADER: usize = 16;

/// The largest READ: 256 pages.
pub const MAX_READ: usize = 1 << 20;
/// A buffer for any request: the longest the kernel sends is SETXATTR with a name of 256 bytes and a value of 64 KiB.
pub const REQUEST_BYTES: usize = 72 << 10;
pub const OPEN_KEEP_CACHE: u32 = 1 << 1;
pub const OPEN_CACHE_DIR: u32 = 1 << 3;

/// For how long the kernel may believe something, in seconds.
pub const NOT_AT_ALL: u64 = 0;
/// 68 years: longer than any mount, and far from overflowing jiffies.
pub const FOR_EVER: u64 = 1 << 31;
