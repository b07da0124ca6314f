//! Each rule of a PSP by itself: a pod that it denies, with what the denial says, and the least other pod that it
//! admits.

use serde_json::{Value, json};

use super::{InForce, all_heeded, for_all};
use crate::support::api::Api;
use crate::support::version::{acts_as, not_run};
use hardening_engine::KubernetesVersion;
use hardening_psp::{PodSecurityPolicy, Policy};

/// A rule: what a PSP that else allows everything says; of a pod, and of its container, what is denied and what is
/// admitted; and what the denial says.
struct Rule {
    psp: Value,
    denied: Value,
    admitted: Value,
    says: &'static str,
}

const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/allowedProfileNames";
const APP_ARMOR: &str = "apparmor.security.beta.kubernetes.io/allowedProfileNames";

/// The first API server that keeps image volumes (its feature gate ImageVolume).
const IMAGE_VOLUMES_SINCE: KubernetesVersion = KubernetesVersion::v1(35);

/// A PSP that allows all that a PSP can, with a change.
pub(super) fn psp(change: &Value) -> Policy {
    let mut psp = json!({
        "apiVersion": "policy/v1beta1", "kind": "PodSecurityPolicy",
        "metadata": {"name": "rule", "annotations": {SECCOMP: "*"}},
        "spec": {
            "privileged": true, "hostPID": true, "hostIPC": true, "hostNetwork": true, "volumes": ["*"],
            "hostPorts": [{"min": 0, "max": 65535}], "allowedCapabilities": ["*"],
            "allowedProcMountTypes": ["Default", "Unmasked"], "allowedUnsafeSysctls": ["*"],
            "runAsUser": {"rule": "RunAsAny"}, "seLinux": {"rule": "RunAsAny"},
            "fsGroup": {"rule": "RunAsAny"}, "supplementalGroups": {"rule": "RunAsAny"},
        },
    });
    json_patch::merge(&mut psp, change);
    Policy::compile(&PodSecurityPolicy::read(&psp).unwrap()).unwrap()
}

/// A pod with a change of its spec, and one of its container under `c`.
fn pod(change: &Value) -> Value {
    let mut container = json!({"name": "app", "image": "registry.example/app"});
    let mut spec = change.clone();
    if let Some(of_container) = spec.as_object_mut().and_then(|spec| spec.remove("c")) {
        json_patch::merge(&mut container, &of_container);
    }
    spec["containers"] = json!([container]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec})
}

