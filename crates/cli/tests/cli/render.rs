//! `render` and `dev config`, as their users meet them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::support::Sandbox;

/// A folder with a small cluster.
pub(crate) fn cellar() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write(
        "undercroft.toml",
        r#"
[fleet]
name = "cellar"

[network]
node_cidr = "10.0.0.0/24"
server_address = "10.0.0.2"

[kubernetes]
distribution = "k3s"
version = "1.34"
founder = "box-01"

[gitops]
repository = "https://git.example/cellar.git"
components = ["cilium", "cert-manager"]

[classes.box]
kind = "control"
layout = "ext4"

[nodes.box-01]
class = "box"
macs = ["3c:ec:ef:10:00:01"]
address = "10.0.0.11"
disks = [{ serial = "S6S2NS0T834821" }]

[users.ada]

[pcs.laptop]
os = "macos"
system = "aarch64-darwin"
users = ["ada"]

[pcs.old]
os = "linux"
system = "x86_64-linux"
users = ["ada"]
dev_cluster = false
"#,
    );
    sandbox
}

/// All files with their content and the time of their last change.
pub(crate) fn state(sandbox: &Sandbox) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut found = Vec::new();
    let mut folders = vec![sandbox.dir()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let changed = fs::metadata(&path).unwrap().modified().unwrap();
                found.push((path.clone(), fs::read(path).unwrap(), changed));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_basement_is_as_rendered() {
    let basement = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/basement");
    let sandbox = Sandbox::new();
    let ran = sandbox.run(["render", "--check", &basement.display().to_string()]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    assert_eq!(ran.out, "");
}

#[test]
fn a_second_render_changes_no_byte_and_writes_no_file() {
    let sandbox = cellar();
    insta::assert_snapshot!("render_first", sandbox.run(["render"]).text());
    let before = state(&sandbox);
    insta::assert_snapshot!(sandbox.run(["render"]).text(), @r"
    exit code 0
    -- stdout
    rendered gitops: 5 applications in 3 waves, 19 files; nothing changed
    ");
    assert_eq!(state(&sandbox), before);
    assert_eq!(sandbox.run(["render", "--check"]).code, 0);
    // The file of digests is one that sha256sum reads.
    let checked = std::process::Command::new("sha256sum")
        .args(["--check", "--quiet", "gitops/.rendered"])
        .current_dir(sandbox.dir())
        .status()
        .unwrap();
    assert!(checked.success());
}

#[test]
fn a_check_shows_what_would_change_and_writes_nothing() {
    let sandbox = cellar();
    assert_eq!(sandbox.run(["render"]).code, 0);
    sandbox.write("values/cert-manager.yaml", "replicaCount: 2\n");
    let before = state(&sandbox);
    let ran = sandbox.run(["render", "--check"]);
    assert_eq!(ran.code, 2, "{}", ran.text());
    assert!(
        ran.out
            .contains("+++ b/gitops/components/cert-manager/values.yaml")
    );
    assert!(ran.out.contains("\n+replicaCount: 2\n"), "{}", ran.out);
    assert_eq!(state(&sandbox), before);
    let ran = sandbox.run(["render", "--check", "--json"]);
    assert_eq!(ran.code, 2);
    assert!(ran.out.contains("\"change\": \"update\""), "{}", ran.out);
}

#[test]
fn an_edited_file_is_kept_and_shown_until_it_is_forced() {
    let sandbox = cellar();
    assert_eq!(sandbox.run(["render"]).code, 0);
    let file = "gitops/components/cert-manager/values.yaml";
    let rendered = fs::read_to_string(sandbox.dir().join(file)).unwrap();
    sandbox.write(file, &format!("{rendered}mine: true\n"));
    sandbox.write("values/argo-cd.yaml", "crds:\n  keep: false\n");
    let before = state(&sandbox);
    insta::assert_snapshot!("render_edited", sandbox.run(["render"]).text());
    assert_eq!(state(&sandbox), before);
    assert_eq!(sandbox.run(["render", "--force"]).code, 0);
    assert_eq!(
        fs::read_to_string(sandbox.dir().join(file)).unwrap(),
        rendered
    );
    assert_eq!(sandbox.run(["render", "--check"]).code, 0);
}

#[test]
fn what_is_no_longer_rendered_goes_unless_it_was_edited() {
    let sandbox = cellar();
    assert_eq!(sandbox.run(["render"]).code, 0);
    let with = fs::read_to_string(sandbox.dir().join("undercroft.toml")).unwrap();
    let without = with.replace(", \"cert-manager\"", "");
    sandbox.write("undercroft.toml", &without);
    let values = "gitops/components/cert-manager/values.yaml";
    let kept = fs::read_to_string(sandbox.dir().join(values)).unwrap();
    sandbox.write(values, "mine: true\n");
    let leave = ["render", "--leave", "cert-manager", "--yes"];
    let ran = sandbox.run(leave);
    assert_eq!(ran.code, 65, "{}", ran.text());
    assert_eq!(
        fs::read_to_string(sandbox.dir().join(values)).unwrap(),
        "mine: true\n"
    );
    sandbox.write(values, &kept);
    let ran = sandbox.run(leave);
    assert_eq!(ran.code, 0, "{}", ran.text());
    assert!(
        !sandbox
            .dir()
            .join("gitops/components/cert-manager")
            .exists()
    );
    assert!(
        !sandbox
            .dir()
            .join("gitops/applications/cert-manager.yaml")
            .exists()
    );
}

#[test]
fn a_file_that_nothing_renders_is_found_where_argo_cd_would_apply_it() {
    let sandbox = cellar();
    assert_eq!(sandbox.run(["render"]).code, 0);
    let foreign = [
        "gitops/applications/mine.yaml",
        "gitops/applications/deeper/mine.json",
        "gitops/components/local-path/manifests/kustomization.yml",
    ];
    for file in foreign {
        sandbox.write(file, "password: hunter2\n");
    }
    // Argo CD reads none of these.
    let beside = [
        "gitops/notes.yaml",
        "gitops/applications/README.md",
        "gitops/components/local-path/mine.yaml",
    ];
    for file in beside {
        sandbox.write(file, "a: 1\n");
    }
    let before = state(&sandbox);
    let checked = sandbox.run(["render", "--check"]);
    assert!(!checked.text().contains("hunter2"));
    insta::assert_snapshot!("render_foreign_checked", checked.text());
    insta::assert_snapshot!("render_foreign", sandbox.run(["render"]).text());
    assert_eq!(state(&sandbox), before);
    let json = sandbox.run(["render", "--check", "--json"]);
    assert!(json.out.contains("\"foreign\": true"), "{}", json.out);
    // Being asked to, it takes them away, with the folder that is empty then, and nothing else.
    let forced = sandbox.run(["render", "--force"]);
    assert_eq!(forced.code, 0, "{}", forced.text());
    for file in foreign {
        assert!(!sandbox.dir().join(file).exists(), "{file}");
    }
    assert!(!sandbox.dir().join("gitops/applications/deeper").exists());
    for file in beside {
        assert!(sandbox.dir().join(file).exists(), "{file}");
    }
    assert_eq!(sandbox.run(["render", "--check"]).code, 0);
}

/// What a version of the program made that this one doesn't make any more.
#[test]
fn what_an_older_version_made_goes() {
    let sandbox = cellar();
    assert_eq!(sandbox.run(["render"]).code, 0);
    let old = "gitops/applications/retired.yaml";
    sandbox.write(old, "kind: Application\n");
    let digests = fs::read_to_string(sandbox.dir().join("gitops/.rendered")).unwrap();
    // sha256sum of the line above.
    let digest = "0a33b717ff9b1bec18bbbfc64b3aef106ce939b1ede55e3cab23954a6fd7a3e9";
    sandbox.write("gitops/.rendered", &format!("{digests}{digest}  {old}\n"));
    let checked = sandbox.run(["render", "--check"]);
    assert_eq!(checked.code, 2, "{}", checked.text());
    assert!(
        checked
            .out
            .contains("--- a/gitops/applications/retired.yaml\n+++ /dev/null")
    );
    assert_eq!(sandbox.run(["render"]).code, 0);
    assert!(!sandbox.dir().join(old).exists());
    assert_eq!(sandbox.run(["render", "--check"]).code, 0);
}

#[test]
fn an_app_without_an_object_is_no_app() {
    let sandbox = cellar();
    sandbox.write("apps/blank/a.yaml", "");
    sandbox.write("apps/notes/a.yaml", "# later\n");
    sandbox.write("apps/notes/b.yaml", "---\n# later still\n---\n");
    sandbox.write("apps/settings/a.yaml", "some: settings\n");
    sandbox.write("apps/half/a.yaml", "apiVersion: v1\nkind: Service\n");
    sandbox.write("apps/none/README", "later\n");
    insta::assert_snapshot!("render_empty_apps", sandbox.run(["render"]).text());
    assert!(!sandbox.dir().join("gitops").exists());
}

#[test]
fn values_that_a_chart_has_otherwise_have_their_line() {
    let sandbox = cellar();
    sandbox.write(
        "values/cilium.yaml",
        "# of mine\nhubble:\n  ui:\n    enabled: true\n  tls: [a, b]\n  rely:\n    enabled: true\n",
    );
    sandbox.write("values/cert-manager.yaml", "- a\n- b\n");
    insta::assert_snapshot!("render_values", sandbox.run(["render"]).text());
    sandbox.write("values/cilium.yaml", "hubble: {}\nhubble: {}\n");
    sandbox.write("values/cert-manager.yaml", "a: 1\n---\nb: 2\n");
    insta::assert_snapshot!("render_values_unreadable", sandbox.run(["render"]).text());
}

#[test]
fn apps_need_only_a_folder() {
    let sandbox = cellar();
    let service =
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports:\n  - port: 80\n";
    sandbox.write("apps/web/service.yaml", service);
    sandbox.write("apps/shop/kustomization.yaml", "resources: []\n");
    sandbox.write(
        "apps/shop/app.toml",
        "depends_on = [\"web\"]\nnamespace = \"store\"\n",
    );
    sandbox.write("apps/_draft/README", "not an app\n");
    let ran = sandbox.run(["render", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.text());
    let read = |name: &str| fs::read_to_string(sandbox.dir().join(name)).unwrap();
    let shop = read("gitops/applications/shop.yaml");
    assert!(
        shop.contains("path: apps/shop") && shop.contains("namespace: store"),
        "{shop}"
    );
    assert!(read("gitops/applications/web.yaml").contains("recurse: true"));
    assert!(
        !sandbox
            .dir()
            .join("gitops/applications/_draft.yaml")
            .exists()
    );
    assert!(read("gitops/README.md").contains("| `shop` | `apps/shop` | `store` | 4 | `web` |"));
}

#[test]
fn everything_that_is_wrong_is_said_before_anything_is_written() {
    let sandbox = cellar();
    let secret =
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: key\nstringData:\n  key: hunter2\n";
    sandbox.write("apps/a/app.toml", "depends_on = [\"b\"]\n");
    sandbox.write("apps/a/secret.yaml", secret);
    sandbox.write("apps/b/app.toml", "depends_on = [\"a\"]\n");
    sandbox.write(
        "apps/b/x.yaml",
        "kind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\n",
    );
    sandbox.write("values/cilium.yaml", "hubble:\n  enabeld: true\n");
    let before = state(&sandbox);
    let ran = sandbox.run(["render"]);
    assert!(!ran.text().contains("hunter2"));
    assert_eq!(state(&sandbox), before);
    insta::assert_snapshot!("render_wrong", ran.text());
    // What can't be read comes first, since nothing can be said of the rest.
    sandbox.write("apps/Bad_Name/x.yaml", "a: 1\n");
    sandbox.write("apps/b/app.toml", "depend_on = []\n");
    sandbox.write(
        "apps/a/secret.yaml",
        &secret.replace("stringData:", "stringData: ["),
    );
    sandbox.write("undercroft.lock", "version = 9\n");
    let ran = sandbox.run(["render"]);
    assert!(!ran.text().contains("hunter2"));
    insta::assert_snapshot!("render_unreadable", ran.text());
    assert!(!sandbox.dir().join("gitops").exists());
}

#[test]
fn a_minor_version_of_kubernetes_is_not_left_out() {
    let sandbox = cellar();
    assert_eq!(sandbox.run(["render"]).code, 0);
    let text = fs::read_to_string(sandbox.dir().join("undercroft.toml")).unwrap();
    sandbox.write("undercroft.toml", &text.replace("\"1.34\"", "\"1.36\""));
    let before = state(&sandbox);
    insta::assert_snapshot!("render_skew", sandbox.run(["render"]).text());
    // The others that would act on it say the same, and nobody writes anything.
    insta::assert_snapshot!("check_skew", sandbox.run(["check"]).text());
    for command in ["plan", "up"] {
        let ran = sandbox.run([command]);
        assert_eq!(ran.code, 65, "{}", ran.text());
        assert!(ran.err.contains("undercroft.toml:11:11"), "{}", ran.text());
    }
    assert_eq!(state(&sandbox), before);
}

#[test]
fn a_pc_gets_a_cluster_of_its_own() {
    let sandbox = cellar();
    let ran = sandbox.run(["dev", "config", "--pc", "laptop"]);
    insta::assert_snapshot!("dev_config", ran.text());
    let script = sandbox.dir().join("dev/k3d-mounts.sh");
    assert_eq!(
        fs::metadata(&script).unwrap().permissions().mode() & 0o111,
        0o111
    );
    let read = |name: &str| fs::read_to_string(sandbox.dir().join(name)).unwrap();
    assert!(read("dev/k3d.yaml").contains("name: cellar-laptop"));
    assert!(
        read("dev/applications/cilium.yaml").contains("$values/dev/components/cilium/values.yaml")
    );
    // It touches nothing of production's tree.
    assert!(!sandbox.dir().join("gitops").exists());
    assert_eq!(sandbox.run(["dev", "config", "--pc", "laptop"]).code, 0);
    assert_eq!(sandbox.run(["dev", "config", "--pc", "old"]).code, 65);
    assert_eq!(sandbox.run(["dev", "config", "--pc", "none"]).code, 65);
    for out in ["../elsewhere", "/tmp", ".", "gitops"] {
        assert_eq!(
            sandbox.run(["dev", "config", "--out", out]).code,
            64,
            "{out}"
        );
    }
}
