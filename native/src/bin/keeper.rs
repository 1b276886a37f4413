//! `lazylayer-keeper COMMAND ARGS…` runs an agent, holds its connection to the kernel when it dies, and starts the next one.
//!
//! The agent inherits one end of a socket (SOCK_SEQPACKET), whose number is in LAZYLAYER_KEEPER. Its messages are records, each with a NUL
//! after it (paths may hold anything else):
//!
//!   mount PATH     before it mounts on PATH, which is absolute and real, as the kernel lists it
//!   unmount PATH   after it has unmounted
//!   hold           with descriptors: /dev/fuse, mounted, then whatever a successor needs; in place of those that were held before
//!   ready          it serves; from now on it says
//!   beat           more often than every BEAT
//!   patience MS    how long readers may wait for a successor
//!   refuse         it does not go on with what it was handed: that is detached, and its readers get errors
//!   leave          it ends, and leaves what is held to the next keeper, where systemd holds it meanwhile (LAZYLAYER_STORE)
//!   end            it ends, and so does what is held
//!   upgrade        a successor is to be started beside it, of what COMMAND is by now
//!   prepared       it is that successor, and could go on
//!
//! While something is held, an agent that ends without `end`, or is silent, which is its end too, gets a successor: COMMAND again, with the
//! descriptors it inherits in LAZYLAYER_HELD ("7,8"). Meanwhile requests wait in the kernel. When none is ready for as long as patience
//! goes, they are answered with EIO. The keeper says `go` to one that is prepared when the agent before it is gone, for which that is told
//! `yield`; `kept` when there will be no successor; `refused` when what was refused is detached.
//!
//! When nothing is held, what is still listed and still a FUSE or EROFS mount is detached when the agent is gone, last first, and the keeper
//! exits as the agent did (128 + signal).
//!
//! SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on, but not those that the kernel made (Ctrl-C, a hangup): a terminal sends them to
//! the whole process group, so the agent, which stays in it, has them already.
//!
//! Should the keeper be killed, the agent goes on: its writes fail with EPIPE from then on.
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]

#[path = "../helper.rs"]
mod helper;
#[path = "keeper/list.rs"]
mod list;
#[path = "keeper/refuser.rs"]
mod refuser;
#[path = "keeper/runner.rs"]
mod runner;
#[path = "keeper/store.rs"]
mod store;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use list::List;
use runner::{Agent, Runner, code};
use store::Store;

/// An agent that is silent for longer is stopped, or hangs.
const BEAT: Duration = Duration::from_secs(4);
/// A process that is killed is gone sooner, unless threads of it wait for what it would have had to answer itself.
const STUCK: Duration = Duration::from_millis(500);
/// Later than it should, the keeper itself was held up: by a machine that was paused, or has too much to do.
const LATE: Duration = Duration::from_secs(1);
/// One that dies sooner after it was ready is no better than one that never was.
const STEADY: Duration = Duration::from_millis(500);
/// As many in a row are not tried again.
const CRASHES_MAX: u32 = 20;
/// How long readers wait for a successor, unless the agent says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between one that was not steady and the next.
const AGAIN: Duration = Duration::from_millis(250);
/// How long an agent may take to write down what it would lose, and a successor beside it to be prepared.
const YIELD: Duration = Duration::from_secs(4);
const PREPARE: Duration = Duration::from_secs(25);

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if arguments.is_empty() {
        eprintln!("usage: lazylayer-keeper COMMAND ARGS…");
        return ExitCode::from(2);
    }
    match Keeper::keep(&arguments) {
        Ok(status) => ExitCode::from(code(status)),
        Err(error) => {
            say(&format!("{}: {error}", arguments[0].to_string_lossy()));
            ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
        }
    }
}

/// Whoever reads it may have left, which ends nothing.
fn say(what: &str) {
    let _ = writeln!(io::stderr(), "lazylayer-keeper: {what}");
}

struct Keeper {
    runner: Runner,
    list: List,
    store: Store,
    /// /dev/fuse and what goes with it; empty: a dead agent's mounts are detached.
    held: Vec<OwnedFd>,
    patience: Duration,
    /// Agents that died by themselves before they were steady, in a row.
    crashes: u32,
    /// Until then readers wait for an agent that is ready.
    until: Option<Instant>,
    agent: Option<Agent>,
    /// Why there is none.
    last: Option<ExitStatus>,
    /// When the next is started.
    start_at: Option<Instant>,
    /// Started beside the agent.
    beside: Option<Agent>,
    /// A signal asks for the end.
    ending: bool,
    /// And the agent leaves what is held to whoever comes next.
    leaving: bool,
}

