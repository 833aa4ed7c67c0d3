//! The reference page, docs/inventory.md.
//!
//! Its tables of keys are made from the schema; they stand between marks in the page, and the
//! prose around them is written by hand. To bring the tables up to date, run this test with
//! `UNDERCROFT_WRITE_DOCS=1`.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::PathBuf};

use serde_json::Value;
use undercroft_model::inventory::schema;

/// The tables of keys by the path of their section: `fleet.limits`, `classes.NAME.gpu`.
fn sections(schema: &Value, path: &str, out: &mut BTreeMap<String, String>) {
    if let Some(keys) = schema.get("properties").and_then(Value::as_object) {
        if !path.is_empty() {
            out.insert(path.to_owned(), table(schema));
        }
        for (key, inner) in keys {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            sections(inner, &path, out);
        }
    } else if let Some(inner) = schema.get("items") {
        sections(inner, &format!("{path}[]"), out);
    } else if let Some(inner) = schema.get("additionalProperties")
        && inner.is_object()
    {
        sections(inner, &format!("{path}.NAME"), out);
    }
}

fn table(section: &Value) -> String {
    let required = section["required"].as_array().unwrap();
    let mut out = String::from("| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
    for (key, inner) in section["properties"].as_object().unwrap() {
        let default = match inner.get("default") {
            _ if required.contains(&Value::from(key.as_str())) => "**required**".to_owned(),
            Some(Value::Array(items)) if !items.is_empty() => items
                .iter()
                .map(|i| format!("`{i}`"))
                .collect::<Vec<_>>()
                .join(", "),
            Some(default) => format!("`{default}`"),
            None => String::new(),
        };
        let mut meaning = inner["description"].as_str().unwrap().to_owned();
        for word in words(inner) {
            let (word, what) = (&word["const"], word["description"].as_str().unwrap());
            write!(meaning, "<br>`{word}`: {what}").unwrap();
        }
        writeln!(
            out,
            "| `{key}` | {} | {default} | {} |",
            kind(inner),
            meaning.replace('|', "\\|")
        )
        .unwrap();
    }
    out
}

/// The words of a choice, or of a list of choices.
fn words(schema: &Value) -> impl Iterator<Item = &Value> {
    let of = schema.get("items").unwrap_or(schema);
    of.get("oneOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// A type in words.
fn kind(schema: &Value) -> String {
    if let Some(items) = schema.get("items") {
        return format!("list of: {}", kind(items));
    }
    if let Some(title) = schema.get("title") {
        return title.as_str().unwrap().to_owned();
    }
    if schema.get("oneOf").is_some() {
        return "one of the words below".to_owned();
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        let words: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
        return format!("one of {}", words.join(", "));
    }
    match schema["type"].as_str().unwrap() {
        "integer" => format!("{} to {}", schema["minimum"], schema["maximum"]),
        "boolean" => "`true` or `false`".to_owned(),
        "string" => "text".to_owned(),
        "object" => match schema.get("additionalProperties").filter(|a| a.is_object()) {
            Some(inner) if inner.get("properties").is_none() => {
                format!("table of: {}", kind(inner))
            }
            _ => "table".to_owned(),
        },
        other => panic!("type {other}"),
    }
}

const END: &str = "<!-- end of keys -->\n";

#[test]
fn the_page_has_every_key_and_no_other() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/inventory.md");
    let page = fs::read_to_string(&path).unwrap();
    let mut wanted = BTreeMap::new();
    sections(&schema(), "", &mut wanted);
    assert!(wanted.len() > 20, "{wanted:?}");
    let mut made = String::new();
    let mut rest = page.as_str();
    while let Some((before, after)) = rest.split_once("<!-- keys of ") {
        let (name, after) = after.split_once(" -->\n").unwrap();
        let (_, after) = after.split_once(END).unwrap();
        let table = wanted.remove(name).unwrap_or_else(|| {
            panic!("docs/inventory.md has a table of {name}, which is no section, or has it twice")
        });
        write!(made, "{before}<!-- keys of {name} -->\n\n{table}\n{END}").unwrap();
        rest = after;
    }
    made.push_str(rest);
    let missing: Vec<&String> = wanted.keys().collect();
    assert!(missing.is_empty(), "docs/inventory.md lacks {missing:?}");
    if std::env::var_os("UNDERCROFT_WRITE_DOCS").is_some() {
        fs::write(&path, &made).unwrap();
    } else {
        assert!(
            made == page,
            "the tables of docs/inventory.md are not in step with the schema; run this test with UNDERCROFT_WRITE_DOCS=1"
        );
    }
}

/// Every piece of TOML that the page shows reads as it says: those marked `toml` together make an
/// inventory without a finding.
#[test]
fn what_the_page_shows_is_an_inventory() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/inventory.md");
    let page = fs::read_to_string(&path).unwrap();
    let mut shown = 0;
    for piece in page.split("```toml\n").skip(1) {
        let (text, _) = piece.split_once("```").unwrap();
        crate::examples::clean(text.as_bytes());
        shown += 1;
    }
    assert!(shown > 0);
}
