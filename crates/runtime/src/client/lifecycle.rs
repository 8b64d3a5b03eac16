//! The calls that change a session's life: cancel, suspend, resume.
//!
//! **Invariant:** an acknowledgement that is not `ok` is a refusal, whatever the gRPC status says.

use control_plane_domain::runtime::{RuntimeError, RuntimeErrorKind};
use control_plane_domain::{SessionId, SessionState};
use tonic::{Code, Request};

use super::Client;
use crate::{convert, error, proto};

impl Client {
    pub(super) async fn cancel(
        &self,
        id: &SessionId,
        reason: &str,
    ) -> Result<SessionState, RuntimeError> {
        const METHOD: &str = "CancelSession";
        let request = proto::CancelSessionRequest {
            session_id: id.as_str().to_owned(),
            reason: reason.to_owned(),
        };
        let mut stub = self.unary.clone();
        let answer = self.call(METHOD, stub.cancel_session(Request::new(request))).await?;
        acknowledged(METHOD, answer.ack)
    }

    pub(super) async fn suspend(
        &self,
        id: &SessionId,
        reason: &str,
    ) -> Result<SessionState, RuntimeError> {
        const METHOD: &str = "SuspendSession";
        let request = proto::SuspendSessionRequest {
            session_id: id.as_str().to_owned(),
            reason: reason.to_owned(),
        };
        let mut stub = self.unary.clone();
        let answer = self.call(METHOD, stub.suspend_session(Request::new(request))).await?;
        acknowledged(METHOD, answer.ack)
    }

    pub(super) async fn resume(
        &self,
        id: &SessionId,
        reason: &str,
    ) -> Result<SessionState, RuntimeError> {
        const METHOD: &str = "ResumeSession";
        let request = proto::ResumeSessionRequest {
            session_id: id.as_str().to_owned(),
            reason: reason.to_owned(),
        };
        let mut stub = self.unary.clone();
        let answer = self.call(METHOD, stub.resume_session(Request::new(request))).await?;
        acknowledged(METHOD, answer.ack)
    }
}

/// What the session is now, or why it is not what was asked for.
fn acknowledged(method: &str, ack: Option<proto::Ack>) -> Result<SessionState, RuntimeError> {
    let ack = ack.ok_or_else(|| error::malformed(method, "acknowledgement"))?;
    if ack.ok {
        return Ok(convert::state(ack.session_state()));
    }
    let refusal = error::from_frame(&ack.error.unwrap_or_default());
    // A refusal for a reason that we don't know is no fault of the runtime.
    if refusal.kind == RuntimeErrorKind::Internal {
        let grpc_code = Code::FailedPrecondition.into();
        return Err(RuntimeError { kind: RuntimeErrorKind::Conflict, grpc_code, ..refusal });
    }
    Err(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> RuntimeErrorKind {
        let error = proto::MacpError { code: code.to_owned(), ..proto::MacpError::default() };
        let ack = proto::Ack { ok: false, error: Some(error), ..proto::Ack::default() };
        acknowledged("CancelSession", Some(ack)).unwrap_err().kind
    }

    #[test]
    fn an_acknowledgement_that_is_not_ok_is_a_refusal() {
        assert_eq!(refused("FORBIDDEN"), RuntimeErrorKind::Forbidden);
        assert_eq!(refused("SESSION_NOT_OPEN"), RuntimeErrorKind::Conflict);
        assert_eq!(refused("SOMETHING_NEW"), RuntimeErrorKind::Conflict);
        let silent = acknowledged("CancelSession", Some(proto::Ack::default())).unwrap_err();
        assert_eq!(silent.kind, RuntimeErrorKind::Conflict);
        assert!(acknowledged("CancelSession", None).is_err());
    }

    #[test]
    fn an_acknowledgement_tells_what_the_session_is() {
        let ack = proto::Ack {
            ok: true,
            session_state: proto::SessionState::Cancelled.into(),
            ..proto::Ack::default()
        };
        assert_eq!(acknowledged("CancelSession", Some(ack)), Ok(SessionState::Cancelled));
    }
}
