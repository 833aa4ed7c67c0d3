//! Whole files: encrypted, and opened.

use std::collections::BTreeMap;

use age::Identity;
use sha2::{Digest as _, Sha256, Sha512};
use zeroize::Zeroizing;

use crate::{
    FILE_BYTES_MAX,
    cipher::{self, DataKey, IV_BYTES, Kind, bytes_of, is_sealed, value_of},
    error::SopsError,
    metadata::{self, Metadata, Rule, Wrapped},
    moment::rfc3339,
    recipient::{Recipient, unwrap, wrap},
    value::{Comment, Element, MapEntry, Value},
    yaml,
};

/// What begins the MAC of files whose MAC is over encrypted values alone: the SHA-256 of `sops`,
/// as SOPS has it.
fn mac_only_encrypted_start() -> [u8; 32] {
    Sha256::digest(b"sops").into()
}

/// An encrypted file, as it lies in a repository.
#[derive(Debug, Clone)]
pub struct Encrypted {
    tree: Value,
    metadata: Metadata,
}

impl Encrypted {
    /// Reads an encrypted file of YAML.
    ///
    /// # Errors
    /// When it is none: with the place, where there is one.
    pub fn parse(bytes: &[u8]) -> Result<Self, SopsError> {
        let mut tree = yaml::read(utf8(bytes)?)?;
        let metadata = Metadata::read(tree.key(metadata::KEY).ok_or(SopsError::NotEncrypted)?)?;
        tree.remove(metadata::KEY);
        if let Value::Map(entries) = &mut tree {
            entries
                .retain(|entry| !matches!(entry, MapEntry::Pair(key, _) if key == metadata::KEY));
        }
        Ok(Self { tree, metadata })
    }

    /// The file's text.
    pub fn write(&self) -> String {
        let mut entries = match &self.tree {
            Value::Map(entries) => entries.clone(),
            _ => Vec::new(),
        };
        entries.push(self.metadata.write());
        yaml::write(&entries).to_string()
    }

    /// The recipients as the file names them, in its order.
    pub fn recipients(&self) -> Vec<&str> {
        self.metadata
            .wrapped
            .iter()
            .map(|wrapped| wrapped.recipient.as_str())
            .collect()
    }

    /// The paths of all values, which are never encrypted.
    pub fn names(&self) -> Vec<String> {
        self.tree.names()
    }

    /// The paths of values that should be encrypted and aren't. Only then is something known to
    /// be wrong without a key.
    pub fn plain_names(&self) -> Vec<String> {
        let mut plain = Vec::new();
        let _ = walk(&self.tree, &self.metadata.rule, &mut |leaf| {
            match leaf.node {
                Node::Value(Value::Text(text)) if is_sealed(text) || text.is_empty() => {}
                Node::Value(Value::Null) => {}
                Node::Value(_) if leaf.encrypted => plain.push(leaf.name()),
                _ => {}
            }
            Ok(None)
        });
        plain
    }

    /// Whether all values are encrypted but those of keys that end in `_unencrypted`, as SOPS has
    /// it unless it is told otherwise.
    ///
    /// The rule isn't part of the MAC: whoever can write to a repository can change it, so that
    /// what is added later stays in plain text and nothing looks tampered with.
    pub fn has_usual_rule(&self) -> bool {
        self.metadata.rule.is_usual()
    }

    /// Opens the file with the first identity that can, and checks its MAC.
    ///
    /// # Errors
    /// When no identity can, or the file isn't as it was sealed.
    pub fn open(&self, identities: &[&dyn Identity]) -> Result<Opened, SopsError> {
        let key = self
            .metadata
            .wrapped
            .iter()
            .find_map(|wrapped| unwrap(&wrapped.sealed, identities))
            .ok_or_else(|| SopsError::NoIdentity {
                recipients: self
                    .metadata
                    .wrapped
                    .iter()
                    .map(|w| w.recipient.clone())
                    .collect(),
            })?;
        let mut stash = Stash::new();
        let mut mac = mac_start(self.metadata.mac_only_encrypted);
        let tree = walk(&self.tree, &self.metadata.rule, &mut |leaf| {
            open_leaf(
                &leaf,
                &key,
                &mut mac,
                self.metadata.mac_only_encrypted,
                &mut stash,
            )
        })?;
        let (_, stored) = cipher::open(&self.metadata.mac, &key, &self.metadata.last_modified)
            .ok_or(SopsError::BadMac)?;
        if stored.as_slice() != mac_text(mac).as_bytes() {
            return Err(SopsError::BadMac);
        }
        Ok(Opened {
            tree,
            key,
            sealed: self.clone(),
            stash,
        })
    }
}

