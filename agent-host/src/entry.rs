//! Where the program begins.
//!
//! std's own beginning of a program reads `/proc/self/maps` to find the main thread's stack and
//! prepares a handler for its overflow. That is a fourteenth of the life of a host that runs a
//! trivial task, for a diagnostic that this program, which never recurses, can not produce. So
//! where C's `main` can stand in for it (glibc hands the arguments to std by itself), it does.

use crate::run_program;

/// Called by the C library.
// SAFETY: `main` is the one symbol that the C library calls, and with `no_main` nothing else in
// the program has that name. Its arguments are not looked at.
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    run_program().into()
}
