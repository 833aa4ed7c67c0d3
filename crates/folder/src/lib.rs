//! The fleet's folder and its state folder.
//!
//! A fleet's folder is a repository that others may propose changes to. Whoever reads or writes in it as
//! somebody with more rights must not be led elsewhere by a link, nor leave a file half written, nor a secret
//! readable: [`confined`] is the one way in. Files that a person named are read by [`named`], with a limit.

pub mod confined;
pub mod git_index;
pub mod named;
pub mod state;
