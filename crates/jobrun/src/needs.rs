//! Which files of this machine the program is made of, so that a sandbox can show just these.

use std::{collections::BTreeSet, env, fs};

use undercroft_sandbox::order::{Needs, ORDER_VERSION};

/// Prints what a sandbox has to show of this machine.
pub(crate) fn print() -> Result<(), String> {
    let own = env::current_exe().map_err(|error| format!("can't tell where it is: {error}"))?;
    let maps = fs::read_to_string("/proc/self/maps")
        .map_err(|error| format!("can't read its own maps: {error}"))?;
    let needs = read(&maps, &own.to_string_lossy());
    let text = serde_json::to_string(&needs).map_err(|error| error.to_string())?;
    println!("{text}");
    Ok(())
}

/// From the text of `/proc/self/maps` (proc(5)).
fn read(maps: &str, own: &str) -> Needs {
    let mut files: BTreeSet<&str> = maps
        .lines()
        .filter_map(|line| line.find('/').and_then(|at| line.get(at..)))
        .filter(|file| *file != own)
        .collect();
    let is_loader = |file: &&&str| file.rsplit('/').next().is_some_and(|n| n.starts_with("ld"));
    let loader = files.iter().find(is_loader).copied();
    if let Some(loader) = loader {
        files.remove(loader);
    }
    Needs {
        version: ORDER_VERSION,
        loader: loader.map(str::to_owned),
        libraries: files.into_iter().map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_told_apart() {
        let maps = "\
55d0-55d1 r--p 00000000 08:01 131 /usr/bin/undercroft-job
7f00-7f01 r-xp 00000000 08:01 132 /usr/lib/x86_64-linux-gnu/libc.so.6
7f01-7f02 r--p 00000000 08:01 132 /usr/lib/x86_64-linux-gnu/libc.so.6
7f03-7f04 r-xp 00000000 08:01 133 /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
7ffc-7ffd rw-p 00000000 00:00 0 [stack]
";
        let needs = read(maps, "/usr/bin/undercroft-job");
        assert_eq!(
            needs.loader.as_deref(),
            Some("/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
        );
        assert_eq!(needs.libraries, ["/usr/lib/x86_64-linux-gnu/libc.so.6"]);
        let alone = read("55d0-55d1 r--p 0 08:01 1 /a\n", "/a");
        assert_eq!((alone.loader, alone.libraries.len()), (None, 0));
    }
}
