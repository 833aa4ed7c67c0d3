//! Every single way out that is known, tried by a job, each with what stopped it.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

use undercroft_sandbox::JobEnd;

use crate::support::Site;

/// What stops a trial, and so what the kernel answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    /// The file isn't in the job's mounts.
    Mounts,
    /// Its mounts can only be read.
    ReadOnly,
    /// Landlock has no rule for it.
    Landlock,
    /// The call isn't in seccomp's list.
    Calls,
    /// The call is, but not with these arguments.
    Arguments,
    /// The processes are others.
    Processes,
    /// The network is another.
    Network,
    /// The job has no rights of that kind.
    Rights,
}

impl Stop {
    fn answers(self) -> &'static [&'static str] {
        match self {
            Self::Mounts => &["No such file or directory"],
            // Landlock is asked before the mount.
            Self::ReadOnly => &[
                "Read-only file system",
                "Permission denied",
                "Invalid cross-device link",
            ],
            Self::Landlock => &["Permission denied"],
            Self::Calls => &["Function not implemented", "killed"],
            Self::Arguments => &["Operation not permitted"],
            Self::Processes => &["No such process", "No such file or directory"],
            Self::Network => &["Connection refused"],
            Self::Rights => &["Operation not permitted", "Permission denied"],
        }
    }
}

use Stop::{Arguments, Calls, Landlock, Mounts, Network, Processes, ReadOnly, Rights};

/// Each trial of `hostile.c`, and what stops it.
const TRIALS: &[(&str, Stop)] = &[
    ("the owner's file", Mounts),
    ("the owner's home", Mounts),
    ("people's homes", Mounts),
    ("/etc/passwd", Mounts),
    ("/etc/machine-id", Mounts),
    ("/run", Mounts),
    ("/var", Mounts),
    ("/sys", Mounts),
    ("control groups", Mounts),
    ("/nix", Mounts),
    ("where mounts lie on the owner's disk", Landlock),
    ("the environment of a process", Landlock),
    ("the environment of an owner's process", Processes),
    ("the kernel's log", Mounts),
    ("the machine's memory", Mounts),
    ("a terminal", Mounts),
    ("new terminals", Mounts),
    ("graphics", Mounts),
    ("virtual machines", Mounts),
    ("mounts without privileges", Mounts),
    ("the sandbox's own program", Landlock),
    ("the input", ReadOnly),
    ("the program's rights", ReadOnly),
    ("what dumps are given to", Landlock),
    ("a folder at the top", ReadOnly),
    ("a file beside the input", ReadOnly),
    ("the input's rights", ReadOnly),
    ("the input removed", ReadOnly),
    ("the input under another name", ReadOnly),
    ("the input moved", ReadOnly),
    ("a pipe with a name", Calls),
    ("a device", Calls),
    ("a link out of the output", Mounts),
    ("the owner's socket", Mounts),
    ("an agent of keys", Mounts),
    ("D-Bus", Mounts),
    ("Docker", Mounts),
    ("tailscaled", Mounts),
    ("the compositor", Mounts),
    ("the owner's abstract socket", Network),
    ("a port of the loopback", Arguments),
    ("the metadata address", Arguments),
    ("the overlay", Arguments),
    ("a socket of IPv6", Arguments),
    ("netlink", Arguments),
    ("packets", Arguments),
    ("the hypervisor's socket", Arguments),
    ("the kernel's crypto", Arguments),
    ("a signal to an owner's process", Processes),
    ("ptrace", Calls),
    ("another's memory", Calls),
    ("another's open files", Calls),
    ("io_uring", Calls),
    ("bpf", Calls),
    ("userfaultfd", Calls),
    ("perf_event_open", Calls),
    ("keyctl", Calls),
    ("add_key", Calls),
    ("mount", Calls),
    ("the new mounts", Calls),
    ("umount", Calls),
    ("pivot_root", Calls),
    ("chroot", Calls),
    ("setns", Calls),
    ("unshare", Calls),
    ("a nested user namespace", Arguments),
    ("a nested mount namespace", Arguments),
    ("a nested network", Arguments),
    ("a nested user namespace by clone3", Calls),
    ("kexec_load", Calls),
    ("init_module", Calls),
    ("finit_module", Calls),
    ("reboot", Calls),
    ("swapon", Calls),
    ("the clock", Calls),
    ("the machine's name", Calls),
    ("the kernel's log by call", Calls),
    ("a file by its handle", Calls),
    ("becoming root", Calls),
    ("a filter of its own", Calls),
    ("out of the idle class", Calls),
    ("a better nice", Rights),
    ("hidden from a look", Arguments),
    ("a command line of its own making", Arguments),
    ("typing for the owner", Arguments),
    ("more open files", Rights),
    #[cfg(target_arch = "x86_64")]
    ("a call of the 32-bit kernel", Calls),
    #[cfg(target_arch = "x86_64")]
    ("a call of the x32 kernel", Calls),
];

