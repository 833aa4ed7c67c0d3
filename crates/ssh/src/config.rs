//! The files that pin a connection.

use std::{
    fs::{OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use tempfile::TempDir;

use super::{ALIVE_COUNT_MAX, ALIVE_INTERVAL, CONNECT_TIMEOUT, Endpoint, witness};

pub(super) const CONFIG_FILE: &str = "config";
/// The log of those who are given the configuration alone, such as Nix.
pub(super) const LOG_FILE: &str = "log";
const KNOWN_HOSTS_FILE: &str = "known_hosts";

/// A directory that only this user can look into, at a path without blanks, because Nix splits
/// `NIX_SSHOPTS` at them.
pub(super) fn private_dir() -> io::Result<TempDir> {
    let base = std::env::temp_dir();
    let usable = base
        .to_str()
        .is_some_and(|text| !text.contains(char::is_whitespace));
    tempfile::Builder::new()
        .prefix("undercroft-ssh-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(if usable {
            base.as_path()
        } else {
            Path::new("/tmp")
        })
}

/// Writes the known-hosts file and the configuration of a connection.
pub(super) fn write(dir: &Path, endpoint: &Endpoint, identity: &Path) -> io::Result<()> {
    let known_hosts = dir.join(KNOWN_HOSTS_FILE);
    let keys = std::iter::once(&endpoint.host_key).chain(&endpoint.also);
    let lines: String = keys
        .map(|key| format!("{} {key}\n", endpoint.name))
        .collect();
    write_private(&known_hosts, &lines)?;
    write_private(&dir.join(witness::SCRIPT_FILE), witness::SCRIPT)?;
    write_private(
        &dir.join(CONFIG_FILE),
        &text(dir, endpoint, &known_hosts, identity)?,
    )
}

/// The option by which a connection with this log notes the key that it was shown.
pub(super) fn witness(dir: &Path, log: &Path) -> io::Result<String> {
    let script = path_word(&dir.join(witness::SCRIPT_FILE))?;
    let notes = path_word(&witness::notes(log))?;
    Ok(witness::option(&script, &notes))
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}

fn text(
    dir: &Path,
    endpoint: &Endpoint,
    known_hosts: &Path,
    identity: &Path,
) -> io::Result<String> {
    let witness = witness(dir, &dir.join(LOG_FILE))?;
    let known_hosts = path_word(known_hosts)?;
    let identity = path_word(identity)?;
    let connect_s = CONNECT_TIMEOUT.as_secs();
    let alive_s = ALIVE_INTERVAL.as_secs();
    // `-F` with this file keeps the user's and the system's configuration out altogether.
    Ok(format!(
        "Host *
    HostKeyAlias {name}
    Port {port}
    UserKnownHostsFile {known_hosts}
    GlobalKnownHostsFile /dev/null
    {witness}
    StrictHostKeyChecking yes
    HostKeyAlgorithms ssh-ed25519
    UpdateHostKeys no
    VerifyHostKeyDNS no
    CheckHostIP no
    IdentityFile {identity}
    IdentitiesOnly yes
    PreferredAuthentications publickey
    PasswordAuthentication no
    KbdInteractiveAuthentication no
    BatchMode yes
    ForwardAgent no
    ForwardX11 no
    ClearAllForwardings yes
    PermitLocalCommand no
    ControlMaster no
    ControlPath none
    ConnectionAttempts 1
    ConnectTimeout {connect_s}
    ServerAliveInterval {alive_s}
    ServerAliveCountMax {ALIVE_COUNT_MAX}
    TCPKeepAlive yes
    RequestTTY no
    EscapeChar none
    LogLevel VERBOSE
",
        name = endpoint.name,
        port = endpoint.port,
    ))
}

/// A path as ssh_config(5) takes it: in quotes, with `%` doubled, because some keywords expand it.
fn path_word(path: &Path) -> io::Result<String> {
    let text = path
        .to_str()
        .filter(|text| !text.contains(['"', '\\', '$']) && !text.contains(char::is_control));
    let text = text.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "the path {} can't be written in OpenSSH's configuration: use a folder without quotes, backslashes and dollar signs in its name",
                path.display()
            ),
        )
    })?;
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostKey;

    fn endpoint() -> Endpoint {
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIZdTn8/lZQnnwA7ICI2WO1bwRCCRMqC7y2J2n7G9VhT";
        Endpoint::root(
            "gpu-01",
            "10.88.0.11".parse().unwrap(),
            HostKey::parse(key).unwrap(),
        )
    }

    #[test]
    fn openssh_reads_the_configuration_as_it_is_meant() {
        let dir = private_dir().unwrap();
        let identity = dir.path().join("a key 100%");
        write(dir.path(), &endpoint(), &identity).unwrap();
        let output = std::process::Command::new("ssh")
            .arg("-G")
            .arg("-F")
            .arg(dir.path().join(CONFIG_FILE))
            .arg("root@10.88.0.11")
            .output()
            .unwrap();
        let seen = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        for line in [
            "stricthostkeychecking true",
            "hostkeyalgorithms ssh-ed25519",
            "hostkeyalias gpu-01",
            "batchmode yes",
            "identitiesonly yes",
            "globalknownhostsfile /dev/null",
            "passwordauthentication no",
            "updatehostkeys false",
            "forwardagent no",
            "checkhostip no",
            "loglevel VERBOSE",
        ] {
            assert!(seen.lines().any(|l| l == line), "{line} is not in\n{seen}");
        }
        let mode = |name: &str| {
            let meta = std::fs::metadata(dir.path().join(name)).unwrap();
            meta.permissions().mode() & 0o777
        };
        assert_eq!(
            [mode(""), mode(CONFIG_FILE), mode(KNOWN_HOSTS_FILE)],
            [0o700, 0o600, 0o600]
        );
    }

    #[test]
    fn a_path_that_could_become_another_option_is_refused() {
        let dir = private_dir().unwrap();
        for bad in ["/a\"\n    ProxyCommand x", "/a$HOME", "/a\\"] {
            assert!(
                write(dir.path(), &endpoint(), Path::new(bad)).is_err(),
                "{bad}"
            );
            let _ = std::fs::remove_file(dir.path().join(KNOWN_HOSTS_FILE));
        }
    }
}
