//! What the kernel's files say: power, lid, temperature, microphone, camera, programs.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _},
    path::Path,
};

/// The largest file of the kernel that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024;
/// Entries of one folder that are looked at, at most: more processes than a PC has.
const ENTRIES_MAX: usize = 100_000;
/// How much of a program's name the kernel keeps, in bytes (`TASK_COMM_LEN` without its end).
const COMM_BYTES: usize = 15;

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&bytes(path)?).trim().to_owned())
}

/// The entries of a folder; none where it isn't there.
fn entries(path: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(path) {
        Ok(entries) => entries.take(ENTRIES_MAX).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn unknown(what: &str, error: &io::Error) -> String {
    format!("nobody knows {what}: {error}")
}

/// Whether it runs on mains. A machine without any supply that the kernel knows is a desktop.
pub(super) fn power(sys: &Path) -> Option<String> {
    let supplies = match entries(&sys.join("class/power_supply")) {
        Ok(supplies) => supplies,
        Err(error) => return Some(unknown("whether it is on mains", &error)),
    };
    let mut is_on_mains = None;
    let mut has_battery = false;
    for supply in supplies {
        let at = supply.path();
        let read = |name: &str| text(&at.join(name));
        // The battery of a mouse isn't the machine's.
        if read("scope").is_ok_and(|scope| scope == "Device") {
            continue;
        }
        match read("type").as_deref() {
            Ok("Battery") => {
                has_battery = true;
                if read("status").is_ok_and(|status| status == "Discharging") {
                    return Some("it runs on its battery".to_owned());
                }
            }
            Ok("Mains" | "USB" | "Wireless") => {
                let online = read("online").is_ok_and(|online| online != "0");
                is_on_mains = Some(is_on_mains.unwrap_or(false) || online);
            }
            Ok(_) => {}
            Err(_) => return Some("nobody knows whether it is on mains".to_owned()),
        }
    }
    match (has_battery, is_on_mains) {
        (true, Some(false)) => Some("it runs on its battery".to_owned()),
        (true, None) => Some("nobody knows whether it is on mains".to_owned()),
        (false, _) | (true, Some(true)) => None,
    }
}

/// Whether its lid is closed.
pub(super) fn lid(proc: &Path) -> Option<String> {
    let lids = match entries(&proc.join("acpi/button/lid")) {
        Ok(lids) => lids,
        Err(error) => return Some(unknown("whether its lid is closed", &error)),
    };
    lids.iter()
        .find_map(|lid| match text(&lid.path().join("state")) {
            Ok(state) if state.contains("open") => None,
            Ok(_) => Some("its lid is closed".to_owned()),
            Err(error) => Some(unknown("whether its lid is closed", &error)),
        })
}

/// Whether any part of it is too warm.
pub(super) fn temperature(sys: &Path, max_c: u32) -> Option<String> {
    let zones = match entries(&sys.join("class/thermal")) {
        Ok(zones) => zones,
        Err(error) => return Some(unknown("how warm it is", &error)),
    };
    let warmest = zones
        .iter()
        .filter(|zone| {
            zone.file_name()
                .to_string_lossy()
                .starts_with("thermal_zone")
        })
        // A sensor that sleeps can't be read; the others can.
        .filter_map(|zone| text(&zone.path().join("temp")).ok()?.parse::<i64>().ok())
        .max()?;
    let warmest_c = warmest / 1000;
    (warmest_c > i64::from(max_c))
        .then(|| format!("it is {warmest_c} °C warm, and may be {max_c} °C"))
}

/// Whether somebody records sound: the kernel says so of each device (`sound/core/pcm.c`).
pub(super) fn microphone(proc: &Path) -> Option<String> {
    let failed = |error: &io::Error| Some(unknown("whether the microphone is in use", error));
    let cards = match entries(&proc.join("asound")) {
        Ok(cards) => cards,
        Err(error) => return failed(&error),
    };
    let is_card = |name: &str| {
        name.strip_prefix("card")
            .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
    };
    for card in cards {
        if !is_card(&card.file_name().to_string_lossy()) {
            continue;
        }
        for device in entries(&card.path()).unwrap_or_default() {
            let name = device.file_name();
            let name = name.to_string_lossy();
            if !(name.starts_with("pcm") && name.ends_with('c')) {
                continue;
            }
            for part in entries(&device.path()).unwrap_or_default() {
                let status = part.path().join("status");
                match text(&status) {
                    Ok(status) if status == "closed" => {}
                    Ok(_) => return Some("the microphone is in use".to_owned()),
                    // A device's own file, which is no stream.
                    Err(error) if not_there(&error) => {}
                    Err(error) => return failed(&error),
                }
            }
        }
    }
    None
}

fn not_there(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Whether a program of this user has a camera open. Where there is no camera nobody is asked.
pub(super) fn camera(sys: &Path, proc: &Path) -> Option<String> {
    let failed = |error: &io::Error| Some(unknown("whether the camera is in use", error));
    match entries(&sys.join("class/video4linux")) {
        Ok(cameras) if cameras.is_empty() => return None,
        Ok(_) => {}
        Err(error) => return failed(&error),
    }
    let processes = match processes(proc) {
        Ok(processes) => processes,
        Err(error) => return failed(&error),
    };
    for process in processes {
        // Other people's processes can't be looked into, and some have gone by now.
        let Ok(files) = entries(&process.join("fd")) else {
            continue;
        };
        let opens = |file: &fs::DirEntry| {
            fs::read_link(file.path())
                .is_ok_and(|to| to.to_string_lossy().starts_with("/dev/video"))
        };
        if files.iter().any(opens) {
            return Some("the camera is in use".to_owned());
        }
    }
    None
}

fn processes(proc: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let is_number = |name: &str| name.bytes().all(|b| b.is_ascii_digit());
    Ok(entries(proc)?
        .into_iter()
        .filter(|entry| is_number(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect())
}

/// Whether one of these programs runs.
pub(super) fn programs(proc: &Path, exclusive: &BTreeSet<&str>) -> Option<String> {
    if exclusive.is_empty() {
        return None;
    }
    let processes = match processes(proc) {
        Ok(processes) => processes,
        Err(error) => return Some(unknown("which programs run", &error)),
    };
    for process in processes {
        let comm = text(&process.join("comm")).unwrap_or_default();
        // A program says itself what its command line is, and how long.
        let line = bytes(&process.join("cmdline")).unwrap_or_default();
        let first = line.split(|b| *b == 0).next().unwrap_or_default();
        let first = String::from_utf8_lossy(first);
        // Windows' programs bring their own way of writing paths.
        let base = first.rsplit(['/', '\\']).next().unwrap_or_default();
        let is_it = |name: &&&str| {
            base == **name
                || comm == **name
                || (comm.len() == COMM_BYTES && name.starts_with(&comm))
        };
        if let Some(name) = exclusive.iter().find(is_it) {
            return Some(format!("{name} is running"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Root(tempfile::TempDir);

    impl Root {
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = dir.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(dir)
        }

        fn path(&self) -> &Path {
            self.0.path()
        }
    }

    fn supply(files: &[(&str, &str)]) -> Option<String> {
        let files: Vec<_> = files
            .iter()
            .map(|(name, text)| (format!("class/power_supply/{name}"), *text))
            .collect();
        let files: Vec<_> = files.iter().map(|(n, t)| (n.as_str(), *t)).collect();
        power(Root::new(&files).path())
    }

    #[test]
    fn power_is_told_from_what_the_kernel_knows() {
        let battery = Some("it runs on its battery".to_owned());
        let unknown = Some("nobody knows whether it is on mains".to_owned());
        assert_eq!(supply(&[]), None, "a desktop");
        let laptop = |online, status| {
            supply(&[
                ("AC/type", "Mains\n"),
                ("AC/online", online),
                ("BAT0/type", "Battery\n"),
                ("BAT0/status", status),
            ])
        };
        assert_eq!(laptop("1\n", "Charging\n"), None);
        assert_eq!(laptop("1\n", "Full\n"), None);
        assert_eq!(laptop("0\n", "Discharging\n"), battery);
        // Some firmware says a moment late that nothing is charged.
        assert_eq!(laptop("0\n", "Unknown\n"), battery);
        assert_eq!(laptop("1\n", "Discharging\n"), battery);
        assert_eq!(
            supply(&[("BAT0/type", "Battery"), ("BAT0/status", "Full")]),
            unknown
        );
        assert_eq!(supply(&[("X/online", "1")]), unknown);
        let mouse = [
            ("hid/type", "Battery"),
            ("hid/scope", "Device"),
            ("hid/status", "Discharging"),
        ];
        assert_eq!(supply(&mouse), None, "a desktop with a mouse");
    }

    #[test]
    fn a_closed_lid_and_heat_are_reasons() {
        let lid_is = |state| lid(Root::new(&[("acpi/button/lid/LID0/state", state)]).path());
        assert_eq!(lid_is("state:      open\n"), None);
        assert_eq!(lid_is("state:      closed\n").unwrap(), "its lid is closed");
        assert_eq!(lid(Root::new(&[]).path()), None);
        let zones = Root::new(&[
            ("class/thermal/thermal_zone0/temp", "45000\n"),
            ("class/thermal/thermal_zone1/temp", "91500\n"),
            ("class/thermal/cooling_device0/temp", "200000\n"),
        ]);
        assert_eq!(
            temperature(zones.path(), 85).unwrap(),
            "it is 91 °C warm, and may be 85 °C"
        );
        assert_eq!(temperature(zones.path(), 95), None);
    }

    #[test]
    fn whoever_records_is_there() {
        let status = |text| {
            let root = Root::new(&[
                ("asound/card0/pcm0p/sub0/status", "state: RUNNING\n"),
                ("asound/card0/pcm0c/info", "card: 0\n"),
                ("asound/card0/pcm0c/sub0/status", text),
                ("asound/cards", "0\n"),
            ]);
            microphone(root.path())
        };
        assert_eq!(status("closed\n"), None);
        let running = "state: RUNNING\nowner_pid   : 1234\n";
        assert_eq!(status(running).unwrap(), "the microphone is in use");
    }

    #[test]
    fn a_camera_is_in_use_where_somebody_has_it_open() {
        let sys = Root::new(&[("class/video4linux/video0/name", "cam")]);
        let proc = Root::new(&[("77/comm", "zoom"), ("77/fd/.keep", "")]);
        assert_eq!(camera(sys.path(), proc.path()), None);
        std::os::unix::fs::symlink("/dev/video0", proc.path().join("77/fd/9")).unwrap();
        let found = camera(sys.path(), proc.path());
        assert_eq!(found.unwrap(), "the camera is in use");
        assert_eq!(
            camera(Root::new(&[]).path(), proc.path()),
            None,
            "no camera"
        );
    }

    #[test]
    fn exclusive_programs_are_known_by_their_names() {
        let proc = Root::new(&[
            ("1/comm", "systemd\n"),
            ("1/cmdline", "/sbin/init\0"),
            ("40/comm", "a-very-long-nam\n"),
            ("40/cmdline", "/opt/a-very-long-name\0--x\0"),
            ("41/comm", "wine64-preloade\n"),
            ("41/cmdline", "C:\\Games\\Doom.exe\0"),
        ]);
        let named = |name: &str| programs(proc.path(), &[name].into());
        assert_eq!(
            named("a-very-long-name").unwrap(),
            "a-very-long-name is running"
        );
        assert_eq!(named("Doom.exe").unwrap(), "Doom.exe is running");
        assert_eq!(named("systemd").unwrap(), "systemd is running");
        assert_eq!(named("doom"), None);
        // More than anybody reads: a hole of a TiB takes no room, and would never be through.
        let line = fs::File::create(proc.path().join("40/cmdline")).unwrap();
        line.set_len(1 << 40).unwrap();
        assert_eq!(named("Doom.exe").unwrap(), "Doom.exe is running");
        assert_eq!(programs(proc.path(), &BTreeSet::new()), None);
    }
}
