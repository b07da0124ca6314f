//! Who breaks a rule, as checks find them one by one.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::evaluation::{Allowed, FieldViolation};
use crate::pod::{Owner, Pod, PodSecurityContext, SecurityContext};
use crate::text::{plural, quoted};

/// Whoever breaks a rule, and with what.
#[derive(Debug, Default)]
pub(crate) struct Offenders<'p> {
    /// Each once, in their order; by how they were found that is the pod first.
    owners: Vec<Owner<'p>>,
    pub(crate) fields: Vec<FieldViolation>,
}

impl<'p> Offenders<'p> {
    /// Those that have such a value of one field, all of which are wrong.
    pub(crate) fn of<O: Into<Owner<'p>>, V: Into<Value>>(
        values: impl IntoIterator<Item = (O, V)>,
        field: &str,
        allowed: &Allowed,
    ) -> Self {
        let mut offenders = Self::default();
        for (owner, value) in values {
            offenders.add(owner, field, Some(value.into()), allowed);
        }
        offenders
    }

    /// Notes what is wrong with one field; `field` is where it stands in its owner.
    pub(crate) fn add(
        &mut self,
        owner: impl Into<Owner<'p>>,
        field: &str,
        value: Option<Value>,
        allowed: &Allowed,
    ) {
        let owner = owner.into();
        self.add_owner(owner);
        self.add_field(owner.path(field), value, allowed);
    }

    /// Notes somebody who breaks the rule by what stands elsewhere.
    pub(crate) fn add_owner(&mut self, owner: Owner<'p>) {
        // What is wrong with one of them is found in a row.
        if !self.owners.last().is_some_and(|last| last.is(&owner)) {
            self.owners.push(owner);
        }
    }

    /// Notes a field that is nobody's own.
    pub(crate) fn add_field(&mut self, path: String, value: Option<Value>, allowed: &Allowed) {
        self.fields.push(FieldViolation {
            path,
            value,
            allowed: allowed.clone(),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// The names of containers.
    pub(crate) fn names(&self) -> Vec<&'p str> {
        self.owners.iter().filter_map(Owner::name).collect()
    }

    /// The texts that were found, each once.
    pub(crate) fn values(&self) -> BTreeSet<&str> {
        let values = self.fields.iter();
        values
            .filter_map(|field| field.value.as_ref()?.as_str())
            .collect()
    }

    /// `container "a"`, or `containers "a", "b"`.
    pub(crate) fn containers(&self) -> String {
        containers(&self.names())
    }

    /// `pod`, and `containers "a", "b"`.
    pub(crate) fn parts(&self) -> Vec<String> {
        let has_pod = matches!(self.owners.first(), Some(Owner::Pod));
        let names = self.names();
        let pod = has_pod.then(|| "pod".to_owned());
        let containers = (!names.is_empty()).then(|| containers(&names));
        pod.into_iter().chain(containers).collect()
    }

    /// `pod and containers "a", "b"`.
    pub(crate) fn all(&self) -> String {
        self.parts().join(" and ")
    }
}

/// `container "a"`, or `containers "a", "b"`.
pub(crate) fn containers(names: &[&str]) -> String {
    let word = plural("container", "containers", names.len());
    format!("{word} {}", quoted(names))
}

/// Who breaks the rule of a field that a container has of its own or takes from its pod.
#[derive(Debug, Default)]
pub(crate) struct Inherited<'p> {
    /// Who says something that is not allowed.
    pub(crate) said: Offenders<'p>,
    /// Containers for which nobody says anything that is allowed.
    pub(crate) unsaid: Offenders<'p>,
}

impl<'p> Inherited<'p> {
    /// Looks at a field of both security contexts; `field` is its path in each owner.
    pub(crate) fn of<T: Into<Value> + 'p>(
        pod: &'p Pod,
        field: &str,
        of_pod: impl Fn(&'p PodSecurityContext) -> Option<T>,
        of_container: impl Fn(&'p SecurityContext) -> Option<T>,
        is_allowed: impl Fn(&T) -> bool,
        allowed: &Allowed,
    ) -> Self {
        let mut found = Self::default();
        let of_pod = of_pod(pod.context());
        let is_covered = of_pod.as_ref().is_some_and(&is_allowed);
        if let Some(value) = of_pod.filter(|value| !is_allowed(value)) {
            let value = Some(value.into());
            found.said.add(Owner::Pod, field, value, allowed);
        }
        for place in pod.containers() {
            match of_container(place.context()) {
                Some(value) if !is_allowed(&value) => {
                    found.said.add(place, field, Some(value.into()), allowed);
                }
                None if !is_covered => found.unsaid.add(place, field, None, allowed),
                Some(_) | None => {}
            }
        }
        found
    }
}
