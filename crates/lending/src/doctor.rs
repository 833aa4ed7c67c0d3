//! What a PC can lend, tried out; and what is in the way.

use undercroft_model::document::Version;
use undercroft_sandbox::{Tools, probe};

use crate::{
    bus::BusLink,
    idle::Seat,
    owner::{Doctor, Finding},
};

/// What the daemon knows already.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) device: String,
    pub(crate) url: String,
    /// How the connection is; `None` where no daemon runs.
    pub(crate) link: Option<BusLink>,
    pub(crate) has_seat: bool,
    pub(crate) seat: Option<Seat>,
    pub(crate) wants_gpu: bool,
    pub(crate) clock_is_off: Option<String>,
    pub(crate) no_yard: Option<String>,
}

fn finding(name: &str, ok: bool, found: String, narrows: Option<&str>) -> Finding {
    Finding {
        name: name.to_owned(),
        ok,
        found,
        narrows: narrows.map(str::to_owned),
    }
}

/// Tries out what lending stands on.
pub(crate) async fn look(asked: Asked) -> Doctor {
    let tools = Tools::find(None, None).await;
    let report = probe(&tools).await;
    let mut findings: Vec<Finding> = report
        .abilities
        .into_iter()
        .map(|ability| Finding {
            name: ability.name.to_owned(),
            ok: ability.is_there,
            found: ability.found,
            narrows: ability.narrows,
        })
        .collect();
    if let Some(why) = asked.no_yard {
        let narrows = "nothing is lent until it can be; then start the daemon anew";
        findings.push(finding(
            "jobs",
            false,
            format!("The daemon says: {why}."),
            Some(narrows),
        ));
    }
    findings.push(seat(asked.has_seat, asked.seat.as_ref()));
    findings.push(server(&asked.url, asked.link.as_ref()));
    findings.push(match asked.clock_is_off {
        Some(why) => finding(
            "clock",
            false,
            format!("The server says that {why}."),
            Some("nothing is lent: a consent ends at a moment of it; switch on `timedatectl set-ntp true`"),
        ),
        None => finding("clock", true, "Nobody says that it is wrong.".to_owned(), None),
    });
    if asked.wants_gpu {
        findings.push(finding(
            "GPU",
            false,
            "The sandbox hands no GPU to a job.".to_owned(),
            Some("jobs that need a GPU fail here: take `gpu` out of what is offered"),
        ));
    }
    Doctor {
        version: Version,
        device: asked.device,
        findings,
    }
}

fn seat(has_seat: bool, seat: Option<&Seat>) -> Finding {
    let name = "whether its owner is there";
    let narrows =
        "nothing is lent while nobody knows; a machine without a seat has `hasSeat = false`";
    match seat {
        _ if !has_seat => finding(
            name,
            true,
            "The policy says that nobody ever is.".to_owned(),
            None,
        ),
        Some(Seat::Away { source } | Seat::Present { source }) => {
            finding(name, true, format!("It is told by {source}."), None)
        }
        Some(Seat::Unknown { why }) => {
            finding(name, false, format!("Nobody says: {why}."), Some(narrows))
        }
        None => finding(
            name,
            false,
            "The daemon, which watches, doesn't run.".to_owned(),
            Some(narrows),
        ),
    }
}

fn server(url: &str, link: Option<&BusLink>) -> Finding {
    let name = "server";
    match link {
        Some(BusLink::Up) => finding(name, true, format!("{url} is connected."), None),
        Some(BusLink::Down { why }) => finding(
            name,
            false,
            format!("{url} isn't connected: {why}."),
            Some("there is no work without it; it is tried again by itself"),
        ),
        None => finding(
            name,
            false,
            "The daemon, which connects, doesn't run.".to_owned(),
            Some("`systemctl --user start undercroft-lending`, or `undercroft lend run`"),
        ),
    }
}
