//! What Helm says of the chart, and of values that are wrong.

use std::process::Command;

use serde_json::Value;

use crate::support::chart::{
    CHART, RELEASE, RENDERINGS, helm, objects_of, of_kind, printed, render, with_values,
};

#[test]
fn helm_finds_nothing_to_complain_of() {
    for (name, values) in RENDERINGS {
        let arguments = with_values(&["lint", "--strict", CHART], values);
        let said = printed(helm(None, &arguments));
        assert!(said.contains("0 chart(s) failed"), "{name}: {said}");
    }
}

/// A certificate that templates make, or a random name, would be new with every sync of a GitOps tool.
#[test]
fn rendered_again_it_is_the_same() {
    for (name, values) in RENDERINGS {
        assert_eq!(render(values), render(values), "{name}");
    }
}

#[test]
fn a_value_that_is_wrong_is_refused_by_its_name() {
    let cases = [
        ("replicas=3", "'replicas' not allowed"),
        ("webhook.replica=3", "'replica' not allowed"),
        ("manager.resource=3", "'resource' not allowed"),
        ("tls.certmanager.issuerRef=x", "'certmanager' not allowed"),
        ("metrics.enabled=true", "'enabled' not allowed"),
        ("failurePolicy=fail", "/failurePolicy"),
        ("tls.mode=self-managed", "/tls/mode"),
        ("metrics.monitor=podMonitor", "/metrics/monitor"),
        ("webhook.replicas=0", "/webhook/replicas"),
        ("webhook.port=443", "/webhook/port"),
        ("image.digest=latest", "/image/digest"),
        ("excludedNamespaces={kube_system}", "/excludedNamespaces/0"),
        (
            "tls.mode=files",
            "tls.files.secretName must name the Secret",
        ),
    ];
    for (value, complaint) in cases {
        let output = helm(None, &["template", RELEASE, CHART, "--set", value]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{value} is taken");
        assert!(said.contains(complaint), "{value}: {said}");
    }
}

/// What a chart passes on to those that it is made of.
#[test]
fn it_can_be_part_of_another_chart() {
    render(&["global.imageRegistry=registry.example", "enabled=true"]);
}

/// Usage errors have an exit code of their own, 2; that no cluster is there, or no certificate, is told later.
#[test]
fn the_program_takes_the_arguments_that_it_is_given() {
    for (name, values) in RENDERINGS {
        for deployment in of_kind(&objects_of(&render(values)), "Deployment") {
            let container = &deployment["spec"]["template"]["spec"]["containers"][0];
            let arguments = container["args"].as_array().unwrap().iter();
            let output = Command::new(env!("CARGO_BIN_EXE_controller-under-test"))
                .args(arguments.map(|argument| argument.as_str().unwrap()))
                .env_remove("KUBERNETES_SERVICE_HOST")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        }
    }
}

/// What is said here of every rendering, whatever else it says.
#[test]
fn one_replica_goes_at_a_time_and_a_single_one_can_be_drained() {
    for (name, values) in RENDERINGS {
        let objects = objects_of(&render(values));
        let deployments = of_kind(&objects, "Deployment");
        assert_eq!(deployments.len(), 2, "{name}");
        for deployment in deployments {
            let spec = &deployment["spec"];
            assert_eq!(spec["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
            let pod = &spec["template"]["spec"];
            assert_eq!(
                pod["topologySpreadConstraints"].as_array().unwrap().len(),
                2
            );
            assert_eq!(pod["priorityClassName"], "system-cluster-critical");
            let resources = &pod["containers"][0]["resources"];
            assert_eq!(
                resources["requests"]["memory"],
                resources["limits"]["memory"]
            );
            assert_eq!(resources["limits"]["cpu"], Value::Null, "{name}");
        }
        let budgets = of_kind(&objects, "PodDisruptionBudget").len();
        let expected = if name == "single replica" { 0 } else { 2 };
        assert_eq!(budgets, expected, "{name}");
    }
}
