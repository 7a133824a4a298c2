//! Recorded lines.
