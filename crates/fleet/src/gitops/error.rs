//! Why a tree can't be rendered or brought to disk.

use std::path::PathBuf;

use undercroft_folder::confined::ConfinedError;
use undercroft_model::{
    advice::{Advice, ErrorKind, FileFailure},
    words::count,
};
use undercroft_render::Problem;

use super::files::DEPTH_MAX;

/// Why a tree can't be rendered or brought to disk.
#[derive(Debug, thiserror::Error)]
pub enum GitopsError {
    /// A file of the fleet's folder can't be used.
    #[error(transparent)]
    Confined(#[from] ConfinedError),
    /// A file's name isn't UTF-8, and Argo CD couldn't name it.
    #[error("{} has a name that isn't UTF-8", path.display())]
    NameNotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// Folders lie in each other too deep.
    #[error("{} is more than {DEPTH_MAX} folders deep", path.display())]
    TooDeep {
        /// The folder.
        path: PathBuf,
    },
    /// What the tree is rendered from has errors.
    #[error("the tree can't be rendered: {}; nothing was written", count(problems.len(), "error"))]
    Problems {
        /// All of them.
        problems: Vec<Problem>,
    },
    /// Versions, or what the cluster was begun with, don't go with the inventory.
    #[error("nothing was planned: {}", count(problems.len(), "error"))]
    Versions {
        /// Everything that doesn't.
        problems: Vec<Problem>,
    },
}

impl GitopsError {
    /// What is wrong, one by one, where it is in what people wrote.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Problems { problems } | Self::Versions { problems } => problems,
            Self::Confined(_) | Self::NameNotUtf8 { .. } | Self::TooDeep { .. } => &[],
        }
    }
}

impl From<Problem> for GitopsError {
    fn from(problem: Problem) -> Self {
        Self::Problems {
            problems: vec![problem],
        }
    }
}

impl From<Vec<Problem>> for GitopsError {
    fn from(problems: Vec<Problem>) -> Self {
        Self::Problems { problems }
    }
}

impl Advice for GitopsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Confined(error) => error.kind(),
            _ => ErrorKind::Input,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Confined(error) => error.hint(),
            _ => None,
        }
    }

    fn file(&self) -> Option<FileFailure<'_>> {
        match self {
            Self::Confined(error) => error.file(),
            _ => None,
        }
    }
}
