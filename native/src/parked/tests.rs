//! Waiting, over a socket in place of /dev/fuse.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::room::{LOOKUPS_MAX, LOOKUPS_MAX_OF_USER, READS_MAX};
use super::*;
use crate::asker::ROOT;
use crate::reply::Connection;

const LONG: Duration = Duration::from_secs(60);

struct Kernel {
    connection: Arc<Connection>,
    answers: UnixStream,
}

impl Kernel {
    fn new() -> Self {
        let (ours, answers) = UnixStream::pair().unwrap();
        answers.set_read_timeout(Some(LONG)).unwrap();
        Self { connection: Arc::new(Connection::new(File::from(OwnedFd::from(ours)))), answers }
    }

    fn reply(&self, unique: u64) -> Reply {
        Reply::new(&self.connection, unique, true)
    }

    fn read(&self, unique: u64) -> Request {
        Request { reply: self.reply(unique), what: What::Read { window: Window { node: 1, offset: 0, size: 1 }, waits: 1 } }
    }

    /// Number and errno of the next answer without a body.
    fn answer(&mut self) -> (u64, i32) {
        let mut header = [0; 16];
        self.answers.read_exact(&mut header).unwrap();
        let error = i32::from_le_bytes(header[4..8].try_into().unwrap());
        (u64::from_le_bytes(header[8..].try_into().unwrap()), -error)
    }
}

fn chunk(chunk: u32) -> Key {
    Key::Chunk { device: 1, chunk }
}

/// What the workers would get, as numbers and errnos (0: resumed).
fn work(parked: &Parked) -> Vec<(u64, i32)> {
    let mut all = Vec::new();
    while let Some(work) = parked.lock().work.pop_front() {
        match work {
            Work::Resume(request) => {
                all.push((request.reply.unique(), 0));
                request.reply.none();
            }
            Work::Fail(request, errno) => {
                all.push((request.reply.unique(), errno));
                request.reply.none();
            }
        }
    }
    all.sort_unstable();
    all
}

#[test]
fn a_reply_that_is_dropped_is_eio() {
    let mut kernel = Kernel::new();
    drop(kernel.reply(7));
    assert_eq!(kernel.answer(), (7, libc::EIO));
    assert_eq!(kernel.connection.counters.failed.load(Relaxed), 1);
}

#[test]
fn an_errno_that_the_kernel_does_not_know_is_eio() {
    let mut kernel = Kernel::new();
    kernel.reply(7).error(0);
    assert_eq!(kernel.answer(), (7, libc::EIO));
    kernel.reply(8).error(512);
    assert_eq!(kernel.answer(), (8, libc::EIO));
}

#[test]
fn two_readers_of_a_chunk_ask_once_and_wake_together() {
    let (kernel, parked) = (Kernel::new(), Parked::default());
    assert_eq!(parked.park(kernel.read(1), vec![chunk(1), chunk(2)], LONG, |_| Known::Missing), [chunk(1), chunk(2)]);
    assert_eq!(parked.park(kernel.read(2), vec![chunk(2)], LONG, |_| Known::Missing), []);
    parked.settle(chunk(2), 0);
    assert_eq!(work(&parked), [(2, 0)]);
    parked.settle(chunk(1), 0);
    assert_eq!(work(&parked), [(1, 0)]);
    assert!(parked.lock().keys.is_empty() && parked.lock().deadlines.is_empty());
}

#[test]
fn one_failed_chunk_fails_the_read_and_forgets_its_other_chunks() {
    let (kernel, parked) = (Kernel::new(), Parked::default());
    parked.park(kernel.read(1), vec![chunk(1), chunk(2)], LONG, |_| Known::Missing);
    parked.settle(chunk(2), libc::EACCES);
    assert_eq!(work(&parked), [(1, libc::EACCES)]);
    assert_eq!(parked.park(kernel.read(2), vec![chunk(1)], LONG, |_| Known::Missing), [chunk(1)]);
    parked.close();
    work(&parked);
}

