//! A client of Server-Sent Events that hides nothing: which fields a frame had, and in what order.
//!
//! **Invariant:** [`Parser`] follows WHATWG HTML 9.2 byte for byte, wherever the network cuts.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// What was between two empty lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    /// `None` when the frame had no `event` line.
    pub event: Option<String>,
    /// `None` when the frame had no `id` line; a frame without a cursor must have none.
    pub id: Option<String>,
    pub data: Option<String>,
    /// Milliseconds.
    pub retry: Option<u64>,
    pub comments: Vec<String>,
}

impl Frame {
    /// The event's name as a browser sees it.
    pub fn name(&self) -> &str {
        self.event.as_deref().unwrap_or("message")
    }

    /// Whether a browser would dispatch it.
    pub fn is_event(&self) -> bool {
        self.data.is_some()
    }

    /// The data, read as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    pub fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_default();
        serde_json::from_str(data)
            .unwrap_or_else(|error| panic!("the data of a frame is not JSON ({error}): {data}"))
    }

    /// The id as a cursor, when it is one.
    pub fn cursor(&self) -> Option<i64> {
        self.id.as_ref()?.parse().ok()
    }
}

/// Bytes in, frames out.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    frame: Frame,
    after_carriage_return: bool,
    began: bool,
}

impl Parser {
    /// Takes what the network brought; the frames that it completes.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        for byte in bytes {
            let second_half = self.after_carriage_return && *byte == b'\n';
            self.after_carriage_return = *byte == b'\r';
            match byte {
                b'\n' if second_half => {}
                b'\n' | b'\r' => frames.extend(self.end_line()),
                _ => self.line.push(*byte),
            }
        }
        frames
    }

    fn end_line(&mut self) -> Option<Frame> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let first = !std::mem::replace(&mut self.began, true);
        let line = if first { text.trim_start_matches('\u{FEFF}') } else { &text };
        if line.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            return (frame != Frame::default()).then_some(frame);
        }
        if let Some(comment) = line.strip_prefix(':') {
            self.frame.comments.push(comment.trim().to_owned());
            return None;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.frame.event = Some(value.to_owned()),
            "data" => match &mut self.frame.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.frame.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.frame.id = Some(value.to_owned()),
            "retry" => self.frame.retry = value.parse().ok().or(self.frame.retry),
            _ => {}
        }
        None
    }
}

/// An open stream.
pub struct SseClient {
    url: String,
    status: u16,
    headers: HeaderMap,
    body: BoxStream<'static, reqwest::Result<Bytes>>,
    parser: Parser,
    ready: std::collections::VecDeque<Frame>,
    last_event_id: Option<String>,
    retry: Option<u64>,
    comments: usize,
}

impl SseClient {
    /// Opens a stream without a cursor of its own (one can be part of the URL).
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn open(url: impl Into<String>) -> Self {
        Self::request(url.into(), None, None).await
    }

    /// Opens a stream with a `Last-Event-ID` header, as a browser does when it reconnects.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn resume(url: impl Into<String>, last_event_id: impl ToString) -> Self {
        Self::request(url.into(), Some(last_event_id.to_string()), None).await
    }

    /// Opens a stream with an API key.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn open_with_key(url: impl Into<String>, key: &str) -> Self {
        Self::request(url.into(), None, Some(key)).await
    }

    /// Opens the same URL again, with the last id that was received.
    ///
    /// # Panics
    /// When the server cannot be reached.
    pub async fn reconnect(self) -> Self {
        let Self { url, last_event_id, body, .. } = self;
        drop(body);
        Self::request(url, last_event_id, None).await
    }

    /// Opens a stream, with a `Last-Event-ID` header if there is a last id; `None` when nobody
    /// answers.
    pub async fn try_open(url: impl Into<String>, last_event_id: Option<&str>) -> Option<Self> {
        Self::try_request(url.into(), last_event_id.map(str::to_owned), None).await.ok()
    }

    async fn request(url: String, last_event_id: Option<String>, key: Option<&str>) -> Self {
        let opened = Self::try_request(url.clone(), last_event_id, key).await;
        opened.unwrap_or_else(|error| panic!("{url} cannot be opened: {error}"))
    }

    async fn try_request(
        url: String,
        last_event_id: Option<String>,
        key: Option<&str>,
    ) -> reqwest::Result<Self> {
        let mut request = crate::http_client().get(&url).header("accept", "text/event-stream");
        if let Some(id) = &last_event_id {
            request = request.header("last-event-id", id);
        }
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response = request.send().await?;
        Ok(Self {
            url,
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes_stream().boxed(),
            parser: Parser::default(),
            ready: std::collections::VecDeque::new(),
            last_event_id,
            retry: None,
            comments: 0,
        })
    }

    /// The response's status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A header of the response.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The last id received, or the one that the stream was opened with.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// The server's last wish about reconnecting, in milliseconds.
    pub fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// How many comments came.
    pub fn comments(&self) -> usize {
        self.comments
    }

    /// The next frame that has data; `None` when the stream ended or broke.
    ///
    /// # Panics
    /// When none came within `deadline`.
    pub async fn next(&mut self, deadline: Duration) -> Option<Frame> {
        let url = self.url.clone();
        tokio::time::timeout(deadline, self.advance())
            .await
            .unwrap_or_else(|_| panic!("{url} sent nothing for {deadline:?}"))
    }

    /// The frames up to and with the first of this name.
    ///
    /// # Panics
    /// When it did not come within `deadline`, or the stream ended before it.
    pub async fn collect_until(&mut self, name: &str, deadline: Duration) -> Vec<Frame> {
        let end = tokio::time::Instant::now() + deadline;
        let mut frames = Vec::new();
        loop {
            match tokio::time::timeout_at(end, self.advance()).await {
                Ok(Some(frame)) => {
                    let last = frame.name() == name;
                    frames.push(frame);
                    if last {
                        return frames;
                    }
                }
                Ok(None) => panic!("{} ended before `{name}`, after {}", self.url, names(&frames)),
                Err(_) => {
                    panic!("{}: no `{name}` in {deadline:?}, only {}", self.url, names(&frames))
                }
            }
        }
    }

    async fn advance(&mut self) -> Option<Frame> {
        loop {
            while let Some(frame) = self.ready.pop_front() {
                self.comments += frame.comments.len();
                self.retry = frame.retry.or(self.retry);
                if frame.id.is_some() {
                    self.last_event_id.clone_from(&frame.id);
                }
                if frame.is_event() {
                    return Some(frame);
                }
            }
            let bytes = self.body.next().await?.ok()?;
            self.ready.extend(self.parser.push(&bytes));
        }
    }
}

fn names(frames: &[Frame]) -> String {
    let names: Vec<&str> = frames.iter().map(Frame::name).collect();
    format!("{} frames {names:?}", frames.len())
}

#[cfg(test)]
mod tests;
