//! How long each step of a review takes. On a machine that does other things as well, rather look at the
//! instructions.
#![allow(missing_docs, reason = "the macros write public items")]
#![allow(clippy::unwrap_used, reason = "a bench has nobody to hand an error to")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::FutureExt as _;
use hardening_bench::{NAMESPACE, Size, Written, handler, pod, policies, review};
use hardening_engine::Pod;
use hardening_webhook::Engine;
use hardening_webhook::review::Review;
use tokio::time::Instant;

fn steps(criterion: &mut Criterion) {
    for size in Size::ALL {
        for (written, suffix) in [
            (Written::Nothing, ""),
            (Written::Everything, "_second_pass"),
        ] {
            one(
                criterion,
                size,
                written,
                &format!("{}{suffix}", size.name()),
            );
        }
    }
}

fn one(criterion: &mut Criterion, size: Size, written: Written, name: &str) {
    let body = review(size, written).unwrap();
    let json = pod(size, written).unwrap().to_string();
    let (policies, pod) = (policies().unwrap(), Pod::from_json(&json).unwrap());
    let matching = policies.matching(NAMESPACE, &pod).unwrap();
    let plan = hardening_engine::plan(&matching, &pod);
    let handler = handler(Arc::new(Engine)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(3600);

    let mut group = criterion.benchmark_group("step");
    group.bench_function(format!("matching/{name}"), |bench| {
        bench.iter(|| policies.matching(black_box(NAMESPACE), &pod));
    });
    group.bench_function(format!("plan/{name}"), |bench| {
        bench.iter(|| hardening_engine::plan(&matching, black_box(&pod)));
    });
    if !plan.is_empty() {
        group.bench_function(format!("patch/{name}"), |bench| {
            bench.iter(|| {
                let mut out = Vec::new();
                black_box(&plan).write_patch(&plan.records(), &mut out);
                out
            });
        });
    }
    let bytes = u64::try_from(body.len()).unwrap();
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function(format!("parse/{name}"), |bench| {
        bench.iter(|| black_box(Review::from_json(black_box(&body))).is_ok());
    });
    group.bench_function(format!("answer/{name}"), |bench| {
        bench.iter(|| {
            let answered = handler.answer(black_box(&body), deadline).now_or_never();
            answered.unwrap().unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
