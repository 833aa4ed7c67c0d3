//! `update`, against chart repositories and registries on loopback.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use undercroft_render::digest;
use undercroft_testkit::{OrSkip as _, program};

use super::render::{cellar, state};
use crate::support::Sandbox;

/// Answers each request on loopback with one text, until the test ends.
fn serve(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let asked = lines.next().unwrap().unwrap();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let found = asked.starts_with("GET /charts/index.yaml ");
            let (status, body) = if found {
                ("200 OK", text)
            } else {
                ("404 Not Found", "")
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("http://{address}/charts")
}

const INDEX: &str = r#"
apiVersion: v1
entries:
  web:
  - { version: 1.2.0, appVersion: "12", kubeVersion: ">=1.25.0-0", digest: "abc" }
  - { version: 2.0.0, kubeVersion: ">=1.36.0-0" }
  - { version: 1.1.0 }
  - { version: 1.3.0-rc.1 }
"#;

fn lock(sandbox: &Sandbox, repository: &str) {
    sandbox.write(
        "undercroft.lock",
        &format!(
            "version = 1\n\n[components.web]\nrepository = \"{repository}\"\nchart = \"web\"\nversion = \"1.1.0\"\n\n[components.image]\nimage = \"registry.example/image\"\nversion = \"nightly\"\n"
        ),
    );
}

#[test]
fn an_update_raises_what_goes_with_the_cluster_and_shows_it() {
    let sandbox = cellar();
    lock(&sandbox, &serve(INDEX));
    let read = || fs::read_to_string(sandbox.dir().join("undercroft.lock")).unwrap();
    let before = read();
    let dry = sandbox.run(["--quiet", "update", "web", "image", "--dry-run"]);
    insta::assert_snapshot!(dry.text(), @r"
    exit code 2
    -- stdout
    COMPONENT  FROM     TO     NOTES
    image      nightly  -      a tag that isn't a version: set by hand
    web        1.1.0    1.2.0  brings 12 and 2.0.0 needs Kubernetes >=1.36.0-0
    ");
    assert_eq!(read(), before);
    assert_eq!(sandbox.run(["update", "web"]).code, 0);
    assert!(read().contains("version = \"1.2.0\"\napp_version = \"12\"\ndigest = \"sha256:abc\"\nkubernetes = \">=1.25.0-0\"\n"), "{}", read());
    // A certain version, forwards or back; not one that the cluster can't run.
    assert_eq!(sandbox.run(["update", "web=1.1.0"]).code, 0);
    assert!(read().contains("version = \"1.1.0\""));
    let refused = sandbox.run(["--quiet", "update", "web=2.0.0"]);
    insta::assert_snapshot!(refused.text(), @r"
    exit code 65
    -- stderr
    error: web 2.0.0 runs on Kubernetes >=1.36.0-0, and the cluster's is 1.34
      hint: Choose another version, or change kubernetes.version first.
    ");
    assert_eq!(sandbox.run(["update", "web=7.0.0"]).code, 65);
    assert_eq!(sandbox.run(["update", "nothing"]).code, 64);
}

#[test]
fn an_update_that_cannot_read_a_repository_writes_nothing() {
    let sandbox = cellar();
    let there = serve("<html>a page</html>");
    lock(&sandbox, &there);
    let before = state(&sandbox);
    let ran = sandbox.run(["update", "web"]);
    assert_eq!(ran.code, 1, "{}", ran.text());
    assert!(
        ran.err.contains("this is no index of a chart repository"),
        "{}",
        ran.err
    );
    lock(&sandbox, &there.replace("/charts", "/elsewhere"));
    let ran = sandbox.run(["update", "web"]);
    assert_eq!(ran.code, 1, "{}", ran.text());
    assert!(ran.err.contains("404"), "{}", ran.err);
    assert_eq!(state(&sandbox).len(), before.len());
}

/// A chart whose repository says another digest of the locked version than before.
#[test]
fn a_version_that_was_published_anew_is_not_taken() {
    let sandbox = cellar();
    lock(&sandbox, &serve(INDEX));
    assert_eq!(sandbox.run(["update", "web=1.2.0"]).code, 0);
    let path = sandbox.dir().join("undercroft.lock");
    let noted = fs::read_to_string(&path).unwrap();
    sandbox.write(
        "undercroft.lock",
        &noted.replace("sha256:abc", "sha256:def"),
    );
    let before = state(&sandbox);
    let ran = sandbox.run(["--quiet", "update", "web"]);
    assert_eq!(ran.code, 1, "{}", ran.text());
    let told = "undercroft.lock has sha256:def, and there it is sha256:abc now";
    assert!(ran.err.contains(told), "{}", ran.err);
    assert_eq!(state(&sandbox), before);
    // Without a digest it is noted, and that alone is nothing newer.
    sandbox.write(
        "undercroft.lock",
        &noted.replace("digest = \"sha256:abc\"\n", ""),
    );
    let ran = sandbox.run(["--quiet", "update", "web", "--dry-run"]);
    insta::assert_snapshot!(ran.text(), @r"
    exit code 0
    -- stdout
    COMPONENT  FROM   TO  NOTES
    web        1.2.0  -   2.0.0 needs Kubernetes >=1.36.0-0 and its digest is noted
    ");
    assert_eq!(sandbox.run(["update", "web"]).code, 0);
    assert_eq!(fs::read_to_string(&path).unwrap(), noted);
}

const STEPS: &str = r#"
apiVersion: v1
entries:
  longhorn:
  - { version: 1.12.1, digest: "ac" }
  - { version: 1.12.0, digest: "ab" }
  - { version: 1.11.4, digest: "aa" }
  - { version: 1.10.5 }
"#;

/// Longhorn is raised minor version by minor version and never lowered, by `update` and by hand.
#[test]
fn no_minor_version_of_longhorn_is_left_out() {
    let sandbox = cellar();
    let repository = serve(STEPS);
    sandbox.write(
        "undercroft.lock",
        &format!("version = 1\n\n[components.longhorn]\nrepository = \"{repository}\"\nchart = \"longhorn\"\nversion = \"1.10.0\"\n"),
    );
    let read = || fs::read_to_string(sandbox.dir().join("undercroft.lock")).unwrap();
    let refused = sandbox.run(["--quiet", "update", "longhorn=1.12.0"]);
    insta::assert_snapshot!(refused.text(), @r"
    exit code 65
    -- stderr
    error: longhorn can't go from 1.10.0 to 1.12.0 at once: Longhorn is raised from one minor version to the next, and never goes back (longhorn.io/docs/latest/deploy/upgrade; the chart's README)
      hint: `undercroft update longhorn` takes the newest 1.11 first; let it come up before the next step.
    ");
    let first = sandbox.run(["--quiet", "update", "longhorn"]);
    insta::assert_snapshot!(first.text(), @r"
    exit code 0
    -- stdout
    COMPONENT  FROM    TO      NOTES
    longhorn   1.10.0  1.11.4  a step on the way to 1.12.1
    ");
    assert!(
        read().contains("version = \"1.11.4\"\ndigest = \"sha256:aa\""),
        "{}",
        read()
    );
    assert_eq!(sandbox.run(["update", "longhorn"]).code, 0);
    assert!(read().contains("version = \"1.12.1\""), "{}", read());
    for lower in ["1.12.0", "1.11.4"] {
        let ran = sandbox.run(["update", &format!("longhorn={lower}")]);
        assert_eq!(ran.code, 65, "{}", ran.text());
    }
}

/// What a registry holds, by path, and what it was asked.
#[derive(Default)]
struct Registry {
    answers: BTreeMap<String, (String, Vec<u8>)>,
    pages: Vec<(String, String)>,
    asked: Vec<String>,
    lies: bool,
}

/// A registry on loopback that speaks as Docker's does: nothing without a token, which its token
/// service gives to anybody, and tags in pages.
fn registry(registry: Registry) -> (String, Arc<Mutex<Registry>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let shared = Arc::new(Mutex::new(registry));
    let (own, state) = (host.clone(), Arc::clone(&shared));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            answer(stream, &own, &state);
        }
    });
    (host, shared)
}

fn answer(mut stream: TcpStream, host: &str, registry: &Mutex<Registry>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let asked = lines.next().unwrap().unwrap();
    let path = asked.split(' ').nth(1).unwrap().to_owned();
    let mut authorized = false;
    for line in lines.map_while(Result::ok).take_while(|l| !l.is_empty()) {
        authorized |= line.eq_ignore_ascii_case("authorization: Bearer let-me-in");
    }
    let mut registry = registry.lock().unwrap();
    registry.asked.push(path.clone());
    let (mut status, mut head, mut body) = ("404 Not Found", String::new(), Vec::new());
    if path.starts_with("/token?") {
        status = "200 OK";
        body = b"{\"token\": \"let-me-in\", \"expires_in\": 300}".to_vec();
    } else if !authorized {
        status = "401 Unauthorized";
        head = format!(
            "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"the registry\",scope=\"repository:x:pull\"\r\n"
        );
    } else if let Some((page, rest)) = registry.pages.iter().find(|(of, _)| *of == path) {
        status = "200 OK";
        let next = format!("{page}&last");
        if registry.pages.iter().any(|(of, _)| *of == next) {
            head = format!("Link: <{next}>; rel=\"next\"\r\n");
        }
        body = format!("{{\"name\": \"x\", \"tags\": {rest}}}").into_bytes();
    } else if let Some((kind, content)) = registry.answers.get(&path) {
        status = "200 OK";
        let said = if registry.lies {
            b"else"
        } else {
            content.as_slice()
        };
        head = format!(
            "Content-Type: {kind}\r\nDocker-Content-Digest: sha256:{}\r\n",
            digest(said)
        );
        body.clone_from(content);
    }
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(&body);
}

const CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
const CONTENT: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

/// A chart as `helm push` puts it into a registry: its description, its archive, its manifest.
fn chart(version: &str, kubernetes: &str) -> (String, String, String) {
    let config = format!(
        "{{\"name\":\"web\",\"version\":\"{version}\",\"appVersion\":\"app-{version}\",\"kubeVersion\":\"{kubernetes}\"}}"
    );
    let archive = format!("the archive of {version}");
    let blob = |kind: &str, text: &str| {
        let (digest, size) = (digest(text.as_bytes()), text.len());
        format!("{{\"mediaType\":\"{kind}\",\"digest\":\"sha256:{digest}\",\"size\":{size}}}")
    };
    let manifest = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{OCI}\",\"config\":{},\"layers\":[{}]}}",
        blob(CONFIG, &config),
        blob(CONTENT, &archive)
    );
    (config, archive, manifest)
}

fn oci_lock(sandbox: &Sandbox, host: &str) {
    sandbox.write(
        "undercroft.lock",
        &format!(
            "version = 1\n\n[components.web]\nrepository = \"oci://{host}/charts\"\nchart = \"web\"\nversion = \"1.1.0\"\n\n[components.image]\nimage = \"{host}/tools/image\"\nversion = \"v0.9.0\"\n"
        ),
    );
}

#[test]
fn charts_and_images_of_a_registry_are_raised_with_their_digests() {
    let mut held = Registry::default();
    for (version, kubernetes) in [
        ("1.1.0", ">=1.25.0-0"),
        ("1.10.0_2", ">=1.25.0-0"),
        ("2.0.0", ">=1.36.0-0"),
    ] {
        let (config, _, manifest) = chart(version, kubernetes);
        let blob = format!("/v2/charts/web/blobs/sha256:{}", digest(config.as_bytes()));
        held.answers
            .insert(blob, (CONFIG.to_owned(), config.into_bytes()));
        let tag = format!("/v2/charts/web/manifests/{version}");
        held.answers
            .insert(tag, (OCI.to_owned(), manifest.into_bytes()));
    }
    for version in ["v0.9.0", "v0.10.0"] {
        let tag = format!("/v2/tools/image/manifests/{version}");
        let list = "application/vnd.oci.image.index.v1+json".to_owned();
        held.answers.insert(
            tag,
            (list, format!("{{\"of\":\"{version}\"}}").into_bytes()),
        );
    }
    let charts = "/v2/charts/web/tags/list?n=1000".to_owned();
    held.pages = vec![
        (charts.clone(), "[\"1.1.0\", \"latest\"]".to_owned()),
        (
            format!("{charts}&last"),
            "[\"2.0.0\", \"3.0.0-rc.1\"]".to_owned(),
        ),
        (format!("{charts}&last&last"), "[\"1.10.0_2\"]".to_owned()),
        (
            "/v2/tools/image/tags/list?n=1000".to_owned(),
            "[\"v0.9.0\", \"v0.10.0\", \"v0.10.0-debug\", \"edge\"]".to_owned(),
        ),
    ];
    let (host, held) = registry(held);
    let sandbox = cellar();
    oci_lock(&sandbox, &host);
    let ran = sandbox.run(["--quiet", "update", "web", "image"]);
    insta::assert_snapshot!(ran.text(), @r"
    exit code 0
    -- stdout
    COMPONENT  FROM    TO        NOTES
    image      v0.9.0  v0.10.0   may break something
    web        1.1.0   1.10.0+2  brings app-1.10.0_2 and 2.0.0 needs Kubernetes >=1.36.0-0
    ");
    let lock = fs::read_to_string(sandbox.dir().join("undercroft.lock")).unwrap();
    let (_, archive, _) = chart("1.10.0_2", "");
    let archive = format!("digest = \"sha256:{}\"", digest(archive.as_bytes()));
    assert!(lock.contains(&archive), "{lock}");
    let image = format!("digest = \"sha256:{}\"", digest(b"{\"of\":\"v0.10.0\"}"));
    assert!(lock.contains(&image), "{lock}");
    // One token for each repository, however often it is asked.
    let asked = held.lock().unwrap().asked.clone();
    let tokens: Vec<&String> = asked
        .iter()
        .filter(|path| path.starts_with("/token?"))
        .collect();
    assert_eq!(tokens.len(), 2, "{tokens:?}");
    assert!(
        tokens.iter().all(|token| token.contains("service=the")),
        "{tokens:?}"
    );
    // What isn't there, and what isn't what its digest says, is not taken.
    let before = state(&sandbox);
    assert_eq!(sandbox.run(["update", "web=7.0.0"]).code, 65);
    held.lock().unwrap().lies = true;
    let ran = sandbox.run(["--quiet", "update", "image"]);
    assert_eq!(ran.code, 1, "{}", ran.text());
    assert!(
        ran.err.contains("isn't what its digest says"),
        "{}",
        ran.err
    );
    assert_eq!(state(&sandbox), before);
}

#[test]
fn a_registry_that_wants_a_password_or_has_no_end_is_told_so() {
    let sandbox = cellar();
    // Each page is followed by the same one.
    let (host, held) = registry(Registry::default());
    oci_lock(&sandbox, &host);
    let before = state(&sandbox);
    let ran = sandbox.run(["--quiet", "update", "image"]);
    assert_eq!(ran.code, 1, "{}", ran.text());
    assert!(
        ran.err.contains("there is nothing at http://"),
        "{}",
        ran.err
    );
    let endless: Vec<(String, String)> = (0..300)
        .map(|i| {
            let path = format!("/v2/tools/image/tags/list?n=1000{}", "&last".repeat(i));
            (path, "[\"v0.9.1-rc.1\"]".to_owned())
        })
        .collect();
    held.lock().unwrap().pages = endless;
    let ran = sandbox.run(["--quiet", "update", "image"]);
    assert_eq!(ran.code, 1, "{}", ran.text());
    assert!(
        ran.err.contains("more than 200 pages of tags"),
        "{}",
        ran.err
    );
    assert_eq!(state(&sandbox), before);
}

/// The registry of Debian's package `docker-registry`, on loopback and in memory.
struct Real {
    child: Child,
    host: String,
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Real {
    fn start(sandbox: &Sandbox) -> Option<Self> {
        let program = program("docker-registry", "docker-registry").or_skip()?;
        // The port is free again for the registry as soon as it is known here.
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let host = free.to_string();
        sandbox.write(
            "registry.yml",
            &format!("version: 0.1\nlog:\n  level: error\nstorage:\n  inmemory: {{}}\nhttp:\n  addr: {host}\n"),
        );
        let child = Command::new(program)
            .args(["serve", "registry.yml"])
            .current_dir(sandbox.dir())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let real = Self { child, host };
        let until = Instant::now() + Duration::from_secs(60);
        while ureq::get(format!("http://{}/v2/", real.host))
            .call()
            .is_err()
        {
            assert!(Instant::now() < until, "the registry doesn't answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(real)
    }

    /// Uploads a blob as the specification has it: a session, then all of it at once.
    fn blob(&self, name: &str, content: &str) {
        let begun = ureq::post(format!("http://{}/v2/{name}/blobs/uploads/", self.host))
            .send_empty()
            .unwrap();
        assert_eq!(begun.status(), 202);
        let session = begun.headers()["Location"].to_str().unwrap();
        let and = if session.contains('?') { '&' } else { '?' };
        let digest = digest(content.as_bytes());
        let done = ureq::put(format!("{session}{and}digest=sha256%3A{digest}"))
            .content_type("application/octet-stream")
            .send(content)
            .unwrap();
        assert_eq!(done.status(), 201);
    }

    fn manifest(&self, name: &str, tag: &str, content: &str) {
        let done = ureq::put(format!("http://{}/v2/{name}/manifests/{tag}", self.host))
            .content_type(OCI)
            .send(content)
            .unwrap();
        assert_eq!(done.status(), 201);
    }
}

#[test]
fn the_real_registry_is_understood() {
    let sandbox = cellar();
    let Some(real) = Real::start(&sandbox) else {
        return;
    };
    for (version, kubernetes) in [("1.1.0", ""), ("1.2.0", ">=1.25.0-0"), ("1.3.0", "<1.30")] {
        let (config, archive, manifest) = chart(version, kubernetes);
        real.blob("charts/web", &config);
        real.blob("charts/web", &archive);
        real.manifest("charts/web", version, &manifest);
        let image = chart(&format!("image-{version}"), "");
        real.blob("tools/image", &image.0);
        real.blob("tools/image", &image.1);
        real.manifest("tools/image", &format!("v{version}"), &image.2);
    }
    oci_lock(&sandbox, &real.host);
    let ran = sandbox.run(["--quiet", "update", "web", "image"]);
    insta::assert_snapshot!(ran.text(), @r"
    exit code 0
    -- stdout
    COMPONENT  FROM    TO      NOTES
    image      v0.9.0  v1.3.0  may break something
    web        1.1.0   1.2.0   brings app-1.2.0 and 1.3.0 needs Kubernetes <1.30
    ");
    let lock = fs::read_to_string(sandbox.dir().join("undercroft.lock")).unwrap();
    for content in [chart("1.2.0", "").1, chart("image-1.3.0", "").2] {
        let digest = digest(content.as_bytes());
        assert!(lock.contains(&digest), "{lock}");
    }
}

/// A registry that says hostile things wherever it can: in an index, in a status, in a body that is none.
#[test]
fn no_registry_steers_the_terminal() {
    const HOSTILE: &str =
        "A\u{1b}[2J\u{7}\u{9b}31m\u{202e}\u{2066}\u{200b}\u{2028}\u{feff}\r\u{8}Z";
    let escaped: String = HOSTILE
        .chars()
        .map(|c| match u32::from(c) < 0x80 && !c.is_control() {
            true => c.to_string(),
            false => format!("\\u{:04x}", u32::from(c)),
        })
        .collect();
    let index = |version: &str, more: &str| {
        format!(
            "apiVersion: v1\nentries:\n  web:\n  - {{ version: \"{version}\", appVersion: \"{escaped}\", kubeVersion: \"{more}\", digest: \"{escaped}\", description: \"{escaped}\" }}\n"
        )
    };
    let bodies = [
        index("1.2.0", ">=1.25.0-0"),
        index("1.2.0", &escaped),
        index(&format!("1.2.0-{escaped}"), ""),
        index(&escaped, ""),
        format!("apiVersion: \"{escaped}\"\nentries: {{}}\n"),
        format!("<html>{HOSTILE}</html>"),
        format!("entries: [{HOSTILE}"),
        HOSTILE.to_owned(),
    ];
    let mut shown = 0;
    for body in bodies {
        let sandbox = cellar();
        lock(&sandbox, &serve(body.clone().leak()));
        for more in [&[][..], &["--dry-run"], &["--json"], &["-v"]] {
            let ran = sandbox.run(["update", "web"].iter().chain(more));
            let what = format!("{more:?} {body:?}");
            super::hostile_text::assert_fit(&what, &ran.out, false);
            super::hostile_text::assert_fit(&what, &ran.err, false);
            shown += ran.text().matches("202e").count();
        }
    }
    assert!(shown > 0, "nothing of it was shown");
}
