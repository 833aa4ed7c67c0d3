//! `undercroft lend offers`: what the owner agrees to.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use undercroft_lending::owner::{Narrow, OfferView, Offers, OwnerAnswer, OwnerAsk};
use undercroft_process::clock::wall_ms_now;

use super::pc::{PcArgs, other_answer};
use crate::{
    done::Done,
    error::CliError,
    style::{BOLD, paint},
    ui::Ui,
};

/// Show what this PC lends; agree to more, or to less
///
/// The inventory says what a PC may offer. Only its owner lends: each grant is a record of the ledger with the
/// owner's signature. It can be narrowed here at any time, and is never wider than what was granted.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct OffersArgs {
    #[command(subcommand)]
    command: Option<OffersCommand>,
    #[command(flatten)]
    pc: PcArgs,
    /// Print what is lent then as JSON
    #[arg(long, global = true)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  undercroft lend offers
  undercroft lend offers grant --until 30d
  undercroft lend offers narrow --runtime wasm --slots 1 --hours 22:00-06:30 --exclusive ardour";

#[derive(Debug, Subcommand)]
enum OffersCommand {
    /// Lend what the policy offers
    #[command(after_help = "Example:\n  undercroft lend offers grant --until 30d")]
    Grant {
        /// For how long, such as 8h or 30d; without it, until you revoke it
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
    /// Lend less than that; what isn't named stays as it is
    Narrow(NarrowArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  undercroft lend offers narrow --runtime wasm --slots 1")]
struct NarrowArgs {
    /// These runtimes alone
    #[arg(long = "runtime", value_name = "RUNTIME")]
    runtimes: Vec<String>,
    /// For these tenants alone
    #[arg(long = "tenant", value_name = "TENANT")]
    tenants: Vec<String>,
    /// Jobs at a time
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// Processors, in percent of one
    #[arg(long, value_name = "PERCENT")]
    cpu_percent: Option<u32>,
    /// Memory, in MiB
    #[arg(long, value_name = "MIB")]
    memory_mb: Option<u32>,
    /// Disk space, in MiB
    #[arg(long, value_name = "MIB")]
    disk_mb: Option<u32>,
    /// In this part of the day alone, such as 22:00-06:30
    #[arg(long, value_name = "HOURS")]
    hours: Option<String>,
    /// Seconds that you have to be away before jobs begin
    #[arg(long, value_name = "SECONDS")]
    idle_after_s: Option<u32>,
    /// A program beside which nothing is lent
    #[arg(long = "exclusive", value_name = "PROGRAM")]
    exclusive: Vec<String>,
}

impl NarrowArgs {
    fn narrow(&self) -> Narrow {
        let some = |all: &Vec<String>| (!all.is_empty()).then(|| all.clone());
        Narrow {
            runtimes: some(&self.runtimes),
            tenants: some(&self.tenants),
            slots: self.slots,
            cpu_percent: self.cpu_percent,
            memory_mb: self.memory_mb,
            disk_mb: self.disk_mb,
            hours: self.hours.clone(),
            idle_after_s: self.idle_after_s,
            exclusive: self.exclusive.clone(),
        }
    }
}

pub(crate) fn run(ui: Ui, args: &OffersArgs) -> Result<Done, CliError> {
    let ask = match &args.command {
        None => OwnerAsk::Offers,
        Some(OffersCommand::Grant { until: text }) => OwnerAsk::Grant {
            until_ms: text.as_deref().map(until).transpose()?,
        },
        Some(OffersCommand::Narrow(narrow)) => OwnerAsk::Narrow(Box::new(narrow.narrow())),
    };
    let OwnerAnswer::Offers(offers) = args.pc.ask(ask)? else {
        return Err(other_answer());
    };
    match args.json {
        true => ui.json(&*offers)?,
        false => ui.print(&describe(&offers))?,
    }
    Ok(Done::Well)
}

/// A time such as 90s, 15m, 2h or 30d, in milliseconds.
pub(super) fn span_ms(text: &str) -> Result<u64, CliError> {
    let wrong = || {
        CliError::usage(format!("{text:?} is no time such as 15m, 2h or 30d"))
            .hint("A number and s, m, h or d.")
    };
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number = text.strip_suffix(unit).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let ms = number.checked_mul(seconds * 1000).ok_or_else(wrong)?;
    match ms {
        0 => Err(wrong()),
        ms => Ok(ms),
    }
}

/// The moment that a time from now on ends, in milliseconds since the Unix epoch.
pub(super) fn until(text: &str) -> Result<u64, CliError> {
    Ok(wall_ms_now().saturating_add(span_ms(text)?))
}

/// The end of a consent, in words.
pub(super) fn moment(until_ms: Option<u64>) -> String {
    let at = until_ms.and_then(|ms| Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok());
    match (until_ms, at) {
        (None, _) => "until you revoke it".to_owned(),
        (Some(_), Some(at)) => format!("until {at:.0}"),
        (Some(_), None) => "for longer than a calendar goes".to_owned(),
    }
}

/// An offer in one line.
pub(super) fn offer_line(offer: &OfferView) -> String {
    let names = |all: &[String]| match all {
        [] => "nothing".to_owned(),
        all => all.join(", "),
    };
    let tenants = offer.tenants.as_deref().map_or("all".to_owned(), names);
    format!(
        "{} for {tenants}, {} data, {} at a time, {} % of a processor, {} MiB of memory, {} MiB of disk, {} s each",
        names(&offer.runtimes),
        offer.max_sensitivity,
        offer.slots,
        offer.cpu_percent,
        offer.memory_mb,
        offer.disk_mb,
        offer.wall_s
    )
}

/// What is lent, in words.
pub(super) fn describe(offers: &Offers) -> String {
    let mut out = format!("{}\n", paint(BOLD, &offers.device));
    out.push_str(&format!(
        "the policy offers: {}\n",
        offer_line(&offers.policy)
    ));
    out.push_str(&match &offers.consent {
        None => "you lend: nothing\n".to_owned(),
        Some(consent) => format!(
            "you lend: {} (record {}, {})\n",
            offer_line(&consent.offer),
            consent.record,
            moment(consent.until_ms)
        ),
    });
    let hours = match offers.hours.as_slice() {
        [] => "at any time".to_owned(),
        hours => format!("at {}", hours.join(" and at ")),
    };
    out.push_str(&format!(
        "when: {hours}, after {} s without you",
        offers.idle_after_s
    ));
    if !offers.exclusive.is_empty() {
        out.push_str(&format!(", not beside {}", offers.exclusive.join(", ")));
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_a_number_and_a_unit() {
        assert_eq!(span_ms("90s").unwrap(), 90_000);
        assert_eq!(span_ms("2h").unwrap(), 7_200_000);
        assert_eq!(span_ms("30d").unwrap(), 2_592_000_000);
        for wrong in [
            "",
            "2",
            "h",
            "2w",
            "-2h",
            "0m",
            "2hh",
            "99999999999999999999d",
            "2é",
        ] {
            assert!(span_ms(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            moment(Some(1_800_000_000_000)),
            "until 2027-01-15T08:00:00Z"
        );
    }
}
