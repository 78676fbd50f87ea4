//! Parameters that routes have in common, as the document describes them.

use utoipa::IntoParams;

/// The instance in the path.
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct InInstance {
    /// The name of the instance, as `GET /v1/instances` lists it.
    #[param(example = "demo")]
    pub instance: String,
}

/// The point of sale in the path.
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct InPointOfSale {
    /// The id of the point of sale.
    #[param(minimum = 0, maximum = 9_007_199_254_740_991_i64, example = 1)]
    pub pos_id: i64,
}

/// The password of a point of sale.
#[expect(dead_code, reason = "read by the OpenAPI document alone")]
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct PosPassword {
    /// The password of the point of sale, where it needs one: what its password-check returned.
    #[param(rename = "X-POS-Password", nullable = false, example = "a-pos-password")]
    pub pos_password: Option<String>,
}
