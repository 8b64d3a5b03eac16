//! What is said in a session of each mode, as data: for plays, and for whoever has to say it again
//! and again until a runtime that dies has taken it.
//!
//! **Invariant:** said in this order, by these speakers, every line is accepted, and the last one
//! resolves the session.

use crate::agent::{Agent, Cast};
use crate::message::{self, Message, Outcome};

/// Who says a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The initiator.
    Alice,
    /// Takes part.
    Bob,
    /// Takes part.
    Carol,
    /// Takes part in a quorum.
    Dave,
}

impl Speaker {
    /// The agent of that name.
    pub fn of(self, cast: &Cast) -> &Agent {
        match self {
            Self::Alice => &cast.alice,
            Self::Bob => &cast.bob,
            Self::Carol => &cast.carol,
            Self::Dave => &cast.dave,
        }
    }
}

/// Something said.
#[derive(Debug, Clone)]
pub struct Line {
    /// Who says it.
    pub speaker: Speaker,
    /// What.
    pub message: Message,
}

/// A conversation without its `SessionStart`, which is Alice's.
#[derive(Debug, Clone)]
pub struct Script {
    /// One of the constants of [`crate::message`].
    pub mode: &'static str,
    /// Who may speak.
    pub participants: &'static [&'static str],
    /// What is said, in order.
    pub lines: Vec<Line>,
    /// The index of a line that may be said any number of times where it stands.
    pub again: Option<usize>,
}

impl Script {
    fn new(mode: &'static str, participants: &'static [&'static str]) -> Self {
        Self { mode, participants, lines: Vec::new(), again: None }
    }

    fn say(mut self, speaker: Speaker, message: Message) -> Self {
        self.lines.push(Line { speaker, message });
        self
    }

    /// The same for a line that may be said again.
    fn say_often(mut self, speaker: Speaker, message: Message) -> Self {
        self.again = Some(self.lines.len());
        self.say(speaker, message)
    }

    /// With the line that may be said again said `more` times more.
    #[must_use]
    pub fn with_more(mut self, more: usize) -> Self {
        if let Some((place, line)) =
            self.again.and_then(|place| Some((place, self.lines.get(place)?.clone())))
        {
            self.lines.splice(place..place, std::iter::repeat_n(line, more));
        }
        self
    }
}

/// Two options, evaluations, an objection, votes: `p1` wins two to one.
pub fn decision() -> Script {
    use Speaker::{Alice, Bob, Carol};
    Script::new(message::DECISION, &["alice", "bob", "carol"])
        .say(Alice, message::decision::proposal("p1", "deploy now"))
        .say(Bob, message::decision::proposal("p2", "deploy tomorrow"))
        .say(Bob, message::decision::evaluation("p1", "APPROVE", 0.9))
        .say_often(Carol, message::decision::evaluation("p1", "REVIEW", 0.4))
        .say(Carol, message::decision::objection("p1", "low"))
        .say(Alice, message::decision::vote("p1", "APPROVE"))
        .say(Bob, message::decision::vote("p1", "APPROVE"))
        .say(Carol, message::decision::vote("p1", "REJECT"))
        .say(Alice, message::commitment("p1", "decision.selected", Outcome::Positive))
}

/// An offer, a rejection, a counteroffer that both accept.
pub fn proposal() -> Script {
    use Speaker::{Alice, Bob};
    Script::new(message::PROPOSAL, &["alice", "bob"])
        .say(Alice, message::proposal::proposal("o1", "100 pieces"))
        .say(Bob, message::proposal::reject("o1"))
        .say(Bob, message::proposal::counter_proposal("o2", "o1", "120 pieces"))
        .say(Alice, message::proposal::withdraw("o1"))
        .say(Alice, message::proposal::accept("o2"))
        .say(Bob, message::proposal::accept("o2"))
        .say(Alice, message::commitment("c1", "proposal.accepted", Outcome::Positive))
}

/// A task that Bob takes, reports on and completes.
pub fn task() -> Script {
    use Speaker::{Alice, Bob};
    Script::new(message::TASK, &["alice", "bob"])
        .say(Alice, message::task::request("t1", "sum up the quarter", "bob"))
        .say(Bob, message::task::accept("t1", "bob"))
        .say_often(Bob, message::task::update("t1", 0.5, "half of it"))
        .say(Bob, message::task::complete("t1", "bob", "a good quarter"))
        .say(Alice, message::commitment("c1", "task.completed", Outcome::Positive))
}

/// An offer with context: Bob declines, Carol accepts.
pub fn handoff() -> Script {
    use Speaker::{Alice, Bob, Carol};
    Script::new(message::HANDOFF, &["alice", "bob", "carol"])
        .say(Alice, message::handoff::offer("h1", "bob", "on call"))
        .say(Bob, message::handoff::decline("h1", "bob"))
        .say(Alice, message::handoff::offer("h2", "carol", "on call"))
        .say(Alice, message::handoff::context("h2", "two open incidents"))
        .say(Carol, message::handoff::accept("h2", "carol"))
        .say(Alice, message::commitment("c1", "handoff.accepted", Outcome::Positive))
}

/// Two of three have to approve: one does, one abstains, one more does.
pub fn quorum() -> Script {
    use Speaker::{Alice, Bob, Carol, Dave};
    Script::new(message::QUORUM, &["bob", "carol", "dave"])
        .say(Alice, message::quorum::request("r1", "delete the old data", 2))
        .say(Bob, message::quorum::approve("r1"))
        .say(Carol, message::quorum::abstain("r1"))
        .say(Dave, message::quorum::approve("r1"))
        .say(Alice, message::commitment("c1", "quorum.approved", Outcome::Positive))
}

/// The same request, refused: the outcome is negative.
pub fn quorum_refused() -> Script {
    use Speaker::{Alice, Bob, Carol};
    Script::new(message::QUORUM, &["bob", "carol", "dave"])
        .say(Alice, message::quorum::request("r1", "delete the backups", 2))
        .say(Bob, message::quorum::reject("r1"))
        .say(Carol, message::quorum::reject("r1"))
        .say(Alice, message::commitment("c1", "quorum.rejected", Outcome::Negative))
}

/// Two who disagree first, one of them in the old JSON form, and then agree.
pub fn multi_round() -> Script {
    use Speaker::{Alice, Bob, Carol};
    Script::new(message::MULTI_ROUND, &["bob", "carol"])
        .say(Bob, message::multi_round::contribute("blue"))
        .say_often(Carol, message::multi_round::contribute_json("green"))
        .say(Carol, message::multi_round::contribute("blue"))
        .say(Alice, message::commitment("c1", "multi_round.converged", Outcome::Positive))
}

/// One of every mode, and of every outcome.
pub const ALL: [fn() -> Script; 7] =
    [decision, proposal, task, handoff, quorum, quorum_refused, multi_round];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_that_may_be_said_again_is() {
        let (once, often) = (task(), task().with_more(3));

        assert_eq!(often.lines.len(), once.lines.len() + 3);
        let said = |script: &Script, message: &Message| {
            script.lines.iter().filter(|line| line.message == *message).count()
        };
        assert_eq!(said(&often, &once.lines[2].message), 4);
        assert_eq!(proposal().with_more(9).lines.len(), proposal().lines.len());
    }
}
