//! JSON, as far as a table of contents has it: objects of strings, whole numbers and nulls.

use std::borrow::Cow;

use super::{SAFE_MAX, Text};

/// Of a string or an object, in bytes: longer ones are looked at elsewhere.
const LONGEST: usize = 512 << 10;

pub enum Value<'a> {
    Text(Text<'a>),
    Whole(u64),
    Null,
    /// An object begins, or a list: it is for the caller to read.
    Open(u8),
}

pub struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Option<u8> {
        while matches!(self.peek()?, b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
        self.peek()
    }

    pub fn take(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then(|| self.at += 1)
    }

    /// Whether nothing follows.
    pub fn is_over(&mut self) -> bool {
        self.next().is_none()
    }

    /// Before each member of an object or a list: whether there is one. @param first whether it would be the first
    pub fn more(&mut self, close: u8, first: bool) -> Option<bool> {
        let byte = self.next()?;
        if byte == close {
            self.at += 1;
            return Some(false);
        }
        if !first {
            self.take(b',')?;
            if self.next()? == close {
                return None;
            }
        }
        Some(true)
    }

    pub fn key(&mut self) -> Option<&'a str> {
        let Cow::Borrowed(key) = self.string()? else { return None };
        self.take(b':')?;
        Some(key)
    }

    pub fn value(&mut self) -> Option<Value<'a>> {
        match self.next()? {
            b'"' => self.string().map(Value::Text),
            b'0'..=b'9' => self.whole().map(Value::Whole),
            open @ (b'{' | b'[') => {
                self.at += 1;
                Some(Value::Open(open))
            }
            _ => self.word("null").map(|()| Value::Null),
        }
    }

    /// Calls `each` with the members of an object that has begun.
    pub fn members(&mut self, mut each: impl FnMut(&'a str, Value<'a>, &mut Self) -> Option<()>) -> Option<()> {
        let start = self.at;
        let mut first = true;
        while self.more(b'}', first)? {
            first = false;
            let key = self.key()?;
            let value = self.value()?;
            each(key, value, self)?;
            if self.at - start > LONGEST {
                return None;
            }
        }
        Some(())
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let is = self.text.as_bytes().get(self.at..)?.starts_with(word.as_bytes());
        is.then(|| self.at += word.len())
    }

    fn whole(&mut self) -> Option<u64> {
        let digits = self.text.as_bytes()[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = self.text.get(self.at..self.at + digits)?;
        self.at += digits;
        if (digits > 1 && text.starts_with('0')) || matches!(self.peek()?, b'.' | b'e' | b'E') {
            return None;
        }
        text.parse().ok().filter(|&value| value <= SAFE_MAX)
    }

    fn string(&mut self) -> Option<Text<'a>> {
        self.take(b'"')?;
        let start = self.at;
        loop {
            match self.peek()? {
                b'"' => {
                    let text = self.text.get(start..self.at)?;
                    self.at += 1;
                    return Some(Cow::Borrowed(text));
                }
                b'\\' => return self.escaped(start).map(Cow::Owned),
                0..0x20 => return None,
                _ => self.at += 1,
            }
            if self.at - start > LONGEST {
                return None;
            }
        }
    }

    /// The rest of a string that began at `start`, from its first backslash on.
    fn escaped(&mut self, start: usize) -> Option<String> {
        let mut text = self.text.get(start..self.at)?.to_owned();
        loop {
            let from = self.at;
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(text);
                }
                b'\\' => {
                    self.at += 2;
                    text.push(match self.text.as_bytes().get(from + 1)? {
                        b'n' => '\n',
                        b't' => '\t',
                        b'r' => '\r',
                        b'b' => '\u{8}',
                        b'f' => '\u{c}',
                        b'u' => self.unit()?,
                        byte @ (b'"' | b'\\' | b'/') => char::from(*byte),
                        _ => return None,
                    });
                }
                0..0x20 => return None,
                _ => {
                    while !matches!(self.peek()?, b'"' | b'\\' | 0..0x20) {
                        self.at += 1;
                    }
                    text.push_str(self.text.get(from..self.at)?);
                }
            }
            if self.at - start > LONGEST {
                return None;
            }
        }
    }

    /// Four hexadecimal digits that are a character: halves of one are none.
    fn unit(&mut self) -> Option<char> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        char::from_u32(u32::from_str_radix(digits, 16).ok()?)
    }
}
