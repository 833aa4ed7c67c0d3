//! `undercroft secrets edit`: a person's editor on plain text that is in memory alone.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{IsTerminal as _, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use undercroft_metal::secrets::{SecretsError, Vault};

use crate::{
    Done,
    cmd_secrets::{now_s, secrets_error},
    error::CliError,
    style::{GOOD, paint},
    ui::Ui,
};

/// Where files are in memory: POSIX' shared memory.
const MEMORY: &str = "/dev/shm";
/// The kinds of file system that are memory, as statfs(2) tells them: tmpfs and ramfs.
const MEMORY_KINDS: [u32; 2] = [0x0102_1994, 0x8584_58f6];
/// The largest text that is taken back from the editor, in bytes.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;
/// How often a text with a mistake is given back to the editor.
const MISTAKES_MAX: usize = 100;

/// Changes a file in the user's editor.
pub(crate) fn edit(ui: Ui, vault: &Vault, file: &str) -> Result<Done, CliError> {
    let edit = vault.edit(file).map_err(|e| secrets_error(&e))?;
    let desk = Desk::new()?;
    desk.write(edit.to_plain().as_bytes())?;
    for _ in 0..MISTAKES_MAX {
        desk.run_editor()?;
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
            Err(error @ SecretsError::File { .. }) if std::io::stdin().is_terminal() => {
                ui.stderr(&secrets_error(&error).render());
                if !ui.confirm("Open the editor again?", "Run it at a terminal.")? {
                    return Err(CliError::input("the file was left as it was"));
                }
            }
            Err(error) => return Err(secrets_error(&error)),
        }
    }
    Err(CliError::input("the file was left as it was"))
}

/// A folder in memory that only the user can enter; what is in it is wiped at its end.
struct Desk {
    folder: PathBuf,
    file: PathBuf,
}

impl Desk {
    fn new() -> Result<Self, CliError> {
        let memory = Path::new(MEMORY);
        let refuse = |detail: String| {
            CliError::failed(format!("can't edit secrets: {detail}")).hint(
                "Plain text must not touch a disk. Mount a tmpfs at /dev/shm, or use `undercroft secrets rotate NAME --stdin`.",
            )
        };
        let kind = rustix::fs::statfs(memory)
            .map_err(|e| refuse(format!("{MEMORY} can't be used: {e}")))?
            .f_type;
        // The type differs between architectures in its width and sign; the kinds are 32 bits.
        let kind = u32::try_from(kind & 0xffff_ffff).unwrap_or(0);
        if !MEMORY_KINDS.contains(&kind) {
            return Err(refuse(format!("{MEMORY} isn't in memory")));
        }
        let folder = memory.join(format!("undercroft-secrets-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .map_err(|e| refuse(format!("{} can't be made: {e}", folder.display())))?;
        let file = folder.join("secrets.yaml");
        Ok(Self { folder, file })
    }

    fn write(&self, bytes: &[u8]) -> Result<(), CliError> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.file)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(|e| CliError::file("write", &self.file, &e))
    }

    fn read(&self) -> Result<Vec<u8>, CliError> {
        let mut bytes = Vec::new();
        fs::File::open(&self.file)
            .and_then(|file| file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|e| CliError::file("read", &self.file, &e))?;
        Ok(bytes)
    }

    fn run_editor(&self) -> Result<(), CliError> {
        let editor = ["VISUAL", "EDITOR"]
            .into_iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.trim().is_empty())
            .unwrap_or_else(|| "vi".to_owned());
        let mut words = editor.split_whitespace();
        let program = words.next().unwrap_or("vi");
        let status = Command::new(program)
            .args(words)
            .args(discreet(program))
            .arg(&self.file)
            .status()
            .map_err(|e| {
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
}

/// Arguments by which an editor writes nothing elsewhere: no swap, backup, undo and history files.
fn discreet(program: &str) -> &'static [&'static str] {
    let name = Path::new(program).file_name().and_then(|n| n.to_str());
    match name {
        Some("vim" | "nvim" | "vim.basic" | "vim.tiny") => &[
            "-n",
            "-i",
            "NONE",
            "--cmd",
            "set noswapfile nobackup nowritebackup noundofile",
        ],
        _ => &[],
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // Memory that is given back may be read by its next owner's bugs: it is zeroed first.
        if let Ok(entries) = fs::read_dir(&self.folder) {
            for entry in entries.flatten() {
                let length = entry.metadata().map_or(0, |m| m.len()).min(TEXT_BYTES_MAX);
                let zeros = vec![0; usize::try_from(length).unwrap_or(0)];
                let _ = fs::OpenOptions::new()
                    .write(true)
                    .open(entry.path())
                    .and_then(|mut file| file.write_all(&zeros));
            }
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_plain_text_is_the_users_alone_and_gone_afterwards() {
        let desk = Desk::new().unwrap();
        desk.write(b"a: b\n").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&desk.folder), mode(&desk.file)), (0o700, 0o600));
        assert_eq!(desk.read().unwrap(), b"a: b\n");
        let folder = desk.folder.clone();
        drop(desk);
        assert!(!folder.exists());
    }

    #[test]
    fn vim_is_told_to_write_nothing_elsewhere() {
        assert!(discreet("/usr/bin/vim").contains(&"-n"));
        assert!(discreet("nano").is_empty());
    }
}
