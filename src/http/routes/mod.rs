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
pub mod register;
pub mod transactions;

use register::{Register, Routes};

use super::{dashboard, native};

/// All of them.
pub struct All;

impl Routes for All {
    fn register(self, to: &mut impl Register) {
        to.unlisted(health::configure)
            .unlisted(metrics::configure)
            .unlisted(problems::configure)
            .unlisted(docs::configure)
            .unlisted(dashboard::configure)
            .route(instances::list_instances)
            .route(bridge::get_bridge)
            .route(bridge::cordon_shard)
            .scope("/v1/instances/{instance}", OfInstance)
            .unlisted(native::configure);
    }
}

struct OfInstance;

impl Routes for OfInstance {
    fn register(self, to: &mut impl Register) {
        catalogue::of_instance(to);
        to.scope("/points-of-sale/{pos_id}", OfPointOfSale)
            .route(devices::registerdevice)
            .route(events::stream_events)
            .route(commands::send_command)
            .route(bridge::open_budget)
            .route(records::list_payments)
            .route(records::get_payment)
            .route(records::settle_payment);
    }
}

struct OfPointOfSale;

impl Routes for OfPointOfSale {
    fn register(self, to: &mut impl Register) {
        catalogue::of_point_of_sale(to);
        to.route(transactions::listtransactions).route(payments::payitems).route(devices::verifyauth);
    }
}
