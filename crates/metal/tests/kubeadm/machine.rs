//! A machine of namespaces.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use undercroft_testkit::{Missing, peer, program};

/// How long a machine may take to boot, which is some shell.
const BOOT_WAIT: Duration = Duration::from_secs(30);
/// The programs of a server.
const PEERS: [&str; 6] = [
    "kubeadm",
    "etcd",
    "etcdctl",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

/// What has to be here for a machine.
pub(crate) fn needed() -> Result<(), Missing> {
    for name in PEERS {
        peer(name)?;
    }
    for (name, package) in [
        ("kubectl", "kubernetes-client"),
        ("jq", "jq"),
        ("curl", "curl"),
        ("losetup", "mount"),
        ("nsenter", "util-linux"),
        ("nix-instantiate", "nix-bin"),
    ] {
        program(name, package)?;
    }
    Ok(())
}

/// What a machine is.
pub(crate) struct Spec<'a> {
    pub(crate) name: &'a str,
    pub(crate) address: Ipv4Addr,
    pub(crate) host_key: &'a str,
    pub(crate) authorized_key: &'a str,
    /// The shell of its unit that joins, with what its module puts before it.
    pub(crate) join: String,
    /// The shell of its `cluster-leave`.
    pub(crate) leave: String,
    /// Its files, by their paths.
    pub(crate) files: Vec<(String, String)>,
}

/// A machine that runs.
pub(crate) struct Machine {
    pub(crate) folder: PathBuf,
    /// The process that holds the namespaces; all of the machine ends with it.
    holder: Child,
    /// The first process inside.
    init: u32,
}

