//! The journal in PostgreSQL, for several replicas: one task that writes, over a connection of its own, and readers beside it.

pub(crate) mod batch;
pub(crate) mod columns;
pub(crate) mod config;
pub(crate) mod import;
pub(crate) mod loaded;
pub(crate) mod lookups;
pub(crate) mod queue;
pub(crate) mod rows;
pub(crate) mod statements;
pub(crate) mod store;
pub(crate) mod witness;
pub(crate) mod writer;
