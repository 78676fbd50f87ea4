//! What the other rooms' plain types look like in answers and in the OpenAPI document.

pub mod bridge;
pub mod cluster;
pub mod gateway_bodies;
pub mod merged;
pub mod payment;
pub mod payment_csv;
pub mod spelled;
pub mod stream_events;
