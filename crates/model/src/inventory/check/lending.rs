//! Lending: its times, who brings work, and the keys that say who somebody is.

use super::state::{Check, Seen};
use crate::inventory::{
    Component, Lending,
    words::{listed, nearest},
};

pub(super) fn check(c: &mut Check<'_, '_>) {
    let draft = c.draft;
    let Some(lending) = &draft.lending else {
        return;
    };
    if lending.enabled && lending.nats_url.is_none() && c.whole("lending", "nats_url") {
        c.error(
            "missing-key",
            &["lending", "enabled"],
            "lending needs `nats_url`",
            "Add `nats_url = \"tls://HOST:4222\"`, at which the PCs reach the NATS server.",
        );
    }
    // A lease outlives one lost renewal.
    if lending.heartbeat_s * 2 > lending.lease_s {
        let message = format!(
            "a lease of {} s doesn't outlive one lost renewal at {} s",
            lending.lease_s, lending.heartbeat_s
        );
        let key = ["heartbeat_s", "lease_s"]
            .into_iter()
            .find(|key| c.has(&["lending", key]))
            .unwrap_or("lease_s");
        c.error(
            "contradiction",
            &["lending", key],
            message,
            "Make `lease_s` at least twice `heartbeat_s`.",
        );
    }
    submitters(c, lending);
    keys(c, lending);
    in_the_cluster(c, lending);
}

/// The server's image is the component's alone. What the component needs of the inventory is asked for when the tree is
/// rendered: its key comes from the secrets, which are made from an inventory that has no key yet.
fn in_the_cluster(c: &mut Check<'_, '_>, lending: &Lending) {
    let draft = c.draft;
    let component = Component::LendingServer;
    let is_listed = draft
        .gitops
        .as_ref()
        .is_none_or(|gitops| gitops.components.contains(&component));
    if lending.server_image.is_some() && !is_listed && c.whole("gitops", "components") {
        c.warning(
            "without-effect",
            &["lending", "server_image"],
            format!("`{component}` is not among the components, and nothing else uses its image"),
            format!("Add \"{component}\" to `gitops.components`, or take `server_image` out."),
        );
    }
}

fn submitters(c: &mut Check<'_, '_>, lending: &Lending) {
    for (name, submitter) in &lending.submitters {
        let at = ["lending", "submitters", name.as_str(), "tenant"];
        if !lending.tenants.contains(&submitter.tenant) && c.whole("lending", "tenants") {
            let known = lending.tenants.iter().map(String::as_str);
            let hint = match nearest(&submitter.tenant, known.clone()) {
                Some(near) => format!("Did you mean `{near}`?"),
                None if lending.tenants.is_empty() => "Add it to `lending.tenants`.".to_owned(),
                None => format!("Known are {}.", listed(known)),
            };
            let message = format!("there is no tenant `{}`", submitter.tenant);
            c.error("unknown-name", &at, message, hint);
        }
        if submitter.brings > lending.max_sensitivity {
            let at = ["lending", "submitters", name.as_str()];
            let message = format!(
                "what `{name}` brings is {}, and at most {} is lent",
                submitter.brings, lending.max_sensitivity
            );
            let hint =
                "Say `brings = \"public\"` if all of it is, or raise `lending.max_sensitivity`.";
            c.warning("without-effect", &at, message, hint);
        }
    }
}

/// A key says who somebody is: each stands once, and a PC's two stand together. An owner may have one key for
/// several PCs.
fn keys(c: &mut Check<'_, '_>, lending: &Lending) {
    let draft = c.draft;
    let path = |parts: &[&str]| -> Vec<String> { parts.iter().map(|p| (*p).to_owned()).collect() };
    let mut nkeys: Vec<(&str, Vec<String>)> = Vec::new();
    let mut owners: Vec<(&str, Vec<String>)> = Vec::new();
    if let Some(key) = &lending.server_key {
        nkeys.push((key, path(&["lending", "server_key"])));
    }
    for (name, submitter) in &lending.submitters {
        let at = path(&["lending", "submitters", name.as_str(), "nkey"]);
        nkeys.push((&submitter.nkey, at));
    }
    for (name, pc) in &draft.pcs {
        let at = |key| path(&["pcs", name.as_str(), "lend", key]);
        match (&pc.lend.nkey, &pc.lend.owner_key) {
            (Some(nkey), Some(owner)) => {
                nkeys.push((nkey, at("nkey")));
                owners.push((owner, at("owner_key")));
            }
            (Some(_), None) => half(c, name.as_str(), "nkey", "owner_key"),
            (None, Some(_)) => half(c, name.as_str(), "owner_key", "nkey"),
            (None, None) => {}
        }
    }
    let mut seen = Seen::new();
    for (key, at) in &nkeys {
        if let Some(first) = seen.note(*key, at) {
            twice(c, first, at);
        }
    }
    for (key, at) in &owners {
        if let Some((_, first)) = nkeys.iter().find(|(nkey, _)| nkey == key) {
            twice(c, first, at);
        }
    }
}

fn half(c: &mut Check<'_, '_>, pc: &str, given: &str, absent: &str) {
    if c.whole("pcs", pc) {
        let message = format!("`{pc}` has `{given}` and no `{absent}`");
        let hint = "Take both from what `undercroft lend enrol` prints on the PC.";
        c.error("missing-key", &["pcs", pc, "lend", given], message, hint);
    }
}

fn twice(c: &mut Check<'_, '_>, first: &[String], second: &[String]) {
    let first: Vec<&str> = first.iter().map(String::as_str).collect();
    let second: Vec<&str> = second.iter().map(String::as_str).collect();
    c.duplicate(
        "duplicate-key",
        &first,
        &second,
        "the same nkey is given twice".to_owned(),
        "A key says who somebody is: each PC, each submitter and the server have their own, and owners theirs.",
    );
}
