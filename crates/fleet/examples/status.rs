//! A program on Undercroft's two crates for other programs: it opens a fleet by its folder, and prints how far
//! each machine has come, and what would be done next.
//!
//! ```console
//! $ cargo run -p undercroft-fleet --example status -- examples/basement
//! ```

use std::{error::Error, path::Path};

use undercroft_fleet::{Fleet, Next, Scope, Waits};
use undercroft_model::view::FleetView;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).unwrap_or_else(|| ".".into());
    print!("{}", tell(Path::new(&folder))?);
    Ok(())
}

/// What there is to tell. No machine is asked, and nothing is written.
pub(crate) fn tell(folder: &Path) -> Result<String, Box<dyn Error>> {
    let fleet = Fleet::open(folder)?;
    let status = fleet.status()?;
    let mut out = format!("{}\n", fleet.inventory().fleet.name);
    for (name, node) in &status.nodes {
        out += &format!("  {name}: {}\n", node.state());
    }

    let view: FleetView = fleet.view()?;
    out += &match fleet.next(&view, &fleet.known(&view)?, &Scope::default())? {
        Next::Resume { plan } => format!("next: go on with plan {plan:.10}\n"),
        Next::CarryOut { plan, waits, .. } => {
            format!("next: {} steps\n{}", plan.steps.len(), reasons(&waits))
        }
        Next::Wait { waits, .. } => format!("next: nothing can be done\n{}", reasons(&waits)),
        Next::Nothing { .. } => "next: nothing, all is well\n".to_owned(),
    };
    Ok(out)
}

/// Why machines are left alone.
fn reasons(waits: &Waits) -> String {
    let lines = waits.iter();
    let lines = lines.map(|(name, why)| format!("  {name}: {}\n", why.sentence()));
    lines.collect()
}
