//! A run that was discovered becomes somebody's.

use std::collections::HashSet;

use control_plane_domain::normalize::Normalizer;
use control_plane_domain::rollup::Figures;
use control_plane_domain::{RunDescriptor, Seq, Timestamp, control};

use super::Ledger;
use crate::{adopt, launch};

impl Ledger {
    /// The log's end when the run was read.
    pub(crate) fn read_to(&self) -> Seq {
        self.counted.read_to()
    }

    /// The run becomes that of whoever posted `descriptor`, carrying out inbox item `item`. What is
    /// known of the session stays; what the run's end has added to its metadata, too. Its events up
    /// to [`Ledger::read_to`] add `before` to the sums over runs.
    pub(crate) fn adopt(
        &mut self,
        descriptor: &RunDescriptor,
        request_hash: String,
        before: &Figures,
        item: i64,
        now: Timestamp,
    ) {
        self.counted.moves(before);
        let (posted, _session) = launch::records(descriptor, self.run.created_at);
        let mut metadata = posted.metadata;
        for (key, value) in self.metadata.unpack() {
            metadata.entry(key).or_insert(value);
        }
        metadata.insert("modeName".to_owned(), self.session.mode_name.clone().into());
        self.set_metadata(metadata);
        self.run.mode = posted.mode;
        self.run.runtime_version = posted.runtime_version.or(self.run.runtime_version.take());
        self.run.idempotency_key = posted.idempotency_key;
        self.run.request_hash = Some(request_hash);
        self.run.source_kind = posted.source_kind;
        self.run.source_ref = posted.source_ref;
        self.run.tags = posted.tags;

        let differences = adopt::differences(&descriptor.session, &self.session);
        if self.session.participants.is_empty() {
            self.session.participants = descriptor.participants();
        }
        let known: HashSet<String> = self.projection.known_participants().into_iter().collect();
        self.event(control::session_adopted(&self.session, differences, now), now);
        for participant in self.session.participants.clone() {
            if !known.contains(&participant) {
                self.event(control::participant_seen(&participant, now), now);
            }
        }
        let declared = self.projection.known_participants();
        self.normalizer = Normalizer::new(declared, self.session.last_event_ts);
        self.inbox_done(item);
    }
}
