//! Rendering a chart with Helm, for the few components that must be there before Argo CD is.
//!
//! Helm only renders: `helm template` talks to no cluster, and the objects are applied as all
//! others are. So nothing of Helm's own stays in the cluster, and Argo CD, which renders the same
//! chart with the same values, finds its own objects.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::process::Command;
use undercroft_model::FailedCommand;

use super::{KubeError, Manifest, manifest};
use undercroft_process as process;
use undercroft_process::Input;

/// How long Helm may take to fetch a chart.
const PULL_TIMEOUT: Duration = Duration::from_secs(120);
/// How long Helm may take to render one; the largest takes two seconds.
const TEMPLATE_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest archive of a chart that is read, in bytes.
const ARCHIVE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A chart with all that decides what it renders to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelmChart {
    /// Its name in its repository.
    pub name: String,
    /// Its repository: `https://…` or `oci://…`.
    pub repository: String,
    /// Its version.
    pub version: String,
    /// `sha256:…` of its archive, where the lock file has it.
    pub digest: Option<String>,
    /// The release's name.
    pub release: String,
    /// The namespace.
    pub namespace: String,
    /// The values, as YAML.
    pub values: String,
}

/// A Helm to render with.
#[derive(Debug, Clone)]
pub struct Helm {
    program: PathBuf,
    charts: PathBuf,
}

impl Helm {
    /// Helm with a folder in which charts are kept. `program` is a path, or a name on PATH.
    pub fn new(program: impl Into<PathBuf>, charts: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            charts: charts.into(),
        }
    }

    /// The objects of a chart, for a version of Kubernetes. Hooks and tests are left out: they are
    /// Helm's own actions, which nobody here carries out.
    ///
    /// # Errors
    /// When the chart can't be had, isn't the one that the lock file names, or doesn't render.
    pub async fn render(
        &self,
        chart: &HelmChart,
        kubernetes: &str,
    ) -> Result<Vec<Manifest>, KubeError> {
        let archive = self.archive(chart).await?;
        let mut values = tempfile::NamedTempFile::new().map_err(|e| local(&self.charts, &e))?;
        values
            .write_all(chart.values.as_bytes())
            .map_err(|e| local(values.path(), &e))?;
        // Charts read the version as Kubernetes' own, without a distribution's suffix.
        let kubernetes = kubernetes.split(['+', '-']).next().unwrap_or(kubernetes);
        let values_path = values.path().display().to_string();
        let archive = archive.display().to_string();
        let words = [
            "template",
            &chart.release,
            &archive,
            "--namespace",
            &chart.namespace,
            "--values",
            &values_path,
            "--kube-version",
            kubernetes,
            "--include-crds",
            "--skip-tests",
            "--no-hooks",
        ];
        let text = self.run(&words, TEMPLATE_TIMEOUT, &chart.name).await?;
        let origin = format!("chart {} {}", chart.name, chart.version);
        let mut objects = manifest::parse(&origin, &text)?;
        objects.retain(|object| !object.is_helm_hook());
        Ok(objects)
    }

    /// The chart's archive, fetched where it isn't kept yet.
    async fn archive(&self, chart: &HelmChart) -> Result<PathBuf, KubeError> {
        if chart.digest.is_none() {
            return Err(no_digest(chart));
        }
        let file = self
            .charts
            .join(format!("{}-{}.tgz", chart.name, chart.version));
        if !file.exists() {
            std::fs::create_dir_all(&self.charts).map_err(|e| local(&self.charts, &e))?;
            // Fetched beside its place and moved there when it is whole.
            let folder = tempfile::tempdir_in(&self.charts).map_err(|e| local(&self.charts, &e))?;
            let destination = folder.path().display().to_string();
            let mut words = vec!["pull", "--version", &chart.version, "--destination"];
            words.push(&destination);
            let whole = format!("{}/{}", chart.repository.trim_end_matches('/'), chart.name);
            if chart.repository.starts_with("oci://") {
                words.push(&whole);
            } else {
                words.extend(["--repo", &chart.repository, &chart.name]);
            }
            self.run(&words, PULL_TIMEOUT, &chart.name).await?;
            let name = file.file_name().unwrap_or_default();
            std::fs::rename(folder.path().join(name), &file).map_err(|e| local(&file, &e))?;
        }
        check_digest(chart, &file)?;
        Ok(file)
    }

    async fn run(&self, words: &[&str], limit: Duration, chart: &str) -> Result<String, KubeError> {
        let mut command = Command::new(&self.program);
        command.args(words);
        // A context of the operator's, whatever it is, has no part in this.
        command.env_remove("KUBECONFIG");
        let shown = format!("helm {}", words.join(" "));
        let finished = process::run(command, Input::Nothing, limit, &mut |_| {})
            .await
            .map_err(|e| KubeError::Helm {
                message: format!("{} can't be started: {e}", self.program.display()),
                command: None,
                hint: Some("Install Helm 3 and see that `helm` is on PATH.".to_owned()),
            })?;
        if finished.code == Some(0) && finished.stdout.len() < process::STDOUT_BYTES_MAX {
            return Ok(String::from_utf8_lossy(&finished.stdout).into_owned());
        }
        let message = if finished.timed_out {
            format!(
                "Helm took longer than {} s with the chart {chart}",
                limit.as_secs()
            )
        } else if finished.code == Some(0) {
            format!(
                "the chart {chart} renders to more than {} MiB",
                process::STDOUT_BYTES_MAX / (1024 * 1024)
            )
        } else {
            format!("Helm failed with the chart {chart}")
        };
        Err(KubeError::Helm {
            message,
            command: Some(Box::new(FailedCommand {
                command: shown,
                exit_code: finished.code,
                output_tail: finished.stderr_tail,
            })),
            hint: None,
        })
    }
}

