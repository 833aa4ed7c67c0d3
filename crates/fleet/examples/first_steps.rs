//! Another program on the same two crates: it builds the machines' systems, looks at the machines, plans, and
//! prints what `undercroft up` would begin with. No machine is changed.
//!
//! ```console
//! $ cargo run -p undercroft-fleet --example first_steps -- examples/rack
//! ```

use std::error::Error;

use undercroft_fleet::{Fleet, Next, Scope};
use undercroft_model::Plan;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).unwrap_or_else(|| ".".into());
    let fleet = Fleet::open(folder)?;
    let view = fleet.view()?;
    let prepared = fleet.look(None).await?;
    let seen = fleet.observe(None, &prepared, &view).await?;
    match fleet.next(&view, &seen, &Scope::default())? {
        Next::Resume { plan } => println!("plan {plan:.10} is gone on with"),
        Next::CarryOut { plan, .. } => print!("{}", first(&plan)),
        Next::Wait { waits, .. } => {
            for (name, why) in &waits {
                println!("{name} is left alone: {}", why.sentence());
            }
        }
        Next::Nothing { .. } => println!("all is well"),
    }
    Ok(())
}

/// The steps that wait for no other.
fn first(plan: &Plan) -> String {
    let steps = plan.steps.iter();
    let steps = steps.filter(|step| step.after.is_empty() && step.after_settled.is_empty());
    let lines = steps.map(|step| format!("{}: {}\n", step.node, step.action.verb()));
    lines.collect()
}
