//! Room for the next system, and the time of day.

use undercroft_model::SystemTarget;

use super::findings::Of;
use crate::drift::{DriftKind, MachineLook, Room};

/// The part of the Nix store's file system that is to be free, in percent.
const STORE_FREE_PERCENT_MIN: u64 = 10;
/// What the EFI system partition is to have free where nobody knows how large a kernel with its initrd is, in KiB.
const ESP_FREE_KIB_MIN: u64 = 64 * 1024;
/// How far a machine's clock may be off, in milliseconds. A look's own time is no part of it.
const CLOCK_OFF_MS_MAX: u64 = 5_000;

pub(super) fn judge(
    of: &mut Of<'_>,
    target: Option<&Result<SystemTarget, String>>,
    machine: &MachineLook,
) {
    let closure_kib = match target {
        Some(Ok(target)) => target.closure_bytes.unwrap_or(0).div_ceil(1024),
        _ => 0,
    };
    match machine.store {
        None => of.unseen(
            DriftKind::StoreRoom,
            None,
            "how full its Nix store is wasn't told",
        ),
        Some(store) => {
            let share = store.total_kib / 100 * STORE_FREE_PERCENT_MIN;
            has_room(of, DriftKind::StoreRoom, store, share.max(closure_kib));
        }
    }
    match machine.esp {
        // Not every machine has one: a Raspberry Pi starts otherwise.
        None => of.unseen_quietly(DriftKind::EspRoom),
        Some(esp) => {
            let files_kib = machine.boot_files_bytes.map(|bytes| bytes.div_ceil(1024));
            let want = files_kib.unwrap_or(ESP_FREE_KIB_MIN);
            has_room(of, DriftKind::EspRoom, esp, want);
        }
    }
    clock(of, machine);
}

fn has_room(of: &mut Of<'_>, kind: DriftKind, room: Room, want_kib: u64) {
    if room.free_kib < want_kib {
        of.found(kind, "", &mib(want_kib), &mib(room.free_kib));
    }
}

fn mib(kib: u64) -> String {
    format!("{} MiB", kib / 1024)
}

/// The machine told its time at some moment between the question and the answer, in whole seconds: what is off is
/// only what is off at every such moment.
fn clock(of: &mut Of<'_>, machine: &MachineLook) {
    let Some(time_s) = machine.time_s else {
        return of.unseen(DriftKind::Clock, None, "it doesn't say what time it is");
    };
    let earliest_ms = time_s.saturating_mul(1000);
    let latest_ms = earliest_ms.saturating_add(999);
    let ahead_ms = earliest_ms.saturating_sub(machine.answered_ms);
    let behind_ms = machine.asked_ms.saturating_sub(latest_ms);
    let want = "the controller's time";
    if ahead_ms > CLOCK_OFF_MS_MAX {
        of.found(
            DriftKind::Clock,
            "",
            want,
            &format!("{} s ahead", ahead_ms / 1000),
        );
    } else if behind_ms > CLOCK_OFF_MS_MAX {
        of.found(
            DriftKind::Clock,
            "",
            want,
            &format!("{} s behind", behind_ms / 1000),
        );
    }
}
