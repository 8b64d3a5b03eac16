//! Whose turn it is in a session, by the rules of its mode.
//!
//! **Invariant:** nothing is invented. A mode that is not known here gives no answer.

use std::collections::BTreeSet;

use control_plane_domain::Session;
use control_plane_projection::{Contribution, Projection, Vote};
use serde::Serialize;

/// What a session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Something to decide on.
    Proposal,
    /// Evaluations of a proposal, or votes on it at once.
    Evaluations,
    Votes,
    /// Everybody's acceptance of an offer.
    Acceptances,
    TaskRequest,
    TaskAcceptance,
    TaskResult,
    HandoffOffer,
    /// The acceptance of a handoff, or that it is declined.
    HandoffAnswer,
    ApprovalRequest,
    /// Approvals, rejections or abstentions.
    Ballots,
    Contributions,
    /// The last word: the initiator's, unless the session's policy lets others say it.
    Commitment,
}

/// What a session waits for, and from whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingFor {
    pub what: What,
    /// The proposal, request, task or handoff that it is about.
    pub subject_id: Option<String>,
    /// Who may or must say it.
    pub participants: Vec<String>,
}

/// Whose turn it is; `None` when the mode does not tell, or the decision is made.
pub(super) fn waiting_for(session: &Session, state: &Projection) -> Option<WaitingFor> {
    let scene = Scene::of(session, state)?;
    match session.mode_name.as_str() {
        "macp.mode.decision.v1" => Some(scene.decision()),
        "macp.mode.proposal.v1" => Some(scene.proposal()),
        "macp.mode.task.v1" => Some(scene.task()),
        "macp.mode.handoff.v1" => Some(scene.handoff()),
        "macp.mode.quorum.v1" => Some(scene.quorum()),
        "ext.multi_round.v1" => Some(scene.multi_round()),
        _ => None,
    }
}

/// What was said so far, by whom.
struct Scene<'a> {
    session: &'a Session,
    state: &'a Projection,
    said: Vec<&'a Contribution>,
}

impl<'a> Scene<'a> {
    fn of(session: &'a Session, state: &'a Projection) -> Option<Self> {
        let current = state.decision.current.as_ref();
        if session.cursor == 0 || current.is_some_and(|current| current.finalized) {
            return None;
        }
        let said = current.map(|current| current.proposals.iter().collect()).unwrap_or_default();
        Some(Self { session, state, said })
    }

    fn decision(&self) -> WaitingFor {
        let current = self.state.decision.current.as_ref();
        let Some(id) = current.and_then(|current| current.proposal_id.as_deref()) else {
            return self.anybody(What::Proposal);
        };
        let voted: BTreeSet<&str> = self.state.votes(id).map(|(who, _)| who).collect();
        // Whoever proposed it has an opinion already.
        let spoke: BTreeSet<&str> = self.about(id).map(|one| one.participant_id.as_str()).collect();
        let silent = self.others(&spoke);
        if voted.is_empty() && !silent.is_empty() {
            return about(What::Evaluations, id, silent);
        }
        self.or_commitment(What::Votes, id, self.others(&voted))
    }

    /// The offer that was made last and is not withdrawn has to be accepted by everybody.
    fn proposal(&self) -> WaitingFor {
        let withdrawn: BTreeSet<&str> =
            self.of_type("Withdraw").filter_map(|one| one.proposal_id.as_deref()).collect();
        let offers = self.said.iter().rev().filter(|one| {
            matches!(one.message_type.as_deref(), Some("Proposal" | "CounterProposal"))
        });
        let mut open = offers.filter_map(|one| one.proposal_id.as_deref());
        let Some(id) = open.find(|id| !withdrawn.contains(id)) else {
            return self.anybody(What::Proposal);
        };
        let accepted = self.state.votes(id).filter(|(_, vote)| *vote == Vote::Allow);
        let accepted: BTreeSet<&str> = accepted.map(|(who, _)| who).collect();
        self.or_commitment(What::Acceptances, id, self.others(&accepted))
    }

