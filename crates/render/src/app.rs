//! The user's own apps: each folder of `gitops.apps_path` is one.

use serde::Deserialize;
use serde_json::Value;
use undercroft_model::is_dns_label;

use crate::{Problem, problem::toml_problem};

/// Name of the file in an app's folder that says what the folder alone can't.
pub const APP_FILE: &str = "app.toml";
/// Longest name of an app: Argo CD makes it the value of a label and part of other names.
pub const APP_NAME_MAX: usize = 53;

/// An app of the user's, as its folder was read.
#[derive(Debug, Clone, PartialEq)]
pub struct App {
    /// The folder's name, which is the Application's.
    pub name: String,
    /// The folder, from the inventory's.
    pub folder: String,
    /// How Argo CD makes manifests of it.
    pub form: AppForm,
    /// What its `app.toml` says.
    pub settings: AppSettings,
    /// The objects of a plain folder with the files they stand in, from the inventory's folder.
    pub objects: Vec<(String, Value)>,
}

/// How an app's folder becomes manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppForm {
    /// YAML and JSON files, applied as they are.
    Plain,
    /// A kustomization.
    Kustomize,
    /// A Helm chart in the folder.
    Helm,
    /// A chart of a repository, which `app.toml` names; the folder may have `values.yaml` and a
    /// folder `manifests`.
    Chart {
        /// Whether the folder has `values.yaml`.
        values: bool,
        /// Whether the folder has a folder `manifests`.
        manifests: bool,
    },
}

/// What `app.toml` says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppSettings {
    /// Namespace of its objects, made where it isn't there. Without it, the app's name.
    pub namespace: Option<String>,
    /// Components and apps that must be healthy before this app. Without it, the app comes after
    /// every component; an empty list means after the network and Argo CD alone.
    pub depends_on: Option<Vec<String>>,
    /// Whether Argo CD deletes what the folder no longer has. Without it, as `gitops.prune` says.
    pub prune: Option<bool>,
    /// Whether it is part of a PC's k3d cluster.
    #[serde(default = "yes")]
    pub dev: bool,
    /// A chart of a repository.
    pub chart: Option<AppChart>,
}

impl Default for AppSettings {
    fn default() -> Self {
        Self {
            namespace: None,
            depends_on: None,
            prune: None,
            dev: true,
            chart: None,
        }
    }
}

fn yes() -> bool {
    true
}

/// A Helm chart of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppChart {
    /// URL of the repository, or `oci://…`.
    pub repository: String,
    /// Name of the chart.
    pub name: String,
    /// Version of the chart, exact.
    pub version: String,
}

impl App {
    /// Namespace of its objects.
    pub fn namespace(&self) -> &str {
        self.settings.namespace.as_deref().unwrap_or(&self.name)
    }
}

impl AppSettings {
    /// Reads an `app.toml`.
    ///
    /// # Errors
    /// When the text isn't one; the message has the place.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problem> {
        let settings: Self = toml::from_str(text).map_err(|e| {
            toml_problem("app-settings", file, text, &e)
                .hint("It may have namespace, depends_on, prune, dev and a table [chart] with repository, name and version.")
        })?;
        if let Some(namespace) = &settings.namespace
            && !is_dns_label(namespace)
        {
            return Err(Problem::new(
                "app-settings",
                format!("namespace {namespace:?} is no DNS label"),
            )
            .in_file(file)
            .at_keys(["namespace"])
            .hint("Write 1 to 63 of a-z, 0-9 and '-', not at the ends."));
        }
        Ok(settings)
    }
}

/// Whether a folder's name can be an app's.
///
/// # Errors
/// When it can't, with the reason.
pub fn check_app_name(name: &str, folder: &str) -> Result<(), Problem> {
    if is_dns_label(name) && name.len() <= APP_NAME_MAX {
        return Ok(());
    }
    Err(Problem::new(
        "app-name",
        format!("the folder's name {name:?} can't be an app's"),
    )
    .in_file(folder)
    .hint(format!(
        "Rename it to 1 to {APP_NAME_MAX} of a-z, 0-9 and '-', not at the ends; or begin its name with '_' or '.' if it isn't an app."
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spot;

    #[test]
    fn settings_are_read_and_mistakes_have_a_place() {
        let settings = AppSettings::parse(
            "apps/web/app.toml",
            "depends_on = [\"longhorn\"]\n[chart]\nrepository = \"https://charts.example\"\nname = \"web\"\nversion = \"1.2.3\"\n",
        )
        .unwrap();
        assert_eq!(settings.depends_on, Some(vec!["longhorn".to_owned()]));
        assert!(settings.dev);
        let problem =
            AppSettings::parse("apps/web/app.toml", "depend_on = [\"longhorn\"]\n").unwrap_err();
        insta::assert_snapshot!(problem.message, @"unknown field `depend_on`, expected one of `namespace`, `depends_on`, `prune`, `dev`, `chart`");
        assert_eq!(problem.spot, Some(Spot::Line { line: 1, column: 1 }));
        assert!(AppSettings::parse("f", "namespace = \"A b\"").is_err());
    }

    #[test]
    fn a_name_must_be_a_label() {
        assert!(check_app_name("web", "apps/web").is_ok());
        assert!(check_app_name("Web", "apps/Web").is_err());
        assert!(check_app_name(&"a".repeat(54), "apps/a").is_err());
    }
}
