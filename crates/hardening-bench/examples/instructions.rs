//! One step of a review, once, between two marks that valgrind knows: `hack/count-instructions` counts what
//! stands between them, which is the same on a busy machine as on an idle one. The step is taken once before, so
//! that what is counted finds the memory that its forerunner gave back, as in a server, and not what is left of the
//! program's start, which hangs on the length of its path.
//!
//! Without a name it tells the names of all cases.

use std::hint::black_box;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::FutureExt as _;
use hardening_bench::contender::Contender;
use hardening_bench::{NAMESPACE, Size, Written, handler, pod, policies, review};
use hardening_engine::{Pod, plan};
use hardening_webhook::review::Review;
use tokio::time::Instant;

/// What is counted.
#[derive(Clone, Copy)]
enum Step {
    /// A review read from its bytes.
    Parse,
    /// The pod's policies found.
    Matching,
    /// What they fill in decided.
    Plan,
    /// The patch written.
    Patch,
    /// All of it: a body in, a body out. Beside it what those do that the webhook is measured by.
    Answer(Contender),
}

impl Step {
    const ALL: [(Self, &str); 7] = [
        (Self::Parse, "parse"),
        (Self::Matching, "matching"),
        (Self::Plan, "plan"),
        (Self::Patch, "patch"),
        (Self::Answer(Contender::Hardening), "answer"),
        (Self::Answer(Contender::Noop), "no-op"),
        (Self::Answer(Contender::Fixed), "fixed-patch"),
    ];
}

fn main() -> Result<()> {
    // What cargo itself passes begins with a dash.
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let mut stdout = std::io::stdout().lock();
    let mut found = false;
    for (name, step, size, written) in cases() {
        match &wanted {
            None => writeln!(stdout, "{name}").context("write the names")?,
            Some(wanted) if *wanted == name => {
                count(step, size, written)?;
                found = true;
            }
            Some(_) => {}
        }
    }
    ensure!(
        found || wanted.is_none(),
        "there is no case {}",
        wanted.unwrap_or_default()
    );
    Ok(())
}

fn cases() -> impl Iterator<Item = (String, Step, Size, Written)> {
    Step::ALL.into_iter().flat_map(|(step, step_name)| {
        Size::ALL.into_iter().flat_map(move |size| {
            let name = format!("{step_name}/{}", size.name());
            let first = (name.clone(), step, size, Written::Nothing);
            // A pod that needs nothing has no patch; reading it and finding its policies is nothing new.
            let second = matches!(step, Step::Plan | Step::Answer(Contender::Hardening));
            let second = second.then(|| {
                (
                    format!("{name}/second-pass"),
                    step,
                    size,
                    Written::Everything,
                )
            });
            [Some(first), second].into_iter().flatten()
        })
    })
}

/// Takes a step twice, the second time for the count.
fn twice(step: &mut dyn FnMut()) {
    step();
    counted(step);
}

/// What is counted begins and ends here.
#[inline(never)]
fn counted(step: &mut dyn FnMut()) {
    step();
}

fn count(step: Step, size: Size, written: Written) -> Result<()> {
    let body = review(size, written)?;
    let json = pod(size, written)?.to_string();
    let pod = Pod::from_json(&json)?;
    let policies = policies()?;
    let matching = policies.matching(NAMESPACE, &pod)?;
    match step {
        Step::Parse => twice(&mut || {
            let _ = black_box(Review::from_json(black_box(&body)));
        }),
        Step::Matching => twice(&mut || {
            let _ = black_box(policies.matching(black_box(NAMESPACE), &pod));
        }),
        Step::Plan => twice(&mut || {
            let _ = black_box(plan(&matching, black_box(&pod)));
        }),
        Step::Patch => {
            let plan = plan(&matching, &pod);
            twice(&mut || {
                let mut out = Vec::new();
                black_box(&plan).write_patch(&plan.records(), &mut out);
                black_box(out);
            });
        }
        Step::Answer(contender) => {
            let handler = handler(contender.decide(size, written)?)?;
            let deadline = Instant::now() + Duration::from_secs(60);
            // With all policies at hand there is nothing to wait for.
            let answer = || handler.answer(black_box(&body), deadline).now_or_never();
            ensure!(
                matches!(answer(), Some(Ok(_))),
                "the review is not answered"
            );
            twice(&mut || {
                let _ = black_box(answer());
            });
        }
    }
    Ok(())
}
