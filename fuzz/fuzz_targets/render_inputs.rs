//! Any text is a lock file, an app's settings, a chart repository's index, digests or values, or an
//! error; what is printed is read as the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use undercroft_render::{AppSettings, Index, Lock, parse_digests, yaml};

fuzz_target!(|text: &str| {
    if let Ok(lock) = Lock::parse("undercroft.lock", text) {
        let again = Lock::parse("undercroft.lock", &lock.print()).expect("what was printed is read");
        assert_eq!(again.print(), lock.print());
    }
    let _ = AppSettings::parse("apps/x/app.toml", text);
    let _ = Index::parse(text);
    for path in parse_digests(text).keys() {
        assert!(!path.split('/').any(|part| part == ".."), "{path}");
    }
    if let Ok(value) = yaml::parse(text)
        && let Ok(printed) = yaml::print(&value)
    {
        assert_eq!(yaml::parse(&printed).expect("what was printed is read"), value);
    }
});
