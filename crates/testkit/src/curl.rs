//! `curl -N`, whose output is read as it comes.
//!
//! **Invariant:** what [`Curl::next`] returns has left curl: nothing on the way holds it back.

use std::collections::VecDeque;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};

use crate::program::CURL;
use crate::sse::{Frame, Parser};

/// A running curl.
#[derive(Debug)]
pub struct Curl {
    head: Vec<String>,
    body: ChildStdout,
    parser: Parser,
    ready: VecDeque<Frame>,
    child: Child,
}

impl Curl {
    /// Opens a stream, with these arguments besides `-N`, and waits for the head of the answer.
    ///
    /// # Panics
    /// When it cannot be started, or there is no answer within `deadline`.
    pub async fn open(url: &str, arguments: &[&str], deadline: Duration) -> Self {
        let mut command = Command::new(CURL.path());
        // Not the settings of whoever runs the tests, nor their proxy.
        command.args(["-q", "--noproxy", "*", "-sSN", "-i"]).args(arguments).arg(url);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("curl cannot be started: {error}"));
        let Some(body) = child.stdout.take() else { panic!("curl has no output") };
        let (parser, ready) = (Parser::default(), VecDeque::new());
        let mut curl = Self { head: Vec::new(), body, parser, ready, child };
        let read = tokio::time::timeout(deadline, curl.read_head()).await;
        assert!(read.is_ok(), "{url} did not answer within {deadline:?}");
        curl
    }

    /// The status and the headers of the answer, in lower case.
    pub fn head(&self) -> &[String] {
        &self.head
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The next frame that has data; `None` when there are no more.
    ///
    /// # Panics
    /// When none came within `deadline`.
    pub async fn next(&mut self, deadline: Duration) -> Option<Frame> {
        let frame = tokio::time::timeout(deadline, self.advance()).await;
        frame.unwrap_or_else(|_| panic!("curl wrote nothing for {deadline:?}"))
    }

    /// Reads until the frame with this id.
    ///
    /// # Panics
    /// When it did not come within `deadline`.
    pub async fn until(&mut self, cursor: i64, deadline: Duration) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let Some(frame) = self.next(deadline).await else {
                panic!("the stream ended before {cursor}: {frames:?}")
            };
            let found = frame.cursor() == Some(cursor);
            frames.push(frame);
            if found {
                return frames;
            }
        }
    }

    /// Waits until it has ended by itself; its exit code.
    ///
    /// # Panics
    /// When it has not within `deadline`.
    pub async fn ended(mut self, deadline: Duration) -> Option<i32> {
        let ended = tokio::time::timeout(deadline, self.child.wait()).await;
        let status = ended.unwrap_or_else(|_| panic!("curl did not end within {deadline:?}"));
        status.ok().and_then(|status| status.code())
    }

    async fn read_head(&mut self) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = self.body.read_u8().await;
            head.push(byte.unwrap_or_else(|error| panic!("curl got no answer: {error}")));
        }
        let text = String::from_utf8_lossy(&head).to_lowercase();
        self.head = text.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect();
    }

    async fn advance(&mut self) -> Option<Frame> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            while let Some(frame) = self.ready.pop_front() {
                if frame.is_event() {
                    return Some(frame);
                }
            }
            let read = self.body.read(&mut buffer).await.unwrap_or_default();
            if read == 0 {
                return None;
            }
            self.ready.extend(self.parser.push(buffer.get(..read).unwrap_or_default()));
        }
    }
}
