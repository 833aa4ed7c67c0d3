//! What of a tree is sealed, kept and found changed, leaf by leaf.

use super::*;

fn tree(text: &str) -> Value {
    parse_plain(text.as_bytes()).unwrap()
}

fn seal_again(opened: &Opened, recipient: &Recipient) -> Encrypted {
    // Other entropy than at first, so that what is sealed again shows.
    let mut entropy = entropy_from(100);
    opened
        .seal(Seal {
            recipients: std::slice::from_ref(recipient),
            now_s: 1_800_000_000,
            entropy: &mut entropy,
        })
        .unwrap()
}

#[test]
fn no_two_values_share_a_vector() {
    let (identity, recipient) = someone();
    let plain = "# c\na: same\nb: same\nl:\n    - same\n    - same\n    # c\n    - 1\n";
    let text = seal(&tree(plain), &[recipient]).write();
    let mut vectors: Vec<&str> = text
        .split(",iv:")
        .skip(1)
        .map(|rest| rest.split(',').next().unwrap())
        .collect();
    // Two equal elements of one list are two values; with the two comments and the MAC eight.
    assert_eq!(vectors.len(), 8, "{text}");
    vectors.sort_unstable();
    vectors.dedup();
    assert_eq!(vectors.len(), 8, "{text}");
    let opened = Encrypted::parse(text.as_bytes()).unwrap();
    assert_eq!(
        opened.open(&[&identity]).unwrap().to_plain().as_str(),
        plain
    );
}

#[test]
fn whatever_changes_is_sealed_and_the_rest_keeps_its_line() {
    let (identity, recipient) = someone();
    let plain = "# said\na: 1 # behind\nb_unencrypted: 2\nc: null\nl:\n    # of l\n    - x\n";
    let sealed = seal(&tree(plain), std::slice::from_ref(&recipient));
    let unchanged = reopen(&sealed, &identity).unwrap();
    assert_eq!(unchanged.recipients(), [recipient.as_str()]);
    assert_eq!(unchanged.sealed().write(), sealed.write());
    assert_eq!(seal_again(&unchanged, &recipient).write(), sealed.write());
    for (other, lines) in [
        (
            "# told\na: 1 # behind\nb_unencrypted: 2\nc: null\nl:\n    # of l\n    - x\n",
            1,
        ),
        (
            "# said\na: 1 # beside\nb_unencrypted: 2\nc: null\nl:\n    # of l\n    - x\n",
            1,
        ),
        (
            "# said\na: 1 # behind\nb_unencrypted: 3\nc: null\nl:\n    # of l\n    - x\n",
            1,
        ),
        (
            "# said\na: 1 # behind\nb_unencrypted: 2\nc: 4\nl:\n    # of l\n    - x\n",
            1,
        ),
        (
            "# said\na: 1 # behind\nb_unencrypted: 2\nc: null\nl:\n    # in l\n    - x\n",
            1,
        ),
        (
            "# said\na: \"1\" # behind\nb_unencrypted: 2\nc: null\nl:\n    # of l\n    - z\n",
            2,
        ),
    ] {
        let changed = unchanged.with(tree(other));
        let again = seal_again(&changed, &recipient);
        let (before, after) = (sealed.write(), again.write());
        let differ = before
            .lines()
            .zip(after.lines())
            .take_while(|(a, _)| *a != "sops:")
            .filter(|(a, b)| a != b)
            .count();
        assert_eq!(differ, lines, "{other}\n{after}");
        let opened = reopen(&again, &identity).unwrap();
        assert_eq!(opened.to_plain().as_str(), other);
    }
}

#[test]
fn comments_are_sealed_where_values_are() {
    let (identity, recipient) = someone();
    let plain = "\
a_unencrypted:
    # for all
    b: 1
    c:
        - 2
        # for all, too
        - 3
d:
    # hidden
    e: 1
";
    let sealed = seal(&tree(plain), std::slice::from_ref(&recipient));
    let text = sealed.write();
    assert!(
        text.contains("# for all\n") && text.contains("# for all, too\n"),
        "{text}"
    );
    assert!(!text.contains("hidden"), "{text}");
    let opened = reopen(&sealed, &identity).unwrap();
    assert_eq!(opened.to_plain().as_str(), plain);
    // A comment that nobody can open stays as it is, and isn't sealed once more.
    let foreign = "#ENC[AES256_GCM,data:AAAA,iv:AAAA,tag:AAAA,type:comment]";
    let text = format!("{foreign}\n{text}");
    let opened = Encrypted::parse(text.as_bytes())
        .unwrap()
        .open(&[&identity]);
    let mut opened = opened.unwrap();
    assert!(opened.to_plain().starts_with(&format!("{foreign}\n")));
    assert_eq!(seal_again(&opened, &recipient).write(), text);
    opened.tree.set("d/e", Value::Int(2));
    assert!(
        seal_again(&opened, &recipient)
            .write()
            .starts_with(&format!("{foreign}\n"))
    );
}

