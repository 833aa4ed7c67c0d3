//! Pinned SSH against a real OpenSSH server on loopback: what is accepted, what is refused, and
//! how each way of failing is told from the others.

#![expect(clippy::unwrap_used, reason = "a test that can't go on stops")]

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use secrecy::SecretString;
use tempfile::TempDir;
use undercroft_model::FailureKind;
use undercroft_ssh::{Connection, Endpoint, HostKey, RemoteCommand, SshError};

const LIMIT: Duration = Duration::from_secs(60);

/// An sshd of this test's own, which ends with it.
struct Sshd {
    dir: TempDir,
    child: Child,
    port: u16,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keygen(path: &Path, algorithm: &str) {
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

fn sshd_program() -> Option<PathBuf> {
    let path = PathBuf::from("/usr/sbin/sshd");
    path.exists().then_some(path)
}

impl Sshd {
    /// Starts a server with a host key of that algorithm; `None`, said aloud, where there is none.
    fn start(algorithm: &str) -> Option<Self> {
        let Some(program) = sshd_program() else {
            println!("SKIPPED: /usr/sbin/sshd is not installed (package openssh-server)");
            return None;
        };
        if user() == "root" {
            // The server's empty directory for its unprivileged half, which the distribution
            // makes when it boots.
            fs::create_dir_all("/run/sshd").unwrap();
            fs::set_permissions("/run/sshd", fs::Permissions::from_mode(0o755)).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        keygen(&path("host"), algorithm);
        keygen(&path("operator"), "ed25519");
        keygen(&path("stranger"), "ed25519");
        fs::copy(path("operator.pub"), path("authorized_keys")).unwrap();
        let port = free_port();
        fs::write(
            path("sshd_config"),
            format!(
                "ListenAddress 127.0.0.1:{port}
HostKey {host}
AuthorizedKeysFile {authorized}
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
",
                host = path("host").display(),
                authorized = path("authorized_keys").display(),
            ),
        )
        .unwrap();
        let log = fs::File::create(path("sshd.log")).unwrap();
        let child = Command::new(program)
            .arg("-D")
            .arg("-e")
            .arg("-f")
            .arg(path("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { dir, child, port };
        let until = Instant::now() + LIMIT;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).is_err() {
            let log = fs::read_to_string(server.path("sshd.log")).unwrap_or_default();
            assert!(Instant::now() < until, "sshd doesn't listen: {log}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(server)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn public(&self, name: &str) -> HostKey {
        HostKey::parse(&fs::read_to_string(self.path(name)).unwrap()).unwrap()
    }

    fn connect(&self, pin: HostKey, identity: &str) -> Connection {
        connection(self.port, pin, &self.path(identity))
    }

    fn pinned(&self) -> Connection {
        self.connect(self.public("host.pub"), "operator")
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn connection(port: u16, pin: HostKey, identity: &Path) -> Connection {
    let endpoint = Endpoint {
        port,
        user: user(),
        ..Endpoint::root("gpu-01", Ipv4Addr::LOCALHOST.into(), pin)
    };
    Connection::prepare(endpoint, identity).unwrap()
}

fn command(script: &str) -> RemoteCommand {
    RemoteCommand::new(["sh", "-c", script], LIMIT)
}

#[tokio::test]
async fn a_command_runs_under_the_pinned_key_and_gives_its_exit_code() {
    let Some(server) = Sshd::start("ed25519") else {
        return;
    };
    let output = server
        .pinned()
        .run(command("echo \"it's here\"; echo complaint >&2; exit 22"))
        .await
        .unwrap();
    assert_eq!(output.code, 22);
    assert_eq!(output.stdout, "it's here\n");
    assert_eq!(output.stderr_tail, "complaint");
}

#[tokio::test]
async fn a_changed_host_key_is_refused_and_both_fingerprints_are_shown() {
    let Some(server) = Sshd::start("ed25519") else {
        return;
    };
    let pin = server.public("stranger.pub");
    let error = server
        .connect(pin.clone(), "operator")
        .run(command("touch ran"))
        .await
        .unwrap_err();
    let shown = server.public("host.pub").fingerprint();
    let text = error.to_string();
    assert!(matches!(error, SshError::HostKeyMismatch { .. }), "{text}");
    assert_eq!(error.kind(), FailureKind::Refused);
    assert!(
        text.contains(&shown) && text.contains(&pin.fingerprint()),
        "{text}"
    );
}

#[tokio::test]
async fn a_server_without_the_pinned_kind_of_key_is_refused() {
    let Some(server) = Sshd::start("ecdsa") else {
        return;
    };
    let error = server
        .connect(server.public("stranger.pub"), "operator")
        .run(command("true"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, SshError::HostKeyMismatch { shown: None, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_login_that_is_refused_is_told_from_the_rest() {
    let Some(server) = Sshd::start("ed25519") else {
        return;
    };
    let error = server
        .connect(server.public("host.pub"), "stranger")
        .run(command("true"))
        .await
        .unwrap_err();
    assert!(matches!(error, SshError::AuthRefused { .. }), "{error}");
    assert_eq!(error.kind(), FailureKind::Permanent);
}

#[tokio::test]
async fn a_closed_port_and_a_silent_one_are_unreachable() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    keygen(&key, "ed25519");
    let public = fs::read_to_string(dir.path().join("key.pub")).unwrap();
    let pin = HostKey::parse(&public).unwrap();
    let error = connection(free_port(), pin.clone(), &key)
        .run(command("true"))
        .await
        .unwrap_err();
    assert!(matches!(error, SshError::Unreachable { .. }), "{error}");
    assert_eq!(error.kind(), FailureKind::Transient);

    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let error = connection(port, pin, &key)
        .run(RemoteCommand::new(["true"], Duration::from_secs(2)))
        .await
        .unwrap_err();
    assert!(
        matches!(error, SshError::TimedOut { begun: false, .. }),
        "{error}"
    );
    assert_eq!(error.kind(), FailureKind::Transient);
}

#[tokio::test]
async fn a_session_that_dies_after_the_command_did_its_work_is_ambiguous() {
    let Some(server) = Sshd::start("ed25519") else {
        return;
    };
    let done = server.path("done");
    let script = format!("touch {}; kill -9 $PPID; sleep 300", done.display());
    // The shell of the account may run the command in its own place or beside itself: the
    // server's session process is found by its name.
    let script = script.replace(
        "$PPID",
        "$(p=$$; while ! grep -q '^sshd' /proc/$p/comm; do p=$(cut -d' ' -f4 /proc/$p/stat); done; echo $p)",
    );
    let error = server.pinned().run(command(&script)).await.unwrap_err();
    assert!(done.exists(), "{error}");
    assert!(matches!(error, SshError::SessionLost { .. }), "{error}");
    assert_eq!(error.kind(), FailureKind::Ambiguous);
}

#[tokio::test]
async fn a_command_that_takes_too_long_may_have_happened() {
    let Some(server) = Sshd::start("ed25519") else {
        return;
    };
    let error = server
        .pinned()
        .run(RemoteCommand::new(["sleep", "300"], Duration::from_secs(4)))
        .await
        .unwrap_err();
    assert!(
        matches!(error, SshError::TimedOut { begun: true, .. }),
        "{error}"
    );
    assert_eq!(error.kind(), FailureKind::Ambiguous);
}

#[tokio::test]
async fn a_secret_is_in_no_argument_list_and_no_environment_on_its_way() {
    let Some(server) = Sshd::start("ed25519") else {
        return;
    };
    let marker = format!("marker-{}-{}", std::process::id(), server.port);
    let got = server.path("got");
    let script = format!("cat > {}; sleep 1", got.display());
    let connection = server.pinned();
    let command = command(&script).with_secret(SecretString::from(marker.clone()));
    assert!(!format!("{command:?}").contains(&marker));
    let run = tokio::spawn(async move { connection.run(command).await });
    let mut looked = 0;
    while !run.is_finished() {
        let seen = processes_that_show(&marker);
        assert!(seen.is_empty(), "{seen:?}");
        looked += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    run.await.unwrap().unwrap();
    assert!(looked > 3);
    assert_eq!(fs::read_to_string(got).unwrap(), marker);
}

fn processes_that_show(marker: &str) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let path = entry.path().join(file);
            let Ok(bytes) = fs::read(&path) else { continue };
            if bytes
                .windows(marker.len())
                .any(|part| part == marker.as_bytes())
            {
                seen.push(path);
            }
        }
    }
    seen
}
