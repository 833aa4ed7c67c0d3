//! What registries of the OCI distribution specification say, and how they are asked: names,
//! challenges, pages and manifests as texts, without asking anybody.
//!
//! Sources: the OCI distribution specification 1.1 (`/v2/NAME/tags/list`, `/v2/NAME/manifests/TAG`,
//! `/v2/NAME/blobs/DIGEST`, paging by `Link`), the OCI image specification's manifest, distribution's
//! "Token Authentication Specification", and Helm's media types for charts in registries.

use serde::Deserialize;

/// What Docker calls the registry that a name without a host means.
const DOCKER: &str = "docker.io";
/// The host that serves it.
const DOCKER_HOST: &str = "registry-1.docker.io";
/// A chart's `Chart.yaml` as JSON.
const CHART_CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
/// A chart's archive.
const CHART_CONTENT: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
/// The forms of a manifest that are taken.
pub const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// A repository in a registry: the tags of one chart or one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// The host, with its port where it has one.
    pub host: String,
    /// The name in the registry.
    pub name: String,
}

impl Repository {
    /// The repository of a chart, of the `oci://…` that charts are in and the chart's name.
    pub fn of_chart(url: &str, chart: &str) -> Option<Self> {
        let (host, path) = url
            .strip_prefix("oci://")?
            .trim_end_matches('/')
            .split_once('/')
            .unwrap_or((url.strip_prefix("oci://")?.trim_end_matches('/'), ""));
        let name = if path.is_empty() {
            chart.to_owned()
        } else {
            format!("{path}/{chart}")
        };
        Self::new(host, name)
    }

    /// The repository of an image, by the rules with which a container runtime reads its name:
    /// what isn't a host is a part of the path, and Docker's registry is meant.
    pub fn of_image(image: &str) -> Option<Self> {
        match image.split_once('/') {
            Some((host, name)) if host.contains(['.', ':']) || host == "localhost" => {
                Self::new(host, name.to_owned())
            }
            Some(_) => Self::new(DOCKER, image.to_owned()),
            None => Self::new(DOCKER, format!("library/{image}")),
        }
    }

    fn new(host: &str, name: String) -> Option<Self> {
        let name_ok = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
        let parts_ok = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        let good = is_authority(host) && name.chars().all(name_ok) && parts_ok;
        good.then(|| Self {
            host: if host == DOCKER { DOCKER_HOST } else { host }.to_owned(),
            name,
        })
    }

    /// Whether it is asked in plain text: only on this very machine, as container runtimes do.
    pub fn is_local(&self) -> bool {
        let (host, _) = split_port(&self.host);
        is_loopback(host)
    }

    /// The URL of something below the repository, such as `tags/list`.
    pub fn url(&self, below: &str) -> String {
        self.at(&format!("/v2/{}/{below}", self.name))
    }

    /// The URL of a path of the registry.
    pub fn at(&self, path: &str) -> String {
        let scheme = if self.is_local() { "http" } else { "https" };
        format!("{scheme}://{}{path}", self.host)
    }

    /// What a token has to allow.
    pub fn scope(&self) -> String {
        format!("repository:{}:pull", self.name)
    }
}

/// A host and its port, where it has one.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (host, Some(port)),
        _ => (authority, None),
    }
}

/// A name of labels (RFC 1123, 2.1), an IPv4 address, or an IPv6 address in brackets; with a port or
/// without.
fn is_authority(text: &str) -> bool {
    let (host, port) = split_port(text);
    let label_ok = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty()
            && label.chars().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let host_ok = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label_ok),
    };
    host_ok && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host == "[::1]" || {
        let address: Result<std::net::Ipv4Addr, _> = host.parse();
        address.is_ok_and(|address| address.is_loopback())
    }
}

/// How a registry wants to be asked, from its `WWW-Authenticate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// With a token, which `realm` gives to anybody.
    Bearer {
        /// URL of the token service.
        realm: String,
        /// What the token is for.
        service: Option<String>,
    },
    /// In another way, such as with a password.
    Other,
}

