//! The Pod Security Standard that a PSP is as strict as: no pod that 1.24 admitted under it is refused at that
//! level once it is hardened, but for the gaps that are told beforehand.

use hardening_psp::generate::{Pair, strict_pair};
use hardening_psp::level::VERSION;
use hardening_psp::{Level, convert, gaps};
use pod_security_standards::{Pod, evaluate};
use serde_json::json;

use crate::conversion::{harden, is_refused_today};
use crate::figures::{Figures, is_full, seeds};
use crate::oracle::{Answer, ask};

fn judge(seed: u64, pair: &Pair, answer: &Answer, figures: &mut Figures) {
    let about = || format!("seed {seed}\npsp {}\npod {}", pair.psp, pair.pod);
    assert_eq!(answer.bad, None, "{}", about());
    let Ok(conversion) = convert(&pair.psp) else {
        figures.count("policies: refused");
        return;
    };
    let level = conversion.policy.standing().level();
    figures.count(format!("policies: {level}"));
    // Neither server stores every pod that PodSecurityPolicy has nothing against.
    if !answer.admits() || !answer.invalid.is_empty() || is_refused_today(&pair.pod) {
        return;
    }
    let hardened = harden(&conversion, &pair.pod);
    let pod = Pod::from_value(&hardened).unwrap_or_else(|error| panic!("{error}\n{}", about()));
    let evaluation = evaluate(level, VERSION.parse().unwrap(), &pod);
    let gaps = gaps(level, &hardened).unwrap();
    let expected = gaps.iter().all(|gap| gap.from_version.is_some());
    assert_eq!(
        evaluation.is_allowed(),
        expected,
        "{:?}, but {gaps:?}\n{}",
        evaluation.denial(),
        about()
    );
    figures.count(match gaps.first() {
        None => format!("pods: pass {level}"),
        Some(gap) => format!("pods: do not pass {level} by a gap: {}", gap.why),
    });
}

#[test]
fn pods_that_1_24_admitted_pass_the_level_of_their_psp() {
    let requests = seeds().map(|seed| {
        let mut pair = strict_pair(seed);
        // No pod is created with them.
        pair.pod["spec"]
            .as_object_mut()
            .unwrap()
            .remove("ephemeralContainers");
        let request = json!({"psp": pair.psp, "pod": pair.pod});
        ((seed, pair), request.to_string())
    });
    let mut figures = Figures::default();
    ask(requests, |(seed, pair), answer| {
        judge(seed, &pair, &answer, &mut figures);
    });
    figures.print("PSPs and the Pod Security Standards that they are as strict as");
    if is_full() {
        for level in [Level::Baseline, Level::Restricted] {
            for what in ["policies:", "pods: pass"] {
                let count = figures.of(&format!("{what} {level}"));
                assert!(count > 500, "{what} {level}: {count}");
            }
        }
    }
}
