//! How a command ended.

use crate::error::Kind;

/// How a command that could do its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// All is well.
    Well,
    /// There are changes to make.
    Changes,
    /// The report says what failed.
    Failed,
    /// The report says what is wrong with what was given.
    BadInput,
    /// As the program ended that was run in the user's stead.
    Code(u8),
}

impl Done {
    /// The code that the process exits with.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Failed => Kind::Failed.exit_code(),
            Self::Changes => 2,
            Self::Code(code) => code,
            Self::BadInput => Kind::Input.exit_code(),
        }
    }
}
