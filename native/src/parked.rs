//! Requests that wait for JavaScript, and what they wait for.
//!
//! A request waits for one or more keys and ends when all are settled, when one failed, at its deadline, when its process is
//! interrupted, or when the session closes. Who asks for a key first has to ask JavaScript; the others join. A key that nobody waits
//! for any more is forgotten, so that the next request asks again. One lock guards it all: waiting is never the hot path.
#![forbid(unsafe_code)]

mod request;
mod room;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use request::{Key, Known, Request, What, Window};
use room::{Place, Room};

use crate::reply::Reply;

/// Interrupts that are remembered because nothing was parked under their number: one thread may read a request, and another the interrupt
/// that is about it, before the first has parked it. Most are about requests that were answered meanwhile; the oldest go.
const EARLY_MAX: usize = 256;

struct Waiting {
    request: Request,
    keys: Vec<Key>,
    /// Keys that are not settled.
    open: usize,
    deadline: Instant,
}

/// For the worker threads.
pub enum Work {
    Resume(Request),
    Fail(Request, i32),
}

#[derive(Default)]
struct State {
    /// By the kernel's number for the request.
    waiting: HashMap<u64, Waiting>,
    /// What those leave.
    room: Room,
    keys: HashMap<Key, Vec<u64>>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// By directory, name, and who asks: what one is refused is not refused to another.
    tickets: HashMap<(u64, String, u32), u32>,
    names: HashMap<u32, (u64, String, u32)>,
    last_ticket: u32,
    /// Requests that were interrupted before they were parked; the kernel uses no number twice.
    early: VecDeque<u64>,
    work: VecDeque<Work>,
    /// Nothing may be parked any more.
    closed: bool,
    /// The connection is gone: the threads end.
    ended: bool,
}

#[derive(Default)]
pub struct Parked {
    state: Mutex<State>,
    work: Condvar,
    clock: Condvar,
}

impl State {
    /// Takes a request out, and forgets its keys where nobody else waits for them.
    fn take(&mut self, unique: u64) -> Option<Request> {
        let waiting = self.waiting.remove(&unique)?;
        self.deadlines.remove(&(waiting.deadline, unique));
        self.room.leave(waiting.request.place());
        for key in waiting.keys {
            if let Some(others) = self.keys.get_mut(&key) {
                others.retain(|&other| other != unique);
                if others.is_empty() {
                    self.forget(&key);
                }
            }
        }
        Some(waiting.request)
    }

    fn forget(&mut self, key: &Key) -> Vec<u64> {
        if let Key::Lookup(ticket) = key
            && let Some(name) = self.names.remove(ticket)
        {
            self.tickets.remove(&name);
        }
        self.keys.remove(key).unwrap_or_default()
    }

    /// Whether its deadline is the first of all.
    fn insert(&mut self, request: Request, keys: Vec<Key>, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let unique = request.reply.unique();
        self.room.take(request.place());
        for key in &keys {
            self.keys.entry(*key).or_default().push(unique);
        }
        self.deadlines.insert((deadline, unique));
        let open = keys.len();
        self.waiting.insert(unique, Waiting { request, keys, open, deadline });
        self.deadlines.first() == Some(&(deadline, unique))
    }

    /// Why a request cannot wait, as an errno.
    fn refusal(&mut self, request: &Request) -> Option<i32> {
        let unique = request.reply.unique();
        if let Some(index) = self.early.iter().position(|&early| early == unique) {
            self.early.remove(index);
            return Some(libc::EINTR);
        }
        let place = request.place();
        match place {
            _ if self.closed => Some(libc::EIO),
            _ if self.room.has(place) => None,
            Place::Read => Some(libc::EIO),
            Place::Lookup(_) => {
                request.reply.counters().refused.fetch_add(1, Relaxed);
                Some(libc::ENOENT)
            }
        }
    }
}

impl Parked {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_clock(&self, first: bool) {
        if first {
            self.clock.notify_all();
        }
    }

    /// Parks a read until all `keys` that are missing, as `known`, are settled, and returns those that nobody waits for yet. When none is
    /// missing any more, it goes straight to the workers; when one is gone, it fails.
    pub fn park(&self, request: Request, mut keys: Vec<Key>, timeout: Duration, known: impl Fn(&Key) -> Known) -> Vec<Key> {
        let mut state = self.lock();
        if let Some(errno) = state.refusal(&request) {
            drop(state);
            request.fail(errno);
            return Vec::new();
        }
        // Under the lock: whoever makes a key ready, or removes a device, settles it afterwards, and that takes the lock.
        let mut gone = false;
        keys.retain(|key| {
            let known = known(key);
            gone |= known == Known::Gone;
            known == Known::Missing
        });
        if gone {
            drop(state);
            request.fail(libc::EIO);
            return Vec::new();
        }
        if keys.is_empty() {
            state.work.push_back(Work::Resume(request));
            self.work.notify_one();
            return Vec::new();
        }
        let fresh = keys.iter().filter(|key| !state.keys.contains_key(key)).copied().collect();
        let first = state.insert(request, keys, timeout);
        self.wake_clock(first);
        fresh
    }

