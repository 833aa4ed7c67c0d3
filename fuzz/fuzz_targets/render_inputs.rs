//! Any text is a lock file, an app's settings, a chart repository's index, digests or values, a
//! registry's answer, or an error; what is printed is read as the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use undercroft_render::{
    AppSettings, Index, Lock, newer_tags,
    oci::{Challenge, Manifest, Repository, next_page},
    parse_digests, yaml,
};

fuzz_target!(|text: &str| {
    if let Ok(lock) = Lock::parse("undercroft.lock", text) {
        let again =
            Lock::parse("undercroft.lock", &lock.print()).expect("what was printed is read");
        assert_eq!(again.print(), lock.print());
    }
    let _ = AppSettings::parse("apps/x/app.toml", text);
    let _ = Index::parse(text);
    for path in parse_digests(text).keys() {
        assert!(!path.split('/').any(|part| part == ".."), "{path}");
    }
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let _ = yaml::find(text, &words);
    let _ = newer_tags(&words, words.first().map_or("", String::as_str));
    let _ = Challenge::parse(text);
    let _ = Challenge::is_safe(text);
    if let Ok(manifest) = Manifest::parse(text.as_bytes()) {
        let _ = manifest.chart();
    }
    if let Some(path) = next_page(text) {
        assert!(path.starts_with("/v2/"), "{path}");
    }
    let repositories = [
        Repository::of_image(text),
        Repository::of_chart(text, "web"),
    ];
    for repository in repositories.into_iter().flatten() {
        let url = repository.url("tags/list");
        assert!(
            !url.contains("/../") && !url.contains(['?', '#', '@']),
            "{url}"
        );
    }
    if let Ok(value) = yaml::parse(text)
        && let Ok(printed) = yaml::print(&value)
    {
        assert_eq!(
            yaml::parse(&printed).expect("what was printed is read"),
            value
        );
    }
});
