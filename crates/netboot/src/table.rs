//! The machines that netboot knows, and which of them a request comes from.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use undercroft_model::{MacAddr, MachineIdentity, MachineUuid, NodeName, NotTheMachine, System};

use crate::error::NetbootError;
use crate::site::is_plain_param;
use crate::tftp::MAX_BLOCK_BYTES;

/// What a machine is to get when it boots over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootIntent {
    /// The installer, ready to be told to install.
    Install,
    /// Its own disk: a script that exits to the firmware's next boot device.
    Local,
    /// The installer in discovery mode, which only reports in.
    Discover,
    /// Nothing to boot, because its identity is in doubt; it still gets an address.
    Quarantine,
    /// No answer of any kind.
    Ignore,
}

/// What becomes of machines that the table doesn't know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownPolicy {
    /// They get the installer in discovery mode.
    #[default]
    Discover,
    /// They get an address (from a DHCP server of ours) and nothing to boot.
    AddressOnly,
    /// They get no answer.
    Ignore,
}

/// The firmware that a machine is known to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirmwareKind {
    /// Not known: the request tells.
    #[default]
    Any,
    /// UEFI.
    Uefi,
    /// A BIOS.
    Bios,
    /// A Raspberry Pi's own boot ROM.
    RaspberryPi,
}

/// Which way of PXE a machine's firmware understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pxe4011 {
    /// The offer names the file and says to skip discovery, and port 4011 answers as well.
    #[default]
    Both,
    /// The offer names no file, so that firmware which ignores the bypass asks port 4011.
    Only,
    /// Port 4011 doesn't answer.
    Never,
}

/// Per-machine switches for firmware that needs coaxing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineSwitches {
    /// How port 4011 is used.
    pub pxe_4011: Pxe4011,
    /// Offer iPXE that uses the firmware's own network driver.
    pub snponly: bool,
    /// The largest TFTP block, in bytes.
    pub tftp_block_bytes: u16,
}

impl Default for MachineSwitches {
    fn default() -> Self {
        Self {
            pxe_4011: Pxe4011::default(),
            snponly: false,
            // It fits: the limit is that of an Ethernet frame.
            tftp_block_bytes: u16::try_from(MAX_BLOCK_BYTES).unwrap_or(1468),
        }
    }
}

/// A machine that netboot knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootMachine {
    /// Its name in the inventory.
    pub name: NodeName,
    /// The host name that DHCP hands out (option 12); empty for none.
    pub hostname: String,
    /// Its SMBIOS UUID, if known.
    pub uuid: Option<MachineUuid>,
    /// All its Ethernet addresses.
    pub macs: Vec<MacAddr>,
    /// The address that it always gets from our own DHCP server.
    pub address: Option<Ipv4Addr>,
    /// What it runs.
    pub system: System,
    /// Its firmware, if known.
    #[serde(default)]
    pub firmware: FirmwareKind,
    /// A Raspberry Pi's serial number (its low 32 bits).
    #[serde(default)]
    pub pi_serial: Option<u32>,
    /// Switches for difficult firmware.
    #[serde(default)]
    pub switches: MachineSwitches,
    /// Kernel parameters of its own, such as `console=ttyS0`.
    #[serde(default)]
    pub kernel_params: Vec<String>,
    /// What it is to boot.
    pub intent: BootIntent,
}

impl BootMachine {
    /// What tells it from all others.
    pub fn identity(&self) -> MachineIdentity<'_> {
        MachineIdentity {
            uuid: self.uuid,
            macs: &self.macs,
        }
    }

    /// A machine with no UUID, address or peculiarities.
    pub fn new(name: NodeName, macs: Vec<MacAddr>, system: System, intent: BootIntent) -> Self {
        Self {
            hostname: name.as_str().to_owned(),
            name,
            uuid: None,
            macs,
            address: None,
            system,
            firmware: FirmwareKind::Any,
            pi_serial: None,
            switches: MachineSwitches::default(),
            kernel_params: Vec::new(),
            intent,
        }
    }
}

