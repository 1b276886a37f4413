//! `lazylayer-auth-helper`, named in registries.conf: additional-layer-store-auth-helper = "/usr/bin/lazylayer-auth-helper"
//!
//! Engines run it without arguments between an image's manifest and its layers, with `{"REFERENCE": {"username", "password",
//! "identityToken"}}` on its standard input, and wait for its end. It has the agent list the image's layers. It prints nothing and its
//! exit code is 0, whatever happens: without it, the engine pulls as it always does, and what the agent did is in the agent's log.
//!
//! ```text
//! engine ──references, credentials──▶ helper ──a line each──▶ agent
//!                                       │                       ▲
//!                                       └─starts─▶ looker ──ROOT/agent.sock says where
//! ```
#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used)]

mod agent;
mod json;
mod read;
mod requests;
mod root;

use std::env;
use std::ffi::OsStr;
use std::io;
use std::panic;
use std::process::{self, ExitCode};
use std::time::{Duration, Instant};

/// The agent answers after 10 s at the latest; an engine is not kept longer than this.
const DEADLINE: Duration = Duration::from_secs(11);
/// Credentials of one image. With what is put around them they stay below the 64 KiB that an agent reads of a request.
const INPUT_MAX_BYTES: usize = 60_000;

fn main() -> ExitCode {
    // engines show what a helper says, and warn of one that fails
    panic::set_hook(Box::new(|_| process::exit(0)));
    let mut arguments = env::args_os().skip(1);
    // nobody is told why: see above
    let _ = match (arguments.next().as_deref().and_then(OsStr::to_str), arguments.next()) {
        (Some(root::LOOK), Some(link)) => root::print_target(link.as_ref()),
        _ => help(Instant::now() + DEADLINE),
    };
    ExitCode::SUCCESS
}

fn help(deadline: Instant) -> io::Result<()> {
    let input = read::to_end(io::stdin(), INPUT_MAX_BYTES, deadline)?;
    let requests = requests::requests(&input).ok_or(io::ErrorKind::InvalidData)?;
    agent::ask(&root::find_socket(deadline)?, &requests, deadline);
    Ok(())
}
