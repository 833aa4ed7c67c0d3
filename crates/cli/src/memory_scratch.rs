//! Where `undercroft secrets edit` keeps plain text: in memory, and only while an editor has it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::error::CliError;

/// Where files are in memory: POSIX' shared memory.
const MEMORY: &str = "/dev/shm";
/// The kinds of file system that are memory, as statfs(2) tells them: tmpfs and ramfs.
const MEMORY_KINDS: [u32; 2] = [0x0102_1994, 0x8584_58f6];
/// How the folders begin that plain text lies in.
const PREFIX: &str = "undercroft-secrets-";
/// The largest text that is taken back from the editor, in bytes.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;
/// How long an editor is given to end once it was told to.
const EDITOR_END_MAX: Duration = Duration::from_secs(5);

/// How often a folder is made anew that another command took for a leftover, in the moment before it was
/// locked.
const FOLDERS_MAX: usize = 8;

/// The folder of this process, for the end that no destructor sees.
static OWN: Mutex<Option<PathBuf>> = Mutex::new(None);

/// A folder in memory that only the user can enter; what is in it is wiped at its end, and when
/// the program is told to end. What a program left that was killed is wiped by the next.
pub(crate) struct MemoryScratch {
    folder: TempDir,
    file: PathBuf,
    /// Locked for as long as the folder is in use, so that the next knows what was left behind.
    _lock: File,
    running: Arc<Running>,
}

/// The editor that runs, if one does.
#[derive(Default)]
struct Running {
    editor: Mutex<Option<OwnedFd>>,
    ended: Condvar,
}

impl Running {
    fn editor(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.editor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryScratch {
    pub(crate) fn new() -> Result<Self, CliError> {
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
        let no_folder = |e: io::Error| refuse(format!("a folder can't be made in {MEMORY}: {e}"));
        let (folder, lock) = locked_folder(memory).map_err(no_folder)?;
        *own() = Some(folder.path().to_owned());
        let running = Arc::new(Running::default());
        watch_signals(folder.path().to_owned(), Arc::clone(&running)).map_err(no_folder)?;
        let file = folder.path().join("secrets.yaml");
        Ok(Self {
            folder,
            file,
            _lock: lock,
            running,
        })
    }

    /// The file that the editor is given.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), CliError> {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.file)
            .and_then(|mut file| file.write_all(bytes))
            .map_err(|e| CliError::file("write", &self.file, &e))
    }

    pub(crate) fn read(&self) -> Result<Zeroizing<Vec<u8>>, CliError> {
        let read = || -> io::Result<Zeroizing<Vec<u8>>> {
            let file = File::open(&self.file)?;
            let bytes = file.metadata()?.len().min(TEXT_BYTES_MAX + 1);
            // With room for all of it, as growing would leave copies behind.
            let room = usize::try_from(bytes + 1).unwrap_or(0);
            let mut text = Zeroizing::new(Vec::with_capacity(room));
            file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut text)?;
            Ok(text)
        };
        read().map_err(|e| CliError::file("read", &self.file, &e))
    }

    /// Runs an editor to its end. Ctrl-C is the editor's meanwhile.
    pub(crate) fn run(&self, command: &mut Command) -> io::Result<ExitStatus> {
        let mut child = {
            let mut editor = self.running.editor();
            let child = command.spawn()?;
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            // Without it the editor is waited for, and nothing else: it can't be told to end.
            *editor = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            child
        };
        let status = child.wait();
        self.running.editor().take();
        self.running.ended.notify_all();
        status
    }
}

impl Drop for MemoryScratch {
    fn drop(&mut self) {
        wipe(self.folder.path());
    }
}

