//! What is said about a panic.

use std::panic::PanicHookInfo;

/// From now on a panic of this process is logged by its place alone.
///
/// The usual report shows the panic's message, and a message may quote what was being read at that moment: a
/// pod, with all that it keeps to itself. For the program to call, since there is one report for all of it.
pub fn report_by_place() {
    std::panic::set_hook(Box::new(report));
}

fn report(panic: &PanicHookInfo<'_>) {
    let place = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(
        place,
        thread = thread.name().unwrap_or_default(),
        "a defect: the program panicked"
    );
}
