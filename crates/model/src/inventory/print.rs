//! The canonical form of an inventory.

use std::fmt::Write as _;

use super::{
    Inventory,
    declare::{Out, Value},
    leaves,
};

/// Prints an inventory in its canonical form: all sections in the reference's order, all keys
/// that have a value or a default, and of a node only what differs from its class.
///
/// What is printed reads back as an equal inventory; comments of the file it was read from are
/// not kept.
pub fn print(inventory: &Inventory) -> String {
    let mut out = String::new();
    let sections = [
        ("fleet", inventory.fleet.write()),
        ("network", inventory.network.write()),
        ("kubernetes", inventory.kubernetes.write()),
        ("gitops", inventory.gitops.write()),
        ("secrets", inventory.secrets.write()),
        ("lending", inventory.lending.write()),
    ];
    for (name, section) in &sections {
        table(&mut out, name, section);
    }
    for (name, class) in &inventory.classes {
        table(&mut out, &format!("classes.{name}"), &class.write());
    }
    for (name, node) in &inventory.nodes {
        // A node without its class doesn't come from `parse`; it prints as if it had an empty one.
        let class = inventory.classes.get(&node.class).cloned();
        let Some(class) = class.or_else(super::Class::absent) else {
            continue;
        };
        let entry = node.entry(&class).write();
        table(&mut out, &format!("nodes.{name}"), &entry);
    }
    for (name, pc) in &inventory.pcs {
        table(&mut out, &format!("pcs.{name}"), &pc.write());
    }
    for (name, user) in &inventory.users {
        table(&mut out, &format!("users.{name}"), &user.write());
    }
    out
}

/// Writes a table under its header: its values first, then the tables in it.
fn table(out: &mut String, path: &str, value: &Out) {
    let Out::Table(keys) = value else {
        return;
    };
    if !out.is_empty() {
        out.push('\n');
    }
    // Writing to a string can't fail.
    let _ = writeln!(out, "[{path}]");
    for (name, value) in keys {
        match value {
            Out::Nothing | Out::Table(_) => {}
            Out::Scalar(_) | Out::List(_) => {
                let _ = writeln!(out, "{} = {}", key(name), inline(value));
            }
        }
    }
    for (name, value) in keys {
        if let Out::Table(_) = value {
            table(out, &format!("{path}.{}", key(name)), value);
        }
    }
}

/// A value on one line.
pub(crate) fn inline(value: &Out) -> String {
    match value {
        Out::Nothing => String::new(),
        Out::Scalar(text) => text.clone(),
        Out::List(items) => {
            let items: Vec<String> = items.iter().map(inline).collect();
            format!("[{}]", items.join(", "))
        }
        Out::Table(keys) => {
            let keys: Vec<String> = keys
                .iter()
                .filter(|(_, value)| *value != Out::Nothing)
                .map(|(name, value)| format!("{} = {}", key(name), inline(value)))
                .collect();
            if keys.is_empty() {
                "{}".to_owned()
            } else {
                format!("{{ {} }}", keys.join(", "))
            }
        }
    }
}

/// A key, in quotes where it isn't a bare one.
fn key(name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare {
        name.to_owned()
    } else {
        inline(&leaves::text(name))
    }
}
