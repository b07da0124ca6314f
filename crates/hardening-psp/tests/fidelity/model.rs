//! The model against the oracle: the mutated pod, and the list of errors in its order.

use hardening_psp::generate::{Pair, pair};
use hardening_psp::{Denial, PodSecurityPolicy, Policy};
use serde_json::{Value, json};

use crate::figures::{Figures, is_full, seeds};
use crate::oracle::{Answer, Fault, ask};

/// What the model says.
struct Verdict {
    mutated: Value,
    denials: Vec<Denial>,
}

fn model(pair: &Pair) -> Option<Verdict> {
    let psp = PodSecurityPolicy::read(&pair.psp).unwrap();
    let policy = Policy::compile(&psp).ok()?;
    let mut mutated = pair.pod.clone();
    policy.mutate(&mut mutated).unwrap();
    let denials = policy.validate(&mutated).unwrap();

    let mut again = mutated.clone();
    policy.mutate(&mut again).unwrap();
    assert_eq!(again, mutated, "a second pass changes something");
    Some(Verdict { mutated, denials })
}

fn fault(denial: &Denial) -> Fault {
    Fault {
        type_: denial.type_.name().to_owned(),
        field: denial.field.clone(),
    }
}

/// What the field is called, whichever container it is of.
fn kind_of(fault: &Fault) -> String {
    let mut kind = String::new();
    let mut depth = 0;
    for c in fault.field.chars() {
        depth += u32::from(c == '[');
        if depth == 0 {
            kind.push(c);
        }
        depth -= u32::from(c == ']');
    }
    if fault.field.starts_with("pod.metadata") {
        let key = fault.field.split(['[', '/']).nth(1).unwrap_or_default();
        kind = format!("{kind}[{key}]");
    }
    for list in ["initContainers", "ephemeralContainers"] {
        kind = kind.replace(list, "containers");
    }
    format!("denied: {kind} {}", fault.type_)
}

fn judge(seed: u64, pair: &Pair, verdict: Option<Verdict>, answer: &Answer, figures: &mut Figures) {
    let about = || format!("seed {seed}\npsp {}\npod {}", pair.psp, pair.pod);
    assert_eq!(answer.bad, None, "{}", about());
    let Some(Verdict { mutated, denials }) = verdict else {
        assert!(answer.unusable.is_some(), "unusable only here: {}", about());
        figures.count("pairs: the policy could never be used");
        return;
    };
    assert_eq!(answer.unusable, None, "{}", about());
    assert_eq!(answer.model, answer.mutated, "{}", about());
    let faults: Vec<Fault> = denials.iter().map(fault).collect();
    assert_eq!(faults, answer.errors, "{}", about());
    figures.count(if answer.admits() {
        "pairs: admitted"
    } else {
        "pairs: denied"
    });
    figures.count(if mutated == pair.pod {
        "pods: left as they are"
    } else {
        "pods: mutated"
    });
    faults
        .iter()
        .for_each(|fault| figures.count(kind_of(fault)));
}

#[test]
fn the_model_fills_in_and_refuses_what_1_24_did() {
    let requests = seeds().map(|seed| {
        let pair = pair(seed);
        let verdict = model(&pair);
        let mut request = json!({"psp": pair.psp, "pod": pair.pod});
        if let Some(verdict) = &verdict {
            request["model"] = verdict.mutated.clone();
        }
        ((seed, pair, verdict), request.to_string())
    });
    let mut figures = Figures::default();
    ask(requests, |(seed, pair, verdict), answer| {
        judge(seed, &pair, verdict, &answer, &mut figures);
    });
    figures.print("PodSecurityPolicy's own code and the model agree on");
    if is_full() {
        for what in ["pairs: admitted", "pairs: denied", "pods: mutated"] {
            assert!(figures.of(what) > 4_000, "hardly any of {what}");
        }
        let kinds = figures.names().filter(|name| name.starts_with("denied: "));
        assert_eq!(kinds.count(), KINDS_OF_DENIAL);
    }
}

/// How many kinds of denial there are: the whole of what PodSecurityPolicy could say after it had mutated.
const KINDS_OF_DENIAL: usize = 32;
