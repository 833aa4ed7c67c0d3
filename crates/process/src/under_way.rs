//! Programs that a thread waits for, which no future's end calls off: they are ended before this one ends.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    process::Child,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

static UNDER_WAY: Mutex<BTreeMap<u32, OwnedFd>> = Mutex::new(BTreeMap::new());

fn under_way() -> MutexGuard<'static, BTreeMap<u32, OwnedFd>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program that runs for as long as this is held.
pub struct UnderWay(u32);

impl UnderWay {
    /// Notes a program that was started.
    pub fn note(child: &Child) -> Self {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        // Without it the program goes on to its own end, as it would have.
        if let Some(process) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
            under_way().insert(child.id(), process);
        }
        Self(child.id())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        under_way().remove(&self.0);
    }
}

/// Tells all programs to end that threads still wait for. For who is about to end itself.
pub fn end_programs() {
    end(under_way().iter());
}

fn end<'a>(programs: impl Iterator<Item = (&'a u32, &'a OwnedFd)>) {
    for (_, process) in programs {
        let _ = pidfd_send_signal(process, Signal::TERM);
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::Command};

    use super::*;

    #[test]
    fn what_a_thread_waits_for_is_told_to_end() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let noted = UnderWay::note(&child);
        end(under_way().iter().filter(|(id, _)| **id == child.id()));
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        drop(noted);
        assert!(!under_way().contains_key(&child.id()));
    }
}
