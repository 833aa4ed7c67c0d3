//! Rules that a machine's system and the command both carry out, each in its own language: who opens
//! which secret, what a taint means, what a card can do. They come to the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use undercroft_model::inventory::{API_PORT, CardFacts, Inventory, Taint};
use undercroft_secrets::{
    Audience, catalogue,
    keys::{Consent, HostKeys, IdentitySource, OperatorKey},
};

use crate::{
    agree::{of_example, parsed},
    support::{asked_of_nix, evaluate, examples, nix_is_here, repository},
};

/// A cluster with an agent, an overlay with a server of its own and a relay, and a machine that is
/// of neither.
fn everything(distribution: &str) -> String {
    format!(
        "[fleet]\nname = \"all\"\n[network]\nnode_cidr = \"10.0.0.0/24\"\nserver_address = \"10.0.0.2\"\n\
         [network.overlay]\nkind = \"headscale\"\nserver_url = \"https://overlay.example\"\nserver_node = \"n1\"\nderp = true\n\
         [kubernetes]\ndistribution = \"{distribution}\"\nfounder = \"c1\"\n\
         [classes.control]\nkind = \"control\"\ntaints = [\"a.example/b=c:NoSchedule\", \"d:NoExecute\", \"e=:PreferNoSchedule\"]\n\
         [classes.gpu]\nkind = \"gpu\"\n[classes.gpu.gpu]\nmodel = \"l40s\"\n[classes.plain]\n\
         [nodes.c1]\nclass = \"control\"\nmacs = [\"52:54:00:00:00:01\"]\naddress = \"10.0.0.11\"\ndisks = [{{ serial = \"D1\" }}]\n\
         [nodes.c2]\nclass = \"control\"\nmacs = [\"52:54:00:00:00:02\"]\naddress = \"10.0.0.12\"\ndisks = [{{ serial = \"D2\" }}]\n\
         [nodes.c3]\nclass = \"control\"\nmacs = [\"52:54:00:00:00:03\"]\naddress = \"10.0.0.13\"\ndisks = [{{ serial = \"D3\" }}]\n\
         [nodes.g1]\nclass = \"gpu\"\nmacs = [\"52:54:00:00:00:04\"]\naddress = \"10.0.0.14\"\ndisks = [{{ serial = \"D4\" }}]\n\
         [nodes.n1]\nclass = \"plain\"\nmacs = [\"52:54:00:00:00:05\"]\naddress = \"10.0.0.15\"\ndisks = [{{ serial = \"D5\" }}]\n"
    )
}

/// Every inventory that is compared here, with what Nix derives of it.
fn all() -> Vec<(String, Inventory, Value)> {
    let mut all = Vec::new();
    for name in examples() {
        let folder = repository().join("examples").join(&name);
        let evaluated = evaluate("agree.nix", Some(&folder));
        all.push((name.clone(), of_example(&name), evaluated));
    }
    for distribution in ["k3s", "kubeadm", "none"] {
        let mut text = everything(distribution);
        if distribution == "none" {
            text = text.replace("founder = \"c1\"\n", "");
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("undercroft.toml"), &text).unwrap();
        let evaluated = evaluate("agree.nix", Some(folder.path()));
        all.push((distribution.to_owned(), parsed(&text), evaluated));
    }
    // What keeps the applications' secrets is nothing to the machines.
    for backend in ["sealed-secrets", "vault"] {
        let more = match backend {
            "vault" => "vault_url = \"https://vault.example\"\n",
            _ => "",
        };
        let text = format!(
            "{}[secrets]\nbackend = \"{backend}\"\n{more}",
            everything("k3s")
        );
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("undercroft.toml"), &text).unwrap();
        let evaluated = evaluate("agree.nix", Some(folder.path()));
        all.push((backend.to_owned(), parsed(&text), evaluated));
    }
    all
}

#[test]
fn every_machine_opens_the_secrets_that_it_wants_and_no_file_without_need() {
    if !nix_is_here() {
        return;
    }
    for (name, inventory, evaluated) in all() {
        let files = catalogue(&inventory);
        for node in inventory.nodes.keys() {
            let opens: BTreeMap<&str, BTreeSet<&str>> = files
                .iter()
                .filter(|file| {
                    matches!(&file.audience, Audience::Nodes(nodes, _) if nodes.contains(node))
                })
                .map(|file| {
                    let secrets = file.secrets.iter().map(|secret| secret.name.as_str());
                    (file.path.as_str(), secrets.collect())
                })
                .collect();
            let wanted = evaluated["secrets"][node.as_str()].as_object().unwrap();
            let mut used = BTreeSet::new();
            for (secret, place) in wanted {
                let file = format!("{}.sops.yaml", place["file"].as_str().unwrap());
                let there = opens.get(file.as_str());
                assert!(
                    there.is_some_and(|there| there.contains(secret.as_str())),
                    "{name}: {node} wants {secret} of {file}, and opens {opens:?}"
                );
                used.insert(file);
            }
            let opened: BTreeSet<String> = opens.keys().map(|&file| file.to_owned()).collect();
            assert_eq!(opened, used, "{name}: {node}");
        }
    }
}

