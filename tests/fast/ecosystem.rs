//! The tools that people use with ours, as docs/ecosystem.md has it: the real kustomize and the real Helm, built
//! from modules in tests/ecosystem and tests/helm.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hardening_manifests::{objects, parse};
use serde_json::Value;

use crate::support::{go_tool, program, text};

/// A folder of its own for a test, with the example's policies in it.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    let policies = text("examples/policies/namespace.yaml");
    fs::write(folder.join("policies.yaml"), policies).unwrap();
    folder
}

/// Runs a command of a page in a folder, as a shell does, with our program and the built tools on the path.
fn sh(command: &str, folder: &Path, tools: &[&Path]) -> String {
    let ours = program("kubectl-harden");
    let mut path: Vec<&Path> = tools.iter().filter_map(|tool| tool.parent()).collect();
    path.push(ours.parent().unwrap());
    let system = std::env::var_os("PATH").unwrap();
    let path: Vec<PathBuf> = path
        .into_iter()
        .map(Path::to_owned)
        .chain(std::env::split_paths(&system))
        .collect();
    let output = Command::new("bash")
        .args(["-o", "pipefail", "-c", command])
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("KUBECONFIG", "/dev/null")
        .env("HOME", folder)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The blocks of a kind on the page that have some text in them.
fn block(kind: &str, with: &str) -> String {
    let page = text("docs/ecosystem.md");
    let fence = format!("```{kind}\n");
    let blocks = page.split(&fence).skip(1);
    let mut blocks = blocks.map(|rest| rest.split("```").next().unwrap().to_owned());
    let found = blocks.find(|block| block.contains(with));
    found.unwrap_or_else(|| panic!("docs/ecosystem.md has no block with {with}"))
}

/// What YAML says, object by object, whatever it looks like.
fn said(yaml: &str) -> Vec<Value> {
    let manifests = parse("output", yaml.as_bytes()).unwrap();
    objects(&manifests)
        .map(|object| object.value.clone())
        .collect()
}

/// Holds what a tool prints with us to what it prints without us, rendered.
fn check(with_us: &str, without_us: &str, folder: &Path) {
    fs::write(folder.join("plain.yaml"), without_us).unwrap();
    let render = "kubectl-harden render -f plain.yaml --policies policies.yaml";
    let rendered = sh(render, folder, &[]);
    assert_eq!(said(with_us), said(&rendered));
    assert_ne!(said(with_us), said(without_us), "nothing is filled in");
    assert!(with_us.contains("runAsNonRoot: true"), "{with_us}");
}

#[test]
fn kustomize_runs_render_as_a_function() {
    let kustomize = go_tool(
        "tests/ecosystem",
        "kustomize",
        "sigs.k8s.io/kustomize/kustomize/v5",
        &[],
    );
    let folder = folder("with-kustomize");
    let app =
        text("examples/workloads/web.yaml") + "---\n" + &text("examples/workloads/report.yaml");
    fs::write(folder.join("app.yaml"), app).unwrap();
    let kustomization = block("yaml", "# kustomization.yaml");
    fs::write(folder.join("kustomization.yaml"), &kustomization).unwrap();
    let build = block("sh", "--enable-exec");
    let with_us = sh(&build, &folder, &[&kustomize]);

    let (resources, _) = kustomization.split_once("transformers:").unwrap();
    fs::write(folder.join("kustomization.yaml"), resources).unwrap();
    let without_us = sh(&build, &folder, &[&kustomize]);
    check(&with_us, &without_us, &folder);
}

#[test]
fn helm_runs_render_as_a_post_renderer() {
    let helm = go_tool("tests/helm", "helm", "helm.sh/helm/v4/cmd/helm", &[]);
    let folder = folder("with-helm");
    // Nothing of an earlier run: Helm installs a plugin once.
    fs::remove_dir_all(&folder).unwrap();
    let folder = self::folder("with-helm");
    let plugin = "packaging/helm/harden";
    fs::create_dir_all(folder.join(plugin)).unwrap();
    let manifest = text(&format!("{plugin}/plugin.yaml"));
    fs::write(folder.join(plugin).join("plugin.yaml"), &manifest).unwrap();
    let manifest = said(&manifest).remove(0);
    assert_eq!(manifest["version"], env!("CARGO_PKG_VERSION"));

    let templates = folder.join("chart/templates");
    fs::create_dir_all(&templates).unwrap();
    let chart = "apiVersion: v2\nname: shop\nversion: 1.0.0\n";
    fs::write(folder.join("chart/Chart.yaml"), chart).unwrap();
    for name in ["web.yaml", "report.yaml"] {
        let workload = text(&format!("examples/workloads/{name}"));
        fs::write(templates.join(name), workload).unwrap();
    }
    // A hook's pods are pods too.
    fs::write(templates.join("hook.yaml"), HOOK).unwrap();

    let with_us = sh(&block("sh", "helm plugin install"), &folder, &[&helm]);
    let (_, with_us) = with_us
        .split_once("\n---\n")
        .unwrap_or_else(|| panic!("{with_us}"));
    let template = "helm template shop ./chart --namespace shop";
    let without_us = sh(template, &folder, &[&helm]);
    check(with_us, &without_us, &folder);
    let piped = sh(&block("sh", "| kubectl-harden render"), &folder, &[&helm]);
    check(&piped, &without_us, &folder);
    let hooks = said(with_us);
    let hook = hooks.iter().find(|object| object["kind"] == "Job").unwrap();
    let context = &hook["spec"]["template"]["spec"]["securityContext"];
    assert_eq!(context["runAsNonRoot"], true, "{hook:#}");
}

const HOOK: &str = r#"
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-migrate
  namespace: {{ .Release.Namespace }}
  annotations:
    helm.sh/hook: pre-upgrade
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: migrate
        image: registry.example.com/shop/migrate:1.4.2
"#;

#[test]
fn the_krew_manifest_names_the_program_for_each_platform() {
    let manifests = parse("harden.yaml", text("packaging/krew/harden.yaml").as_bytes()).unwrap();
    let [manifest] = manifests.as_slice() else {
        panic!("{manifests:?}");
    };
    let plugin = &manifest.value;
    assert_eq!(plugin["kind"], "Plugin");
    assert_eq!(
        plugin["apiVersion"],
        "krew.googlecontainertools.github.com/v1alpha2"
    );
    // krew names the command after the plugin, and takes a summary of at most 50 characters or so.
    let name = plugin["metadata"]["name"].as_str().unwrap();
    let ours = program("kubectl-harden");
    let ours = ours.file_name().unwrap().to_str().unwrap();
    assert_eq!(format!("kubectl-{name}"), ours);
    assert!(plugin["spec"]["shortDescription"].as_str().unwrap().len() <= 50);
    let mut platforms = BTreeSet::new();
    for platform in plugin["spec"]["platforms"].as_array().unwrap() {
        assert_eq!(platform["bin"], ours);
        let labels = &platform["selector"]["matchLabels"];
        let (os, arch) = (
            labels["os"].as_str().unwrap(),
            labels["arch"].as_str().unwrap(),
        );
        let archive = format!("@ARCHIVES@/{ours}-@VERSION@-{os}-{arch}.tar.gz");
        assert_eq!(platform["uri"], archive);
        let sum = format!("@SHA256_{}_{}@", os.to_uppercase(), arch.to_uppercase());
        assert_eq!(platform["sha256"], sum);
        assert!(
            platforms.insert((os, arch)),
            "{os} {arch} stands there twice"
        );
    }
    assert_eq!(platforms.len(), 4);
}
