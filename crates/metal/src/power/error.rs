//! What can go wrong when a machine is switched.

use std::io;
use std::net::Ipv4Addr;
use undercroft_model::advice::Advice;

use undercroft_model::NodeName;

use undercroft_rack::RackError;

/// An error of switching. Its text says what happened; [`PowerError::hint`] what to try.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PowerError {
    /// The inventory lacks something that this way of switching needs.
    #[error("{node} cannot be switched: {what} is missing")]
    Incomplete {
        /// The machine.
        node: NodeName,
        /// What is missing.
        what: &'static str,
        /// What to do about it.
        hint: &'static str,
    },
    /// This way of switching can't do it.
    #[error("{node} cannot be switched {what} this way")]
    Unsupported {
        /// The machine.
        node: NodeName,
        /// What was asked for.
        what: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// The magic packet could not be sent.
    #[error("{node}: a magic packet cannot be sent to {broadcast}: {source}")]
    Wake {
        /// The machine.
        node: NodeName,
        /// Where to.
        broadcast: Ipv4Addr,
        /// Why.
        source: io::Error,
    },
    /// The operator's command could not be run.
    #[error("{node}, power {phase}: `{command}` cannot be run: {source}")]
    NotRun {
        /// The machine.
        node: NodeName,
        /// What it was to do: on, off or status.
        phase: &'static str,
        /// The command.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// The operator's command failed.
    #[error("{node}, power {phase}: `{command}` {how}{}", tail(.output))]
    CommandFailed {
        /// The machine.
        node: NodeName,
        /// What it was to do: on, off or status.
        phase: &'static str,
        /// The command.
        command: String,
        /// How it ended.
        how: String,
        /// The end of what it said.
        output: String,
    },
    /// The rack failed.
    #[error("{node}: {source}")]
    Rack {
        /// The machine.
        node: NodeName,
        /// Why.
        source: Box<RackError>,
    },
}

fn tail(output: &str) -> String {
    if output.is_empty() {
        String::new()
    } else {
        format!("; it said:\n{output}")
    }
}

impl Advice for PowerError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Incomplete { hint, .. } | Self::Unsupported { hint, .. } => {
                Some((*hint).to_owned())
            }
            Self::Wake { .. } => Some(
                "Set `power.broadcast` to the broadcast address of a network that this machine \
                 is on."
                    .into(),
            ),
            Self::NotRun { .. } | Self::CommandFailed { .. } => {
                Some("Run the command by hand; it stands in the node's section `power`.".into())
            }
            Self::Rack { source, .. } => source.hint(),
        }
    }
}
