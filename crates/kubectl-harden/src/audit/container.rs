//! A container, with what its pod says for it.

use serde_json::Value;

use super::risk::Evidence;

pub(crate) struct Container<'a> {
    list: &'static str,
    name: &'a str,
    value: &'a Value,
    /// The pod's `securityContext`.
    of_pod: Option<&'a Value>,
}

/// A pod's containers, in order. A running pod's ephemeral ones are not among them: no other pod gets them.
pub(crate) fn containers(pod: &Value) -> impl Iterator<Item = Container<'_>> {
    let of_pod = pod.pointer("/spec/securityContext");
    ["initContainers", "containers"]
        .into_iter()
        .flat_map(move |list| {
            let all = pod
                .get("spec")
                .and_then(|spec| spec.get(list)?.as_array())
                .into_iter()
                .flatten();
            all.map(move |value| Container {
                list,
                name: value
                    .get("name")
                    .and_then(Value::as_str)
                    .unwrap_or_default(),
                value,
                of_pod,
            })
        })
}

impl<'a> Container<'a> {
    /// That a field of it shows something.
    pub(crate) fn shows(&self, field: &str, says: String) -> Evidence {
        Evidence {
            path: format!("spec.{}[{}].{field}", self.list, self.name),
            says,
        }
    }

    pub(crate) fn image(&self) -> &'a str {
        let image = self.value.get("image").and_then(Value::as_str);
        image.unwrap_or("an image")
    }

    /// The items of a list of it.
    pub(crate) fn list(&self, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        let list = self.value.pointer(pointer).and_then(Value::as_array);
        list.into_iter().flatten()
    }

    /// Its own security context's field, else the pod's.
    fn effective(&self, field: &str) -> Option<&'a Value> {
        let own = self.value.get("securityContext");
        let set = |context: Option<&'a Value>| context?.get(field).filter(|value| !value.is_null());
        set(own).or_else(|| set(self.of_pod))
    }

    pub(crate) fn run_as_user(&self) -> Option<i64> {
        self.effective("runAsUser")?.as_i64()
    }

    pub(crate) fn must_be_non_root(&self) -> bool {
        self.effective("runAsNonRoot") == Some(&Value::Bool(true))
    }

    pub(crate) fn has_read_only_root(&self) -> bool {
        let field = "/securityContext/readOnlyRootFilesystem";
        self.value.pointer(field) == Some(&Value::Bool(true))
    }

    pub(crate) fn cannot_bind_low_ports(&self) -> bool {
        let has = |list: &str, names: [&str; 2]| {
            let mut items = self.list(&format!("/securityContext/capabilities/{list}"));
            items.any(|item| item.as_str().is_some_and(|name| names.contains(&name)))
        };
        let bind = ["NET_BIND_SERVICE", "CAP_NET_BIND_SERVICE"];
        has("drop", ["ALL", "all"]) && !has("add", bind) && !has("add", ["ALL", "all"])
    }

    /// Its mounts that can be written to.
    pub(crate) fn writable_mounts(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let mounts = self.list("/volumeMounts");
        mounts.filter(|mount| mount.get("readOnly") != Some(&Value::Bool(true)))
    }

    /// The texts of its command, arguments and environment, with the field of each.
    pub(crate) fn said(&self) -> Vec<(String, &'a str)> {
        let mut said = Vec::new();
        for field in ["command", "args"] {
            let texts = self.list(&format!("/{field}")).filter_map(Value::as_str);
            said.extend(texts.map(|text| (field.to_owned(), text)));
        }
        for variable in self.list("/env") {
            let text = |key| variable.get(key).and_then(Value::as_str);
            let name = text("name").unwrap_or_default();
            let texts = [Some(name), text("value")].into_iter().flatten();
            said.extend(texts.map(|text| (format!("env[{name}]"), text)));
        }
        said
    }

    /// The commands that the kubelet runs in it, with the field of each.
    pub(crate) fn exec_commands(&self) -> Vec<(&'static str, Vec<&'a str>)> {
        let fields = [
            "livenessProbe.exec.command",
            "readinessProbe.exec.command",
            "startupProbe.exec.command",
            "lifecycle.postStart.exec.command",
            "lifecycle.preStop.exec.command",
        ];
        let command = |field: &'static str| {
            let words = self.list(&format!("/{}", field.replace('.', "/")));
            let words: Vec<&str> = words.filter_map(Value::as_str).collect();
            (!words.is_empty()).then_some((field, words))
        };
        fields.into_iter().filter_map(command).collect()
    }
}
