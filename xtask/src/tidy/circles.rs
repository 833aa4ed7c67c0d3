//! Files of a crate that use each other in a circle.
//!
//! A file uses another when it imports or names what the other defines. What a module only declares or hands on
//! (`pub use`) is a use of whoever takes it, and one of the file that defines it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::source::{Modules, Names};

/// Files that may use each other: a part and what it is a part of. More can't be understood one by one.
const FILES_MAX: usize = 2;
/// Hands on which a name is followed; a longer chain goes in circles itself.
const HANDS_MAX: usize = 16;

/// Which files a file uses, and the names that it takes from each.
type Uses = BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>;

/// Adds a finding for each circle of too many files.
pub(crate) fn check(modules: &Modules, findings: &mut Vec<String>) {
    let uses = uses(modules);
    for circle in circles(&uses) {
        if circle.len() <= FILES_MAX {
            continue;
        }
        let mut finding = format!("{} files use each other in a circle:", circle.len());
        for from in &circle {
            for (to, names) in uses.get(from).into_iter().flatten() {
                if circle.contains(to) {
                    let names: Vec<_> = names.iter().map(String::as_str).collect();
                    finding.push_str(&format!(
                        "\n  {} uses {}: {}",
                        from.display(),
                        to.display(),
                        names.join(", ")
                    ));
                }
            }
        }
        findings.push(finding);
    }
}

fn uses(modules: &Modules) -> Uses {
    let mut uses = Uses::new();
    for (place, module) in modules {
        let used = uses.entry(module.file.clone()).or_default();
        let mut take = |path: &[String]| {
            if let Some((file, name)) = home(modules, place, path, HANDS_MAX)
                && *file != module.file
            {
                let names: &mut BTreeSet<String> = used.entry(file.to_path_buf()).or_default();
                names.insert(name.to_owned());
            }
        };
        for import in &module.imports {
            match &import.name {
                // What is handed on is used only where it is named, too.
                Some(name) if import.is_public && !module.words.contains_key(name) => {}
                None if import.is_public => {}
                Some(_) => take(&import.path),
                // Of everything, what is named.
                None => {
                    for word in module.words.keys() {
                        let path: Names = import.path.iter().chain([word]).cloned().collect();
                        let is_there = absolute(modules, place, &import.path)
                            .and_then(|from| find(modules, &from, word, HANDS_MAX));
                        if is_there.is_some() {
                            take(&path);
                        }
                    }
                }
            }
        }
        for path in &module.paths {
            take(path);
        }
    }
    uses
}

/// The file that defines what a path of a module names, and the name.
fn home<'a>(
    modules: &'a Modules,
    place: &[String],
    path: &'a [String],
    hands: usize,
) -> Option<(&'a Path, &'a str)> {
    let mut module = absolute(modules, place, path.get(..1)?)?;
    let mut rest = path.get(1..)?;
    if !matches!(path.first()?.as_str(), "crate" | "self" | "super") {
        // The first name is a module beneath this one, or what this one has imported.
        (module, rest) = (place.to_vec(), path);
    }
    loop {
        let name = rest.first()?;
        if name == "super" {
            module.pop();
            rest = rest.get(1..)?;
            continue;
        }
        let below: Names = module.iter().chain([name]).cloned().collect();
        if modules.contains_key(&below) {
            (module, rest) = (below, rest.get(1..)?);
            continue;
        }
        let (at, imported) = import(modules, &module, name, hands)?;
        let Some(imported) = imported else {
            // It is defined here, or by a macro that is called here.
            let is_bare = at == place && rest.len() == path.len();
            return (!is_bare).then_some((modules.get(&at)?.file.as_path(), name.as_str()));
        };
        if let Some(place) = absolute(modules, &at, imported)
            && modules.contains_key(&place)
        {
            (module, rest) = (place, rest.get(1..)?);
            continue;
        }
        return home(modules, &at, imported, hands.checked_sub(1)?);
    }
}

/// Where a name of a module comes from: the module itself, or the path that it is imported by.
fn import<'a>(
    modules: &'a Modules,
    place: &[String],
    name: &str,
    hands: usize,
) -> Option<(Names, Option<&'a [String]>)> {
    let module = modules.get(place)?;
    let found = module
        .imports
        .iter()
        .find(|import| import.name.as_deref() == Some(name));
    if let Some(import) = found {
        return Some((place.to_vec(), Some(&import.path)));
    }
    if !module.items.contains_key(name) {
        for import in module.imports.iter().filter(|i| i.name.is_none()) {
            let from = absolute(modules, place, &import.path);
            if let Some(at) = from.and_then(|from| find(modules, &from, name, hands)) {
                return self::import(modules, &at, name, hands.checked_sub(1)?);
            }
        }
    }
    Some((place.to_vec(), None))
}

