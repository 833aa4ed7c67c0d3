//! `undercroft installer`.

use std::path::Path;

use clap::{Args, Subcommand, ValueEnum};
use undercroft_build::debian::{Arch, KernelFlavour};
use undercroft_build::installer::{InstallerBuilder, InstallerImage};

use crate::{
    documents::Image, done::Done, error::CliError, project::cache_dir, text::Table, ui::Ui,
};

/// The system that machines boot over the network while they are installed
///
/// It is a kernel and an initramfs with an SSH server, disk tools and Nix; it runs in memory and
/// touches no disk by itself. `up` and `serve` build it when they need it; it is kept in the cache.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InstallerArgs {
    #[command(subcommand)]
    command: InstallerCommand,
}

const EXAMPLES: &str = "\
Examples:
  undercroft installer build                    for the rack and for x86_64 machines
  undercroft installer build --kernel generic   with drivers for real machines
  undercroft installer path                     where kernel and initramfs lie";

#[derive(Debug, Subcommand)]
enum InstallerCommand {
    /// Build it, or find it built
    #[command(after_help = "Example:\n  undercroft installer build --arch aarch64")]
    Build(BuildArgs),
    /// Build it quietly if need be, and print where its kernel and its initramfs lie
    #[command(after_help = "Example:\n  ls -lh $(undercroft installer path)")]
    Path(BuildArgs),
}

#[derive(Debug, Args)]
struct BuildArgs {
    /// The machines' architecture
    #[arg(long, value_enum, default_value_t = ArchArg::X86_64)]
    arch: ArchArg,
    /// What it is made of
    #[arg(long, value_enum, default_value_t = BuilderArg::Debian)]
    builder: BuilderArg,
    /// Its kernel, where it is made of Debian's packages
    #[arg(long, value_enum, default_value_t = KernelArg::Cloud)]
    kernel: KernelArg,
    /// The flake that has the NixOS image, where it is made of that
    #[arg(long, value_name = "FLAKE", default_value = ".")]
    flake: String,
    /// Print the image's description as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ArchArg {
    /// 64-bit x86
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit Arm
    Aarch64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BuilderArg {
    /// Debian's packages
    Debian,
    /// The NixOS netboot image of a flake
    Nix,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KernelArg {
    /// For virtual machines: small
    Cloud,
    /// For any machine
    Generic,
}

pub(crate) fn run(ui: Ui, args: &InstallerArgs) -> Result<Done, CliError> {
    let (args, verbose) = match &args.command {
        InstallerCommand::Build(args) => (args, true),
        InstallerCommand::Path(args) => (args, false),
    };
    let image = build(ui, args, &cache_dir()?, verbose)?;
    if args.json {
        ui.json(&Image::from(image))?;
    } else if verbose {
        let mut table = Table::plain(0);
        table.row(["kernel", &image.kernel.display().to_string()]);
        table.row(["initramfs", &image.initrd.display().to_string()]);
        table.row(["parameters", &image.parameters.join(" ")]);
        table.row(["digest", &image.digest]);
        ui.print(&table.render())?;
    } else {
        ui.line(&image.kernel.display().to_string())?;
        ui.line(&image.initrd.display().to_string())?;
    }
    Ok(Done::Well)
}

fn build(
    ui: Ui,
    args: &BuildArgs,
    cache_dir: &Path,
    verbose: bool,
) -> Result<InstallerImage, CliError> {
    let arch = match args.arch {
        ArchArg::X86_64 => Arch::X86_64,
        ArchArg::Aarch64 => Arch::Aarch64,
    };
    let builder = match args.builder {
        BuilderArg::Debian => InstallerBuilder::Debian {
            cache_dir: cache_dir.to_owned(),
            kernel: match args.kernel {
                KernelArg::Cloud => KernelFlavour::Cloud,
                KernelArg::Generic => KernelFlavour::Generic,
            },
        },
        BuilderArg::Nix => InstallerBuilder::Nix {
            flake: args.flake.clone(),
            cache_dir: cache_dir.to_owned(),
        },
    };
    builder
        .build(arch, &mut |line| {
            if verbose {
                ui.note(line);
            }
        })
        .map_err(|e| CliError::from(&e))
}
