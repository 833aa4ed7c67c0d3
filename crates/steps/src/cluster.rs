//! The steps by which machines become a cluster: what is asked of a machine, of etcd and of the cluster's API, and what
//! the answers prove.
//!
//! They are rounds of asks. A round begins with a look at how things are and goes on as long as each answer leads to
//! another ask; where something is missing that comes by itself, the round is over, and after a wait another begins from
//! the beginning. What is kept from one round to the next is small and written down in one place: whether the machine was
//! started, whether its Node was dressed, and the like. So a step goes on from any point at which the API, a machine or
//! the controller was lost, by looking.

mod ask;
mod bootstrap;
mod drain;
mod etcd;
mod founding;
mod health;
mod member;
mod node;
mod ready;
mod rounds;
mod status;
mod step;
mod talk;

pub use ask::{
    ClusterAnswer, ClusterAsk, Eviction, PodKind, PodName, PodSeen, SecretSeen, Workload,
};
pub use bootstrap::part_health;
pub use etcd::{EtcdMember, EtcdMembers};
pub use health::{ApplicationSeen, Health, Rollout, WorkloadKind};
pub use node::{NodeSeen, NodeWants};
pub use rounds::{ClusterNext, ClusterScript};
pub use status::{JoinStatus, JoinUnit, OtherServer};
pub use step::ClusterStep;
pub use talk::{BOOT_WAIT_MS_MAX, LOOK_INTERVAL_MS, MARGIN_MS, PROBE_WAIT_MS_MAX};
