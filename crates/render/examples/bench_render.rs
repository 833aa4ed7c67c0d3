//! Measures rendering a tree, and the time that `kubectl kustomize` takes to read and print the
//! same objects, and prints a line of JSON: `bench_render INVENTORY NODES APPS`.
//!
//! NODES of 0 are those of the inventory. The least of a few runs counts: others use the machine
//! too. Reading the inventory isn't counted; the files' digests and the drawing are.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "a measurement reads files, arguments and a clock, starts a program, and prints; the library doesn't"
)]

use std::{
    collections::BTreeMap,
    error::Error,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::json;
use undercroft_model::inventory::{parse, scale_to};
use undercroft_render::{App, AppForm, AppSettings, Lock, RenderInput, Tree, render, yaml};

/// Each is measured so often, and the least time counts.
const REPEATS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, nodes, apps] = arguments.as_slice() else {
        return Err("usage: bench_render INVENTORY NODES APPS".into());
    };
    let (mut nodes, apps): (usize, usize) = (nodes.parse()?, apps.parse()?);
    let parsed = parse(file, &std::fs::read(file)?);
    let mut inventory = parsed.inventory.ok_or("the inventory has errors")?;
    if nodes == 0 {
        nodes = inventory.nodes.len();
    } else {
        let addresses = inventory.kubernetes.load_balancer_cidrs.clone();
        inventory = scale_to(&inventory, nodes)?;
        inventory.kubernetes.load_balancer_cidrs = addresses;
    }
    let apps: Vec<App> = (0..apps).map(app).collect();
    let lock = Lock::defaults();
    let input = RenderInput {
        inventory: &inventory,
        lock: &lock,
        apps: &apps,
        overrides: &BTreeMap::new(),
        dev: None,
        standing: None,
    };
    let mut ours_ms = f64::INFINITY;
    let mut tree = None;
    for _ in 0..REPEATS {
        let begun = Instant::now();
        let rendered = render(&input).map_err(|problems| format!("{problems:?}"))?;
        ours_ms = ours_ms.min(begun.elapsed().as_secs_f64() * 1e3);
        tree = Some(rendered);
    }
    let tree = tree.ok_or("nothing was rendered")?;
    let peer_ms = peer(&tree, &apps)?;
    let line = json!({
        "name": "render",
        "nodes": nodes,
        "apps": apps.len(),
        "files": tree.files.len(),
        "bytes": tree.files.values().map(String::len).sum::<usize>(),
        "ours_ms": ours_ms,
        "peer_ms": peer_ms,
        "ratio": peer_ms.map(|peer| peer / ours_ms),
    });
    println!("{line}");
    Ok(())
}

/// An app with two objects, which waits for an earlier one.
fn app(number: usize) -> App {
    let name = format!("app-{number}");
    let metadata = json!({ "name": name, "namespace": name });
    let labels = json!({ "app": name });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "app", "image": "registry.example/app:1" }] },
            },
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata,
        "spec": { "selector": labels, "ports": [{ "port": 80 }] },
    });
    let file = format!("apps/{name}/app.yaml");
    App {
        folder: format!("apps/{name}"),
        form: AppForm::Plain,
        settings: AppSettings {
            depends_on: number.checked_sub(7).map(|n| vec![format!("app-{n}")]),
            ..AppSettings::default()
        },
        objects: vec![(file.clone(), deployment), (file, service)],
        name,
    }
}

/// The time that the peer takes to read all objects and print them again, in milliseconds.
fn peer(tree: &Tree, apps: &[App]) -> Result<Option<f64>, Box<dyn Error>> {
    let there = Command::new("kubectl")
        .args(["version", "--client"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !there.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: the peer: there is no kubectl");
        return Ok(None);
    }
    let folder = tempfile::tempdir()?;
    let mut resources = Vec::new();
    let mut write = |name: &str, text: &str| -> Result<(), Box<dyn Error>> {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        std::fs::write(path, text)?;
        resources.push(name.to_owned());
        Ok(())
    };
    for (path, text) in &tree.files {
        let objects = path.contains("/manifests/") || path.contains("/applications/");
        if objects && path.ends_with(".yaml") {
            write(path, text)?;
        }
    }
    for app in apps {
        for (i, (_, object)) in app.objects.iter().enumerate() {
            write(&format!("{}/{i}.yaml", app.folder), &yaml::print(object)?)?;
        }
    }
    let kustomization = json!({ "resources": resources });
    std::fs::write(
        folder.path().join("kustomization.yaml"),
        yaml::print(&kustomization)?,
    )?;
    let mut best_ms = f64::INFINITY;
    for _ in 0..REPEATS {
        let begun = Instant::now();
        let output = Command::new("kubectl")
            .arg("kustomize")
            .arg(folder.path())
            .output()?;
        let taken_ms = begun.elapsed().as_secs_f64() * 1e3;
        if !output.status.success() {
            return Err(format!("kubectl: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        best_ms = best_ms.min(taken_ms);
    }
    Ok(Some(best_ms))
}
