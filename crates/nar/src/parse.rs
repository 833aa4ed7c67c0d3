//! An archive is read from its beginning to its end, and told part by part.

use std::{
    ffi::OsString,
    io::{self, Read},
    os::unix::ffi::OsStringExt as _,
};

use crate::{ArchiveLimits, DEPTH_MAX, MAGIC, NAME_BYTES_MAX, TARGET_BYTES_MAX, padding};

/// The longest word of the format itself, in bytes: `executable` and the magic are the longest.
const WORD_BYTES_MAX: u64 = 16;

/// Why bytes are no archive, or none that is taken.
#[derive(Debug, thiserror::Error)]
pub enum BadArchive {
    /// They can't be read.
    #[error("the archive can't be read: {0}")]
    Read(io::Error),
    /// They end too early.
    #[error("the archive ends within {0}")]
    Short(&'static str),
    /// Something stands where something else belongs.
    #[error("the archive has {found:?} where {expected} belongs")]
    Word {
        /// What belongs there.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A name isn't one part of a path, or a link leads nowhere.
    #[error("the archive has {name:?} as {what}")]
    Name {
        /// As what.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Names are doubled, or not in their order.
    #[error("the archive has {name:?} after a name that isn't before it")]
    Order {
        /// The later name.
        name: String,
    },
    /// It is larger than may be.
    #[error("the archive has more than {max} {of}")]
    TooMuch {
        /// Of what.
        of: &'static str,
        /// How much may be.
        max: u64,
    },
    /// Bytes follow its end.
    #[error("the archive goes on after its end")]
    Trailing,
}

/// What is told of an archive, in its order. Names are one part of a path each, and a folder's are in ascending order.
pub trait Sink {
    /// What goes wrong with it.
    type Error: From<BadArchive>;

    /// A folder begins. The archive's own has an empty name.
    fn folder(&mut self, name: &OsString) -> Result<(), Self::Error>;
    /// The innermost folder ends.
    fn end(&mut self) -> Result<(), Self::Error>;
    /// A file, whose contents are read to their end.
    fn file(
        &mut self,
        name: &OsString,
        is_executable: bool,
        contents: &mut dyn Read,
    ) -> Result<(), Self::Error>;
    /// A link.
    fn link(&mut self, name: &OsString, target: &OsString) -> Result<(), Self::Error>;
}

/// Reads an archive whose outermost node is a folder.
///
/// # Errors
/// When it is none, is larger than `limits`, or the sink fails.
pub fn parse<S: Sink>(
    from: &mut dyn Read,
    limits: ArchiveLimits,
    to: &mut S,
) -> Result<(), S::Error> {
    let mut reader = Reader {
        from,
        bytes: limits.bytes,
        entries: limits.entries,
        limits,
    };
    reader.expect(MAGIC, "`nix-archive-1`")?;
    reader.expect(b"(", "`(`")?;
    reader.expect(b"type", "`type`")?;
    reader.expect(b"directory", "a folder")?;
    to.folder(&OsString::new())?;
    reader.inside(to, 1)?;
    to.end()?;
    let mut more = [0];
    match reader.from.read(&mut more) {
        Ok(0) => Ok(()),
        Ok(_) => Err(BadArchive::Trailing.into()),
        Err(error) => Err(BadArchive::Read(error).into()),
    }
}

struct Reader<'a> {
    from: &'a mut dyn Read,
    bytes: u64,
    entries: u64,
    limits: ArchiveLimits,
}

impl Reader<'_> {
    /// What is in a folder, up to and with its closing parenthesis.
    fn inside<S: Sink>(&mut self, to: &mut S, depth: usize) -> Result<(), S::Error> {
        let mut last: Option<Vec<u8>> = None;
        loop {
            match self.word()?.as_slice() {
                b")" => return Ok(()),
                b"entry" => {}
                other => return Err(unexpected("`entry` or `)`", other).into()),
            }
            if self.entries == 0 {
                let (of, max) = ("files, folders and links", self.limits.entries);
                return Err(BadArchive::TooMuch { of, max }.into());
            }
            self.entries -= 1;
            self.expect(b"(", "`(`")?;
            self.expect(b"name", "`name`")?;
            let name = self.string(NAME_BYTES_MAX, "a name")?;
            let is_part = !name.is_empty() && !name.contains(&b'/') && !name.contains(&0);
            if !is_part || name == b"." || name == b".." {
                return Err(bad_name("a name", &name).into());
            }
            if last.as_ref().is_some_and(|last| *last >= name) {
                let name = shown(&name);
                return Err(BadArchive::Order { name }.into());
            }
            let as_name = OsString::from_vec(name.clone());
            last = Some(name);
            self.expect(b"node", "`node`")?;
            self.node(&as_name, to, depth)?;
            self.expect(b")", "`)`")?;
        }
    }

    fn node<S: Sink>(&mut self, name: &OsString, to: &mut S, depth: usize) -> Result<(), S::Error> {
        self.expect(b"(", "`(`")?;
        self.expect(b"type", "`type`")?;
        match self.word()?.as_slice() {
            b"regular" => self.file(name, to),
            b"symlink" => {
                self.expect(b"target", "`target`")?;
                let target = self.string(TARGET_BYTES_MAX, "a link")?;
                if target.is_empty() || target.contains(&0) {
                    return Err(bad_name("where a link leads", &target).into());
                }
                to.link(name, &OsString::from_vec(target))?;
                Ok(self.expect(b")", "`)`")?)
            }
            b"directory" => {
                if depth >= DEPTH_MAX {
                    let (of, max) = ("folders within each other", DEPTH_MAX as u64);
                    return Err(BadArchive::TooMuch { of, max }.into());
                }
                to.folder(name)?;
                self.inside(to, depth + 1)?;
                to.end()
            }
            other => Err(unexpected("`regular`, `symlink` or `directory`", other).into()),
        }
    }

    fn file<S: Sink>(&mut self, name: &OsString, to: &mut S) -> Result<(), S::Error> {
        let mut word = self.word()?;
        let is_executable = word == b"executable";
        if is_executable {
            self.expect(b"", "an empty word")?;
            word = self.word()?;
        }
        // Older archives leave the contents of an empty file out; Nix reads these, and nothing here writes them.
        if word != b"contents" {
            return Err(unexpected("`contents`", &word).into());
        }
        let length = self.length()?;
        if length > self.bytes {
            let (of, max) = ("bytes in its files", self.limits.bytes);
            return Err(BadArchive::TooMuch { of, max }.into());
        }
        self.bytes -= length;
        let mut contents = (&mut *self.from).take(length);
        to.file(name, is_executable, &mut contents)?;
        // What the sink hasn't read, and what an archive that ends within doesn't have.
        io::copy(&mut contents, &mut io::sink()).map_err(BadArchive::Read)?;
        if contents.limit() > 0 {
            return Err(BadArchive::Short("a file").into());
        }
        self.fill(length)?;
        Ok(self.expect(b")", "`)`")?)
    }

    fn expect(&mut self, word: &[u8], name: &'static str) -> Result<(), BadArchive> {
        let found = self.word()?;
        match found == word {
            true => Ok(()),
            false => Err(unexpected(name, &found)),
        }
    }

    fn word(&mut self) -> Result<Vec<u8>, BadArchive> {
        self.string(WORD_BYTES_MAX, "a word")
    }

    fn string(&mut self, max: u64, what: &'static str) -> Result<Vec<u8>, BadArchive> {
        let length = self.length()?;
        if length > max {
            let of = match what {
                "a name" => "bytes in a name",
                "a link" => "bytes in a link",
                _ => "bytes in a word",
            };
            return Err(BadArchive::TooMuch { of, max });
        }
        let mut bytes = Vec::new();
        let read = (&mut *self.from).take(length).read_to_end(&mut bytes);
        let read = read.map_err(BadArchive::Read)?;
        if u64::try_from(read).unwrap_or(u64::MAX) < length {
            return Err(BadArchive::Short(what));
        }
        self.fill(length)?;
        Ok(bytes)
    }

    fn length(&mut self) -> Result<u64, BadArchive> {
        let mut bytes = [0; 8];
        self.exactly(&mut bytes, "a length")?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn fill(&mut self, length: u64) -> Result<(), BadArchive> {
        let mut zeroes = [0; 8];
        let count = usize::try_from(padding(length)).unwrap_or(0);
        let Some(rest) = zeroes.get_mut(..count) else {
            return Ok(());
        };
        self.exactly(rest, "what fills a string up")?;
        match zeroes == [0; 8] {
            true => Ok(()),
            false => Err(unexpected("zeroes", &zeroes)),
        }
    }

    fn exactly(&mut self, to: &mut [u8], what: &'static str) -> Result<(), BadArchive> {
        self.from
            .read_exact(to)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => BadArchive::Short(what),
                _ => BadArchive::Read(error),
            })
    }
}

fn unexpected(expected: &'static str, found: &[u8]) -> BadArchive {
    let found = shown(found);
    BadArchive::Word { expected, found }
}

fn bad_name(what: &'static str, name: &[u8]) -> BadArchive {
    let name = shown(name);
    BadArchive::Name { what, name }
}

/// A stranger's bytes, short and in one line.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(80).collect()
}
