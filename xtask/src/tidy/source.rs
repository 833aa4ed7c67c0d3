//! The crates' sources as far as a rule needs them: modules, what each defines, imports and names. What is compiled for
//! tests alone is left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::{
    signature::{self, Impl},
    tokens::{ident, is_punct, visibility},
};
use crate::run::Failed;

/// Where a module stands beneath its crate, or a name beneath its module.
pub(crate) type Names = Vec<String>;

/// The modules of one crate.
pub(crate) type Modules = BTreeMap<Names, Module>;

/// One module.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// The file that it stands in.
    pub(crate) file: PathBuf,
    /// What it defines, by name.
    pub(crate) items: BTreeMap<String, Item>,
    /// The modules beneath it that are for everyone.
    pub(crate) open: BTreeSet<String>,
    /// What its `impl`s add to types, of this module or another, by the type's name.
    pub(crate) impls: Vec<(String, Impl)>,
    pub(crate) imports: Vec<Import>,
    /// The paths that are named outside imports.
    pub(crate) paths: BTreeSet<Names>,
    /// Each word outside imports, and how often it is there.
    pub(crate) words: BTreeMap<String, usize>,
}

/// One thing that a module defines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Item {
    /// Whether it is for everyone (`pub`).
    pub(crate) is_public: bool,
    /// Whether it is a type or a trait.
    pub(crate) is_type: bool,
    /// The words that whoever uses it may meet: of its parameters, its fields, its variants.
    pub(crate) signature: BTreeSet<String>,
}

/// One name that a `use` brings in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) path: Names,
    /// What it is called here; nothing for everything beneath the path.
    pub(crate) name: Option<String>,
    /// Whether it is handed on to others.
    pub(crate) is_public: bool,
    /// Whether it is handed on to everyone.
    pub(crate) is_for_everyone: bool,
}

/// The modules of the crate whose sources stand in a folder.
pub(crate) fn modules(root: &Path, folder: &Path) -> Result<Modules, Failed> {
    let mut modules = Modules::new();
    let mut for_tests = BTreeSet::new();
    let mut open = vec![root.join(folder)];
    while let Some(at) = open.pop() {
        let entries = std::fs::read_dir(&at).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() && name != "tests" && name != "snapshots" {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && name != "tests.rs" {
                let file = path.strip_prefix(root).unwrap_or(&path);
                let below = file.strip_prefix(folder).unwrap_or(file);
                for_tests.append(&mut add(&mut modules, place(below), file, &read(&path)?)?);
            }
        }
    }
    modules.retain(|place, _| !for_tests.iter().any(|tests| place.starts_with(tests)));
    Ok(modules)
}

/// Adds the module of one file, and those that stand within it; gives those beneath it that are for tests.
pub(crate) fn add(
    modules: &mut Modules,
    place: Names,
    file: &Path,
    text: &str,
) -> Result<BTreeSet<Names>, Failed> {
    let tokens: TokenStream = text
        .parse()
        .map_err(|e| Failed::new("tidy", format!("{}: {e}", file.display())))?;
    let mut reader = Reader {
        file,
        modules,
        place,
        for_tests: BTreeSet::new(),
        is_in_macro: false,
    };
    reader.module(tokens);
    Ok(reader.for_tests)
}

/// Where the module of a file stands, by the file's path beneath `src`.
fn place(below: &Path) -> Names {
    let mut names: Names = below
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    let is_root = matches!(names.as_slice(), [name] if name == "lib" || name == "main");
    if is_root || names.last().is_some_and(|name| name == "mod") {
        names.pop();
    }
    names
}

/// The text of a file.
pub(crate) fn read(path: &Path) -> Result<String, Failed> {
    std::fs::read_to_string(path)
        .map_err(|e| Failed::new("tidy", format!("{}: {e}", path.display())))
}

struct Reader<'a> {
    file: &'a Path,
    modules: &'a mut Modules,
    place: Names,
    for_tests: BTreeSet<Names>,
    /// Whether what is read was given to a macro.
    is_in_macro: bool,
}

