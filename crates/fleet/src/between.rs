//! What is done between two runs of a service, beside the boot servers.

use std::future::Future;

use tokio::sync::{broadcast, watch};
use undercroft_model::NodeName;
use undercroft_netboot::NetbootEvent;

use crate::boot_log::{BootLog, Kept};
use undercroft_journal::FleetJournal;

/// What the boot servers see while no run is under way is kept for `undercroft doctor` as it is during one:
/// timelines, alarms, machines that nobody knows, and what the servers say of themselves.
pub(crate) struct Between<'a> {
    events: broadcast::Receiver<NetbootEvent>,
    nodes: &'a [NodeName],
    interrupt: &'a mut watch::Receiver<bool>,
    log: BootLog,
}

impl<'a> Between<'a> {
    pub(crate) fn new(
        events: broadcast::Receiver<NetbootEvent>,
        nodes: &'a [NodeName],
        interrupt: &'a mut watch::Receiver<bool>,
    ) -> Self {
        Self {
            events,
            nodes,
            interrupt,
            log: BootLog::default(),
        }
    }

    /// Keeps what is seen until the work is done; `None` where an interruption was asked for before that.
    pub(crate) async fn during<T>(
        &mut self,
        journal: &FleetJournal,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut open = true;
        loop {
            let event = tokio::select! {
                biased;
                () = interrupted(self.interrupt) => return None,
                done = &mut work => return Some(done),
                event = self.events.recv(), if open => event,
            };
            match event {
                Ok(event) => {
                    let store = journal.store();
                    for kept in self.log.keep(event, self.nodes) {
                        // They are a help for people: that one can't be written stops nothing.
                        let _ = match kept {
                            Kept::Row(node, row) => store.note(&node, &row),
                            Kept::Alarm(node, alarm) => store.note_alarm(node.as_ref(), &alarm),
                            Kept::UnknownMachine(stranger) => store.note_unknown_machine(&stranger),
                        };
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => open = false,
            }
        }
    }
}

/// Waits until an interruption is asked for; for ever where nobody can ask any longer.
pub(crate) async fn interrupted(interrupt: &mut watch::Receiver<bool>) {
    if interrupt.wait_for(|asked| *asked).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use undercroft_journal::{AlarmKind, events_and_marks};
    use undercroft_model::MacAddr;
    use undercroft_netboot::{
        DropReason, EventKind,
        event::Service,
        timeline::{Missing, timeline},
    };

    const SENDER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 66);

    fn event(node: Option<&NodeName>, kind: EventKind) -> NetbootEvent {
        NetbootEvent {
            at_ms: 1_767_225_600_000,
            node: node.cloned(),
            mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            uuid: None,
            address: Some(SENDER),
            kind,
        }
    }

    /// What was kept of these events by the time that the work was done.
    async fn kept(events: Vec<NetbootEvent>) -> (tempfile::TempDir, FleetJournal) {
        let dir = tempfile::tempdir().unwrap();
        let journal = FleetJournal::open(dir.path(), "basement", "a test").unwrap();
        let nodes = ["gpu-01", "gpu-02"].map(|name| NodeName::new(name).unwrap());
        let (sender, receiver) = broadcast::channel(64);
        let (_asks, mut interrupt) = watch::channel(false);
        let mut between = Between::new(receiver, &nodes, &mut interrupt);
        for event in events {
            sender.send(event).unwrap();
        }
        // The servers are gone when all was taken in: the work ends after that.
        drop(sender);
        let work = async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        };
        assert!(between.during(&journal, work).await.is_some());
        (dir, journal)
    }

    fn doctor(journal: &FleetJournal, node: &str) -> (Missing, String) {
        let node = NodeName::new(node).unwrap();
        let rows = journal.store().timeline(&node).unwrap();
        let (events, marks) = events_and_marks(&rows);
        let found = timeline(&events, &marks, u64::MAX).diagnosis;
        (found.missing, found.summary)
    }

    #[tokio::test]
    async fn what_is_seen_between_two_runs_is_kept_for_doctor() {
        let node = NodeName::new("gpu-01").unwrap();
        let gone = "the interface boot0 is gone or was made anew";
        let (_dir, journal) = kept(vec![
            event(
                Some(&node),
                EventKind::Dropped {
                    service: Service::Dhcp,
                    reason: DropReason::Truncated,
                },
            ),
            NetbootEvent {
                mac: None,
                address: None,
                ..event(None, EventKind::Server { text: gone.into() })
            },
            event(
                None,
                EventKind::Dropped {
                    service: Service::Tftp,
                    reason: DropReason::TooMany,
                },
            ),
            event(
                Some(&node),
                EventKind::ReportRefused {
                    reason: "another address".into(),
                    claimed: None,
                    planned: None,
                },
            ),
        ])
        .await;
        // A packet that can't be read, with its machine's Ethernet address.
        let (missing, summary) = doctor(&journal, "gpu-01");
        assert_eq!(missing, Missing::DhcpDiscover);
        assert!(summary.contains("can't be read: truncated"), "{summary}");
        // What the servers say of themselves, on each machine.
        let (_, summary) = doctor(&journal, "gpu-02");
        assert!(summary.contains(gone), "{summary}");
        // Whoever is at work on the network, by address.
        let alarms = journal.store().alarms(&node, 1_767_225_600_001).unwrap();
        let kinds: Vec<_> = alarms.iter().map(|a| (a.kind, a.sender)).collect();
        assert_eq!(
            kinds,
            [(AlarmKind::Report, SENDER), (AlarmKind::Flood, SENDER)]
        );
    }

    #[tokio::test]
    async fn a_wish_to_stop_ends_what_is_done_between_two_runs() {
        let dir = tempfile::tempdir().unwrap();
        let journal = FleetJournal::open(dir.path(), "basement", "a test").unwrap();
        let (_sender, receiver) = broadcast::channel(1);
        let (asks, mut interrupt) = watch::channel(false);
        let mut between = Between::new(receiver, &[], &mut interrupt);
        asks.send(true).unwrap();
        let endless = std::future::pending::<()>();
        assert!(between.during(&journal, endless).await.is_none());
    }
}
