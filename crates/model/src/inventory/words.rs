//! Known words: the one that was probably meant, and all of them in a sentence.

/// How alike two words must be, by Jaro and Winkler's measure from 0 to 1, for the one to be
/// offered in place of the other.
const ALIKE: f64 = 0.78;

/// Known words that a hint lists at most.
const MAX_LISTED: usize = 24;

/// The known word that is most like a given one, where one is.
pub(crate) fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let word = word.to_lowercase().replace(['-', ' '], "_");
    known
        .into_iter()
        .map(|k| {
            let plain = k.replace('-', "_");
            (strsim::jaro_winkler(&word, &plain), k)
        })
        .filter(|(likeness, _)| *likeness >= ALIKE)
        // Of equals the first one stays.
        .fold(None, |best: Option<(f64, &str)>, next| match best {
            Some(best) if best.0 >= next.0 => Some(best),
            _ => Some(next),
        })
        .map(|(_, k)| k)
}

/// Words as a list in a sentence.
pub(crate) fn listed<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    let mut text = words
        .iter()
        .take(MAX_LISTED)
        .map(|w| format!("`{w}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if words.len() > MAX_LISTED {
        text.push_str(&format!(" and {} more", words.len() - MAX_LISTED));
    }
    text
}
