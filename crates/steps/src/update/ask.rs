//! What is asked of a machine that runs its own system, and how it answers.

use crate::ask::{CopyFailed, Ended, Unanswered};

use super::look::UpdateLook;

/// One thing that is asked of a machine that is updated, or done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateAsk {
    /// What it runs, what it would boot next, and what it says of its latest boots.
    Look,
    /// Copy a system with all that it refers to into the machine's own store.
    Copy {
        /// The system.
        toplevel: String,
        /// Its size in bytes, where known.
        closure_bytes: Option<u64>,
    },
    /// Whether a system is in the machine's store.
    IsWhole {
        /// The system.
        toplevel: String,
    },
    /// Make a system the next one to boot.
    Stage {
        /// The system.
        toplevel: String,
    },
    /// Restart.
    Restart,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateAnswer {
    /// What the machine says of itself.
    Look(Box<UpdateLook>),
    /// A program on the machine has ended.
    Ended(Ended),
    /// A copy came to its end.
    Done,
    /// A copy didn't come to its end.
    CopyFailed(Box<CopyFailed>),
    /// The machine gave no answer.
    Nothing(Box<Unanswered>),
}

/// The program on the machine that does it, and how it is shown to people; `None` where it is no such program.
pub fn words(ask: &UpdateAsk) -> Option<(Vec<String>, Vec<String>)> {
    let shell = |text: &str, arguments: &[&str]| {
        let shell = ["sh", "-c", text, "undercroft"].into_iter();
        let words = shell.chain(arguments.iter().copied());
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let shown = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Some(match ask {
        UpdateAsk::Look => (
            shell(include_str!("look.sh"), &[]),
            shown(&["cat", "/run/undercroft/boot.json"]),
        ),
        UpdateAsk::IsWhole { toplevel } => {
            let words = ["nix-store", "--check-validity", toplevel];
            (shown(&words), shown(&words))
        }
        UpdateAsk::Stage { toplevel } => (
            shell(include_str!("stage.sh"), &[toplevel]),
            shown(&[&format!("{toplevel}/bin/switch-to-configuration"), "boot"]),
        ),
        UpdateAsk::Restart => (shell(RESTART, &[]), shown(&["systemctl", "reboot"])),
        UpdateAsk::Copy { .. } => return None,
    })
}

/// What was staged must be on the disk, whatever becomes of the services that are stopped. A system without systemd has
/// the other program.
const RESTART: &str = "sync
if command -v systemctl >/dev/null 2>&1; then exec systemctl reboot; fi
exec reboot";
