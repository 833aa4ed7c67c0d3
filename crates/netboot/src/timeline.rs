//! A machine's boot as a timeline, and the first packet that is missing from it.
