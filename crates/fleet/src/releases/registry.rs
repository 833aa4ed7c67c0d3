//! Asking registries of charts and images, as anybody may: without a password.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Deserialize;
use undercroft_render::{
    Release, digest,
    oci::{Challenge, ImageManifest, MANIFEST_TYPES, Repository, Tags, is_digest, next_page},
};

use super::error::ReleaseError;

/// The longest that one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest that all pages of one repository's tags may take.
const TAGS_TIMEOUT: Duration = Duration::from_secs(120);
/// Tags that are asked for at a time; a registry may give fewer.
const TAGS_PER_PAGE: usize = 1000;
/// More pages of tags than this are a loop, or something else.
const PAGES_MAX: usize = 200;
/// The longest page of tags, in bytes.
const PAGE_MAX_BYTES: u64 = 4 << 20;
/// The longest manifest, in bytes: what the specification asks registries to take at least.
const MANIFEST_MAX_BYTES: u64 = 4 << 20;
/// The longest description of a chart, in bytes.
const CHART_MAX_BYTES: u64 = 1 << 20;
/// The longest answer of a token service, in bytes.
const TOKEN_MAX_BYTES: u64 = 256 << 10;

/// The registries that are asked in one run, with the tokens that they gave.
#[derive(Debug)]
pub(crate) struct Registries {
    agent: ureq::Agent,
    tokens: BTreeMap<(String, String), String>,
}

/// An answer of a registry that isn't an error.
struct Answer {
    body: Vec<u8>,
    link: Option<String>,
    digest: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChartYaml {
    app_version: Option<String>,
    kube_version: Option<String>,
    #[serde(default)]
    deprecated: bool,
}

impl Registries {
    pub(crate) fn new() -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .http_status_as_error(false)
            .user_agent(concat!("undercroft/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Self {
            agent,
            tokens: BTreeMap::new(),
        }
    }

    /// All tags of a repository.
    pub(crate) fn tags(&mut self, repository: &Repository) -> Result<Vec<String>, ReleaseError> {
        let began = Instant::now();
        let mut url = repository.url(&format!("tags/list?n={TAGS_PER_PAGE}"));
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let answer = self.get(repository, &url, "application/json", PAGE_MAX_BYTES)?;
            let page: Tags = serde_json::from_slice(&answer.body).map_err(|e| {
                ReleaseError::failed(format!("{url} has no list of tags")).because(e)
            })?;
            all.extend(page.tags.unwrap_or_default());
            let Some(next) = answer.link.as_deref().and_then(next_page) else {
                return Ok(all);
            };
            let next = repository.at(&next);
            if next == url {
                return Err(ReleaseError::failed(format!(
                    "{url} says that it is followed by itself"
                )));
            }
            url = next;
            if began.elapsed() > TAGS_TIMEOUT {
                return Err(ReleaseError::failed(format!(
                    "{} has sent tags for {} s, and there are more",
                    repository.host,
                    TAGS_TIMEOUT.as_secs()
                ))
                .hint(
                    "Name a version: `undercroft update NAME=VERSION` asks for that one alone.",
                ));
            }
        }
        Err(ReleaseError::failed(format!(
            "{} has more than {PAGES_MAX} pages of tags",
            repository.url("tags/list")
        ))
        .hint("Name a version: `undercroft update NAME=VERSION` asks for that one alone."))
    }

    /// What a chart's tag is: its versions, and the digest of its archive. None where there is no
    /// such tag.
    pub(crate) fn chart(
        &mut self,
        repository: &Repository,
        tag: &str,
    ) -> Result<Option<Release>, ReleaseError> {
        let Some((bytes, _)) = self.manifest(repository, tag)? else {
            return Ok(None);
        };
        let shown = format!("{}/{}:{tag}", repository.host, repository.name);
        let manifest = ImageManifest::parse(&bytes)
            .map_err(|e| ReleaseError::failed(format!("{shown} has no manifest: {e}")))?;
        let Some((config, content)) = manifest.chart() else {
            return Err(ReleaseError::failed(format!("{shown} is no Helm chart"))
                .hint("Look whether the lock file's repository and chart are right."));
        };
        let url = repository.url(&format!("blobs/{}", config.digest));
        let answer = self.get(repository, &url, "*/*", CHART_MAX_BYTES)?;
        if format!("sha256:{}", digest(&answer.body)) != config.digest {
            return Err(damaged(&url));
        }
        let chart: ChartYaml = serde_json::from_slice(&answer.body)
            .map_err(|e| ReleaseError::failed(format!("{url} describes no chart")).because(e))?;
        Ok(Some(Release {
            // Helm writes a tag's `_` where the version has `+`.
            version: tag.replace('_', "+"),
            app_version: chart.app_version,
            kube_version: chart.kube_version,
            digest: Some(content.digest.clone()),
            deprecated: chart.deprecated,
        }))
    }

    /// What an image's tag is, with the digest of its manifest, or of the list of those for each
    /// architecture. None where there is no such tag.
    pub(crate) fn image(
        &mut self,
        repository: &Repository,
        tag: &str,
    ) -> Result<Option<Release>, ReleaseError> {
        let found = self.manifest(repository, tag)?;
        Ok(found.map(|(_, digest)| Release {
            version: tag.to_owned(),
            app_version: None,
            kube_version: None,
            digest: Some(digest),
            deprecated: false,
        }))
    }

