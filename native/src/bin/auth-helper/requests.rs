//! What the engine says, as requests to the agent (src/agent/socket.ts).

use std::str;

use crate::json::Reader;

/// One is usual.
const REFERENCES_MAX: usize = 8;

/// A line for each of the first references: `{"op":"list","reference":…,"credentials":…}`. `None` for what is no JSON object.
pub fn requests(input: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut reader = Reader::new(str::from_utf8(input).ok()?);
    let mut lines = Vec::new();
    reader.object(|reader, reference| {
        let mut line = [br#"{"op":"list","reference":"#, reference, br#","credentials":"#].concat();
        reader.value(&mut line)?;
        line.extend_from_slice(b"}\n");
        if lines.len() < REFERENCES_MAX {
            lines.push(line);
        }
        Some(())
    })?;
    reader.is_at_end().then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &str) -> Option<Vec<String>> {
        let lines = requests(input.as_bytes())?;
        Some(lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect())
    }

    #[test]
    fn each_reference_is_a_request_with_its_credentials() {
        let input = r#"{"r.example/a:1": {"username": "ada", "password": "x", "identityToken": ""}, "r.example/b@sha256:0": {}}"#;
        let first =
            r#"{"op":"list","reference":"r.example/a:1","credentials":{"username":"ada","password":"x","identityToken":""}}"#;
        let second = r#"{"op":"list","reference":"r.example/b@sha256:0","credentials":{}}"#;
        assert_eq!(lines(input), Some(vec![format!("{first}\n"), format!("{second}\n")]));
        assert_eq!(lines("{}"), Some(vec![]));
    }

    #[test]
    fn no_reference_and_no_password_gets_out_of_its_string() {
        let input = r#"{"a\",\"op\":\"unmount": {"password": "\"}\n{\"op\":\"unmount\"}"}}"#;
        let line = r#"{"op":"list","reference":"a\",\"op\":\"unmount","credentials":{"password":"\"}\n{\"op\":\"unmount\"}"}}"#;
        assert_eq!(lines(input), Some(vec![format!("{line}\n")]));
    }

    #[test]
    fn references_beyond_the_bound_are_checked_and_left_out() {
        let members: Vec<_> = (0..20).map(|each| format!("\"r{each}\":null")).collect();
        let asked = lines(&format!("{{{}}}", members.join(","))).unwrap();
        assert_eq!(asked.len(), REFERENCES_MAX);
        assert!(asked[7].contains("\"r7\""));
        assert_eq!(lines(&format!("{{{},}}", members.join(","))), None);
    }

    #[test]
    fn what_is_no_object_asks_nothing() {
        for input in ["", "{", "null", "[]", "\"x\"", "1", "{\"a\"", "{\"a\":{}", "{\"a\":{}} x"] {
            assert_eq!(lines(input), None, "{input}");
        }
        assert_eq!(requests(b"{\"a\xff\":{}}"), None);
    }
}
