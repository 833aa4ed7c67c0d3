//! What can go wrong.

use serde::{Deserialize, Serialize};
use undercroft_simkit::Kind;

/// The dice of a rehearsal.
pub(crate) type Dice = undercroft_simkit::Dice<FaultKind>;

macro_rules! kinds {
    ($( $(#[doc = $doc:literal])* $variant:ident = $words:literal, $per_1024:literal; )*) => {
        /// One kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "kebab-case")]
        pub enum FaultKind {
            $( $(#[doc = $doc])* $variant, )*
        }

        impl Kind for FaultKind {
            const ALL: &'static [Self] = &[$( Self::$variant ),*];

            fn usual_per_1024(self) -> u32 {
                match self { $( Self::$variant => $per_1024, )* }
            }
        }

        impl FaultKind {
            /// All kinds.
            pub const ALL: &'static [Self] = <Self as Kind>::ALL;

            /// What happens, in a few words.
            pub fn words(self) -> &'static str {
                match self { $( Self::$variant => $words, )* }
            }
        }
    };
}

kinds! {
    /// The firmware doesn't boot from the network, and goes on to the next device.
    PxeMissed = "missed its network boot", 60;
    /// After the installation the firmware starts something else than the disk that was installed.
    WrongBootDevice = "booted from the wrong device", 20;
    /// The disk has another serial than the inventory says. For good.
    WrongSerial = "has another disk than the inventory says", 8;
    /// The machine doesn't start. For good.
    DeadMachine = "is dead", 6;
    /// Power is lost in the middle of an action.
    PowerLoss = "lost its power", 30;
    /// The machine can't be reached for a while.
    NetworkLoss = "lost its network for a while", 30;
    /// The command succeeds, and the connection dies before that is known.
    SshDies = "lost the SSH session after the command had succeeded", 30;
    /// A copy takes three to twelve times as long.
    SlowCopy = "was copied to slowly", 40;
    /// A copy breaks off.
    FailingCopy = "had its copy broken off", 40;
    /// The disk is full.
    DiskFull = "ran out of disk space", 6;
    /// The boot loader can't be written, or only half.
    LoaderFails = "had its boot loader step fail", 25;
    /// The machine doesn't return from a reboot until someone cuts its power.
    RebootHangs = "hung in its reboot", 25;
    /// Another machine answers at the machine's address for a while, under another key.
    HostKeyChanged = "was answered for by another machine", 12;
    /// Somebody else reports in under the machine's Ethernet addresses.
    StolenMac = "had its Ethernet address used by another machine", 16;
    /// A machine keeps on answering under the machine's Ethernet addresses. For good.
    StolenForGood = "is impersonated", 4;
    /// The images of a machine's part of Kubernetes come slowly.
    SlowPull = "drew its images slowly", 40;
    /// The servers refuse a machine's token until someone puts that right.
    TokenRefused = "had its token refused", 12;
    /// The cluster's API doesn't answer for a while.
    ApiDown = "found the cluster's API away for a while", 30;
    /// The network of the pods takes long to be ready.
    NetworkSlow = "had the network of the pods come up late", 60;
    /// A node is NotReady for a while after it has joined.
    NotReadyFlap = "was NotReady for a while", 40;
    /// Argo CD is degraded before it is healthy.
    ArgoDegraded = "had Argo CD degraded for a while", 60;
    /// The root application is synced only after it was tried again.
    SyncRetries = "had the root application tried again", 60;
    /// Somebody deletes a machine's Node, whose kubelet goes on and doesn't register again.
    NodeDeleted = "had its Node deleted", 60;
    /// A member of the cluster loses what is on its disk, and keeps its place in etcd: at most once.
    DiskLost = "lost what was on its disk", 100;
    /// The controller's wall clock jumps.
    ClockJump = "the controller's clock jumped", 20;
    /// The controller dies between two effects, or while it writes its journal.
    ControllerKilled = "the controller was killed", 6;
    /// The operator presses Ctrl-C in the middle, and runs the command again.
    Interrupted = "the operator interrupted the run", 200;
    /// An outcome comes after the operation was called off.
    LateOutcome = "an outcome came late", 256;
    /// An outcome comes twice.
    DoubledOutcome = "an outcome came twice", 40;
}
