//! What runs inside a lent job's sandbox: it gives up what it still holds, then becomes the job.
//!
//! The same program is used twice. Outside, `undercroft-job enter` joins the job's control groups and becomes bubblewrap;
//! so nothing of a job ever runs without its limits. Inside, `undercroft-job obey` reads an order, compares digests,
//! gives up files and system calls for good, and becomes the program, or runs the component.

mod component;
mod confine;
mod enter;
mod needs;
mod no;
mod obey;
mod static_binary;

use std::{env, ffi::OsString, process::ExitCode};

use undercroft_sandbox::order::{ENTER, NEEDS, OBEY};

/// The exit code where nothing was run.
const REFUSED: u8 = 125;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let verb = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    let done = match verb.to_str() {
        Some(ENTER) => enter::enter(&rest).map(|()| ExitCode::SUCCESS),
        Some(OBEY) if rest.is_empty() => return obey::obey(),
        Some(NEEDS) if rest.is_empty() => needs::print().map(|()| ExitCode::SUCCESS),
        _ => Err("it is started by `undercroft lend`, and does nothing by itself".to_owned()),
    };
    done.unwrap_or_else(|why| {
        eprintln!("undercroft-job: {why}");
        ExitCode::from(REFUSED)
    })
}
