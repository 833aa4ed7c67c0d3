//! Which of the reports in a machine's name a step takes.
//!
//! A report is the claim of whoever sent it: of the machine's installer, of an earlier boot whose report comes late, of
//! another machine, of somebody who means ill. None is believed here. What can't be the machine's is left aside, so that
//! the step goes on waiting for what can.

use std::{collections::BTreeSet, fmt};

use undercroft_model::{InstallerReport, MachineIdentity, NotTheMachine};

/// Why a report is left aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// It is another machine's by what it says of itself.
    OtherMachine(NotTheMachine),
    /// Its fingerprint isn't that of its key: what a person approves wouldn't be what is connected to.
    OtherKey,
    /// It names no boot, so that nothing could be seen to happen in the same one.
    NoBootId,
    /// It is of a boot that was there before the machine was started anew.
    EarlierBoot,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherMachine(why) => write!(f, "the report {why}"),
            Self::OtherKey => f.write_str("the report's fingerprint isn't that of its host key"),
            Self::NoBootId => f.write_str("the report names no boot"),
            Self::EarlierBoot => f.write_str("the report is of a boot that was known before"),
        }
    }
}

/// The boots of a machine that are known before it is started anew: the one that its steps stood on, and all that were
/// heard of. A report of one of them comes late, or is sent again by somebody else.
pub fn earlier_boots(
    stood_on: Option<&InstallerReport>,
    heard: impl IntoIterator<Item = String>,
) -> BTreeSet<String> {
    let stood_on = stood_on.map(|report| report.boot_id.clone());
    stood_on.into_iter().chain(heard).collect()
}

/// What a step waits to hear of its machine.
#[derive(Debug, Clone, Copy)]
pub struct AwaitedReport<'a> {
    identity: MachineIdentity<'a>,
    earlier_boots: Option<&'a BTreeSet<String>>,
}

impl<'a> AwaitedReport<'a> {
    /// A report of any boot: to see whether an installer is there, and for its approval.
    pub fn of_any_boot(identity: MachineIdentity<'a>) -> Self {
        Self {
            identity,
            earlier_boots: None,
        }
    }

    /// A report of another boot than those ([`earlier_boots`]): the machine was started anew.
    pub fn of_new_boot(identity: MachineIdentity<'a>, earlier_boots: &'a BTreeSet<String>) -> Self {
        Self {
            identity,
            earlier_boots: Some(earlier_boots),
        }
    }

    /// Why a report is left aside; `None` where it is taken. `has_its_key` is whether its fingerprint is that of its
    /// host key.
    pub fn refuses(&self, report: &InstallerReport, has_its_key: bool) -> Option<NotTaken> {
        if let Some(why) = self.identity.refute(report.uuid, &report.macs) {
            return Some(NotTaken::OtherMachine(why));
        }
        if !has_its_key {
            return Some(NotTaken::OtherKey);
        }
        if report.boot_id.is_empty() {
            return Some(NotTaken::NoBootId);
        }
        self.earlier_boots
            .is_some_and(|earlier| earlier.contains(&report.boot_id))
            .then_some(NotTaken::EarlierBoot)
    }

