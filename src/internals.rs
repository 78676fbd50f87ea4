//! What tests, benches and fuzz targets use of the library. No promise to anybody else.

pub mod app {
    pub use crate::app::{Among, App};
}
pub mod broadcasts {
    pub use crate::broadcasts::{Away, Broadcasts, Carried, CarriedLog, Epoch, Id, OnUnwritten, matcher, relay};
}
pub mod budget {
    pub use crate::budget::{Carried, Ledger, SentPayments, window};
}
pub mod cache {
    pub use crate::cache::{Cache, CachedReply, CarriedCopy, Config, Ended, PasswordKey, PlainKey};
}
pub mod cluster {
    pub use crate::cluster::*;
    pub use crate::http::forwarding::Forwarding;
    pub use crate::tenure::SessionId;
}
pub mod config {
    pub use crate::config::Config;
}
pub mod database {
    pub use crate::database::{
        Config, ConfigFault, Connection, Durability, Ended, Error, FORMAT, Migrated, Row, Rows, SchemaError, Statement,
        Timeline, Transaction, Type, check_schema, confirm_restore, migrate,
    };
}
pub mod gateway {
    pub use crate::gateway::{
        Cause, Config, Dial, Dialer, Ending, EventSink, Failure, LateFrames, LinkEvent, LinkState, Lost, NotSent, Pool,
        Priority, Refusal, Runtimes, ShardStatus, client_config, dialer,
    };
}
pub mod http {
    pub use crate::http::{native, openapi, problem, request, response};
}
pub mod journal {
    pub use crate::journal::{
        Config, Filter, Fingerprint, Journal, Key, Listed, Outcome, Page, PostgresConfig, Record, RecordId,
        RecordState, Reserve, Sale, State, record, state_machine,
    };
}
pub mod protocol {
    pub use crate::protocol::{Body, Command, Format, Parameters, Retention, command, frame, json5};
}
pub mod reload {
    pub use crate::reload::{Difference, Reload};
}
pub mod settings {
    pub use crate::settings::EffectiveConfig;
}
pub mod shutdown {
    pub use crate::shutdown::Shutdown;
}
pub mod tenure {
    pub use crate::tenure::{Lease, SessionId, Tenure, Tenures, boot_time};
}
