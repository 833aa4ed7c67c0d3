//! A machine of namespaces: it has a network, processes and file systems of its own, an SSH server,
//! and a part of systemd.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// How long a machine may take to boot, which is some shell.
const BOOT_WAIT: Duration = Duration::from_secs(30);
/// The lines of a log that a test that has failed shows.
const LOG_LINES: usize = 60;

/// What a machine is.
pub(crate) struct Spec<'a> {
    pub(crate) name: &'a str,
    pub(crate) address: Ipv4Addr,
    /// The length of its network's prefix.
    pub(crate) prefix_len: u8,
    /// Where the controller is, which its packets leave by.
    pub(crate) controller: Ipv4Addr,
    pub(crate) host_key: &'a str,
    pub(crate) authorized_key: &'a str,
    /// The shell of its unit that joins, with what its module puts before it.
    pub(crate) join: String,
    /// The shell of its `cluster-leave`.
    pub(crate) leave: String,
    /// Its files, by their paths: below `etc` or `run`.
    pub(crate) files: Vec<(String, String)>,
    pub(crate) system: System,
}

/// What a distribution has on its machines.
pub(crate) struct System {
    /// Programs of its PATH, by their names.
    pub(crate) programs: Vec<(&'static str, PathBuf)>,
    /// Those of its PATH that are played, with their shell.
    pub(crate) played: Vec<(&'static str, String)>,
    /// Shell that makes more of its file systems, in the folder that has `etc` and `run`.
    pub(crate) fill: String,
    /// Shell that starts what runs from its boot on.
    pub(crate) beside: String,
    /// The unit by which it is a member.
    pub(crate) service: Service,
}

/// A unit that makes a machine a member of its cluster.
pub(crate) struct Service {
    /// Its name without `.service`. Its process says what it says in a log of that name.
    pub(crate) name: &'static str,
    /// Shell that fails where the unit's conditions don't hold.
    pub(crate) conditions: &'static str,
    /// Shell that runs for as long as the unit does, in a process group of its own.
    pub(crate) run: String,
    /// How long its processes may take to end when they are asked to, in tenths of a second; 0 kills
    /// them at once.
    pub(crate) stop_tenths: u32,
}

/// A machine that runs.
pub(crate) struct Machine {
    pub(crate) folder: PathBuf,
    /// The process that holds the namespaces; all of the machine ends with it.
    holder: Child,
    /// The first process inside.
    init: u32,
    service: &'static str,
}

impl Machine {
    /// Boots one, with its cable in the bridge `rack0`.
    pub(crate) fn boot(folder: &Path, spec: &Spec<'_>) -> Self {
        lay_out(folder, spec);
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
            service: spec.system.service.name,
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
        Command::new("nsenter")
            .args(["--target", &self.init.to_string()])
            .args(["--net", "--mount", "--uts", "--pid", "bash", "-c", shell])
            .env("PATH", path_of(&self.folder))
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

    /// Everything that the unit by which it is a member has said.
    pub(crate) fn service_log(&self) -> String {
        self.log(&format!("{}.log", self.service))
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    /// The end of the machine's logs, for a test that has failed.
    pub(crate) fn logs(&self) -> String {
        let mut logs = String::new();
        for name in ["console", "unit.log", &format!("{}.log", self.service)] {
            let text = self.log(name);
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..);
            logs.push_str(&format!(
                "==> {name}\n{}\n",
                tail.unwrap_or_default().join("\n")
            ));
        }
        let pods = self.run("tail -n 15 /run/pods/*.log 2>/dev/null");
        logs + &String::from_utf8_lossy(&pods.stdout)
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

fn path_of(folder: &Path) -> String {
    format!("{}/bin:/usr/sbin:/usr/bin:/sbin:/bin", folder.display())
}

/// Writes what the machine boots from.
fn lay_out(folder: &Path, spec: &Spec<'_>) {
    let at = folder.display();
    let Spec { system, .. } = spec;
    for name in ["bin", "root", "files/etc", "files/run/secrets"] {
        fs::create_dir_all(folder.join(name)).unwrap();
    }
    let write = |name: &str, text: &str, mode: u32| {
        let file = folder.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    };
    for (name, program) in &system.programs {
        symlink(program, folder.join("bin").join(name)).unwrap();
    }
    for (name, shell) in &system.played {
        write(
            &format!("bin/{name}"),
            &format!("#!/bin/sh\n{shell}\n"),
            0o755,
        );
    }
    for (path, text) in &spec.files {
        write(&format!("files/{path}"), text, 0o600);
    }
    write("host_key", spec.host_key, 0o600);
    write("authorized_keys", spec.authorized_key, 0o600);
    write("boot_id", &format!("boot-of-{}\n", spec.name), 0o644);
    write("unit", "inactive\n", 0o644);
    write("join.sh", &spec.join, 0o755);
    write("leave.sh", &spec.leave, 0o755);
    write("service.sh", &system.service.run, 0o755);
    write("bin/systemctl", &systemctl(folder, &system.service), 0o755);
    write(
        "ssh",
        &format!(
            "#!/bin/sh\nexport PATH={}\nexec sh -c \"$SSH_ORIGINAL_COMMAND\"\n",
            path_of(folder)
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
}

/// The machine's first process: file systems of its own over the host's, and its network.
fn init(folder: &Path, spec: &Spec<'_>) -> String {
    let at = folder.display();
    let Spec {
        name,
        address,
        prefix_len,
        controller,
        ..
    } = spec;
    let System { fill, beside, .. } = &spec.system;
    format!(
        "set -e
mount -t tmpfs tmpfs {at}/root
cd {at}/root
mkdir -p etc/ssh etc/undercroft run/sshd run/undercroft var-lib
for each in passwd group shadow nsswitch.conf ld.so.cache alternatives; do
    [ ! -e /etc/$each ] || cp -a /etc/$each etc/
done
cp -a {at}/files/etc/. etc/
cp -a {at}/files/run/. run/
{fill}
mount --bind etc /etc
mount --bind run /run
mount --bind var-lib /var/lib
mount --bind {at}/boot_id /proc/sys/kernel/random/boot_id
hostname {name}
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set lo up
until ip link set eth0 up 2>/dev/null; do sleep 0.02; done
ip address add {address}/{prefix_len} dev eth0
ip route add default via {controller}
{beside}
exec /usr/sbin/sshd -D -e -f {at}/sshd_config
"
    )
}

/// The part of systemd that the machine's programs ask for. A unit is started where its conditions
/// hold, and ends with all of its processes.
fn systemctl(folder: &Path, service: &Service) -> String {
    let at = folder.display();
    let Service {
        name,
        conditions,
        stop_tenths,
        ..
    } = service;
    let path = path_of(folder);
    format!(
        "#!/bin/bash
export PATH={path}
is_active() {{ [ -e {at}/$1.pid ] && kill -0 \"$(cat {at}/$1.pid)\" 2>/dev/null; }}
stop() {{
    if is_active $1; then
        if [ {stop_tenths} != 0 ]; then
            kill -TERM -- -\"$(cat {at}/$1.pid)\"
            for _ in $(seq {stop_tenths}); do pgrep -g \"$(cat {at}/$1.pid)\" >/dev/null || break; sleep 0.1; done
        fi
        kill -KILL -- -\"$(cat {at}/$1.pid)\" 2>/dev/null
    fi
    rm -f {at}/$1.pid
}}
start_member() {{
    is_active {name} && return
    {conditions} || return 0
    setsid bash {at}/service.sh >>{at}/{name}.log 2>&1 </dev/null &
    echo $! >{at}/{name}.pid
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
*\" is-active \"*{name}*) is_active {name} && echo active || {{ echo inactive; exit 3; }} ;;
*\" is-active \"*) echo inactive; exit 3 ;;
*\" restart \"*undercroft-cluster-join*) start_join ;;
*\" stop \"*undercroft-cluster-join*) stop join; echo inactive >{at}/unit ;;
*\" start \"*{name}*) start_member ;;
*\" restart \"*{name}*) stop {name}; start_member ;;
*\" stop \"*{name}*) stop {name} ;;
*) echo \"systemctl $*: not played\" >&2; exit 1 ;;
esac
"
    )
}
