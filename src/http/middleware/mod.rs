//! What every request and every answer passes, one concern a file.
//!
//! [`outermost`] is the first to see a request and the last to see its answer; [`problem_details::innermost`] is next to
//! the router.

mod access_log;
pub mod outermost;
pub mod problem_details;
pub mod representation;
pub mod request_id;
mod trace;
pub mod tracked_body;
