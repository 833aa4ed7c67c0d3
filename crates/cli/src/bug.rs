//! What a fault of Undercroft itself looks like.

use std::{io::Write as _, panic::PanicHookInfo};

/// Where faults are reported.
pub(crate) const REPORT_AT: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/issues");

/// Makes every panic, in whatever thread, say what it is and end the program with exit code 70.
///
/// Ending at once is safe at any moment: what was begun stands in the journal before it is begun.
pub(crate) fn install_hook() {
    std::panic::set_hook(Box::new(|info| {
        let _ = anstream::stderr().write_all(crate::text::screen(&describe(info)).as_bytes());
        crate::memory_scratch::wipe_own();
        std::process::exit(i32::from(crate::error::Kind::Bug.exit_code()));
    }));
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let what = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message");
    let place = info
        .location()
        .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let mut text = message(what, &place);
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|v| v != "0") {
        text.push_str(&format!(
            "\n{}\n",
            std::backtrace::Backtrace::force_capture()
        ));
    }
    text
}

fn message(what: &str, place: &str) -> String {
    format!(
        "{} this is a bug in undercroft {}: {what} (at {place})\n  \
         What was carried out is in the journal: the same command goes on from there.\n  \
         {} please report it at {REPORT_AT}, with this text, the command that you ran, and what \
         RUST_BACKTRACE=1 adds to it.\n",
        crate::style::paint(crate::style::BAD, "error:"),
        env!("CARGO_PKG_VERSION"),
        crate::style::paint(crate::style::HINT, "hint:"),
    )
}
