//! Serves FUSE for lazylayer; its edge to JavaScript is `js`.
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]

mod asker;
mod bytes;
mod cached;
mod control;
mod device;
mod erofs;
mod first_reads;
mod helper;
mod inode;
pub mod js;
mod kernel;
mod map;
mod mount;
mod parked;
mod reply;
mod serve;
mod session;
mod sys;
mod upcall;
mod usual;
mod waits;
mod wire;
