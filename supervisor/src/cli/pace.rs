//! The only file of the command line that waits for time: looks again after a while at what does
//! not announce itself.

use std::time::Duration;

/// Time between two looks at a growing file or a starting supervisor: quick for a person, and a
/// stat call each costs nothing. Files are looked at instead of watched because network mounts do
/// not announce changes.
pub const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Waits until it is time to look again.
#[expect(
    clippy::disallowed_methods,
    reason = "a file that another program writes has no event to wait for"
)]
pub fn before_next_look() {
    std::thread::sleep(LOOK_AGAIN);
}
