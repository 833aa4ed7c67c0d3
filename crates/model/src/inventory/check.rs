//! What the sections say together: everything that one value alone can't show to be wrong.

mod causes;
mod classes;
mod cluster;
mod gpu;
mod identities;
mod lending;
mod machines;
mod network;
mod people;
mod state;

use toml::{Spanned, de::DeValue};

use super::{draft::Draft, reader::Reader};
use state::Check;
pub(super) use state::at;

/// Checks a draft, and reports to the reader that it was read by.
pub(super) fn check(draft: &Draft, root: &Spanned<DeValue<'_>>, cx: &mut Reader<'_>) {
    let mut check = Check {
        draft,
        root,
        cx,
        causes: causes::Causes::default(),
    };
    network::check(&mut check);
    // Which nodes are copies of each other decides what can be said of their number.
    identities::check(&mut check);
    cluster::check(&mut check);
    classes::check(&mut check);
    machines::check(&mut check);
    people::check(&mut check);
    lending::check(&mut check);
    check.tell_causes();
}