#[test]
fn what_became_ready_meanwhile_is_not_waited_for() {
    let (kernel, parked) = (Kernel::new(), Parked::default());
    assert_eq!(parked.park(kernel.read(1), vec![chunk(1)], LONG, |_| Known::There), []);
    assert_eq!(work(&parked), [(1, 0)]);
}

#[test]
fn a_deadline_ends_reads_with_eio_and_lookups_with_enoent_and_the_next_one_asks_again() {
    let (mut kernel, parked) = (Kernel::new(), Parked::default());
    let soon = Duration::from_millis(30);
    std::thread::scope(|scope| {
        scope.spawn(|| parked.keep_deadlines());
        parked.park(kernel.read(1), vec![chunk(1)], soon, |_| Known::Missing);
        assert_eq!(kernel.answer(), (1, libc::EIO));
        assert_eq!(parked.park(kernel.read(2), vec![chunk(1)], soon, |_| Known::Missing), [chunk(1)]);
        assert_eq!(kernel.answer(), (2, libc::EIO));
        let first = parked.park_lookup(kernel.reply(3), 1, "name", 0, soon);
        assert_eq!(parked.park_lookup(kernel.reply(4), 1, "name", 0, soon), None);
        assert_eq!((kernel.answer(), kernel.answer()), ((3, libc::ENOENT), (4, libc::ENOENT)));
        // what one user is refused is not refused to another
        let (own, other) =
            (parked.park_lookup(kernel.reply(6), 1, "name", 1, soon), parked.park_lookup(kernel.reply(7), 1, "name", 2, soon));
        assert!(own.is_some() && other.is_some() && own != other);
        assert_eq!((kernel.answer(), kernel.answer()), ((6, libc::ENOENT), (7, libc::ENOENT)));
        let second = parked.park_lookup(kernel.reply(5), 1, "name", 0, soon);
        assert!(first.is_some() && second.is_some() && first != second);
        assert_eq!(kernel.answer(), (5, libc::ENOENT));
        parked.end();
    });
    assert_eq!(kernel.connection.counters.expired.load(Relaxed), 7);
    assert!(parked.lock().tickets.is_empty() && parked.lock().names.is_empty());
}

#[test]
fn who_is_told_to_wait_on_does_and_lookups_are_not() {
    let (kernel, parked) = (Kernel::new(), Parked::default());
    parked.park(kernel.read(1), vec![chunk(1)], LONG, |_| Known::Missing);
    parked.park_lookup(kernel.reply(2), 1, "name", 0, LONG);
    let deadlines = |parked: &Parked| {
        let state = parked.lock();
        let of = |unique: u64| state.waiting.get(&unique).map(|waiting| waiting.deadline);
        assert!(state.waiting.iter().all(|(unique, waiting)| state.deadlines.contains(&(waiting.deadline, *unique))));
        assert_eq!(state.deadlines.len(), state.waiting.len());
        (of(1), of(2))
    };
    let before = deadlines(&parked);
    parked.extend(LONG * 2);
    let after = deadlines(&parked);
    assert!(after.0 > before.0);
    assert_eq!(after.1, before.1);
    parked.close();
    work(&parked);
}

#[test]
fn an_interrupt_ends_only_its_own_request() {
    let (mut kernel, parked) = (Kernel::new(), Parked::default());
    parked.park(kernel.read(1), vec![chunk(1)], LONG, |_| Known::Missing);
    parked.park(kernel.read(2), vec![chunk(1)], LONG, |_| Known::Missing);
    assert!(parked.interrupt(1));
    assert!(!parked.interrupt(1));
    assert_eq!(kernel.answer(), (1, libc::EINTR));
    parked.settle(chunk(1), 0);
    assert_eq!(work(&parked), [(2, 0)]);
}

#[test]
fn a_device_that_goes_fails_its_own_waiters() {
    let (kernel, parked) = (Kernel::new(), Parked::default());
    parked.park(kernel.read(1), vec![chunk(1)], LONG, |_| Known::Missing);
    parked.park(kernel.read(2), vec![Key::Chunk { device: 2, chunk: 1 }], LONG, |_| Known::Missing);
    parked.fail_device(1);
    assert_eq!(work(&parked), [(1, libc::EIO)]);
    parked.close();
    assert_eq!(work(&parked), [(2, libc::EIO)]);
}

