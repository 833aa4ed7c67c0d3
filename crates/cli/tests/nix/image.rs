//! The packages of the flake: what the image of the server of lending says is what the rendered Deployment counts on.

use std::{fs, path::Path};

use undercroft_render::{Lock, RenderInput, render, yaml};

use crate::{
    agree::parsed,
    support::{evaluate, nix_is_here, repository},
};

/// The pod of the rendered Deployment.
fn pod() -> serde_json::Value {
    let text = "[fleet]\nname = \"lent\"\n[network]\nnode_cidr = \"10.0.0.0/24\"\nserver_address = \"10.0.0.1\"\n\
         [kubernetes]\ndistribution = \"k3s\"\nfounder = \"one\"\n\
         [gitops]\nrepository = \"https://git.lent.example/fleet.git\"\n\
         components = [\"cilium\", \"cert-manager\", \"nats\", \"lending-server\"]\n\
         [classes.box]\nkind = \"control\"\n[nodes.one]\nclass = \"box\"\nmacs = [\"52:54:00:00:00:0b\"]\n\
         address = \"10.0.0.11\"\ndisks = [{ serial = \"ONE\" }]\n\
         [lending]\nenabled = true\nnats_url = \"tls://nats.lent.example:4222\"\n\
         server_key = \"UCZ6VTJTIM5TDNJFENIQGLE3HZ5C46VHOOGV33G7BXLMMJUAQU6ANX4L\"\n\
         server_image = \"registry.lent.example/lending-server\"\n";
    let inventory = parsed(text);
    let mut lock = Lock::defaults();
    lock.complete_for(&inventory);
    let tree = render(&RenderInput {
        inventory: &inventory,
        lock: &lock,
        apps: &[],
        overrides: &std::collections::BTreeMap::new(),
        dev: None,
        standing: None,
    })
    .unwrap();
    let end = "lending-server/manifests/lending-server.yaml";
    let (_, text) = tree
        .files
        .iter()
        .find(|(path, _)| path.ends_with(end))
        .unwrap();
    let objects = text.split("\n---\n").map(|one| yaml::parse(one).unwrap());
    let deployment = objects.into_iter().find(|one| one["kind"] == "Deployment");
    deployment.unwrap()["spec"]["template"]["spec"].clone()
}

#[test]
fn the_image_is_what_the_deployment_counts_on() {
    if !nix_is_here() {
        return;
    }
    let image = &evaluate("image.nix", None)["image"];
    let pod = pod();
    let container = &pod["containers"][0];
    // The Deployment has the words behind the command alone.
    assert!(container.get("command").is_none());
    assert_eq!(
        image["config"]["Entrypoint"],
        serde_json::json!(["/nix/store/undercroft/bin/undercroft"])
    );
    let who = &pod["securityContext"];
    assert_eq!(
        image["config"]["User"],
        format!("{}:{}", who["runAsUser"], who["runAsGroup"])
    );
    // The tag is the version by which the tree begins with it.
    assert_eq!(image["tag"], "1.2.3");
    let reference = container["image"].as_str().unwrap();
    let name = image["name"].as_str().unwrap();
    assert_eq!(
        reference,
        format!("registry.lent.example/{name}:{}", env!("CARGO_PKG_VERSION"))
    );
}

/// Text in the sources that is read while compiling and lies elsewhere: the package brings it along.
#[test]
fn the_package_brings_every_file_that_is_compiled_in() {
    if !nix_is_here() {
        return;
    }
    let command = &evaluate("image.nix", None)["command"];
    assert_eq!(command["version"], env!("CARGO_PKG_VERSION"));
    let brought: Vec<&str> = command["src"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file.as_str().unwrap())
        .collect();
    let mut seen = 0;
    for file in undercroft_testkit::tracked("crates") {
        let is_source = file.extension().is_some_and(|end| end == "rs")
            && file.components().any(|part| part.as_os_str() == "src")
            && !file.to_string_lossy().contains("tests");
        if !is_source {
            continue;
        }
        let text = fs::read_to_string(repository().join(&file)).unwrap();
        // What stands in tests isn't compiled into the command.
        let code = text.split("#[cfg(test)]").next().unwrap();
        if code.contains("#[test]") {
            continue;
        }
        for named in code
            .split("include_str!(")
            .chain(code.split("include_bytes!("))
            .skip(1)
        {
            let Some(path) = named.trim_start().strip_prefix('"') else {
                continue;
            };
            let path = path.split('"').next().unwrap();
            let from = file.parent().unwrap().join(path);
            let Some(inside) = resolved(&from) else {
                continue;
            };
            seen += 1;
            let known = inside.starts_with("crates/")
                || brought
                    .iter()
                    .any(|name| inside.starts_with(&format!("nix/{name}/")) || inside == *name);
            assert!(known, "{} reads {inside}", file.display());
        }
    }
    assert!(seen > 20, "{seen}");
}

/// A path without its `..`, from the repository.
fn resolved(path: &Path) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                parts.pop()?;
            }
            std::path::Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            _ => {}
        }
    }
    Some(parts.join("/"))
}
