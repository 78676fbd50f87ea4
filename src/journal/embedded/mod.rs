//! The journal in a file of its own: redb, one thread that writes, and readers beside it.

pub(crate) mod directory;
pub(crate) mod encoding;
pub(crate) mod error;
pub(crate) mod export;
pub(crate) mod index;
pub(crate) mod medium;
pub(crate) mod opening;
pub(crate) mod overlay;
pub(crate) mod pages;
pub(crate) mod scan;
pub(crate) mod store;
pub(crate) mod tables;
pub(crate) mod unused;
pub(crate) mod upgrade;
pub(crate) mod verification;
pub(crate) mod view;
pub(crate) mod write_queue;
pub(crate) mod writer;
