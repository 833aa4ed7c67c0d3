//! One cause, one error: whatever single slip is made in a valid inventory, one error comes.
//!
//! Every line of every example is broken in every way that a hand breaks lines.

use std::collections::BTreeMap;

use undercroft_model::{Diagnostic, inventory::parse};

use crate::examples::EXAMPLES;

/// A slip, and what it makes of a line; nothing where the line has nothing to slip on.
type Slip = (&'static str, fn(&str) -> Option<String>);

fn value(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    (!line.trim_start().starts_with('#')).then_some((key.trim_end(), value.trim()))
}

fn without_last(line: &str, what: char) -> Option<String> {
    let code = line.split('#').next().unwrap_or("");
    let at = code.rfind(what)?;
    let mut line = line.to_owned();
    line.remove(at);
    Some(line)
}

fn without_first(line: &str, what: char) -> Option<String> {
    let code = line.split('#').next().unwrap_or("");
    let at = code.find(what)?;
    let mut line = line.to_owned();
    line.remove(at);
    Some(line)
}

fn is_header(line: &str) -> bool {
    line.starts_with('[')
}

const LINE_SLIPS: &[Slip] = &[
    ("the closing quote is lost", |l| without_last(l, '"')),
    ("the opening quote is lost", |l| without_first(l, '"')),
    ("the closing bracket is lost", |l| without_last(l, ']')),
    ("the opening bracket is lost", |l| without_first(l, '[')),
    ("the closing brace is lost", |l| without_last(l, '}')),
    ("the opening brace is lost", |l| without_first(l, '{')),
    ("the equals sign is lost", |l| without_first(l, '=')),
    ("a comma is lost", |l| without_first(l, ',')),
    ("the key is misspelt", |l| {
        let (key, value) = value(l)?;
        (!key.contains('"')).then(|| format!("{key}x = {value}"))
    }),
    ("the value is a date", |l| {
        let (key, _) = value(l)?;
        Some(format!("{key} = 1979-05-27"))
    }),
    ("the value is missing", |l| {
        let (key, _) = value(l)?;
        Some(format!("{key} ="))
    }),
    ("the line stands twice", |l| {
        value(l)?;
        Some(format!("{l}\n{l}"))
    }),
    ("an unknown key comes before it", |l| {
        value(l)?;
        Some(format!("zzz_qqq = 1\n{l}"))
    }),
    ("the header stands twice", |l| {
        is_header(l).then(|| format!("{l}\n{l}"))
    }),
    ("the header is misspelt", |l| {
        is_header(l).then(|| l.replacen('[', "[x", 1))
    }),
    ("the name is no label", |l| {
        let name = l.strip_prefix("[nodes.")?.strip_suffix(']')?;
        Some(format!("[nodes.{}_A]", name))
    }),
    ("a control character", |l| {
        value(l)?;
        Some(format!("{l} \u{1}"))
    }),
    ("a NUL", |l| {
        value(l)?;
        Some(l.replacen('=', "=\0", 1))
    }),
    ("a carriage return alone", |l| {
        value(l)?;
        Some(l.replacen('=', "=\r", 1))
    }),
    ("a quote of another kind", |l| {
        value(l)?;
        l.contains('"').then(|| l.replacen('"', "“", 1))
    }),
    ("three quotes", |l| {
        value(l)?;
        l.contains('"').then(|| l.replacen('"', "\"\"\"", 1))
    }),
    ("a thousand brackets", |l| {
        let (key, _) = value(l)?;
        Some(format!("{key} = {}", "[".repeat(1000)))
    }),
    ("a thousand closed brackets", |l| {
        let (key, _) = value(l)?;
        Some(format!("{key} = {}{}", "[".repeat(1000), "]".repeat(1000)))
    }),
    ("another word in the value", |l| {
        let (key, value) = value(l)?;
        let inner = value.strip_prefix('"')?.strip_suffix('"')?;
        (!inner.is_empty()).then(|| format!("{key} = \"{inner}q\""))
    }),
    ("another network", |l| {
        let (key, value) = value(l)?;
        key.ends_with("cidr").then(|| {
            let (address, prefix) = value.trim_matches('"').split_once('/').unwrap();
            let mut bytes: Vec<u8> = address.split('.').map(|b| b.parse().unwrap()).collect();
            let second = bytes.get_mut(1).unwrap();
            *second = second.wrapping_add(1);
            let bytes: Vec<String> = bytes.iter().map(u8::to_string).collect();
            format!("{key} = \"{}/{prefix}\"", bytes.join("."))
        })
    }),
    ("a smaller network", |l| {
        let (key, value) = value(l)?;
        let address = value.trim_matches('"').strip_suffix("/24")?;
        (key.ends_with("cidr")).then(|| format!("{key} = \"{address}/28\""))
    }),
    ("a network of everything", |l| {
        let (key, _) = value(l)?;
        key.ends_with("cidr")
            .then(|| format!("{key} = \"10.0.0.0/8\""))
    }),
    ("an impossible network", |l| {
        let (key, _) = value(l)?;
        key.ends_with("cidr")
            .then(|| format!("{key} = \"10.0.0.0/33\""))
    }),
    ("a network with host bits", |l| {
        let (key, value) = value(l)?;
        let address = value.trim_matches('"').strip_suffix(".0/24")?;
        key.ends_with("cidr")
            .then(|| format!("{key} = \"{address}.77/24\""))
    }),
    ("another layout", |l| {
        let (key, value) = value(l)?;
        (key == "layout" && value != "\"zfs-mirror\"").then(|| "layout = \"zfs-mirror\"".to_owned())
    }),
    ("another kind", |l| {
        let (key, value) = value(l)?;
        (key == "kind" && value == "\"control\"").then(|| "kind = \"plain\"".to_owned())
    }),
    ("another firmware", |l| {
        let (key, _) = value(l)?;
        (key == "firmware").then(|| "firmware = \"rpi\"".to_owned())
    }),
];

/// The blocks of an example: a header with its lines.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in text.split_inclusive('\n') {
        if is_header(line) {
            blocks.push(String::new());
        }
        blocks.last_mut().unwrap().push_str(line);
    }
    blocks
}

