//! What was asked wrongly, and what is wrong with what was given: exit codes and the line that says it.

use std::fs;
use std::net::TcpListener;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use crate::support::{output, program};

/// A folder with everything that the cases need, good and bad.
fn inputs() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let policy = "apiVersion: podhardening.dev/v1alpha1\nkind: PodHardeningPolicy\n\
                  metadata: {name: a, namespace: shop}\nspec: {profile: Restricted}\n";
    let bad = policy.replace("Restricted", "Restrictive");
    let kubeconfig = |server: &str| {
        format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: a, cluster: {{server: '{server}'}}}}]\n\
             contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
             current-context: a\nusers: [{{name: a, user: {{}}}}]\n"
        )
    };
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let (certificate, key) = issue("webhook.system.svc");
    let (_, other_key) = issue("webhook.system.svc");
    // A port on which nobody listens: taken, and given back.
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (name, text) in [
        ("good.yaml", policy),
        ("bad.yaml", &format!("{policy}---\n{bad}")),
        (
            "unknown-field.yaml",
            &policy.replace("spec: {", "spec: {modus: Audit, "),
        ),
        ("broken.yaml", "a: 1\n---\nb: [\n"),
        ("kubeconfig", &kubeconfig(&format!("http://{closed}"))),
        ("empty-kubeconfig", "{}"),
        ("broken-kubeconfig", "a: ["),
        ("tls.crt", &certificate),
        ("tls.key", &key),
        ("other.key", &other_key),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    fs::create_dir(folder.path().join("empty")).unwrap();
    folder
}

/// Runs the program in the folder, and gives its exit code and its standard error.
fn fails(folder: &TempDir, line: &str) -> (i32, String) {
    let mut command = program();
    command
        .current_dir(folder.path())
        .args(line.split_whitespace());
    let output = output(&mut command, line);
    assert!(output.stdout.is_empty(), "{line}");
    let error = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), error)
}

const ANY_PORTS: &str = "--listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --log-level error";