impl Challenge {
    /// Reads the header (RFC 9110, 11.6.1) as far as one challenge goes.
    pub fn parse(header: &str) -> Self {
        let Some((scheme, rest)) = header.trim().split_once(' ') else {
            return Self::Other;
        };
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Self::Other;
        }
        let (mut realm, mut service) = (None, None);
        for (key, value) in parameters(rest) {
            match key.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                _ => {}
            }
        }
        match realm {
            Some(realm) => Self::Bearer { realm, service },
            None => Self::Other,
        }
    }

    /// Whether a token service may be asked: over TLS, or on this very machine.
    pub fn is_safe(realm: &str) -> bool {
        if realm.starts_with("https://") {
            return true;
        }
        let Some(rest) = realm.strip_prefix("http://") else {
            return false;
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, _) = split_port(authority);
        is_loopback(host)
    }
}

/// `key=value` and `key="value"`, parted by commas.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',', '\t']).to_owned();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut chars = quoted.char_indices();
                let mut end = quoted.len();
                while let Some((i, c)) = chars.next() {
                    match c {
                        '\\' => value.extend(chars.next().map(|(_, c)| c)),
                        '"' => {
                            end = i + 1;
                            break;
                        }
                        c => value.push(c),
                    }
                }
                (value, quoted.get(end..).unwrap_or_default())
            }
            None => match after.split_once(',') {
                Some((value, after)) => (value.trim().to_owned(), after),
                None => (after.trim().to_owned(), ""),
            },
        };
        found.push((key, value));
        rest = after;
    }
    found
}

/// The path of the next page, from a `Link` header (RFC 8288); none where there is no further one, or
/// where it leads out of the registry.
pub fn next_page(link: &str) -> Option<String> {
    let (target, attributes) = link.trim().strip_prefix('<')?.split_once('>')?;
    let mut attributes = attributes.split(';').map(str::trim);
    let next = attributes.any(|a| a == "rel=\"next\"" || a == "rel=next");
    let path = match target.split_once("://") {
        // An absolute one: the host stays the one that was asked, whatever it says.
        Some((_, rest)) => rest.get(rest.find('/')?..)?,
        None => target,
    };
    let plain = path.chars().all(|c| c.is_ascii_graphic());
    (next && plain && path.starts_with("/v2/")).then(|| path.to_owned())
}

/// One page of tags.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Tags {
    /// The tags; a registry may write `null` for none.
    #[serde(default)]
    pub tags: Option<Vec<String>>,
}

/// A manifest, as far as a chart's matters here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ImageManifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// What a manifest says of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    media_type: String,
    /// `sha256:…` of the blob.
    pub digest: String,
}

impl ImageManifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// What the reader of JSON says.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|e| e.to_string())
    }

    /// The blob with a chart's `Chart.yaml`, and the one with its archive; none where it is no
    /// chart's manifest.
    pub fn chart(&self) -> Option<(&Descriptor, &Descriptor)> {
        let content = self.layers.iter().find(|l| l.media_type == CHART_CONTENT)?;
        let safe = is_digest(&self.config.digest) && is_digest(&content.digest);
        (self.config.media_type == CHART_CONFIG && safe).then_some((&self.config, content))
    }
}

