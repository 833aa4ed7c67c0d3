//! Whose fault it is that a job doesn't begin.

/// Why it does not become the job.
pub(crate) enum No {
    /// This machine is at fault.
    Refused(String),
    /// The job is, on any machine.
    Unfit(String),
}

impl From<String> for No {
    fn from(why: String) -> Self {
        Self::Refused(why)
    }
}

impl From<&str> for No {
    fn from(why: &str) -> Self {
        Self::Refused(why.to_owned())
    }
}
