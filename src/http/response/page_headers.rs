//! The headers of every page that a browser shows: what may be loaded into it, and who may have it in a frame.
//!
//! A page in a frame of another site could be clicked on unnoticed, and the API browser sends commands at a click.

use actix_web::HttpResponseBuilder;
use actix_web::http::header::{
    CONTENT_SECURITY_POLICY, CROSS_ORIGIN_OPENER_POLICY, CROSS_ORIGIN_RESOURCE_POLICY, REFERRER_POLICY, X_FRAME_OPTIONS,
};

/// Adds the headers to an answer. `policy` says what the page may load; it has to forbid frames.
pub fn guard(response: &mut HttpResponseBuilder, policy: &'static str) {
    debug_assert!(policy.contains("frame-ancestors 'none'"));
    response
        .insert_header((CONTENT_SECURITY_POLICY, policy))
        .insert_header((X_FRAME_OPTIONS, "DENY"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header((CROSS_ORIGIN_OPENER_POLICY, "same-origin"))
        .insert_header((CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"));
}
