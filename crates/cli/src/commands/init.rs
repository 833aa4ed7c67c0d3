//! `undercroft init`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use undercroft_folder::confined::{Confined, Modes};
use undercroft_model::is_dns_label;

use crate::{
    args::one_folder,
    done::Done,
    error::CliError,
    owner,
    project::INVENTORY_FILE,
    style::{BOLD, paint},
    ui::Ui,
};

/// Begin a fleet: a folder with an inventory to fill in
///
/// Writes undercroft.toml, flake.nix, README.md and .gitignore. A file that is there already is
/// left as it is.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InitArgs {
    /// The folder; it is made if need be [default: the current one]
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    at: Option<PathBuf>,
    /// What the inventory begins with
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Template::Metal)]
    template: Template,
    /// The fleet's name, a DNS label [default: the folder's name]
    #[arg(long, value_name = "NAME")]
    fleet: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  undercroft init                          in the current folder, for real machines
  undercroft init --template cluster fleet a Kubernetes cluster that Argo CD keeps
  undercroft init --template rack demo     three virtual machines, to try it all on this computer";

/// What an inventory begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Template {
    /// Two servers, to be replaced by yours
    Metal,
    /// Three servers and a GPU machine that make a Kubernetes cluster, to be replaced by yours
    Cluster,
    /// Three virtual machines on this computer
    Rack,
}

impl Template {
    fn inventory(self) -> &'static str {
        match self {
            Self::Metal => include_str!("../../templates/metal.toml"),
            Self::Cluster => include_str!("../../templates/cluster.toml"),
            Self::Rack => include_str!("../../templates/rack.toml"),
        }
    }
}

pub(crate) fn run(ui: Ui, at: Option<&Path>, args: &InitArgs) -> Result<Done, CliError> {
    let dir = one_folder(args.at.as_deref(), at)?.unwrap_or(Path::new("."));
    owner::settle_for_new(dir)?;
    let folder = Confined::new(dir);
    let is_there = |name: &str| {
        let kind = folder.kind(name);
        kind.map(|kind| kind.is_some())
            .map_err(|e| CliError::from(&e))
    };
    let inventory = dir.join(INVENTORY_FILE);
    if is_there(INVENTORY_FILE)? {
        return Err(
            CliError::input(format!("{} is there already", inventory.display())).hint(
                "It is left as it is. Name another folder, or look at it with `undercroft check`.",
            ),
        );
    }
    let fleet = fleet_name(dir, args.fleet.as_deref())?;
    fs::create_dir_all(dir).map_err(|e| CliError::file("make the folder", dir, &e))?;
    // The inventory comes last: without it the same command can simply be given again.
    let files = [
        (".gitignore", include_str!("../../templates/gitignore")),
        ("README.md", include_str!("../../templates/README.md")),
        ("flake.nix", include_str!("../../templates/flake.nix")),
        (INVENTORY_FILE, args.template.inventory()),
    ];
    for (name, text) in files {
        let path = dir.join(name);
        if is_there(name)? {
            ui.note(&format!("kept   {} (it was there)", path.display()));
            continue;
        }
        let text = text.replace("@FLEET@", &fleet);
        folder
            .write_new(name, text.as_bytes(), Modes::PUBLIC)
            .map_err(|e| CliError::from(&e))?;
        ui.note(&format!("wrote  {}", path.display()));
    }
    let there = if dir == Path::new(".") {
        String::new()
    } else {
        format!(" -C {}", dir.display())
    };
    ui.note(&format!(
        "\nThe fleet is called {}. Next:",
        paint(BOLD, &fleet)
    ));
    let next: &[(&str, &str)] = match args.template {
        Template::Metal => &[
            ("", "put your machines into undercroft.toml, then"),
            ("check", "is the file right?"),
            ("rehearse", "the bring-up in simulation"),
            (
                "",
                "`git init && git add -A` there: Nix sees what git knows",
            ),
        ],
        Template::Cluster => &[
            ("", "put your machines into undercroft.toml, then"),
            ("check", "is the file right?"),
            ("rehearse", "the bring-up in simulation"),
            ("secrets init", "keys, tokens and authorities, encrypted"),
            ("render", "the tree that Argo CD will keep"),
            (
                "",
                "`git init && git add -A` there: Nix sees what git knows",
            ),
        ],
        Template::Rack => &[
            ("rehearse", "the bring-up in simulation"),
            ("rack up", "the machines, powered off, under QEMU"),
            ("up", "bring them up"),
        ],
    };
    let mut table = crate::text::Table::plain(2);
    for (command, what) in next {
        if command.is_empty() {
            table.row([format!("# {what}")]);
        } else {
            table.row([format!("undercroft{there} {command}"), format!("# {what}")]);
        }
    }
    ui.note(table.render().trim_end());
    Ok(Done::Well)
}

/// The fleet's name: as given, or made of the folder's.
fn fleet_name(dir: &Path, given: Option<&str>) -> Result<String, CliError> {
    if let Some(name) = given {
        if !is_dns_label(name) {
            return Err(CliError::usage(format!("{name:?} can't be a fleet's name"))
                .hint("Use 1 to 63 of a-z, 0-9 and '-', with no '-' at the ends."));
        }
        return Ok(name.to_owned());
    }
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let folder = absolute
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(label_of(&folder).unwrap_or_else(|| "fleet".to_owned()))
}

/// The nearest DNS label to a text, if anything of it is left.
fn label_of(text: &str) -> Option<String> {
    let mut label = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            label.push(c);
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    let label: String = label.chars().take(63).collect();
    let label = label.trim_end_matches('-').to_owned();
    is_dns_label(&label).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_a_name_where_it_can() {
        assert_eq!(label_of("My Basement_2").as_deref(), Some("my-basement-2"));
        assert_eq!(label_of("--x--").as_deref(), Some("x"));
        assert_eq!(label_of("日本"), None);
        assert_eq!(label_of(&"a".repeat(80)).map(|l| l.len()), Some(63));
    }
}
