//! Tables of the mapping.

use tonic::metadata::MetadataValue;

use super::*;

fn coded(code: Code, registry: &'static str) -> Status {
    let mut status = Status::new(code, "sentence");
    status.metadata_mut().insert("macp-error-code", MetadataValue::from_static(registry));
    status
}

fn kind(status: &Status) -> Kind {
    from_status("runtime", "Method", status).kind
}

#[test]
fn the_registry_code_wins_over_the_grpc_code() {
    for (code, registry, expected) in [
        (Code::NotFound, "SESSION_NOT_FOUND", Kind::NotFound),
        (Code::FailedPrecondition, "RECEIPT_UNAVAILABLE", Kind::ReceiptUnavailable),
        (Code::ResourceExhausted, "RATE_LIMITED", Kind::RateLimited),
        (Code::ResourceExhausted, "STREAM_LAGGED", Kind::StreamLagged),
        (Code::ResourceExhausted, "PAYLOAD_TOO_LARGE", Kind::InvalidArgument),
        (Code::PermissionDenied, "POLICY_DENIED", Kind::Forbidden),
        (Code::FailedPrecondition, "SESSION_NOT_OPEN", Kind::Conflict),
        (Code::Unauthenticated, "UNAUTHENTICATED", Kind::Unauthenticated),
        (Code::NotFound, "A_CODE_OF_TOMORROW", Kind::NotFound),
    ] {
        assert_eq!(kind(&coded(code, registry)), expected, "{registry}");
    }
}

#[test]
fn without_a_registry_code_the_grpc_code_decides() {
    for (code, expected) in [
        (Code::InvalidArgument, Kind::InvalidArgument),
        (Code::OutOfRange, Kind::InvalidArgument),
        (Code::Aborted, Kind::Conflict),
        (Code::NotFound, Kind::NotFound),
        (Code::ResourceExhausted, Kind::RateLimited),
        (Code::Unimplemented, Kind::Unimplemented),
        (Code::Unavailable, Kind::Unavailable),
        (Code::DeadlineExceeded, Kind::Timeout),
        (Code::DataLoss, Kind::Internal),
    ] {
        assert_eq!(kind(&Status::new(code, "")), expected, "{code:?}");
    }
}

#[test]
fn missing_history_says_where_it_starts_again() {
    let mut status = coded(Code::FailedPrecondition, "HISTORY_UNAVAILABLE");
    status.metadata_mut().insert_bin(
        "macp-error-details-bin",
        MetadataValue::from_bytes(br#"{"lowest_available_sequence":6}"#),
    );

    let error = from_status("runtime", "StreamSession", &status);

    assert_eq!(error.kind, Kind::HistoryUnavailable { lowest_available: 6 });
    assert_eq!(error.message, "sentence");
    assert_eq!(error.grpc_code, 9);
}

#[test]
fn missing_history_without_its_details_is_a_conflict() {
    let status = coded(Code::FailedPrecondition, "HISTORY_UNAVAILABLE");
    assert_eq!(kind(&status), Kind::Conflict);
}

#[test]
fn a_frame_is_mapped_like_a_status() {
    let frame = proto::MacpError {
        code: "FORBIDDEN".to_owned(),
        message: "no".to_owned(),
        ..proto::MacpError::default()
    };
    assert_eq!(
        from_frame(&frame),
        RuntimeError { kind: Kind::Forbidden, grpc_code: 7, message: "no".to_owned() }
    );
}

#[test]
fn a_broken_connection_is_unavailable_and_says_why() {
    let cause = std::io::Error::other("connection reset by peer");
    let mut status = Status::unknown("h2 protocol error");
    status.set_source(std::sync::Arc::new(cause));

    let error = from_status("runtime:1", "GetSession", &status);

    assert_eq!(error.kind, Kind::Unavailable);
    assert_eq!(
        error.message,
        "the runtime at runtime:1 cannot be reached: connection reset by peer"
    );
}
