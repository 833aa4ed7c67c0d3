//! The machines of examples/kubeadm.

use std::{collections::BTreeMap, ops::Deref, time::Duration};

use serde_json::Value;
use undercroft_model::{Action, Outcome, Work, inventory::API_PORT};

use crate::{
    documents::{of_the_example, text},
    machine,
    members_common::{Controller, Member},
};

/// How long founding or joining may take; it takes half a minute on two busy cores.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);
/// The machines that take part.
pub(crate) const MACHINES: [&str; 3] = ["head-01", "head-02", "h100-01"];

pub(crate) struct Fleet {
    controller: Controller,
    documents: BTreeMap<String, Value>,
}

impl Deref for Fleet {
    type Target = Controller;

    fn deref(&self) -> &Controller {
        &self.controller
    }
}

impl Fleet {
    /// Boots the machines, each with the secrets that are its own.
    pub(crate) fn boot() -> Self {
        let mut fleet = Self {
            controller: Controller::of_example("kubeadm", LIMIT),
            documents: of_the_example(),
        };
        for machine in MACHINES {
            let scripts = (
                fleet.script(machine, "cluster-join-kubeadm"),
                fleet.script(machine, "cluster-leave-kubeadm"),
            );
            let files = fleet.files(machine);
            let controller = &mut fleet.controller;
            controller.boot(machine, scripts, files, machine::system());
        }
        fleet
    }

    fn script(&self, machine: &str, script: &str) -> String {
        let document = &self.documents[machine];
        let founds = document["founder"] == true;
        let server = match text(document, "role") {
            _ if founds => String::new(),
            "agent" => text(document, "serverUrl").to_owned(),
            _ => format!("https://{}:{API_PORT}", text(document, "founderAddress")),
        };
        let member = Member {
            role: text(document, "role"),
            founds,
            server: &server,
        };
        self.controller.script(machine, member, script, &[])
    }

    /// What the machine's system has in its files: those of kubeadm, and the secrets that
    /// nix/modules/secrets.nix wants for it.
    fn files(&self, machine: &str) -> Vec<(String, String)> {
        let document = &self.documents[machine];
        let hosts = format!(
            "127.0.0.1 localhost\n127.0.0.2 {}\n{} api.hall-4.example\n",
            text(document, "name"),
            self.address("head-01")
        );
        let kubeadm = |file: &str, key: &str| {
            let file = format!("etc/undercroft/kubeadm/{file}");
            (file, text(document, key).to_owned())
        };
        let mut files = vec![
            ("etc/hosts".to_owned(), hosts),
            kubeadm("join.json", "join"),
        ];
        let mut wanted = vec!["kubeadm/ca_cert_hash".to_owned()];
        if text(document, "role") == "server" {
            files.push(kubeadm("init.yaml", "init"));
            wanted.extend(self.secrets_of("servers.sops.yaml", "kubeadm/"));
        }
        for secret in wanted {
            files.push((format!("run/secrets/{secret}"), self.secret(&secret)));
        }
        files
    }

    /// Carries a step of the plan out, or probes it.
    pub(crate) async fn carry_out(
        &mut self,
        machine: &str,
        wanted: impl Fn(&Action) -> bool,
        work: Work,
    ) -> Outcome {
        let action = self.action(machine, wanted);
        self.controller.start(machine, &action, work);
        self.controller.ended().await
    }
}
