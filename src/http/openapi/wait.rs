//! For how long a caller is ready to wait: `Prefer` of requests, `Preference-Applied` of answers.

use utoipa::openapi::RefOr;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::Type;

use super::copies;
use super::header::{header, request_field};

/// The operation that may be repeated while it is in progress.
const PAYMENT: &str = "payItems";

/// Describes the two fields, where the operation follows them.
pub(super) fn describe(operation: &mut Operation) {
    let (wish, applied) = if copies::is_read(operation) {
        (
            "`wait=N` (RFC 7240): waits up to N seconds for points of the gateway's budget, no longer than the bridge's \
             deadline; 0 waits for none.",
            "`wait=N`, where the request preferred it: for how many seconds it was ready to wait.",
        )
    } else if operation.operation_id.as_deref() == Some(PAYMENT) {
        (
            "`wait=N` (RFC 7240): where the payment with this key is in progress, waits up to N seconds for its outcome, no \
             longer than the bridge's deadline, instead of answering 409. That never sends anything.",
            "`wait=N`, where the request preferred it and found the payment in progress: for how many seconds it was ready \
             to wait.",
        )
    } else {
        return;
    };
    operation.parameters.get_or_insert_default().push(request_field("Prefer", wish));
    for (status, response) in &mut operation.responses.responses {
        // Of these a wait may be the reason.
        let is_outcome = matches!(status.as_str(), "200" | "201" | "304" | "409" | "429" | "502" | "503" | "504");
        if let (RefOr::T(response), true) = (response, is_outcome) {
            response.headers.insert("Preference-Applied".to_owned(), RefOr::T(header(Type::String, applied)));
        }
    }
}
