//! Is this the machine? The one rule by which what a machine shows of itself is compared with what
//! was planned for it.

use std::fmt;

use crate::{MacAddr, MachineUuid};

/// UUIDs that board makers left at their default, so that many machines share them.
const PLACEHOLDER_UUIDS: [u128; 3] = [
    0x0300_0200_0400_0500_0006_0007_0008_0009,
    0x0002_0003_0004_0005_0006_0007_0008_0009,
    0x1234_5678_1234_5678_90ab_cdde_efaa_bbcc,
];

impl MachineUuid {
    /// Whether it tells one machine from all others: it is set, and isn't a maker's placeholder.
    pub fn is_unique(self) -> bool {
        !self.is_unset() && !PLACEHOLDER_UUIDS.contains(&u128::from_be_bytes(self.0))
    }
}

/// What tells one machine from all others.
///
/// A machine is the one that is meant if nothing that it shows contradicts this, and something
/// proves it:
///
/// - A UUID that isn't unique says nothing, whoever gives it. Two that are unique and differ belong to
///   two machines, whatever else agrees.
/// - Where its Ethernet addresses are known, it must show one of them. Its UUID doesn't make up for
///   them: it stands on many a machine's label, and anybody can send it.
/// - Where none is known, it must show its UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineIdentity<'a> {
    /// Its SMBIOS UUID, if known.
    pub uuid: Option<MachineUuid>,
    /// All of its Ethernet addresses that are known.
    pub macs: &'a [MacAddr],
}

/// Why what was shown isn't the machine that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTheMachine {
    /// It shows another machine's UUID.
    OtherUuid {
        /// The UUID that is meant.
        planned: MachineUuid,
        /// The one that it shows.
        shown: MachineUuid,
    },
    /// It shows none of the known Ethernet addresses.
    NoMac,
    /// Only its UUID is known, and it shows none that tells machines apart.
    NoUuid {
        /// The UUID that is meant.
        planned: MachineUuid,
    },
    /// Nothing is known of the machine by which it could be told from others.
    Nameless,
}

impl fmt::Display for NotTheMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherUuid { planned, shown } => {
                write!(f, "names the UUID {shown}, not {planned}")
            }
            Self::NoMac => f.write_str("names none of the machine's Ethernet addresses"),
            Self::NoUuid { planned } => write!(
                f,
                "names no UUID of its own, and the machine is known by {planned} alone"
            ),
            Self::Nameless => f.write_str(
                "can't be told from others': neither an Ethernet address of the machine is known \
                 nor a UUID that no other has",
            ),
        }
    }
}

impl MachineIdentity<'_> {
    /// Why a machine that shows this UUID and these Ethernet addresses, all that it has, isn't the
    /// one that is meant; `None` if it is.
    pub fn refute(&self, uuid: Option<MachineUuid>, macs: &[MacAddr]) -> Option<NotTheMachine> {
        let unique = |uuid: Option<MachineUuid>| uuid.filter(|uuid| uuid.is_unique());
        let (planned, shown) = (unique(self.uuid), unique(uuid));
        if let (Some(planned), Some(shown)) = (planned, shown)
            && planned != shown
        {
            return Some(NotTheMachine::OtherUuid { planned, shown });
        }
        if !self.macs.is_empty() {
            let known = macs.iter().any(|mac| self.macs.contains(mac));
            return (!known).then_some(NotTheMachine::NoMac);
        }
        match (planned, shown) {
            (Some(_), Some(_)) => None,
            (Some(planned), None) => Some(NotTheMachine::NoUuid { planned }),
            (None, _) => Some(NotTheMachine::Nameless),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACEHOLDER: &str = "03000200-0400-0500-0006-000700080009";
    const OWN: &str = "7d4b1c1e-8f4e-4a53-9c34-0d7a3e1b2c3d";
    const OTHER: &str = "11111111-2222-3333-4444-555555555555";
    const UNSET: &str = "ffffffff-ffff-ffff-ffff-ffffffffffff";

    fn verdict(known: (Option<&str>, &[u8]), shown: (Option<&str>, &[u8])) -> &'static str {
        let uuid = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        let macs = |all: &[u8]| -> Vec<MacAddr> {
            all.iter().map(|n| MacAddr([2, 0, 0, 0, 1, *n])).collect()
        };
        let known_macs = macs(known.1);
        let identity = MachineIdentity {
            uuid: uuid(known.0),
            macs: &known_macs,
        };
        match identity.refute(uuid(shown.0), &macs(shown.1)) {
            None => "it",
            Some(NotTheMachine::OtherUuid { .. }) => "other UUID",
            Some(NotTheMachine::NoMac) => "no MAC",
            Some(NotTheMachine::NoUuid { .. }) => "no UUID",
            Some(NotTheMachine::Nameless) => "nameless",
        }
    }

    #[test]
    fn a_machine_is_told_by_all_that_is_known_of_it() {
        let (none, own, other) = (None, Some(OWN), Some(OTHER));
        let shared = Some(PLACEHOLDER);
        for (known, shown, want) in [
            ((none, &[1, 2][..]), (none, &[9, 2][..]), "it"),
            ((none, &[1]), (own, &[1]), "it"),
            ((none, &[1]), (none, &[9]), "no MAC"),
            ((none, &[1]), (none, &[]), "no MAC"),
            ((own, &[1]), (own, &[1]), "it"),
            ((own, &[1]), (none, &[1]), "it"),
            ((own, &[1]), (shared, &[1]), "it"),
            ((own, &[1]), (Some(UNSET), &[1]), "it"),
            ((own, &[1]), (own, &[9]), "no MAC"),
            ((own, &[1]), (other, &[1]), "other UUID"),
            ((own, &[1]), (other, &[9]), "other UUID"),
            // A machine of which nothing but the UUID is known.
            ((own, &[]), (own, &[9]), "it"),
            ((own, &[]), (own, &[]), "it"),
            ((own, &[]), (other, &[9]), "other UUID"),
            ((own, &[]), (none, &[9]), "no UUID"),
            ((own, &[]), (shared, &[9]), "no UUID"),
            // What many machines share tells none of them.
            ((shared, &[1]), (other, &[1]), "it"),
            ((shared, &[1]), (shared, &[9]), "no MAC"),
            ((shared, &[]), (shared, &[9]), "nameless"),
            ((Some(UNSET), &[]), (Some(UNSET), &[9]), "nameless"),
            ((none, &[]), (own, &[9]), "nameless"),
            ((none, &[]), (none, &[]), "nameless"),
        ] {
            assert_eq!(verdict(known, shown), want, "{known:?} {shown:?}");
        }
    }

    #[test]
    fn placeholders_are_no_uuids() {
        for text in [
            PLACEHOLDER,
            "00020003-0004-0005-0006-000700080009",
            "12345678-1234-5678-90ab-cddeefaabbcc",
            "00000000-0000-0000-0000-000000000000",
            UNSET,
        ] {
            assert!(!text.parse::<MachineUuid>().unwrap().is_unique(), "{text}");
        }
        assert!(OWN.parse::<MachineUuid>().unwrap().is_unique());
    }
}
