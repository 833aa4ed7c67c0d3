//! Files to whose end lines are added, each durable before it counts.
//!
//! A line is a checksum, a space and JSON: `8 hexadecimal digits of the CRC-32 of the JSON`. What a power cut leaves
//! of the last line is cut off when the file is opened again; anything else that is damaged is refused, as a later
//! line may say the contrary of an earlier one.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
};

use serde::{Serialize, de::DeserializeOwned};
use undercroft_folder::confined::{Confined, ConfinedError};
use undercroft_model::advice::{Advice, ErrorKind, FileFailure};

/// The longest line, in bytes. An entry holds a record with an offer, or the end of what a job wrote: some KiB.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// The largest file that is opened, in bytes: a million jobs and their receipts.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Why such a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LinesError {
    /// It could not be reached.
    #[error(transparent)]
    File(#[from] ConfinedError),
    /// It could not be read or written.
    #[error("can't {tried} {}: {source}", path.display())]
    Io {
        /// What was tried.
        tried: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line in it isn't what was written.
    #[error("line {line} of {} is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        detail: String,
    },
    /// It is larger than such a file may be.
    #[error("{} is longer than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl Advice for LinesError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::File(error) => error.kind(),
            Self::Io { .. } => ErrorKind::Failed,
            Self::Damaged { .. } | Self::TooLarge { .. } => ErrorKind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::File(error) => error.hint(),
            Self::Io { .. } => None,
            Self::Damaged { .. } | Self::TooLarge { .. } => Some(
                "It says what was agreed to, so nothing of it is guessed: put back a backup of it, or move the state \
                 folder away and enrol anew. Until then nothing is lent."
                    .to_owned(),
            ),
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::File(error) => error.file(),
            Self::Io {
                tried,
                path,
                source,
            } => Some(FileFailure {
                tried: Some(tried),
                path,
                source: Some(source),
            }),
            _ => None,
        }
    }
}

/// A file that was gone through, and to which lines can be added.
#[derive(Debug)]
pub(crate) struct Lines {
    file: File,
    path: PathBuf,
    /// How long the file is as far as its lines are whole, in bytes.
    end: u64,
}

impl Lines {
    /// Opens a file, makes it if need be, and hands over what its lines say, each with where it begins.
    ///
    /// # Errors
    /// When it can't be read or written, or what it says isn't what was written.
    pub(crate) fn open<T: DeserializeOwned>(
        folder: &Confined,
        name: &str,
        mut take: impl FnMut(u64, T) -> Result<(), String>,
    ) -> Result<Self, LinesError> {
        let mut file = folder.open_own(name)?;
        let path = folder.path(name);
        let io = |tried| {
            let path = path.clone();
            move |source| LinesError::Io {
                tried,
                path,
                source,
            }
        };
        if file.metadata().map_err(io("look at"))?.len() > FILE_BYTES_MAX {
            return Err(LinesError::TooLarge { path });
        }
        let mut reader = BufReader::new(&mut file);
        let mut end = 0;
        for number in 1_usize.. {
            let mut line = Vec::new();
            let limit = LINE_BYTES_MAX.saturating_add(1) as u64;
            let read = (&mut reader).take(limit).read_until(b'\n', &mut line);
            let bytes = read.map_err(io("read"))? as u64;
            if bytes == 0 {
                break;
            }
            // Only the last line can be torn.
            if is_torn(&line) && reader.fill_buf().map_err(io("read"))?.is_empty() {
                break;
            }
            let taken = parse(&line).and_then(|value| take(end, value));
            taken.map_err(|detail| LinesError::Damaged {
                path: path.clone(),
                line: number,
                detail,
            })?;
            end += bytes;
        }
        drop(reader);
        let is_whole = file.metadata().map_err(io("look at"))?.len() == end;
        if !is_whole {
            file.set_len(end).map_err(io("cut"))?;
            file.sync_all().map_err(io("write"))?;
        }
        file.seek(SeekFrom::Start(end)).map_err(io("read"))?;
        // A file that was made just now has to be found again, too.
        let above = folder.make_folder("", 0o700)?;
        above.sync_all().map_err(io("write"))?;
        Ok(Self { file, path, end })
    }

    /// Adds a line and waits until it is durable. Where that fails nothing of it stays.
    ///
    /// # Errors
    /// When it is too long or can't be written.
    pub(crate) fn add(&mut self, value: &impl Serialize) -> Result<u64, LinesError> {
        let at = self.end;
        let written = line(value).and_then(|line| {
            self.file.write_all(&line)?;
            self.file.sync_data()?;
            Ok(line.len() as u64)
        });
        match written {
            Ok(bytes) => {
                self.end += bytes;
                Ok(at)
            }
            Err(source) => {
                let cut = self.file.set_len(at).and_then(|()| self.file.sync_all());
                let back = self.file.seek(SeekFrom::Start(at));
                let source = cut.and(back.map(|_| ())).err().unwrap_or(source);
                Err(LinesError::Io {
                    tried: "write",
                    path: self.path.clone(),
                    source,
                })
            }
        }
    }

