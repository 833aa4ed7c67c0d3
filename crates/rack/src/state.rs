//! The rack's directory: what lies where, and whether a rack runs there.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use undercroft_model::NodeName;

use super::RackError;

/// How much of a log's end an error shows, in bytes.
pub(crate) const LOG_END_BYTES: u64 = 2048;

/// The directory of a rack, and the names of what lies in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    /// Names a directory; it need not be there yet.
    pub(crate) fn new(path: &Path) -> Result<Self, RackError> {
        std::path::absolute(path)
            .map(Self)
            .map_err(|source| RackError::io("make absolute the path of", path, source))
    }

    /// Makes the directory, closed to other users: consoles and disks are in it.
    pub(crate) fn create(&self) -> Result<(), RackError> {
        create_private_dir(&self.0)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn spec(&self) -> PathBuf {
        self.0.join("rack.json")
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.0.join("supervisor.json")
    }

    /// The supervisor's reason, if it could not set the rack up.
    pub(crate) fn failure(&self) -> PathBuf {
        self.0.join("failure.json")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.0.join("supervisor.log")
    }

    pub(crate) fn accelerator(&self) -> PathBuf {
        self.0.join("accelerator.json")
    }

    pub(crate) fn machines(&self) -> PathBuf {
        self.0.join("machines")
    }

    pub(crate) fn machine(&self, name: &NodeName) -> MachineDir {
        MachineDir(self.machines().join(name.as_str()))
    }

    /// The directory as an open file, to reach sockets in it by a short path.
    pub(crate) fn sockets(&self) -> Result<SocketDir, RackError> {
        SocketDir::open(&self.0)
    }
}

/// The name of the control socket in the rack's directory.
pub(crate) const CONTROL_SOCKET: &str = "control.sock";

/// The directory of one machine.
#[derive(Debug, Clone)]
pub(crate) struct MachineDir(PathBuf);

impl MachineDir {
    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    pub(crate) fn nvram(&self) -> PathBuf {
        self.0.join(NVRAM_FILE)
    }

    pub(crate) fn disk(&self, index: usize) -> PathBuf {
        self.0.join(disk_file(index))
    }

    pub(crate) fn serial_log(&self) -> PathBuf {
        self.0.join("serial.log")
    }

    /// What the serial log held before it grew too long.
    pub(crate) fn serial_log_old(&self) -> PathBuf {
        self.0.join("serial.log.1")
    }

    pub(crate) fn qemu_log(&self) -> PathBuf {
        self.0.join("qemu.log")
    }
}

/// The name of the file with the firmware's variables.
pub(crate) const NVRAM_FILE: &str = "nvram.fd";
/// The name of the socket to which QEMU connects its monitor.
pub(crate) const QMP_SOCKET: &str = "qmp.sock";
/// The name of the socket to which QEMU connects the serial console.
pub(crate) const SERIAL_SOCKET: &str = "serial.sock";

/// The name of a disk's image.
pub(crate) fn disk_file(index: usize) -> String {
    format!("disk{index}.img")
}

/// A directory whose sockets are reached through `/proc/self/fd`, since a socket's path may have
/// 107 bytes (`sun_path` in unix(7)) and a project's directory may have more.
#[derive(Debug)]
pub(crate) struct SocketDir(OwnedFd);

impl SocketDir {
    pub(crate) fn open(path: &Path) -> Result<Self, RackError> {
        rustix::fs::open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map(Self)
        .map_err(|errno| RackError::io("open", path, errno.into()))
    }

    /// A short path to a socket; good as long as this value lives, in this process.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }
}

/// What a running supervisor wrote about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SupervisorRecord {
    /// Its process id, as the host sees it.
    pub(crate) pid: i32,
    /// Its start time in clock ticks since boot, which tells it from a later process of the same
    /// id.
    pub(crate) start_ticks: u64,
    /// The host's boot, which tells it from a process before a restart.
    pub(crate) host_boot_id: String,
    /// Its network namespace, as the link under `/proc/PID/ns` names it.
    pub(crate) net_namespace: String,
    /// When it started, in milliseconds since 1970.
    pub(crate) started_at_ms: u64,
}