#[test]
fn kubeadm_is_given_the_taints_that_the_inventory_means() {
    if !nix_is_here() {
        return;
    }
    for (name, inventory, evaluated) in all() {
        for (node, machine) in &inventory.nodes {
            let want: Vec<Value> = machine
                .taints
                .iter()
                .map(|text| Taint::parse(text).unwrap())
                .map(|taint| json!([taint.key, taint.value, taint.effect]))
                .collect();
            let got: Vec<Value> = evaluated["taints"][node.as_str()]
                .as_array()
                .unwrap()
                .iter()
                .map(|taint| {
                    let value = taint["value"].as_str().unwrap_or_default();
                    json!([taint["key"], value, taint["effect"]])
                })
                .collect();
            assert_eq!(got, want, "{name}: {node}");
        }
    }
}

/// What the check lets through, the machine's system doesn't refuse: a card whose driver can't drive
/// it was found when its system was built.
#[test]
fn the_check_and_the_machines_system_know_the_same_of_cards() {
    if !nix_is_here() {
        return;
    }
    let models = "a30 a100 a100-80gb a1000 h100 h100-80gb h200 h20 gh200 b200 gb200 b300-288gb gb300 l4 l40 l40s t4 v100 \
        v100-32gb p100 p40 p4 k80 m40 m60 titan-x titan-xp titan-v titan-rtx gtx-745 gtx-750-ti gtx-760 gtx-780 gtx-950 \
        gtx-980 gtx-980-ti gtx-1050 gtx-1080 gtx-1080ti gtx-1080-ti gtx-1660 rtx-2080 rtx-3090 rtx-4090 rtx-4090-laptop \
        rtx-5000 rtx-5000-ada rtx-5050 rtx-5060 rtx-5070-ti rtx-5080 rtx-5090 rtx-5090-laptop rtx-a5000 rtx-6000-ada \
        rtx-pro-4500-blackwell rtx-pro-2000-blackwell rtx-pro-6000-blackwell quadro-p4000 unknown x";
    let models: Vec<&str> = models.split_whitespace().collect();
    let facts = asked_of_nix(&format!(
        "map (import {}/nix/lib/gpu.nix).facts (builtins.fromJSON ''{}'')",
        repository().display(),
        json!(models)
    ));
    for (model, nix) in models.iter().zip(facts.as_array().unwrap()) {
        let card = CardFacts::of(model);
        assert_eq!(
            json!([
                card.mig == Some(true),
                card.open_possible,
                card.open_required
            ]),
            json!([nix["migCapable"], nix["openPossible"], nix["openRequired"]]),
            "{model}"
        );
        // A driver is asked for that drives the card, whichever of the two asks.
        assert!(card.open_possible || !card.open_required, "{model}");
        if !nix["lastBranch"].is_null() {
            assert!(!card.open_possible, "{model}");
        }
    }
    assert!(
        models
            .iter()
            .any(|model| !CardFacts::of(model).open_possible)
    );
}

/// The command writes keys beside the inventory, and the flake reads them there, whatever the inventory
/// calls the folder of secrets.
#[test]
fn nix_reads_the_keys_that_the_command_has_written() {
    if !nix_is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("fleet");
    std::fs::create_dir(&repository).unwrap();
    let text = format!("{}[secrets]\npath = \"kept/here\"\n", everything("k3s"));
    std::fs::write(repository.join("undercroft.toml"), &text).unwrap();
    let state = folder.path().join("state");
    let operator = OperatorKey::ensure(&state, "all").unwrap();
    operator.publish(&repository).unwrap();
    let source = IdentitySource {
        state_dir: state,
        identity_files: vec![],
        well_known: false,
    };
    let path = parsed(&text).secrets.path;
    let host_keys = HostKeys::open_in(&repository, &path, &[], source).unwrap();
    let made = host_keys
        .agreeing(Consent::Given)
        .ensure(&"c1".parse().unwrap())
        .unwrap();
    let read = asked_of_nix(&format!(
        "let fleet = (import {}/nix/lib).fleet.read (/. + \"{}\"); in {{ inherit (fleet) operatorKeys hostKeys; }}",
        self::repository().display(),
        repository.display()
    ));
    assert_eq!(read["operatorKeys"], json!([operator.authorized_key]));
    let host_key = read["hostKeys"]["c1"].as_str().unwrap();
    assert!(host_key.contains(&made.to_string()), "{host_key}: {made}");
    assert_eq!(read["hostKeys"]["c2"], Value::Null);
}

#[test]
fn the_api_has_one_port() {
    if !nix_is_here() {
        return;
    }
    let expression = format!(
        "(import {}/nix/lib).kubernetes.apiPort",
        repository().display()
    );
    assert_eq!(asked_of_nix(&expression), json!(API_PORT));
}
