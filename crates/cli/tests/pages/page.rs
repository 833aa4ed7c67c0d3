//! A page's console blocks, with their marks.

use undercroft_testkit::{repository, tracked};

/// A page.
pub(crate) struct Page {
    pub(crate) name: String,
    pub(crate) blocks: Vec<Block>,
}

/// A console block.
pub(crate) struct Block {
    /// The line of its beginning, counted from 1.
    pub(crate) line: usize,
    /// What the comment before it says.
    pub(crate) mark: Result<Mark, String>,
    pub(crate) commands: Vec<Command>,
}

/// What a block's comment says.
#[derive(Debug)]
pub(crate) enum Mark {
    Run {
        /// The folder of the repository whose copy it begins in.
        folder: Option<String>,
        /// Beginnings of commands that aren't run, and why.
        but: Vec<(String, Reason)>,
    },
    Not(Reason),
}

/// Why something isn't run.
#[derive(Debug)]
pub(crate) enum Reason {
    Metal,
    Root,
    Network,
    Minutes,
    /// An end-to-end test that does it.
    EndToEnd(String),
    /// Another test that reads the block, and does what it says.
    Test(String),
}

impl Reason {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "metal" => Ok(Self::Metal),
            "root" => Ok(Self::Root),
            "network" => Ok(Self::Network),
            "minutes" => Ok(Self::Minutes),
            other => match other.split_once(' ') {
                Some(("e2e", name)) => Ok(Self::EndToEnd(name.trim().to_owned())),
                Some(("test", name)) => Ok(Self::Test(name.trim().to_owned())),
                _ => Err(format!(
                    "{other:?} is no reason: metal, root, network, minutes, e2e NAME, or test NAME"
                )),
            },
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Metal => "metal",
            Self::Root => "root",
            Self::Network => "network",
            Self::Minutes => "minutes",
            Self::EndToEnd(_) => "e2e",
            Self::Test(_) => "test",
        }
    }
}

/// A command with what it shows.
#[derive(Debug)]
pub(crate) struct Command {
    /// Its line in the page, counted from 1.
    pub(crate) line: usize,
    /// The whole of it; several lines where it goes on.
    pub(crate) text: String,
    /// What the page shows below it.
    pub(crate) shown: Vec<String>,
    /// The code that it may end with beside 0.
    pub(crate) exit_code: i32,
}

/// The README, the pages of `docs/`, and how to contribute.
pub(crate) fn pages() -> Vec<Page> {
    let mut names: Vec<String> = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    names.extend(
        tracked("docs")
            .iter()
            .map(|file| file.display().to_string())
            .filter(|name| name.ends_with(".md")),
    );
    let read = |name: String| {
        let text = std::fs::read_to_string(repository().join(&name)).unwrap();
        Page {
            blocks: blocks(&text),
            name,
        }
    };
    names.into_iter().map(read).collect()
}

impl Page {
    pub(crate) fn has_session(&self) -> bool {
        let run = |block: &Block| matches!(block.mark, Ok(Mark::Run { .. }));
        self.blocks.iter().any(run)
    }

    /// The tests that its marks name.
    pub(crate) fn named_tests(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for block in &self.blocks {
            let reasons: Vec<&Reason> = match &block.mark {
                Ok(Mark::Not(reason)) => vec![reason],
                Ok(Mark::Run { but, .. }) => but.iter().map(|(_, reason)| reason).collect(),
                Err(_) => Vec::new(),
            };
            for reason in reasons {
                if let Reason::EndToEnd(name) | Reason::Test(name) = reason {
                    names.push(name.as_str());
                }
            }
        }
        names
    }
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut comment, mut inside, mut indent) = (None::<String>, false, 0);
    for (i, line) in text.lines().enumerate() {
        let fence = line.trim_start();
        if inside {
            let block = blocks.last_mut().unwrap();
            if fence.starts_with("```") {
                inside = false;
            } else {
                take(block, i + 1, line.get(indent..).unwrap_or(""));
            }
        } else if let Some(language) = fence.strip_prefix("```")
            && ["console", "sh", "bash", "shell"].contains(&language.trim())
        {
            inside = true;
            indent = line.len() - fence.len();
            let mark = if language.trim() == "console" {
                mark(comment.as_deref())
            } else {
                Err("commands stand in blocks of the language `console`, each after a `$`".into())
            };
            blocks.push(Block {
                line: i + 1,
                mark,
                commands: Vec::new(),
            });
        }
        // The comment stands right before the block.
        let is_comment = fence.starts_with("<!--") && fence.ends_with("-->");
        if is_comment {
            let inner = fence.trim_start_matches("<!--").trim_end_matches("-->");
            comment = Some(inner.trim().to_owned());
        } else if !line.is_empty() {
            comment = None;
        }
    }
    blocks
}

fn mark(comment: Option<&str>) -> Result<Mark, String> {
    let help = "it isn't said whether it is run: <!-- run -->, or <!-- not run: REASON -->";
    let comment = comment.ok_or(help)?;
    if let Some(reason) = comment.strip_prefix("not run:") {
        return Ok(Mark::Not(Reason::parse(reason)?));
    }
    let rest = comment.strip_prefix("run").ok_or(help)?;
    let mut parts = rest.split(", but not:");
    let folder = match parts.next().unwrap_or("").trim() {
        "" => None,
        place => Some(place.strip_prefix("in ").ok_or(help)?.trim().to_owned()),
    };
    let mut but = Vec::new();
    for part in parts {
        let (beginning, reason) = part.rsplit_once(": ").ok_or(help)?;
        but.push((beginning.trim().to_owned(), Reason::parse(reason)?));
    }
    Ok(Mark::Run { folder, but })
}

/// Takes a line of a block: a command, the rest of one, or what one shows.
fn take(block: &mut Block, number: usize, line: &str) {
    let goes_on = |text: &str| text.ends_with(['\\', '|']) || text.ends_with("&&");
    if let Some(text) = line.strip_prefix("$ ") {
        block.commands.push(Command {
            line: number,
            text: text.to_owned(),
            shown: Vec::new(),
            exit_code: exit_code(text),
        });
    } else if let Some(command) = block.commands.last_mut() {
        if command.shown.is_empty() && goes_on(command.text.trim_end()) {
            command.text.push('\n');
            command.text.push_str(line);
        } else {
            command.shown.push(line.to_owned());
        }
    } else {
        block.mark = Err("the block begins with a line that is no command: `$ …`".into());
    }
}

/// What a comment at the end of a command says of its exit code.
fn exit_code(text: &str) -> i32 {
    let said = text.rsplit_once("exit code ");
    let digits = said.map(|(_, rest)| {
        rest.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
    });
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}
