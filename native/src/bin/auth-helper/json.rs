//! JSON that is checked and handed on, not understood: values are copied as they are written, without the white space between their
//! tokens, so that each is one line (RFC 8259: a string holds no line break but an escaped one).

/// How deep arrays and objects lie in each other; credentials are one object of strings.
const DEPTH_MAX: usize = 16;

/// Reads values from the front of a text; after a `None` it is of no use any more.
pub struct Reader<'text> {
    rest: &'text [u8],
}

impl<'text> Reader<'text> {
    /// @param text UTF-8, which stays so: only whole tokens are copied
    pub fn new(text: &'text str) -> Self {
        Self { rest: text.as_bytes() }
    }

    /// An object, of whose members `member` gets the name, as it is written, with its quotes; and which must read the value.
    pub fn object(&mut self, mut member: impl FnMut(&mut Self, &'text [u8]) -> Option<()>) -> Option<()> {
        self.list(b'{', b'}', |reader| {
            let name = reader.string()?;
            reader.punctuation(b':')?;
            member(reader, name)
        })
    }

    /// Whatever comes, copied to the end of `to`.
    pub fn value(&mut self, to: &mut Vec<u8>) -> Option<()> {
        self.nested(to, DEPTH_MAX)
    }

    /// Whether nothing is left but white space.
    pub fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    fn nested(&mut self, to: &mut Vec<u8>, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match self.peek()? {
            open @ (b'{' | b'[') => {
                let before = to.len();
                let is_object = open == b'{';
                let close = if is_object { b'}' } else { b']' };
                to.push(open);
                self.list(open, close, |reader| {
                    if to.len() > before + 1 {
                        to.push(b',');
                    }
                    if is_object {
                        to.extend_from_slice(reader.string()?);
                        reader.punctuation(b':')?;
                        to.push(b':');
                    }
                    reader.nested(to, depth)
                })?;
                to.push(close);
            }
            b'"' => to.extend_from_slice(self.string()?),
            b't' => to.extend_from_slice(self.word(b"true")?),
            b'f' => to.extend_from_slice(self.word(b"false")?),
            b'n' => to.extend_from_slice(self.word(b"null")?),
            _ => to.extend_from_slice(self.number()?),
        }
        Some(())
    }

    /// What stands between `open` and `close` with commas between, each read by `each`.
    fn list(&mut self, open: u8, close: u8, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.punctuation(open)?;
        if self.peek()? == close {
            return self.punctuation(close);
        }
        loop {
            each(self)?;
            if self.peek()? == close {
                return self.punctuation(close);
            }
            self.punctuation(b',')?;
        }
    }

    /// The next byte that is no white space, still in `rest`.
    fn peek(&mut self) -> Option<u8> {
        let blank = self.rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.rest = self.rest.get(blank..)?;
        self.rest.first().copied()
    }

    fn take(&mut self, length: usize) -> Option<&'text [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn punctuation(&mut self, byte: u8) -> Option<()> {
        if self.peek()? == byte { self.take(1).map(drop) } else { None }
    }

    fn word(&mut self, word: &[u8]) -> Option<&'text [u8]> {
        if self.rest.starts_with(word) { self.take(word.len()) } else { None }
    }

    /// With its quotes.
    fn string(&mut self) -> Option<&'text [u8]> {
        if self.peek()? != b'"' {
            return None;
        }
        let mut at = 1;
        loop {
            at += match self.rest.get(at..)? {
                [b'"', ..] => return self.take(at + 1),
                [b'\\', b'u', digits @ ..] if digits.get(..4)?.iter().all(u8::is_ascii_hexdigit) => 6,
                [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
                [0..0x20 | b'\\', ..] | [] => return None,
                _ => 1,
            };
        }
    }

    /// `-`, digits without a zero before them, and what may follow: a fraction, an exponent.
    fn number(&mut self) -> Option<&'text [u8]> {
        let text = self.rest;
        let digits = |at: usize| text.get(at..).map_or(0, |rest| rest.iter().take_while(|byte| byte.is_ascii_digit()).count());
        let mut at = usize::from(text.first() == Some(&b'-'));
        let whole = digits(at);
        if whole == 0 || (whole > 1 && text.get(at) == Some(&b'0')) {
            return None;
        }
        at += whole;
        if text.get(at) == Some(&b'.') {
            at += 1 + Some(digits(at + 1)).filter(|&count| count > 0)?;
        }
        if matches!(text.get(at), Some(b'e' | b'E')) {
            at += 1 + usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
            at += Some(digits(at)).filter(|&count| count > 0)?;
        }
        self.take(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a text that is one value.
    fn copy(text: &str) -> Option<String> {
        let mut reader = Reader::new(text);
        let mut out = Vec::new();
        reader.value(&mut out)?;
        reader.is_at_end().then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn values_are_copied_as_they_are_written_on_one_line() {
        for same in [
            r#"{"username":"ada","password":"p\"\\\/\b\f\n\r\t\u00e9\ud83d","identityToken":""}"#,
            r#"{"":[[],{},[{}],"é😀",true,false,null]}"#,
            r#"[0,-0,10,1.5,-2.25e10,3E-7,4e+2]"#,
            r#""x""#,
        ] {
            assert_eq!(copy(same).as_deref(), Some(same));
        }
        assert_eq!(
            copy(" { \"a b\" :\t[ 1 ,\r\n{ } , \" \" ] , \"c\":null }\n").as_deref(),
            Some(r#"{"a b":[1,{}," "],"c":null}"#)
        );
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "\"",
            "\"x",
            "\"\\",
            "\"\\\"",
            "{]",
            "[}",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{1:1}",
            "{\"a\" \"b\"}",
            "nul",
            "truee",
            "True",
            "'x'",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"a\nb\"",
            "\"\0\"",
            "-",
            "01",
            "-01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "0x1",
            "NaN",
            "1 2",
            "{} {}",
            "[]]",
            "\u{feff}{}",
        ] {
            assert_eq!(copy(text), None, "{text}");
        }
    }

    #[test]
    fn what_lies_too_deep_is_refused_however_deep() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(copy(&nested(DEPTH_MAX)).is_some());
        assert_eq!(copy(&nested(DEPTH_MAX + 1)), None);
        assert_eq!(copy(&"[".repeat(60_000)), None);
        assert_eq!(copy(&"{\"a\":".repeat(12_000)), None);
    }

    #[test]
    fn a_text_that_is_cut_off_anywhere_is_refused() {
        let whole = r#"{"a":{"username":"é\u00e9","n":[-1.5e+3,true,null,{}]}}"#;
        assert!(copy(whole).is_some());
        for (end, _) in whole.char_indices() {
            assert_eq!(copy(&whole[..end]), None, "{end}");
        }
    }

    #[test]
    fn a_damaged_text_is_refused_or_stays_on_one_line() {
        let whole = br#"{"a" : {"username":"ada\n","n":[-1.5e+3,true,null,{}]} , "b":""}"#;
        for at in 0..whole.len() {
            for byte in 0..=127 {
                let mut damaged = whole.to_vec();
                damaged[at] = byte;
                let copied = copy(std::str::from_utf8(&damaged).unwrap());
                assert!(copied.is_none_or(|text| !text.contains(|each: char| each < ' ')), "{at} {byte}");
            }
        }
    }
}
