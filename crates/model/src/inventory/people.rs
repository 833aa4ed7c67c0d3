//! People and their PCs, which are never nodes of the cluster.

use super::{
    Runtime,
    declare::{Rule, choice, declared_default, fallback, rule, section},
    forms,
};
use crate::{System, UserName};

choice! {
    /// The operating system of a PC.
    pub enum Os {
        /// macOS, by nix-darwin.
        Macos = "macos",
        /// A Linux distribution with Nix on it, by Home Manager.
        Linux = "linux",
        /// Windows with a NixOS distribution under WSL2.
        WindowsWsl2 = "windows-wsl2",
    }
}

section! {
    /// What the owner of a PC lends while it isn't used. Nothing by default; the owner pauses
    /// and revokes at any time, whatever stands here.
    pub struct Lend {
        /// Whether the PC lends at all.
        enabled: bool = false;
        /// The PC's public nkey, as `undercroft lend enrol` prints it there: what it proves itself with to the
        /// message system, and signs with what it has done. Without it the PC gets no work.
        nkey: Option<String> => Rule::Text(&forms::NKEY);
        /// The public nkey of the PC's owner, printed with it: what the owner agrees to is signed with it.
        owner_key: Option<String> => Rule::Text(&forms::NKEY);
        /// Jobs at a time.
        slots: u32 = 1 => Rule::Range(1, 64);
        /// Share of the processors for all jobs together, in percent.
        cpu_percent: u32 = 50 => Rule::Range(1, 100);
        /// Memory for all jobs together, in MiB.
        memory_mb: u32 = 2048 => Rule::Range(64, 16_777_216);
        /// Disk space for all jobs together, in MiB.
        disk_mb: u32 = 4096 => Rule::Range(16, 16_777_216);
        /// Whether jobs may use the GPU.
        gpu: bool = false;
        /// Whether jobs may reach the network that they declare.
        network: bool = false;
        /// Seconds without the owner's input before jobs start.
        idle_after_s: u32 = 300 => Rule::Range(0, 86_400);
        /// The part of the day in which jobs may run, in the PC's own time: "22:00-06:30".
        /// Without it, all day.
        hours: Option<String> => Rule::Text(&forms::HOURS);
        /// What jobs may run in.
        runtimes: Vec<Runtime> = vec![Runtime::Wasm];
        /// Tenants of `lending.tenants` that the owner lends to. Empty means all.
        tenants: Vec<String> => Rule::Text(&forms::LABEL);
    }
}

section! {
    /// A developer's PC.
    pub struct Pc {
        /// Its operating system.
        os: Os;
        /// Processor and operating system in Nix's words; under WSL2, those of the Linux in it.
        system: System;
        /// People who work on it; the first is its owner.
        users: Vec<UserName>;
        /// Further modules for it: NixOS, nix-darwin or Home Manager, as its system asks.
        modules: Vec<String> => Rule::Text(&forms::RELATIVE_PATH);
        /// Whether it gets a local cluster (k3d) with the fleet's manifests.
        dev_cluster: bool = true;
        /// Whether it joins the overlay network.
        overlay: bool = true;
        /// What its owner lends.
        lend: Lend;
    }
}

choice! {
    /// What a person may do with the fleet.
    pub enum UserRole {
        /// Everything, as root on the nodes.
        Admin = "admin",
        /// Use the cluster and its services.
        Developer = "developer",
        /// Look.
        Viewer = "viewer",
    }
}

section! {
    /// A person.
    pub struct User {
        /// The name as people write it.
        full_name: Option<String>;
        /// Address for electronic mail.
        email: Option<String> => Rule::Text(&forms::EMAIL);
        /// What the person may do with the fleet.
        role: UserRole = UserRole::Developer;
        /// SSH public keys. Those of admins may log in to every node as root.
        ssh_keys: Vec<String> => Rule::Text(&forms::SSH_KEY);
        /// age recipient of the person: `age1…`, or an SSH public key.
        age_recipient: Option<String> => Rule::Text(&forms::RECIPIENT);
        /// Home Manager modules, by path from the inventory's folder; the same on every PC of
        /// the person.
        modules: Vec<String> => Rule::Text(&forms::RELATIVE_PATH);
    }
}
