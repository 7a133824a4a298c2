//! What the stories, benchmarks and house rules of this package share.

pub mod bench;
pub mod clock;
pub mod crash;
pub mod delivery;
pub mod model;
pub mod peak;
pub mod random;
pub mod real;
pub mod sim;
pub mod source;
pub mod sweep;
pub mod world;
pub mod zoo;
