//! Messages to a task, of the operator or of another task's agent: durable, in order, with honest
//! receipts.

/// Longest message, bytes: fits a line of the pipe with room to spare.
pub const TEXT_MAX: usize = 64 * 1024;
/// Most unsettled messages of one task; the next one is refused.
pub const UNSETTLED_MAX: usize = 256;
