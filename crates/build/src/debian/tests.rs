use super::*;

fn cache() -> Option<PathBuf> {
    // The workspace's own cache, which the developer's commands fill.
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache");
    dir.join("parts/index.json").is_file().then_some(dir)
}

#[test]
fn fetching_what_is_cached_needs_no_network_and_no_apt() {
    let Some(cache) = cache() else {
        println!("SKIPPED: no packages in .cache/parts; `cargo xtask try` fetches them");
        return;
    };
    let parts = Parts::open(&cache).unwrap();
    let mut lines = Vec::new();
    let set = parts
        .fetch(&["busybox-static", "gdisk"], Arch::X86_64, &mut |line| {
            lines.push(line.to_owned())
        })
        .unwrap();
    assert!(lines.is_empty(), "{lines:?}");
    let linked = set.link(&[set.file("usr/sbin/sgdisk").unwrap()]).unwrap();
    assert!(linked.libraries.contains_key("libc.so.6"));
    let (path, file) = linked.loader.unwrap();
    assert_eq!(path, "/lib64/ld-linux-x86-64.so.2");
    assert!(
        file.starts_with(fs::canonicalize(cache.join("parts")).unwrap()),
        "taken from this machine: {file:?}"
    );
    let busybox = set.link(&[set.file("usr/bin/busybox").unwrap()]).unwrap();
    assert_eq!(busybox, Linked::default());
}

#[test]
fn a_file_that_no_package_has_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::open(dir.path()).unwrap();
    let set = PartSet {
        arch: Arch::X86_64,
        unpacked: parts.dir.join("unpacked"),
        parts: BTreeMap::new(),
    };
    assert!(
        set.file("usr/sbin/nothing")
            .unwrap_err()
            .to_string()
            .contains("usr/sbin/nothing")
    );
}

#[test]
fn a_record_is_used_only_while_all_that_it_names_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let parts = Parts::open(dir.path()).unwrap();
    let part = |name: &str, needs: &[&str]| Part {
        name: name.to_owned(),
        version: "1".to_owned(),
        sha256: format!("sum-of-{name}"),
        needs: needs.iter().map(|n| (*n).to_owned()).collect(),
    };
    let known: BTreeMap<String, Part> = [part("a", &["liba"]), part("liba", &["a"])]
        .map(|part| (part.name.clone(), part))
        .into();
    fs::create_dir(dir.path().join("parts/unpacked/sum-of-a")).unwrap();
    assert!(parts.recorded(&["a"], Arch::X86_64, &known).is_none());
    fs::create_dir(dir.path().join("parts/unpacked/sum-of-liba")).unwrap();
    let set = parts.recorded(&["a"], Arch::X86_64, &known).unwrap();
    assert_eq!(set.parts().count(), 2);
    assert!(parts.recorded(&["b"], Arch::X86_64, &known).is_none());
}
