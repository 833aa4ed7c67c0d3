//! `undercroft secrets edit`: a person's editor on plain text that is in memory alone.

use std::{
    ffi::OsStr,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::Command,
};

use undercroft_secrets::{SecretsError, Vault};

use crate::{
    commands::secrets::now_s,
    done::Done,
    error::CliError,
    memory_scratch::MemoryScratch,
    style::{GOOD, paint},
    ui::Ui,
};

/// How often a text with a mistake is given back to the editor.
const MISTAKES_MAX: usize = 100;

/// Changes a file in the user's editor.
pub(crate) fn edit(ui: Ui, vault: &Vault, file: &str) -> Result<Done, CliError> {
    let edit = vault.edit(file).map_err(|e| CliError::from(&e))?;
    let desk = MemoryScratch::new()?;
    desk.write(edit.to_plain().as_bytes())?;
    for _ in 0..MISTAKES_MAX {
        run_editor(&desk)?;
        let text = desk.read()?;
        match vault.finish_edit(&edit, &text, now_s()) {
            Ok(changed) if changed.is_empty() => {
                ui.line("nothing was changed")?;
                return Ok(Done::Well);
            }
            Ok(changed) => {
                ui.line(&format!("{} {file}", paint(GOOD, "wrote")))?;
                for name in changed {
                    ui.line(&format!("  {name}"))?;
                }
                return Ok(Done::Well);
            }
            // A mistake in the text needn't cost what was typed.
            Err(
                error @ (SecretsError::File { .. }
                | SecretsError::NotText { .. }
                | SecretsError::Emptied { .. }),
            ) if std::io::stdin().is_terminal() => {
                ui.stderr(&CliError::from(&error).render());
                if !ui.confirm("Open the editor again?", "Run it at a terminal.")? {
                    return Err(CliError::input("the file was left as it was"));
                }
            }
            Err(error) => return Err(CliError::from(&error)),
        }
    }
    Err(CliError::input("the file was left as it was"))
}

/// Lets the user's editor have the text.
fn run_editor(desk: &MemoryScratch) -> Result<(), CliError> {
    let editor = ["VISUAL", "EDITOR"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.trim().is_empty())
        .unwrap_or_else(|| "vi".to_owned());
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let search = std::env::var_os("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command
        .args(discreet(&real_name(program, &search)))
        .args(words)
        .arg(desk.file());
    let status = desk.run(&mut command).map_err(|e| {
        CliError::failed(format!("the editor {program:?} can't be run"))
            .because(&e)
            .hint("Name one in VISUAL or EDITOR.")
    })?;
    if status.success() {
        return Ok(());
    }
    Err(CliError::failed(format!(
        "the editor {program:?} ended with {status}; the file was left as it was"
    )))
}

/// What a program is called once all links are followed: `vi` is vim on most machines.
fn real_name(program: &str, search: &OsStr) -> String {
    let found = if program.contains('/') {
        Some(PathBuf::from(program))
    } else {
        std::env::split_paths(search)
            .map(|folder| folder.join(program))
            .find(|path| path.is_file())
    };
    let path = found.and_then(|path| path.canonicalize().ok());
    let path = path.as_deref().unwrap_or(Path::new(program));
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Arguments by which an editor writes nothing elsewhere: no swap, backup, undo and history files.
///
/// What the user's own configuration says of them is taken back by the commands of `-c`, which vim
/// carries out after it.
fn discreet(name: &str) -> &'static [&'static str] {
    // vim.basic, vim.tiny and others of Debian's, gvim.
    let is_vim = name == "nvim" || name == "gvim" || name == "vim" || name.starts_with("vim.");
    if is_vim {
        &[
            "-n",
            "-i",
            "NONE",
            "-c",
            "set noswapfile nobackup nowritebackup noundofile viminfo=",
        ]
    } else {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vim_is_told_to_write_nothing_elsewhere_whatever_it_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let vim = dir.path().join("vim.basic");
        std::fs::write(&vim, "").unwrap();
        std::os::unix::fs::symlink(&vim, dir.path().join("vi")).unwrap();
        let name = real_name("vi", dir.path().as_os_str());
        assert_eq!(name, "vim.basic");
        assert!(discreet(&name).contains(&"-n"));
        assert!(discreet(&real_name("/usr/bin/no/nvim", OsStr::new(""))).contains(&"-n"));
        for other in ["nano", "vimdiff-of-mine", "busybox"] {
            assert!(discreet(other).is_empty(), "{other}");
        }
    }
}