impl Machine {
    /// Boots one, with its cable in the bridge `rack0`.
    pub(crate) fn boot(folder: &Path, spec: &Spec<'_>) -> Self {
        let at = folder.display();
        for name in ["bin", "root"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        let write = |name: &str, text: &str, mode: u32| {
            let file = folder.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        };
        for name in PEERS {
            let link = folder.join("bin").join(name);
            std::os::unix::fs::symlink(peer(name).unwrap(), link).unwrap();
        }
        write("host_key", spec.host_key, 0o600);
        write("authorized_keys", spec.authorized_key, 0o600);
        write("boot_id", &format!("boot-of-{}\n", spec.name), 0o644);
        write("unit", "inactive\n", 0o644);
        write("join.sh", &spec.join, 0o755);
        write("leave.sh", &spec.leave, 0o755);
        for (path, text) in &spec.files {
            write(&format!("files/{path}"), text, 0o600);
        }
        write("bin/kubelet", KUBELET, 0o755);
        write("bin/systemctl", &systemctl(folder), 0o755);
        write(
            "bin/journalctl",
            "#!/bin/sh\necho the kubelet says nothing\n",
            0o755,
        );
        write(
            "ssh",
            &format!(
                "#!/bin/sh\nexport PATH={at}/bin:/usr/sbin:/usr/bin:/sbin:/bin\nexec sh -c \"$SSH_ORIGINAL_COMMAND\"\n"
            ),
            0o755,
        );
        write(
            "sshd_config",
            &format!(
                "ListenAddress {}:22\nHostKey {at}/host_key\nAuthorizedKeysFile {at}/authorized_keys\nForceCommand {at}/ssh\nPidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n",
                spec.address
            ),
            0o644,
        );
        write("init", &init(folder, spec), 0o755);
        let log = fs::File::create(folder.join("console")).unwrap();
        let holder = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--uts",
                "--pid",
                "--fork",
                "--kill-child",
            ])
            .args(["--mount-proc", "sh"])
            .arg(folder.join("init"))
            .env("UNDERCROFT_TEST_EXE", std::env::current_exe().unwrap())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let init = wait_for(BOOT_WAIT, "its first process", || {
            fs::read_to_string(&children).ok()?.trim().parse().ok()
        });
        let machine = Self {
            folder: folder.to_owned(),
            holder,
            init,
        };
        let cable = format!("to-{}", spec.name);
        // The first process leaves its parent's namespaces a moment after it has begun.
        wait_for(BOOT_WAIT, "its network", || {
            let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
            (namespace(&init.to_string())? != namespace("self")?).then_some(())
        });
        run(&format!(
            "ip link add {cable} type veth peer name eth0 netns {init} && ip link set {cable} master rack0 up"
        ));
        wait_for(BOOT_WAIT, "its SSH server", || {
            std::net::TcpStream::connect((spec.address, 22)).ok()
        });
        machine
    }

    /// Runs shell on the machine.
    pub(crate) fn run(&self, shell: &str) -> Output {
        let path = format!(
            "{}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            self.folder.display()
        );
        Command::new("nsenter")
            .args(["--target", &self.init.to_string()])
            .args(["--net", "--mount", "--uts", "--pid", "bash", "-c", shell])
            .env("PATH", path)
            .output()
            .unwrap()
    }

    /// What shell that succeeds prints.
    #[track_caller]
    pub(crate) fn says(&self, shell: &str) -> String {
        let output = self.run(shell);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{shell}: {said}{errors}");
        said
    }

    /// Everything that the machine's logs say, for a test that has failed.
    pub(crate) fn logs(&self) -> String {
        let mut logs = String::new();
        for name in ["console", "unit.log", "kubelet.log"] {
            let text = fs::read_to_string(self.folder.join(name)).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(60).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            logs.push_str(&format!("==> {name}\n{}\n", tail.join("\n")));
        }
        let pods = self.run("tail -n 15 /run/pods/*.log 2>/dev/null");
        logs.push_str(&String::from_utf8_lossy(&pods.stdout));
        logs
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Runs shell before the machines.
#[track_caller]
pub(crate) fn run(shell: &str) {
    let output = Command::new("sh").args(["-c", shell]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shell}: {errors}");
}

fn wait_for<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "a machine has not shown {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// kubeadm asks for its version alone.
const KUBELET: &str = "#!/bin/sh\necho Kubernetes v1.34.4\n";

/// The machine's first process: file systems of its own over the host's, and its network.
fn init(folder: &Path, spec: &Spec<'_>) -> String {
    let at = folder.display();
    let Spec { name, address, .. } = spec;
    let containerd = crate::play("containerd");
    format!(
        "set -e
mount -t tmpfs tmpfs {at}/root
cd {at}/root
mkdir -p etc/ssh run/sshd var-lib var-log
for each in passwd group shadow nsswitch.conf ld.so.cache alternatives; do
    [ ! -e /etc/$each ] || cp -a /etc/$each etc/
done
cp -a {at}/files/etc/. etc/
# Servers have their administrator's file under one name (nix/modules/kubernetes/host.nix).
[ ! -e etc/undercroft/kubeadm/init.yaml ] || ln -s /etc/kubernetes/admin.conf etc/undercroft/kubeconfig
mkdir -p run/secrets
cp -a {at}/files/run/. run/
mount --bind etc /etc
mount --bind run /run
mount --bind var-lib /var/lib
mount --bind {at}/boot_id /proc/sys/kernel/random/boot_id
hostname {name}
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set lo up
until ip link set eth0 up 2>/dev/null; do sleep 0.02; done
ip address add {address}/24 dev eth0
ip route add default via 10.44.0.2
{containerd} &
exec /usr/sbin/sshd -D -e -f {at}/sshd_config
"
    )
}

/// The part of systemd that the machine's programs ask for. A unit is started where its conditions
/// hold; pods are no part of it.
fn systemctl(folder: &Path) -> String {
    let at = folder.display();
    let kubelet = crate::play("kubelet");
    format!(
        "#!/bin/bash
export PATH={at}/bin:/usr/sbin:/usr/bin:/sbin:/bin
is_active() {{ [ -e {at}/$1.pid ] && kill -0 \"$(cat {at}/$1.pid)\" 2>/dev/null; }}
stop() {{ ! is_active $1 || kill -KILL -- -\"$(cat {at}/$1.pid)\"; rm -f {at}/$1.pid; }}
start_kubelet() {{
    is_active kubelet && return
    [ -e /var/lib/undercroft/cluster/joined ] || [ -e /run/undercroft/cluster/starting ] ||
        [ -e /etc/kubernetes/manifests/etcd.yaml ] || return 0
    set -a
    [ ! -e /var/lib/kubelet/kubeadm-flags.env ] || . /var/lib/kubelet/kubeadm-flags.env
    set +a
    setsid {kubelet} >>{at}/kubelet.log 2>&1 </dev/null &
    echo $! >{at}/kubelet.pid
}}
start_join() {{
    stop join
    echo activating >{at}/unit
    setsid bash -c '
        umask 077
        set -a
        [ ! -e /run/undercroft/cluster/join.env ] || . /run/undercroft/cluster/join.env
        set +a
        bash {at}/join.sh && echo active >{at}/unit || echo failed >{at}/unit' >>{at}/unit.log 2>&1 </dev/null &
    echo $! >{at}/join.pid
}}
words=\" $* \"
case $words in
*\" daemon-reload \"* | *\" is-enabled \"* | *\" reset-failed \"*) ;;
*\" show \"*undercroft-cluster-join*) cat {at}/unit ;;
*\" status \"*) echo Loaded: loaded ;;
*\" is-active kubelet \"*) is_active kubelet && echo active || {{ echo inactive; exit 3; }} ;;
*\" is-active \"*) echo inactive; exit 3 ;;
*\" restart \"*undercroft-cluster-join*) start_join ;;
*\" stop \"*undercroft-cluster-join*) stop join; echo inactive >{at}/unit ;;
*\" start \"*kubelet*) start_kubelet ;;
*\" restart \"*kubelet*) stop kubelet; start_kubelet ;;
*\" stop \"*kubelet*) stop kubelet ;;
*) echo \"systemctl $*: not played\" >&2; exit 1 ;;
esac
"
    )
}
