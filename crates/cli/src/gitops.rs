//! What is wrong with what a tree is rendered from, as it is shown; and how a person parts with what stands.

use clap::Args;
use undercroft_fleet::{
    ClusterError, Project,
    gitops::{self, GitopsError, Parting},
};
use undercroft_render::{Choices, Problem};

use crate::{
    error::CliError,
    style::{BAD, BOLD, DIM, HINT, WARN, diagnostic, paint},
    text::{list, plain},
    ui::Ui,
};

/// Shows what keeps a tree from being rendered, each at its place, and gives the error that ends the command.
pub(crate) fn refuse(ui: Ui, project: &Project, error: impl Into<GitopsError>) -> CliError {
    let error = error.into();
    for problem in error.problems() {
        ui.stderr(&show(project, problem));
    }
    CliError::from(&error)
}

/// The same for what a cluster's steps bring in.
pub(crate) fn cluster_error(ui: Ui, project: &Project, error: &ClusterError) -> CliError {
    for problem in error.problems() {
        ui.stderr(&show(project, problem));
    }
    CliError::from(error)
}

/// A problem as the findings about an inventory look.
fn show(project: &Project, problem: &Problem) -> String {
    if let Some(finding) = gitops::diagnostic(project, problem) {
        return diagnostic(&finding);
    }
    let mut out = format!(
        "{}{}\n",
        paint(BAD, &format!("error[{}]", problem.code)),
        paint(BOLD, &format!(": {}", plain(&problem.message))),
    );
    if let Some(file) = &problem.file {
        let place = gitops::line_of(project, problem);
        let place = place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
        out.push_str(&format!("{} {}{place}\n", paint(DIM, " -->"), plain(file)));
    }
    if let Some(hint) = &problem.hint {
        out.push_str(&format!(
            "{} {}: {hint}\n",
            paint(DIM, "  ="),
            paint(HINT, "hint")
        ));
    }
    out
}

/// What a person says may go, or was moved.
#[derive(Debug, Args)]
pub(crate) struct PartingArgs {
    /// Let a component or an app go that was taken out and holds data; says what is lost, and asks
    #[arg(long = "leave", value_name = "NAME", conflicts_with = "check")]
    leave: Vec<String>,
    /// Take the new choices of a component, an app or the cluster whose data was moved by hand
    #[arg(long, value_name = "NAME", conflicts_with = "check")]
    moved: Vec<String>,
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

impl PartingArgs {
    /// What was said.
    pub(crate) fn said(&self) -> Parting {
        Parting {
            leave: self.leave.iter().cloned().collect(),
            moved: self.moved.iter().cloned().collect(),
        }
    }

    /// Refuses names that nothing stands for.
    pub(crate) fn check_names(&self, standing: Option<&Choices>) -> Result<(), CliError> {
        for name in self.leave.iter().chain(&self.moved) {
            let Some(standing) = standing else {
                return Err(CliError::usage(format!(
                    "nothing was rendered yet, so that there is no {name:?} to part with"
                )));
            };
            if !standing.knows(name) {
                return Err(CliError::usage(format!(
                    "the tree that stands has nothing of {name:?}"
                ))
                .hint(format!("It has {}.", list(&standing.owners()))));
            }
        }
        Ok(())
    }

    /// Says what is lost, and asks.
    pub(crate) fn agreed(&self, ui: Ui, standing: &Choices) -> Result<bool, CliError> {
        let mut any = false;
        for name in &self.leave {
            if let Some(data) = standing.data(name) {
                ui.stderr(&format!(
                    "{} {} holds {data}.",
                    paint(WARN, "leaving:"),
                    paint(BOLD, name)
                ));
                any = true;
            }
        }
        if !any || self.yes {
            return Ok(true);
        }
        ui.confirm(
            "Argo CD will no longer keep it, and what it holds is lost once it is deleted.",
            "Give --yes if that is what you want.",
        )
    }

    /// Says what is left to be done by hand.
    pub(crate) fn what_next(&self, ui: Ui) {
        for name in &self.leave {
            ui.hint(&format!(
                "Nothing of {name} is deleted by Argo CD, and its Application stays in the cluster until you delete it by hand: see \"When something leaves\" in docs/gitops.md."
            ));
        }
    }
}
