//! The routes, one file a subject.
//!
//! Everything of one instance is in one scope, which is found by a single match; within it most paths are plain text.
//! A route checks what its caller may do before it reads anything else.

pub mod allowed_methods;
pub mod bridge;
pub mod catalogue;
pub mod commands;
pub mod devices;
pub mod docs;
pub mod events;
pub mod fallback;
pub mod health;
pub mod instances;
pub mod metrics;
pub mod parameters;
pub mod payments;
pub mod problems;
pub mod records;
pub mod transactions;

use utoipa_actix_web::scope;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{dashboard, native};

pub fn configure(config: &mut ServiceConfig<'_>) {
    config.map(health::configure).map(metrics::configure).map(problems::configure).map(docs::configure);
    config.map(dashboard::configure);
    config.service(instances::list_instances).service(bridge::get_bridge).service(bridge::cordon_shard);
    config.service(scope("/v1/instances/{instance}").configure(instance));
    config.map(native::configure);
}

fn instance(config: &mut ServiceConfig<'_>) {
    catalogue::of_instance(config);
    config
        .service(scope("/points-of-sale/{pos_id}").configure(point_of_sale))
        .service(devices::registerdevice)
        .service(events::stream_events)
        .service(commands::send_command)
        .service(bridge::open_budget)
        .service(records::list_payments)
        .service(records::get_payment)
        .service(records::settle_payment);
}

fn point_of_sale(config: &mut ServiceConfig<'_>) {
    catalogue::of_point_of_sale(config);
    config.service(transactions::listtransactions).service(payments::payitems).service(devices::verifyauth);
}
