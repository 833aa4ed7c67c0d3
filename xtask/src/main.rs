//! Everything a developer of Undercroft does: try, test, ci, bench, tidy.
fn main() {}
