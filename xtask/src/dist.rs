//! `cargo xtask dist`: the programs as they are given to others, small, with their debug information apart.
//!
//! `.gnu_debuglink` in the stripped program names the other file; gdb, addr2line and Rust's own backtraces
//! find it beside the program, in `.debug/` there, or below `/usr/lib/debug`.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use crate::run::{Failed, Step, repo_root, which};

/// Each program, and the package that has it. A PC that is lent needs both, beside each other.
const PROGRAMS: [(&str, &str); 2] = [
    ("undercroft", "undercroft"),
    ("undercroft-job", "undercroft-jobrun"),
];

/// Builds the programs and takes them apart.
pub(crate) fn run() -> Result<(), Failed> {
    for tool in ["objcopy", "strip"] {
        if which(tool).is_none() {
            return Err(Failed::new(
                "dist",
                format!("there is no {tool} (Debian's package binutils has it)"),
            ));
        }
    }
    for (program, package) in PROGRAMS {
        Step::new("build", "cargo")
            .args(["build", "--profile", "dist", "--package", package])
            .args(["--bin", program])
            .run()?;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| repo_root().join("target"), PathBuf::from);
    let folder = target.join("dist-files");
    for (program, _) in PROGRAMS {
        for file in split(&target.join("dist").join(program), &folder)? {
            let bytes = fs::metadata(&file).map_or(0, |file| file.len());
            println!("{:>6.1} MB  {}", megabytes(bytes), file.display());
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a size for people to read")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Puts a program without its debug information into a folder, and the information beside it.
fn split(program: &Path, folder: &Path) -> Result<[PathBuf; 2], Failed> {
    let failed = |e: std::io::Error| Failed::new("dist", format!("{}: {e}", folder.display()));
    fs::create_dir_all(folder).map_err(failed)?;
    let name = program.file_name().unwrap_or(OsStr::new("undercroft"));
    let stripped = folder.join(name);
    let mut debug_name = name.to_owned();
    debug_name.push(".debug");
    let debug = folder.join(&debug_name);
    Step::new("keep the debug information", "objcopy")
        .args(["--only-keep-debug", "--compress-debug-sections"])
        .args([program, &debug])
        .run()?;
    Step::new("strip", "strip")
        .args(["--strip-all", "-o"])
        .args([stripped.as_path(), program])
        .run()?;
    let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
    link.push(&debug);
    Step::new("name the debug information", "objcopy")
        .args([link.as_os_str(), stripped.as_os_str()])
        .run()?;
    Ok([stripped, debug])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_program_is_taken_apart_and_still_runs() {
        if ["cc", "objcopy", "strip", "readelf"]
            .iter()
            .any(|tool| which(tool).is_none())
        {
            println!("SKIPPED: there is no C compiler or no binutils");
            return;
        }
        let dir = std::env::temp_dir().join(format!("undercroft-dist-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let source = dir.join("it.c");
        fs::write(
            &source,
            "int seven(void) { return 7; }\nint main(void) { return seven(); }\n",
        )
        .unwrap();
        let program = dir.join("it");
        let built = Command::new("cc")
            .args(["-g", "-o"])
            .args([&program, &source])
            .status();
        assert!(built.unwrap().success());
        let [stripped, debug] = split(&program, &dir.join("out")).unwrap();
        assert_eq!(Command::new(&stripped).status().unwrap().code(), Some(7));
        let sections = |file: &Path| {
            let read = Command::new("readelf")
                .args(["-S", "-W"])
                .arg(file)
                .output()
                .unwrap();
            String::from_utf8(read.stdout).unwrap()
        };
        let (small, rest) = (sections(&stripped), sections(&debug));
        assert!(
            !small.contains(".debug_info") && !small.contains(".symtab"),
            "{small}"
        );
        assert!(small.contains(".gnu_debuglink"), "{small}");
        assert!(
            rest.contains(".debug_info") && rest.contains(".symtab"),
            "{rest}"
        );
        fs::remove_dir_all(dir).unwrap();
    }
}
