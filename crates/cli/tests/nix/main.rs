//! The library for Nix: its pure half over every example, against golden files and against the
//! model's own reading, and the syntax and style of every file.

#![recursion_limit = "256"]

#[cfg(test)]
mod agree;
#[cfg(test)]
mod derived;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod image;
#[cfg(test)]
mod on_machine;
#[cfg(test)]
mod pure;
#[cfg(test)]
mod style;
#[cfg(test)]
mod support;