#[test]
fn what_will_never_be_there_is_not_waited_for() {
    let (mut kernel, parked) = (Kernel::new(), Parked::default());
    let known = |key: &Key| if *key == chunk(2) { Known::Gone } else { Known::Missing };
    assert_eq!(parked.park(kernel.read(1), vec![chunk(1), chunk(2)], LONG, known), []);
    assert_eq!(kernel.answer(), (1, libc::EIO));
    assert!(parked.lock().waiting.is_empty() && parked.lock().keys.is_empty());
}

#[test]
fn nothing_waits_in_a_session_that_is_closed_or_full() {
    let (mut kernel, parked) = (Kernel::new(), Parked::default());
    for unique in 0..READS_MAX as u64 {
        parked.park(kernel.read(unique), vec![chunk(unique as u32)], LONG, |_| Known::Missing);
    }
    assert_eq!(parked.park(kernel.read(9_999), vec![chunk(0)], LONG, |_| Known::Missing), []);
    assert_eq!(kernel.answer(), (9_999, libc::EIO));
    parked.close();
    assert_eq!(work(&parked).len(), READS_MAX);
    assert_eq!(parked.park_lookup(kernel.reply(10_000), 1, "name", 0, LONG), None);
    assert_eq!(kernel.answer(), (10_000, libc::EIO));
}

#[test]
fn lookups_of_a_silent_host_stop_neither_reads_nor_root_nor_another_user() {
    let (mut kernel, parked) = (Kernel::new(), Parked::default());
    let look = |kernel: &Kernel, unique: u64, user: u32| {
        parked.park_lookup(kernel.reply(unique), 1, &format!("name {unique}"), user, LONG)
    };
    for unique in 0..LOOKUPS_MAX_OF_USER as u64 {
        assert!(look(&kernel, unique, 1000).is_some());
    }
    assert_eq!(look(&kernel, 9_000, 1000), None);
    assert_eq!(kernel.answer(), (9_000, libc::ENOENT));
    assert_eq!(kernel.connection.counters.refused.load(Relaxed), 1);
    let (other, root) = (look(&kernel, 9_001, 1001), look(&kernel, 9_002, ROOT));
    assert!(other.is_some() && root.is_some());
    for unique in 10_000..10_000 + LOOKUPS_MAX as u64 {
        look(&kernel, unique, ROOT);
    }
    assert_eq!(parked.park(kernel.read(9_003), vec![chunk(0)], LONG, |_| Known::Missing), [chunk(0)]);
    // who is answered makes room
    parked.settle(Key::Lookup(0), libc::ENOENT);
    parked.settle(Key::Lookup(1), libc::ENOENT);
    assert!(look(&kernel, 9_004, 1000).is_some());
    parked.close();
    work(&parked);
}

#[test]
fn what_is_interrupted_before_it_waits_does_not_wait() {
    let mut kernel = Kernel::new();
    let parked = Parked::default();
    assert!(!parked.interrupt(1));
    assert!(!parked.interrupt(2));
    // no one is asked for what nobody waits for
    assert!(parked.park(kernel.read(1), vec![chunk(0)], LONG, |_| Known::Missing).is_empty());
    assert_eq!(kernel.answer(), (1, libc::EINTR));
    assert_eq!(parked.park_lookup(kernel.reply(2), 1, "name", 0, LONG), None);
    assert_eq!(kernel.answer(), (2, libc::EINTR));
    assert_eq!(parked.park(kernel.read(3), vec![chunk(0)], LONG, |_| Known::Missing), [chunk(0)]);
    parked.settle(chunk(0), 0);
    assert_eq!(work(&parked), [(3, 0)]);
    // those that were answered without waiting are forgotten in time
    for unique in 10..10 + 2 * EARLY_MAX as u64 {
        parked.interrupt(unique);
    }
    assert_eq!(parked.lock().early.len(), EARLY_MAX);
}
