//! Undercroft's engine: sans-I/O state machines that carry out a plan.
