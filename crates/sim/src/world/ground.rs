//! What answers at a machine's address.

use super::SimWorld;
use crate::machine::Running;

/// What answers at a machine's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Its own system.
    System,
    /// Something under another host key: another machine, or its installer.
    Foreign,
    /// Nobody.
    Nobody,
}

impl SimWorld {
    pub(super) fn answer(&mut self, node: u32) -> Answer {
        let now_ms = self.now_ms();
        let machine = self.machine(node);
        if !machine.is_connected(now_ms) {
            return Answer::Nobody;
        }
        if now_ms < machine.hijacked_until_ms {
            return Answer::Foreign;
        }
        match &machine.running {
            Running::System { key, .. } if *key == machine.spec.host_key => Answer::System,
            Running::System { .. } | Running::Installer(_) => Answer::Foreign,
            _ => Answer::Nobody,
        }
    }
}
