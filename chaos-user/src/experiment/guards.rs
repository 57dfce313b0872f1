//! guards.
