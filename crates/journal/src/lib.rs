//! The durable journal: what a controller writes before it acts, and reads when it starts again.
//!
//! One SQLite database per fleet, `journal.db` in the fleet's state directory, in WAL mode with
//! `synchronous=FULL`: a commit returns when the records are on the disk, and a process that is
//! killed at any moment, or a machine that loses its power, leaves either all records of an append
//! or none. A hand-written log could give the same for appends alone; SQLite is used because
//! `status`, `events`, `approve` and `doctor` read and write beside a running controller from
//! processes of their own, which is where hand-written logs go wrong. In WAL mode readers don't
//! block the writer, nor the writer them.
//!
//! - Entries are never changed or removed. Each carries a digest over its content and the digest
//!   before it, from a beginning that holds the fleet's name, so that a changed, missing or
//!   exchanged entry is found when it is read.
//! - A journal whose last entries are gone is missed by its head, which is kept beside it.
//! - Only one process at a time may be the controller. It holds a kernel lock on a file beside the
//!   database, which ends with the process, however it ends.
//! - The database also keeps what isn't a record: reports that wait for an approval, approvals
//!   that a running controller has yet to see, and each machine's recent timeline. These never
//!   hold a secret either.
//!
//! The directory has mode 0700 and the files 0600.

mod alarms;
pub mod approval;
mod approvals;
mod chain;
mod entries;
mod head;
mod lock;
mod pages;
mod store;
mod timeline;
mod unknown_machines;

pub use alarms::{ALARM_SHOWN_MS, ALARMS_MAX, Alarm, AlarmKind};
pub use approvals::{ApprovalError, GrantedApproval, PendingReport};
pub use chain::Chain;
pub use entries::{FleetJournal, entries_read};
pub use head::{HEAD_FILE, Head, accept_journal};
pub use lock::{ControllerLock, LockError, LockHolder};
pub use store::{JOURNAL_FILE, STORE_VERSION, Store, StoreError};
pub use timeline::{
    TIMELINE_ROWS_PER_NODE_MAX, TimelineDetail, TimelineRow, TimelineSource, events_and_marks,
};
pub use unknown_machines::{UNKNOWN_MACHINES_MAX, UnknownMachine};
