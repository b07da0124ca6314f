//! Pods of a cluster, page by page: each page is folded into the workloads before the next one is asked for.
//! What the user has no right to see is told, and the rest is still shown.

use anyhow::{Context as _, bail};
use hardening_api::{API_VERSION, PolicyKind};
use hardening_engine::{Field, KubernetesVersion};
use hardening_manifests::{Manifest, objects, policy_set};

use super::look::World;
use super::model::{Audit, Notice, Subject};
use super::owner::Owners;
use super::tally::Tally;
use super::world::{asks_for_tokens, world};
use super::{Audited, Scope};
use crate::output::Problems;
use crate::replay::Progress;
use crate::source::{Cluster, Form, List, Refused, add_unknown, segment, uses};
use crate::workload::workloads;

/// Audits a cluster's pods, with these policies in place of its own, if there are any.
pub(crate) fn live(
    cluster: &Cluster,
    policies: Option<&[Manifest]>,
    scope: &Scope,
) -> anyhow::Result<Audited> {
    let mut live = Live {
        cluster,
        scope,
        notices: Vec::new(),
    };
    let (world, warnings) = live.world(policies)?;
    let mut errors = Vec::new();
    let tally = live.pods(&world, &mut errors)?;
    let owners = live.owners(&tally)?;
    let workloads = tally.finish(&owners);
    let enforced = world.history.enforced();
    let version = world.version.to_string();
    Ok(Audited {
        audit: Audit::new(workloads, &enforced, version, live.notices),
        warnings,
        errors,
    })
}

struct Live<'a> {
    cluster: &'a Cluster,
    scope: &'a Scope,
    notices: Vec<Notice>,
}

