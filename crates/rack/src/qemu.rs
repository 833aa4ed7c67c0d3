//! The command line of a machine's QEMU: a pure function of its description.

use std::path::Path;

use undercroft_model::System;

use super::accel::Accelerator;
use super::firmware::UefiFirmware;
use super::spec::{EmulatedBus, RackFirmware, VirtualMachine};
use super::state::{NVRAM_FILE, QMP_SOCKET, SERIAL_SOCKET, disk_file};

/// What a launch needs to know besides the machine's description.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Launch<'a> {
    pub(crate) accelerator: Accelerator,
    /// The firmware; `None` for a BIOS, which QEMU brings along.
    pub(crate) uefi: Option<&'a UefiFirmware>,
    /// The tap interfaces, one for each of the machine's MAC addresses.
    pub(crate) taps: &'a [String],
    /// Whether QEMU tells the firmware to try the network first.
    pub(crate) network_first: bool,
}

/// The id of the n-th network card, as QEMU's monitor knows it.
pub(crate) fn nic_id(index: usize) -> String {
    format!("nic{index}")
}

/// The arguments of QEMU; relative paths in them are in the machine's folder.
///
/// QEMU starts stopped (`-S`) and stays, stopped, when its guest shuts down or restarts
/// (`-no-reboot -no-shutdown`): so the supervisor hears all events, and which of the two it was,
/// before it ends QEMU and launches it anew where that is due.
pub(crate) fn arguments(machine: &VirtualMachine, launch: &Launch<'_>) -> Vec<String> {
    let mut args = Vec::new();
    let mut add = |option: &str, value: String| args.extend([option.to_owned(), value]);
    let bios = machine.firmware == RackFirmware::Bios;

    add("-name", machine.name.to_string());
    let (accel, cpu) = match (launch.accelerator, machine.system) {
        (Accelerator::Kvm, _) => ("kvm", Some("host")),
        (Accelerator::Tcg, System::Aarch64Linux) => ("tcg,thread=multi", Some("cortex-a72")),
        (Accelerator::Tcg, _) => ("tcg,thread=multi", None),
    };
    add("-accel", accel.into());
    add(
        "-machine",
        match (machine.system, launch.accelerator) {
            (System::Aarch64Linux, Accelerator::Kvm) => "virt,gic-version=host",
            (System::Aarch64Linux, Accelerator::Tcg) => "virt",
            // Without graphics, SeaBIOS and its option ROMs write to the serial port.
            _ if bios => "q35,graphics=off",
            _ => "q35",
        }
        .into(),
    );
    if let Some(cpu) = cpu {
        add("-cpu", cpu.into());
    }
    add("-smp", machine.cpus.to_string());
    add("-m", machine.memory_mb.to_string());
    add("-uuid", machine.uuid.to_string());
    add("-display", "none".into());
    add(
        "-chardev",
        format!("socket,id=qmp,path={QMP_SOCKET},server=off"),
    );
    add("-mon", "chardev=qmp,mode=control".into());
    add(
        "-chardev",
        format!("socket,id=serial,path={SERIAL_SOCKET},server=off"),
    );
    add("-serial", "chardev:serial".into());

    if let Some(uefi) = launch.uefi {
        let (code, format) = (escaped(&uefi.code.path), &uefi.code.format);
        add(
            "-drive",
            format!("if=pflash,unit=0,readonly=on,format={format},file={code}"),
        );
        let format = &uefi.vars.format;
        add(
            "-drive",
            format!("if=pflash,unit=1,format={format},file={NVRAM_FILE}"),
        );
    }

    // A BIOS keeps no boot order of its own: disks come first, then the network, except for a
    // launch that is to boot from the network. UEFI gets no order from QEMU other than for such
    // a launch, since OVMF would write it into the machine's variables.
    let disk_order = |index: usize| {
        if bios {
            format!(",bootindex={}", 10 + index)
        } else {
            String::new()
        }
    };
    let nic_order = match (launch.network_first, bios) {
        (true, _) => ",bootindex=1",
        (false, true) => ",bootindex=100",
        (false, false) => "",
    };
    for (index, disk) in machine.disks.iter().enumerate() {
        // `cache=unsafe` passes no flush on to the host's disk. A cut kills QEMU, not the host,
        // and what QEMU has written stays in the host's page cache: so a flush would only cost
        // time. A crash of the host can damage the rack's disks.
        let file = disk_file(index);
        add(
            "-drive",
            format!("if=none,id=disk{index},format=raw,cache=unsafe,discard=unmap,file={file}"),
        );
        let device = match disk.bus {
            EmulatedBus::Virtio => "virtio-blk-pci",
            EmulatedBus::Nvme => "nvme",
        };
        let (serial, order) = (&disk.serial, disk_order(index));
        add(
            "-device",
            format!("{device},drive=disk{index},serial={serial}{order}"),
        );
    }
    for (index, (mac, tap)) in machine.macs.iter().zip(launch.taps).enumerate() {
        add(
            "-netdev",
            format!("tap,id=net{index},ifname={tap},script=no,downscript=no,vhost=off"),
        );
        let nic = nic_id(index);
        // A BIOS boots from the network by the card's option ROM, which QEMU takes from the iPXE
        // project. UEFI does it by itself, and would skip that with the ROM there.
        let (rom, order) = match (bios, index) {
            (true, 0) => ("", nic_order),
            (false, 0) => (",romfile=", nic_order),
            _ => (",romfile=", ""),
        };
        add(
            "-device",
            format!("virtio-net-pci,id={nic},netdev=net{index},mac={mac}{rom}{order}"),
        );
    }
    add("-device", "virtio-rng-pci".into());
    args.extend(
        [
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-no-shutdown",
            "-S",
        ]
        .map(str::to_owned),
    );
    args
}

