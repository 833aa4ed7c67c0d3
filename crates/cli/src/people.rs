//! Who a number of `/etc/passwd` is.

use std::{fs, path::Path, process::Command};

/// Where a program of the system lies. `PATH` isn't asked: this may be root, with the environment
/// of somebody else.
const PROGRAM_FOLDERS: [&str; 4] = [
    "/usr/bin",
    "/bin",
    "/run/current-system/sw/bin",
    "/usr/sbin",
];

/// Who runs this, for what is kept as somebody's word.
pub(crate) fn who() -> String {
    // Root that became somebody by sudo is that somebody from then on.
    let is_told =
        |name: &str, value: &str| !value.is_empty() && (name, value) != ("SUDO_USER", "root");
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| {
            std::env::var(name)
                .ok()
                .filter(|value| is_told(name, value))
        })
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

/// A user, as the system knows one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) uid: u32,
    pub(crate) gid: Option<u32>,
    pub(crate) name: Option<String>,
    pub(crate) home: Option<String>,
}

impl Person {
    /// The user with a number; one that the system doesn't know has nothing else.
    pub(crate) fn of(uid: u32) -> Self {
        let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Self::in_passwd(uid, &text)
            .or_else(|| {
                // Directories such as LDAP are the C library's business.
                let number = uid.to_string();
                Self::in_passwd(uid, &output_of("getent", &["passwd", &number])?)
            })
            .unwrap_or(Self {
                uid,
                gid: None,
                name: None,
                home: None,
            })
    }

    fn in_passwd(uid: u32, text: &str) -> Option<Self> {
        text.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, number, gid, _, home, ..] = fields.as_slice() else {
                return None;
            };
            (number.parse() == Ok(uid)).then(|| Self {
                uid,
                gid: gid.parse().ok(),
                name: Some((*name).to_owned()),
                home: Some((*home).to_owned()).filter(|home| home.starts_with('/')),
            })
        })
    }

    /// The user who runs this.
    pub(crate) fn me() -> Self {
        Self::of(rustix::process::geteuid().as_raw())
    }

    /// What the user is called in a sentence.
    pub(crate) fn words(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} (uid {})", self.uid),
            None => format!("uid {}", self.uid),
        }
    }

    /// What `chown` calls the user with the first group; a user without a name has none.
    pub(crate) fn for_chown(&self, gid: u32) -> String {
        match &self.name {
            Some(name) => format!("{name}:"),
            None => format!("{}:{gid}", self.uid),
        }
    }

    /// The user's name for the environment, or the number.
    pub(crate) fn for_environment(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.uid.to_string())
    }

    /// What `sudo -u` calls the user.
    pub(crate) fn for_sudo(&self) -> String {
        self.name
            .clone()
            .unwrap_or_else(|| format!("'#{}'", self.uid))
    }

    /// The groups that the user is in, the first one first.
    pub(crate) fn groups(&self, first: u32) -> Vec<u32> {
        let more = self
            .name
            .as_deref()
            .and_then(|name| output_of("id", &["-G", "--", name]))
            .unwrap_or_default();
        let mut groups = vec![first];
        for gid in more.split_whitespace().filter_map(|gid| gid.parse().ok()) {
            if !groups.contains(&gid) {
                groups.push(gid);
            }
        }
        groups
    }
}

fn output_of(program: &str, args: &[&str]) -> Option<String> {
    let path = PROGRAM_FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.is_file())?;
    let output = Command::new(path).args(args).env_clear().output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_passwd_is_a_person_and_another_text_is_none() {
        let text =
            "root:x:0:0:root:/root:/bin/sh\nbroken:x\nada:x:1000:100:Ada,,,:/home/ada:/bin/bash\n";
        let ada = Person::in_passwd(1000, text).unwrap();
        assert_eq!(ada.words(), "ada (uid 1000)");
        assert_eq!(
            (ada.gid, ada.home.as_deref()),
            (Some(100), Some("/home/ada"))
        );
        assert_eq!(Person::in_passwd(1001, text), None);
        let nobody_knows = Person::of(3_999_999_999);
        assert_eq!(nobody_knows.words(), "uid 3999999999");
        assert_eq!(nobody_knows.for_sudo(), "'#3999999999'");
        assert_eq!(Person::of(0).name.as_deref(), Some("root"));
        assert_eq!(Person::of(0).groups(0).first(), Some(&0));
    }
}