/// Identifiers that disagree about which machine they belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conflict {
    /// The UUID is one machine's, the Ethernet address another's.
    TwoMachines {
        /// The machine that the UUID belongs to.
        by_uuid: NodeName,
        /// The machine that the Ethernet address belongs to.
        by_mac: NodeName,
    },
    /// A known Ethernet address came with a UUID that is not its machine's.
    NewUuid {
        /// The machine that the Ethernet address belongs to.
        node: NodeName,
        /// The UUID that the inventory has.
        expected: MachineUuid,
        /// The UUID that came.
        found: MachineUuid,
    },
    /// A known UUID came with an Ethernet address that its machine doesn't have.
    NewMac {
        /// The machine that the UUID belongs to.
        node: NodeName,
        /// The Ethernet address that came.
        found: MacAddr,
    },
    /// A Raspberry Pi's serial number is one machine's, the Ethernet address another's.
    TwoBoards {
        /// The machine that the serial number belongs to.
        by_serial: NodeName,
        /// The machine that the Ethernet address belongs to.
        by_mac: NodeName,
    },
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TwoMachines { by_uuid, by_mac } => write!(
                f,
                "its UUID is {by_uuid}'s, its Ethernet address {by_mac}'s; was a network card moved?"
            ),
            Self::NewUuid {
                node,
                expected,
                found,
            } => write!(
                f,
                "its Ethernet address is {node}'s, but its UUID is {found} and not {expected}; \
                 was the mainboard changed?"
            ),
            Self::NewMac { node, found } => write!(
                f,
                "its UUID is {node}'s, but {found} is none of {node}'s Ethernet addresses; if it \
                 is another card of that machine, add it to `nodes.{node}.macs`"
            ),
            Self::TwoBoards { by_serial, by_mac } => write!(
                f,
                "its serial number is {by_serial}'s, its Ethernet address {by_mac}'s"
            ),
        }
    }
}

/// Who a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity<'a> {
    /// A machine of the table.
    Known(&'a BootMachine),
    /// None of the table's machines.
    Unknown,
    /// More than one, or one with another's papers.
    Conflict(Conflict),
}

/// The machines that netboot knows, found by UUID, by any Ethernet address, and by serial number.
#[derive(Debug, Clone, Default)]
pub struct BootTable {
    machines: BTreeMap<NodeName, BootMachine>,
    by_uuid: BTreeMap<MachineUuid, NodeName>,
    by_mac: BTreeMap<MacAddr, NodeName>,
    by_address: BTreeMap<Ipv4Addr, NodeName>,
    by_serial: BTreeMap<u32, NodeName>,
    unknown: UnknownPolicy,
}

/// What it is called when identifiers aren't those of the machine that they led to.
fn conflict(machine: &BootMachine, why: NotTheMachine, macs: &[MacAddr]) -> Option<Conflict> {
    let node = machine.name.clone();
    match why {
        NotTheMachine::OtherUuid { planned, shown } => Some(Conflict::NewUuid {
            node,
            expected: planned,
            found: shown,
        }),
        NotTheMachine::NoMac => macs.first().map(|found| Conflict::NewMac {
            node,
            found: *found,
        }),
        // Nothing that was asked for leads to a machine without such identifiers.
        NotTheMachine::NoUuid { .. } | NotTheMachine::Nameless => None,
    }
}

/// Refuses what would break out of a script's line or a packet's option.
fn check_words(machine: &BootMachine) -> Result<(), NetbootError> {
    let bad = |setting, problem| Err(NetbootError::BadConfig { setting, problem });
    let name = &machine.name;
    if let Some(param) = machine.kernel_params.iter().find(|p| !is_plain_param(p)) {
        return bad(
            "kernel_params",
            format!("{param:?} of {name} must be one word without `${{`"),
        );
    }
    let host = &machine.hostname;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    if host.len() > 63 || !host.bytes().all(plain) {
        return bad(
            "hostname",
            format!("{host:?} of {name} is no host name of at most 63 characters"),
        );
    }
    Ok(())
}