/// A path as a value in one of QEMU's comma-separated options: a comma is written twice.
pub(crate) fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::super::firmware::FlashImage;
    use super::super::spec::tests::machine;
    use super::*;

    fn firmware() -> UefiFirmware {
        let image = |path: &str| FlashImage {
            path: path.into(),
            format: "raw".into(),
        };
        UefiFirmware {
            code: image("/fw/a,b/CODE.fd"),
            vars: image("/fw/VARS.fd"),
        }
    }

    fn line(machine: &VirtualMachine, launch: &Launch<'_>) -> String {
        let args = arguments(machine, launch);
        let mut text = String::new();
        for arg in args {
            text.push_str(if arg.starts_with('-') { "\n" } else { " " });
            text.push_str(&arg);
        }
        text
    }

    #[test]
    fn a_uefi_machine() {
        let firmware = firmware();
        let taps = ["uc0".to_owned()];
        let launch = Launch {
            accelerator: Accelerator::Tcg,
            uefi: Some(&firmware),
            taps: &taps,
            network_first: false,
        };
        insta::assert_snapshot!(line(&machine("gpu-01", 1), &launch), @r"
        -name gpu-01
        -accel tcg,thread=multi
        -machine q35
        -smp 1
        -m 1024
        -uuid 01010101-0101-0101-0101-010101010101
        -display none
        -chardev socket,id=qmp,path=qmp.sock,server=off
        -mon chardev=qmp,mode=control
        -chardev socket,id=serial,path=serial.sock,server=off
        -serial chardev:serial
        -drive if=pflash,unit=0,readonly=on,format=raw,file=/fw/a,,b/CODE.fd
        -drive if=pflash,unit=1,format=raw,file=nvram.fd
        -drive if=none,id=disk0,format=raw,cache=unsafe,discard=unmap,file=disk0.img
        -device virtio-blk-pci,drive=disk0,serial=UC-gpu-01
        -netdev tap,id=net0,ifname=uc0,script=no,downscript=no,vhost=off
        -device virtio-net-pci,id=nic0,netdev=net0,mac=52:54:00:00:00:01,romfile=
        -device virtio-rng-pci
        -nodefaults
        -no-user-config
        -no-reboot
        -no-shutdown
        -S
        ");
    }

    #[test]
    fn a_bios_machine_tries_its_disk_first_and_the_network_once() {
        let mut machine = machine("old-01", 1);
        machine.firmware = RackFirmware::Bios;
        let taps = ["uc0".to_owned()];
        let mut launch = Launch {
            accelerator: Accelerator::Tcg,
            uefi: None,
            taps: &taps,
            network_first: false,
        };
        let order = |text: &str, device: &str| -> u32 {
            let line = text
                .lines()
                .find(|l| l.starts_with("-device") && l.contains(device));
            line.unwrap()
                .rsplit_once("bootindex=")
                .unwrap()
                .1
                .parse()
                .unwrap()
        };
        let text = line(&machine, &launch);
        assert!(
            order(&text, "virtio-blk") < order(&text, "virtio-net"),
            "{text}"
        );
        assert!(
            !text.contains("romfile"),
            "the option ROM is what boots: {text}"
        );
        launch.network_first = true;
        let text = line(&machine, &launch);
        assert!(
            order(&text, "virtio-blk") > order(&text, "virtio-net"),
            "{text}"
        );
    }

    #[test]
    fn uefi_gets_an_order_only_when_asked() {
        let firmware = firmware();
        let taps = ["uc0".to_owned()];
        let mut launch = Launch {
            accelerator: Accelerator::Tcg,
            uefi: Some(&firmware),
            taps: &taps,
            network_first: false,
        };
        let machine = machine("gpu-01", 1);
        assert!(!line(&machine, &launch).contains("bootindex"));
        launch.network_first = true;
        assert_eq!(line(&machine, &launch).matches("bootindex").count(), 1);
    }
}
