//! A real OpenSSH server on loopback, with a configuration of the test's choice.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use undercroft_ssh::{Connection, Endpoint, HostKey};

/// Stands for the banner's file in a configuration.
pub(crate) const BANNER: &str = "BANNER";
/// Stands for the forced command's file.
const FORCED: &str = "FORCED";
const START_MAX: Duration = Duration::from_secs(60);

/// An sshd of this test's own, which ends with it.
pub(crate) struct Sshd {
    dir: TempDir,
    child: Child,
    pub(crate) port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn keygen(path: &Path, algorithm: &str) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", "test", "-t", algorithm, "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(status.success());
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A way to a port of loopback, pinned.
pub(crate) fn connection(port: u16, pin: HostKey, identity: &Path) -> Connection {
    let endpoint = Endpoint {
        port,
        user: user(),
        ..Endpoint::root("gpu-01", Ipv4Addr::LOCALHOST.into(), pin)
    };
    Connection::prepare(endpoint, identity).unwrap()
}

impl Sshd {
    /// Starts a server; `None`, said aloud, where there is none.
    pub(crate) fn start(more: &str) -> Option<Self> {
        let program = Path::new("/usr/sbin/sshd");
        if !program.exists() {
            println!("SKIPPED: /usr/sbin/sshd is not installed (package openssh-server)");
            return None;
        }
        if user() == "root" {
            fs::create_dir_all("/run/sshd").unwrap();
            fs::set_permissions("/run/sshd", fs::Permissions::from_mode(0o755)).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for key in ["host", "operator", "stranger"] {
            keygen(&path(key), "ed25519");
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let more = more
            .replace(BANNER, &path("banner").display().to_string())
            .replace(FORCED, &path("forced").display().to_string());
        fs::write(
            path("sshd_config"),
            format!(
                "ListenAddress 127.0.0.1:{port}
HostKey {host}
AuthorizedKeysFile {operator}
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
{more}
",
                host = path("host").display(),
                operator = path("operator.pub").display(),
            ),
        )
        .unwrap();
        let child = Command::new(program)
            .args(["-D", "-e", "-f"])
            .arg(path("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(path("sshd.log")).unwrap())
            .spawn()
            .unwrap();
        let server = Self { dir, child, port };
        let until = Instant::now() + START_MAX;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let log = fs::read_to_string(server.path("sshd.log")).unwrap_or_default();
            assert!(Instant::now() < until, "sshd doesn't listen: {log}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(server)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn public(&self) -> HostKey {
        HostKey::parse(&fs::read_to_string(self.path("host.pub")).unwrap()).unwrap()
    }

    /// The key that is let in.
    pub(crate) fn operator(&self) -> PathBuf {
        self.path("operator")
    }

    /// A key that isn't.
    pub(crate) fn stranger(&self) -> PathBuf {
        self.path("stranger")
    }

    pub(crate) fn write_banner(&self, text: &str) {
        fs::write(self.path("banner"), text).unwrap();
    }

    pub(crate) fn write_forced(&self, script: &str) {
        fs::write(self.path("forced"), script).unwrap();
    }
}