#[tokio::test]
async fn every_way_out_is_stopped_by_what_should_stop_it() {
    let Some(site) = Site::open().await else {
        return;
    };
    // Bait that is there for anybody outside.
    let bait = site.folder.path().join("secret");
    fs::write(&bait, "the owner's").unwrap();
    let socket = site.folder.path().join("agent.sock");
    let _agent = UnixListener::bind(&socket).unwrap();
    let name = format!("undercroft-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = port.local_addr().unwrap().port().to_string();
    let own = std::process::id().to_string();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();

    let mut spec = site.spec("try", &["try"]);
    spec.arguments
        .extend([path(&bait), path(&socket), name, own, number]);
    spec.inputs = vec![site.input("text", "input")];
    let running = site.yard.start(spec).await.unwrap();
    let end = running.wait().await;
    let log = running.log_tail();
    assert_eq!(end, JobEnd::Exited { code: 0 }, "{log}");

    let said: BTreeMap<&str, &str> = log.lines().filter_map(|l| l.split_once(": ")).collect();
    let mut wrong = Vec::new();
    for (trial, stop) in TRIALS {
        let answer = said.get(trial).copied().unwrap_or("not tried");
        println!("{trial:<40} {answer:<30} {stop:?}");
        if !stop.answers().contains(&answer) {
            wrong.push(format!(
                "{trial}: {answer}, and {stop:?} should have stopped it"
            ));
        }
    }
    let known: Vec<&str> = TRIALS.iter().map(|(trial, _)| *trial).collect();
    let others = said.keys().filter(|trial| !known.contains(trial));
    wrong.extend(others.map(|trial| format!("{trial}: no verdict is known of it")));
    assert_eq!(wrong, [""; 0], "{log}");
    running.wipe().await.unwrap();
}

#[tokio::test]
async fn a_job_begins_with_nothing_of_its_owners() {
    let Some(site) = Site::open().await else {
        return;
    };
    // What is open in the daemon without having been meant to be inherited by anybody.
    let leak = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    let running = site
        .yard
        .start(site.spec("facts", &["facts"]))
        .await
        .unwrap();
    running.wait().await;
    assert!(running.landlock_abi() >= 1);
    let log = running.log_tail();
    for line in [
        "standard input: 0 bytes",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "program: /job/program",
        "host: job",
        "user: 65534",
        "session: own",
    ] {
        assert!(
            log.lines().any(|one| one == line),
            "{line:?} is missing in\n{log}"
        );
    }
    let environment: Vec<_> = log
        .lines()
        .filter_map(|l| l.strip_prefix("environment: "))
        .collect();
    assert_eq!(
        environment,
        ["HOME=/scratch", "TMPDIR=/scratch", "PWD=/scratch"],
        "{log}"
    );
    assert!(!log.contains("open: "), "{log}");
}
