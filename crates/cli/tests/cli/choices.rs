//! What a cluster was begun with: what `render` refuses to change or to let go, and the way on.

use std::{fs, os::unix::fs::symlink};

use super::render::cellar;
use crate::support::Sandbox;

/// A cellar whose components keep data, rendered once.
fn begun() -> Sandbox {
    let sandbox = cellar();
    edit(
        &sandbox,
        "\"cert-manager\"]",
        "\"cert-manager\", \"grafana\", \"loki\"]",
    );
    let ran = sandbox.run(["render"]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    sandbox
}

fn edit(sandbox: &Sandbox, from: &str, to: &str) {
    let text = fs::read_to_string(sandbox.dir().join("undercroft.toml")).unwrap();
    assert!(text.contains(from), "{from}");
    sandbox.write("undercroft.toml", &text.replace(from, to));
}

#[test]
fn what_holds_data_leaves_by_a_step_of_its_own() {
    let sandbox = begun();
    let whole = |name: &str| fs::read_to_string(sandbox.dir().join(name)).unwrap();
    edit(&sandbox, ", \"loki\"", "");
    let before = whole("gitops/.rendered");
    insta::assert_snapshot!("choices_leaves", sandbox.run(["render"]).text());
    let checked = sandbox.run(["render", "--check"]);
    assert_eq!(checked.code, 65, "{}", checked.text());
    // Nobody is there to be asked.
    let asked = sandbox.run(["render", "--leave", "loki"]);
    insta::assert_snapshot!("choices_asked", asked.text());
    assert_eq!(whole("gitops/.rendered"), before);
    let still = sandbox.run(["render", "--leave", "loki", "--leave", "grafana", "--yes"]);
    assert_eq!(still.code, 65, "{}", still.text());
    let unknown = sandbox.run(["render", "--leave", "nats", "--yes"]);
    assert_eq!(unknown.code, 64, "{}", unknown.text());
    let left = sandbox.run(["render", "--leave", "loki", "--yes"]);
    assert_eq!(left.code, 0, "{}", left.text());
    assert!(left.err.contains("loki holds all logs"), "{}", left.text());
    assert!(!sandbox.dir().join("gitops/applications/loki.yaml").exists());
    assert_eq!(sandbox.run(["render", "--check"]).code, 0);
}

#[test]
fn the_first_longhorn_disk_is_refused_with_a_way_to_keep_and_one_to_move() {
    let sandbox = begun();
    edit(
        &sandbox,
        "layout = \"ext4\"",
        "layout = \"ext4\"\nlonghorn = { partition_gb = 100 }",
    );
    edit(&sandbox, "[\"cilium\"", "[\"cilium\", \"longhorn\"");
    insta::assert_snapshot!("choices_first_disk", sandbox.run(["render"]).text());
    // To keep: what the hints say.
    sandbox.write(
        "values/grafana.yaml",
        "persistence: { storageClassName: local-path }\n",
    );
    sandbox.write(
        "values/loki.yaml",
        "singleBinary: { persistence: { storageClass: local-path } }\n",
    );
    let kept = sandbox.run(["render"]);
    assert_eq!(kept.code, 0, "{}", kept.text());
    assert!(
        sandbox
            .dir()
            .join("gitops/applications/local-path.yaml")
            .exists()
    );
    assert_eq!(sandbox.run(["render", "--check"]).code, 0);
    // To move, one after the other.
    fs::remove_file(sandbox.dir().join("values/grafana.yaml")).unwrap();
    assert_eq!(sandbox.run(["render"]).code, 65);
    let moved = sandbox.run(["render", "--moved", "grafana"]);
    assert_eq!(moved.code, 0, "{}", moved.text());
    assert_eq!(sandbox.run(["render", "--check"]).code, 0);
}

#[test]
fn the_clusters_networks_stay_as_they_were() {
    let sandbox = begun();
    edit(
        &sandbox,
        "founder = ",
        "pod_cidr = \"10.50.0.0/16\"\nfounder = ",
    );
    insta::assert_snapshot!("choices_networks", sandbox.run(["render"]).text());
}

#[test]
fn a_leap_that_was_written_by_hand_is_refused() {
    let sandbox = begun();
    let lock = fs::read_to_string(sandbox.dir().join("undercroft.lock")).unwrap();
    let at = lock.find("[components.cilium]").unwrap();
    let (head, cilium) = lock.split_at(at);
    sandbox.write(
        "undercroft.lock",
        &format!(
            "{head}{}",
            cilium.replacen("version = \"1.20.0\"", "version = \"1.22.1\"", 1)
        ),
    );
    let ran = sandbox.run(["render"]);
    assert_eq!(ran.code, 65, "{}", ran.text());
    assert!(
        ran.err
            .contains("cilium can't go from 1.20.0 to 1.22.1 at once"),
        "{}",
        ran.text()
    );
    assert!(
        ran.err.contains("takes the newest 1.21 first"),
        "{}",
        ran.text()
    );
}

#[test]
fn a_file_of_choices_that_is_none_is_refused_and_a_lost_one_is_made_up_for() {
    let sandbox = begun();
    let path = sandbox.dir().join("gitops/.choices");
    let whole = fs::read_to_string(&path).unwrap();
    for broken in [
        "",
        "[]\n",
        "form: 9\n",
        "form: 1\ncluster: {}\ncomponents: {}\napps: {}\nx: 1\n",
    ] {
        fs::write(&path, broken).unwrap();
        let ran = sandbox.run(["render"]);
        assert_eq!(ran.code, 65, "{broken:?}: {}", ran.text());
        assert!(ran.err.contains("error[first-choices]"), "{}", ran.text());
    }
    fs::remove_file(&path).unwrap();
    symlink("/proc/self/environ", &path).unwrap();
    let ran = sandbox.run(["render"]);
    assert_eq!(ran.code, 65, "{}", ran.text());
    assert!(!ran.text().contains("PATH="), "{}", ran.text());
    // Lost, or from a version that wrote none: the tree itself says it.
    fs::remove_file(&path).unwrap();
    edit(&sandbox, ", \"loki\"", "");
    let ran = sandbox.run(["render"]);
    assert_eq!(ran.code, 65, "{}", ran.text());
    assert!(
        ran.err.contains("the component loki is no longer there"),
        "{}",
        ran.text()
    );
    edit(&sandbox, "\"grafana\"]", "\"grafana\", \"loki\"]");
    assert_eq!(sandbox.run(["render"]).code, 0);
    assert_eq!(fs::read_to_string(&path).unwrap(), whole);
}
