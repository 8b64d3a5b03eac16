//! What others asked of the run.
//!
//! **Invariant:** what is asked twice is done once, also when the first time is long past: a
//! request that cannot be carried out again must not cost the run its batch.

use std::collections::HashSet;

use control_plane_domain::rollup::Figures;
use control_plane_domain::{RunId, RunState, SessionState};
use control_plane_storage::model::{Artifact, InboxItem, InboxPage};
use control_plane_storage::{Error, SIGNAL, Store};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Exit, Task};
use crate::adopt::{ADOPTION, Posted};
use crate::artifacts::MAX_ARTIFACTS;
use crate::listeners::Hint;
use crate::signals::Heard;

/// The kind of an item that adds an artifact.
pub(crate) const ARTIFACT: &str = "artifact";
/// The kind of an item that ends a run whose session nobody has seen.
pub(crate) const CANCEL: &str = "cancel";
/// The kind of an item that tells what the runtime said of the session to somebody else.
pub(crate) const SESSION_SEEN: &str = "session_seen";

/// Most items that are read at once, so that a run whose owner was long away takes no more memory
/// than another one.
const AT_ONCE: usize = 256;

/// What is in the inbox, and which artifacts the run has.
pub(super) struct Inbox {
    page: InboxPage,
    /// Items that are signals which are recorded already.
    recorded: HashSet<i64>,
    artifacts: HashSet<Uuid>,
    /// What the run's first events add to the sums over runs, when it is filed elsewhere.
    before: Figures,
}

/// The answer of the database.
pub(super) type Fetched = Result<Inbox, Error>;

#[derive(Deserialize)]
struct ArtifactRequest {
    id: Uuid,
    kind: String,
    label: String,
    uri: Option<String>,
    inline: Option<Value>,
}

