//! What a build reads, in as many archives as a job may have inputs.
//!
//! Each store path has an archive of its own, so that whoever has it once needs it never again. Where there are more paths
//! than inputs, several share one, and which do follows from their names: another closure changes a few of them.

use std::collections::BTreeMap;

use undercroft_lend::job::INPUTS_MAX;

/// Archives of store paths, at most: one input is kept for the build's own files.
const BUNDLES_MAX: usize = INPUTS_MAX - 1;

/// The names of inputs, each with the names of the store paths in it.
pub(super) fn bundles(names: &[&str]) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (number, name) in names.iter().enumerate() {
        let number = match names.len() <= BUNDLES_MAX {
            true => number,
            false => spread(name) % BUNDLES_MAX,
        };
        let bundle = all.entry(format!("store-{number:03}")).or_default();
        bundle.push((*name).to_owned());
    }
    all
}

/// A number that a name has everywhere (FNV-1a of 32 bits).
fn spread(name: &str) -> usize {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    usize::try_from(hash).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_paths_have_an_archive_each_and_many_share_them() {
        let names: Vec<String> = (0..2000).map(|n| format!("{n:032}-x")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let few = bundles(&names[..200]);
        assert!(few.len() == 200 && few.values().all(|inside| inside.len() == 1));

        let many = bundles(&names);
        assert!(many.len() <= BUNDLES_MAX);
        assert_eq!(many.values().map(Vec::len).sum::<usize>(), names.len());
        // One more path leaves all archives but one as they are.
        let before = bundles(&names[..1999]);
        let same = many
            .values()
            .filter(|inside| before.values().any(|old| old == *inside));
        assert_eq!(same.count(), many.len() - 1);
    }
}