fn errors(bytes: &[u8]) -> Vec<Diagnostic> {
    let parsed = parse("slip.toml", bytes);
    let found = parsed.diagnostics.into_iter().filter(Diagnostic::is_error);
    found.collect()
}

struct Tally {
    tried: BTreeMap<String, usize>,
    faults: Vec<String>,
}

impl Tally {
    /// Notes the errors of one slip.
    fn note(&mut self, example: &str, what: &str, line: usize, bytes: &[u8]) {
        let errors = errors(bytes);
        if errors.is_empty() {
            return;
        }
        *self.tried.entry(what.to_owned()).or_default() += 1;
        // Where a header is lost, its keys are in the table above, which may know one of them as
        // something else.
        let most = if what == "the line is lost" { 2 } else { 1 };
        if errors.len() > most {
            let text: Vec<String> = errors
                .iter()
                .map(|e| {
                    format!(
                        "  {}:{} {}: {}",
                        e.place.line, e.place.column, e.code, e.message
                    )
                })
                .collect();
            self.faults
                .push(format!("{example}:{line}: {what}:\n{}", text.join("\n")));
        }
        for error in &errors {
            assert!(error.hint.is_some(), "{example}:{line}: {what}: {error}");
        }
    }
}

const MORE: [(&str, &[u8]); 3] = [
    (
        "kubeadm",
        include_bytes!("../../../../examples/kubeadm/undercroft.toml"),
    ),
    (
        "workshop",
        include_bytes!("../../../../examples/workshop/undercroft.toml"),
    ),
    (
        "own-class",
        include_bytes!("../../../../examples/own-class/undercroft.toml"),
    ),
];

