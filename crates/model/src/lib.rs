//! Undercroft's vocabulary: inventory, observation, plan, records; no I/O.