impl Live<'_> {
    /// All that decides what pods get, and why they may not have got it; and what is odd about it.
    fn world(&mut self, given: Option<&[Manifest]>) -> anyhow::Result<(World, Vec<String>)> {
        let mut known = match given {
            Some(policies) => policies.to_vec(),
            None => self.policies()?,
        };
        let (set, _) = policy_set(&known, self.cluster.namespace());
        let mut input = self.namespaces()?;
        let missing = [Subject::Missing, Subject::Levels, Subject::Risks];
        if asks_for_tokens(&set) {
            let path = self.path("/api/v1", "serviceaccounts")?;
            input.extend(
                self.list(&path, "list serviceaccounts", &missing)?
                    .unwrap_or_default(),
            );
            let group = "/apis/rbac.authorization.k8s.io/v1";
            let own = self.path(group, "rolebindings")?;
            for (path, what) in [
                (own, "list rolebindings"),
                (
                    format!("{group}/clusterrolebindings"),
                    "list clusterrolebindings",
                ),
            ] {
                let found = self.list(&path, what, &[Subject::Risks])?;
                input.extend(found.unwrap_or_default());
            }
        }
        let mut classes_known = false;
        if uses(&set, Field::RuntimeClassName) {
            let path = "/apis/node.k8s.io/v1/runtimeclasses";
            let found = self.list(path, "list runtimeclasses", &missing)?;
            classes_known = found.is_some();
            input.extend(found.unwrap_or_default());
        }
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        let what = "list mutatingwebhookconfigurations";
        let hooks = self.list(path, what, &[Subject::Reasons])?;
        let hooks_known = hooks.is_some();
        input.extend(hooks.unwrap_or_default());
        add_unknown(&mut known, &input, self.cluster.namespace());
        let (mut world, problems) = world(
            &known,
            &input,
            self.cluster.namespace(),
            self.version()?,
            hooks_known,
        );
        if classes_known {
            world.know_all_runtime_classes();
        }
        if given.is_some() && !problems.is_empty() {
            bail!(Problems(problems));
        }
        // In a cluster a broken policy is without effect, and harms no other.
        let warnings = problems.into_iter();
        let warnings = warnings.map(|problem| format!("warning: {problem}"));
        Ok((world, warnings.collect()))
    }

    fn policies(&mut self) -> anyhow::Result<Vec<Manifest>> {
        let base = format!("/apis/{API_VERSION}");
        let own = self.path(&base, "podhardeningpolicies")?;
        let mut found = Vec::new();
        for (path, plural, kind) in [
            (
                format!("{base}/clusterpodhardeningpolicies"),
                "clusterpodhardeningpolicies",
                PolicyKind::Cluster,
            ),
            (own, "podhardeningpolicies", PolicyKind::Namespaced),
        ] {
            let affects = [Subject::Missing, Subject::Levels, Subject::Risks];
            let notices = self.notices.len();
            match self.list(&path, &format!("list {plural}"), &affects)? {
                Some(listed) => found.extend(listed),
                // Refused, as was told.
                None if self.notices.len() > notices => {}
                None => self.notices.push(Notice {
                    text: format!(
                        "the custom resource {} is not installed in this cluster",
                        kind.name()
                    ),
                    affects: affects.to_vec(),
                }),
            }
        }
        Ok(found)
    }

    fn namespaces(&mut self) -> anyhow::Result<Vec<Manifest>> {
        let affects = [
            Subject::Missing,
            Subject::Reasons,
            Subject::Levels,
            Subject::Risks,
        ];
        let Some(name) = &self.scope.namespace else {
            let path = "/api/v1/namespaces";
            return Ok(self
                .list(path, "list namespaces", &affects)?
                .unwrap_or_default());
        };
        let got = self.cluster.namespace_object(name);
        Ok(self.seen(got, &affects)?.flatten().into_iter().collect())
    }

    /// The version that decides which fields there are, and whose standards count: the API server's own, unless
    /// another one is asked for.
    fn version(&mut self) -> anyhow::Result<Option<KubernetesVersion>> {
        if self.scope.kubernetes.is_some() {
            return Ok(self.scope.kubernetes);
        }
        let affects = [Subject::Missing, Subject::Levels, Subject::Risks];
        let told = self.seen(self.cluster.kubernetes_version(), &affects)?;
        Ok(told.flatten())
    }

    fn pods(&mut self, world: &World, errors: &mut Vec<String>) -> anyhow::Result<Tally> {
        let path = self.path("/api/v1", "pods")?;
        let selector = self.scope.selector.as_ref();
        let list = List {
            path: &path,
            selector: selector.map_or("", |selector| &selector.text),
            form: Form::Whole,
            what: "list pods",
        };
        let progress = Progress::on_stderr();
        let mut tally = Tally::default();
        let listed = self.cluster.each_page(&list, |page| {
            for workload in workloads(std::slice::from_ref(&page.list), self.cluster.namespace()) {
                match world.look(&workload) {
                    Ok(look) => tally.add(&workload, look),
                    Err(error) => errors.push(format!("{error:#}")),
                }
            }
            let done = u64::try_from(tally.pods).unwrap_or(u64::MAX);
            progress.at(done, done.saturating_add(page.remaining.unwrap_or(0)));
            Ok(())
        });
        progress.end();
        match listed {
            // What came before it is worth to be shown.
            Err(error) if tally.pods > 0 => {
                errors.push(format!("{error:#}"));
                self.notices.push(Notice {
                    text: format!("only the first {} pods were read: {error:#}", tally.pods),
                    affects: vec![Subject::Pods],
                });
            }
            listed => {
                listed.context("nothing can be shown without pods")?;
            }
        }
        Ok(tally)
    }

    /// Who owns the ReplicaSets and Jobs that pods name.
    fn owners(&mut self, tally: &Tally) -> anyhow::Result<Owners> {
        let mut owners = Owners::default();
        for (kind, group, plural) in [
            ("ReplicaSet", "/apis/apps/v1", "replicasets"),
            ("Job", "/apis/batch/v1", "jobs"),
        ] {
            if !tally.names_a(kind) {
                continue;
            }
            let path = self.path(group, plural)?;
            let what = format!("list {plural}");
            let list = List {
                path: &path,
                selector: "",
                form: Form::Metadata,
                what: &what,
            };
            let listed = self.cluster.each_page(&list, |page| {
                for object in objects(std::slice::from_ref(&page.list)) {
                    owners.insert(&object, kind, self.cluster.namespace());
                }
                Ok(())
            });
            self.seen(listed, &[Subject::Owners])?;
        }
        Ok(owners)
    }

    /// A list, if it is there and may be seen.
    fn list(
        &mut self,
        path: &str,
        what: &str,
        affects: &[Subject],
    ) -> anyhow::Result<Option<Vec<Manifest>>> {
        let listed = self.cluster.listed(path, what);
        Ok(self.seen(listed, affects)?.flatten())
    }

    /// What was asked for; or nothing and a notice, where the API server refuses to answer.
    fn seen<T>(
        &mut self,
        answer: anyhow::Result<T>,
        affects: &[Subject],
    ) -> anyhow::Result<Option<T>> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.is::<Refused>() => {
                self.notices.push(Notice {
                    text: format!("{error:#}"),
                    affects: affects.to_vec(),
                });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Where a kind's list is, of the namespace or of all.
    fn path(&self, group: &str, plural: &str) -> anyhow::Result<String> {
        Ok(match &self.scope.namespace {
            Some(namespace) => format!("{group}/namespaces/{}/{plural}", segment(namespace)?),
            None => format!("{group}/{plural}"),
        })
    }
}
