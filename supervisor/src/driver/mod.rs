//! The driver: fetches inputs, lets the core decide, makes records durable, performs effects.

pub mod alarm;
pub mod clock;
pub mod commit;
pub mod host_io;
pub mod hosts;