    fn task(&self) -> WaitingFor {
        let Some(request) = self.of_type("TaskRequest").last() else {
            return self.initiator(What::TaskRequest, None);
        };
        let id = request.proposal_id.as_deref();
        if self.of_type("TaskComplete").chain(self.of_type("TaskFail")).next().is_some() {
            return self.initiator(What::Commitment, id);
        }
        // The first acceptance counts.
        if let Some(taken) = self.of_type("TaskAccept").next() {
            let assignee = vec![taken.participant_id.clone()];
            return about(What::TaskResult, id.unwrap_or_default(), assignee);
        }
        let mut out: BTreeSet<&str> =
            self.of_type("TaskReject").map(|one| one.participant_id.as_str()).collect();
        out.insert(&request.participant_id);
        match self.others(&out) {
            nobody if nobody.is_empty() => self.initiator(What::Commitment, id),
            left => about(What::TaskAcceptance, id.unwrap_or_default(), left),
        }
    }

    fn handoff(&self) -> WaitingFor {
        let Some(offer) = self.of_type("HandoffOffer").last() else {
            return self.initiator(What::HandoffOffer, None);
        };
        let id = offer.proposal_id.as_deref().unwrap_or_default();
        match self.state.votes(id).next().map(|(_, vote)| vote) {
            Some(Vote::Allow) => self.initiator(What::Commitment, Some(id)),
            Some(Vote::Deny | Vote::Abstain) => self.initiator(What::HandoffOffer, None),
            None => {
                let giver = BTreeSet::from([offer.participant_id.as_str()]);
                // The state does not keep whom it was offered to; with two it is plain.
                let others = self.others(&giver);
                let asked = if others.len() == 1 { others } else { Vec::new() };
                about(What::HandoffAnswer, id, asked)
            }
        }
    }

    fn quorum(&self) -> WaitingFor {
        let Some(request) = self.of_type("ApprovalRequest").last() else {
            return self.initiator(What::ApprovalRequest, None);
        };
        let id = request.proposal_id.as_deref().unwrap_or_default();
        let tally = self.state.policy.vote_tally.iter().find(|one| one.proposal_id == id);
        if tally.is_some_and(|tally| tally.allow >= tally.threshold) {
            return self.initiator(What::Commitment, Some(id));
        }
        let cast: BTreeSet<&str> = self.state.votes(id).map(|(who, _)| who).collect();
        self.or_commitment(What::Ballots, id, self.others(&cast))
    }

    /// Rounds go on until everybody says the same.
    fn multi_round(&self) -> WaitingFor {
        let last = |who: &str| {
            let mut theirs = self.of_type("Contribute").rev();
            theirs.find(|one| one.participant_id == who).map(|one| one.action.as_str())
        };
        let participants = &self.session.participants;
        let spoke: BTreeSet<&str> =
            participants.iter().map(String::as_str).filter(|who| last(who).is_some()).collect();
        let silent = self.others(&spoke);
        let values: BTreeSet<&str> = spoke.iter().filter_map(|who| last(who)).collect();
        let (what, participants) = match (silent.is_empty(), values.len()) {
            (false, _) => (What::Contributions, silent),
            (true, 0 | 1) => return self.initiator(What::Commitment, None),
            (true, _) => (What::Contributions, participants.clone()),
        };
        WaitingFor { what, subject_id: None, participants }
    }

    fn of_type(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a Contribution> {
        let said = self.said.iter().copied();
        said.filter(move |one| one.message_type.as_deref() == Some(name))
    }

    fn about(&self, id: &str) -> impl Iterator<Item = &'a Contribution> {
        let said = self.said.iter().copied();
        said.filter(move |one| one.proposal_id.as_deref() == Some(id))
    }

    fn others(&self, done: &BTreeSet<&str>) -> Vec<String> {
        let all = self.session.participants.iter();
        all.filter(|who| !done.contains(who.as_str())).cloned().collect()
    }

    fn or_commitment(&self, what: What, id: &str, missing: Vec<String>) -> WaitingFor {
        if missing.is_empty() {
            return self.initiator(What::Commitment, Some(id));
        }
        about(what, id, missing)
    }

    fn initiator(&self, what: What, id: Option<&str>) -> WaitingFor {
        let participants = self.session.initiator.iter().cloned().collect();
        WaitingFor { what, subject_id: id.map(str::to_owned), participants }
    }

    fn anybody(&self, what: What) -> WaitingFor {
        WaitingFor { what, subject_id: None, participants: self.session.participants.clone() }
    }
}

fn about(what: What, id: &str, participants: Vec<String>) -> WaitingFor {
    let subject_id = Some(id.to_owned()).filter(|id| !id.is_empty());
    WaitingFor { what, subject_id, participants }
}
