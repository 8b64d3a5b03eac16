//! Walking through JSON text byte by byte, without keeping more than one value of it.
//!
//! **Invariant:** it takes nothing but what it is asked for: no white space between values, no other
//! key, nothing after the end. Whether a value is valid JSON inside is not its business: its bytes
//! are summed up, and whoever needs it parses it.

use std::io::{self, BufRead};

/// The longest value that is taken into memory.
pub(super) const MAX_VALUE: usize = 64 * 1024 * 1024;

/// Why it cannot go on.
#[derive(Debug)]
pub(super) enum Stuck {
    /// The input cannot be read.
    Io(io::Error),
    /// It ends here.
    Ended,
    /// Something else is here.
    Unexpected(String),
}

impl From<io::Error> for Stuck {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        // What a decompressor says of a file that was cut, and of one that was damaged.
        if error.kind() == UnexpectedEof {
            Self::Ended
        } else if [InvalidData, InvalidInput].contains(&error.kind()) {
            Self::Unexpected(format!("the compressed data is damaged: {error}"))
        } else {
            Self::Io(error)
        }
    }
}

/// A place in a text.
pub(super) struct Scanner<R> {
    input: R,
    at: u64,
}

impl<R: BufRead> Scanner<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, at: 0 }
    }

    /// How many bytes were taken.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next byte, which stays.
    pub(super) fn peek(&mut self) -> Result<Option<u8>, Stuck> {
        loop {
            match self.input.fill_buf() {
                Ok(buffer) => return Ok(buffer.first().copied()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn next(&mut self) -> Result<u8, Stuck> {
        let byte = self.peek()?.ok_or(Stuck::Ended)?;
        self.consume(1);
        Ok(byte)
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.at = self.at.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// Takes exactly this text.
    pub(super) fn expect(&mut self, text: &str) -> Result<(), Stuck> {
        for (index, wanted) in text.bytes().enumerate() {
            let found = self.peek()?.ok_or(Stuck::Ended)?;
            if found != wanted {
                let before = text.get(..index).unwrap_or_default();
                let found = char::from(found);
                return Err(Stuck::Unexpected(format!(
                    "{text} is to be here, and after {before:?} comes {found:?}"
                )));
            }
            self.consume(1);
        }
        Ok(())
    }

    /// Takes one of these two bytes, and tells whether it was the first.
    pub(super) fn either(&mut self, one: u8, other: u8) -> Result<bool, Stuck> {
        let found = self.peek()?.ok_or(Stuck::Ended)?;
        if found != one && found != other {
            let [one, other, found] = [one, other, found].map(char::from);
            return Err(Stuck::Unexpected(format!(
                "{one:?} or {other:?} is to be here, and {found:?} is"
            )));
        }
        self.consume(1);
        Ok(found == one)
    }

    /// Nothing must be left.
    pub(super) fn end(&mut self) -> Result<(), Stuck> {
        match self.peek()? {
            None => Ok(()),
            Some(_) => Err(Stuck::Unexpected("something comes after the end".to_owned())),
        }
    }

    /// Takes one JSON value, as it stands.
    pub(super) fn value(&mut self, text: &mut Vec<u8>) -> Result<(), Stuck> {
        text.clear();
        match self.peek()?.ok_or(Stuck::Ended)? {
            b'{' | b'[' | b'"' => self.nested(text),
            b'-' | b'0'..=b'9' | b'a'..=b'z' => self.word(text),
            other => {
                let other = char::from(other);
                Err(Stuck::Unexpected(format!("a value is to be here, and {other:?} is")))
            }
        }
    }

    /// A text, an object or a list: up to where its first byte is closed.
    fn nested(&mut self, text: &mut Vec<u8>) -> Result<(), Stuck> {
        let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
        loop {
            self.peek()?.ok_or(Stuck::Ended)?;
            let buffer = self.input.fill_buf()?;
            let mut taken = 0;
            let mut closed = false;
            for byte in buffer {
                taken += 1;
                if in_text {
                    match byte {
                        _ if escaped => escaped = false,
                        b'\\' => escaped = true,
                        b'"' => in_text = false,
                        _ => continue,
                    }
                } else {
                    match byte {
                        b'"' => in_text = true,
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth = depth.saturating_sub(1),
                        _ => continue,
                    }
                }
                if depth == 0 && !in_text {
                    closed = true;
                    break;
                }
            }
            text.extend_from_slice(buffer.get(..taken).unwrap_or_default());
            self.consume(taken);
            if closed {
                return Ok(());
            }
            bounded(text)?;
        }
    }

    /// A number, or `null`, `true` and `false`.
    fn word(&mut self, text: &mut Vec<u8>) -> Result<(), Stuck> {
        while let Some(byte) = self.peek()?
            && !matches!(byte, b',' | b'}' | b']' | b'\n')
        {
            text.push(self.next()?);
            bounded(text)?;
        }
        Ok(())
    }

    /// Takes what is left of a line, and its end.
    pub(super) fn line(&mut self, text: &mut Vec<u8>) -> Result<(), Stuck> {
        loop {
            self.peek()?.ok_or(Stuck::Ended)?;
            let buffer = self.input.fill_buf()?;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(buffer.len());
            text.extend_from_slice(buffer.get(..taken).unwrap_or_default());
            self.consume(taken + usize::from(end.is_some()));
            if end.is_some() {
                return Ok(());
            }
            bounded(text)?;
        }
    }
}

fn bounded(text: &[u8]) -> Result<(), Stuck> {
    if text.len() > MAX_VALUE {
        return Err(Stuck::Unexpected(format!("a value is longer than {MAX_VALUE} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// With a buffer of some bytes, so that every place is the end of one now and then.
    fn scanner(text: &str, buffer: usize) -> Scanner<BufReader<&[u8]>> {
        Scanner::new(BufReader::with_capacity(buffer, text.as_bytes()))
    }

    #[test]
    fn values_are_taken_as_they_stand_wherever_the_buffer_ends() {
        let values =
            [r#"{"a":["]}\"",{"b":"\\"}]}"#, r#""x\"y""#, "null", "-1.5e3", "true", "[]", "[[]]"];
        for value in values {
            for buffer in 1..8 {
                let line = format!("{value},rest");
                let mut scanner = scanner(&line, buffer);
                let mut text = Vec::new();

                scanner.value(&mut text).unwrap();

                assert_eq!(String::from_utf8(text).unwrap(), value);
                assert_eq!(scanner.at(), u64::try_from(value.len()).unwrap());
                scanner.expect(",rest").unwrap();
                scanner.end().unwrap();
            }
        }
    }

    #[test]
    fn what_does_not_belong_here_is_named() {
        let mut text = Vec::new();
        let said = |stuck: Stuck| match stuck {
            Stuck::Unexpected(said) => said,
            Stuck::Ended => "ended".to_owned(),
            Stuck::Io(error) => error.to_string(),
        };
        let wrong = scanner("runs", 8).expect("run\":").unwrap_err();
        assert_eq!(said(wrong), "run\": is to be here, and after \"run\" comes 's'");
        assert_eq!(said(scanner("{\"a\":1", 8).value(&mut text).unwrap_err()), "ended");
        assert_eq!(said(scanner("", 8).value(&mut text).unwrap_err()), "ended");
        assert!(said(scanner(" 1", 8).value(&mut text).unwrap_err()).contains("a value"));
        assert!(said(scanner("x", 8).end().unwrap_err()).contains("after the end"));
        assert!(said(scanner("}", 8).either(b',', b']').unwrap_err()).contains("',' or ']'"));
    }

    #[test]
    fn a_line_ends_with_its_end() {
        let mut text = Vec::new();
        let mut lines = scanner("ab\ncd", 2);
        lines.line(&mut text).unwrap();
        assert_eq!(text, b"ab");
        assert!(matches!(lines.line(&mut text), Err(Stuck::Ended)));
    }
}
