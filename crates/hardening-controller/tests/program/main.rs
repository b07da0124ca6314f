//! The program as its users run it: its exit codes, what it prints, and what it serves.

/// What was asked wrongly, and what is wrong with what was given.
mod bad_input;
/// The CustomResourceDefinitions, printed and in `crds/`.
mod crds;
/// `serve`: reviews answered by policies from files.
mod serving;
/// Running the program, and talking to it.
mod support;