impl BootTable {
    /// Makes a table.
    ///
    /// # Errors
    /// When two machines share a name, a UUID, an Ethernet address, a fixed address or a serial
    /// number, or when a host name or kernel parameter isn't one word.
    pub fn new(
        machines: impl IntoIterator<Item = BootMachine>,
        unknown: UnknownPolicy,
    ) -> Result<Self, NetbootError> {
        let mut table = Self {
            unknown,
            ..Self::default()
        };
        for machine in machines {
            table.insert(machine)?;
        }
        Ok(table)
    }

    fn insert(&mut self, machine: BootMachine) -> Result<(), NetbootError> {
        fn claim<K: Ord + ToString>(
            map: &mut BTreeMap<K, NodeName>,
            key: K,
            what: &'static str,
            name: &NodeName,
        ) -> Result<(), NetbootError> {
            if let Some(first) = map.get(&key)
                && first != name
            {
                return Err(NetbootError::DuplicateMachine {
                    what,
                    value: key.to_string(),
                    first: first.clone(),
                    second: name.clone(),
                });
            }
            map.insert(key, name.clone());
            Ok(())
        }
        let name = machine.name.clone();
        if self.machines.contains_key(&name) {
            return Err(NetbootError::DuplicateMachine {
                what: "name",
                value: name.to_string(),
                first: name.clone(),
                second: name,
            });
        }
        check_words(&machine)?;
        if let Some(uuid) = machine.uuid.filter(|uuid| uuid.is_unique()) {
            claim(&mut self.by_uuid, uuid, "UUID", &name)?;
        }
        for mac in &machine.macs {
            claim(&mut self.by_mac, *mac, "Ethernet address", &name)?;
        }
        if let Some(address) = machine.address {
            claim(&mut self.by_address, address, "address", &name)?;
        }
        if let Some(serial) = machine.pi_serial {
            claim(&mut self.by_serial, serial, "serial number", &name)?;
        }
        self.machines.insert(name, machine);
        Ok(())
    }

    /// What becomes of machines that the table doesn't know.
    pub fn unknown_policy(&self) -> UnknownPolicy {
        self.unknown
    }

    /// The machines, by name.
    pub fn machines(&self) -> impl Iterator<Item = &BootMachine> {
        self.machines.values()
    }

    /// The machine of a name.
    pub fn get(&self, name: &NodeName) -> Option<&BootMachine> {
        self.machines.get(name)
    }

    /// The machine that has a fixed address.
    pub fn by_address(&self, address: Ipv4Addr) -> Option<&BootMachine> {
        self.machines.get(self.by_address.get(&address)?)
    }

    /// The machine that has an Ethernet address.
    pub fn by_mac(&self, mac: MacAddr) -> Option<&BootMachine> {
        self.machines.get(self.by_mac.get(&mac)?)
    }

    /// Changes what a machine is to boot. Returns the intent it had.
    ///
    /// # Errors
    /// When the table has no such machine.
    pub fn set_intent(
        &mut self,
        name: &NodeName,
        intent: BootIntent,
    ) -> Result<BootIntent, NetbootError> {
        let machine = self
            .machines
            .get_mut(name)
            .ok_or_else(|| NetbootError::UnknownMachine { name: name.clone() })?;
        Ok(std::mem::replace(&mut machine.intent, intent))
    }

