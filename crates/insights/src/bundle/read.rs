//! Reading a bundle piece by piece, in either shape.
//!
//! **Invariant:** it accepts the layout of [`super::format`] and nothing else, and keeps one piece
//! at a time, however large the bundle is.

use std::fmt;
use std::io::{self, BufRead};

use super::format::{END_LINE, EVENT_LINE, HEADER_LINE, MANIFEST_LINE, Part, RAW_LINE};
use super::scan::{Scanner, Stuck};
use super::write::Shape;

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "JSON",
            Self::Lines => "NDJSON",
        })
    }
}

/// A piece of a bundle, with the bytes that its part's sum is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A part that is one value.
    Value(Part, &'a [u8]),
    /// The next item of a part that is a list.
    Item(Part, &'a [u8]),
    /// The manifest, which begins with `{` in both shapes.
    Manifest(&'a [u8]),
    /// The last line of a bundle in lines, which begins with `{` and without its kind.
    End(&'a [u8]),
}

/// Where the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Part(Part),
    /// The item with this index.
    Item(Part, u64),
    Manifest,
    /// The last line, `kind` `end`.
    EndLine,
    /// Everything was there.
    AfterEnd,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part(part) => f.write_str(part.as_str()),
            Self::Item(part, index) => write!(f, "{}[{index}]", part.as_str()),
            Self::Manifest => f.write_str("the manifest"),
            Self::EndLine => f.write_str("the end line"),
            Self::AfterEnd => f.write_str("the end"),
        }
    }
}

/// Why a bundle cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadFault {
    /// The file itself cannot be read.
    #[error("the bundle cannot be read: {0}")]
    Io(#[source] io::Error),
    /// It ends too early.
    #[error("the bundle is cut: it ends at byte {at}, at {place}")]
    Cut { place: Place, at: u64 },
    /// It has another layout.
    #[error("the layout is broken at byte {at}, at {place}: {what}")]
    Layout { place: Place, at: u64, what: String },
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Start,
    Value(Part),
    /// The bracket of a list.
    List(Part),
    /// The item with this index, or the end of the list.
    Item(Part, u64),
    ExportedAt,
    /// Of one object: what was cut, or the manifest.
    Tail,
    Manifest,
    Close,
    /// A line with an item of this part, the first that may come, or a later one.
    Line(Part, u64),
    EndLine,
    AfterEnd,
    Done,
}

/// Reads a bundle.
pub struct Reader<R> {
    scanner: Scanner<R>,
    shape: Shape,
    next: Next,
    text: Vec<u8>,
}

/// What a step found; the bytes are in the reader.
enum Found {
    Nothing,
    Value(Part),
    Item(Part),
    Manifest,
    End,
}

impl<R: BufRead> Reader<R> {
    pub fn new(input: R) -> Self {
        let scanner = Scanner::new(input);
        Self { scanner, shape: Shape::Json, next: Next::Start, text: Vec::new() }
    }