/// An opened file: its values in plain text, in memory alone.
pub struct Opened {
    /// The values, to be read and changed.
    pub tree: Value,
    key: DataKey,
    sealed: Encrypted,
    stash: Stash,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened")
            .field("tree", &self.tree)
            .finish_non_exhaustive()
    }
}

/// Which ciphertext stood for which value, so that what doesn't change keeps its own and a diff
/// shows what did. The value is known by its hash.
type Stash = BTreeMap<(String, Kind, [u8; 32]), String>;

/// How a file is sealed.
pub struct Seal<'a> {
    /// Who can open it; at least one.
    pub recipients: &'a [Recipient],
    /// The moment it was changed, in seconds since 1970 (UTC).
    pub now_s: u64,
    /// Fills a buffer with entropy that is fit for keys.
    pub entropy: &'a mut dyn FnMut(&mut [u8]),
}

impl Opened {
    /// The values in plain YAML, as an editor shows them.
    pub fn to_plain(&self) -> Zeroizing<String> {
        to_plain(&self.tree)
    }

    /// Who can open the file as it lies there, as it names them.
    pub fn recipients(&self) -> Vec<&str> {
        self.sealed.recipients()
    }

    /// The file as it was read.
    pub fn sealed(&self) -> &Encrypted {
        &self.sealed
    }

    /// The same file with other values.
    pub fn with(&self, tree: Value) -> Self {
        Self {
            tree,
            key: self.key.clone(),
            sealed: self.sealed.clone(),
            stash: self.stash.clone(),
        }
    }

    /// Seals changed values with the same data key. Values that didn't change keep their
    /// ciphertext, recipients that were there keep their part.
    ///
    /// # Errors
    /// When a value can't be kept or a recipient can't be used.
    pub fn seal(&self, how: Seal<'_>) -> Result<Encrypted, SopsError> {
        let unchanged = self.sealed_tree()?;
        let metadata = &self.sealed.metadata;
        let mut sealed = if unchanged.as_ref() == Some(&self.sealed.tree) {
            self.sealed.clone()
        } else {
            encrypt(
                &self.tree,
                &self.key,
                &self.stash,
                metadata.rule.clone(),
                metadata.mac_only_encrypted,
                how.now_s,
                how.entropy,
            )?
        };
        sealed.metadata.wrapped = wrapped(&self.key, how.recipients, &metadata.wrapped)?;
        Ok(sealed)
    }

    /// Seals the values with a new data key: whoever could open the file before can't open what
    /// is written from now on.
    ///
    /// # Errors
    /// When a value can't be kept or a recipient can't be used.
    pub fn seal_anew(&self, how: Seal<'_>) -> Result<Encrypted, SopsError> {
        seal_tree(
            &self.tree,
            self.sealed.metadata.rule.clone(),
            self.sealed.metadata.mac_only_encrypted,
            how,
        )
    }

    /// The tree as it would be sealed from the stash alone, or `None` where it changed.
    fn sealed_tree(&self) -> Result<Option<Value>, SopsError> {
        let mut known = true;
        let tree = walk(&self.tree, &self.sealed.metadata.rule, &mut |leaf| {
            if !leaf.encrypted {
                return Ok(None);
            }
            let path = leaf.additional_data();
            Ok(match leaf.node {
                Node::Value(value) => match bytes_of(value) {
                    Some((kind, bytes)) => match self.stash.get(&stash_key(path, kind, &bytes)) {
                        Some(text) => Some(Instead::Value(Value::text(text.clone()))),
                        None => {
                            known = false;
                            None
                        }
                    },
                    None => None,
                },
                Node::Comment(comment, in_list) => {
                    let key = stash_key(path, Kind::Comment, comment.text.as_bytes());
                    match self.stash.get(&key) {
                        Some(text) => Some(sealed_comment(text.clone(), comment, in_list)),
                        None => {
                            known &= is_sealed(&comment.text);
                            None
                        }
                    }
                }
            })
        })?;
        Ok(known.then_some(tree))
    }
}

