//! Both profiles on every image: what its processes see in a container, an init container and a sidecar, and
//! whether what the image does goes on working.

use serde_json::json;
use test_control_plane::Image;

use crate::support::bench::Bench;
use crate::support::case::{Case, Outcome, all_see, case, plain, pod, reporter, sidecar, stops};

/// The containers of the pods that report.
const CONTAINERS: [&str; 3] = ["init", "sidecar", "app"];

/// What a process sees under `Hardened`, whatever its image.
const HARDENED: [(&str, &str); 13] = [
    ("uid", "65532"),
    ("gid", "65532"),
    ("groups", "65532"),
    ("CapEff", "0000000000000000"),
    ("CapBnd", "0000000000000000"),
    ("NoNewPrivs", "1"),
    ("Seccomp", "2"),
    ("write /", "Read-only file system"),
    ("write /tmp", "yes"),
    ("secrets", "no"),
    ("token", "no"),
    ("/proc/sys", "read-only"),
    ("users", "the machine's"),
];

/// What a process of a numeric user's sees under `Restricted`.
const RESTRICTED: [(&str, &str); 11] = [
    ("uid", "1234"),
    ("gid", "1234"),
    ("CapEff", "0000000000000000"),
    ("CapBnd", "0000000000000000"),
    ("NoNewPrivs", "1"),
    ("Seccomp", "2"),
    // The user may not, but the file system could.
    ("write /", "Permission denied"),
    ("write /tmp", "yes"),
    ("secrets", "yes"),
    ("token", "yes"),
    ("/proc/sys", "read-only"),
];

/// What a process of root's sees where nobody hardens anything: so that none of the above is so anyway.
const UNHARDENED: [(&str, &str); 8] = [
    ("uid", "0"),
    ("gid", "0"),
    ("CapEff", "00000000a80425fb"),
    ("NoNewPrivs", "0"),
    ("Seccomp", "0"),
    ("write /", "yes"),
    ("write /tmp", "yes"),
    ("token", "yes"),
];

/// What the kubelet says of an image that runs as root, and of one whose user has only a name.
pub(crate) const RUNS_AS_ROOT: &str = "container has runAsNonRoot and image will run as root";
pub(crate) const HAS_A_NAME: &str = "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_image_runs_as_its_profile_says_or_the_kubelet_says_why_not() {
    let Some(bench) = Bench::open("profiles").await else {
        return;
    };
    let cases: Vec<Case> = Image::ALL.into_iter().flat_map(cases).collect();
    bench.run(&cases).await;
    bench.close(&format!("{} cases", cases.len())).await;
}

fn cases(image: Image) -> [Case; 5] {
    let name = image.name.trim_start_matches("test.example/");
    let name = name.trim_end_matches(":1");
    let reporting = {
        let mut pod = pod(json!([reporter("app", image)]));
        pod["initContainers"] = json!([reporter("init", image), sidecar("sidecar", image)]);
        pod
    };
    let seen_under_restricted = match image {
        Image::NUMERIC_USER => all_see(&CONTAINERS, &RESTRICTED),
        image => refused(image, "Init:CreateContainerConfigError"),
    };
    let unhardened = match image.user {
        None => all_see(&CONTAINERS, &UNHARDENED),
        Some(_) => all_see(&CONTAINERS, &[("uid", "1234"), ("Seccomp", "0")]),
    };
    let works_under_hardened = match image {
        Image::WRITER => stops("Error", "can't create /data/cache: Read-only file system"),
        Image::PORT_80 => stops("Error", "bind: Permission denied"),
        _ => Outcome::Works,
    };
    let works_under_restricted = match image {
        Image::NUMERIC_USER => Outcome::Works,
        image => refused(image, "CreateContainerConfigError"),
    };
    let (restricted, hardened) = (
        json!({"profile": "Restricted"}),
        json!({"profile": "Hardened"}),
    );
    let case = |suffix: &str, policy: &serde_json::Value, pod, outcome| {
        case(&format!("{name}-{suffix}"), policy.clone(), pod, outcome)
    };
    [
        case(
            "sees-hardened",
            &hardened,
            reporting.clone(),
            all_see(&CONTAINERS, &HARDENED),
        ),
        case(
            "sees-restricted",
            &restricted,
            reporting.clone(),
            seen_under_restricted,
        ),
        Case {
            policy: None,
            ..case("sees-nothing", &hardened, reporting, unhardened)
        },
        case(
            "works-hardened",
            &hardened,
            plain(image),
            works_under_hardened,
        ),
        case(
            "works-restricted",
            &restricted,
            plain(image),
            works_under_restricted,
        ),
    ]
}

/// That the kubelet takes the image's user for root, or cannot tell.
fn refused(image: Image, status: &'static str) -> Outcome {
    match image.user {
        None => stops(status, RUNS_AS_ROOT),
        Some(_) => stops(status, HAS_A_NAME),
    }
}
