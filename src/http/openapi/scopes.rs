//! Which scopes an operation wants, said where OpenAPI 3.1 lets a scheme without scopes of its own name roles: in the
//! operation's security requirement. A test holds the running bridge against it.

use utoipa::openapi::OpenApi;
use utoipa::openapi::security::SecurityRequirement;

use super::answers;
use crate::http::auth::Scope;

/// The name of the security scheme.
pub(super) const BEARER: &str = "bearer";

/// Names the scopes of each operation. One of them is enough; without any, every token will do.
pub(super) fn describe(document: &mut OpenApi) {
    for operation in document.paths.paths.values_mut().flat_map(answers::operations) {
        let wanted = wanted(operation.operation_id.as_deref().unwrap_or_default());
        if !wanted.is_empty() {
            let one = |scope: &Scope| SecurityRequirement::new(BEARER, [scope.name()]);
            operation.security = Some(wanted.iter().map(one).collect());
        }
    }
}

fn wanted(operation: &str) -> &'static [Scope] {
    match operation {
        "listInstances" => &[],
        "payItems" => &[Scope::Pay],
        "listPayments" | "getPayment" => &[Scope::Pay, Scope::Operate],
        "registerDevice" => &[Scope::Devices],
        "streamEvents" => &[Scope::Events],
        "sendCommand" => &[Scope::Raw],
        "settlePayment" | "getBridge" | "cordonShard" | "openBudget" => &[Scope::Operate],
        _ => &[Scope::Read],
    }
}