/// Ends the program when it is told to, with nothing left behind; while an editor runs, that is
/// told first, and an interruption from the keyboard is its own.
fn watch_signals(folder: PathBuf, running: Arc<Running>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // The handlers stand before there is any plain text.
    let entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    drop(entered);
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                let from_keyboard = tokio::select! {
                    _ = terminate.recv() => false,
                    _ = hang_up.recv() => false,
                    _ = interrupt.recv() => true,
                    _ = quit.recv() => true,
                };
                let editor = running.editor();
                if let Some(process) = editor.as_ref() {
                    if from_keyboard {
                        continue;
                    }
                    let _ = pidfd_send_signal(process, Signal::TERM);
                    let (editor, waited) = running
                        .ended
                        .wait_timeout_while(editor, EDITOR_END_MAX, |editor| editor.is_some())
                        .unwrap_or_else(PoisonError::into_inner);
                    if let Some(process) = editor.as_ref().filter(|_| waited.timed_out()) {
                        let _ = pidfd_send_signal(process, Signal::KILL);
                    }
                }
                wipe(&folder);
                anstream::eprintln!("ended, as it was told to; the plain text was wiped");
                std::process::exit(1);
            }
        });
    });
    Ok(())
}

/// Makes a folder that is known to be in use.
fn locked_folder(memory: &Path) -> io::Result<(TempDir, File)> {
    for _ in 0..FOLDERS_MAX {
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(memory)?;
        let Ok(lock) = File::open(folder.path()) else {
            continue;
        };
        let locked = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        if locked && folder.path().exists() {
            return Ok((folder, lock));
        }
    }
    Err(io::Error::other("others remove it at once"))
}

fn own() -> MutexGuard<'static, Option<PathBuf>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wipes what this process has in memory, before it ends by [`std::process::exit`].
pub(crate) fn wipe_own() {
    // Whoever panics may hold it.
    if let Ok(folder) = OWN.try_lock()
        && let Some(folder) = folder.as_deref()
    {
        wipe(folder);
    }
}

/// Wipes what a command left that was killed; every command does so when it starts.
pub(crate) fn wipe_what_was_left() {
    wipe_unlocked(Path::new(MEMORY));
}

/// Wipes folders that no one has locked: a lock ends with its process, however that ends.
fn wipe_unlocked(memory: &Path) {
    for entry in fs::read_dir(memory).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry
                .metadata()
                .is_ok_and(|m| m.is_dir() && m.uid() == rustix::process::geteuid().as_raw());
        if !ours {
            continue;
        }
        let Ok(folder) = File::open(entry.path()) else {
            continue;
        };
        if flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            wipe(&entry.path());
        }
    }
}

/// Deletes a folder of plain text. Memory that is given back may be read by its next owner's bugs:
/// it is zeroed first.
fn wipe(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if !metadata.is_file() {
            continue;
        }
        let bytes = usize::try_from(metadata.len().min(TEXT_BYTES_MAX)).unwrap_or(0);
        let _ = OpenOptions::new()
            .write(true)
            .open(entry.path())
            .and_then(|mut file| file.write_all(&vec![0; bytes]));
    }
    let _ = fs::remove_dir_all(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_text_is_the_users_alone_and_gone_afterwards() {
        let desk = MemoryScratch::new().unwrap();
        desk.write(b"a: b\n").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(desk.folder.path()), mode(&desk.file)), (0o700, 0o600));
        assert_eq!(desk.read().unwrap().as_slice(), b"a: b\n");
        let folder = desk.folder.path().to_owned();
        // Another program that begins leaves it alone.
        wipe_what_was_left();
        assert!(folder.exists());
        drop(desk);
        assert!(!folder.exists());
    }

    #[test]
    fn what_a_killed_program_left_is_wiped_by_the_next() {
        let memory = tempfile::tempdir().unwrap();
        let left = memory.path().join(format!("{PREFIX}1234"));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("secrets.yaml"), "password: hunter2\n").unwrap();
        let others = memory.path().join("others");
        fs::create_dir(&others).unwrap();
        wipe_unlocked(memory.path());
        assert!(!left.exists() && others.exists());
    }
}
