//! What is said of a finding, and what to try.

use undercroft_model::NodeName;

use super::DriftKind;

/// What is so, in a sentence without its machine.
pub(super) fn sentence(kind: DriftKind, subject: &str, want: &str, have: &str) -> String {
    match kind {
        DriftKind::System => format!("it runs {have}, and its system is {want}"),
        DriftKind::Booted => format!("it has booted {have}, and runs {want} by now"),
        DriftKind::BootDefault => {
            format!("it boots {have} next, and the one that proved itself is {want}")
        }
        DriftKind::FellBack => format!("it left {want} and went back to {have}"),
        DriftKind::Unit => format!("its unit {subject} has failed"),
        DriftKind::Health => format!("its check {subject} has failed: {have}"),
        DriftKind::Key => {
            let (user, key) = subject.split_once(' ').unwrap_or((subject, "a key"));
            format!("{key} lets somebody in as {user}, {have}, and its system doesn't name it")
        }
        DriftKind::StoreRoom => {
            format!("its Nix store has {have} free, and {want} should be")
        }
        DriftKind::EspRoom => format!(
            "its EFI system partition has {have} free, and another kernel with its initrd takes {want}"
        ),
        DriftKind::Clock => format!("its clock is {have}"),
        DriftKind::Label | DriftKind::Annotation if have == "absent" => {
            format!("its Node lacks the {kind} {subject}={want}")
        }
        DriftKind::Label | DriftKind::Annotation => {
            format!("the {kind} {subject} of its Node is {have}, and the inventory says {want}")
        }
        DriftKind::Taint => format!("its Node lacks the taint {want}"),
        DriftKind::Cordon => "its Node is cordoned, and nobody has said why".to_owned(),
        DriftKind::Kubelet => format!("its kubelet is {have}, and the API is {want}"),
        DriftKind::Application => format!("{subject} is {have}"),
    }
}

/// What to try.
pub(super) fn next(kind: DriftKind, node: Option<&NodeName>, subject: &str) -> String {
    let on = node.map_or("NODE", NodeName::as_str);
    match kind {
        DriftKind::System | DriftKind::Kubelet => {
            format!("`undercroft plan {on}` says what brings it there")
        }
        DriftKind::Booted => "restart it, so that it boots what it runs".to_owned(),
        DriftKind::BootDefault => format!(
            "`undercroft ssh {on} -- bootctl list` names its entries, and `bootctl set-default ENTRY` there chooses one"
        ),
        DriftKind::FellBack => format!(
            "`undercroft ssh {on} -- journalctl -b -1 -u undercroft-health` says why; bring it a system in which that is mended"
        ),
        DriftKind::Unit => {
            format!("`undercroft ssh {on} -- systemctl status '{subject}'` says why")
        }
        DriftKind::Health => {
            format!("`undercroft ssh {on} -- undercroft-health --once` runs its checks now")
        }
        DriftKind::Key => "take it out of that file; or name it in the inventory, under [users] or `admin_keys` of [fleet]".to_owned(),
        DriftKind::StoreRoom => format!(
            "`undercroft ssh {on} -- nix-collect-garbage --delete-older-than 30d`; what proved itself stays"
        ),
        DriftKind::EspRoom => format!(
            "`undercroft ssh {on} -- nix-collect-garbage --delete-older-than 30d`, and the next generation takes the old ones' kernels away"
        ),
        DriftKind::Clock => format!(
            "`undercroft ssh {on} -- timedatectl` says whom it asks; where several are off alike, look at this machine's own clock"
        ),
        DriftKind::Label | DriftKind::Annotation | DriftKind::Taint => {
            format!("`undercroft up {on}` puts it on; where it is meant, write it into the inventory")
        }
        DriftKind::Cordon => format!(
            "`kubectl uncordon {on}`, or say whose it is: `undercroft drift hold {on} cordon --reason …`"
        ),
        DriftKind::Application => match subject.split_once('/') {
            Some((namespace, name)) if is_plain(namespace) && is_plain(name) => {
                format!("`argocd app diff {namespace}/{name}` shows what differs")
            }
            _ => "look at it in Argo CD".to_owned(),
        },
    }
}

/// Whether a name of the API's can stand in a command as it is.
fn is_plain(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !name.is_empty() && !name.starts_with('-') && name.bytes().all(plain)
}