impl Task<'_> {
    /// Reads the inbox.
    pub(super) fn fetch_inbox(&self) -> BoxFuture<'static, Fetched> {
        let (store, id) = (self.context.store.clone(), self.ledger.run.id);
        // A burst of signals is listed again while its first part is being committed.
        let done: Vec<i64> = self.ledger.done_items().iter().copied().collect();
        let readers = std::sync::Arc::clone(&self.context.readers);
        let read_to = self.ledger.read_to();
        async move {
            let _turn = readers.acquire().await;
            let page = store.inbox_page(id, &done, AT_ONCE).await?;
            let items = &page.items;
            let adds = items.iter().any(|item| item.kind == ARTIFACT);
            let artifacts = if adds { store.artifact_ids(id).await? } else { Vec::new() };
            let artifacts = artifacts.into_iter().collect();
            let recorded = recorded(&store, id, items).await?;
            let before = match items.iter().any(|item| item.kind == ADOPTION) {
                true => store.rollup_figures(id, read_to).await?,
                false => Figures::default(),
            };
            Ok(Inbox { page, recorded, artifacts, before })
        }
        .boxed()
    }

    /// Carries out what is in the inbox; the last of it is committed with the next batch.
    pub(super) async fn take_inbox(&mut self) -> Result<(), Exit> {
        loop {
            let inbox =
                self.fetch_inbox().await.map_err(|fault| Exit::Reload(fault.to_string()))?;
            let more = inbox.page.more;
            self.carry_out_all(inbox);
            if !more {
                return Ok(());
            }
            self.commit().await?;
        }
    }

    /// Carries out what was read. When that was not all, we are told to read again.
    pub(super) fn carry_out_all(&mut self, inbox: Inbox) {
        let Inbox { page, recorded, artifacts, before } = inbox;
        let id = self.ledger.run.id;
        self.ledger.forget_done(&page.gone);
        if page.more {
            self.listener.ask_again();
        }
        for item in page.items {
            if recorded.contains(&item.id) {
                self.ledger.inbox_done(item.id);
            } else if !self.ledger.has_done(item.id) {
                self.carry_out(id, item, &artifacts, &before);
            }
        }
    }

    fn carry_out(
        &mut self,
        run_id: RunId,
        item: InboxItem,
        artifacts: &HashSet<Uuid>,
        before: &Figures,
    ) {
        let now = self.now();
        let InboxItem { id: item, kind, payload, .. } = item;
        if kind == SIGNAL
            && let Ok(heard) = serde_json::from_value::<Heard>(payload.clone())
        {
            let authenticated = heard.sender_authenticated;
            match heard.into_envelope() {
                Some(envelope) => self.ledger.signal(envelope, authenticated, item, now),
                None => self.ledger.inbox_done(item),
            }
        } else if kind == CANCEL {
            let bound_too = payload.get("bound").and_then(Value::as_bool).unwrap_or(false);
            self.cancel_attaching(bound_too);
            self.ledger.inbox_done(item);
        } else if kind == SESSION_SEEN {
            let state = payload.get("state").and_then(Value::as_str);
            let state = state.and_then(|text| text.parse().ok());
            // It may have changed since, so it only makes the run look.
            let hint = match state.filter(|state| *state != SessionState::Unspecified) {
                Some(state) => Hint::Seen(state),
                None => Hint::Look,
            };
            self.context.listeners.tell(&self.ledger.session.session_id, hint);
            self.ledger.inbox_done(item);
        } else if kind == ARTIFACT
            && let Ok(request) = serde_json::from_value::<ArtifactRequest>(payload.clone())
        {
            let ArtifactRequest { id, kind, label, uri, inline } = request;
            if artifacts.contains(&id) || self.ledger.has_artifact(id) {
                self.ledger.inbox_done(item);
                return;
            }
            // Whoever asked finds that it is not there.
            if artifacts.len() + self.ledger.artifacts_besides(artifacts) >= MAX_ARTIFACTS {
                tracing::info!(run.id = %run_id, "Dropped an artifact: the run has as many as it may");
                self.ledger.inbox_done(item);
                return;
            }
            let artifact = Artifact { id, run_id, kind, label, uri, inline, created_at: now };
            self.ledger.artifact(artifact, item, now);
        } else if kind == ADOPTION
            && let Ok(posted) = serde_json::from_value::<Posted>(payload.clone())
            && let Some((descriptor, request_hash)) = posted.read()
        {
            self.ledger.adopt(&descriptor, request_hash, before, item, now);
        } else {
            // A newer version may have asked for it; ours cannot do it, and says so.
            tracing::warn!(run.id = %run_id, inbox.kind = kind, "Dropped an unknown request");
            self.ledger.inbox_done(item);
        }
    }
}

impl Task<'_> {
    /// Ends a run that has not begun to follow its session; with `bound_too`, also when its
    /// session is known. A run that follows one ends with it, so for that this does nothing.
    fn cancel_attaching(&mut self, bound_too: bool) {
        let now = self.now();
        let may = match self.ledger.run.state {
            RunState::Queued | RunState::Starting => true,
            RunState::BindingSession => bound_too,
            RunState::Running
            | RunState::Suspended
            | RunState::Completed
            | RunState::Failed
            | RunState::Cancelled => false,
        };
        if may && let Err(fault) = self.ledger.advance(RunState::Cancelled, now) {
            tracing::error!(run.id = %self.ledger.run.id, error = %fault, "Could not cancel a run");
        }
    }
}

/// Which items are signals that the run has recorded: two instances may have heard them.
async fn recorded(store: &Store, id: RunId, items: &[InboxItem]) -> Result<HashSet<i64>, Error> {
    let signals = items.iter().filter(|item| item.kind == SIGNAL).filter_map(|item| {
        let heard = Heard::deserialize(&item.payload).ok()?;
        Some((item.id, (heard.sender, heard.message_id)))
    });
    let signals: Vec<(i64, (String, String))> = signals.collect();
    if signals.is_empty() {
        return Ok(HashSet::new());
    }
    let keys = signals.iter().map(|(_, key)| key.clone()).collect();
    let recorded = store.signals_recorded(id, keys).await?;
    Ok(signals.into_iter().filter(|(_, key)| recorded.contains(key)).map(|(id, _)| id).collect())
}
