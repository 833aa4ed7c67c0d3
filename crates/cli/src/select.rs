//! The words of a command for machines and for the fleet's folder, told apart.

use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use crate::{args::one_folder, complete, error::CliError, project::INVENTORY_FILE};

/// The machines that a command is about, and its folder.
#[derive(Debug, Args, Clone)]
pub(crate) struct WhereArgs {
    /// Machines, as NODE, CLASS or PATTERN ("gpu-*"); or the folder with undercroft.toml, as -C
    #[arg(value_name = "NODE|DIR", add = ArgValueCompleter::new(complete::selectors_or_folders))]
    words: Vec<String>,
}

/// The words of [`WhereArgs`], told apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Where {
    /// The folder, where one is named.
    pub(crate) folder: Option<PathBuf>,
    /// The words for machines.
    pub(crate) machines: Vec<String>,
}

impl WhereArgs {
    /// The folder, given here or by `-C`, and the words for machines.
    pub(crate) fn split(&self, global: Option<&Path>) -> Result<Where, CliError> {
        let mut folder: Option<&Path> = None;
        let mut machines = Vec::new();
        for word in &self.words {
            if !is_folder(word) {
                machines.extend(word.split(',').map(str::to_owned));
            } else if let Some(other) = folder {
                return Err(CliError::usage(format!(
                    "two folders are given: {} and {word}",
                    other.display()
                ))
                .hint("Give one of them."));
            } else {
                folder = Some(Path::new(word));
            }
        }
        Ok(Where {
            folder: one_folder(folder, global)?.map(Path::to_owned),
            machines,
        })
    }
}

/// Whether a word is a folder's rather than a machine's: no machine's name has a slash or a dot, and
/// a bare word is a folder where it holds an inventory.
fn is_folder(word: &str) -> bool {
    let path = Path::new(word);
    word.contains('/') || word.contains('.') || path.join(INVENTORY_FILE).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_machine_unless_it_can_be_none() {
        let args = |words: &[&str]| WhereArgs {
            words: words.iter().map(|w| (*w).to_owned()).collect(),
        };
        let both = args(&["gpu-01", "./fleet", "a,b"]).split(None).unwrap();
        assert_eq!(both.folder.as_deref(), Some(Path::new("./fleet")));
        assert_eq!(both.machines, ["gpu-01", "a", "b"]);
        assert!(args(&["a/b", "c/d"]).split(None).is_err());
        assert!(args(&["a/b"]).split(Some(Path::new("x"))).is_err());
    }
}
