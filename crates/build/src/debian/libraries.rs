//! Programs with all the libraries that they load, put together from packages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::elf;
use super::error::PartsError;
use super::{Arch, PartSet};

/// What a set of programs needs to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Linked {
    /// The dynamic loader's path inside a system, such as `/lib64/ld-linux-x86-64.so.2`, and
    /// the file here. `None` if all programs are static.
    pub loader: Option<(String, PathBuf)>,
    /// The libraries by soname, the dynamic loader among them if something needs it by name.
    pub libraries: BTreeMap<String, PathBuf>,
}

impl PartSet {
    /// Finds the libraries of programs, following each library's own.
    ///
    /// # Errors
    /// [`PartsError::NoLibrary`] if one is in none of the packages; [`PartsError::BadFile`] if a
    /// program isn't one, or is for another architecture.
    pub fn link(&self, programs: &[PathBuf]) -> Result<Linked, PartsError> {
        let available = self.libraries()?;
        let mut linked = Linked::default();
        let mut queue: Vec<PathBuf> = programs.to_vec();
        let mut seen: BTreeSet<PathBuf> = queue.iter().cloned().collect();
        while let Some(path) = queue.pop() {
            let found = read_elf(&path, self.arch())?;
            if let Some(interpreter) = found.interpreter {
                let name = file_name(Path::new(&interpreter));
                let file = available.get(&name).ok_or_else(|| PartsError::NoLibrary {
                    program: path.clone(),
                    soname: name.clone(),
                })?;
                linked.loader = Some((interpreter, file.clone()));
            }
            for soname in found.needed {
                let library = available
                    .get(&soname)
                    .ok_or_else(|| PartsError::NoLibrary {
                        program: path.clone(),
                        soname: soname.clone(),
                    })?;
                if seen.insert(library.clone()) {
                    queue.push(library.clone());
                }
                linked.libraries.insert(soname, library.clone());
            }
        }
        Ok(linked)
    }

    /// The C library's modules for files and DNS, which no program names but Nix loads by name.
    ///
    /// # Errors
    /// [`PartsError::Io`] if the packages can't be read.
    pub fn name_services(&self) -> Result<BTreeMap<String, PathBuf>, PartsError> {
        let mut all = self.libraries()?;
        all.retain(|name, _| matches!(name.as_str(), "libnss_dns.so.2" | "libnss_files.so.2"));
        Ok(all)
    }

    /// Every library of the packages by file name, symbolic links followed. Those in the loader's
    /// own folders come before those in a program's private folder, which its RUNPATH names.
    fn libraries(&self) -> Result<BTreeMap<String, PathBuf>, PartsError> {
        let mut public = Vec::new();
        let mut private = Vec::new();
        for part in self.parts() {
            for root in ["lib", "usr/lib", "lib64", "usr/lib64"] {
                let root = self.dir(part).join(root);
                for folder in [root.join(self.arch().triplet()), root] {
                    list(&folder, &mut public, &mut private)?;
                }
            }
        }
        for folder in std::mem::take(&mut private) {
            list(&folder, &mut private, &mut Vec::new())?;
        }
        let inside =
            fs::canonicalize(&self.unpacked).map_err(PartsError::io("find", &self.unpacked))?;
        let mut all = BTreeMap::new();
        for path in private.into_iter().chain(public) {
            // A link that leads nowhere is a development file of another package; one that leads
            // out of the packages (some are absolute) would take this machine's own library.
            if let Ok(real) = fs::canonicalize(&path)
                && real.starts_with(&inside)
                && real.is_file()
            {
                all.insert(file_name(&path), real);
            }
        }
        Ok(all)
    }
}

/// Lists the libraries and the folders of a folder; one that isn't there is empty.
fn list(
    folder: &Path,
    libraries: &mut Vec<PathBuf>,
    folders: &mut Vec<PathBuf>,
) -> Result<(), PartsError> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry.map_err(PartsError::io("read", folder))?.path();
        if path.is_dir() {
            folders.push(path);
        } else if file_name(&path).contains(".so") {
            libraries.push(path);
        }
    }
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn read_elf(path: &Path, arch: Arch) -> Result<elf::Elf, PartsError> {
    let data = fs::read(path).map_err(PartsError::io("read", path))?;
    let bad = |problem: String| PartsError::BadFile {
        path: path.to_owned(),
        problem,
    };
    let found = elf::parse(&data).ok_or_else(|| bad("not a 64-bit ELF file".to_owned()))?;
    if found.arch != Some(arch) {
        return Err(bad(format!("it isn't a program for {arch}")));
    }
    Ok(found)
}
