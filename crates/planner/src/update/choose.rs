//! Who is updated now, and why the others aren't.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use undercroft_model::{
    ClosedBy, ClusterRole, Found, NodeName, Observation, Wave,
    inventory::{Distribution, Inventory},
};

use crate::{install::SystemToInstall, members, report::Block};

/// A machine that runs another system than the one that was built for it, and can be updated.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// What it is to run.
    pub(crate) system: SystemToInstall,
    /// How often it was installed anew.
    pub(crate) generation: u32,
}

/// What an update comes to now.
pub(crate) struct Chosen {
    /// The machines of the next wave; empty where nobody is updated now.
    pub(crate) wave: BTreeSet<NodeName>,
    /// Which wave that is.
    pub(crate) number: Wave,
    /// Why each of the others isn't updated now.
    pub(crate) later: BTreeMap<NodeName, Block>,
}

/// The digest of what all machines are to run.
fn digest(observation: &Observation) -> String {
    let mut hash = Sha256::new();
    for (name, target) in &observation.targets {
        if let Ok(target) = target {
            for text in [name.as_str(), &target.toplevel] {
                hash.update((text.len() as u64).to_be_bytes());
                hash.update(text.as_bytes());
            }
        }
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Chooses who is updated now.
pub(crate) fn choose(
    inventory: &Inventory,
    observation: &Observation,
    candidates: &BTreeMap<NodeName, Candidate>,
    retry: &BTreeSet<NodeName>,
) -> Chosen {
    let update = digest(observation);
    let number = Wave {
        number: observation.updates.next_wave(&update),
        update: update.clone(),
    };
    let mut choice = Choice {
        inventory,
        observation,
        candidates,
        retry,
        chosen: Chosen {
            wave: BTreeSet::new(),
            number,
            later: BTreeMap::new(),
        },
    };
    choice.choose(observation.updates.is_begun(&update));
    choice.chosen
}

struct Choice<'a> {
    inventory: &'a Inventory,
    observation: &'a Observation,
    candidates: &'a BTreeMap<NodeName, Candidate>,
    /// Machines that may try once more what they have left.
    retry: &'a BTreeSet<NodeName>,
    chosen: Chosen,
}

impl Choice<'_> {
    fn choose(&mut self, begun: bool) {
        if let Some(halted) = self.halted() {
            return self.all_later(&halted);
        }
        let (servers, others) = self.in_order();
        let servers_can = self.server_can_go();
        let others_can = self.others_can_go();
        if !begun {
            // One that was closed for an update that came to no end is gone on with.
            let first = match (others.first(), servers.first()) {
                (Some(other), _) if others_can.is_ok() => Some(other),
                (None, Some(server)) if servers_can.is_ok() => Some(server),
                _ => None,
            };
            self.chosen.wave.extend(first.cloned());
            let why = first.map(|first| {
                Block::new(
                    format!("{first} is updated first: the others follow once it is well"),
                    "`undercroft up` goes on with them by itself",
                )
            });
            let why = why.or_else(|| others_can.as_ref().err().cloned());
            return self.rest_later(&servers, &others, why, servers_can.err(), others_can.err());
        }
        if let (Some(server), Ok(())) = (servers.first(), &servers_can) {
            self.chosen.wave.insert(server.clone());
            let why = Block::new(
                format!("{server} is updated now: servers go one by one, and before the others"),
                "`undercroft up` goes on with them by itself",
            );
            return self.rest_later(&servers, &others, Some(why), None, others_can.err());
        }
        if servers.is_empty()
            && let Ok(room) = others_can
        {
            self.chosen.wave.extend(others.iter().take(room).cloned());
            let why = Block::new(
                format!("no more than {room} may be away for an update now"),
                "`undercroft up` goes on with them by itself",
            );
            return self.rest_later(&servers, &others, Some(why), None, None);
        }
        let after = servers.first().map(|server| {
            Block::new(
                format!("{server} is a server, and comes before it"),
                "see what it waits for",
            )
        });
        self.rest_later(
            &servers,
            &others,
            after,
            servers_can.err(),
            others_can.err(),
        );
    }

    /// What stands in the way of any update.
    fn halted(&self) -> Option<Block> {
        let updates = &self.observation.updates;
        let mut refuted = updates.refuted.iter().filter(|(name, refuted)| {
            !self.retry.contains(*name) && matches!(self.observation.targets.get(*name), Some(Ok(target)) if target.toplevel == refuted.toplevel)
        });
        let (name, refuted) = refuted.next()?;
        Some(Block::new(
            format!(
                "the update stands still: {name} has left {} by itself: {}",
                refuted.toplevel, refuted.reason
            ),
            format!(
                "build another system for {name}; or let it try this one once more: `undercroft up --retry {name}`"
            ),
        ))
    }

    /// Servers, the founder last; and all others. Those that an update has closed already come first.
    fn in_order(&self) -> (Vec<NodeName>, Vec<NodeName>) {
        let founder = self.inventory.kubernetes.founder.as_ref();
        let (mut servers, mut others) = (Vec::new(), Vec::new());
        for name in self.candidates.keys() {
            match self.is_server(name) {
                true => servers.push(name.clone()),
                false => others.push(name.clone()),
            }
        }
        let closed = |name: &NodeName| self.closed_by(name) != Some(ClosedBy::Update);
        let closed = |name: &NodeName| !self.retry.contains(name) && closed(name);
        servers.sort_by_key(|name| (closed(name), Some(name) == founder, name.clone()));
        // A member shows more than a machine that is part of no cluster.
        others.sort_by_key(|name| (closed(name), !self.is_member(name), name.clone()));
        (servers, others)
    }

    fn is_server(&self, name: &NodeName) -> bool {
        self.role(name) == Some(ClusterRole::Server)
    }

    fn role(&self, name: &NodeName) -> Option<ClusterRole> {
        members::role(self.inventory, self.inventory.nodes.get(name)?)
    }

    /// Whether it has pods that must be evicted before it goes.
    fn is_member(&self, name: &NodeName) -> bool {
        self.role(name).is_some()
            && self
                .observation
                .installed
                .get(name)
                .is_some_and(|before| before.joined)
    }

    fn closed_by(&self, name: &NodeName) -> Option<ClosedBy> {
        self.observation
            .cluster
            .as_ref()?
            .nodes
            .get(name)?
            .closed_by
    }

    /// Whether it is there and takes pods, as far as a look has shown. One that is updated now is away for that.
    fn is_well(&self, name: &NodeName) -> bool {
        let runs =
            |seen: &undercroft_model::NodeObservation| matches!(seen.found, Found::Running { .. });
        let is_seen = self.observation.nodes.get(name).is_some_and(runs);
        if !self.is_member(name) {
            return is_seen;
        }
        let cluster = self.observation.cluster.as_ref();
        is_seen
            && cluster
                .and_then(|cluster| cluster.nodes.get(name))
                .is_some_and(|node| node.ready && node.closed_by.is_none())
    }

    fn api_is_away(&self) -> Option<Block> {
        let has_cluster = self.inventory.kubernetes.distribution != Distribution::None;
        let members = self.candidates.keys().any(|name| self.is_member(name));
        (has_cluster && members && self.observation.cluster.is_none()).then(|| {
            Block::new(
                "the cluster's API doesn't answer: nobody knows whether it can be spared",
                "bring the servers back, until `kubectl get nodes` answers",
            )
        })
    }

    /// Whether a server may be away: etcd has a majority without it, or it is the only one.
    fn server_can_go(&self) -> Result<(), Block> {
        if let Some(away) = self.api_is_away() {
            return Err(away);
        }
        let servers: Vec<&NodeName> = self
            .inventory
            .servers()
            .into_iter()
            .filter(|name| self.is_member(name))
            .collect();
        let votes = |name: &&NodeName| {
            let cluster = self.observation.cluster.as_ref();
            cluster
                .and_then(|cluster| cluster.nodes.get(*name))
                .is_some_and(|node| node.etcd_voter && node.ready)
        };
        // One that an update has closed, and that runs, is what this update goes on with: no other goes before it.
        let goes_on = |name: &NodeName| {
            self.closed_by(name) == Some(ClosedBy::Update) && self.candidates.contains_key(name)
        };
        let mut silent = servers
            .iter()
            .copied()
            .filter(|name| !votes(name) && !goes_on(name));
        match silent.next() {
            Some(silent) => Err(Block::new(
                format!(
                    "{silent} is a server that isn't well: no other server goes while it is away"
                ),
                format!("bring {silent} back first: `undercroft doctor {silent}` shows more"),
            )),
            None => Ok(()),
        }
    }

    /// How many of the others may go, at least 1.
    fn others_can_go(&self) -> Result<usize, Block> {
        if let Some(away) = self.api_is_away() {
            return Err(away);
        }
        let all: Vec<&NodeName> = self
            .inventory
            .nodes
            .keys()
            .filter(|name| {
                !self.is_server(name)
                    && self
                        .observation
                        .installed
                        .get(*name)
                        .is_some_and(|before| before.proved_up)
            })
            .collect();
        let limit = self.inventory.fleet.limits.updates;
        let may = limit
            .map_or(all.len() / 4, |limit| {
                usize::try_from(limit).unwrap_or(usize::MAX)
            })
            .max(1);
        let away: Vec<&&NodeName> = all
            .iter()
            .filter(|name| !self.candidates.contains_key(**name) && !self.is_well(name))
            .collect();
        // One that has been away for weeks must not keep all others from their updates.
        if away.len() > may {
            let first = away.first().map_or("", |name| name.as_str());
            return Err(Block::new(
                format!(
                    "{} machines are away already, {first} among them, and {may} may be",
                    away.len()
                ),
                format!(
                    "bring them back, or raise `updates` under [fleet.limits]: `undercroft doctor {first}` shows more"
                ),
            ));
        }
        Ok(may.saturating_sub(away.len()).max(1))
    }

    fn all_later(&mut self, why: &Block) {
        for name in self.candidates.keys() {
            self.chosen.later.insert(name.clone(), why.clone());
        }
    }

    /// Says of each that isn't in the wave why: what stands in its own way, or else what it waits for.
    fn rest_later(
        &mut self,
        servers: &[NodeName],
        others: &[NodeName],
        why: Option<Block>,
        of_servers: Option<Block>,
        of_others: Option<Block>,
    ) {
        let wait = Block::new(
            "it waits for its turn",
            "`undercroft up` goes on with it by itself",
        );
        for (names, own) in [(servers, of_servers), (others, of_others)] {
            let own = own.or_else(|| why.clone()).unwrap_or_else(|| wait.clone());
            for name in names
                .iter()
                .filter(|name| !self.chosen.wave.contains(*name))
            {
                self.chosen.later.insert(name.clone(), own.clone());
            }
        }
    }
}
