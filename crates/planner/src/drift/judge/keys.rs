//! SSH keys that let somebody in, and that the machine's system doesn't name.

use super::findings::Of;
use crate::drift::{DriftKind, MachineLook};

pub(super) fn judge(of: &mut Of<'_>, machine: &MachineLook) {
    let Some(keys) = &machine.keys else {
        let why = "which keys its system names can't be told, or not which let somebody in";
        return of.unseen(DriftKind::Key, None, why);
    };
    for key in &keys.authorized {
        let known = (key.user.clone(), key.fingerprint.clone());
        if keys.named.contains(&known) {
            continue;
        }
        let comment = match key.comment.as_str() {
            "" => String::new(),
            comment => format!(" ({comment})"),
        };
        let subject = format!("{} {}", key.user, key.fingerprint);
        let have = format!("in {}{comment}", key.file);
        of.found(
            DriftKind::Key,
            &subject,
            "a key that the system names",
            &have,
        );
    }
}
