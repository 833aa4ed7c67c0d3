//! Inside of the sandbox: the order is read, what it names is compared, what isn't needed is given up.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Command, ExitCode},
};

use rustix::process::{Resource, Rlimit, setrlimit};
use undercroft_sandbox::{
    FileDigest,
    order::{BUILD, Checked, JobOrder, ORDER_BYTES_MAX, ORDER_VERSION, PROGRAM, Task, Word},
};

use crate::{REFUSED, component, confine, confine::Room, no::No, static_binary};

/// Reads the order and carries it out. What goes wrong is said to whoever gave it.
pub(crate) fn obey() -> ExitCode {
    let mut socket = match take_socket() {
        Ok(socket) => socket,
        Err(why) => {
            eprintln!("undercroft-job: {why}");
            return ExitCode::from(REFUSED);
        }
    };
    carry_out(&mut socket).unwrap_or_else(|no| {
        let (why, word) = match no {
            No::Refused(why) => (why.clone(), Word::Refused { why }),
            No::Unfit(why) => (why.clone(), Word::Unfit { why }),
        };
        if say(&mut socket, &word).is_err() {
            eprintln!("undercroft-job: {why}");
        }
        ExitCode::from(REFUSED)
    })
}

/// Takes the socket off standard input, so that no job has it: it closes when this becomes another program.
fn take_socket() -> Result<UnixStream, String> {
    let taken = || -> Result<OwnedFd, rustix::io::Errno> {
        let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        Ok(socket)
    };
    taken()
        .map(UnixStream::from)
        .map_err(|error| format!("can't take its orders: {error}"))
}

pub(crate) fn say(socket: &mut UnixStream, word: &Word) -> Result<(), String> {
    let mut line = serde_json::to_vec(word).map_err(|error| error.to_string())?;
    line.push(b'\n');
    socket
        .write_all(&line)
        .map_err(|error| format!("can't answer: {error}"))
}

fn carry_out(socket: &mut UnixStream) -> Result<ExitCode, No> {
    let mut text = Vec::new();
    (&*socket)
        .take(ORDER_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(|error| format!("can't read its order: {error}"))?;
    let order: JobOrder = serde_json::from_slice(&text)
        .map_err(|error| format!("the order can't be read: {error}"))?;
    if order.version != ORDER_VERSION {
        let is = order.version;
        return Err(No::Refused(format!(
            "the order is of version {is}, and this takes version {ORDER_VERSION}"
        )));
    }
    order.inputs.iter().try_for_each(compare)?;
    limit(&order)?;
    match &order.task {
        Task::Exec => become_program(socket, &order),
        Task::Build {
            builder,
            environment,
        } => become_builder(socket, &order, builder, environment),
        Task::Component { memory_bytes } => {
            let bytes = component::read(order.program)?;
            let landlock_abi = confine::give_up(order.landlock_abi_min, Room::Job)?;
            say(socket, &Word::Begins { landlock_abi })?;
            let ran = component::run(&bytes, &order.arguments, *memory_bytes);
            Ok(match ran {
                Ok(code) => code,
                Err(why) => {
                    say(socket, &Word::Trapped { why })?;
                    ExitCode::from(REFUSED)
                }
            })
        }
        Task::Probe => {
            let landlock_abi = confine::give_up(order.landlock_abi_min, Room::Job)?;
            say(socket, &Word::Begins { landlock_abi })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Compares the file that is then run, opened once: another can't be put in its place in between.
fn become_program(socket: &mut UnixStream, order: &JobOrder) -> Result<ExitCode, No> {
    let program = open(PROGRAM)?;
    let wanted = order.program.ok_or("no digest of the program")?;
    matches(PROGRAM, &program, wanted)?;
    // What can't be started is refused while it can still be said: afterwards this is the job.
    static_binary::check(&program).map_err(No::Unfit)?;
    let landlock_abi = confine::give_up(order.landlock_abi_min, Room::Job)?;
    say(socket, &Word::Begins { landlock_abi })?;
    let error = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .arg0("program")
        .args(&order.arguments)
        .exec();
    eprintln!("undercroft-job: the program can't be started: {error}");
    Ok(ExitCode::from(REFUSED))
}

/// What is built from was looked at before it was shown here, and can't be written to.
fn become_builder(
    socket: &mut UnixStream,
    order: &JobOrder,
    builder: &str,
    environment: &BTreeMap<String, String>,
) -> Result<ExitCode, No> {
    let found = std::fs::metadata(builder);
    let is_file = found
        .map_err(|error| No::Unfit(format!("can't look at the builder {builder}: {error}")))?;
    if !is_file.is_file() {
        return Err(No::Unfit(format!("the builder {builder} is no file")));
    }
    let landlock_abi = confine::give_up(order.landlock_abi_min, Room::Build)?;
    say(socket, &Word::Begins { landlock_abi })?;
    let error = Command::new(builder)
        .arg0(builder.rsplit('/').next().unwrap_or(builder))
        .args(&order.arguments)
        .current_dir(BUILD)
        .env_clear()
        .envs(environment)
        .exec();
    eprintln!("undercroft-job: the builder can't be started: {error}");
    Ok(ExitCode::from(REFUSED))
}

fn open(path: &str) -> Result<File, String> {
    File::open(path).map_err(|error| format!("can't open {path}: {error}"))
}

fn compare(checked: &Checked) -> Result<(), String> {
    matches(&checked.file, &open(&checked.file)?, checked.digest)
}

fn matches(path: &str, file: &File, wanted: FileDigest) -> Result<(), String> {
    let read = FileDigest::of(file, u64::MAX);
    let (found, _) = read.map_err(|error| format!("can't read {path}: {error}"))?;
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{path} is {found}, and {wanted} was to be run"))
    }
}

/// Sets what a process may have at most; what is started inherits it, and can't raise it.
fn limit(order: &JobOrder) -> Result<(), String> {
    for (resource, most) in [
        (Resource::Nofile, order.open_files),
        (Resource::Fsize, order.file_bytes),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Rtprio, 0),
        (Resource::Nice, 0),
    ] {
        let bound = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, bound)
            .map_err(|error| format!("can't limit {resource:?} to {most}: {error}"))?;
    }
    Ok(())
}
