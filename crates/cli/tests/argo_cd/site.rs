//! A cluster with an Argo CD that reads a rendered tree.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use undercroft_kube::{Apply, Cluster, Helm, HelmChart, Manifest, parse};
use undercroft_testkit::{OrSkip as _, peer, program};

use crate::{
    charts::{self, ChartSource},
    kube_common::{ApiServer, Running, crd_files, free_port, walk},
    web,
};

/// How long anything here may take. All of it together takes a minute or two on two busy cores.
pub(crate) const WAIT: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(300);
/// Seconds between two looks of Argo CD at the repository.
const POLL_S: u32 = 10;
/// The namespace of Argo CD.
pub(crate) const ARGOCD: &str = "argocd";

/// The kind of Argo CD's own objects.
pub(crate) const APPLICATION: &str = "argoproj.io/v1alpha1/Application";
/// The kind of the test's own objects.
pub(crate) const CONFIG_MAP: &str = "v1/ConfigMap";

pub(crate) struct Site {
    pub(crate) server: ApiServer,
    pub(crate) cluster: Cluster,
    helm: PathBuf,
    argocd: PathBuf,
    redis: PathBuf,
    web_root: TempDir,
    port: u16,
    /// What the user has: the inventory, the rendered tree, a clone of the repository.
    pub(crate) fleet: PathBuf,
    argo: Vec<Running>,
}