    /// The report that is taken of several in a machine's name, the one that was heard first before others; that of the
    /// boot which the machine's steps stand on, before all.
    pub fn choose<'r>(
        &self,
        reports: impl IntoIterator<Item = &'r InstallerReport>,
        stands_on: Option<&InstallerReport>,
        has_its_key: impl Fn(&InstallerReport) -> bool,
    ) -> Option<&'r InstallerReport> {
        let mut first = None;
        for report in reports {
            if self.refuses(report, has_its_key(report)).is_some() {
                continue;
            }
            if stands_on.is_some_and(|known| known.boot_id == report.boot_id) {
                return Some(report);
            }
            first = first.or(Some(report));
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use undercroft_model::{
        INSTALLER_REPORT_VERSION, MacAddr, MachineUuid, ReportedFirmware, System,
    };

    use super::*;

    const OWN: MachineUuid = MachineUuid([7; 16]);
    const OTHER: MachineUuid = MachineUuid([9; 16]);
    const MACS: [MacAddr; 1] = [MacAddr([2, 0, 0, 0, 1, 1])];

    const MACHINE: MachineIdentity<'static> = MachineIdentity {
        uuid: Some(OWN),
        macs: &MACS,
    };

    fn report(boot_id: &str) -> InstallerReport {
        InstallerReport {
            version: INSTALLER_REPORT_VERSION,
            nonce: String::new(),
            uuid: Some(OWN),
            macs: MACS.to_vec(),
            address: [10, 0, 0, 11].into(),
            boot_id: boot_id.to_owned(),
            host_key: String::new(),
            fingerprint: String::new(),
            system: System::X86_64Linux,
            firmware: ReportedFirmware::Uefi,
            memory_mb: 1,
            installer: String::new(),
            disks: Vec::new(),
            token: None,
        }
    }

    #[test]
    fn a_network_boot_takes_a_report_of_its_machine_and_of_a_boot_that_was_not_known() {
        // The boot that its steps stood on; one that was heard of before the machine was started anew.
        let stood_on = report("stood-on");
        let earlier = earlier_boots(Some(&stood_on), ["heard-before".to_owned()]);
        let awaited = AwaitedReport::of_new_boot(MACHINE, &earlier);
        let other_uuid = InstallerReport {
            uuid: Some(OTHER),
            ..report("new")
        };
        let other_mac = InstallerReport {
            macs: vec![MacAddr([2, 0, 0, 0, 1, 9])],
            ..report("new")
        };
        let (planned, shown) = (OWN, OTHER);
        for (name, report, has_its_key, want) in [
            ("the new boot", report("new"), true, None),
            (
                "late, of the boot that its steps stood on",
                stood_on.clone(),
                true,
                Some(NotTaken::EarlierBoot),
            ),
            (
                "of a boot that was heard of before the step began",
                report("heard-before"),
                true,
                Some(NotTaken::EarlierBoot),
            ),
            (
                "of another machine with the same Ethernet address",
                other_uuid,
                true,
                Some(NotTaken::OtherMachine(NotTheMachine::OtherUuid {
                    planned,
                    shown,
                })),
            ),
            (
                "of another machine",
                other_mac,
                true,
                Some(NotTaken::OtherMachine(NotTheMachine::NoMac)),
            ),
            (
                "without a boot id",
                report(""),
                true,
                Some(NotTaken::NoBootId),
            ),
            (
                "with another key's fingerprint",
                report("new"),
                false,
                Some(NotTaken::OtherKey),
            ),
        ] {
            assert_eq!(awaited.refuses(&report, has_its_key), want, "{name}");
        }
        // To be approved, or to be found by a probe, an earlier boot that still reports is good.
        let any = AwaitedReport::of_any_boot(MACHINE);
        assert_eq!(any.refuses(&stood_on, true), None);
        assert_eq!(any.refuses(&report(""), true), Some(NotTaken::NoBootId));
        assert_eq!(any.refuses(&stood_on, false), Some(NotTaken::OtherKey));
    }

    #[test]
    fn the_boot_that_steps_stand_on_comes_before_the_one_that_was_heard_first() {
        let reports = [report(""), report("first"), report("known")];
        let any = AwaitedReport::of_any_boot(MACHINE);
        let choose = |known: Option<&InstallerReport>, bad: &str| {
            any.choose(&reports, known, |report| report.boot_id != bad)
                .map(|report| report.boot_id.as_str())
        };
        let known = report("known");
        assert_eq!(choose(None, ""), Some("first"));
        assert_eq!(choose(Some(&known), ""), Some("known"));
        assert_eq!(choose(Some(&known), "known"), Some("first"), "a forged one");
        assert_eq!(choose(Some(&report("gone")), "first"), Some("known"));
    }
}
