//! `undercroft lend build`.

use std::{io::Write as _, path::PathBuf};

use clap::Args;
use undercroft_lending::nix::{NixBuilt, NixRequest, NixSettings, NixTold, build};

use super::submit::scan;
use crate::{done::Done, error::CliError, runtime::block_on, text::plain_line, ui::Ui};

/// What Nix waits for on standard error before it takes what follows for the build's log
/// (`src/libstore/unix/build/derivation-builder.cc`, `processSandboxSetupMessages`).
const READY: &[u8] = b"\x02\n";

/// Build for Nix: on a lent PC if one begins in time, and here otherwise
///
/// It is what `external-builders` of nix.conf names, an experimental feature of Nix 2.31 and later. Nix adds
/// the file that says what is to be built. Builds whose result is fixed, as downloads are, and those that need
/// something of the machine, such as `kvm`, are never lent.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BuildArgs {
    /// How builds are lent; what can't be read means that nothing is
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: PathBuf,
    /// What Nix wants to be built
    #[arg(value_name = "BUILD.JSON", value_hint = clap::ValueHint::FilePath)]
    request: PathBuf,
}

const EXAMPLES: &str = "\
Example of nix.conf, the last three lines as one:
  experimental-features = nix-command external-builders
  external-builders = [{\"systems\": [\"x86_64-linux\"],
    \"program\": \"/usr/bin/undercroft\",
    \"args\": [\"lend\", \"build\", \"--config\", \"/etc/undercroft/builds.json\"]}]

Its settings:
  { \"version\": 1, \"natsUrl\": \"tls://nats.lan:4222\", \"caFile\": \"/etc/undercroft/nats-ca.crt\",
    \"keyFile\": \"/etc/undercroft/builds.nk\", \"submitter\": \"ci\", \"tenant\": \"research\",
    \"sensitivity\": \"public\", \"waitS\": 5,
    \"limits\": { \"cpu_percent\": 400, \"memory_mb\": 4096, \"disk_mb\": 8192, \"wall_s\": 7200 } }

Exit codes: 0 its outputs are there, otherwise the builder's, or 1.";

pub(super) fn run(ui: Ui, args: &BuildArgs) -> Result<Done, CliError> {
    let mut log = std::io::stderr();
    // Nobody reads what can't be written; the build goes on.
    let _ = log.write_all(READY).and_then(|()| log.flush());
    let request = NixRequest::read(&args.request).map_err(|e| CliError::from(&e))?;
    let settings = NixSettings::read(&args.config);
    let mut tell = |told: NixTold<'_>| match told {
        NixTold::Line(line) => ui.note(&line),
        NixTold::Log(bytes) => {
            // What was written elsewhere is a stranger's: nothing of it may move the cursor.
            for line in String::from_utf8_lossy(bytes).lines() {
                ui.note(&plain_line(line));
            }
        }
    };
    let built = block_on(async {
        build(settings, &request, scan, &mut tell)
            .await
            .map_err(|e| CliError::from(&e))
    })?;
    Ok(match built {
        NixBuilt::Away | NixBuilt::Here(0) => Done::Well,
        NixBuilt::Here(code) => Done::Code(u8::try_from(code).unwrap_or(1)),
    })
}
