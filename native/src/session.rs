//! A FUSE session: what it serves, and the threads that do.
//!
//!   readers    read requests from one descriptor and answer them; what must wait is parked
//!   workers    answer parked requests once they need not wait any more
//!   clock      ends parked requests at their deadlines
//!   notifier   tells the kernel what to forget; it may block on a directory's lock, so it is nobody else's job
//!
//! All end when the kernel says that the connection is gone. Locks: those of `trees`, `devices` and the control tree are held for a
//! look into a map, never across a system call and never together with another.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use crate::control::Control;
use crate::device::Device;
use crate::inode::Tree;
use crate::parked::{Key, Parked, Work};
use crate::reply::{Connection, Reply};
use crate::sys;
use crate::upcall::Upcalls;
use crate::wire::{self, MAX_READ, REQUEST_BYTES};

/// Threads that answer parked requests: few, because each answer is one read of a local file.
const WORKERS: usize = 2;
/// Notices under way. One that does not fit is dropped: TTLs of 0 make every notice a courtesy.
const NOTICES_MAX: usize = 1 << 16;

pub struct Timeouts {
    pub miss: Duration,
    pub lookup: Duration,
    pub late: Duration,
}

pub struct Settings {
    /// /dev/fuse, mounted.
    pub device: File,
    pub root: Option<u32>,
    pub user_marks: bool,
    pub threads: usize,
    pub resend: bool,
    pub resumed: bool,
}

enum Notice {
    Entry { parent: u64, name: String },
    Inode(u64),
    End,
}

/// What a serving thread works with, made once.
pub struct Scratch {
    pub answer: Vec<u8>,
    pub keys: Vec<Key>,
}

impl Scratch {
    fn new() -> Self {
        Self { answer: vec![0; MAX_READ], keys: Vec::new() }
    }
}

pub struct Core {
    pub connection: Arc<Connection>,
    /// The slot that node 1 is the root of; otherwise node 1 is the control tree.
    pub root: Option<u32>,
    /// Overlayfs reads its marks below `user.` here, not `trusted.`, as images have them.
    pub user_marks: bool,
    pub control: Control,
    pub parked: Parked,
    pub upcalls: Upcalls,
    pub timeouts: Timeouts,
    trees: RwLock<HashMap<u32, Arc<Tree>>>,
    devices: RwLock<HashMap<u32, Arc<Device>>>,
    last_device: Mutex<u32>,
    notices: SyncSender<Notice>,
    readers: AtomicUsize,
    /// Whether INIT is to say that a successor may go on.
    pub resend: bool,
    /// Whether it goes on with the connection of a process that is gone.
    resumed: bool,
    begun: AtomicBool,
}

impl Core {
    /// Starts serving; a connection of a process that is gone is served from `begin` on.
    pub fn start(settings: Settings, timeouts: Timeouts, upcalls: Upcalls) -> io::Result<Arc<Self>> {
        let Settings { device, root, user_marks, threads, resend, resumed } = settings;
        let (notices, received) = sync_channel(NOTICES_MAX);
        let core = Arc::new(Self {
            connection: Arc::new(Connection::new(device)),
            root,
            user_marks,
            control: Control::new(),
            parked: Parked::default(),
            upcalls,
            timeouts,
            trees: RwLock::default(),
            devices: RwLock::default(),
            last_device: Mutex::new(0),
            notices,
            readers: AtomicUsize::new(threads),
            resend,
            resumed,
            begun: AtomicBool::new(false),
        });
        spawn("fuse-clock", &core, |core| core.parked.keep_deadlines())?;
        spawn("fuse-notify", &core, move |core| core.notify(&received))?;
        for _ in 0..WORKERS {
            spawn("fuse-work", &core, Core::work)?;
        }
        if !resumed {
            core.begin()?;
        }
        Ok(core)
    }

    /// Begins to read requests: also those that a process which is gone has read and not answered. Once; later calls do nothing.
    pub fn begin(self: &Arc<Self>) -> io::Result<()> {
        if self.begun.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        for _ in 0..self.readers.load(Ordering::Acquire) {
            spawn("fuse-read", self, Core::receive)?;
        }
        if self.resumed { self.connection.notify(wire::NOTIFY_RESEND, &[]) } else { Ok(()) }
    }

