//! The store's root, in which `agent.sock` is a symlink to the agent's socket.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::getuid;

use crate::read;

/// The argument that makes this program the looker; what it looks at follows.
pub const LOOK: &str = "look";
/// It is a symlink.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// PATH_MAX: no link has more.
const TARGET_MAX_BYTES: usize = 4096;

/// Where the store at LAZYLAYER_ROOT, or this user's own, says that its agent listens.
///
/// It is looked at by a process of its own, this program once more: where the agent hangs, so does who looks, and nothing ends a process
/// with such a thread. A looker that does not answer is left behind; it ends when the agent goes on, or is gone.
pub fn find_socket(deadline: Instant) -> io::Result<PathBuf> {
    let root = env::var_os("LAZYLAYER_ROOT").filter(|root| !root.is_empty()).map(PathBuf::from);
    let root = root.or_else(default_root).ok_or(io::ErrorKind::NotFound)?;
    // by its link in /proc: it may have been replaced or moved meanwhile
    let mut command = Command::new("/proc/self/exe");
    command.arg(LOOK).arg(root.join("agent.sock")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut looker = command.spawn()?;
    let target = looker.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    match read::to_end(target, TARGET_MAX_BYTES, deadline.min(Instant::now() + LOOK_TIMEOUT)) {
        Ok(target) => {
            looker.wait()?; // it has looked
            Ok(root.join(OsString::from_vec(target)))
        }
        Err(error) => {
            looker.kill()?;
            Err(error)
        }
    }
}

/// What the looker does.
pub fn print_target(link: &Path) -> io::Result<()> {
    io::stdout().write_all(fs::read_link(link)?.as_os_str().as_bytes())
}

/// As the agent has it (src/agent/agent-places.ts).
fn default_root() -> Option<PathBuf> {
    let map = fs::read_to_string("/proc/self/uid_map").ok()?;
    if user_outside(getuid().as_raw(), &map) == 0 {
        return Some(PathBuf::from("/var/lib/lazylayer/store"));
    }
    let share = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|share| share.is_absolute());
    Some(share.or_else(|| Some(env::home_dir()?.join(".local/share")))?.join("lazylayer/store"))
}

/// A plain user's engine runs as root of a user namespace, whose map has lines of `first inside, first outside, how many`
/// (user_namespaces(7)).
fn user_outside(uid: u32, map: &str) -> u32 {
    for line in map.lines() {
        let mut numbers = line.split_ascii_whitespace().map_while(|number| number.parse::<u32>().ok());
        let (Some(inside), Some(outside), Some(count)) = (numbers.next(), numbers.next(), numbers.next()) else { continue };
        if let Some(offset) = uid.checked_sub(inside).filter(|&offset| offset < count) {
            return outside.saturating_add(offset);
        }
    }
    uid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespaces_root_is_the_user_outside_of_it() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(user_outside(0, map), 1000);
        assert_eq!(user_outside(1, map), 100_000);
        assert_eq!(user_outside(65_536, map), 165_535);
        assert_eq!(user_outside(0, "         0          0 4294967295\n"), 0);
        assert_eq!(user_outside(1000, "         0          0 4294967295\n"), 1000);
    }

    #[test]
    fn who_is_in_no_map_is_itself() {
        for map in ["", "\n", "0 1000\n", "x y z\n", "0 1000 0\n", "7 0 4294967296\n", "8 0 1\n", "-1 0 9\n"] {
            assert_eq!(user_outside(7, map), 7, "{map}");
        }
    }
}