    /// Reads lines again, from where one begins, until `take` has enough.
    ///
    /// # Errors
    /// When they can't be read, or aren't what was written.
    pub(crate) fn again<T: DeserializeOwned>(
        &self,
        from: u64,
        mut take: impl FnMut(T) -> bool,
    ) -> Result<(), LinesError> {
        let failed = |source| LinesError::Io {
            tried: "read",
            path: self.path.clone(),
            source,
        };
        let mut file = File::open(format!("/proc/self/fd/{}", fd(&self.file))).map_err(failed)?;
        file.seek(SeekFrom::Start(from)).map_err(failed)?;
        let mut reader = BufReader::new(file.take(self.end.saturating_sub(from)));
        for number in 1_usize.. {
            let mut line = Vec::new();
            if reader.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                break;
            }
            let value = parse(&line).map_err(|detail| LinesError::Damaged {
                path: self.path.clone(),
                line: number,
                detail,
            })?;
            if !take(value) {
                break;
            }
        }
        Ok(())
    }
}

fn fd(file: &File) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(file)
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(value)?;
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    if line.len() > LINE_BYTES_MAX {
        let why = format!(
            "a line has at most {LINE_BYTES_MAX} bytes, and this has {}",
            line.len()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(line)
}

/// Whether a last line was never written whole: its end is absent, or there are bytes in it that never reached the disk.
pub(crate) fn is_torn(line: &[u8]) -> bool {
    line.last() != Some(&b'\n') || line.contains(&0)
}

pub(crate) fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    let line = line
        .strip_suffix(b"\n")
        .ok_or_else(|| format!("it has no end, or is longer than {LINE_BYTES_MAX} bytes"))?;
    let (sum, json) = line.split_at_checked(9).ok_or("it is too short")?;
    if sum != format!("{:08x} ", crc32fast::hash(json)).as_bytes() {
        return Err("its checksum is another".to_owned());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self { dir }
        }

        fn open(&self) -> Result<(Lines, Vec<(u64, String)>), LinesError> {
            let mut said = Vec::new();
            let folder = Confined::new(self.dir.path());
            let lines = Lines::open(&folder, "entries", |at, text: String| {
                said.push((at, text));
                Ok(())
            })?;
            Ok((lines, said))
        }

        fn bytes(&self) -> Vec<u8> {
            std::fs::read(self.dir.path().join("entries")).unwrap()
        }

        fn put(&self, bytes: &[u8]) {
            std::fs::write(self.dir.path().join("entries"), bytes).unwrap();
        }
    }

    #[test]
    fn what_was_added_is_there_again_and_can_be_read_from_any_line_on() {
        let place = Place::new();
        let (mut lines, said) = place.open().unwrap();
        assert!(said.is_empty());
        let at: Vec<u64> = ["one", "two\n", "three"]
            .iter()
            .map(|text| lines.add(text).unwrap())
            .collect();
        let mut again = Vec::new();
        lines
            .again(at[1], |text: String| {
                again.push(text);
                true
            })
            .unwrap();
        assert_eq!(again, ["two\n", "three"]);
        let (mut lines, said) = place.open().unwrap();
        assert_eq!(said.iter().map(|(at, _)| *at).collect::<Vec<_>>(), at);
        assert!(lines.add(&"x".repeat(LINE_BYTES_MAX)).is_err());
        lines.add(&"four").unwrap();
        assert_eq!(place.open().unwrap().1.len(), 4);
    }

    #[test]
    fn a_file_cut_anywhere_holds_all_whole_lines_and_can_be_added_to() {
        let place = Place::new();
        let (mut lines, _) = place.open().unwrap();
        let ends: Vec<u64> = ["one", "two", "three"]
            .iter()
            .map(|text| {
                lines.add(text).unwrap();
                lines.end
            })
            .collect();
        let whole = place.bytes();
        for cut in 0..=whole.len() {
            place.put(&whole[..cut]);
            let (mut lines, said) = place.open().unwrap();
            let expected = ends.iter().filter(|end| **end <= cut as u64).count();
            assert_eq!(said.len(), expected, "cut at {cut}");
            lines.add(&"more").unwrap();
            assert_eq!(place.open().unwrap().1.len(), expected + 1, "cut at {cut}");
        }
    }

    #[test]
    fn pages_that_never_reached_the_disk_are_a_torn_end() {
        let place = Place::new();
        let (mut lines, _) = place.open().unwrap();
        lines.add(&"one").unwrap();
        lines.add(&"two").unwrap();
        let mut bytes = place.bytes();
        let len = bytes.len();
        bytes[len - 8..len - 2].fill(0);
        place.put(&bytes);
        assert_eq!(place.open().unwrap().1.len(), 1);
    }

    #[test]
    fn damage_is_refused_with_its_line() {
        let place = Place::new();
        let (mut lines, _) = place.open().unwrap();
        for text in ["one", "two", "three"] {
            lines.add(&text).unwrap();
        }
        let whole = place.bytes();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            place.put(&bytes);
            // A last line without its end is a torn one; every other change is seen.
            let is_end = at == whole.len() - 1;
            assert_eq!(place.open().is_ok(), is_end, "changed at {at}");
        }
        place.put(&[b'x'; 3 * LINE_BYTES_MAX]);
        let error = place.open().unwrap_err().to_string();
        assert!(
            error.starts_with("line 1 of ") && error.contains("longer than"),
            "{error}"
        );
    }
}
