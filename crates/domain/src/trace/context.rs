//! `traceparent` and `tracestate` (W3C Trace Context, level 1).

use std::fmt;
use std::str::FromStr;

/// The most of a `tracestate` that is passed on.
const MAX_STATE: usize = 512;
/// The most members that it may have.
const MAX_MEMBERS: usize = 32;

macro_rules! ids {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// From its bytes; `None` when they are all zero.
            pub fn new(bytes: [u8; $bytes]) -> Option<Self> {
                (bytes != [0; $bytes]).then_some(Self(bytes))
            }

            pub fn bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NoTrace;

            /// Takes lower-case hex.
            fn from_str(text: &str) -> Result<Self, NoTrace> {
                let mut bytes = [0; $bytes];
                if !text.bytes().all(is_hex) || hex::decode_to_slice(text, &mut bytes).is_err() {
                    return Err(NoTrace);
                }
                Self::new(bytes).ok_or(NoTrace)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

ids!(
    /// A trace: 32 hex digits.
    TraceId,
    16
);
ids!(
    /// A span within a trace: 16 hex digits.
    SpanId,
    8
);

/// A text that is no part of a trace context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a trace context")]
pub struct NoTrace;

/// Where we are in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: TraceId,
    /// The span that children have as their parent.
    pub span_id: SpanId,
    /// Whether it is recorded.
    pub sampled: bool,
    /// The `tracestate` that came with it: other systems' business, which is passed on.
    pub state: Option<String>,
}

impl TraceContext {
    /// Reads the headers of a call. Without a valid `traceparent` there is no trace; a `tracestate`
    /// that is no good is dropped alone.
    ///
    /// # Errors
    /// [`NoTrace`].
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Result<Self, NoTrace> {
        let mut parts = traceparent.splitn(5, '-');
        let mut part = |length: usize| {
            parts.next().filter(|it| it.len() == length && it.bytes().all(is_hex)).ok_or(NoTrace)
        };
        let version = part(2)?;
        let (trace_id, span_id, flags) = (part(32)?, part(16)?, part(2)?);
        let has_more = parts.next().is_some();
        // A later version may say more; this one may not.
        if version == "ff" || (version == "00" && has_more) {
            return Err(NoTrace);
        }
        let flags = u8::from_str_radix(flags, 16).map_err(|_not_hex| NoTrace)?;
        Ok(Self {
            trace_id: trace_id.parse()?,
            span_id: span_id.parse()?,
            sampled: flags & 1 == 1,
            state: tracestate.and_then(state),
        })
    }

    /// The header's value, for calls within this span.
    pub fn traceparent(&self) -> String {
        let flags = u8::from(self.sampled);
        format!("00-{}-{}-{flags:02x}", self.trace_id, self.span_id)
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// A `tracestate` as it may be passed on: members of a key and a value in visible ASCII.
fn state(text: &str) -> Option<String> {
    let members: Vec<&str> =
        text.split(',').map(str::trim).filter(|member| !member.is_empty()).collect();
    let is_member = |member: &&str| {
        member.split_once('=').is_some_and(|(key, value)| {
            let is_key = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte)
            };
            !key.is_empty()
                && key.bytes().all(is_key)
                && !value.is_empty()
                && value.bytes().all(|byte| (0x20..=0x7e).contains(&byte) && byte != b'=')
        })
    };
    let good = !members.is_empty() && members.len() <= MAX_MEMBERS && members.iter().all(is_member);
    Some(members.join(",")).filter(|text| good && text.len() <= MAX_STATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_is_read_and_written_as_it_was() {
        let context = TraceContext::parse(PARENT, Some("congo=t61rcWkgMzE, rojo=00f0")).unwrap();
        assert_eq!(context.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id.to_string(), "00f067aa0ba902b7");
        assert!(context.sampled);
        assert_eq!(context.traceparent(), PARENT);
        assert_eq!(context.state.as_deref(), Some("congo=t61rcWkgMzE,rojo=00f0"));
    }

    #[test]
    fn only_the_flag_that_we_know_is_taken_over() {
        for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("ff", true)] {
            let header = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
            assert_eq!(TraceContext::parse(&header, None).unwrap().sampled, sampled, "{flags}");
        }
    }

    #[test]
    fn a_later_version_may_say_more_and_this_one_may_not() {
        let later = PARENT.replacen("00", "cc", 1);
        assert!(TraceContext::parse(&later, None).is_ok());
        assert!(TraceContext::parse(&format!("{later}-what-the-future"), None).is_ok());
        assert_eq!(TraceContext::parse(&format!("{later}x"), None), Err(NoTrace));
        assert_eq!(TraceContext::parse(&format!("{PARENT}-more"), None), Err(NoTrace));
    }

    #[test]
    fn what_breaks_a_rule_is_no_trace() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad, None), Err(NoTrace), "{bad:?}");
        }
    }

    #[test]
    fn a_state_that_is_no_good_is_dropped_alone() {
        let long = format!("a={}", "x".repeat(MAX_STATE));
        let many: Vec<String> = (0..=MAX_MEMBERS).map(|n| format!("k{n}=v")).collect();
        for bad in ["", "novalue", "K=v", "k=", "k=a=b", "k=\u{7f}", &long, &many.join(",")] {
            let context = TraceContext::parse(PARENT, Some(bad)).unwrap();
            assert_eq!(context.state, None, "{bad:?}");
        }
    }

    #[test]
    fn an_id_of_zeros_does_not_exist() {
        assert_eq!(TraceId::new([0; 16]), None);
        assert_eq!(SpanId::new([0; 8]), None);
        assert!(SpanId::new([1; 8]).is_some());
    }
}