    /// How it is laid out, once a piece was read.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The next piece; `None` after the last one, when nothing is left.
    ///
    /// # Errors
    /// [`ReadFault`]: there is no going on then.
    pub fn piece(&mut self) -> Result<Option<Piece<'_>>, ReadFault> {
        let mut found = Found::Nothing;
        while matches!(found, Found::Nothing) && self.next != Next::Done {
            let before = self.next;
            found = match self.step() {
                Ok(found) => found,
                Err(stuck) => return Err(self.fault(before, stuck)),
            };
        }
        let text = &self.text;
        Ok(match found {
            Found::Nothing => None,
            Found::Value(part) => Some(Piece::Value(part, text)),
            Found::Item(part) => Some(Piece::Item(part, text)),
            Found::Manifest => Some(Piece::Manifest(text)),
            Found::End => Some(Piece::End(text)),
        })
    }

    fn fault(&self, before: Next, stuck: Stuck) -> ReadFault {
        let place = match before {
            Next::Start => Place::Part(Part::Run),
            Next::Value(part) | Next::List(part) => Place::Part(part),
            Next::Item(part, index) | Next::Line(part, index) => Place::Item(part, index),
            Next::ExportedAt => Place::Part(Part::ExportedAt),
            Next::Tail if self.next == Next::Tail => Place::Part(Part::Truncated),
            Next::Tail | Next::Manifest => Place::Manifest,
            Next::EndLine => Place::EndLine,
            Next::Close | Next::AfterEnd | Next::Done => Place::AfterEnd,
        };
        let at = self.scanner.at();
        match stuck {
            Stuck::Io(error) => ReadFault::Io(error),
            Stuck::Ended => ReadFault::Cut { place, at },
            Stuck::Unexpected(what) => ReadFault::Layout { place, at, what },
        }
    }

    fn step(&mut self) -> Result<Found, Stuck> {
        match self.next {
            Next::Start => self.start(),
            Next::Value(part) => {
                self.scanner.expect(&format!(",\"{}\":", part.as_str()))?;
                self.value(part)
            }
            Next::List(part) => {
                self.scanner.expect(&format!(",\"{}\":[", part.as_str()))?;
                self.next = Next::Item(part, 0);
                Ok(Found::Nothing)
            }
            Next::Item(part, index) => self.item(part, index),
            Next::ExportedAt => {
                self.scanner.expect(",\"exportedAt\":")?;
                self.scanner.value(&mut self.text)?;
                self.next = match self.shape {
                    Shape::Json => Next::Tail,
                    Shape::Lines => {
                        self.scanner.expect("}\n")?;
                        Next::Line(Part::CanonicalEvents, 0)
                    }
                };
                Ok(Found::Value(Part::ExportedAt))
            }
            Next::Tail => self.tail(),
            Next::Manifest => {
                self.scanner.expect(",\"manifest\":")?;
                self.manifest()
            }
            Next::Close => {
                self.scanner.expect("}")?;
                self.next = Next::AfterEnd;
                Ok(Found::Nothing)
            }
            Next::Line(part, index) => self.line(part, index),
            Next::EndLine => {
                self.scanner.expect(END_LINE)?;
                self.rest_of_line()?;
                self.next = Next::AfterEnd;
                Ok(Found::End)
            }
            Next::AfterEnd => {
                self.scanner.end()?;
                self.next = Next::Done;
                Ok(Found::Nothing)
            }
            Next::Done => Ok(Found::Nothing),
        }
    }

    /// The second key tells the shape.
    fn start(&mut self) -> Result<Found, Stuck> {
        self.scanner.expect("{\"")?;
        if self.scanner.peek()? == Some(b'k') {
            self.shape = Shape::Lines;
            self.scanner.expect(HEADER_LINE.get(2..).unwrap_or_default())?;
            self.scanner.expect("\"run\":")?;
        } else {
            self.scanner.expect("run\":")?;
        }
        self.value(Part::Run)
    }

    fn value(&mut self, part: Part) -> Result<Found, Stuck> {
        self.scanner.value(&mut self.text)?;
        self.next = match part {
            Part::Run => Next::Value(Part::Session),
            Part::Session => Next::Value(Part::Projection),
            Part::Projection => Next::Value(Part::Metrics),
            Part::Metrics
            | Part::Artifacts
            | Part::CanonicalEvents
            | Part::RawEvents
            | Part::ExportedAt
            | Part::Truncated => Next::List(Part::Artifacts),
        };
        Ok(Found::Value(part))
    }

    fn item(&mut self, part: Part, index: u64) -> Result<Found, Stuck> {
        let is_end = match index {
            0 if self.scanner.peek()? == Some(b']') => self.scanner.either(b']', b']')?,
            0 => false,
            _ => self.scanner.either(b']', b',')?,
        };
        if is_end {
            self.next = match (part, self.shape) {
                (Part::Artifacts, Shape::Json) => Next::List(Part::CanonicalEvents),
                (Part::CanonicalEvents, _) => Next::List(Part::RawEvents),
                _ => Next::ExportedAt,
            };
            return Ok(Found::Nothing);
        }
        self.scanner.value(&mut self.text)?;
        self.next = Next::Item(part, index + 1);
        Ok(Found::Item(part))
    }

    fn tail(&mut self) -> Result<Found, Stuck> {
        self.scanner.expect(",\"")?;
        if self.scanner.peek()? == Some(b't') {
            self.scanner.expect("truncated\":")?;
            self.scanner.value(&mut self.text)?;
            self.next = Next::Manifest;
            return Ok(Found::Value(Part::Truncated));
        }
        self.next = Next::Manifest;
        self.scanner.expect("manifest\":")?;
        self.manifest()
    }

    fn manifest(&mut self) -> Result<Found, Stuck> {
        self.scanner.value(&mut self.text)?;
        self.next = Next::Close;
        Ok(Found::Manifest)
    }

    fn line(&mut self, part: Part, index: u64) -> Result<Found, Stuck> {
        self.scanner.expect("{\"kind\":\"")?;
        let kind = self.scanner.peek()?;
        let rest = |line: &'static str| line.get("{\"kind\":\"".len()..).unwrap_or_default();
        if kind == Some(b'm') {
            // From here on a fault is one of the manifest.
            self.next = Next::Manifest;
            self.scanner.expect(rest(MANIFEST_LINE))?;
            self.rest_of_line()?;
            self.next = Next::EndLine;
            return Ok(Found::Manifest);
        }
        if kind == Some(b'r') {
            let index = if part == Part::RawEvents { index } else { 0 };
            self.scanner.expect(rest(RAW_LINE))?;
            self.scanner.value(&mut self.text)?;
            self.scanner.expect("}\n")?;
            self.next = Next::Line(Part::RawEvents, index + 1);
            return Ok(Found::Item(Part::RawEvents));
        }
        if part != Part::CanonicalEvents {
            let what = "another raw envelope or the manifest is to be here";
            return Err(Stuck::Unexpected(what.to_owned()));
        }
        self.scanner.expect(rest(EVENT_LINE))?;
        self.rest_of_line()?;
        self.next = Next::Line(Part::CanonicalEvents, index + 1);
        Ok(Found::Item(Part::CanonicalEvents))
    }

    /// Takes a line whose beginning stands for `{`.
    fn rest_of_line(&mut self) -> Result<(), Stuck> {
        self.text.clear();
        self.text.push(b'{');
        self.scanner.line(&mut self.text)
    }
}
