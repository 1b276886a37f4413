//! Asking the agent, and waiting until it has dealt with what it was asked.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::read;

/// The agent answers with one line, of which nothing is used; who says more than this is no agent.
const ANSWER_MAX_BYTES: usize = 1 << 20;

/// Sends each request on a connection of its own, and returns when all of them are answered, or their agent is gone or has no place.
pub fn ask(socket: &Path, requests: &[Vec<u8>], deadline: Instant) {
    let sent: Vec<_> = requests.iter().map(|request| send(socket, request, deadline)).collect();
    for connection in sent.into_iter().flatten() {
        // whatever becomes of it is in the agent's log
        let _ = read::to_end(connection, ANSWER_MAX_BYTES, deadline);
    }
}

fn send(socket: &Path, request: &[u8], deadline: Instant) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connection = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // does not wait while as many wait already as may: EAGAIN
    connect(&connection, &SocketAddrUnix::new(socket)?)?;
    let mut connection = UnixStream::from(connection);
    connection.set_nonblocking(false)?;
    connection.set_write_timeout(Some(deadline.saturating_duration_since(Instant::now())))?; // refuses 0
    connection.write_all(request)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::time::Duration;
    use std::{env, fs, process, thread};

    const LATER: Duration = Duration::from_secs(60);

    /// A path for a socket that this test alone has, and which is gone afterwards.
    struct Place(PathBuf);

    impl Place {
        fn new(test: &str) -> Self {
            Self(env::temp_dir().join(format!("lazy-helper-{}-{test}", process::id())))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0); // some tests make none
        }
    }

    fn lines(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|each| format!("{each}\n").into_bytes()).collect()
    }

    #[test]
    fn all_is_sent_before_anything_is_waited_for() {
        let place = Place::new("all");
        let listener = UnixListener::bind(&place.0).unwrap();
        let agent = thread::spawn(move || {
            let connections: Vec<_> = (0..3).map(|_| listener.accept().unwrap().0).collect();
            connections.iter().map(|each| BufReader::new(each).lines().next().unwrap().unwrap()).collect::<Vec<_>>()
        });
        ask(&place.0, &lines(3), Instant::now() + LATER);
        assert_eq!(agent.join().unwrap(), ["0", "1", "2"]);
    }

    #[test]
    fn it_waits_for_the_answer_even_one_in_pieces_and_without_a_line() {
        let place = Place::new("pieces");
        let listener = UnixListener::bind(&place.0).unwrap();
        let agent = thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            for _ in 0..100 {
                connection.write_all(&[0xff; 1000]).unwrap(); // EPIPE if it had gone
            }
        });
        ask(&place.0, &lines(1), Instant::now() + LATER);
        agent.join().unwrap();
    }

    #[test]
    fn who_talks_without_end_is_hung_up_on() {
        let place = Place::new("endless");
        let listener = UnixListener::bind(&place.0).unwrap();
        let agent = thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            while connection.write_all(&[b'x'; 4096]).is_ok() {}
        });
        ask(&place.0, &lines(1), Instant::now() + LATER);
        agent.join().unwrap();
    }

    #[test]
    fn who_says_nothing_is_left_at_the_deadline() {
        let place = Place::new("silent");
        let listener = UnixListener::bind(&place.0).unwrap();
        ask(&place.0, &lines(2), Instant::now() + Duration::from_millis(1));
        drop(listener);
    }

    #[test]
    fn nobody_there_is_nothing_to_wait_for() {
        let place = Place::new("nobody");
        let refusal = |path: &Path| send(path, b"x\n", Instant::now() + LATER).unwrap_err().kind();
        assert_eq!(refusal(&place.0), io::ErrorKind::NotFound);
        drop(UnixListener::bind(&place.0).unwrap());
        assert_eq!(refusal(&place.0), io::ErrorKind::ConnectionRefused);
        send(Path::new(&"x".repeat(200)), b"x\n", Instant::now() + LATER).unwrap_err();
        send(Path::new(""), b"x\n", Instant::now() + LATER).unwrap_err();
        send(Path::new("a\0b"), b"x\n", Instant::now() + LATER).unwrap_err();
    }

    #[test]
    fn an_agent_with_as_many_waiting_as_may_is_not_waited_for() {
        let place = Place::new("full");
        let listener = UnixListener::bind(&place.0).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match send(&place.0, b"x\n", Instant::now() + LATER) {
                Ok(connection) => waiting.push(connection),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop((listener, waiting));
    }
}