impl Keeper {
    fn keep(arguments: &[OsString]) -> io::Result<ExitStatus> {
        let store = Store::of_environment();
        let runner = Runner::new(arguments, store.is_there())?;
        // by the keeper before this one, which is gone
        let held = store::handed_over();
        let agent = runner.start(&held, false)?;
        let until = (!held.is_empty()).then(|| Instant::now() + PATIENCE);
        let mut keeper = Self {
            runner,
            list: List::default(),
            store,
            held,
            patience: PATIENCE,
            crashes: 0,
            until,
            agent: Some(agent),
            last: None,
            start_at: None,
            beside: None,
            ending: false,
            leaving: false,
        };
        loop {
            keeper.wait()?;
            if let Some(status) = keeper.turn()? {
                return Ok(status);
            }
        }
    }

    /// Until there is something to do.
    fn wait(&mut self) -> io::Result<()> {
        let deadlines = [
            self.agent.as_ref().and_then(|agent| agent.silent_at(BEAT)).filter(|_| !self.held.is_empty()),
            self.agent.as_ref().and_then(|agent| agent.kill_at),
            self.agent.as_ref().and_then(|agent| agent.stuck_at(STUCK)),
            self.beside.as_ref().and_then(|beside| beside.kill_at),
            self.start_at,
            self.until.filter(|_| !self.is_served()),
            self.store.due(),
        ];
        let first = deadlines.into_iter().flatten().min();
        self.runner.wait(&[self.agent.as_ref(), self.beside.as_ref()], first)?;
        // where this program had no turn, its agent had none either
        if first.is_some_and(|first| first.elapsed() > LATE)
            && let Some(agent) = &mut self.agent
        {
            agent.beat();
        }
        Ok(())
    }

    fn is_served(&self) -> bool {
        self.agent.as_ref().is_some_and(Agent::is_ready)
    }

    /// The status to exit with, when it is time to.
    fn turn(&mut self) -> io::Result<Option<ExitStatus>> {
        self.store.live();
        self.signals()?;
        self.hear();
        self.kill_late();
        if let Some(status) = self.beside.as_mut().map_or(Ok(None), Agent::ended)? {
            self.beside = None;
            self.not_upgraded(&format!("its successor ended ({status})"));
        }
        if let Some(status) = self.agent.as_mut().map_or(Ok(None), Agent::ended)? {
            self.hear(); // its last words
            if self.leaving && self.ending {
                return Ok(Some(ExitStatus::default()));
            }
            if self.held.is_empty() || self.ending {
                self.finish(status);
                return Ok(Some(status));
            }
            self.succeed(status);
        }
        let now = Instant::now();
        if !self.is_served() && self.until.is_some_and(|until| until <= now) {
            return Ok(Some(self.give_up()));
        }
        if self.start_at.is_some_and(|at| at <= now) {
            self.start_at = None;
            match self.runner.start(&self.held, false) {
                Ok(agent) => self.agent = Some(agent),
                Err(error) => {
                    say(&format!("a successor cannot be started: {error}"));
                    self.start_at = Some(now + AGAIN);
                }
            }
        }
        Ok(None)
    }

    fn signals(&mut self) -> io::Result<()> {
        while let Some((signal, is_kernels)) = self.runner.signal()? {
            if signal == libc::SIGCHLD as u32 {
                continue;
            }
            self.ending = true;
            self.store.say("STOPPING=1");
            match &self.agent {
                // not those that the kernel made: the agent got its own
                Some(agent) if !is_kernels => agent.send(signal)?,
                Some(_) => {}
                // between two agents there is nobody who could end it in order
                None => self.until = Some(Instant::now()),
            }
        }
        Ok(())
    }

    fn hear(&mut self) {
        while let Some((record, descriptors)) = self.agent.as_mut().and_then(Agent::next) {
            self.take(&record, descriptors);
        }
        while let Some((record, _)) = self.beside.as_mut().and_then(Agent::next) {
            if record == b"prepared"
                && let (Some(agent), Some(beside)) = (&mut self.agent, &mut self.beside)
            {
                beside.kill_at = None;
                agent.tell("yield");
                agent.kill_at = Some(Instant::now() + YIELD);
            }
        }
    }