    pub fn tree(&self, slot: u32) -> Option<Arc<Tree>> {
        self.trees.read().unwrap_or_else(PoisonError::into_inner).get(&slot).cloned()
    }

    pub fn device(&self, number: u32) -> Option<Arc<Device>> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    pub fn add_tree(&self, tree: Tree) -> Result<(), String> {
        let mut trees = self.trees.write().unwrap_or_else(PoisonError::into_inner);
        if trees.contains_key(&tree.slot) {
            return Err(format!("slot {}: is in use", tree.slot));
        }
        trees.insert(tree.slot, Arc::new(tree));
        Ok(())
    }

    pub fn remove_tree(&self, slot: u32) {
        self.trees.write().unwrap_or_else(PoisonError::into_inner).remove(&slot);
    }

    /// Numbers are not used again.
    pub fn add_device(&self, make: impl FnOnce(u32) -> Result<Device, String>) -> Result<u32, String> {
        let mut last = self.last_device.lock().unwrap_or_else(PoisonError::into_inner);
        let number = last.checked_add(1).ok_or("no device numbers are left")?;
        let device = make(number)?;
        *last = number;
        self.devices.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(device));
        Ok(number)
    }

    pub fn remove_device(&self, number: u32) {
        self.devices.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
        self.parked.fail_device(number);
    }

    /// Has the kernel let go of a name of the control tree, and of what it knows below it and nobody uses.
    pub fn invalidate(&self, parent: u64, name: &str) {
        let _ = self.notices.try_send(Notice::Entry { parent, name: name.to_owned() });
    }

    /// Removes a name from the control tree and has the kernel told.
    pub fn remove(&self, parent: u64, name: &str) -> Result<(), String> {
        let gone = self.control.remove(parent, name)?;
        let _ = self.notices.try_send(Notice::Entry { parent, name: name.to_owned() });
        for node in gone {
            let _ = self.notices.try_send(Notice::Inode(node));
            self.parked.settle(Key::Late(node), libc::EIO);
        }
        Ok(())
    }

    fn receive(&self) {
        let mut request = vec![0; REQUEST_BYTES];
        let mut scratch = Scratch::new();
        let reason = loop {
            match self.connection.receive(&mut request) {
                Ok(length) => {
                    let request = &request[..length];
                    // a request that panics drops its reply, which is EIO
                    let _ = catch_unwind(AssertUnwindSafe(|| self.dispatch(request, &mut scratch)));
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN | libc::ENOENT) => {}
                    Some(libc::ENODEV) => break "unmounted".to_owned(),
                    Some(libc::ECONNABORTED) => break "aborted".to_owned(),
                    _ => break format!("reading /dev/fuse: {error}"),
                },
            }
        };
        if self.readers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.parked.end();
            // a full queue ends too: its notices fail at once on a dead connection
            let _ = self.notices.send(Notice::End);
            self.upcalls.ended(reason);
        }
    }

    fn work(&self) {
        let mut scratch = Scratch::new();
        while let Some(work) = self.parked.next() {
            let _ = catch_unwind(AssertUnwindSafe(|| match work {
                Work::Resume(request) => self.resume(request, &mut scratch),
                Work::Fail(request, errno) => request.fail(errno),
            }));
        }
    }

    fn notify(&self, notices: &Receiver<Notice>) {
        for notice in notices {
            // refused when the kernel knows no such node, or is gone: then there is nothing to forget
            let _ = match notice {
                Notice::Entry { parent, name } => {
                    self.connection.notify(wire::NOTIFY_INVAL_ENTRY, &wire::inval_entry(parent, name.as_bytes()))
                }
                Notice::Inode(node) => self.connection.notify(wire::NOTIFY_INVAL_INODE, &wire::inval_inode(node)),
                Notice::End => return,
            };
        }
    }

    fn dispatch(&self, bytes: &[u8], scratch: &mut Scratch) {
        if let Some(request) = wire::Request::parse(bytes) {
            let reply = Reply::new(&self.connection, request.unique, request.opcode == wire::op::READ);
            self.serve(&request, reply, scratch);
        }
    }
}

fn spawn(name: &str, core: &Arc<Core>, run: impl FnOnce(&Core) + Send + 'static) -> io::Result<()> {
    let core = Arc::clone(core);
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(256 << 10)
        .spawn(move || {
            sys::block_signals();
            run(&core);
        })
        .map(drop)
}
