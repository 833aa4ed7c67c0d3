//! Undercroft's planner: inventory and observation in, plan out; no I/O.