/// The module at or behind one that has a name of its own or by import.
fn find(modules: &Modules, place: &[String], name: &str, hands: usize) -> Option<Names> {
    let module = modules.get(place)?;
    let has = |import: &super::source::Import| import.name.as_deref() == Some(name);
    if module.items.contains_key(name) || module.imports.iter().any(has) {
        return Some(place.to_vec());
    }
    let hands = hands.checked_sub(1)?;
    let all = module.imports.iter().filter(|import| import.name.is_none());
    all.filter_map(|import| absolute(modules, place, &import.path))
        .find_map(|from| find(modules, &from, name, hands))
}

/// The module that a path names, whether it is there or not; nothing for what is another crate's.
fn absolute(modules: &Modules, place: &[String], path: &[String]) -> Option<Names> {
    let mut names = path.iter();
    let first = names.next()?;
    let mut at = match first.as_str() {
        "crate" => Names::new(),
        "self" => place.to_vec(),
        "super" => place.get(..place.len().checked_sub(1)?)?.to_vec(),
        name => {
            let below: Names = place.iter().cloned().chain([name.to_owned()]).collect();
            if modules.contains_key(&below) {
                below
            } else {
                place.to_vec()
            }
        }
    };
    for name in names {
        if name == "super" {
            at.pop();
        } else {
            at.push(name.clone());
        }
    }
    Some(at)
}

/// The circles: files of which each reaches each other.
fn circles(uses: &Uses) -> Vec<BTreeSet<PathBuf>> {
    let reached: BTreeMap<&Path, BTreeSet<&Path>> = uses
        .keys()
        .map(|from| (from.as_path(), reach(uses, from)))
        .collect();
    let mut circles: BTreeSet<BTreeSet<PathBuf>> = BTreeSet::new();
    for (from, to) in &reached {
        let back = |other: &&&Path| reached.get(**other).is_some_and(|r| r.contains(from));
        circles.insert(to.iter().filter(back).map(|p| p.to_path_buf()).collect());
    }
    circles.into_iter().collect()
}

fn reach<'a>(uses: &'a Uses, from: &'a Path) -> BTreeSet<&'a Path> {
    let mut open = vec![from];
    let mut seen = BTreeSet::new();
    while let Some(at) = open.pop() {
        for to in uses.get(at).into_iter().flat_map(BTreeMap::keys) {
            if seen.insert(to.as_path()) {
                open.push(to);
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::{super::source::add, *};

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let mut modules = Modules::new();
        for (place, text) in files {
            let names = place.split("::").filter(|name| !name.is_empty());
            let names: Names = names.map(str::to_owned).collect();
            add(&mut modules, names, Path::new(place), text).unwrap();
        }
        let mut findings = Vec::new();
        check(&modules, &mut findings);
        findings
    }

    #[test]
    fn three_files_in_a_circle_are_found_and_two_are_not() {
        let three = [
            ("", "mod a; mod b; mod c;"),
            ("a", "use crate::b::B; pub struct A;"),
            ("b", "pub struct B(super::c::C);"),
            ("c", "use crate::{a::A as Renamed}; pub struct C;"),
        ];
        assert_eq!(
            found(&three),
            ["3 files use each other in a circle:\n  a uses b: B\n  b uses c: C\n  c uses a: A"]
        );
        let two = [
            ("a", "use crate::b::B; pub struct A;"),
            ("b", "use crate::a; pub struct B(a::A);"),
        ];
        assert_eq!(found(&two), [""; 0]);
    }

    #[test]
    fn who_hands_on_is_not_used_and_uses_nobody() {
        let handed_on = [
            (
                "",
                "mod a; mod b; mod c; pub use a::A; use b::B; pub use c::*;",
            ),
            ("a", "use super::{B, C}; pub struct A; fn f() -> C { C }"),
            ("b", "pub struct B;"),
            ("c", "pub struct C;"),
        ];
        assert_eq!(found(&handed_on), [""; 0]);
        let used = [
            (
                "",
                "mod a; mod b; pub use a::A; fn f(a: A) {} pub struct R;",
            ),
            ("a", "use super::b; pub struct A(b::B);"),
            ("b", "pub struct B(crate::R);"),
        ];
        assert_eq!(found(&used).len(), 1, "{:?}", found(&used));
    }

    #[test]
    fn everything_of_a_module_is_what_is_named_of_it() {
        let all = [
            ("a", "use super::b::*; pub struct A(B);"),
            ("b", "pub use crate::c::C; pub struct B(C);"),
            ("c", "pub struct C(crate::a::A);"),
        ];
        assert_eq!(found(&all).len(), 1);
    }

    #[test]
    fn another_crate_with_a_modules_name_is_no_use() {
        let outside = [
            ("a", "use b::B; pub struct A;"),
            ("b", "use c::C; pub struct B;"),
            ("c", "use a::A; pub struct C;"),
        ];
        assert_eq!(found(&outside), [""; 0]);
    }
}
