//! Asking a person whether who reads secrets may change.

use std::sync::Arc;

use undercroft_secrets::keys::{Consent, ReaderChange};

use crate::{text::plain, ui::Ui};

/// Who agrees to readers of secrets that come and go: the command line, or a person who is shown
/// each of them. Without either, nobody.
pub(crate) fn consent(ui: Ui, yes: bool) -> Consent {
    let show = move |changes: &[ReaderChange]| {
        let (come, go): (Vec<_>, Vec<_>) = changes.iter().partition(|change| change.comes);
        for (words, changes) in [
            ("These will be able to read secrets:", come),
            ("These will no longer be able to read secrets:", go),
        ] {
            if !changes.is_empty() {
                ui.stderr(words);
            }
            for change in changes {
                ui.stderr(&format!("  {}", plain(&change.to_string())));
            }
        }
    };
    if yes {
        return Consent::Ask(Arc::new(move |changes| {
            show(changes);
            true
        }));
    }
    if !ui.can_ask() {
        return Consent::Nobody;
    }
    Consent::Ask(Arc::new(move |changes| {
        show(changes);
        // Whether the answer was no, or couldn't be read: nobody has agreed.
        ui.confirm(
            "Do you know each of them, and is that what you want?",
            "Give --yes.",
        )
        .unwrap_or(false)
    }))
}