/// Reads a plain file of YAML that is to be encrypted.
///
/// # Errors
/// When it isn't YAML as SOPS takes it, or has SOPS' own key; with the place, where there is one.
pub fn parse_plain(bytes: &[u8]) -> Result<Value, SopsError> {
    let tree = yaml::read(utf8(bytes)?)?;
    if tree.key(metadata::KEY).is_some() {
        return Err(SopsError::ReservedKey);
    }
    Ok(tree)
}

/// Values in plain YAML.
pub fn to_plain(tree: &Value) -> Zeroizing<String> {
    match tree {
        Value::Map(entries) => yaml::write(entries),
        _ => Zeroizing::new(String::new()),
    }
}

/// Encrypts values that were in no file before.
///
/// # Errors
/// When there is no recipient, one can't be used, or a value can't be kept.
pub fn encrypt_new(tree: &Value, how: Seal<'_>) -> Result<Encrypted, SopsError> {
    seal_tree(tree, Rule::default(), false, how)
}

fn seal_tree(
    tree: &Value,
    rule: Rule,
    mac_only_encrypted: bool,
    how: Seal<'_>,
) -> Result<Encrypted, SopsError> {
    let mut key = DataKey::default();
    (how.entropy)(key.as_mut_slice());
    let mut sealed = encrypt(
        tree,
        &key,
        &Stash::new(),
        rule,
        mac_only_encrypted,
        how.now_s,
        how.entropy,
    )?;
    sealed.metadata.wrapped = wrapped(&key, how.recipients, &[])?;
    Ok(sealed)
}

fn utf8(bytes: &[u8]) -> Result<&str, SopsError> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(SopsError::TooLarge {
            bytes: bytes.len(),
            bytes_max: FILE_BYTES_MAX,
        });
    }
    std::str::from_utf8(bytes).map_err(|e| {
        let before = bytes.get(..e.valid_up_to()).unwrap_or_default();
        let mut line = before.split(|b| *b == b'\n');
        SopsError::Syntax {
            line: line.clone().count(),
            column: line.next_back().map_or(0, <[u8]>::len) + 1,
            message: "it isn't UTF-8".to_owned(),
        }
    })
}

fn wrapped(
    key: &DataKey,
    recipients: &[Recipient],
    before: &[Wrapped],
) -> Result<Vec<Wrapped>, SopsError> {
    if recipients.is_empty() {
        return Err(SopsError::NoRecipient);
    }
    recipients
        .iter()
        .map(
            |recipient| match before.iter().find(|w| w.recipient == recipient.as_str()) {
                Some(known) => Ok(known.clone()),
                None => Ok(Wrapped {
                    recipient: recipient.as_str().to_owned(),
                    sealed: wrap(key, recipient)?,
                }),
            },
        )
        .collect()
}

fn stash_key(path: String, kind: Kind, bytes: &[u8]) -> (String, Kind, [u8; 32]) {
    (path, kind, Sha256::digest(bytes).into())
}

fn mac_start(only_encrypted: bool) -> Sha512 {
    let mut mac = Sha512::new();
    if only_encrypted {
        mac.update(mac_only_encrypted_start());
    }
    mac
}

fn mac_text(mac: Sha512) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(128));
    for byte in mac.finalize() {
        text.push_str(&format!("{byte:02X}"));
    }
    text
}

fn sealed_comment(text: String, comment: &Comment, in_list: bool) -> Instead {
    if in_list {
        // SOPS puts an encrypted comment of a list into it as an element.
        Instead::Value(Value::text(text))
    } else {
        Instead::Comment(Comment {
            text: Zeroizing::new(text),
            inline: comment.inline,
        })
    }
}

