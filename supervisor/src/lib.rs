//! The supervisor program as a library, so that tests can drive its parts.

pub mod batch_file;
pub mod cli;
pub mod control;
pub mod driver;
pub mod guardian;
pub mod process;
pub mod store;
pub mod view;
