//! Argo CD's applications.

use super::findings::Of;
use crate::drift::{ApplicationLook, DriftKind};

/// What Argo CD says where it can't tell.
const UNKNOWN: &str = "Unknown";

pub(super) fn judge(of: &mut Of<'_>, applications: Option<&Result<Vec<ApplicationLook>, String>>) {
    let applications = match applications {
        None => return,
        Some(Err(why)) => return of.unseen(DriftKind::Application, None, why),
        Some(Ok(applications)) => applications,
    };
    for app in applications {
        let untold = |word: &str| word.is_empty() || word == UNKNOWN;
        let (sync, health) = (app.sync.as_str(), app.health.as_str());
        // What Argo CD knows to be wrong is wrong, whether it knows the rest or not.
        let out = !untold(sync) && sync != "Synced";
        let ill = !untold(health) && health != "Healthy";
        if out || ill {
            let message = match app.message.as_str() {
                "" => String::new(),
                message => format!(": {message}"),
            };
            let word = |word: &str| if word.is_empty() { UNKNOWN } else { word }.to_owned();
            let have = format!("{}, {}{message}", word(sync), word(health));
            of.found(DriftKind::Application, &app.name, "Synced, Healthy", &have);
        } else if untold(sync) || untold(health) {
            let why = match app.message.as_str() {
                "" => "Argo CD doesn't know how it stands",
                message => message,
            };
            of.unseen(DriftKind::Application, Some(&app.name), why);
        }
    }
}
