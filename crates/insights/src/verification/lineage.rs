//! Which decisions a decision replaces, and which replace it.
//!
//! **Invariant:** a link is what a recorded Commitment says, held against what the other session's
//! Commitment is here. Walking ends, whatever the Commitments say: each session is visited once, and
//! no more than [`MAX_LINKS`] of them in each direction.

use std::collections::{HashSet, VecDeque};

use control_plane_domain::commitment::Commitment;
use control_plane_domain::{Run, RunId, RunState, SessionId};
use control_plane_storage::{Result, Store};
use serde::Serialize;

use super::Decided;
use super::read::{decided, run_of, successors};

/// Most links in each direction.
pub const MAX_LINKS: usize = 50;

/// A run's place among the decisions that replace each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    pub run_id: RunId,
    pub session_id: Option<SessionId>,
    pub status: RunState,
    pub commitment_hash: Option<String>,
    pub commitment: Option<Commitment>,
    pub commitment_source: Option<&'static str>,
    /// The decision that this one replaces, then the one that that one replaced, and so on.
    pub supersedes: Vec<Link>,
    /// The decisions that replace this one, then those that replace them.
    pub superseded_by: Vec<Link>,
    /// Whether there are more links than these.
    pub truncated: bool,
}

/// One decision that replaces another.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// How many steps away from the run that was asked about.
    pub depth: usize,
    /// The session at the other end of the link, and its run if there is one here.
    pub session_id: Option<SessionId>,
    pub run_id: Option<RunId>,
    pub status: Option<RunState>,
    /// The session whose decision names the other: the one that replaces.
    pub later_session_id: Option<SessionId>,
    /// What it says the hash of the replaced one is.
    pub claimed_hash: String,
    /// What that is, recomputed from what is recorded.
    pub replaced_hash: Option<String>,
    pub check: LinkCheck,
    /// Of the Commitment at the other end.
    pub action: Option<String>,
    pub outcome_positive: Option<bool>,
    pub commitment_hash: Option<String>,
    pub commitment_source: Option<&'static str>,
    /// The session is met again: the claims go round in a circle, so one of them is wrong.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cycle: bool,
}

/// Whether what a decision says of the one that it replaces is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkCheck {
    Match,
    Mismatch,
    /// The replaced Commitment is not here.
    Unknown,
}

impl LinkCheck {
    fn of(claimed: &str, replaced: Option<&str>) -> Self {
        match replaced {
            Some(hash) if hash == claimed => Self::Match,
            Some(_) => Self::Mismatch,
            None => Self::Unknown,
        }
    }
}

/// Follows a run's decision both ways.
///
/// # Errors
/// Those of the database.
pub async fn read(store: &Store, run: &Run) -> Result<Lineage> {
    let here = decided(store, run).await?;
    let mut lineage = Lineage {
        run_id: run.id,
        session_id: run.session_id.clone(),
        status: run.state,
        commitment_hash: here.commitment().map(Commitment::hash),
        commitment: here.commitment().cloned(),
        commitment_source: here.source(),
        supersedes: Vec::new(),
        superseded_by: Vec::new(),
        truncated: false,
    };
    back(store, run, here, &mut lineage).await?;
    forth(store, run, &mut lineage).await?;
    Ok(lineage)
}

/// What it replaces: each decision replaces at most one, so this is a line.
async fn back(store: &Store, run: &Run, here: Decided, lineage: &mut Lineage) -> Result<()> {
    let mut seen: HashSet<String> = session_of(run).into_iter().collect();
    let (mut later, mut decision) = (run.session_id.clone(), here);
    while let Some(reference) = decision.commitment().and_then(|it| it.supersedes.clone()) {
        if lineage.supersedes.len() >= MAX_LINKS {
            lineage.truncated = true;
            break;
        }
        let replaced = find(store, &reference.session_id).await?;
        let there = match &replaced {
            Some(run) => decided(store, run).await?,
            None => Decided::Nothing,
        };
        let session = SessionId::trusted(reference.session_id.clone());
        let cycle = !seen.insert(reference.session_id);
        let hash = there.commitment().map(Commitment::hash);
        lineage.supersedes.push(Link {
            depth: lineage.supersedes.len() + 1,
            session_id: Some(session.clone()),
            run_id: replaced.as_ref().map(|run| run.id),
            status: replaced.as_ref().map(|run| run.state),
            later_session_id: later.replace(session),
            check: LinkCheck::of(&reference.commitment_hash, hash.as_deref()),
            claimed_hash: reference.commitment_hash,
            replaced_hash: hash.clone(),
            action: there.commitment().map(|it| it.action.clone()),
            outcome_positive: there.commitment().map(|it| it.outcome_positive),
            commitment_hash: hash,
            commitment_source: there.source(),
            cycle,
        });
        if cycle {
            break;
        }
        decision = there;
    }
    Ok(())
}

/// What replaces it: several may, and each of them may be replaced again.
async fn forth(store: &Store, run: &Run, lineage: &mut Lineage) -> Result<()> {
    let mut seen: HashSet<String> = session_of(run).into_iter().collect();
    let mut open: VecDeque<(usize, SessionId, Option<String>)> = VecDeque::new();
    if let Some(session) = &run.session_id {
        open.push_back((1, session.clone(), lineage.commitment_hash.clone()));
    }
    while let Some((depth, replaced, hash)) = open.pop_front() {
        let room = MAX_LINKS - lineage.superseded_by.len();
        // One more than fits tells whether there are more.
        let limit = i64::try_from(room + 1).unwrap_or(i64::MAX);
        for later in successors(store, &replaced, limit).await? {
            if lineage.superseded_by.len() >= MAX_LINKS {
                lineage.truncated = true;
                return Ok(());
            }
            let Some(later_run) = run_of(store, later.run_id).await? else { continue };
            let there = decided(store, &later_run).await?;
            let own = there.commitment().map(Commitment::hash);
            let cycle = session_of(&later_run).is_none_or(|session| !seen.insert(session));
            lineage.superseded_by.push(Link {
                depth,
                session_id: later.session_id.clone(),
                run_id: Some(later.run_id),
                status: Some(later_run.state),
                later_session_id: later.session_id.clone(),
                check: LinkCheck::of(&later.claimed_hash, hash.as_deref()),
                claimed_hash: later.claimed_hash,
                replaced_hash: hash.clone(),
                action: there.commitment().map(|it| it.action.clone()),
                outcome_positive: there.commitment().map(|it| it.outcome_positive),
                commitment_hash: own.clone(),
                commitment_source: there.source(),
                cycle,
            });
            if let Some(session) = later.session_id.filter(|_| !cycle) {
                open.push_back((depth + 1, session, own));
            }
        }
    }
    Ok(())
}

fn session_of(run: &Run) -> Option<String> {
    run.session_id.as_ref().map(|id| id.as_str().to_owned())
}

/// The run of a session that a Commitment names, which may be any text.
async fn find(store: &Store, session: &str) -> Result<Option<Run>> {
    if session.is_empty() || session.len() > SessionId::MAX_BYTES || session.contains('\0') {
        return Ok(None);
    }
    store.run_by_session(&SessionId::trusted(session.to_owned())).await
}
