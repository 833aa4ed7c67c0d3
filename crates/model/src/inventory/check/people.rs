//! PCs and people.

use super::state::{Check, Seen};
use crate::{
    System,
    inventory::{
        Os, Runtime, UserRole,
        words::{listed, nearest},
    },
};

pub(super) fn check(c: &mut Check<'_, '_>) {
    pcs(c);
    users(c);
}

fn pcs(c: &mut Check<'_, '_>) {
    let draft = c.draft;
    for (name, pc) in &draft.pcs {
        let name = name.as_str();
        if pc.users.is_empty() && c.whole("pcs", name) {
            let hint = "Add `users = [\"NAME\"]`; the first is the owner.";
            c.error(
                "no-owner",
                &["pcs", name],
                format!("the PC `{name}` has no owner"),
                hint,
            );
        }
        let mut seen = Seen::new();
        for (i, user) in pc.users.iter().enumerate() {
            let path = ["pcs", name, "users", &i.to_string()];
            if !draft.users.contains_key(user) {
                c.unknown("user", "users", user.as_str(), &path);
            }
            if let Some(j) = seen.note(user, i) {
                let first = ["pcs", name, "users", &usize::to_string(&j)];
                let message = format!("`{user}` is listed twice");
                c.duplicate(
                    "duplicate-user",
                    &first,
                    &path,
                    message,
                    "Take one of them out.",
                );
            }
        }
        let darwin = matches!(pc.system, System::X86_64Darwin | System::Aarch64Darwin);
        if darwin != (pc.os == Os::Macos) {
            let message = format!("the system {} contradicts `os = \"{}\"`", pc.system, pc.os);
            let hint = match pc.os {
                Os::Macos => "macOS is \"aarch64-darwin\" or \"x86_64-darwin\".",
                Os::Linux | Os::WindowsWsl2 => {
                    "Linux, under WSL2 too, is \"x86_64-linux\" or \"aarch64-linux\"."
                }
            };
            c.error("os-and-system", &["pcs", name, "system"], message, hint);
        }
        lend(c, name, pc);
    }
}

fn lend(c: &mut Check<'_, '_>, name: &str, pc: &crate::inventory::Pc) {
    let Some(lending) = &c.draft.lending else {
        return;
    };
    let path = |key| ["pcs", name, "lend", key];
    if pc.lend.enabled && !lending.enabled {
        let message = format!("`{name}` lends, and there is no lending");
        let hint = "Set `enabled = true` under [lending], or take this out.";
        c.warning("without-effect", &path("enabled"), message, hint);
    }
    for (i, runtime) in pc
        .lend
        .runtimes
        .iter()
        .enumerate()
        .filter(|_| pc.lend.enabled)
    {
        let at = ["pcs", name, "lend", "runtimes", &i.to_string()];
        if pc.os == Os::Macos && *runtime != Runtime::Wasm {
            let message = format!("macOS has no sandbox for the runtime `{runtime}`");
            c.error(
                "runtime-not-on-macos",
                &at,
                message,
                "Lend `wasm` only on macOS.",
            );
        } else if lending.enabled && !lending.runtimes.contains(runtime) {
            let message = format!("`{runtime}` is not among the runtimes of [lending]");
            c.warning(
                "without-effect",
                &at,
                message,
                "Add it there, or take it out here.",
            );
        }
    }
    for (i, tenant) in pc.lend.tenants.iter().enumerate() {
        if !lending.tenants.contains(tenant) && c.cx.knows_names("lending") {
            let at = ["pcs", name, "lend", "tenants", &i.to_string()];
            let known = lending.tenants.iter().map(String::as_str);
            let hint = match nearest(tenant, known.clone()) {
                Some(near) => format!("Did you mean `{near}`?"),
                None if lending.tenants.is_empty() => "Add it to `lending.tenants`.".to_owned(),
                None => format!("Known are {}.", listed(known)),
            };
            c.error(
                "unknown-name",
                &at,
                format!("there is no tenant `{tenant}`"),
                hint,
            );
        }
    }
}

fn users(c: &mut Check<'_, '_>) {
    let draft = c.draft;
    let mut keys = Seen::new();
    for (name, user) in &draft.users {
        let name = name.as_str();
        if name == "root" {
            let message = "`root` is the name of every machine's own administrator";
            c.error(
                "reserved-name",
                &["users", name],
                message,
                "Name the person.",
            );
        }
        if user.role == UserRole::Admin && user.ssh_keys.is_empty() && c.whole("users", name) {
            let message = format!("`{name}` is an admin and has no SSH key to log in with");
            c.warning(
                "no-key",
                &["users", name],
                message,
                "Add `ssh_keys = [\"ssh-ed25519 …\"]`.",
            );
        }
        for (i, key) in user.ssh_keys.iter().enumerate() {
            let blob = key.split_ascii_whitespace().nth(1).unwrap_or(key);
            if let Some((other, j)) = keys.note(blob, (name, i)) {
                let first = ["users", other, "ssh_keys", &usize::to_string(&j)];
                let second = ["users", name, "ssh_keys", &i.to_string()];
                let message = "the same SSH key is given twice".to_owned();
                c.claimed_twice(
                    "duplicate-key",
                    "SSH key",
                    &first,
                    &second,
                    message,
                    "A key says who somebody is: give each person their own.",
                );
            }
        }
    }
}