/// How a whole file can be written otherwise, or be something else.
#[test]
fn a_file_of_another_form_is_accepted_or_one_error() {
    for (name, bytes) in EXAMPLES.into_iter().chain(MORE) {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let good = parse("form.toml", bytes).inventory.unwrap();
        let crlf = text.replace('\n', "\r\n");
        let marked = format!("\u{feff}{text}");
        let without_end = text.trim_end_matches('\n').to_owned();
        for same in [crlf.clone(), marked, format!("\u{feff}{crlf}"), without_end] {
            let parsed = parse("form.toml", same.as_bytes());
            let wrong: Vec<&Diagnostic> =
                parsed.diagnostics.iter().filter(|d| d.is_error()).collect();
            assert!(wrong.is_empty(), "{name}: {wrong:?}");
            assert_eq!(parsed.inventory.as_ref(), Some(&good), "{name}");
        }
        let utf_16 = |to: fn(u16) -> [u8; 2], mark: &[u8]| {
            let units = text.encode_utf16().flat_map(to).collect::<Vec<u8>>();
            [mark, &units].concat()
        };
        let utf_32: Vec<u8> = text
            .chars()
            .flat_map(|c| u32::from(c).to_le_bytes())
            .collect();
        for (what, wrong) in [
            ("UTF-16", utf_16(u16::to_le_bytes, b"")),
            (
                "UTF-16 with its mark",
                utf_16(u16::to_le_bytes, b"\xff\xfe"),
            ),
            ("UTF-16, big end first", utf_16(u16::to_be_bytes, b"")),
            (
                "the same with its mark",
                utf_16(u16::to_be_bytes, b"\xfe\xff"),
            ),
            ("UTF-32", utf_32),
            ("an empty file", Vec::new()),
            ("a file of blanks", b" \n\t\n\n".to_vec()),
            ("a mark and nothing else", "\u{feff}".as_bytes().to_vec()),
            ("a comment and nothing else", b"# a fleet\n".to_vec()),
            ("NUL after NUL", vec![0; 4096]),
            (
                "random bytes",
                (0..4096_u32)
                    .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
                    .collect(),
            ),
            ("two marks", format!("\u{feff}\u{feff}{text}").into_bytes()),
        ] {
            let errors = errors(&wrong);
            let said: Vec<String> = errors
                .iter()
                .map(|e| format!("{}: {}", e.code, e.message))
                .collect();
            assert_eq!(errors.len(), 1, "{name}: {what}: {said:#?}");
            assert!(errors[0].hint.is_some(), "{name}: {what}: {said:#?}");
        }
    }
}

#[test]
fn one_slip_is_one_error() {
    let mut tally = Tally {
        tried: BTreeMap::new(),
        faults: Vec::new(),
    };
    for (name, bytes) in EXAMPLES.into_iter().chain(MORE) {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        // Of machines that are alike, some are enough.
        let mut alike = false;
        for (i, line) in lines.iter().enumerate() {
            if is_header(line) {
                let number = line.trim_end_matches(']').rsplit('-').next().unwrap();
                alike = number.parse().is_ok_and(|n: u32| n > 1);
            }
            if alike {
                continue;
            }
            for (what, slip) in LINE_SLIPS {
                let Some(broken) = slip(line) else { continue };
                let mut lines = lines.clone();
                lines[i] = &broken;
                tally.note(name, what, i + 1, lines.join("\n").as_bytes());
            }
            if value(line).is_some() || is_header(line) {
                let mut kept = lines.clone();
                kept.remove(i);
                tally.note(name, "the line is lost", i + 1, kept.join("\n").as_bytes());
                let upto: usize = lines[..i].iter().map(|l| l.len() + 1).sum();
                let mut bytes = bytes.to_vec();
                bytes.insert(upto + line.len(), 0xe9);
                tally.note(name, "a byte of Latin-1", i + 1, &bytes);
            }
        }
        let blocks = blocks(&text);
        for i in 1..blocks.len() {
            let line = blocks[..i].iter().map(|b| b.lines().count()).sum::<usize>() + 1;
            let mut twice = blocks.clone();
            twice.insert(i, blocks[i].clone());
            tally.note(
                name,
                "the block stands twice",
                line,
                twice.concat().as_bytes(),
            );
            let mut without = blocks.clone();
            without.remove(i);
            tally.note(name, "the block is lost", line, without.concat().as_bytes());
            for section in ["nodes", "users", "pcs"] {
                let head = format!("[{section}.");
                let dotted = blocks[i].lines().next().unwrap().matches('.').count() > 1;
                if blocks[i].starts_with(&head) && !dotted {
                    let mut copied = blocks.clone();
                    let copy = blocks[i].replacen(&head, &format!("{head}copy-of-"), 1);
                    copied.push(format!("\n{copy}"));
                    tally.note(
                        name,
                        "a copy under another name",
                        line,
                        copied.concat().as_bytes(),
                    );
                }
            }
        }
        let utf_16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        tally.note(name, "UTF-16", 1, &utf_16);
        tally.note(
            name,
            "UTF-16 with its mark",
            1,
            &[b"\xff\xfe", utf_16.as_slice()].concat(),
        );
        let latin: Vec<u8> = text
            .bytes()
            .map(|b| if b == b'e' { 0xe9 } else { b })
            .collect();
        tally.note(name, "Latin-1 throughout", 1, &latin);
    }
    let tried: usize = tally.tried.values().sum();
    assert!(tried > 2500, "{tried} slips: {:#?}", tally.tried);
    assert!(
        tally.faults.is_empty(),
        "{} of {tried} slips gave more than one error:\n{}",
        tally.faults.len(),
        tally.faults.join("\n")
    );
}