impl Site {
    /// The basement's cluster with its first commit pushed, and nothing in it. `None`, said aloud,
    /// where a program isn't there.
    pub(crate) async fn new() -> Option<Self> {
        let helm = peer("helm").or_skip()?;
        let argocd = peer("argocd").or_skip()?;
        let redis = program("redis-server", "redis-server").or_skip()?;
        let git = program("git", "git").or_skip()?;
        let server = ApiServer::start().await?;
        let web_root = tempfile::tempdir().unwrap();
        let port = web::serve(web_root.path());
        let fleet = web_root.path().join("fleet");
        let site = Self {
            cluster: server.cluster(),
            server,
            helm,
            argocd,
            redis,
            port,
            fleet,
            web_root,
            argo: Vec::new(),
        };
        site.write_inventory();
        let bare = site.web_root.path().join("git/fleet.git");
        fs::create_dir_all(&bare).unwrap();
        run(Command::new(&git)
            .args(["init", "--quiet", "--bare", "--initial-branch=main"])
            .arg(&bare));
        site.git(&["init", "--quiet", "--initial-branch=main"]);
        site.git(&["remote", "add", "origin", &bare.display().to_string()]);
        site.push("The first");
        Some(site)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// The basement, with a repository and charts that are to be had here.
    fn write_inventory(&self) {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/basement");
        let mut files = Vec::new();
        walk(&example, &mut files);
        for file in files {
            let to = self.fleet.join(file.strip_prefix(&example).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(file, to).unwrap();
        }
        let repository = self.url("git/fleet.git");
        self.edit("undercroft.toml", |text| {
            let inventory: Vec<String> = text
                .lines()
                .map(|line| match line {
                    line if line.starts_with("repository = ") => {
                        format!("repository = {repository:?}\npoll_s = {POLL_S}")
                    }
                    line => line.to_owned(),
                })
                .collect();
            inventory.join("\n") + "\n"
        });
        // What a user with a mirror of the charts' repositories writes.
        self.edit("undercroft.lock", |text| {
            let lock: Vec<String> = text
                .lines()
                .map(|line| match line.strip_prefix("repository = ") {
                    Some(url) => {
                        let mirrored = web::mirror(url.trim_matches('"'));
                        format!("repository = {:?}", self.url(&format!("charts/{mirrored}")))
                    }
                    None => line.to_owned(),
                })
                .collect();
            lock.join("\n") + "\n"
        });
    }

    /// Changes a file of the user's.
    pub(crate) fn edit(&self, file: &str, change: impl Fn(&str) -> String) {
        let path = self.fleet.join(file);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let changed = change(&text);
        assert_ne!(text, changed, "{file} is as it was");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, changed).unwrap();
    }

    /// Renders, commits and pushes, as a user does; and sees to it that the charts are published.
    pub(crate) fn push(&self, message: &str) {
        self.push_without(message, "");
    }

    /// The same, with a component's chart left unpublished.
    pub(crate) fn push_without(&self, message: &str, unpublished: &str) {
        self.render(&[]);
        self.publish_and_push(message, unpublished);
    }

    /// The same, rendered with further words.
    pub(crate) fn push_with(&self, message: &str, words: &[&str]) {
        self.render(words);
        self.publish_and_push(message, "");
    }

    fn render(&self, words: &[&str]) {
        run(Command::new(env!("CARGO_BIN_EXE_undercroft"))
            .arg("render")
            .args(words)
            .arg(&self.fleet));
    }

    fn publish_and_push(&self, message: &str, unpublished: &str) {
        self.publish(|chart| chart.component != unpublished);
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
        self.git(&["push", "--quiet", "origin", "main"]);
    }

    /// The newest commit.
    pub(crate) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    fn git(&self, words: &[&str]) -> String {
        run(Command::new("git")
            .args([
                "-c",
                "user.name=A test",
                "-c",
                "user.email=test@example.org",
            ])
            .arg("-C")
            .arg(&self.fleet)
            .args(words))
    }

    /// Every object of the rendered tree.
    pub(crate) fn objects(&self) -> Vec<Manifest> {
        let mut files = Vec::new();
        walk(&self.fleet.join("gitops"), &mut files);
        let mut objects = Vec::new();
        for file in files {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with(".yaml") && name != "values.yaml" && name != "order.yaml" {
                let text = fs::read_to_string(&file).unwrap();
                objects.extend(parse(&name, &text).unwrap());
            }
        }
        objects
    }

    fn publish(&self, which: impl Fn(&ChartSource) -> bool) {
        let objects = self.objects();
        let mut charts = charts::sources(&objects);
        charts.retain(which);
        assert!(!charts.is_empty());
        charts::pack(&self.helm, &charts, &objects, &|chart| {
            let (_, mirrored) = chart.repository.rsplit_once('/').unwrap();
            self.web_root.path().join("charts").join(mirrored)
        });
    }

    /// Brings in what the bootstrap brings, in its order and by its own means, and starts Argo CD
    /// where the pods of its chart would start.
    pub(crate) async fn bootstrap(&mut self) {
        self.apply(&argo_cd_kinds(), Apply::Always).await;
        let order = fs::read_to_string(self.fleet.join("gitops/bootstrap/order.yaml")).unwrap();
        let order = undercroft_render::yaml::parse(&order).unwrap();
        for step in order["steps"].as_array().unwrap() {
            let text = |key: &str| step[key].as_str().unwrap().to_owned();
            if step["do"] == "apply" {
                let file = fs::read_to_string(self.fleet.join(text("file"))).unwrap();
                let objects = parse(&text("file"), &file).unwrap();
                self.apply(&objects, Apply::WhereAbsent).await;
                continue;
            }
            let values = fs::read_to_string(self.fleet.join(text("values"))).unwrap();
            let (_, mirrored) = text("repository")
                .rsplit_once('/')
                .map_or_else(|| panic!("{step}"), |(a, b)| (a.to_owned(), b.to_owned()));
            let archive = format!(
                "charts/{mirrored}/{}-{}.tgz",
                text("chart"),
                text("version")
            );
            let archive = fs::read(self.web_root.path().join(archive)).unwrap();
            let chart = HelmChart {
                name: text("chart"),
                repository: text("repository"),
                version: text("version"),
                // The stand-in's, which the lock file can't know.
                digest: Some(format!("sha256:{}", undercroft_render::digest(&archive))),
                release: text("release"),
                namespace: text("namespace"),
                values: values.clone(),
            };
            let helm = Helm::new(&self.helm, self.web_root.path().join("cache"));
            let version = self.cluster.version().await.unwrap();
            let objects = helm.render(&chart, &version).await.unwrap();
            self.cluster
                .apply_all(&objects, &chart.namespace, Apply::WhereAbsent)
                .await
                .unwrap();
            if text("component") == "argo-cd" {
                self.secrets().await;
                self.start_argo_cd(&undercroft_render::yaml::parse(&values).unwrap());
            }
        }
    }

    async fn apply(&self, objects: &[Manifest], apply: Apply) {
        self.cluster
            .apply_all(objects, ARGOCD, apply)
            .await
            .unwrap();
    }

    /// The credentials, as the bootstrap gives them to Argo CD, and what Argo CD's server would
    /// put into its own Secret.
    async fn secrets(&self) {
        let secret = |name: &str, labels: Value, data: Value| {
            let object = json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": { "name": name, "namespace": ARGOCD, "labels": labels },
                "type": "Opaque",
                "stringData": data,
            });
            Manifest::new("the fleet's secrets", object).unwrap()
        };
        let secrets = [
            secret(
                "fleet-repository",
                json!({ "argocd.argoproj.io/secret-type": "repository" }),
                json!({
                    "type": "git",
                    "url": self.url("git/fleet.git"),
                    "username": web::USER,
                    "password": web::PASSWORD,
                }),
            ),
            secret(
                "argocd-secret",
                json!({ "app.kubernetes.io/part-of": "argocd" }),
                json!({ "server.secretkey": "a key of the test's" }),
            ),
        ];
        self.apply(&secrets, Apply::Always).await;
    }

    /// Starts Argo CD with the settings that its chart would hand to it.
    fn start_argo_cd(&mut self, values: &Value) {
        let home = self.web_root.path().join("argo-cd");
        for folder in ["bin", "tls", "ssh", "plugins", "tmp"] {
            fs::create_dir_all(home.join(folder)).unwrap();
        }
        // It starts both by their names; itself, where git asks it for the password.
        for (program, name) in [(&self.helm, "helm"), (&self.argocd, "argocd")] {
            symlink(program, home.join("bin").join(name)).unwrap();
        }
        // It asks for a commit's signature even where nobody wants one.
        let verify = home.join("bin/git-verify-wrapper.sh");
        fs::write(&verify, "#!/bin/sh\nexit 0\n").unwrap();
        fs::set_permissions(&verify, Permissions::from_mode(0o755)).unwrap();
        let kubeconfig = home.join("kubeconfig");
        fs::write(&kubeconfig, self.server.direct_kubeconfig()).unwrap();
        let redis_port = free_port();
        let mut redis = Command::new(&self.redis);
        redis
            .args(["--bind", "127.0.0.1", "--port", &redis_port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(&home);
        self.argo
            .push(Running::start(&mut redis, &home.join("redis.log")));
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", home.join("bin").display());
        let repo_server = format!("127.0.0.1:{}", free_port());
        let (_, repo_port) = repo_server.split_once(':').unwrap();
        let redis = format!("127.0.0.1:{redis_port}");
        let cm = &values["configs"]["cm"];
        let params = &values["configs"]["params"];
        let start = |name: &str, args: &[&str]| {
            let mut command = Command::new(&self.argocd);
            command
                .args(args)
                .args(["--redis", &redis])
                .env("ARGOCD_BINARY_NAME", name)
                .env("PATH", &path)
                .env("HOME", &home)
                .env("TMPDIR", home.join("tmp"))
                .env("KUBECONFIG", &kubeconfig)
                // The cluster that Argo CD is in is the one of its kubeconfig.
                .env("ARGOCD_FAKE_IN_CLUSTER", "true")
                .env("ARGOCD_GPG_ENABLED", "false")
                .env("ARGOCD_TLS_DATA_PATH", home.join("tls"))
                .env("ARGOCD_SSH_DATA_PATH", home.join("ssh"))
                .env("ARGOCD_PLUGINSOCKFILEPATH", home.join("plugins"))
                .env("ARGOCD_ASK_PASS_SOCK", home.join("ask-pass.sock"))
                .env("ARGOCD_RECONCILIATION_JITTER", "0s")
                .env(
                    "ARGOCD_RECONCILIATION_TIMEOUT",
                    cm["timeout.reconciliation"].as_str().unwrap(),
                )
                .env(
                    "ARGOCD_APPLICATION_CONTROLLER_SERVER_SIDE_DIFF",
                    params["controller.diff.server.side"].to_string(),
                );
            Running::start(&mut command, &home.join(format!("{name}.log")))
        };
        let metrics = free_port().to_string();
        let repo = start(
            "argocd-repo-server",
            &[
                "--address=127.0.0.1",
                "--port",
                repo_port,
                "--metrics-address=127.0.0.1",
                "--metrics-port",
                &metrics,
            ],
        );
        let metrics = free_port().to_string();
        let controller = start(
            "argocd-application-controller",
            &[
                "--namespace",
                ARGOCD,
                "--repo-server",
                &repo_server,
                "--metrics-port",
                &metrics,
            ],
        );
        self.argo.extend([repo, controller]);
    }

    /// Plays the garbage collector for as long as the test lasts: Argo CD deletes in the foreground,
    /// which ends when the collector says that nothing depends on the object any more.
    pub(crate) fn play_garbage_collector(&self) {
        const FOREGROUND: &str = "foregroundDeletion";
        let kinds = [
            CONFIG_MAP,
            APPLICATION,
            "cert-manager.io/v1/Certificate",
            "cert-manager.io/v1/Issuer",
            "monitoring.coreos.com/v1/PodMonitor",
        ];
        let lists: Vec<(Api<DynamicObject>, &str)> = kinds
            .into_iter()
            .map(|kind| (self.api(kind, None), kind))
            .collect();
        let client = self.server.client();
        tokio::spawn(async move {
            loop {
                for (api, kind) in &lists {
                    // A kind may not be there yet.
                    let found = api.list(&ListParams::default()).await;
                    for object in found.into_iter().flat_map(|list| list.items) {
                        let metadata = object.metadata;
                        let mut finalizers = metadata.finalizers.unwrap_or_default();
                        let dying = metadata.deletion_timestamp.is_some();
                        if !dying || !finalizers.iter().any(|name| name == FOREGROUND) {
                            continue;
                        }
                        finalizers.retain(|name| name != FOREGROUND);
                        let patch = json!({ "metadata": { "finalizers": finalizers } });
                        let namespace = metadata.namespace.unwrap_or_default();
                        let one: Api<DynamicObject> =
                            Api::namespaced_with(client.clone(), &namespace, &resource(kind));
                        let name = metadata.name.unwrap_or_default();
                        // It may be gone by now, or changed; then the next round does it.
                        let params = PatchParams::default();
                        let _ = one.patch(&name, &params, &Patch::Merge(patch)).await;
                    }
                }
                tokio::time::sleep(POLL).await;
            }
        });
    }

    /// A way to objects of a kind: `v1/ConfigMap`, `apps/v1/DaemonSet`.
    pub(crate) fn api(&self, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let resource = resource(kind);
        match namespace {
            Some(namespace) => Api::namespaced_with(self.server.client(), namespace, &resource),
            None => Api::all_with(self.server.client(), &resource),
        }
    }

    pub(crate) async fn get(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Option<DynamicObject> {
        let api = self.api(kind, Some(namespace));
        api.get_opt(name).await.unwrap()
    }

    pub(crate) async fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let api = self.api(kind, Some(namespace));
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Changes an object behind Argo CD's back.
    pub(crate) async fn meddle(&self, kind: &str, namespace: &str, name: &str, change: Value) {
        let params = PatchParams::apply("somebody");
        let api = self.api(kind, Some(namespace));
        let patch = Patch::Merge(change);
        api.patch(
            name,
            &PatchParams {
                field_manager: params.field_manager,
                ..PatchParams::default()
            },
            &patch,
        )
        .await
        .unwrap();
    }

    /// The Applications that are there, by name.
    pub(crate) async fn applications(&self) -> BTreeMap<String, DynamicObject> {
        let api = self.api(APPLICATION, Some(ARGOCD));
        let list = api.list(&ListParams::default()).await.unwrap();
        let named = list.items.into_iter();
        named
            .map(|object| (object.metadata.name.clone().unwrap(), object))
            .collect()
    }

    /// Waits until the Applications are as wished.
    pub(crate) async fn wait(
        &self,
        what: &str,
        done: impl Fn(&BTreeMap<String, DynamicObject>) -> bool,
    ) -> BTreeMap<String, DynamicObject> {
        let until = Instant::now() + WAIT;
        loop {
            let applications = self.applications().await;
            if done(&applications) {
                return applications;
            }
            assert!(
                Instant::now() < until,
                "{what}: it isn't so after {} s\n{}{}",
                WAIT.as_secs(),
                shown(&applications),
                self.logs()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until something can be had.
    pub(crate) async fn wait_for<T, F: Future<Output = Option<T>>>(
        &self,
        what: &str,
        look: impl Fn() -> F,
    ) -> T {
        let until = Instant::now() + WAIT;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            if Instant::now() > until {
                let applications = self.applications().await;
                panic!(
                    "{what}: not in {} s\n{}{}",
                    WAIT.as_secs(),
                    shown(&applications),
                    self.logs()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The ends of Argo CD's logs.
    fn logs(&self) -> String {
        let mut shown = String::new();
        for name in ["argocd-repo-server", "argocd-application-controller"] {
            let file = self.web_root.path().join(format!("argo-cd/{name}.log"));
            let text = fs::read_to_string(file).unwrap_or_default();
            let worth: Vec<&str> = text
                .lines()
                .filter(|line| !line.contains("\"level\":\"info\""))
                .collect();
            let tail = worth.iter().rev().take(20).rev();
            shown.push_str(&format!("--- {name}\n"));
            for line in tail {
                shown.push_str(line);
                shown.push('\n');
            }
        }
        shown
    }
}

fn resource(kind: &str) -> ApiResource {
    let (api_version, kind) = kind.rsplit_once('/').unwrap();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// A field of an object as text; empty where it isn't there.
pub(crate) fn text<'a>(object: &'a DynamicObject, path: &str) -> &'a str {
    object
        .data
        .pointer(path)
        .and_then(Value::as_str)
        .unwrap_or("")
}

/// Whether an Application is synced and healthy, and its last operation has succeeded.
pub(crate) fn settled(application: &DynamicObject) -> bool {
    text(application, "/status/sync/status") == "Synced"
        && text(application, "/status/health/status") == "Healthy"
        && text(application, "/status/operationState/phase") == "Succeeded"
}

/// Applications, for people.
fn shown(applications: &BTreeMap<String, DynamicObject>) -> String {
    let mut out = String::new();
    for (name, application) in applications {
        let of = |path: &str| text(application, path).to_owned();
        out.push_str(&format!(
            "{name}: {} {} {} {}\n{}\n",
            of("/status/sync/status"),
            of("/status/health/status"),
            of("/status/operationState/phase"),
            of("/status/operationState/message"),
            application
                .data
                .pointer("/status/conditions")
                .unwrap_or(&Value::Null),
        ));
    }
    out
}

/// The kinds of Argo CD's own, which its chart brings.
fn argo_cd_kinds() -> Vec<Manifest> {
    let mut kinds = Vec::new();
    for file in crd_files() {
        let text = fs::read_to_string(&file).unwrap();
        let found = parse(&file.display().to_string(), &text).unwrap();
        kinds.extend(
            found
                .into_iter()
                .filter(|crd| crd.name().ends_with(".argoproj.io")),
        );
    }
    kinds
}

/// What a command says, which must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
