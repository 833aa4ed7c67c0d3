//! seccomp: which system calls are left.
//!
//! What isn't in the list is answered as if the kernel didn't have it (`ENOSYS`), which programs are made for: they fall
//! back, as from `clone3`, whose flags no filter can see, to `clone`. So calls that a later kernel brings are not there
//! either, nor those of other ABIs of the same processor, whose numbers are others.
//!
//! By their reason, these are absent: ways into the kernel that had many holes (`io_uring_*`, `bpf`, `userfaultfd`,
//! `perf_event_open`, `vmsplice`, `keyctl` and its kin), what looks into or changes others (`ptrace`, `process_vm_*`,
//! `pidfd_getfd`, `kcmp`), what changes the machine (`mount` and its kin, `unshare`, `setns`, `pivot_root`, `swapon`,
//! `reboot`, `kexec_*`, `*_module`, `clock_settime`, `quotactl`, `acct`, `syslog`), what leaves an idle class
//! (`sched_setscheduler`, `ioprio_set`), and what makes devices and pipes with names (`mknod`).

use std::{collections::BTreeMap, env};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

mod list;

/// Flags of `clone` that make namespaces.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// Requests that type on a terminal for whoever sits there, or change what they see (ioctl_tty(2), ioctl_console(2)).
const TERMINAL: [u64; 3] = [libc::TIOCSTI, libc::TIOCLINUX, libc::TIOCCONS];

/// Options of `prctl` that change what is seen from outside: what a job holds open, and where its memory, and with that its
/// command line, begins and ends (prctl(2)).
const OUTSIDE: [i32; 2] = [libc::PR_SET_DUMPABLE, libc::PR_SET_MM];

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Leaves what is in the list. What it starts inherits that.
pub(crate) fn give_up() -> Result<(), String> {
    let apply = || -> Result<(), seccompiler::Error> {
        let arguments = filter(by_arguments()?, libc::EPERM, true)?;
        let calls = filter(list::calls(), libc::ENOSYS, false)?;
        // The second forbids what the first is installed by, so it comes last.
        seccompiler::apply_filter(&arguments)?;
        seccompiler::apply_filter(&calls)
    };
    apply().map_err(|error| format!("seccomp: {error}"))
}

/// A filter whose rules name what is refused, or all that isn't.
fn filter(rules: Rules, errno: i32, is_refused: bool) -> Result<BpfProgram, seccompiler::Error> {
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    let (matched, otherwise) = if is_refused {
        (refuse, SeccompAction::Allow)
    } else {
        (SeccompAction::Allow, refuse)
    };
    let arch = TargetArch::try_from(env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, otherwise, matched, arch)?;
    Ok(BpfProgram::try_from(filter)?)
}

/// Calls that are there, but not with all arguments.
fn by_arguments() -> Result<Rules, seccompiler::Error> {
    let one = |index, op, value| -> Result<SeccompRule, seccompiler::Error> {
        let condition = SeccompCondition::new(index, Dword, op, value)?;
        Ok(SeccompRule::new(vec![condition])?)
    };
    let flag = |flag: &i32| {
        let flag = u64::from(flag.unsigned_abs());
        one(0, SeccompCmpOp::MaskedEq(flag), flag)
    };
    let request = |request: &u64| one(1, SeccompCmpOp::Eq, *request);
    let unix = u64::from(libc::AF_UNIX.unsigned_abs());
    let option = |option: &i32| one(0, SeccompCmpOp::Eq, u64::from(option.unsigned_abs()));
    Ok(Rules::from([
        (
            libc::SYS_clone,
            NAMESPACES.iter().map(flag).collect::<Result<_, _>>()?,
        ),
        (
            libc::SYS_ioctl,
            TERMINAL.iter().map(request).collect::<Result<_, _>>()?,
        ),
        (libc::SYS_socket, vec![one(0, SeccompCmpOp::Ne, unix)?]),
        (libc::SYS_socketpair, vec![one(0, SeccompCmpOp::Ne, unix)?]),
        (
            libc::SYS_prctl,
            OUTSIDE.iter().map(option).collect::<Result<_, _>>()?,
        ),
    ]))
}
