//! What seems to be somebody's doing on the boot network, in words: the same wherever it is shown.

use undercroft_journal::{Alarm, Store};
use undercroft_model::NodeName;
use undercroft_process::clock::wall_ms_now;

use crate::{
    error::CliError,
    text::{ago, plain},
};

/// The alarms of a machine, with those of the network as a whole.
pub(crate) fn of(store: Option<&Store>, node: &NodeName) -> Result<Vec<Alarm>, CliError> {
    match store {
        Some(store) => store
            .alarms(node, wall_ms_now())
            .map_err(|e| CliError::from(&e)),
        None => Ok(Vec::new()),
    }
}

/// One line for each.
pub(crate) fn lines(alarms: &[Alarm]) -> Vec<String> {
    let now = wall_ms_now();
    let line = |alarm: &Alarm| {
        let times = match alarm.count {
            1 => String::new(),
            count => format!("{count} times, "),
        };
        format!(
            "{}: {} ({times}last {})",
            alarm.sender,
            plain(&alarm.text),
            ago(now.saturating_sub(alarm.last_wall_ms))
        )
    };
    alarms.iter().map(line).collect()
}