impl Reader<'_> {
    fn module(&mut self, tokens: TokenStream) {
        let module = self.modules.entry(self.place.clone()).or_default();
        self.file.clone_into(&mut module.file);
        self.tokens(&tokens.into_iter().collect::<Vec<_>>(), true);
    }

    fn here(&mut self) -> &mut Module {
        self.modules.entry(self.place.clone()).or_default()
    }

    /// Reads tokens, which stand right in a module or somewhere beneath.
    fn tokens(&mut self, tokens: &[TokenTree], is_module: bool) {
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let rest = tokens.get(at + 1..).unwrap_or_default();
            at += 1;
            match token {
                TokenTree::Punct(p) if p.as_char() == '#' && is_for_tests(rest.first()) => {
                    let length = item_length(rest);
                    self.leave_to_tests(rest.get(1..length).unwrap_or_default());
                    at += length;
                }
                TokenTree::Group(group) => {
                    // What a macro is given in a module may define something there.
                    let before = tokens.get(at.saturating_sub(2));
                    let is_module = is_module && is_punct(before, '!');
                    let outer = self.is_in_macro;
                    self.is_in_macro |= is_module;
                    self.tokens(&group.stream().into_iter().collect::<Vec<_>>(), is_module);
                    self.is_in_macro = outer;
                }
                TokenTree::Ident(word) => {
                    let before = tokens.get(..at - 1).unwrap_or_default();
                    at += self.word(&word.to_string(), before, rest, is_module);
                }
                _ => {}
            }
        }
    }

    /// Keeps in mind a module that is declared for tests alone: its file is one of these.
    fn leave_to_tests(&mut self, item: &[TokenTree]) {
        let mut words = item.iter().filter_map(ident);
        if words.any(|word| word == "mod") {
            let module = self.place.iter().cloned().chain(words.next());
            self.for_tests.insert(module.collect());
        }
    }

    /// Reads what stands between a `use` and its end.
    fn import(&mut self, before: &[TokenTree], tree: &[TokenTree]) {
        let mut found = Vec::new();
        imports(tree, &[], &mut found);
        for import in &mut found {
            import.is_public = visibility(before).is_some();
            import.is_for_everyone = visibility(before) == Some(true);
        }
        self.here().imports.extend(found);
    }

    /// Reads a word and gives how many of the tokens behind it belong to it.
    fn word(
        &mut self,
        word: &str,
        before: &[TokenTree],
        rest: &[TokenTree],
        is_module: bool,
    ) -> usize {
        let next = rest.first().and_then(ident);
        match (word, &next, rest.get(1)) {
            ("use", _, _) if !is_punct(rest.first(), '<') => {
                let length = rest
                    .iter()
                    .position(|token| is_punct(Some(token), ';'))
                    .unwrap_or(rest.len());
                self.import(before, rest.get(..length).unwrap_or_default());
                return length + 1;
            }
            ("mod", Some(name), body) if is_module => {
                if visibility(before) == Some(true) {
                    self.here().open.insert(name.clone());
                }
                let Some(TokenTree::Group(body)) = body else {
                    return 1;
                };
                self.place.push(name.clone());
                self.module(body.stream());
                self.place.pop();
                return 2;
            }
            ("mod", Some(_), _) => return 1,
            (
                "struct" | "enum" | "union" | "trait" | "type" | "fn" | "const" | "static",
                Some(name),
                _,
            ) if is_module && name != "fn" => {
                let item = Item {
                    is_public: visibility(before) == Some(true),
                    is_type: !matches!(word, "fn" | "const" | "static"),
                    signature: signature::of(
                        word,
                        rest.get(1..).unwrap_or_default(),
                        self.is_in_macro,
                    ),
                };
                self.here().items.insert(name.clone(), item);
            }
            ("impl", _, _) if is_module => {
                let found = signature::of_impl(rest);
                self.here().impls.extend(found);
            }
            ("macro_rules", None, Some(TokenTree::Ident(name))) if is_module => {
                self.here().items.insert(name.to_string(), Item::default());
            }
            _ => {}
        }
        let (path, length) = path(word, rest);
        let here = self.here();
        for name in &path {
            *here.words.entry(name.clone()).or_default() += 1;
        }
        if path.len() > 1 {
            here.paths.insert(path);
        }
        length
    }
}

