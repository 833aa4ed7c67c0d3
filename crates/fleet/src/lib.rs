//! The application: everything that a program needs that brings a fleet up and keeps it there, be it the
//! `undercroft` command, a board, or somebody else's.
//!
//! ```text
//! Fleet::new ─▶ prepare (keys, systems) ─▶ observe ─▶ next ─▶ carry_out ─▶ Finished
//! ```
//!
//! [`serve()`] does this in rounds for as long as it is let. How a screen looks is somebody else's: what is
//! told comes as data ([`RunProgress`], entries of the journal), with sentences for it ([`narrate`], [`verdict`]).
//!
//! This crate and `undercroft_model` are all that a program needs: the folder `examples/` has two. What comes from
//! the crates beneath is named here again.

mod between;
mod boot_log;
mod cluster;
mod disk_keys;
pub mod documents;
pub mod drift;
mod facts;
mod fleet;
pub mod gitops;
mod inputs;
mod known;
pub mod narrate;
mod netboot;
mod notify;
mod numbers;
mod open;
mod pi_files;
mod prefetch;
mod project;
mod pulse;
pub mod releases;
mod run;
pub mod select;
mod serve;
mod service;
mod settings;
mod standing;
mod systems;
pub mod verdict;
mod webhook;

pub use self::{
    cluster::ClusterError,
    disk_keys::DiskKeyError,
    facts::{FACTS_DIR, write_facts},
    fleet::{Fleet, FleetError, Prepared},
    known::Known,
    netboot::{BootError, BootServers, config_of as boot_config, table as boot_table},
    notify::{Notifier, NotifyError},
    open::OpenError,
    pi_files::PiError,
    prefetch::PrefetchError,
    project::{INVENTORY_FILE, Project, ProjectError, cache_dir},
    pulse::{BUILD_SILENCE_MS_MAX, LOCAL_MS_MAX, LOOK_MS_MAX, REST_MARGIN_MS, RUN_SILENCE_MS_MAX},
    run::{Alive, Finished, INTERRUPT_WAIT, Run, RunError, carry_out},
    serve::{ServeError, Served},
    service::{Intent, Refused, Service, serve},
    settings::{InstallerChoice, Settings},
    standing::{Course, ToldWait},
    systems::{KeptSystems, Systems},
    webhook::{
        POST_MS_MAX, QUEUE_MAX, RETRY_MS_MAX, RETRY_MS_MIN, TRIES_MAX, Webhook, WebhookError,
    },
};
// What a fleet's own methods take and give, so that nobody needs the crates beneath for it.
pub use undercroft_build::system::SystemBuilder;
pub use undercroft_engine::{Engine, EngineFault, PlanRefused, ResumeError};
pub use undercroft_journal::{FleetJournal, Store, StoreError};
pub use undercroft_metal::world::{ClusterParts, InstallOptions, ProgressSink, RunProgress};
pub use undercroft_planner::{
    FaultyPlan, Next, NodeReport, PlanOptions, PlanReport, Replaced, Rounds, Scope, Waiting, Waits,
    explain,
};
pub use undercroft_secrets::keys::{Consent, HostKeys, OperatorKey};
