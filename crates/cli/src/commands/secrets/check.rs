//! `undercroft secrets check`.

use undercroft_model::Severity;
use undercroft_secrets::{SecretsFinding, Vault};

use undercroft_model::document::Version;

use crate::{
    busy::Busy,
    documents::SecretsCheck,
    done::Done,
    error::CliError,
    style::{BAD, GOOD, HINT, WARN, paint},
    text::{count, list, plain},
    ui::Ui,
};

/// Says what is wrong with the fleet's secrets.
pub(crate) fn run(ui: Ui, vault: &Vault, json: bool) -> Result<Done, CliError> {
    let busy = Busy::new(ui, "looking through the repository");
    let findings: Vec<SecretsFinding> = vault.check().map_err(|e| CliError::from(&e))?;
    drop(busy);
    let errors = findings
        .iter()
        .filter(|f| f.severity == Severity::Error)
        .count();
    let warnings = findings.len() - errors;
    let ended = if errors > 0 {
        Done::BadInput
    } else {
        Done::Well
    };
    if json {
        ui.json(&SecretsCheck {
            version: Version,
            ok: errors == 0,
            findings,
        })?;
        return Ok(ended);
    }
    for finding in &findings {
        let word = match finding.severity {
            Severity::Error => paint(BAD, "error"),
            Severity::Warning => paint(WARN, "warning"),
        };
        let line = finding
            .line
            .map(|line| format!(":{line}"))
            .unwrap_or_default();
        ui.line(&format!(
            "{word}: {}{line}: {}",
            plain(&finding.file),
            plain(&finding.message)
        ))?;
        if let Some(hint) = &finding.hint {
            ui.line(&format!("  {} {hint}", paint(HINT, "hint:")))?;
        }
    }
    let mut found = Vec::new();
    if errors > 0 {
        found.push(count(errors, "error"));
    }
    if warnings > 0 {
        found.push(count(warnings, "warning"));
    }
    if errors > 0 {
        ui.line(&list(&found))?;
    } else {
        let files = count(vault.files().len(), "file");
        let found = if found.is_empty() {
            String::new()
        } else {
            format!("; {}", list(&found))
        };
        ui.line(&format!(
            "{} {files} of secrets{found}",
            paint(GOOD, "good")
        ))?;
    }
    Ok(ended)
}
