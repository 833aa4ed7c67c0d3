//! Approving a machine's fingerprint: by an operator from another process, or by a console.

use std::{path::Path, time::Duration};

use undercroft_model::{APPROVAL_EXPIRES_MS, Approval, NodeName};

use crate::{ApprovalError, GrantedApproval, PendingReport, Store};

/// How often a running controller looks for approvals that were given by other processes.
pub const APPROVAL_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Approves a fingerprint that a machine waits with, as `undercroft approve NODE FINGERPRINT`
/// does. The fingerprint may be given with or without its `SHA256:`. It is good for as long as the
/// plan says that the machine waits by.
///
/// # Errors
/// When there is no journal, the machine doesn't wait, or it waits with another fingerprint.
pub fn approve(
    state_dir: &Path,
    node: &NodeName,
    fingerprint: &str,
    by: &str,
    wall_ms: u64,
) -> Result<GrantedApproval, ApprovalError> {
    let mut store = Store::open(state_dir, None)?;
    let good_for_ms = store.approval_term(node)?.unwrap_or(APPROVAL_EXPIRES_MS);
    store.approve(
        node,
        Approval {
            fingerprint: normalize_fingerprint(fingerprint),
            by: format!("operator {by}"),
            granted_wall_ms: wall_ms,
            expires_wall_ms: wall_ms.saturating_add(good_for_ms),
        },
    )
}

/// The machines that wait for an approval, as `undercroft approve` without arguments lists them.
///
/// # Errors
/// When there is no journal.
pub fn pending(state_dir: &Path) -> Result<Vec<PendingReport>, ApprovalError> {
    Ok(Store::open(state_dir, None)?.pending()?)
}

/// A fingerprint as OpenSSH prints it, from one that a person typed or copied.
pub fn normalize_fingerprint(text: &str) -> String {
    let text = text.trim().trim_end_matches('=');
    match text.get(..7) {
        Some(prefix) if prefix.eq_ignore_ascii_case("sha256:") => {
            format!("SHA256:{}", text.get(7..).unwrap_or_default())
        }
        _ => format!("SHA256:{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use undercroft_model::{INSTALLER_REPORT_VERSION, InstallerReport, ReportedFirmware, System};

    fn report(fingerprint: &str) -> InstallerReport {
        InstallerReport {
            version: INSTALLER_REPORT_VERSION,
            nonce: "00112233445566778899aabbccddeeff".into(),
            uuid: None,
            macs: vec!["52:54:00:00:00:01".parse().unwrap()],
            address: "10.88.0.11".parse().unwrap(),
            boot_id: "5a1c3a54-5b2c-4c0e-9c71-000000000001".into(),
            host_key: "ssh-ed25519 AAAA".into(),
            fingerprint: fingerprint.into(),
            system: System::X86_64Linux,
            firmware: ReportedFirmware::Uefi,
            memory_mb: 2048,
            installer: "undercroft-installer 0.1.0".into(),
            token: None,
            disks: vec![],
        }
    }

    fn waiting(dir: &Path, node: &NodeName, fingerprint: &str) {
        Store::create(dir, "basement")
            .unwrap()
            .set_pending(
                node,
                &[PendingReport::new(node.clone(), report(fingerprint), 5)],
            )
            .unwrap();
    }

    #[test]
    fn the_fingerprint_that_waits_is_approved_until_it_expires() {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeName::new("gpu-01").unwrap();
        waiting(dir.path(), &node, "SHA256:abc");
        assert_eq!(pending(dir.path()).unwrap().len(), 1);
        let granted = approve(dir.path(), &node, " abc ", "ada", 1000).unwrap();
        assert_eq!(granted.approval.by, "operator ada");
        let store = Store::open(dir.path(), None).unwrap();
        let good = store.approval(&node, "SHA256:abc", 1001).unwrap().unwrap();
        assert_eq!(good, granted.approval);
        let late = 1000 + APPROVAL_EXPIRES_MS;
        assert_eq!(store.approval(&node, "SHA256:abc", late).unwrap(), None);
        store.clear_pending(&node).unwrap();
        assert_eq!(store.pending().unwrap(), []);
    }

    /// A plan may give people less time, or more: what it says is what they are told and given.
    #[test]
    fn an_approval_is_good_for_as_long_as_the_plan_says() {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeName::new("gpu-01").unwrap();
        waiting(dir.path(), &node, "SHA256:abc");
        for term_ms in [60_000, 2 * APPROVAL_EXPIRES_MS] {
            let store = Store::open(dir.path(), None).unwrap();
            store.set_approval_term(&node, term_ms).unwrap();
            let granted = approve(dir.path(), &node, "abc", "ada", 1000).unwrap();
            assert_eq!(granted.approval.expires_wall_ms, 1000 + term_ms);
        }
    }

    #[test]
    fn another_fingerprint_is_refused_and_both_are_shown() {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeName::new("gpu-01").unwrap();
        waiting(dir.path(), &node, "SHA256:abc");
        let refused = approve(dir.path(), &node, "SHA256:xyz", "ada", 1000).unwrap_err();
        insta::assert_snapshot!(refused, @"gpu-01 reported the fingerprint SHA256:abc, and SHA256:xyz was given; nothing was approved");
        let store = Store::open(dir.path(), None).unwrap();
        assert_eq!(store.approval(&node, "SHA256:xyz", 1001).unwrap(), None);
        assert_eq!(store.approval(&node, "SHA256:abc", 1001).unwrap(), None);
    }

    #[test]
    fn a_machine_that_does_not_wait_is_refused_and_those_that_do_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let [node, other] = ["gpu-01", "gpu-02"].map(|n| NodeName::new(n).unwrap());
        waiting(dir.path(), &node, "SHA256:abc");
        let refused = approve(dir.path(), &other, "SHA256:abc", "ada", 1000).unwrap_err();
        insta::assert_snapshot!(refused, @"gpu-02 isn't waiting for an approval; gpu-01 is");
    }

    #[test]
    fn fingerprints_are_read_as_people_give_them() {
        for given in [
            "abc",
            "SHA256:abc",
            "sha256:abc",
            "SHA256:abc=",
            " SHA256:abc\n",
        ] {
            assert_eq!(normalize_fingerprint(given), "SHA256:abc");
        }
        assert_eq!(normalize_fingerprint("é€"), "SHA256:é€");
    }
}
