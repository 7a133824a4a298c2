//! The supervisor program as a library, so that tests can drive its parts.

pub mod batch_file;
pub mod control {
    //! The local socket by which commands reach a live supervisor.
    pub mod wire;
}
pub mod store;
