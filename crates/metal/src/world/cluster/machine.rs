//! What a member of the cluster is asked over SSH.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use secrecy::SecretString;
use undercroft_model::{
    Failure, FailureKind, NodeName,
    on_machine::{
        CLUSTER_REPORT, JOIN_BEGAN, JOIN_ENV, JOIN_UNIT, JOINED, K3S_ETCD, KUBEADM_ENDED,
        KUBEADM_ETCD, KUBECONFIG,
    },
};

use undercroft_kube::{Access, KubeError, etcd_members};
use undercroft_process::printable;
use undercroft_secrets::keys::HostKeys;
use undercroft_ssh::{Connection, Endpoint, Output, RemoteCommand, SshError};
use undercroft_steps::{EtcdMembers, JoinStatus, JoinUnit};

/// How long a short question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long etcd may take to ask all of its members how they are; it gives each five seconds.
const ETCD_TIMEOUT: Duration = Duration::from_secs(60);

/// Prints the administrator's kubeconfig, wherever the distribution keeps it.
fn print_kubeconfig() -> String {
    format!(
        "for file in {KUBECONFIG} /etc/rancher/k3s/k3s.yaml /etc/kubernetes/admin.conf
do [ -r \"$file\" ] && exec cat \"$file\"
done
exit {NO_FILE}"
    )
}
/// The exit code of the above where there is none.
const NO_FILE: i32 = 10;

/// Says where the machine's part of the cluster stands.
fn print_status() -> String {
    format!(
        "cat /proc/sys/kernel/random/boot_id
if [ -e {JOINED} ]; then echo joined
elif [ -e {KUBEADM_ENDED} ]; then echo entered
elif [ -e {JOIN_BEGAN} ]; then echo begun
else echo apart
fi
systemctl show --property=ActiveState --value {JOIN_UNIT}.service || echo unknown
cat {CLUSTER_REPORT} 2>/dev/null || true"
    )
}

/// Runs etcdctl with the certificates that the distribution keeps.
fn with_etcdctl(line: &str) -> String {
    format!(
        "dir={K3S_ETCD}
if [ -e \"$dir/server-ca.crt\" ]
then ETCDCTL_CACERT=$dir/server-ca.crt ETCDCTL_CERT=$dir/client.crt ETCDCTL_KEY=$dir/client.key
else dir={KUBEADM_ETCD}
ETCDCTL_CACERT=$dir/ca.crt ETCDCTL_CERT=$dir/server.crt ETCDCTL_KEY=$dir/server.key
fi
export ETCDCTL_CACERT ETCDCTL_CERT ETCDCTL_KEY
ETCDCTL_ENDPOINTS=https://127.0.0.1:2379
export ETCDCTL_ENDPOINTS
{line}"
    )
}

/// Writes what a machine is told for its join, whole or not at all. The folder is there from its boot on.
fn take_join_env() -> String {
    format!(
        "umask 077
file={JOIN_ENV}
mkdir -p \"${{file%/*}}\"
cat >\"$file.new\"
mv \"$file.new\" \"$file\""
    )
}

/// Reads what [`print_status`] prints.
fn status_of(text: &str) -> JoinStatus {
    let mut lines = text.lines();
    let mut next = || printable(lines.next().unwrap_or_default().trim());
    let (boot_id, stage, unit) = (next(), next(), next());
    let joined = stage == "joined";
    let said: serde_json::Value = lines
        .collect::<Vec<_>>()
        .join("\n")
        .parse()
        .unwrap_or_default();
    let failed = said.get("state").and_then(|s| s.as_str()) == Some("failed");
    let reason = said.get("reason").and_then(|r| r.as_str());
    JoinStatus {
        boot_id,
        joined,
        begun: joined || stage == "begun" || stage == "entered",
        entered: stage == "entered",
        unit: match unit.as_str() {
            "inactive" => JoinUnit::Inactive,
            "activating" => JoinUnit::Activating,
            "active" => JoinUnit::Active,
            "failed" => JoinUnit::Failed,
            _ => JoinUnit::Unknown,
        },
        reason: reason.filter(|_| failed).map(printable),
    }
}

/// An installed machine, pinned to its own host key.
pub(crate) struct Machine {
    name: NodeName,
    connection: Connection,
}

impl Machine {
    pub(crate) fn new(
        name: &NodeName,
        address: Ipv4Addr,
        host_keys: &HostKeys,
        identity: &Path,
    ) -> Result<Self, Failure> {
        let permanent = |message: String| Failure::new(FailureKind::Permanent, message);
        let key = host_keys
            .public(name)
            .map_err(|e| permanent(e.to_string()))?
            .ok_or_else(|| permanent(format!("no host key was made for {name}")))?;
        let endpoint = Endpoint::root(name.as_str(), IpAddr::V4(address), key);
        let connection = Connection::prepare(endpoint, identity).map_err(SshError::into_failure)?;
        Ok(Self {
            name: name.clone(),
            connection,
        })
    }

    /// Runs a shell's text. What it does can be repeated, so that a session that broke is no more
    /// than a machine that could not be reached.
    async fn run(&self, command: RemoteCommand) -> Result<Output, Failure> {
        Box::pin(self.connection.run(command))
            .await
            .map_err(|error| {
                let mut failure = error.into_failure();
                if failure.kind == FailureKind::Ambiguous {
                    failure.kind = FailureKind::Transient;
                }
                failure
            })
    }

    /// [`Self::run`], with any other exit code than 0 a failure.
    async fn succeed(&self, command: RemoteCommand) -> Result<String, Failure> {
        let output = self.run(command).await?;
        if output.code == 0 {
            return Ok(output.stdout);
        }
        let message = format!("a command on {} failed", self.name);
        Err(Failure::new(FailureKind::Transient, message).with_command(output.failed_command()))
    }

    /// The cluster's credentials, as a server keeps them for its administrator.
    pub(crate) async fn access(&self) -> Result<Access, Failure> {
        let command = RemoteCommand::new(["sh", "-c", &print_kubeconfig()], ASK_TIMEOUT)
            .shown_as(&["cat", KUBECONFIG]);
        let output = self.run(command).await?;
        if output.code == NO_FILE {
            return Err(Failure::new(
                FailureKind::Transient,
                format!("{} has no credentials of a cluster yet", self.name),
            ));
        }
        if output.code != 0 {
            let message = format!("the credentials on {} can't be read", self.name);
            let failure = Failure::new(FailureKind::Transient, message);
            return Err(failure.with_command(output.failed_command()));
        }
        Access::of_kubeconfig(&SecretString::from(output.stdout)).map_err(KubeError::into_failure)
    }

    /// How far the machine's part of the cluster is.
    pub(crate) async fn status(&self) -> Result<JoinStatus, Failure> {
        let command = RemoteCommand::new(["sh", "-c", &print_status()], ASK_TIMEOUT).shown_as(&[
            "systemctl",
            "show",
            JOIN_UNIT,
        ]);
        Ok(status_of(&self.succeed(command).await?))
    }

    /// Starts the machine's part of the cluster, without waiting for it.
    pub(crate) async fn start_join(&self) -> Result<(), Failure> {
        let unit = format!("{JOIN_UNIT}.service");
        // A unit that has failed, or has once succeeded, is started again all the same.
        let start = format!(
            "systemctl reset-failed {unit} 2>/dev/null; systemctl restart --no-block {unit}"
        );
        let command = RemoteCommand::new(["sh", "-c", &start], ASK_TIMEOUT).shown_as(&[
            "systemctl",
            "restart",
            "--no-block",
            &unit,
        ]);
        let output = self.run(command).await?;
        match output.code {
            0 => Ok(()),
            // systemctl(1): the unit isn't loaded.
            5 => Err(Failure::new(
                FailureKind::Permanent,
                format!(
                    "the system of {} has no unit that joins a cluster",
                    self.name
                ),
            )
            .with_command(output.failed_command())
            .with_hint(
                "Build its system with undercroft's modules and kubernetes in the inventory.",
            )),
            _ => Err(Failure::new(
                FailureKind::Transient,
                format!("{} can't start its part of the cluster", self.name),
            )
            .with_command(output.failed_command())),
        }
    }

    /// Starts the machine's kubelet again, where it runs: it registers only when it starts.
    pub(crate) async fn restart_kubelet(&self) -> Result<(), Failure> {
        let restart = "for unit in k3s kubelet
do systemctl is-active --quiet $unit.service && systemctl restart --no-block $unit.service
done
exit 0";
        let command = RemoteCommand::new(["sh", "-c", restart], ASK_TIMEOUT).shown_as(&[
            "systemctl",
            "restart",
            "--no-block",
            "k3s.service or kubelet.service",
        ]);
        self.succeed(command).await.map(drop)
    }

    /// Stops the machine's kubelet. Its containers run on.
    pub(crate) async fn stop_kubelet(&self) -> Result<(), Failure> {
        let words = ["systemctl", "stop", "kubelet.service"];
        let command = RemoteCommand::new(words, ASK_TIMEOUT);
        self.succeed(command).await.map(drop)
    }

    /// Hands the machine what only the controller knows, in a file that its unit reads.
    pub(crate) async fn hand_over(&self, env: SecretString) -> Result<(), Failure> {
        let command = RemoteCommand::new(["sh", "-c", &take_join_env()], ASK_TIMEOUT)
            .shown_as(&["install", JOIN_ENV])
            .with_secret(env);
        self.succeed(command).await.map(drop)
    }

    /// A token of kubeadm's for one join.
    pub(crate) async fn kubeadm_token(&self) -> Result<String, Failure> {
        let words = ["kubeadm", "token", "create", "--ttl", "30m"];
        let token = self.succeed(RemoteCommand::new(words, ASK_TIMEOUT)).await?;
        let token = token.trim().to_owned();
        let is_token = token.len() == 23
            && token.split_once('.').is_some_and(|(a, b)| {
                let plain = |text: &str| {
                    text.bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
                };
                a.len() == 6 && b.len() == 16 && plain(a) && plain(b)
            });
        if is_token {
            return Ok(token);
        }
        Err(Failure::new(
            FailureKind::Transient,
            format!("kubeadm on {} gave no token", self.name),
        ))
    }

    /// The members of etcd, as this server knows them.
    pub(crate) async fn etcd(&self) -> Result<EtcdMembers, Failure> {
        let list = self.etcdctl("exec etcdctl member list -w json", 0).await?;
        // It ends with 1 where a member isn't healthy, and tells of all the same.
        let health = "exec etcdctl endpoint health --cluster -w json";
        let health = self.etcdctl(health, 1).await?;
        etcd_members(&list, Some(&health)).ok_or_else(|| {
            let message = format!("etcd on {} gave no list of its members", self.name);
            Failure::new(FailureKind::Transient, message)
        })
    }

    /// Removes a member.
    pub(crate) async fn remove_member(&self, id: u64) -> Result<(), Failure> {
        self.etcdctl(&format!("exec etcdctl member remove {id:x}"), 0)
            .await
            .map(drop)
    }

    async fn etcdctl(&self, line: &str, code_max: i32) -> Result<String, Failure> {
        let script = with_etcdctl(line);
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        let command = RemoteCommand::new(["sh", "-c", &script], ETCD_TIMEOUT).shown_as(&words);
        let output = self.run(command).await?;
        if output.code <= code_max {
            return Ok(output.stdout);
        }
        let message = format!("etcd on {} can't be asked", self.name);
        Err(Failure::new(FailureKind::Transient, message).with_command(output.failed_command()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_whatever_the_unit_has_said() {
        let failed = "boot-1\napart\nfailed\n{\"state\": \"failed\", \"reason\": \"no token\"}\n";
        let status = status_of(failed);
        assert_eq!(status.boot_id, "boot-1");
        assert!(!status.joined && !status.begun);
        assert_eq!(status.unit, JoinUnit::Failed);
        assert_eq!(status.reason.as_deref(), Some("no token"));
        // What an earlier try has said isn't the reason of one that runs.
        let joining = "boot-1\njoined\nactivating\n{\"state\": \"joining\", \"reason\": \"\"}";
        let status = status_of(joining);
        assert!(status.joined && status.begun && status.reason.is_none());
        let begun = status_of("boot-1\nbegun\nfailed\n");
        assert!(begun.begun && !begun.joined && !begun.entered);
        let entered = status_of("boot-1\nentered\nfailed\n");
        assert!(entered.begun && entered.entered && !entered.joined);
        let nothing = status_of("boot-1\napart\ninactive\n");
        assert!(!nothing.joined && nothing.reason.is_none());
        let nothing = status_of("");
        assert_eq!(
            (nothing.boot_id.as_str(), nothing.unit),
            ("", JoinUnit::Unknown)
        );
    }
}