/// Whether a text is a SHA-256 digest as registries write it.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_charts_and_images_are_read_as_runtimes_do() {
        let url = |repository: Option<Repository>| repository.map(|r| r.url("tags/list"));
        let cases = [
            (
                "headscale/headscale",
                "https://registry-1.docker.io/v2/headscale/headscale/tags/list",
            ),
            (
                "busybox",
                "https://registry-1.docker.io/v2/library/busybox/tags/list",
            ),
            (
                "docker.io/a/b",
                "https://registry-1.docker.io/v2/a/b/tags/list",
            ),
            ("ghcr.io/a/b/c", "https://ghcr.io/v2/a/b/c/tags/list"),
            ("localhost/a", "http://localhost/v2/a/tags/list"),
            ("[::1]:5000/a", "http://[::1]:5000/v2/a/tags/list"),
            ("127.0.0.1:5000/a", "http://127.0.0.1:5000/v2/a/tags/list"),
            (
                "registry.example:5000/a",
                "https://registry.example:5000/v2/a/tags/list",
            ),
        ];
        for (image, expected) in cases {
            assert_eq!(url(Repository::of_image(image)).as_deref(), Some(expected));
        }
        for image in [
            "a.b/../../secrets",
            "a.b/",
            "a b.c/d",
            "",
            "a.b/x?y=1",
            // The fuzz target found that this was a host.
            "../M./M",
            "a..b/c",
            "-a.b/c",
            "a.b:/c",
            "a.b:65536/c",
            "[::/c",
        ] {
            assert_eq!(Repository::of_image(image), None, "{image:?}");
        }
        assert_eq!(
            url(Repository::of_chart("oci://ghcr.io/org/charts/", "web")).as_deref(),
            Some("https://ghcr.io/v2/org/charts/web/tags/list")
        );
        assert_eq!(
            url(Repository::of_chart("oci://ghcr.io", "web")).as_deref(),
            Some("https://ghcr.io/v2/web/tags/list")
        );
        assert_eq!(Repository::of_chart("https://charts.example", "web"), None);
    }

    #[test]
    fn a_challenge_says_where_tokens_are() {
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        };
        assert_eq!(
            Challenge::parse(
                "Bearer realm=\"https://auth.example/token\",service=\"a, \\\"b\\\"\",scope=\"repository:x:pull\""
            ),
            bearer("https://auth.example/token", Some("a, \"b\""))
        );
        assert_eq!(
            Challenge::parse("bearer realm=x, service=y"),
            bearer("x", Some("y"))
        );
        for other in ["Basic realm=\"x\"", "Bearer", "Bearer service=\"x\"", ""] {
            assert_eq!(Challenge::parse(other), Challenge::Other, "{other}");
        }
        assert!(Challenge::is_safe("https://auth.example/token"));
        assert!(Challenge::is_safe("http://127.0.0.1:9/token"));
        assert!(!Challenge::is_safe("http://auth.example/token"));
        assert!(!Challenge::is_safe("http://127.0.0.1.auth.example/token"));
        assert!(!Challenge::is_safe("file:///etc/passwd"));
    }

    #[test]
    fn a_page_leads_to_the_next_one_of_the_same_registry() {
        let next = |link: &str| next_page(link);
        assert_eq!(
            next("</v2/a/tags/list?last=b&n=2>; rel=\"next\"").as_deref(),
            Some("/v2/a/tags/list?last=b&n=2")
        );
        assert_eq!(
            next("<https://elsewhere.example/v2/a/tags/list?n=2>; rel=\"next\"").as_deref(),
            Some("/v2/a/tags/list?n=2")
        );
        for none in [
            "</v2/a>; rel=\"prev\"",
            "</etc>; rel=\"next\"",
            "/v2/a",
            "<",
            "",
        ] {
            assert_eq!(next(none), None, "{none}");
        }
    }

    #[test]
    fn a_charts_manifest_names_its_archive() {
        let hex = "0".repeat(64);
        let manifest = |config: &str, digest: &str| {
            format!(
                r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"sha256:{hex}","size":2}},"layers":[{{"mediaType":"application/vnd.cncf.helm.chart.provenance.v1.prov","digest":"sha256:{hex}"}},{{"mediaType":"{CHART_CONTENT}","digest":"{digest}"}}]}}"#
            )
        };
        let digest = format!("sha256:{}", "1".repeat(64));
        let parse = |text: String| ImageManifest::parse(text.as_bytes()).unwrap();
        let good = parse(manifest(CHART_CONFIG, &digest));
        assert_eq!(good.chart().unwrap().1.digest, digest);
        assert_eq!(parse(manifest("application/json", &digest)).chart(), None);
        assert_eq!(
            parse(manifest(CHART_CONFIG, "sha256:../../x")).chart(),
            None
        );
        assert!(ImageManifest::parse(b"[]").is_err());
    }

    proptest! {
        #[test]
        fn whatever_a_registry_says_is_read_and_leads_nowhere_else(
            text in "[a-zA-Z0-9<>;=,\"\\\\ :/.?#@_\\[\\]-]{0,80}|.{0,40}",
        ) {
            let _ = (Challenge::parse(&text), Challenge::is_safe(&text), is_digest(&text));
            let _ = Challenge::parse(&format!("Bearer {text}"));
            if let Ok(manifest) = ImageManifest::parse(text.as_bytes()) {
                let _ = manifest.chart();
            }
            for link in [text.clone(), format!("<{text}>; rel=\"next\"")] {
                prop_assert!(next_page(&link).is_none_or(|path| path.starts_with("/v2/")));
            }
            let chart = format!("oci://{text}");
            let all = [Repository::of_image(&text), Repository::of_chart(&chart, "web")];
            for repository in all.into_iter().flatten() {
                let url = repository.url("tags/list");
                prop_assert!(!url.contains("/../") && !url.contains(['?', '#', '@']), "{}", url);
            }
        }
    }
}
