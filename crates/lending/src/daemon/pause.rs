//! A pause, which outlives the daemon.

use serde::{Deserialize, Serialize};
use undercroft_folder::confined::{Confined, ConfinedError, Modes};
use undercroft_model::document::Version;

use crate::owner::Paused;

/// The file, in the state folder. It is there while the owner has paused.
const PAUSED_FILE: &str = "paused.json";
/// The largest such file that is read, in bytes.
const PAUSED_BYTES_MAX: u64 = 4096;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: Version<1>,
    paused: Paused,
}

/// The pause that is kept. What can't be read is a pause without an end: the owner has said so once.
pub(super) fn read(state: &Confined, wall_ms: u64) -> Result<Option<Paused>, ConfinedError> {
    let text = state.read_text(PAUSED_FILE, PAUSED_BYTES_MAX)?;
    Ok(text.map(|text| match serde_json::from_str::<Kept>(&text) {
        Ok(kept) => kept.paused,
        Err(_) => Paused {
            since_ms: wall_ms,
            until_ms: None,
        },
    }))
}

/// Keeps a pause, or its end.
pub(super) fn write(state: &Confined, paused: Option<&Paused>) -> Result<(), ConfinedError> {
    let Some(paused) = paused else {
        return state.remove(PAUSED_FILE).map(|_| ());
    };
    let kept = Kept {
        version: Version,
        paused: paused.clone(),
    };
    let text = serde_json::to_vec(&kept).unwrap_or_default();
    state.replace(PAUSED_FILE, &text, Modes::PRIVATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_there_until_it_is_ended_and_a_damaged_one_has_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let state = Confined::new(dir.path());
        assert_eq!(read(&state, 7).unwrap(), None);
        let paused = Paused {
            since_ms: 5,
            until_ms: Some(9),
        };
        write(&state, Some(&paused)).unwrap();
        assert_eq!(read(&state, 7).unwrap(), Some(paused));
        std::fs::write(dir.path().join(PAUSED_FILE), "{").unwrap();
        assert_eq!(read(&state, 7).unwrap().unwrap().until_ms, None);
        write(&state, None).unwrap();
        assert_eq!(read(&state, 7).unwrap(), None);
    }
}