#[test]
fn bad_input_is_one_line_that_names_it_and_exit_code_1() {
    let folder = inputs();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let registered = "run --webhook-url https://127.0.0.1:9443";
    let cases = [
        (
            "serve --policies absent.yaml",
            vec!["absent.yaml: No such file"],
        ),
        (
            "serve --policies empty",
            vec!["empty: the folder has no file"],
        ),
        (
            "serve --policies broken.yaml",
            vec!["broken.yaml, document 2: not valid YAML", "line 3"],
        ),
        (
            "serve --policies bad.yaml",
            vec![
                "bad.yaml, document 2: PodHardeningPolicy shop/a: is given twice, first in bad.yaml, document 1",
            ],
        ),
        (
            "serve --policies unknown-field.yaml",
            vec!["unknown-field.yaml: PodHardeningPolicy shop/a: spec.modus: is not a known field"],
        ),
        (
            "serve --policies good.yaml --tls-cert tls.crt --tls-key absent.key",
            vec!["read absent.key: No such file"],
        ),
        (
            "serve --policies good.yaml --tls-cert tls.crt --tls-key other.key",
            vec![
                "certificate tls.crt",
                "key other.key: the private key does not belong to the certificate",
            ],
        ),
        (
            "serve --policies good.yaml --tls-cert good.yaml --tls-key tls.key",
            vec!["no CERTIFICATE section"],
        ),
        (
            "serve --policies good.yaml --write-ca absent/ca.crt",
            vec!["write the CA to absent/ca.crt: No such file"],
        ),
        (
            "serve --policies good.yaml --tls-names höst",
            vec!["make a CA for localhost", "höst"],
        ),
        (
            &format!("serve --policies good.yaml --listen {taken}"),
            vec![
                "listen on 127.0.0.1:",
                "for reviews: Address already in use",
            ],
        ),
        (
            &format!("serve --policies good.yaml --metrics-listen {taken}"),
            vec![
                "listen on 127.0.0.1:",
                "for health and metrics: Address already in use",
            ],
        ),
        (
            "run --tls-cert tls.crt --tls-key tls.key --service system/other",
            vec!["the certificate is not for other.system.svc"],
        ),
        (
            registered,
            vec!["--kubeconfig is not given, and this does not run in a cluster"],
        ),
        (
            &format!("{registered} --kubeconfig absent"),
            vec!["kubeconfig absent: ", "No such file"],
        ),
        (
            &format!("{registered} --kubeconfig broken-kubeconfig"),
            vec!["kubeconfig broken-kubeconfig: "],
        ),
        (
            &format!("{registered} --kubeconfig empty-kubeconfig"),
            vec!["kubeconfig empty-kubeconfig: "],
        ),
        (
            &format!("{registered} --kubeconfig kubeconfig"),
            vec![
                "the API server http://127.0.0.1:",
                "(of kubeconfig kubeconfig)",
                "Connection refused",
            ],
        ),
        (
            "run --tls-cert tls.crt --tls-key tls.key --service system/webhook --kubeconfig kubeconfig",
            vec!["Connection refused"],
        ),
        (
            "run --service system/webhook --kubeconfig kubeconfig",
            vec!["Connection refused"],
        ),
    ];
    for (line, parts) in cases {
        // The case's own flags go before.
        let ports = match line.contains("listen") {
            true if line.contains("--listen") => "--metrics-listen 127.0.0.1:0 --log-level error",
            true => "--listen 127.0.0.1:0 --log-level error",
            false => ANY_PORTS,
        };
        let (code, error) = fails(&folder, &format!("{line} {ports}"));
        assert_eq!(code, 1, "{line}: {error}");
        assert_eq!(error.lines().count(), 1, "{line}: {error}");
        assert!(error.starts_with("error: "), "{line}: {error}");
        for part in parts {
            assert!(error.contains(part), "{line}: {error:?} lacks {part:?}");
        }
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let folder = inputs();
    let cases = [
        ("", "Usage: hardening-controller"),
        ("harden", "unrecognized subcommand 'harden'"),
        ("serve", "--policies"),
        ("serve --policies -", "standard input cannot be read again"),
        (
            "serve --policies good.yaml --listen here",
            "invalid socket address",
        ),
        (
            "serve --policies good.yaml --worker-threads 0",
            "a number from 1 to 1024",
        ),
        (
            "serve --policies good.yaml --tls files",
            "--tls files needs --tls-cert and --tls-key",
        ),
        ("serve --policies good.yaml --tls-cert tls.crt", "--tls-key"),
        (
            "serve --policies good.yaml --tls self-managed --tls-cert tls.crt --tls-key tls.key",
            "exclude each other",
        ),
        (
            "serve --policies good.yaml --shutdown-delay soon",
            "--shutdown-delay",
        ),
        (
            "run",
            "no API server would trust a certificate made in memory",
        ),
        (
            "run --service system/webhook --tls-secret a --tls-cert tls.crt --tls-key tls.key",
            "cannot be used with",
        ),
        ("run --tls-secret a", "--service"),
        (
            "run --webhook-url https://webhook --tls-secret a",
            "cannot be used with",
        ),
        ("manage --tls-leaf-lifetime 1d", "--service"),
        (
            "manage --service a/b --tls-leaf-lifetime 9s",
            "it must be between 10s and 3650d",
        ),
        (
            "manage --service a/b --tls-ca-lifetime 3651d",
            "it must be between 10s and 3650d",
        ),
        (
            "manage --service a/b --tls-leaf-lifetime 30d --tls-ca-lifetime 59d",
            "--tls-ca-lifetime must be at least twice --tls-leaf-lifetime",
        ),
        (
            "manage --service a/b --tls-secret a --tls-ca-secret a",
            "--tls-secret and --tls-ca-secret must differ",
        ),
        (
            "run --service webhook --tls-cert tls.crt --tls-key tls.key",
            "a namespace and a name, as in system/webhook",
        ),
        (
            "run --service system/webhook --webhook-url https://webhook",
            "cannot be used with",
        ),
        (
            "run --webhook-url http://webhook",
            "it must be an https URL with a host",
        ),
        (
            "run --webhook-url https://user@webhook",
            "no user, query or fragment",
        ),
        (
            "run --webhook-url https://webhook/?a=b",
            "no user, query or fragment",
        ),
        (
            "run --webhook-url https://webhook/other",
            "the webhook's path is /mutate",
        ),
        (
            "run --failure-policy Fail --tls-cert tls.crt --tls-key tls.key",
            "--webhook-url",
        ),
        (
            "manage --lease pod-hardening-manager",
            "a namespace and a name, as in system/webhook",
        ),
        (
            "manage --missed-pods-interval soon",
            "--missed-pods-interval",
        ),
        ("manage --failure-policy Fail", "--compile"),
        ("completions tcl", "invalid value 'tcl'"),
    ];
    for (line, part) in cases {
        let (code, error) = fails(&folder, line);
        assert_eq!(code, 2, "{line}: {error}");
        assert!(error.contains(part), "{line}: {error:?} lacks {part:?}");
    }
}

#[test]
fn every_flag_is_an_environment_variable_too() {
    let folder = inputs();
    let output = program()
        .current_dir(folder.path())
        .arg("serve")
        .env("HARDENING_POLICIES", "good.yaml,absent.yaml")
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.starts_with("error: absent.yaml: No such file"),
        "{error}"
    );
    for (command, flags) in [("run", 19), ("manage", 16), ("serve", 14)] {
        let help = program().args([command, "--help"]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        // The examples have flags too, and texts may be wrapped before one.
        let named: Vec<&str> = help
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("--"))
            .filter(|flag| flag.contains(" <") || !flag.contains(' '))
            .collect();
        assert_eq!(named.len(), flags, "{named:?}");
        for flag in named {
            let name: String = flag.chars().take_while(|c| *c != ' ').collect();
            let variable = format!("[env: HARDENING_{}=", name.to_uppercase().replace('-', "_"));
            assert!(help.contains(&variable), "{command}: {variable}");
        }
    }
}

#[test]
fn completions_are_printed() {
    let output = program().args(["completions", "bash"]).output().unwrap();
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("hardening-controller")
    );
}
