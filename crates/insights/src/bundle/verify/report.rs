//! What a verification found, for people and for programs.

use std::fmt;

use control_plane_domain::{RunId, RunState, Seq};
use serde::Serialize;

use super::super::format::Link;

/// Most sentences of one check.
const MAX_SENTENCES: usize = 5;

/// What was found in a bundle.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether nothing is wrong. That something is not in the bundle is not wrong.
    pub sound: bool,
    /// `JSON` or `NDJSON`.
    pub shape: String,
    pub run_id: Option<RunId>,
    pub session_id: Option<String>,
    pub status: Option<RunState>,
    pub exported_at: Option<String>,
    /// The log that the run was exported from.
    pub log_id: Option<String>,
    pub canonical_events: u64,
    pub raw_events: u64,
    pub artifacts: u64,
    /// The run's last event when it was exported.
    pub latest_seq: Option<Seq>,
    /// The head of the hash chain after the last event in the bundle.
    pub hash: Option<String>,
    /// What keeps the bundle from being the run's whole log; absent when it is that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
    pub checks: Vec<Check>,
    /// Where the chain begins, of a bundle that begins in the middle of a log and was not read
    /// with this.
    #[serde(skip)]
    pub begins_after: Option<Link>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name: a part's key, or a word.
    pub check: &'static str,
    pub result: Verdict,
    pub found: String,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Ok,
    Fault,
    /// It cannot be told from this file.
    NotChecked,
}

impl Report {
    /// The faults, each with the name of its check in front.
    pub fn faults(&self) -> Vec<String> {
        let faults = self.checks.iter().filter(|check| check.result == Verdict::Fault);
        faults.map(|check| format!("{}: {}", check.check, check.found)).collect()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Fault => "FAULT",
            Self::NotChecked => "not checked",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
        let run = or_unknown(self.run_id.map(|id| id.to_string()));
        let session = self.session_id.as_deref().unwrap_or("none");
        let status = self.status.map(RunState::as_str).unwrap_or("of unknown status");
        writeln!(f, "run         {run}, {status}, session {session}")?;
        let at = or_unknown(self.exported_at.clone());
        let log = or_unknown(self.log_id.clone());
        writeln!(f, "exported    {at} from log {log}")?;
        let Self { shape, canonical_events, raw_events, artifacts, .. } = self;
        writeln!(
            f,
            "bundle      {shape}: {canonical_events} events, {raw_events} raw envelopes, {artifacts} artifacts"
        )?;
        if let Some(partial) = &self.partial {
            writeln!(f, "partial     {partial}")?;
        }
        if let Some(hash) = &self.hash {
            writeln!(f, "chain head  {hash}")?;
        }
        writeln!(f)?;
        for Check { check, result, found } in &self.checks {
            writeln!(f, "{result:<12}{check:<16} {found}")?;
        }
        writeln!(f)?;
        f.write_str(if self.sound { "The bundle is sound." } else { "The bundle is NOT SOUND." })
    }
}

/// Sentences about what is wrong with one thing.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    told: Vec<String>,
    more: u64,
}

impl Faults {
    pub(super) fn add(&mut self, sentence: String) {
        if self.told.len() < MAX_SENTENCES {
            self.told.push(sentence);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// The check: `fine` when nothing is wrong.
    pub(super) fn check(self, check: &'static str, fine: impl FnOnce() -> String) -> Check {
        if self.told.is_empty() {
            return Check { check, result: Verdict::Ok, found: fine() };
        }
        let mut found = self.told.join("; ");
        if self.more > 0 {
            found = format!("{found}; and {} more", self.more);
        }
        Check { check, result: Verdict::Fault, found }
    }
}