impl SupervisorRecord {
    /// Describes the calling process.
    pub(crate) fn of_this_process(started_at_ms: u64) -> Result<Self, RackError> {
        // The supervisor is process 1 of its own process namespace; /proc is the host's, and its
        // `self` link says which process this is there.
        let pid = fs::read_link("/proc/self")
            .map_err(|e| RackError::io("read", "/proc/self", e))?
            .to_str()
            .and_then(|name| name.parse().ok())
            .ok_or_else(|| {
                RackError::io(
                    "understand",
                    "/proc/self",
                    io::ErrorKind::InvalidData.into(),
                )
            })?;
        let start_ticks = start_ticks(pid).ok_or_else(|| {
            RackError::io(
                "read",
                format!("/proc/{pid}/stat"),
                io::ErrorKind::NotFound.into(),
            )
        })?;
        Ok(Self {
            pid,
            start_ticks,
            host_boot_id: host_boot_id(),
            net_namespace: net_namespace("self").unwrap_or_default(),
            started_at_ms,
        })
    }

    /// Whether the process is there.
    pub(crate) fn is_alive(&self) -> bool {
        self.host_boot_id == host_boot_id() && start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// The record of the rack that runs in a directory.
    pub(crate) fn find(dir: &StateDir) -> Option<Self> {
        let text = fs::read(dir.record()).ok()?;
        serde_json::from_slice::<Self>(&text)
            .ok()
            .filter(Self::is_alive)
    }
}

/// The kernel's id of this boot of the host; empty where `/proc` doesn't say.
pub(crate) fn host_boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The network namespace of a process, such as `net:[4026531840]`.
pub(crate) fn net_namespace(pid: &str) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// A process's start time, field 22 of proc_pid_stat(5); `None` if it is gone or a zombie.
fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Makes a directory and those above it, the last one with mode 0700.
pub(crate) fn create_private_dir(path: &Path) -> Result<(), RackError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| RackError::io("create", path, e))
}

/// Writes a file whole or not at all.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), RackError> {
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .map_err(|e| RackError::io("write", path, e))
}

/// The last `limit_bytes` of a file, as text; empty if it isn't there.
pub(crate) fn end_of_file(path: &Path, limit_bytes: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit_bytes)))?;
        let mut bytes = Vec::new();
        file.take(limit_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default())
        .trim()
        .to_owned()
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn sockets_work_in_a_directory_whose_path_is_too_long_for_them() {
        let temp = tempfile::tempdir().unwrap();
        let long = temp.path().join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(&long).unwrap();
        assert!(UnixListener::bind(long.join(CONTROL_SOCKET)).is_err());
        let dir = SocketDir::open(&long).unwrap();
        let _listener = UnixListener::bind(dir.path(CONTROL_SOCKET)).unwrap();
        assert!(long.join(CONTROL_SOCKET).exists());
        UnixStream::connect(dir.path(CONTROL_SOCKET)).unwrap();
    }

    #[test]
    fn a_record_is_alive_until_its_process_or_boot_is_another() {
        let mut record = SupervisorRecord::of_this_process(0).unwrap();
        assert!(record.is_alive());
        record.start_ticks += 1;
        assert!(!record.is_alive());
        record.start_ticks -= 1;
        record.host_boot_id = "another".into();
        assert!(!record.is_alive());
    }

    #[test]
    fn the_end_of_a_file_is_bounded() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log");
        assert_eq!(end_of_file(&path, 4), "");
        fs::write(&path, "0123456789").unwrap();
        assert_eq!(end_of_file(&path, 4), "6789");
        assert_eq!(end_of_file(&path, 400), "0123456789");
    }
}
