//! A machine of namespaces.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use undercroft_testkit::peer;

/// How long a machine may take to boot, which is some shell.
const BOOT_WAIT: Duration = Duration::from_secs(30);

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
    /// The words of k3s' unit after the program.
    pub(crate) k3s: Vec<String>,
    /// The variable that k3s' unit has by default.
    pub(crate) server: String,
    /// A line of its hosts file.
    pub(crate) hosts: String,
    /// Its secrets, by their names.
    pub(crate) secrets: Vec<(String, String)>,
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
        symlink(crate::k3s().unwrap(), folder.join("bin/k3s")).unwrap();
        symlink(peer("etcdctl").unwrap(), folder.join("bin/etcdctl")).unwrap();
        write("host_key", spec.host_key, 0o600);
        write("authorized_keys", spec.authorized_key, 0o600);
        write("boot_id", &format!("boot-of-{}\n", spec.name), 0o644);
        write("unit", "inactive\n", 0o644);
        write("join.sh", &spec.join, 0o755);
        write("leave.sh", &spec.leave, 0o755);
        write("server", &spec.server, 0o644);
        write("k3s.words", &spec.k3s.join("\n"), 0o644);
        for (name, value) in &spec.secrets {
            write(&format!("secrets/{name}"), value, 0o600);
        }
        write("bin/systemctl", &systemctl(folder), 0o755);
        write(
            "bin/journalctl",
            &format!("#!/bin/sh\ntail -n 3 {at}/k3s.log\n"),
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
            .args(["--net", "--mount", "--uts", "--pid", "--fork"])
            .args(["--kill-child", "--mount-proc", "sh"])
            .arg(folder.join("init"))
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

    /// Runs its `cluster-leave`.
    #[track_caller]
    pub(crate) fn leave(&self) {
        self.says(&format!("bash {}/leave.sh --wipe", self.folder.display()));
    }

    /// Everything that k3s has said.
    pub(crate) fn k3s_log(&self) -> String {
        fs::read_to_string(self.folder.join("k3s.log")).unwrap_or_default()
    }

    /// The end of the machine's logs, for a test that has failed.
    pub(crate) fn logs(&self) -> String {
        let mut logs = String::new();
        for name in ["console", "unit.log", "k3s.log"] {
            let text = fs::read_to_string(self.folder.join(name)).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            logs.push_str(&format!("==> {name}\n{}\n", tail.join("\n")));
        }
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

/// The machine's first process: file systems of its own over the host's, and its network.
fn init(folder: &Path, spec: &Spec<'_>) -> String {
    let at = folder.display();
    let Spec {
        name,
        address,
        hosts,
        ..
    } = spec;
    format!(
        "set -e
mount -t tmpfs tmpfs {at}/root
cd {at}/root
mkdir -p etc/undercroft run/sshd run/undercroft var-lib
for each in passwd group shadow nsswitch.conf ld.so.cache alternatives; do
    [ ! -e /etc/$each ] || cp -a /etc/$each etc/
done
printf '%s\\n' '127.0.0.1 localhost' '{hosts}' >etc/hosts
ln -s /etc/rancher/k3s/k3s.yaml etc/undercroft/kubeconfig
cp -a {at}/secrets run/secrets
mount --bind etc /etc
mount --bind run /run
mount --bind var-lib /var/lib
mount --bind {at}/boot_id /proc/sys/kernel/random/boot_id
hostname {name}
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set lo up
until ip link set eth0 up 2>/dev/null; do sleep 0.02; done
ip address add {address}/22 dev eth0
ip route add default via 10.20.0.2
exec /usr/sbin/sshd -D -e -f {at}/sshd_config
"
    )
}

/// The part of systemd that the machine's programs ask for. A unit is started where its conditions
/// hold, is started again when it ends, and ends with all of its processes.
fn systemctl(folder: &Path) -> String {
    let at = folder.display();
    format!(
        "#!/bin/bash
export PATH={at}/bin:/usr/sbin:/usr/bin:/sbin:/bin
is_active() {{ [ -e {at}/$1.pid ] && kill -0 \"$(cat {at}/$1.pid)\" 2>/dev/null; }}
stop() {{
    if is_active $1; then
        kill -TERM -- -\"$(cat {at}/$1.pid)\"
        for _ in $(seq 100); do pgrep -g \"$(cat {at}/$1.pid)\" >/dev/null || break; sleep 0.1; done
        kill -KILL -- -\"$(cat {at}/$1.pid)\" 2>/dev/null
    fi
    rm -f {at}/$1.pid
}}
start_k3s() {{
    is_active k3s && return
    [ -e /var/lib/undercroft/cluster/joined ] || [ -e /run/undercroft/cluster/starting ] || return 0
    setsid bash -c '
        trap \"exit 0\" TERM
        while :; do
            UNDERCROFT_SERVER=$(cat {at}/server)
            [ ! -e /run/undercroft/cluster/join.env ] || . /run/undercroft/cluster/join.env
            mapfile -t words < {at}/k3s.words
            k3s \"${{words[@]//@SERVER@/$UNDERCROFT_SERVER}}\" &
            wait $!
            echo \"k3s ended: $?\"
            sleep 1
        done' >>{at}/k3s.log 2>&1 </dev/null &
    echo $! >{at}/k3s.pid
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
*\" reset-failed \"*) ;;
*\" show \"*undercroft-cluster-join*) cat {at}/unit ;;
*\" restart \"*undercroft-cluster-join*) start_join ;;
*\" stop \"*undercroft-cluster-join*) stop join; echo inactive >{at}/unit ;;
*\" is-active \"*k3s*) is_active k3s ;;
*\" is-active \"*) exit 3 ;;
*\" start \"*k3s*) start_k3s ;;
*\" restart \"*k3s*) stop k3s; start_k3s ;;
*\" stop \"*k3s*) stop k3s ;;
*) echo \"systemctl $*: not played\" >&2; exit 1 ;;
esac
"
    )
}