#[test]
fn a_comment_that_sops_bound_further_out_is_opened() {
    let (identity, recipient) = someone();
    let sealed = seal(&tree("# moved\na:\n    b:\n        c: 1\n"), &[recipient]).write();
    let (comment, rest) = sealed.split_once('\n').unwrap();
    let line = rest.lines().find(|line| line.contains("c:")).unwrap();
    let moved = rest.replace(line, &format!("        {comment}\n{line}"));
    let opened = Encrypted::parse(moved.as_bytes())
        .unwrap()
        .open(&[&identity])
        .unwrap();
    assert_eq!(
        opened.to_plain().as_str(),
        "a:\n    b:\n        # moved\n        c: 1\n"
    );
}

#[test]
fn a_value_that_became_a_comment_or_lies_in_plain_text_is_found() {
    let (identity, recipient) = someone();
    let sealed = seal(
        &tree("# said\na:\n    b: x\n    n: null\n    e: \"\"\n"),
        &[recipient],
    )
    .write();
    let open = |text: &str| {
        let file = Encrypted::parse(text.as_bytes()).unwrap();
        file.open(&[&identity])
            .map(|opened| opened.to_plain().to_string())
    };
    assert!(open(&sealed).is_ok());
    let b = sealed.lines().find(|line| line.contains("b:")).unwrap();
    for (line, want) in [
        ("    b: x", SopsError::PlainValue { name: "a/b".into() }),
        ("    b: 1", SopsError::PlainValue { name: "a/b".into() }),
        ("    b: true", SopsError::PlainValue { name: "a/b".into() }),
        (
            "    b: ENC[AES256_GCM,data:AA==]",
            SopsError::BadValue { name: "a/b".into() },
        ),
        ("    b: \"\"", SopsError::BadMac),
        ("    b: null", SopsError::BadMac),
    ] {
        assert_eq!(open(&sealed.replace(b, line)).unwrap_err(), want, "{line}");
    }
    let said = b.replace("type:str", "type:comment");
    assert_eq!(
        open(&sealed.replace(b, &said)).unwrap_err(),
        SopsError::BadValue { name: "a/b".into() }
    );
    let number = b.replace("type:str", "type:int");
    assert_eq!(
        open(&sealed.replace(b, &number)).unwrap_err(),
        SopsError::BadValue { name: "a/b".into() }
    );
}

#[test]
fn bytes_that_are_no_text_get_their_place() {
    for (bytes, line, column) in [
        (&b"\xff"[..], 1, 1),
        (b"a: \xff", 1, 4),
        (b"a: b\nc: \xc3", 2, 4),
        (b"a: b\n\n\xffc", 3, 1),
    ] {
        let message = "it isn't UTF-8".to_owned();
        let want = SopsError::Syntax {
            line,
            column,
            message,
        };
        assert_eq!(parse_plain(bytes).unwrap_err(), want);
    }
}

#[test]
fn values_are_found_by_their_paths() {
    let mut tree =
        tree("a:\n    b: x\n    l:\n        # said\n        - 1\n        - c: 2\ne: {}\nn: 3\n");
    assert_eq!(tree.names(), ["a/b", "a/l/0", "a/l/1/c", "n"]);
    assert_eq!(tree.get("a/b").and_then(Value::as_text), Some("x"));
    assert!(tree.get("n") == Some(&Value::Int(3)));
    for none in ["b", "a/c", "n/a", "a/l/0", ""] {
        assert!(tree.get(none).is_none(), "{none}");
    }
    assert_eq!(tree.get("n").and_then(Value::as_text), None);
    assert_eq!(tree.as_text(), None);
    // What stands in the way gives way, and nothing else does.
    tree.set("n/m", Value::text("y"));
    tree.set("a/b", Value::text("z"));
    assert_eq!(tree.names(), ["a/b", "a/l/0", "a/l/1/c", "n/m"]);
    assert!(!tree.remove("a/b/c") && !tree.remove("x") && !tree.remove("a/x"));
    assert!(tree.remove("n/m") && tree.get("n").is_none());
    assert!(tree.remove("a/b"));
    assert_eq!(tree.names(), ["a/l/0", "a/l/1/c"]);
    assert_eq!(crate::to_plain(&Value::text("x")).as_str(), "");
    assert_eq!(crate::to_plain(&Value::map()).as_str(), "{}\n");
}
