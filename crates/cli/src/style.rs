//! Colours, in one place. The streams take them out where they don't belong.

use anstyle::{AnsiColor, Color, Style};
use undercroft_fleet::narrate::{Sentence, Tone};
use undercroft_model::{Diagnostic, Role};

/// Something went wrong, or something is lost.
pub(crate) const BAD: Style = fg(AnsiColor::Red).bold();
/// Something to look at.
pub(crate) const WARN: Style = fg(AnsiColor::Yellow).bold();
/// Something is done.
pub(crate) const GOOD: Style = fg(AnsiColor::Green);
/// What to try.
pub(crate) const HINT: Style = fg(AnsiColor::Cyan);
/// What matters in a line.
pub(crate) const BOLD: Style = Style::new().bold();
/// What matters less.
pub(crate) const DIM: Style = Style::new().dimmed();

const fn fg(color: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(color)))
}

/// A text in a style.
pub(crate) fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// A finding with its colours.
pub(crate) fn diagnostic(diagnostic: &Diagnostic) -> String {
    diagnostic
        .pieces()
        .iter()
        .map(|piece| (piece.role, crate::text::plain(&piece.text)))
        .map(|(role, text)| match role {
            Role::Plain => text,
            Role::Error => paint(BAD, &text),
            Role::Warning => paint(WARN, &text),
            Role::Strong => paint(BOLD, &text),
            Role::Gutter => paint(DIM, &text),
            Role::Hint => paint(HINT, &text),
        })
        .collect()
}

/// A sentence of the journal as a line, with its colours.
pub(crate) fn sentence(sentence: &Sentence) -> String {
    let text = match sentence.tone {
        Tone::Begin => paint(DIM, &sentence.text),
        Tone::Good => paint(GOOD, &sentence.text),
        Tone::Warn => paint(WARN, &sentence.text),
        Tone::Bad => paint(BAD, &sentence.text),
        Tone::Note => sentence.text.clone(),
    };
    match &sentence.node {
        Some(node) => format!("{}: {text}", paint(BOLD, node.as_str())),
        None => text,
    }
}

/// The colours of `--help`.
pub(crate) const HELP: clap::builder::Styles = clap::builder::Styles::styled()
    .header(BOLD)
    .usage(BOLD)
    .literal(fg(AnsiColor::Cyan))
    .placeholder(Style::new())
    .error(BAD)
    .valid(GOOD)
    .invalid(WARN);
