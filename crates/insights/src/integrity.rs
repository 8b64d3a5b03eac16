//! Whether a run's record is sound: nothing missing that is not said to be, nothing twice.
//!
//! **Invariant:** the check reads what is stored and folds it anew; it shares no state with the
//! code that wrote it.

use control_plane_domain::control::NOT_DELIVERED;
use control_plane_domain::event::ChainHash;
use control_plane_domain::metrics::RunMetrics;
use control_plane_domain::{CanonicalEvent, EventType, Ordinal, RunId, Seq};
use control_plane_projection::{PriceTable, Projection, apply_metrics, state};
use control_plane_storage::{Result, Store};
use serde_json::Value;

const PAGE: i64 = 1000;

/// What [`check`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Integrity {
    /// Envelopes recorded.
    pub envelopes: i64,
    /// Canonical events recorded.
    pub events: Seq,
    /// Ordinals that are recorded as missing: `from..=to`.
    pub gaps: Vec<(Ordinal, Ordinal)>,
    /// What is wrong, as sentences; empty for a sound record.
    pub faults: Vec<String>,
}

impl Integrity {
    /// Whether nothing is wrong. A recorded gap is not wrong.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Reads the whole record of a run: ordinals are 1..N but for recorded gaps, no message id stands
/// twice, `seq` is contiguous, the hash chain holds, and the state and the figures equal a cold fold
/// of the log. What calls cost is left out: prices may have been others.
///
/// # Errors
/// `NotFound`, and those of the database. A run that is being written may look unsound for the
/// moment between two reads; check it when it is over.
pub async fn check(store: &Store, id: RunId) -> Result<Integrity> {
    let mut found = Integrity::default();
    check_log(store, id, &mut found).await?;
    check_envelopes(store, id, &mut found).await?;
    Ok(found)
}

async fn check_log(store: &Store, id: RunId, found: &mut Integrity) -> Result<()> {
    let warm = state::load(store, id).await?;
    let head = store.run_head(id).await?;
    let mut cold = Projection::empty(id);
    let mut counted = RunMetrics::empty(id);
    let mut chain = ChainHash::EMPTY;
    loop {
        let page = store.events(id, found.events, PAGE).await?;
        if page.is_empty() {
            break;
        }
        for entry in page {
            let wanted = found.events + 1;
            if entry.seq != wanted {
                found.faults.push(format!("event {wanted} is missing: {} follows", entry.seq));
            }
            found.events = entry.seq;
            let Ok(text) = std::str::from_utf8(&entry.body) else {
                found.faults.push(format!("event {} is not UTF-8", entry.seq));
                continue;
            };
            chain = chain.then(text);
            if chain != entry.hash {
                found.faults.push(format!("the hash chain breaks at event {}", entry.seq));
                chain = entry.hash;
            }
            match serde_json::from_str::<CanonicalEvent>(text) {
                Ok(event) => {
                    note_gap(&event, found);
                    cold.apply(&event);
                    apply_metrics(&mut counted, &event, &PriceTable::default());
                }
                Err(fault) => {
                    found.faults.push(format!("event {} cannot be read: {fault}", entry.seq));
                }
            }
        }
    }
    if head.last_seq != found.events {
        found.faults.push(format!(
            "the run says that its log ends at {}, and it ends at {}",
            head.last_seq, found.events
        ));
    } else if head.hash != chain {
        found.faults.push("the run's chain hash is not its log's".to_owned());
    }
    if encoded(&warm) != encoded(&cold) {
        found.faults.push("the state differs from a cold fold of the log".to_owned());
    }
    let stored = store.metrics_get(id).await?.unwrap_or_else(|| RunMetrics::empty(id));
    counted.estimated_cost_usd = stored.estimated_cost_usd;
    if stored != counted {
        let fault = format!("the figures are {stored:?}, and counting the log gives {counted:?}");
        found.faults.push(fault);
    }
    Ok(())
}

fn note_gap(event: &CanonicalEvent, found: &mut Integrity) {
    if event.event_type != EventType::SessionStreamGap {
        return;
    }
    let ordinal = |key: &str| event.data.get(key).and_then(Value::as_i64);
    // It left no hole.
    if event.data.get("reason").and_then(Value::as_str) == Some(NOT_DELIVERED) {
        return;
    }
    if let (Some(from), Some(to)) = (ordinal("fromOrdinal"), ordinal("toOrdinal")) {
        found.gaps.push((from, to));
    }
}

fn encoded(projection: &Projection) -> Value {
    serde_json::to_value(projection).unwrap_or_default()
}

/// Whether the gaps on record, which may follow each other, have all these ordinals.
fn is_told(gaps: &[(Ordinal, Ordinal)], from: Ordinal, to: Ordinal) -> bool {
    let mut next = from;
    while next <= to {
        let Some((_, end)) = gaps.iter().find(|(first, last)| (*first..=*last).contains(&next))
        else {
            return false;
        };
        next = end + 1;
    }
    true
}

async fn check_envelopes(store: &Store, id: RunId, found: &mut Integrity) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    let mut last: Ordinal = 0;
    loop {
        let page = store.list_raw_by_run(id, last, PAGE).await?;
        if page.is_empty() {
            break;
        }
        for raw in page {
            let Some(ordinal) = raw.ordinal else { continue };
            if !is_told(&found.gaps, last + 1, ordinal - 1) {
                found.faults.push(format!(
                    "envelopes {} to {} are missing, and nothing says so",
                    last + 1,
                    ordinal - 1
                ));
            }
            last = ordinal;
            found.envelopes += 1;
            if !seen.insert(raw.envelope.message_id.clone()) {
                found.faults.push(format!("message {} is recorded twice", raw.envelope.message_id));
            }
        }
    }
    let session = store.session_get(id).await?;
    let cursor = session.map_or(0, |session| session.cursor);
    if cursor < last || !is_told(&found.gaps, last + 1, cursor) {
        found.faults.push(format!("the cursor is at {cursor}, and the last envelope is {last}"));
    }
    Ok(())
}