/// The path that a word begins, and how many tokens it takes further.
fn path(word: &str, rest: &[TokenTree]) -> (Names, usize) {
    let mut names = vec![word.to_owned()];
    let mut length = 0;
    while is_punct(rest.get(length), ':') && is_punct(rest.get(length + 1), ':') {
        let Some(name) = rest.get(length + 2).and_then(ident) else {
            break;
        };
        names.push(name);
        length += 3;
    }
    (names, length)
}

/// The names that a `use` brings in.
fn imports(tokens: &[TokenTree], above: &[String], found: &mut Vec<Import>) {
    for tree in tokens.split(|token| is_punct(Some(token), ',')) {
        let mut path = above.to_vec();
        let mut name = None;
        let mut left = tree.iter();
        while let Some(token) = left.next() {
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    name = left.next().and_then(ident);
                }
                TokenTree::Ident(word) if word == "self" && path.len() > above.len() => {}
                TokenTree::Ident(word) if word == "self" && !above.is_empty() => {}
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Group(group) => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    imports(&inner, &path, found);
                    path.clear();
                }
                TokenTree::Punct(p) if p.as_char() == '*' => {
                    found.push(Import {
                        path: std::mem::take(&mut path),
                        name: None,
                        is_public: false,
                        is_for_everyone: false,
                    });
                }
                _ => {}
            }
        }
        let name = name.or_else(|| path.last().cloned());
        if !path.is_empty() && !tree.is_empty() {
            found.push(Import {
                path,
                name,
                is_public: false,
                is_for_everyone: false,
            });
        }
    }
}

/// How many tokens an item takes, from its first attribute's brackets on.
fn item_length(tokens: &[TokenTree]) -> usize {
    tokens
        .iter()
        .position(|token| match token {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            token => is_punct(Some(token), ';'),
        })
        .map_or(tokens.len(), |last| last + 1)
}

/// Whether an attribute's brackets leave its item to tests.
fn is_for_tests(token: Option<&TokenTree>) -> bool {
    let Some(TokenTree::Group(group)) = token else {
        return false;
    };
    let text: String = group.stream().to_string().split_whitespace().collect();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Module {
        let mut modules = Modules::new();
        add(&mut modules, Names::new(), Path::new("lib.rs"), text).unwrap();
        modules.remove(&Names::new()).unwrap()
    }

    #[test]
    fn imports_are_taken_apart() {
        let module = only("pub use a::{self, b::{C as D, *}};\nuse crate::e;\n");
        let shown: Vec<String> = module
            .imports
            .iter()
            .map(|i| format!("{} {:?} {}", i.path.join("::"), i.name, i.is_public))
            .collect();
        assert_eq!(
            shown,
            [
                "a Some(\"a\") true",
                "a::b::C Some(\"D\") true",
                "a::b None true",
                "crate::e Some(\"e\") false"
            ]
        );
    }

    #[test]
    fn what_is_for_tests_is_left_out_and_macros_are_not() {
        let module = only(
            "#[cfg(test)]\nmod tests { use super::x::Y; }\n#[cfg(test)]\nuse super::z;\n\
             pub const fn f() { format!(\"{}\", crate::a::b()) }\npub(crate) struct S;\nstatic T: u8 = 0;\n",
        );
        assert!(module.imports.is_empty());
        let paths: Vec<_> = module.paths.iter().map(|path| path.join("::")).collect();
        assert_eq!(paths, ["crate::a::b"]);
        let items: Vec<_> = module.items.into_iter().collect();
        let items: Vec<_> = items
            .iter()
            .map(|(name, item)| (name.as_str(), item.is_public, item.is_type))
            .collect();
        let expected = [("S", false, true), ("T", false, false), ("f", true, false)];
        assert_eq!(items, expected);
    }

    #[test]
    fn a_module_for_tests_is_told_by_its_name() {
        let text = "mod a;\n#[cfg(test)]\nmod b;\n";
        let found = add(&mut Modules::new(), Names::new(), Path::new("lib.rs"), text);
        assert_eq!(found.unwrap(), BTreeSet::from([vec!["b".to_owned()]]));
    }

    #[test]
    fn files_have_their_places() {
        for (file, expected) in [
            ("lib.rs", ""),
            ("main.rs", ""),
            ("a.rs", "a"),
            ("a/b.rs", "a::b"),
            ("a/mod.rs", "a"),
        ] {
            assert_eq!(place(Path::new(file)).join("::"), expected, "{file}");
        }
    }
}
