//! A request that waits, and what it may wait for.
#![forbid(unsafe_code)]

use super::room::Place;
use crate::reply::Reply;

/// What can be waited for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Key {
    Chunk { device: u32, chunk: u32 },
    Lookup(u32),
    Late(u64),
}

/// What is known of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    There,
    Missing,
    /// It will never be there.
    Gone,
}

/// What a read asks for.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub node: u64,
    pub offset: u64,
    pub size: u32,
}

/// What to do again once everything is there.
#[derive(Clone, Debug)]
pub enum What {
    /// `waits`: how often it had to wait, this time too.
    Read { window: Window, waits: u32 },
    /// `user`: who asks.
    Lookup { parent: u64, name: String, user: u32 },
}

pub struct Request {
    pub reply: Reply,
    pub what: What,
}

impl Request {
    pub fn place(&self) -> Place {
        match self.what {
            What::Read { .. } => Place::Read,
            What::Lookup { user, .. } => Place::Lookup(user),
        }
    }

    /// Ends it with an errno.
    pub fn fail(self, errno: i32) {
        self.reply.error(errno);
    }
}
