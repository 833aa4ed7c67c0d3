//! The files of the installer that are this project's own. They are programs of POSIX sh, used
//! by both builders.

/// The first process of the image that is made from Debian's packages.
pub(crate) const INIT: &str = include_str!("assets/init");
/// The services that busybox's init keeps running.
pub(crate) const INITTAB: &str = include_str!("assets/etc/inittab");

/// The rules of udev for links by serial number, which installed systems have too.
pub(crate) const DISK_LINKS: &str = include_str!("../../../../nix/lib/disk-links.rules");

/// What says that a system is an installer: `VARIANT_ID` is what nixos-anywhere looks at too.
pub fn system_release() -> &'static str {
    include_str!("assets/os-release")
}

/// The programs of `/undercroft`, by name. `lib.sh` is read by the others and isn't run.
pub fn programs() -> [(&'static str, &'static str); 12] {
    [
        ("lib.sh", include_str!("assets/undercroft/lib.sh")),
        ("inspect", include_str!("assets/undercroft/inspect")),
        ("partition", include_str!("assets/undercroft/partition")),
        ("install", include_str!("assets/undercroft/install")),
        ("deliver", include_str!("assets/undercroft/deliver")),
        ("finish", include_str!("assets/undercroft/finish")),
        ("reboot", include_str!("assets/undercroft/reboot")),
        ("network", include_str!("assets/undercroft/network")),
        ("dhcp-event", include_str!("assets/undercroft/dhcp-event")),
        ("sshd", include_str!("assets/undercroft/sshd")),
        ("report", include_str!("assets/undercroft/report")),
        ("console", include_str!("assets/undercroft/console")),
    ]
}