fn encrypt(
    tree: &Value,
    key: &DataKey,
    stash: &Stash,
    rule: Rule,
    mac_only_encrypted: bool,
    now_s: u64,
    entropy: &mut dyn FnMut(&mut [u8]),
) -> Result<Encrypted, SopsError> {
    let failed = || SopsError::Seal {
        detail: "the cipher refuses it".to_owned(),
    };
    let mut mac = mac_start(mac_only_encrypted);
    let mut seal = |kind: Kind, bytes: &[u8], path: String| -> Result<String, SopsError> {
        let entry = stash_key(path, kind, bytes);
        if let Some(known) = stash.get(&entry) {
            return Ok(known.clone());
        }
        let mut iv = [0_u8; IV_BYTES];
        entropy(&mut iv);
        cipher::seal(kind, bytes, key, &iv, &entry.0).ok_or_else(failed)
    };
    let sealed = walk(tree, &rule, &mut |leaf| {
        let path = leaf.additional_data();
        match leaf.node {
            Node::Value(value) => {
                let Some((kind, bytes)) = bytes_of(value) else {
                    return Ok(None);
                };
                if leaf.encrypted || !mac_only_encrypted {
                    mac.update(&*bytes);
                }
                if !leaf.encrypted {
                    return Ok(None);
                }
                Ok(Some(Instead::Value(Value::text(seal(kind, &bytes, path)?))))
            }
            // A comment that couldn't be decrypted stays what it is.
            Node::Comment(comment, _) if !leaf.encrypted || is_sealed(&comment.text) => Ok(None),
            Node::Comment(comment, in_list) => {
                let text = seal(Kind::Comment, comment.text.as_bytes(), path)?;
                Ok(Some(sealed_comment(text, comment, in_list)))
            }
        }
    })?;
    let last_modified = rfc3339(now_s).ok_or_else(failed)?;
    let mut iv = [0_u8; IV_BYTES];
    entropy(&mut iv);
    let mac = mac_text(mac);
    let mac =
        cipher::seal(Kind::Text, mac.as_bytes(), key, &iv, &last_modified).ok_or_else(failed)?;
    Ok(Encrypted {
        tree: sealed,
        metadata: Metadata {
            wrapped: Vec::new(),
            last_modified,
            mac,
            rule,
            mac_only_encrypted,
            version: metadata::VERSION.to_owned(),
        },
    })
}

fn open_leaf(
    leaf: &Leaf<'_>,
    key: &DataKey,
    mac: &mut Sha512,
    mac_only_encrypted: bool,
    stash: &mut Stash,
) -> Result<Option<Instead>, SopsError> {
    let value = match leaf.node {
        Node::Comment(comment, _) => {
            if !leaf.encrypted {
                return Ok(None);
            }
            // SOPS attaches a comment to the map or list that its YAML library finds, which may
            // lie further out than where it is read here.
            for depth in (0..=leaf.path.len()).rev() {
                let path = additional_data(leaf.path.get(..depth).unwrap_or_default());
                let opened = cipher::open(&comment.text, key, &path);
                if let Some((Kind::Comment, bytes)) = opened
                    && let Ok(text) = std::str::from_utf8(&bytes)
                {
                    let entry = stash_key(leaf.additional_data(), Kind::Comment, &bytes);
                    if depth == leaf.path.len() {
                        stash.insert(entry, comment.text.to_string());
                    }
                    return Ok(Some(Instead::Comment(Comment {
                        text: Zeroizing::new(text.to_owned()),
                        inline: comment.inline,
                    })));
                }
            }
            return Ok(None);
        }
        Node::Value(value) => value,
    };
    if !leaf.encrypted {
        if !mac_only_encrypted && let Some((_, bytes)) = bytes_of(value) {
            mac.update(&*bytes);
        }
        return Ok(None);
    }
    let Value::Text(text) = value else {
        return match value {
            Value::Null => Ok(None),
            _ => Err(SopsError::PlainValue { name: leaf.name() }),
        };
    };
    if !text.is_empty() && !is_sealed(text) {
        return Err(SopsError::PlainValue { name: leaf.name() });
    }
    let path = leaf.additional_data();
    let bad = || SopsError::BadValue { name: leaf.name() };
    let (kind, bytes) = cipher::open(text, key, &path).ok_or_else(bad)?;
    stash.insert(stash_key(path, kind, &bytes), text.to_string());
    if kind == Kind::Comment {
        let text = std::str::from_utf8(&bytes).map_err(|_| bad())?;
        return Ok(Some(Instead::Comment(Comment::line(text))));
    }
    let value = value_of(kind, &bytes).ok_or_else(bad)?;
    // SOPS counts the value as it writes it, not the bytes that were encrypted.
    if let Some((_, canonical)) = bytes_of(&value) {
        mac.update(&*canonical);
    }
    Ok(Some(Instead::Value(value)))
}

