//! The program `hardening-controller`. All of it is in the library, where it can be tested.

use std::process::ExitCode;

fn main() -> ExitCode {
    hardening_controller::main()
}