    fn take(&mut self, record: &[u8], descriptors: Vec<OwnedFd>) {
        let Some(agent) = &mut self.agent else { return };
        match record {
            b"hold" if !descriptors.is_empty() => {
                self.held = descriptors;
                if let Err(error) = self.store.keep(&self.held) {
                    say(&format!("systemd does not take the connection: {error}"));
                }
            }
            b"leave" => self.leaving = self.store.is_there(),
            b"ready" => {
                agent.ready();
                self.until = None;
                self.store.say("READY=1");
            }
            b"beat" => agent.beat(),
            b"end" => self.drop_held(),
            b"refuse" => {
                say("what its predecessor served is detached: the agent does not go on with it");
                refuser::refuse(&self.held);
                self.drop_held();
                self.until = None;
                self.list.detach();
                if let Some(agent) = &mut self.agent {
                    agent.tell("refused");
                }
            }
            b"upgrade" => self.upgrade(),
            _ => match record.strip_prefix(b"patience ").map(|ms| std::str::from_utf8(ms).map(str::parse)) {
                Some(Ok(Ok(ms))) => self.patience = Duration::from_millis(ms),
                _ => self.list.take(record),
            },
        }
    }

    fn drop_held(&mut self) {
        self.held.clear();
        let _ = self.store.forget(); // systemd that is gone holds nothing
    }

    fn upgrade(&mut self) {
        if self.held.is_empty() || self.beside.is_some() {
            return self.not_upgraded("nothing is held, or a successor is started already");
        }
        match self.runner.start(&self.held, true) {
            Ok(mut beside) => {
                beside.kill_at = Some(Instant::now() + PREPARE);
                self.beside = Some(beside);
            }
            Err(error) => self.not_upgraded(&format!("a successor cannot be started: {error}")),
        }
    }

    fn not_upgraded(&mut self, why: &str) {
        say(&format!("the agent goes on as it is: {why}"));
        if let Some(agent) = &mut self.agent {
            agent.kill_at = None;
            agent.tell("kept");
        }
    }

    /// Kills those who hang, or take too long. They are reaped as any other: only then has their successor all requests.
    fn kill_late(&mut self) {
        let now = Instant::now();
        if let Some(agent) = &mut self.agent {
            if !self.held.is_empty() && agent.silent_at(BEAT).is_some_and(|at| at <= now) {
                say(&format!("the agent (process {}) hangs: nothing was heard of it for {BEAT:?}; it is killed", agent.id()));
                agent.kill();
            } else if agent.kill_at.is_some_and(|at| at <= now) {
                agent.kill();
            } else if agent.stuck_at(STUCK).is_some_and(|at| at <= now) {
                refuser::release(&self.held, agent.id());
                agent.kill(); // and look again
            }
        }
        if let Some(beside) = &mut self.beside
            && beside.kill_at.is_some_and(|at| at <= now)
        {
            beside.kill();
        }
    }

    /// The agent is gone, and somebody is to go on.
    fn succeed(&mut self, status: ExitStatus) {
        let now = Instant::now();
        let agent = self.agent.take();
        let was_steady = agent.as_ref().is_some_and(|agent| agent.was_steady(STEADY));
        let was_killed = status.signal() == Some(libc::SIGKILL);
        // what is asked of it may be what it dies of
        self.crashes = match &agent {
            Some(agent) if agent.is_ready() && !was_steady && !was_killed => self.crashes + 1,
            _ => 0,
        };
        let until = *self.until.get_or_insert(now + self.patience);
        self.until = Some(if self.crashes < CRASHES_MAX { until } else { now });
        self.last = Some(status);
        if let Some(mut beside) = self.beside.take() {
            say("the agent has left; the one beside it goes on");
            beside.tell("go");
            self.agent = Some(beside);
            return;
        }
        say(&format!("the agent ended ({status}); a successor goes on"));
        self.start_at = Some(if was_steady || was_killed { now } else { now + AGAIN });
    }

    /// Nobody goes on.
    fn give_up(&mut self) -> ExitStatus {
        if let Some(agent) = &mut self.agent {
            agent.kill();
            self.last = agent.reap().ok().or(self.last);
        }
        if !self.ending {
            let why = if self.crashes < CRASHES_MAX { "none was ready in time" } else { "too many died at once" };
            say(&format!("nobody goes on with the mount, for of its successors {why}: what waits gets errors"));
        }
        self.list.detach();
        refuser::refuse(&self.held);
        self.drop_held();
        self.last.unwrap_or_default()
    }

    /// The agent has ended, and with it what it served.
    fn finish(&mut self, status: ExitStatus) {
        if let Some(mut beside) = self.beside.take() {
            beside.kill();
            let _ = beside.reap(); // it is gone either way
        }
        if let Some(signal) = status.signal() {
            // it could not say so itself
            say(&format!("the agent was ended by signal {signal}{}", self.list.detached()));
        }
        self.list.detach();
        self.drop_held();
    }
}
