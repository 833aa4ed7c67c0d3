//! Undercroft's deterministic simulation: world, faults, checkers, seeds.