fn rules() -> Vec<Rule> {
    let spec = |spec: Value| json!({"spec": spec});
    let annotated = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}});
    let context = |context: Value| json!({"securityContext": context});
    let own = |context: Value| json!({"c": {"securityContext": context}});
    let host_path = |path: &str, read_only: bool| {
        json!({"volumes": [{"name": "v", "hostPath": {"path": path}}],
            "c": {"volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": read_only}]}})
    };
    let volume = |source: Value| {
        let mut volume = json!({"name": "v"});
        json_patch::merge(&mut volume, &source);
        json!({"volumes": [volume]})
    };
    let port = |port: u16| json!({"c": {"ports": [{"containerPort": port, "hostPort": port}]}});
    let range = |rule: &str| json!({"rule": rule, "ranges": [{"min": 1, "max": 9}, {"min": 77, "max": 77}]});
    let rule = |psp, denied, admitted, says| Rule {
        psp,
        denied,
        admitted,
        says,
    };
    vec![
        rule(
            spec(json!({"privileged": false})),
            own(json!({"privileged": true})),
            own(json!({"privileged": false})),
            "spec.containers[app].securityContext.privileged: true: not allowed",
        ),
        rule(
            spec(json!({"hostPID": false})),
            json!({"hostPID": true}),
            json!({}),
            "spec.hostPID: true: not allowed",
        ),
        rule(
            spec(json!({"hostIPC": false})),
            json!({"hostIPC": true}),
            json!({}),
            "spec.hostIPC: true: not allowed",
        ),
        rule(
            spec(json!({"hostNetwork": false})),
            json!({"hostNetwork": true}),
            json!({}),
            "spec.hostNetwork: true: not allowed",
        ),
        rule(
            spec(json!({"hostPorts": [{"min": 80, "max": 80}, {"min": 8000, "max": 9000}]})),
            port(81),
            port(8000),
            "spec.containers[app].ports.hostPort: 81: allowed are 80, 8000-9000",
        ),
        rule(
            spec(json!({"hostPorts": []})),
            port(81),
            json!({}),
            "81: allowed is none",
        ),
        rule(
            spec(json!({"volumes": ["emptyDir", "secret"]})),
            volume(json!({"nfs": {"server": "s", "path": "/p"}})),
            volume(json!({"emptyDir": {}})),
            "spec.volumes[v]: nfs: allowed are emptyDir, secret",
        ),
        rule(
            spec(json!({"volumes": ["emptyDir", "projected"]})),
            volume(json!({"image": {"reference": "registry.example/i"}})),
            volume(json!({"emptyDir": {}})),
            "spec.volumes[v]: of a kind that PodSecurityPolicy did not know",
        ),
        rule(
            spec(json!({"volumes": ["secret"]})),
            volume(json!({"projected": {"sources": [{"secret": {"name": "s"}}]}})),
            json!({}),
            "spec.volumes[v]: projected: allowed are secret",
        ),
        rule(
            spec(json!({"allowedHostPaths": [{"pathPrefix": "/var/log"}]})),
            host_path("/var/logs", true),
            host_path("/var/log/pods/", false),
            "spec.volumes[v].hostPath.path: /var/logs: allowed are /var/log",
        ),
        rule(
            spec(json!({"allowedHostPaths": [{"pathPrefix": "/var/log/", "readOnly": true}]})),
            host_path("/var/log", false),
            host_path("/var/log", true),
            "spec.containers[app].volumeMounts.readOnly: not set for v: must be true, as allowed are /var/log/ (read-only)",
        ),
        rule(
            spec(json!({"allowedFlexVolumes": [{"driver": "example.com/lvm"}]})),
            volume(json!({"flexVolume": {"driver": "example.com/x"}})),
            volume(json!({"flexVolume": {"driver": "example.com/lvm"}})),
            "spec.volumes[v].flexVolume.driver: example.com/x: allowed are example.com/lvm",
        ),
        rule(
            spec(json!({"allowedCSIDrivers": [{"name": "csi.example.com"}]})),
            volume(json!({"csi": {"driver": "x.example.com"}})),
            volume(json!({"csi": {"driver": "csi.example.com"}})),
            "spec.volumes[v].csi.driver: x.example.com: allowed are csi.example.com",
        ),
        rule(
            spec(json!({"allowedProcMountTypes": []})),
            json!({"hostUsers": false, "c": {"securityContext": {"procMount": "Unmasked"}}}),
            json!({}),
            "spec.containers[app].securityContext.procMount: Unmasked: allowed are Default",
        ),
        rule(
            spec(json!({"allowedUnsafeSysctls": ["kernel.msg*"]})),
            context(json!({"sysctls": [{"name": "kernel.sem", "value": "1"}]})),
            context(json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]})),
            "spec.securityContext.sysctls[kernel.sem]: not allowed: only safe ones are, and kernel.msg*",
        ),
        rule(
            spec(json!({"forbiddenSysctls": ["net.ipv4.*"]})),
            context(json!({"sysctls": [{"name": "net/ipv4/tcp_syncookies", "value": "1"}]})),
            context(json!({"sysctls": [{"name": "kernel.sem", "value": "1"}]})),
            "spec.securityContext.sysctls[net/ipv4/tcp_syncookies]: forbidden are net.ipv4.*",
        ),
        rule(
            spec(json!({"allowPrivilegeEscalation": false})),
            json!({}),
            own(json!({"allowPrivilegeEscalation": false})),
            "spec.containers[app].securityContext.allowPrivilegeEscalation: not set: must be false",
        ),
        rule(
            spec(
                json!({"allowedCapabilities": ["NET_BIND_SERVICE"], "defaultAddCapabilities": ["CHOWN"]}),
            ),
            own(json!({"capabilities": {"add": ["NET_ADMIN"]}})),
            own(json!({"capabilities": {"add": ["CHOWN", "NET_BIND_SERVICE"]}})),
            "spec.containers[app].securityContext.capabilities.add: NET_ADMIN: allowed are CHOWN, NET_BIND_SERVICE",
        ),
        rule(
            spec(
                json!({"allowedCapabilities": null, "requiredDropCapabilities": ["ALL", "CAP_KILL"]}),
            ),
            own(json!({"capabilities": {"drop": ["ALL"]}})),
            own(json!({"capabilities": {"drop": ["ALL", "kill"]}})),
            "spec.containers[app].securityContext.capabilities.drop: must have KILL",
        ),
        rule(
            spec(json!({"readOnlyRootFilesystem": true})),
            own(json!({"readOnlyRootFilesystem": false})),
            own(json!({"readOnlyRootFilesystem": true})),
            "spec.containers[app].securityContext.readOnlyRootFilesystem: false: must be true",
        ),
        rule(
            spec(json!({"runAsUser": range("MustRunAs")})),
            json!({}),
            context(json!({"runAsUser": 77})),
            "spec.containers[app].securityContext.runAsUser: not set: must be in 1-9, 77",
        ),
        rule(
            spec(json!({"runAsUser": range("MustRunAs")})),
            json!({"securityContext": {"runAsUser": 5}, "c": {"securityContext": {"runAsUser": 10}}}),
            json!({"securityContext": {"runAsUser": 10}, "c": {"securityContext": {"runAsUser": 9}}}),
            "securityContext.runAsUser: 10: must be in 1-9, 77",
        ),
        rule(
            spec(json!({"runAsUser": {"rule": "MustRunAsNonRoot"}})),
            json!({}),
            own(json!({"runAsUser": 5})),
            "spec.containers[app].securityContext.runAsNonRoot: not set: must be true",
        ),
        rule(
            spec(json!({"runAsUser": {"rule": "MustRunAsNonRoot"}})),
            own(json!({"runAsUser": 0, "runAsNonRoot": true})),
            context(json!({"runAsNonRoot": true})),
            "spec.containers[app].securityContext.runAsUser: 0: root is not allowed",
        ),
        rule(
            spec(json!({"runAsGroup": range("MustRunAs")})),
            context(json!({"runAsUser": 1})),
            context(json!({"runAsUser": 1, "runAsGroup": 1})),
            "spec.containers[app].securityContext.runAsGroup: not set: must be in 1-9, 77",
        ),
        rule(
            spec(json!({"runAsGroup": range("MayRunAs")})),
            context(json!({"runAsUser": 1, "runAsGroup": 0})),
            context(json!({"runAsUser": 1})),
            "spec.containers[app].securityContext.runAsGroup: 0: must be in 1-9, 77",
        ),
        rule(
            spec(json!({"fsGroup": range("MustRunAs")})),
            json!({}),
            context(json!({"fsGroup": 9})),
            "spec.securityContext.fsGroup: not set: must be in 1-9, 77",
        ),
        rule(
            spec(json!({"fsGroup": range("MayRunAs")})),
            context(json!({"fsGroup": 0})),
            json!({}),
            "spec.securityContext.fsGroup: 0: must be in 1-9, 77",
        ),
        rule(
            spec(json!({"supplementalGroups": range("MustRunAs")})),
            context(json!({"supplementalGroups": [1, 10]})),
            context(json!({"supplementalGroups": [1, 77]})),
            "spec.securityContext.supplementalGroups: 10: must be in 1-9, 77",
        ),
        rule(
            spec(json!({"supplementalGroups": range("MustRunAs")})),
            json!({}),
            context(json!({"supplementalGroups": [1]})),
            "spec.securityContext.supplementalGroups: not set: must be in 1-9, 77",
        ),
        rule(
            spec(
                json!({"seLinux": {"rule": "MustRunAs", "seLinuxOptions": {"level": "s0:c1,c2", "type": "t"}}}),
            ),
            context(json!({"seLinuxOptions": {"level": "s0:c1,c3", "type": "t"}})),
            context(json!({"seLinuxOptions": {"level": "s0:c2,c1", "type": "t"}})),
            "spec.securityContext.seLinuxOptions.level: s0:c1,c3: must be \"s0:c1,c2\"",
        ),
        rule(
            spec(json!({"seLinux": {"rule": "MustRunAs", "seLinuxOptions": {"user": "u"}}})),
            json!({"securityContext": {"seLinuxOptions": {"user": "u"}}, "c": {"securityContext": {"seLinuxOptions": {"role": "r"}}}}),
            context(json!({"seLinuxOptions": {"user": "u"}})),
            "spec.containers[app].securityContext.seLinuxOptions.role: r: must be \"\"",
        ),
        rule(
            spec(json!({"runtimeClass": {"allowedRuntimeClassNames": ["kata"]}})),
            json!({"runtimeClassName": "gvisor"}),
            json!({"runtimeClassName": "kata"}),
            "spec.runtimeClassName: gvisor: allowed are kata",
        ),
        rule(
            annotated(SECCOMP, "runtime/default,localhost/a.json"),
            json!({}),
            context(json!({"seccompProfile": {"type": "RuntimeDefault"}})),
            "spec.securityContext.seccompProfile: not set: allowed are docker/default, localhost/a.json, runtime/default",
        ),
        rule(
            annotated(SECCOMP, "localhost/a.json"),
            json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}, "c": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}}),
            context(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}})),
            "spec.containers[app].securityContext.seccompProfile: unconfined: allowed are localhost/a.json",
        ),
        rule(
            json!({"metadata": {"annotations": {SECCOMP: null}}}),
            context(json!({"seccompProfile": {"type": "RuntimeDefault"}})),
            json!({}),
            "spec.securityContext.seccompProfile: runtime/default: allowed is none",
        ),
        rule(
            annotated(APP_ARMOR, "runtime/default,localhost/x"),
            json!({}),
            context(json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}})),
            "spec.containers[app].securityContext.appArmorProfile: not set: allowed are localhost/x, runtime/default",
        ),
        rule(
            annotated(APP_ARMOR, "runtime/default"),
            json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}, "c": {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}}),
            own(json!({"appArmorProfile": {"type": "RuntimeDefault"}})),
            "spec.containers[app].securityContext.appArmorProfile: unconfined: allowed are runtime/default",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_names_the_field_its_value_and_what_is_allowed() {
    let api = Api::admin().await;
    let server = acts_as(&api).await;
    super::runtime_classes(&api).await;
    let rules = rules();
    let mut in_force = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let policy = psp(&rule.psp);
        in_force.push(InForce::put(&api, &format!("psp-rule-{index}"), &[for_all(&policy)]).await);
    }
    all_heeded(&api, "psp-rules").await;
    for (rule, in_force) in rules.iter().zip(&in_force) {
        let Rule {
            psp,
            denied,
            admitted,
            says,
        } = rule;
        let verdict = in_force.verdict(&api, &pod(denied)).await.unwrap();
        if server < IMAGE_VOLUMES_SINCE && denied.pointer("/volumes/0/image").is_some() {
            assert_eq!(verdict, None, "{psp} {denied}");
            not_run(
                server,
                "image volumes are dropped, so that nothing is left to deny",
            );
            continue;
        }
        let message = verdict.unwrap_or_else(|| panic!("{psp} admits {denied}"));
        assert!(message.contains(says), "{psp} {denied}\n{message}\n{says}");
        let verdict = in_force.verdict(&api, &pod(admitted)).await.unwrap();
        assert_eq!(verdict, None, "{psp} {admitted}");
    }
    for in_force in in_force {
        in_force.end(&api).await;
    }
}