    /// Parks a lookup; a ticket when it is the first of this user for this name.
    pub fn park_lookup(&self, reply: Reply, parent: u64, name: &str, user: u32, timeout: Duration) -> Option<u32> {
        let request = Request { reply, what: What::Lookup { parent, name: name.to_owned(), user } };
        let mut state = self.lock();
        if let Some(errno) = state.refusal(&request) {
            drop(state);
            request.fail(errno);
            return None;
        }
        let known = state.tickets.get(&(parent, name.to_owned(), user)).copied();
        let ticket = known.unwrap_or_else(|| {
            // as many are in use as lookups wait at most, so a free one is near
            while state.names.contains_key(&state.last_ticket) {
                state.last_ticket = state.last_ticket.wrapping_add(1);
            }
            let ticket = state.last_ticket;
            state.last_ticket = ticket.wrapping_add(1);
            state.tickets.insert((parent, name.to_owned(), user), ticket);
            state.names.insert(ticket, (parent, name.to_owned(), user));
            ticket
        });
        let first = state.insert(request, vec![Key::Lookup(ticket)], timeout);
        self.wake_clock(first);
        known.is_none().then_some(ticket)
    }

    /// A key is there (0) or will not be: gives the requests that have nothing left to wait for to the workers.
    pub fn settle(&self, key: Key, errno: i32) {
        let mut state = self.lock();
        for unique in state.forget(&key) {
            if errno != 0 {
                if let Some(request) = state.take(unique) {
                    state.work.push_back(Work::Fail(request, errno));
                }
                continue;
            }
            let Some(waiting) = state.waiting.get_mut(&unique) else { continue };
            waiting.open -= 1;
            if waiting.open == 0
                && let Some(request) = state.take(unique)
            {
                state.work.push_back(Work::Resume(request));
            }
        }
        drop(state);
        self.work.notify_all();
    }

    /// Whoever fills chunks is at it: all that waits for some has `timeout` from now on.
    pub fn extend(&self, timeout: Duration) {
        let mut state = self.lock();
        let deadline = Instant::now() + timeout;
        let State { waiting, deadlines, .. } = &mut *state;
        for (unique, waiting) in waiting.iter_mut() {
            if matches!(waiting.keys.first(), Some(Key::Chunk { .. })) {
                deadlines.remove(&(waiting.deadline, *unique));
                deadlines.insert((deadline, *unique));
                waiting.deadline = deadline;
            }
        }
        // the clock finds out by itself when the deadline it waits for has moved
    }

    /// Fails what waits for any chunk of a device that is going away.
    pub fn fail_device(&self, gone: u32) {
        let keys: Vec<Key> = {
            let state = self.lock();
            let of = |key: &&Key| matches!(key, Key::Chunk { device, .. } if *device == gone);
            state.keys.keys().filter(of).copied().collect()
        };
        for key in keys {
            self.settle(key, libc::EIO);
        }
    }

    /// The process behind a request wants to go; false when it is not parked, and then it will not be.
    pub fn interrupt(&self, unique: u64) -> bool {
        let mut state = self.lock();
        let request = state.take(unique);
        let found = request.is_some();
        if !found {
            if state.early.len() == EARLY_MAX {
                state.early.pop_front();
            }
            state.early.push_back(unique);
        }
        drop(state);
        if let Some(request) = request {
            request.fail(libc::EINTR);
        }
        found
    }

    /// From now on nothing waits.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let all: Vec<u64> = state.waiting.keys().copied().collect();
        for unique in all {
            if let Some(request) = state.take(unique) {
                state.work.push_back(Work::Fail(request, libc::EIO));
            }
        }
        drop(state);
        self.work.notify_all();
    }

    /// The connection is gone.
    pub fn end(&self) {
        self.close();
        self.lock().ended = true;
        self.work.notify_all();
        self.clock.notify_all();
    }

    /// Work for a worker thread; None when it is to end.
    pub fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.work.pop_front() {
                return Some(work);
            }
            if state.ended {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends requests at their deadlines until the connection is gone: reads with EIO, lookups with ENOENT.
    pub fn keep_deadlines(&self) {
        let mut state = self.lock();
        while !state.ended {
            let now = Instant::now();
            match state.deadlines.first().copied() {
                Some((deadline, unique)) if deadline <= now => {
                    let Some(request) = state.take(unique) else { continue };
                    drop(state);
                    request.reply.counters().expired.fetch_add(1, Relaxed);
                    let errno = match request.what {
                        What::Read { .. } => libc::EIO,
                        What::Lookup { .. } => libc::ENOENT,
                    };
                    request.fail(errno);
                    state = self.lock();
                }
                Some((deadline, _)) => {
                    let wait = deadline.duration_since(now);
                    state = self.clock.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                }
                None => state = self.clock.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

#[cfg(test)]
mod tests;
