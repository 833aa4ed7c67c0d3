//! What a step asks of a machine, and what the answer proves. Both worlds, the real one and the simulated, carry these
//! scripts out and come to their verdicts here: what differs between them is who answers.

mod approval;
mod ask;
mod claim;
mod cluster;
mod disko;
mod exit;
mod inspect;
mod pin;
mod returns;
mod script;
mod update;

pub use ask::{Answer, Ask, CopyFailed, Ended, MOUNT_POINT, Table, Unanswered};
pub use claim::{AwaitedReport, NotTaken, earlier_boots};
pub use cluster::{
    ApplicationSeen, BOOT_WAIT_MS_MAX, ClusterAnswer, ClusterAsk, ClusterNext, ClusterScript,
    ClusterStep, EtcdMember, EtcdMembers, Eviction, Health, JoinStatus, JoinUnit, LOOK_INTERVAL_MS,
    MARGIN_MS, NodeSeen, NodeWants, OtherServer, PROBE_WAIT_MS_MAX, PodKind, PodName, PodSeen,
    Rollout, SecretSeen, Workload, WorkloadKind, part_health,
};
pub use exit::{code, refused, value};
pub use inspect::{Wanted, inspect};
pub use pin::{PREDECESSOR_WAIT_MS, Pinned, SILENCE_MS_MAX, pin};
pub use returns::{InstalledLook, LOOK_MS_MAX, Look, Looked, Return};
pub use script::{ASKS_MAX, Next, Script};
pub use update::{
    BootVerdict, BootsNext, LeftSystem, UpdateAnswer, UpdateAsk, UpdateLook, UpdateNext,
    UpdateScript, UpdateStep, words as update_words,
};