    /// The manifest of a tag with its digest, which is computed here; what the registry says must
    /// be the same.
    fn manifest(
        &mut self,
        repository: &Repository,
        tag: &str,
    ) -> Result<Option<(Vec<u8>, String)>, ReleaseError> {
        let safe = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if tag.is_empty() || !tag.chars().all(safe) {
            return Ok(None);
        }
        let url = repository.url(&format!("manifests/{tag}"));
        let Some(answer) = self.ask(repository, &url, MANIFEST_TYPES, MANIFEST_MAX_BYTES)? else {
            return Ok(None);
        };
        let computed = format!("sha256:{}", digest(&answer.body));
        match answer.digest {
            Some(said) if is_digest(&said) && said != computed => Err(damaged(&url)),
            _ => Ok(Some((answer.body, computed))),
        }
    }

    /// What is at a URL, which must be there.
    fn get(
        &mut self,
        repository: &Repository,
        url: &str,
        accept: &str,
        limit: u64,
    ) -> Result<Answer, ReleaseError> {
        let there = self.ask(repository, url, accept, limit)?;
        there.ok_or_else(|| {
            ReleaseError::failed(format!("there is nothing at {url}")).hint(
                "Nothing was written. Look whether the lock file's repository and name are right.",
            )
        })
    }

    /// What is at a URL, asked with a token where the registry wants one; none where it says that
    /// nothing is there.
    fn ask(
        &mut self,
        repository: &Repository,
        url: &str,
        accept: &str,
        limit: u64,
    ) -> Result<Option<Answer>, ReleaseError> {
        let key = (repository.host.clone(), repository.scope());
        for again in [false, true] {
            let mut request = self.agent.get(url).header("Accept", accept);
            if let Some(token) = self.tokens.get(&key) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let mut response = request.call().map_err(|e| unreachable(url, e))?;
            let header = |name: &str| {
                let value = response.headers().get(name)?.to_str().ok()?;
                Some(value.to_owned())
            };
            match response.status().as_u16() {
                200 => {
                    let (link, digest) = (header("Link"), header("Docker-Content-Digest"));
                    let body = response.body_mut().with_config().limit(limit).read_to_vec();
                    let body = body.map_err(|e| unreachable(url, e))?;
                    return Ok(Some(Answer { body, link, digest }));
                }
                404 => return Ok(None),
                401 if !again => {
                    let challenge = header("WWW-Authenticate").unwrap_or_default();
                    let token = self.token(repository, &Challenge::parse(&challenge))?;
                    self.tokens.insert(key.clone(), token);
                }
                401 | 403 => break,
                429 => {
                    return Err(ReleaseError::failed(format!(
                        "{} answers no more for now: it was asked too often from this address",
                        repository.host
                    ))
                    .hint("Nothing was written. Try again later, or update single components by name."));
                }
                status => {
                    return Err(ReleaseError::failed(format!(
                        "{url} answered with status {status}"
                    ))
                    .hint("Nothing was written. Try again later."));
                }
            }
        }
        Err(no_access(repository))
    }

    /// A token for reading a repository, which its registry's token service gives to anybody.
    fn token(
        &self,
        repository: &Repository,
        challenge: &Challenge,
    ) -> Result<String, ReleaseError> {
        let Challenge::Bearer { realm, service } = challenge else {
            return Err(no_access(repository));
        };
        if !Challenge::is_safe(realm) {
            return Err(ReleaseError::failed(format!(
                "{} sends whoever asks to {realm} for a token, which isn't secured by TLS",
                repository.host
            )));
        }
        let mut request = self.agent.get(realm).query("scope", repository.scope());
        if let Some(service) = service {
            request = request.query("service", service);
        }
        let mut response = request.call().map_err(|e| unreachable(realm, e))?;
        if response.status().as_u16() != 200 {
            return Err(no_access(repository));
        }
        let body = response
            .body_mut()
            .with_config()
            .limit(TOKEN_MAX_BYTES)
            .read_to_vec();
        let body = body.map_err(|e| unreachable(realm, e))?;
        let token: Option<Token> = serde_json::from_slice(&body).ok();
        let token = token.and_then(|token| token.token.or(token.access_token));
        let sendable = |token: &String| token.bytes().all(|b| b.is_ascii_graphic());
        token
            .filter(sendable)
            .ok_or_else(|| ReleaseError::failed(format!("{realm} gave no token")))
    }
}

pub(super) fn unreachable(url: &str, error: ureq::Error) -> ReleaseError {
    ReleaseError::failed(format!("can't read {url}")).because(error).hint(
        "Nothing was written. Look whether the address is right and reachable from here; `undercroft update NAME` asks for single components.",
    )
}

fn no_access(repository: &Repository) -> ReleaseError {
    ReleaseError::failed(format!(
        "{}/{} can't be read without a password",
        repository.host, repository.name
    ))
    .hint("Only public repositories are asked. Nothing was written; set the version in the lock file by hand.")
}

fn damaged(url: &str) -> ReleaseError {
    ReleaseError::failed(format!("what {url} sent isn't what its digest says"))
        .hint("Nothing was written. Try again; if it stays so, something between here and the registry changes what is sent.")
}