/// What is at an end of the tree; a comment comes with whether it is in a list.
enum Node<'a> {
    Value(&'a Value),
    Comment(&'a Comment, bool),
}

/// What comes in its place, where something does.
enum Instead {
    Value(Value),
    Comment(Comment),
}

/// An end of the tree.
struct Leaf<'a> {
    node: Node<'a>,
    path: &'a [String],
    encrypted: bool,
}

impl Leaf<'_> {
    fn additional_data(&self) -> String {
        additional_data(self.path)
    }

    fn name(&self) -> String {
        self.path.join("/")
    }
}

/// The path as SOPS binds a value to it. Elements of a list have the path of the list.
fn additional_data(path: &[String]) -> String {
    format!("{}:", path.join(":"))
}

type OnLeaf<'a> = dyn FnMut(Leaf<'_>) -> Result<Option<Instead>, SopsError> + 'a;

/// Goes over all ends of a tree, in order, and gives the tree with what came in their place.
fn walk(tree: &Value, rule: &Rule, on_leaf: &mut OnLeaf<'_>) -> Result<Value, SopsError> {
    let mut path = Vec::new();
    match walk_value(tree, &mut path, rule, on_leaf)? {
        Instead::Value(value) => Ok(value),
        Instead::Comment(_) => Ok(Value::Null),
    }
}

fn walk_value(
    value: &Value,
    path: &mut Vec<String>,
    rule: &Rule,
    on_leaf: &mut OnLeaf<'_>,
) -> Result<Instead, SopsError> {
    let comment = |comment: &Comment, in_list, path: &[String], on_leaf: &mut OnLeaf<'_>| {
        let encrypted = rule.encrypts(path);
        let node = Node::Comment(comment, in_list);
        on_leaf(Leaf {
            node,
            path,
            encrypted,
        })
        .map(|instead| instead.unwrap_or_else(|| Instead::Comment(comment.clone())))
    };
    Ok(Instead::Value(match value {
        Value::Map(entries) => {
            let mut out = Vec::with_capacity(entries.len());
            for entry in entries {
                match entry {
                    MapEntry::Comment(c) => match comment(c, false, path, on_leaf)? {
                        Instead::Comment(c) => out.push(MapEntry::Comment(c)),
                        Instead::Value(_) => {}
                    },
                    MapEntry::Pair(key, value) => {
                        path.push(key.clone());
                        let instead = walk_value(value, path, rule, on_leaf);
                        path.pop();
                        match instead? {
                            Instead::Value(value) => out.push(MapEntry::Pair(key.clone(), value)),
                            Instead::Comment(_) => {
                                return Err(SopsError::BadValue {
                                    name: format!("{}/{key}", path.join("/")),
                                });
                            }
                        }
                    }
                }
            }
            Value::Map(out)
        }
        Value::List(elements) => {
            let mut out = Vec::with_capacity(elements.len());
            for element in elements {
                out.push(match element {
                    Element::Comment(c) => match comment(c, true, path, on_leaf)? {
                        Instead::Comment(c) => Element::Comment(c),
                        Instead::Value(value) => Element::Value(value),
                    },
                    Element::Value(value) => match walk_value(value, path, rule, on_leaf)? {
                        Instead::Value(value) => Element::Value(value),
                        Instead::Comment(c) => Element::Comment(c),
                    },
                });
            }
            Value::List(out)
        }
        leaf => {
            let encrypted = rule.encrypts(path);
            let instead = on_leaf(Leaf {
                node: Node::Value(leaf),
                path,
                encrypted,
            })?;
            return Ok(instead.unwrap_or_else(|| Instead::Value(leaf.clone())));
        }
    }))
}