    /// Finds out who a request comes from, by all that it says of itself.
    ///
    /// Anybody can send any UUID, and it stands on many a machine's label, so that with a foreign
    /// Ethernet address it names a machine only where the table has no Ethernet address of that
    /// machine. An Ethernet address that it knows with a UUID that is not its machine's is a
    /// conflict, unless the table has no UUID for it.
    pub fn identify(
        &self,
        uuid: Option<MachineUuid>,
        mac: Option<MacAddr>,
        pi_serial: Option<u32>,
    ) -> Identity<'_> {
        self.decide_for(uuid, mac.as_slice(), pi_serial)
    }

    /// Finds out who a machine is that names all of its Ethernet addresses, as an installer does.
    /// Cards that the table doesn't know say nothing beside one that it does.
    pub fn identify_all(&self, uuid: Option<MachineUuid>, macs: &[MacAddr]) -> Identity<'_> {
        self.decide_for(uuid, macs, None)
    }

    /// The table finds whose the identifiers could be; [`MachineIdentity`] says whether they are.
    fn decide_for(
        &self,
        uuid: Option<MachineUuid>,
        macs: &[MacAddr],
        pi_serial: Option<u32>,
    ) -> Identity<'_> {
        let unique = uuid.filter(|uuid| uuid.is_unique());
        let by_uuid = unique.and_then(|uuid| self.machines.get(self.by_uuid.get(&uuid)?));
        let by_serial =
            pi_serial.and_then(|serial| self.machines.get(self.by_serial.get(&serial)?));
        let mut owners = macs.iter().filter_map(|mac| self.by_mac(*mac));
        let by_mac = owners.next();
        let two = |one: &BootMachine, other: &BootMachine| {
            Identity::Conflict(Conflict::TwoMachines {
                by_uuid: one.name.clone(),
                by_mac: other.name.clone(),
            })
        };
        if let Some(m) = by_mac {
            if let Some(u) = by_uuid.filter(|u| u.name != m.name) {
                return two(u, m);
            }
            if let Some(other) = owners.find(|other| other.name != m.name) {
                return two(m, other);
            }
        }
        // Who names no Ethernet address at all is known by what else is said.
        if let Some(machine) = by_mac.or(by_uuid.filter(|_| !macs.is_empty()))
            && let Some(why) = machine.identity().refute(uuid, macs)
            && let Some(conflict) = conflict(machine, why, macs)
        {
            return Identity::Conflict(conflict);
        }
        if let (Some(s), Some(m)) = (by_serial, by_mac)
            && s.name != m.name
        {
            return Identity::Conflict(Conflict::TwoBoards {
                by_serial: s.name.clone(),
                by_mac: m.name.clone(),
            });
        }
        match by_uuid.or(by_mac).or(by_serial) {
            Some(machine) => Identity::Known(machine),
            None => Identity::Unknown,
        }
    }

    /// Reads the 16 octets that follow option 97's type octet.
    ///
    /// RFC 4578 leaves their order open; UEFI firmware and iPXE send the first three fields in
    /// little-endian order, some BIOS ROMs don't. The order under which the table knows the
    /// machine is taken, else the little-endian one.
    pub fn read_uuid(&self, octets: [u8; 16]) -> MachineUuid {
        let [a, b, c, d, e, f, g, h, rest @ ..] = octets;
        let [i, j, k, l, m, n, o, p] = rest;
        let mixed = MachineUuid([d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]);
        let plain = MachineUuid(octets);
        if !self.by_uuid.contains_key(&mixed) && self.by_uuid.contains_key(&plain) {
            plain
        } else {
            mixed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn machine(name: &str, mac: u8, uuid: Option<&str>) -> BootMachine {
        BootMachine {
            uuid: uuid.map(|u| u.parse().unwrap()),
            ..BootMachine::new(
                node(name),
                vec![MacAddr([2, 0, 0, 0, 0, mac]), MacAddr([2, 0, 0, 0, 1, mac])],
                System::X86_64Linux,
                BootIntent::Install,
            )
        }
    }

    const UUID_A: &str = "7d4b1c1e-8f4e-4a53-9c34-0d7a3e1b2c3d";
    const UUID_B: &str = "11111111-2222-3333-4444-555555555555";

    fn table() -> BootTable {
        BootTable::new(
            [
                machine("a", 1, Some(UUID_A)),
                machine("b", 2, Some(UUID_B)),
                machine("c", 3, None),
            ],
            UnknownPolicy::Discover,
        )
        .unwrap()
    }

    fn who(table: &BootTable, uuid: Option<&str>, mac: Option<u8>) -> String {
        let uuid = uuid.map(|u| u.parse().unwrap());
        let mac = mac.map(|m| MacAddr([2, 0, 0, 0, 1, m]));
        match table.identify(uuid, mac, None) {
            Identity::Known(machine) => machine.name.to_string(),
            Identity::Unknown => "unknown".into(),
            Identity::Conflict(conflict) => conflict.to_string(),
        }
    }

    #[test]
    fn a_machine_is_known_by_its_uuid_and_by_each_of_its_addresses() {
        let table = table();
        assert_eq!(who(&table, Some(UUID_A), Some(1)), "a");
        assert_eq!(who(&table, None, Some(1)), "a");
        assert_eq!(who(&table, Some(UUID_A), None), "a");
        assert_eq!(who(&table, None, Some(9)), "unknown");
        assert_eq!(
            who(
                &table,
                Some("99999999-2222-3333-4444-555555555555"),
                Some(3)
            ),
            "c",
            "a machine without a UUID in the inventory may have any"
        );
    }

    #[test]
    fn a_uuid_alone_names_only_a_machine_without_ethernet_addresses() {
        let mut lone = machine("lone", 7, Some("99999999-2222-3333-4444-555555555555"));
        lone.macs.clear();
        let table = BootTable::new(
            [machine("a", 1, Some(UUID_A)), lone],
            UnknownPolicy::Discover,
        )
        .unwrap();
        let lone = Some("99999999-2222-3333-4444-555555555555");
        assert_eq!(who(&table, lone, Some(9)), "lone");
        insta::assert_snapshot!(who(&table, Some(UUID_A), Some(9)), @"its UUID is a's, but 02:00:00:00:01:09 is none of a's Ethernet addresses; if it is another card of that machine, add it to `nodes.a.macs`");
        // An installer names all of its cards, also those that the inventory leaves out.
        let of = |n| MacAddr([2, 0, 0, 0, 1, n]);
        let uuid = UUID_A.parse().ok();
        let known = table.identify_all(uuid, &[of(9), of(1), of(8)]);
        assert!(matches!(known, Identity::Known(m) if m.name.as_str() == "a"));
        let foreign = table.identify_all(uuid, &[of(9), of(8)]);
        assert!(matches!(
            foreign,
            Identity::Conflict(Conflict::NewMac { .. })
        ));
    }

    #[test]
    fn identities_that_disagree_are_conflicts() {
        let table = table();
        insta::assert_snapshot!(who(&table, Some(UUID_A), Some(2)), @"its UUID is a's, its Ethernet address b's; was a network card moved?");
        insta::assert_snapshot!(
            who(&table, Some("99999999-2222-3333-4444-555555555555"), Some(1)),
            @"its Ethernet address is a's, but its UUID is 99999999-2222-3333-4444-555555555555 and not 7d4b1c1e-8f4e-4a53-9c34-0d7a3e1b2c3d; was the mainboard changed?"
        );
    }

    #[test]
    fn placeholder_uuids_tell_nothing() {
        let shared = "03000200-0400-0500-0006-000700080009";
        let table = BootTable::new(
            [machine("a", 1, Some(shared)), machine("b", 2, Some(shared))],
            UnknownPolicy::Discover,
        )
        .unwrap();
        assert_eq!(who(&table, Some(shared), Some(2)), "b");
        assert_eq!(who(&table, Some(shared), Some(9)), "unknown");
        assert_eq!(
            who(
                &table,
                Some("ffffffff-ffff-ffff-ffff-ffffffffffff"),
                Some(1)
            ),
            "a"
        );
    }

    #[test]
    fn either_order_of_option_97_is_understood() {
        let table = table();
        let uuid: MachineUuid = UUID_A.parse().unwrap();
        let mut mixed = uuid.0;
        mixed[0..4].reverse();
        mixed[4..6].reverse();
        mixed[6..8].reverse();
        assert_eq!(table.read_uuid(mixed), uuid);
        assert_eq!(table.read_uuid(uuid.0), uuid);
    }

    #[test]
    fn words_that_would_break_out_of_a_script_are_refused() {
        for param in ["", "a b", "a\nchain http://x/", "x=${next-server}", "||"] {
            let mut bad = machine("a", 1, None);
            bad.kernel_params = vec![param.to_owned()];
            assert!(
                BootTable::new([bad], UnknownPolicy::Discover).is_err(),
                "{param:?}"
            );
        }
    }

    #[test]
    fn shared_identifiers_are_refused() {
        let error = BootTable::new(
            [machine("a", 1, None), machine("b", 1, None)],
            UnknownPolicy::Discover,
        )
        .unwrap_err();
        insta::assert_snapshot!(error, @"machines a and b share the Ethernet address 02:00:00:00:00:01");
    }
}
