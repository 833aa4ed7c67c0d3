//! A crate's public face: what others can reach by its name.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Item, Modules, Names};

/// What is reachable, by where it stands, with the names that it is reached by.
pub(crate) type Face = BTreeMap<(Names, String), BTreeSet<String>>;

/// Hands on which a name is followed; a longer chain goes in circles itself.
const HANDS_MAX: usize = 16;

/// The public face of a crate.
pub(crate) fn face(modules: &Modules) -> Face {
    let mut found = Face::new();
    let mut open = vec![Names::new()];
    let mut seen = BTreeSet::new();
    while let Some(place) = open.pop() {
        let Some(module) = modules.get(&place) else {
            continue;
        };
        if !seen.insert(place.clone()) {
            continue;
        }
        for (name, item) in &module.items {
            if item.is_public {
                let item = (place.clone(), name.clone());
                found.entry(item).or_default().insert(name.clone());
            }
        }
        for name in &module.open {
            open.push(below(&place, name));
        }
        for import in module.imports.iter().filter(|i| i.is_for_everyone) {
            match (
                target(modules, &place, &import.path, HANDS_MAX),
                &import.name,
            ) {
                (Some(Target::Module(place)), _) => open.push(place),
                (Some(Target::Item(place, item)), Some(name)) => {
                    found.entry((place, item)).or_default().insert(name.clone());
                }
                _ => {}
            }
        }
    }
    found
}

/// What a path leads to.
enum Target {
    Module(Names),
    Item(Names, String),
}

/// What a path of a module leads to; nothing where that is another crate's.
fn target(modules: &Modules, place: &[String], path: &[String], hands: usize) -> Option<Target> {
    let mut at = place.to_vec();
    for (number, name) in path.iter().enumerate() {
        let is_last = number + 1 == path.len();
        match name.as_str() {
            "crate" => at.clear(),
            "self" => {}
            "super" => {
                at.pop()?;
            }
            name if modules.contains_key(&below(&at, name)) => at.push(name.to_owned()),
            name => {
                let module = modules.get(&at)?;
                if is_last && module.items.contains_key(name) {
                    return Some(Target::Item(at, name.to_owned()));
                }
                let hands = hands.checked_sub(1)?;
                // A path doesn't begin with what it imports itself.
                let handed_on = |i: &&super::source::Import| {
                    i.name.as_deref() == Some(name) && (number > 0 || i.path != path)
                };
                if let Some(import) = module.imports.iter().find(handed_on) {
                    let rest = path.get(number + 1..)?.iter();
                    let path: Names = import.path.iter().chain(rest).cloned().collect();
                    return target(modules, &at, &path, hands);
                }
                let all = module
                    .imports
                    .iter()
                    .filter(|i| i.name.is_none() && number > 0);
                let rest = path.get(number..)?;
                return all
                    .map(|i| i.path.iter().chain(rest).cloned().collect::<Names>())
                    .find_map(|path| target(modules, &at, &path, hands));
            }
        }
    }
    Some(Target::Module(at))
}

/// An item of a face.
pub(crate) fn item<'a>(modules: &'a Modules, of: &(Names, String)) -> Option<&'a Item> {
    modules.get(&of.0)?.items.get(&of.1)
}

fn below(place: &[String], name: &str) -> Names {
    place
        .iter()
        .map(String::as_str)
        .chain([name])
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::{super::source::add, *};

    /// The modules of a crate whose files have those texts.
    pub(crate) fn modules(files: &[(&str, &str)]) -> Modules {
        let mut modules = Modules::new();
        for (place, text) in files {
            let names = place.split("::").filter(|name| !name.is_empty());
            let names: Names = names.map(str::to_owned).collect();
            add(&mut modules, names, Path::new(place), text).unwrap();
        }
        modules
    }

    #[test]
    fn what_is_reached_is_followed_through_hands() {
        let modules = modules(&[
            (
                "",
                "mod a; pub mod b; mod c; pub use a::{A, f as g}; pub use c::*; pub(crate) use a::Z; use a::Y;
                 pub const ROOT: u8 = 0; struct Own;",
            ),
            ("a", "pub use crate::c::inner::A; pub fn f() {} pub struct Y; pub struct Z;"),
            ("b", "pub struct B; pub(crate) struct P; mod hidden { pub struct H; }"),
            ("c", "pub mod inner { pub struct A; } pub struct C;"),
        ]);
        let shown: Vec<String> = face(&modules)
            .into_iter()
            .map(|((place, name), names)| {
                let names: Vec<_> = names.into_iter().collect();
                format!("{}::{name} as {}", place.join("::"), names.join(", "))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "::ROOT as ROOT",
                "a::f as g",
                "b::B as B",
                "c::C as C",
                "c::inner::A as A"
            ]
        );
    }
}
