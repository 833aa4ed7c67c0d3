//! What runs inside a lent job's sandbox: it gives up what it still holds, then becomes the job.

fn main() {}
