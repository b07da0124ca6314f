//! Generated pods.

use serde_json::{Map, Value, json};

use super::{APP_ARMOR, CAPABILITIES, CSI_DRIVERS, DRIVERS, Generator, IDS, SECCOMP, SYSCTLS, put};
use crate::mutate::set;
use crate::volumes;

impl Generator {
    fn wrote(&mut self) -> bool {
        let percent = self.diligence;
        self.chance(percent)
    }

    pub(super) fn pod(&mut self) -> Value {
        let mut spec = Map::new();
        for flag in ["hostNetwork", "hostPID", "hostIPC"] {
            if self.wrote() {
                let value = self.chance(70);
                put(&mut spec, flag, value);
            }
        }
        if self.wrote() {
            let name = self.pick(&["gvisor", "kata", "runc", "other"]);
            put(&mut spec, "runtimeClassName", name);
        }
        let volumes = self.volumes();
        let names: Vec<String> = volumes
            .iter()
            .filter_map(|volume| volume.get("name").and_then(Value::as_str))
            .map(str::to_owned)
            .collect();
        if !volumes.is_empty() {
            put(&mut spec, "volumes", volumes);
        }
        let context = self.pod_context();
        self.put_context(&mut spec, context);
        let mut container_names = Vec::new();
        for (list, prefix, least, most) in [
            ("initContainers", "init", 0, 2),
            ("containers", "app", 1, 3),
            ("ephemeralContainers", "debug", 0, 1),
        ] {
            let most = if least == 0 && self.chance(60) {
                0
            } else {
                most
            };
            let containers: Vec<Value> = (0..self.random.usize(least..=most))
                .map(|index| {
                    let name = format!("{prefix}-{index}");
                    container_names.push(name.clone());
                    self.container(&name, &names, list == "ephemeralContainers")
                })
                .collect();
            if !containers.is_empty() {
                put(&mut spec, list, containers);
            }
        }
        let mut metadata = Map::new();
        put(&mut metadata, "name", "generated");
        put(&mut metadata, "namespace", "shop");
        let annotations = self.pod_annotations(&container_names);
        if annotations.is_empty() {
            if self.chance(10) {
                put(&mut metadata, "annotations", Value::Null);
            }
        } else {
            put(&mut metadata, "annotations", annotations);
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    }

    fn pod_annotations(&mut self, containers: &[String]) -> Map<String, Value> {
        let mut annotations = Map::new();
        if self.chance(20) {
            put(&mut annotations, "example.com/team", "shop");
        }
        if self.wrote() && self.chance(40) {
            let profile = self.pick(&["", SECCOMP[0], SECCOMP[1], SECCOMP[2], SECCOMP[3]]);
            put(
                &mut annotations,
                "seccomp.security.alpha.kubernetes.io/pod",
                profile,
            );
        }
        for name in containers {
            if self.wrote() && self.chance(40) {
                let profile = self.pick(&["", SECCOMP[0], SECCOMP[2], SECCOMP[3], SECCOMP[4]]);
                let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
                put(&mut annotations, &key, profile);
            }
            if self.wrote() {
                let profile =
                    self.pick(&["", APP_ARMOR[0], APP_ARMOR[1], APP_ARMOR[2], APP_ARMOR[3]]);
                let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
                put(&mut annotations, &key, profile);
            }
        }
        annotations
    }

    /// A security context as authors write it: not at all when there is nothing to say, but now and then null
    /// or empty.
    fn put_context(&mut self, owner: &mut Map<String, Value>, context: Map<String, Value>) {
        if !context.is_empty() || self.chance(5) {
            put(owner, "securityContext", context);
        } else if self.chance(5) {
            put(owner, "securityContext", Value::Null);
        }
    }

    fn pod_context(&mut self) -> Map<String, Value> {
        let mut context = self.shared_context();
        if self.wrote() {
            let group = self.pick(&IDS);
            put(&mut context, "fsGroup", group);
        }
        if self.wrote() {
            let groups = self.some(&IDS, 2);
            put(&mut context, "supplementalGroups", groups);
        }
        if self.wrote() {
            let sysctls = self.subset(&SYSCTLS, 25);
            let sysctls: Vec<Value> = sysctls
                .as_array()
                .into_iter()
                .flatten()
                .map(|name| json!({"name": name, "value": "1"}))
                .collect();
            put(&mut context, "sysctls", sysctls);
        }
        context
    }

    /// What pods and containers both have.
    fn shared_context(&mut self) -> Map<String, Value> {
        let mut context = Map::new();
        for field in ["runAsUser", "runAsGroup"] {
            if self.wrote() {
                let id = self.pick(&IDS);
                put(&mut context, field, id);
            } else if self.chance(1) {
                put(&mut context, field, Value::Null);
            }
        }
        if self.wrote() {
            let value = self.chance(60);
            put(&mut context, "runAsNonRoot", value);
        }
        if self.wrote() {
            let labels = self.labels();
            put(&mut context, "seLinuxOptions", labels);
        }
        if self.wrote() {
            let profile = self.seccomp_field();
            put(&mut context, "seccompProfile", profile);
        }
        context
    }

    fn seccomp_field(&mut self) -> Value {
        match self.random.u8(0..8) {
            0..4 => json!({"type": "RuntimeDefault"}),
            4 => json!({"type": "Unconfined"}),
            5 => json!({"type": "Localhost", "localhostProfile": "a.json"}),
            6 => json!({"type": "Localhost", "localhostProfile": "b.json"}),
            _ => json!({"type": "Localhost"}),
        }
    }

    fn container(&mut self, name: &str, volumes: &[String], ephemeral: bool) -> Value {
        let mut container = Map::new();
        put(&mut container, "name", name);
        put(&mut container, "image", "example.com/app:1");
        let mut context = self.shared_context();
        for field in [
            "privileged",
            "readOnlyRootFilesystem",
            "allowPrivilegeEscalation",
        ] {
            if self.wrote() {
                let value = self.chance(50);
                put(&mut context, field, value);
            }
        }
        if self.wrote() {
            let mount = self.pick(&["Default", "Default", "Unmasked"]);
            put(&mut context, "procMount", mount);
        }
        if self.wrote() {
            let capabilities = self.container_capabilities();
            put(&mut context, "capabilities", capabilities);
        }
        self.put_context(&mut container, context);
        if self.wrote() && !ephemeral {
            let ports: Vec<Value> = (0..self.random.usize(1..=2))
                .map(|_| json!({"containerPort": 8080, "hostPort": self.pick(&[0, 80, 443, 5000, 9000])}))
                .collect();
            put(&mut container, "ports", ports);
        }
        let mut mounts = Vec::new();
        for volume in volumes {
            let mut mount = json!({"name": volume, "mountPath": format!("/{volume}")});
            if self.chance(50) {
                set(&mut mount, &["readOnly"], true.into());
            }
            if self.chance(60) {
                mounts.push(mount);
            }
        }
        if !mounts.is_empty() {
            put(&mut container, "volumeMounts", mounts);
        }
        container.into()
    }

    fn container_capabilities(&mut self) -> Value {
        let mut capabilities = Map::new();
        for (list, percent) in [("add", 45), ("drop", 70)] {
            if self.chance(percent) {
                let names = self.some(&CAPABILITIES, 3);
                put(&mut capabilities, list, names);
            }
        }
        capabilities.into()
    }

    fn volumes(&mut self) -> Vec<Value> {
        if !self.wrote() {
            return Vec::new();
        }
        (0..self.random.usize(1..=3))
            .map(|index| {
                let mut volume = Map::new();
                put(&mut volume, "name", format!("v{index}"));
                // Where it decides, the kinds that policies say more about come more often.
                let kind = match self.random.u8(0..10) {
                    0..3 => "hostPath",
                    3 => "flexVolume",
                    4 => "csi",
                    5..7 => "projected",
                    _ => {
                        let fields: Vec<&str> =
                            volumes::KINDS.iter().map(|(field, _)| *field).collect();
                        self.pick(&fields)
                    }
                };
                let source = self.volume_source(kind);
                if !self.chance(1) {
                    put(&mut volume, kind, source);
                }
                volume.into()
            })
            .collect()
    }

    fn volume_source(&mut self, kind: &str) -> Value {
        match kind {
            "hostPath" => {
                let path = self.pick(&[
                    "/",
                    "/var/log",
                    "/var/log/pods/",
                    "/var/logs",
                    "/etc",
                    "//var",
                ]);
                json!({"path": path, "type": ""})
            }
            "flexVolume" => json!({"driver": self.pick(&DRIVERS)}),
            "csi" => json!({"driver": self.pick(&CSI_DRIVERS)}),
            "projected" => self.projected(),
            "gcePersistentDisk" => json!({"pdName": "x"}),
            "awsElasticBlockStore" | "cinder" => json!({"volumeID": "x"}),
            "gitRepo" => json!({"repository": "x"}),
            "secret" => json!({"secretName": "x"}),
            "nfs" => json!({"server": "x", "path": "/x"}),
            "iscsi" => {
                json!({"targetPortal": "10.0.0.1:3260", "iqn": "iqn.2001-04.com.example:storage", "lun": 0})
            }
            "glusterfs" => json!({"endpoints": "x", "path": "x"}),
            "persistentVolumeClaim" => json!({"claimName": "x"}),
            "rbd" => json!({"monitors": ["x"], "image": "x"}),
            "cephfs" => json!({"monitors": ["x"]}),
            "flocker" => json!({"datasetName": "x"}),
            "fc" => json!({"targetWWNs": ["x"], "lun": 0}),
            "azureFile" => json!({"secretName": "x", "shareName": "x"}),
            "configMap" => json!({"name": "x"}),
            "vsphereVolume" => json!({"volumePath": "x"}),
            "quobyte" => json!({"registry": "x:1", "volume": "x"}),
            "azureDisk" => json!({"diskName": "x", "diskURI": "https://x"}),
            "photonPersistentDisk" => json!({"pdID": "x"}),
            "storageos" => json!({"volumeName": "x"}),
            "portworxVolume" => json!({"volumeID": "x"}),
            "scaleIO" => {
                json!({"gateway": "x", "system": "x", "secretRef": {"name": "x"}, "volumeName": "x"})
            }
            "ephemeral" => {
                json!({"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}})
            }
            _ => json!({}),
        }
    }

    /// The volume that the API server makes for a service account's token, and volumes that nearly are it.
    fn projected(&mut self) -> Value {
        let audience = self.pick(&["", "", "", "vault"]);
        let path = self.pick(&["token", "token", "token", "tok"]);
        let config_map = self.pick(&["kube-root-ca.crt", "kube-root-ca.crt", "other"]);
        let field = self.pick(&["metadata.namespace", "metadata.namespace", "metadata.name"]);
        let item = self.pick(&["namespace", "namespace", "ns"]);
        let mut sources = vec![
            json!({"serviceAccountToken": {"path": path, "audience": audience, "expirationSeconds": 3607}}),
            json!({"configMap": {"name": config_map, "items": [{"key": "ca.crt", "path": "ca.crt"}]}}),
            json!({"downwardAPI": {"items": [{"path": item, "fieldRef": {"apiVersion": "v1", "fieldPath": field}}]}}),
        ];
        if self.chance(15) {
            sources.push(json!({"secret": {"name": "x"}}));
        }
        sources.retain(|_| self.chance(90));
        json!({ "sources": sources })
    }
}
