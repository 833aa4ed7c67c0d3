//! The canonical form of an inventory.

use super::{
    Inventory,
    declare::{Out, Value, text},
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
    // A node without its class doesn't come from `parse`; it prints as if it had an empty one.
    let classless = super::Class::absent();
    for (name, node) in &inventory.nodes {
        let Some(class) = inventory.classes.get(&node.class).or(classless.as_ref()) else {
            continue;
        };
        let entry = node.entry(class).write();
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
    out.extend(["[", path, "]\n"]);
    for (name, value) in keys {
        match value {
            Out::Nothing | Out::Table(_) => {}
            Out::Scalar(_) | Out::List(_) => {
                key(out, name);
                out.push_str(" = ");
                inline(out, value);
                out.push('\n');
            }
        }
    }
    for (name, value) in keys {
        if let Out::Table(_) = value {
            let mut path = format!("{path}.");
            key(&mut path, name);
            table(out, &path, value);
        }
    }
}

/// Writes a value on one line.
fn inline(out: &mut String, value: &Out) {
    match value {
        Out::Nothing => {}
        Out::Scalar(text) => out.push_str(text),
        Out::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                inline(out, item);
            }
            out.push(']');
        }
        Out::Table(keys) => {
            let mut separator = "{ ";
            for (name, value) in keys.iter().filter(|(_, value)| *value != Out::Nothing) {
                out.push_str(separator);
                key(out, name);
                out.push_str(" = ");
                inline(out, value);
                separator = ", ";
            }
            out.push_str(if separator == "{ " { "{}" } else { " }" });
        }
    }
}

/// Writes a key, in quotes where it isn't a bare one.
fn key(out: &mut String, name: &str) {
    let bare = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare {
        out.push_str(name);
    } else {
        inline(out, &text(name));
    }
}
