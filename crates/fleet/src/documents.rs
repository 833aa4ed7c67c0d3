//! What is printed with `--json` of a fleet: its status, plans, what happens and what a run has come to. Plain
//! data that is written and read alike; see [`undercroft_model::document`] for what their versions mean.

mod drift;
mod lines;
mod notice;
mod plan;
mod status;

pub(crate) use status::installed_state;

pub use self::{
    drift::Drift,
    lines::{EventLine, ProgressLine, Summary, SummaryLine, UpLine},
    notice::{NOTICE_WAITS_MAX, Notice},
    plan::PlanDocument,
    status::{Controller, JournalHead, NodeLine, Status},
};
