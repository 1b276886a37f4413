//! Whose lookup it is. FUSE names the thread that asks; its user it tells only to servers that do without idmapped mounts.
#![forbid(unsafe_code)]

use std::fs;

pub const ROOT: u32 = 0;
/// Those of whom nothing is known share one number, which is no user's (uid_t's -1).
pub const UNKNOWN: u32 = u32::MAX;

/// The thread waits for us meanwhile, so it is the one that asked. It is in none of our PID namespaces, or was killed: unknown.
pub fn user_of(pid: u32) -> u32 {
    if pid == 0 {
        return UNKNOWN;
    }
    // what a thread does, or waits for, does not hold this file up
    fs::read(format!("/proc/{pid}/status")).ok().and_then(|status| user_in(&String::from_utf8_lossy(&status))).unwrap_or(UNKNOWN)
}

/// Of the four users of a thread (real, effective, saved, of files), the first that is not root: a user's set-user-ID program, and a
/// server of root's that looks for a user, are that user's.
fn user_in(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:\t"))?;
    let users = line.split('\t').map(str::parse).collect::<Result<Vec<u32>, _>>().ok().filter(|users| users.len() == 4)?;
    Some(users.into_iter().find(|&user| user != ROOT).unwrap_or(ROOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_of_the_first_of_its_users_that_is_not_root() {
        let status = |users: &str| format!("Name:\tls\nUmask:\t0022\nState:\tS (sleeping)\nUid:\t{users}\nGid:\t9\t9\t9\t9\n");
        let check = |text: &str, user: Option<u32>| assert_eq!(user_in(text), user, "{text}");
        check(&status("0\t0\t0\t0"), Some(ROOT));
        check(&status("1000\t1000\t1000\t1000"), Some(1000));
        check(&status("1000\t0\t0\t0"), Some(1000)); // a set-user-ID program
        check(&status("0\t0\t0\t33"), Some(33)); // a server of root that looks for a user
        check(&status("0\t33\t0\t33"), Some(33)); // a program that drops root for a while
        check(&format!("Name:\tUid:\t0\n{}", status("7\t7\t7\t7")), Some(7));
        check("", None);
        check("Uid:\t0\n", None);
        check("Uid:\t0\t0\t0\tx\n", None);
    }

    #[test]
    fn this_thread_is_of_whom_it_is_and_one_that_is_not_seen_of_nobody() {
        assert_eq!(user_of(std::process::id()), rustix::process::geteuid().as_raw());
        assert_eq!(user_of(0), UNKNOWN);
        assert_eq!(user_of(u32::MAX), UNKNOWN);
    }
}
