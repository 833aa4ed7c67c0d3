//! Parsing is total, and printing is its inverse.

use proptest::prelude::*;
use undercroft_model::inventory::{Inventory, Parsed, parse, print, scale_to};

use crate::examples::{EXAMPLES, clean, example};

/// What holds of every outcome, whatever the bytes were.
fn holds(bytes: &[u8], parsed: &Parsed) {
    let errors = parsed.diagnostics.iter().any(|d| d.is_error());
    assert_eq!(parsed.inventory.is_none(), errors);
    let lines = bytes.iter().filter(|b| **b == b'\n').count() + 1;
    for finding in &parsed.diagnostics {
        let place = &finding.place;
        assert!((1..=lines).contains(&place.line), "{finding}");
        assert!(place.column >= 1, "{finding}");
        assert!(place.start_byte <= place.end_byte && place.end_byte <= bytes.len());
        let text = finding.to_string();
        assert!(text.ends_with('\n'));
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
    }
    if let Some(inventory) = &parsed.inventory {
        let printed = print(inventory);
        assert_eq!(&read_back(&printed), inventory);
    }
}

fn read_back(printed: &str) -> Inventory {
    let parsed = parse("printed.toml", printed.as_bytes());
    let text: String = parsed.diagnostics.iter().map(ToString::to_string).collect();
    parsed
        .inventory
        .unwrap_or_else(|| panic!("{text}\n{printed}"))
}

/// Pieces of TOML that upset a parser.
const PIECES: &[&str] = &[
    "\"",
    "'''",
    "[",
    "]",
    "{",
    "}",
    "=",
    "\n",
    "\r\n",
    "\r",
    "#",
    ".",
    ",",
    "-1",
    "0",
    "99999999999999999999",
    "0x_",
    "true",
    "[[nodes.x]]",
    "[fleet]",
    "nodes.rack-01.address = 3\n",
    "é",
    "名",
    "\t",
    "\0",
    "\u{202e}",
    "1979-05-27",
    "1e9",
    "password = \"x",
    "-----BEGIN PRIVATE KEY-----",
];

/// A change to a text: where, how many bytes go, what comes.
fn edit() -> impl Strategy<Value = (prop::sample::Index, usize, Vec<u8>)> {
    let insert = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        prop::sample::select(PIECES).prop_map(|text: &str| text.as_bytes().to_vec()),
    ];
    (any::<prop::sample::Index>(), 0usize..12, insert)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes_give_an_inventory_or_findings(
        bytes in prop::collection::vec(any::<u8>(), 0..512),
    ) {
        holds(&bytes, &parse("any.toml", &bytes));
    }

    #[test]
    fn any_edits_of_an_inventory_do_too(
        which in 0..EXAMPLES.len(),
        edits in prop::collection::vec(edit(), 1..6),
    ) {
        let mut bytes = EXAMPLES[which].1.to_vec();
        for (at, gone, come) in edits {
            let start = at.index(bytes.len() + 1);
            let end = (start + gone).min(bytes.len());
            bytes.splice(start..end, come);
        }
        holds(&bytes, &parse("edited.toml", &bytes));
    }

    #[test]
    fn lines_in_any_order_do_too(step in any::<prop::sample::Index>(), kept in 1usize..60) {
        let text = String::from_utf8_lossy(EXAMPLES[0].1);
        let lines: Vec<&str> = text.lines().collect();
        let step = step.index(lines.len()) + 1;
        let picked: Vec<&str> = (0..kept).map(|i| lines[i * step % lines.len()]).collect();
        let bytes = picked.join("\n").into_bytes();
        holds(&bytes, &parse("picked.toml", &bytes));
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same(
        nodes in 28usize..60,
        name in "[a-z]([a-z0-9-]{0,20}[a-z0-9])?",
        full_name in any::<String>(),
        value in "[A-Za-z0-9]([A-Za-z0-9_.-]{0,20}[A-Za-z0-9])?",
        budget in prop::option::of(0u32..1000),
    ) {
        let mut inventory = scale_to(&example("basement"), nodes).unwrap();
        inventory.fleet.name = name;
        inventory.fleet.limits.failure_budget = budget;
        let user = inventory.users.values_mut().next().unwrap();
        user.full_name = Some(full_name);
        for node in inventory.nodes.values_mut() {
            node.labels.insert("cellar.example/shelf".to_owned(), value.clone());
        }
        let printed = print(&inventory);
        prop_assert_eq!(&read_back(&printed), &inventory);
    }
}

#[test]
fn the_digest_is_of_the_meaning() {
    let (_, bytes) = EXAMPLES[1];
    let text = String::from_utf8_lossy(bytes);
    let bare: String = text
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
        .map(|l| format!("{l}\r\n"))
        .collect();
    assert_eq!(clean(bare.as_bytes()).digest(), clean(bytes).digest());
    let other = text.replace("10.88.0.13", "10.88.0.14");
    assert_ne!(clean(other.as_bytes()).digest(), clean(bytes).digest());
}

/// A key can be anything in quotes, and findings name it.
#[test]
fn keys_are_shown_without_what_moves_the_cursor_and_without_secrets() {
    let text = "[nodes.\"a\\u001b[2Jb\"]\nclass = 5\n[classes.\"tskey-auth-abcdef\"]\nkind = 5\n";
    let parsed = parse("keys.toml", text.as_bytes());
    assert!(parsed.diagnostics.len() >= 4);
    holds(text.as_bytes(), &parsed);
    for finding in &parsed.diagnostics {
        let shown = format!("{finding} {finding:?}");
        assert!(!shown.contains("tskey-auth-abcdef"), "{shown}");
    }
}