/// What nobody has noted the digest of could be anything.
fn no_digest(chart: &HelmChart) -> KubeError {
    KubeError::Helm {
        message: format!(
            "undercroft.lock has no digest of the chart {} {}, so that whatever is fetched would be believed",
            chart.name, chart.version
        ),
        command: None,
        hint: Some(format!(
            "`undercroft update {}={}` notes the digest that its repository publishes; compare it with a second source, and commit the lock file.",
            chart.name, chart.version
        )),
    }
}

fn check_digest(chart: &HelmChart, file: &Path) -> Result<(), KubeError> {
    let Some(wanted) = &chart.digest else {
        return Err(no_digest(chart));
    };
    let size = std::fs::metadata(file).map_err(|e| local(file, &e))?.len();
    if size > ARCHIVE_BYTES_MAX {
        return Err(KubeError::Helm {
            message: format!(
                "{} is too large to be a chart: {size} bytes",
                file.display()
            ),
            command: None,
            hint: None,
        });
    }
    let bytes = std::fs::read(file).map_err(|e| local(file, &e))?;
    let digest = Sha256::digest(&bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if *wanted == format!("sha256:{hex}") {
        return Ok(());
    }
    Err(KubeError::Helm {
        message: format!(
            "the chart {} {} isn't the one that undercroft.lock names: {wanted} is wanted, and {} is sha256:{hex}",
            chart.name,
            chart.version,
            file.display()
        ),
        command: None,
        hint: Some(
            "Somebody has published another chart under the same version, or the file was \
             changed. Find out which before you trust it; remove the file to fetch it again."
                .to_owned(),
        ),
    })
}

fn local(path: &Path, error: &std::io::Error) -> KubeError {
    KubeError::Helm {
        message: format!("{} can't be used: {error}", path.display()),
        command: None,
        hint: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(digest: &str) -> HelmChart {
        HelmChart {
            name: "cilium".to_owned(),
            repository: "https://charts.example".to_owned(),
            version: "1.20.0".to_owned(),
            digest: Some(digest.to_owned()),
            release: "cilium".to_owned(),
            namespace: "kube-system".to_owned(),
            values: String::new(),
        }
    }

    #[tokio::test]
    async fn an_archive_that_is_not_the_locked_one_never_reaches_helm() {
        let charts = tempfile::tempdir().unwrap();
        std::fs::write(charts.path().join("cilium-1.20.0.tgz"), "abc").unwrap();
        // No Helm is there: whoever gets as far as to start it is told so.
        let helm = Helm::new(charts.path().join("helm"), charts.path());
        // The digest of "abc" (FIPS 180-2, B.1).
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let wrong = "0".repeat(64);
        let wrong_chart = chart(&format!("sha256:{wrong}"));
        let right_chart = chart(&format!("sha256:{right}"));
        let refused = helm.render(&wrong_chart, "v1.34.4");
        let refused = refused.await.unwrap_err().to_string();
        assert!(
            refused.contains(&wrong) && refused.contains(right),
            "{refused}"
        );
        let passed = helm.render(&right_chart, "v1.34.4");
        let passed = passed.await.unwrap_err().to_string();
        assert!(passed.contains("can't be started"), "{passed}");
    }

    #[tokio::test]
    async fn a_chart_without_a_digest_is_never_fetched() {
        let charts = tempfile::tempdir().unwrap();
        // Not even one that lies there already is taken.
        std::fs::write(charts.path().join("cilium-1.20.0.tgz"), "abc").unwrap();
        let helm = Helm::new(charts.path().join("helm"), charts.path());
        let unnamed = HelmChart {
            digest: None,
            ..chart("")
        };
        let refused = helm.render(&unnamed, "v1.34.4").await.unwrap_err();
        let KubeError::Helm { message, hint, .. } = refused else {
            panic!("{refused:?}");
        };
        assert!(
            message.contains("has no digest of the chart cilium 1.20.0"),
            "{message}"
        );
        assert!(hint.unwrap().contains("undercroft update cilium=1.20.0"));
    }
}
