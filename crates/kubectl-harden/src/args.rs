//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use hardening_engine::KubernetesVersion;

use crate::audit::Labels;
use crate::audit::model::Level;

/// See what Pod Hardening for Kubernetes does to a pod, and why.
///
/// PodHardeningPolicy and ClusterPodHardeningPolicy objects give defaults for the security fields that a
/// pod's author left out. These commands show what that means for manifests and for running pods, with
/// the very code that the admission webhook runs: from files alone, or with the policies of a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-harden",
    bin_name = "kubectl harden",
    version,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 all is well, 1 bad input, or what audit --fail-on names was found, 2 wrong usage. Those of
diff are its own."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Render(RenderArgs),
    Diff(DiffArgs),
    Explain(ExplainArgs),
    Audit(AuditArgs),
    Lint(LintArgs),
    Test(TestArgs),
    Convert(ConvertArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// Print manifests as their pods would be admitted.
///
/// Pods and the pod templates of Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, CronJobs,
/// ReplicationControllers and PodTemplates, also inside Lists, get what the policies fill in. Everything
/// else is printed as it was read, byte for byte in YAML, comments included; and so is the rest of a
/// document in which something is filled in.
///
/// Nothing is printed unless all of it could be read.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  # What would change?
  kubectl harden render -f app.yaml --policies policies/ -o diff

  # The same with the policies that are in force in the cluster
  kubectl harden render -f app.yaml -n shop -o diff

  # As Helm's post-renderer
  helm template shop ./chart | kubectl harden render --policies policies/ | kubectl apply -f -")]
pub(crate) struct RenderArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,

    /// What to print: the manifests, a diff of each object that changes, or the JSON Patch of each.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = RenderFormat::Yaml)]
    pub(crate) output: RenderFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RenderFormat {
    /// The manifests; what is not touched byte for byte.
    Yaml,
    /// The manifests; several as a List.
    Json,
    /// A unified diff of each object that changes.
    Diff,
    /// The JSON Patch (RFC 6902) of each object that changes.
    Patch,
}

/// Tell whether policies would change the pods of manifests.
///
/// Prints a unified diff of each object whose pods would be admitted otherwise than they are written, and
/// nothing where there is none. The exit code tells which, as that of kubectl diff does.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Exit codes: 0 nothing would change, 1 something would, 2 bad input or wrong usage.

Examples:
  # Does Git hold what will run, with the policies that are in force in the cluster?
  kubectl harden diff -f manifests/ -n shop

  # What would a new policy change?
  kubectl harden diff -f manifests/ --policies policies/"
)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
}

/// Show, field by field, what is set on a pod, who set it, and which policies had another default.
///
/// For a running pod, what its annotations podhardening.dev/filled and podhardening.dev/withheld record,
/// and what the policies of today say beyond that. For manifests, and for what makes pods in the cluster,
/// what would be filled in. For each default that a guard held back, why; and for each policy that does
/// not decide, what goes before it.
#[derive(Debug, ClapArgs)]
#[command(
    override_usage = "kubectl harden explain [OPTIONS] <POD | TYPE/NAME | -f FILE...>",
    after_help = "Examples:
  # Who set what on a running pod?
  kubectl harden explain web-6d4cf56db6-xk2lp -n shop

  # Who would set what on the pods of a Deployment in the cluster?
  kubectl harden explain deploy/web -n shop

  # Why is this one not set?
  kubectl harden explain deploy/web --why runAsNonRoot

  # Who would set what?
  kubectl harden explain -f app.yaml --policies policies/"
)]
pub(crate) struct ExplainArgs {
    /// The name of a running pod, or the type and name of a pod or of what makes pods: deploy/web, sts/db,
    /// cronjobs/report, in kubectl's names and short names.
    #[arg(
        value_name = "POD",
        required_unless_present = "files",
        conflicts_with = "files"
    )]
    pub(crate) object: Option<String>,

    /// Manifests: a file, a folder (its .yaml, .yml and .json files), or - for standard input. May be
    /// given several times.
    #[arg(short = 'f', long = "filename", value_name = "FILE", num_args = 1.., value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,

    /// Only this field, and all there is to say about it, the policies that are not for the pod included.
    /// By name (runAsNonRoot), by path below the pod's spec or the container
    /// (securityContext.runAsNonRoot), or by whole path (spec.containers[app].securityContext.privileged).
    #[arg(long, value_name = "FIELD")]
    pub(crate) why: Option<String>,

    #[command(flatten)]
    pub(crate) policies: PolicyArgs,

    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,

    #[command(flatten)]
    pub(crate) kubernetes: KubernetesArgs,

    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,

    /// How to print it.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = ReportFormat::Text)]
    pub(crate) output: ReportFormat,
}

/// Hold running pods against today's policies and the Pod Security Standards.
///
/// By workload: the fields that policies would fill in and its pods lack, and why; the level of the Pod
/// Security Standards that they meet today, and would meet with what is missing; what then still stands in the
/// way of the next one; and what may stop working. By namespace: which level it could be labelled with.
///
/// What you have no right to see is told, and the rest is still shown.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  # What is not hardened right now?
  kubectl harden audit -A

  # What would this policy change, and what may it break?
  kubectl harden audit -n shop --policies policy.yaml

  # A dump of another cluster
  kubectl get pods,replicasets,jobs,namespaces,podhardeningpolicies,clusterpodhardeningpolicies -A -o yaml > dump.yaml
  kubectl harden audit -f dump.yaml

  # In CI
  kubectl harden audit -f app/ --policies policies/ --fail-on missing,level=baseline")]
pub(crate) struct AuditArgs {
    /// Look at the pods in these files instead of a cluster's: a file, a folder (its .yaml, .yml and .json
    /// files), or - for standard input. May be given several times. Policies, Namespaces, owners, bindings and
    /// webhook registrations among them count too; of a workload without pods its template is looked at.
    #[arg(short = 'f', long = "filename", value_name = "FILE", num_args = 1.., value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,

    /// Policies to take in place of the cluster's, or, with -f, besides those in its files: files, folders
    /// (their .yaml, .yml and .json files), or - for standard input.
    #[arg(long, value_name = "PATH", num_args = 1.., value_hint = ValueHint::AnyPath)]
    pub(crate) policies: Vec<PathBuf>,

    /// Only this namespace. Without it: of a cluster the kubeconfig context's, of files all of them.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,

    /// All namespaces of the cluster.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,

    /// Only pods with these labels, as kubectl selects them: app=web,tier!=db.
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<Labels>,

    /// How to print it.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = AuditFormat::Table)]
    pub(crate) output: AuditFormat,

    /// Also write it as a page to look at: one file, that needs no network.
    #[arg(long, value_name = "FILE.html", value_hint = ValueHint::FilePath)]
    pub(crate) report: Option<PathBuf>,

    /// Exit with 1 if a workload has it, or if that cannot be told: missing (fields), risk, level=baseline or
    /// level=restricted (below that level today). Several with commas.
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    pub(crate) fail_on: Vec<FailOn>,

    #[command(flatten)]
    pub(crate) kubernetes: KubernetesArgs,

    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuditFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For programs.
    Yaml,
    /// PolicyReports of wgpolicyk8s.io/v1alpha2, one for each namespace, as YAML.
    #[value(name = "policyreport")]
    PolicyReport,
}

/// What makes an audit fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailOn {
    Missing,
    Risk,
    Level(Level),
}

impl FromStr for FailOn {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "missing" => Ok(Self::Missing),
            "risk" => Ok(Self::Risk),
            "level=baseline" => Ok(Self::Level(Level::Baseline)),
            "level=restricted" => Ok(Self::Level(Level::Restricted)),
            _ => Err("not one of missing, risk, level=baseline, level=restricted"),
        }
    }
}

/// Check policies without a cluster.
///
/// Errors: what the API server would refuse. Warnings: what is likely a mistake. Notes: where one policy
/// goes before another for the same pods, by their tiers and priorities.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  kubectl harden lint -f policies/ --strict")]
pub(crate) struct LintArgs {
    /// Policies: a file, a folder (its .yaml, .yml and .json files), or - for standard input. May be given
    /// several times. Namespace manifests among them say which labels a namespace has.
    #[arg(short = 'f', long = "filename", value_name = "FILE", num_args = 1.., required = true, value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,

    /// Fail on warnings too.
    #[arg(long)]
    pub(crate) strict: bool,

    /// How to print it.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = ReportFormat::Text)]
    pub(crate) output: ReportFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Test policies: whether pods become what files say that they do.
///
/// Such a file is of kind PolicyTest: policies, manifests, and what their pods are to be. It is kept beside the
/// policies in Git, in a folder of its own, and never applied to a cluster. What is not as expected is shown
/// as a diff.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  kubectl harden test tests/

  # With a report for CI
  kubectl harden test tests/ --junit report.xml")]
pub(crate) struct TestArgs {
    /// Tests: files, folders (their .yaml, .yml and .json files), or - for standard input. Other objects
    /// in them are passed over.
    #[arg(value_name = "DIR", required = true, value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,

    /// Also write what came of them into this file, as JUnit XML.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) junit: Option<PathBuf>,
}

/// Convert PodSecurityPolicies into what takes their place.
///
/// What they filled in becomes PodHardeningPolicies and ClusterPodHardeningPolicies; what they denied,
/// ValidatingAdmissionPolicies and, where a Pod Security Standard is no stricter, labels of namespaces. What
/// is not carried over exactly is told in notes, on standard error.
///
/// A PodSecurityPolicy that cannot be converted is an error, and the others still are.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  # What would become of these?
  kubectl harden convert -f psp.yaml

  # With who could use which, from the old cluster's export
  kubectl get psp,roles,clusterroles,rolebindings,clusterrolebindings,namespaces,serviceaccounts -A -o yaml > export.yaml
  kubectl harden convert -f export.yaml --rbac --out-dir converted/ --report markdown --report-file notes.md

  # Would anything change for what runs there?
  kubectl harden convert -f export.yaml --rbac --replay workloads.yaml

  # First only record and warn
  kubectl harden convert -f export.yaml --rbac --mode Audit | kubectl apply --server-side -f -")]
pub(crate) struct ConvertArgs {
    /// PodSecurityPolicies: a file, a folder (its .yaml, .yml and .json files), or - for standard input.
    /// May be given several times. Without it standard input is read, if it is not a terminal. Namespaces
    /// and ServiceAccounts among them count too, and with --rbac the Roles, ClusterRoles and bindings.
    #[arg(short = 'f', long = "filename", value_name = "FILE", num_args = 1.., value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,

    /// Take into account who could use which PodSecurityPolicy: from the Roles, ClusterRoles and bindings
    /// in these files and folders; without a value from those among -f, or, where there are none, from the
    /// cluster. Without this option each is converted as if every pod could use it.
    #[arg(long, value_name = "PATH", num_args = 0.., value_hint = ValueHint::AnyPath)]
    pub(crate) rbac: Option<Vec<PathBuf>>,

    /// Take the Namespaces and ServiceAccounts from these files and folders; without a value from the
    /// cluster.
    #[arg(long, value_name = "PATH", num_args = 0.., value_hint = ValueHint::AnyPath)]
    pub(crate) namespaces: Option<Vec<PathBuf>>,

    /// Enforce fills in and denies. Audit only records what would be filled in, and warns of and audits
    /// what would be denied.
    #[arg(long, value_enum, value_name = "MODE", default_value_t = ConvertMode::Enforce)]
    pub(crate) mode: ConvertMode,

    /// Print, in place of what comes out, what it would do to the pods and workloads in these files and folders
    /// that the PodSecurityPolicies did not do: each field that they would set differently, each pod that only
    /// one side admits. Without a value those of the cluster. Always as in mode Enforce.
    #[arg(long, value_name = "PATH", num_args = 0.., conflicts_with = "output", value_hint = ValueHint::AnyPath)]
    pub(crate) replay: Option<Vec<PathBuf>>,

    /// How to print what comes out, in the order in which it is to be applied.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = ConvertFormat::Yaml)]
    pub(crate) output: ConvertFormat,

    /// Write it into this folder instead: one file for each object, and a kustomization.yaml. Files that an
    /// earlier run wrote are replaced, and removed where they are no longer needed.
    #[arg(long, value_name = "DIR", conflicts_with = "output", value_hint = ValueHint::DirPath)]
    pub(crate) out_dir: Option<PathBuf>,

    /// Replace files in --out-dir that this command has not written, too.
    #[arg(long, requires = "out_dir")]
    pub(crate) force: bool,

    /// How to tell of what is not carried over exactly, or of what --replay finds.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = ConvertReport::Text)]
    pub(crate) report: ConvertReport,

    /// Where to write that, in place of standard error.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) report_file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum ConvertMode {
    /// Fill in and deny.
    Enforce,
    /// Record, warn and audit.
    Audit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConvertFormat {
    /// One stream of documents.
    Yaml,
    /// A List.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConvertReport {
    /// A line for each note.
    Text,
    /// For programs.
    Json,
    /// For reading, by PodSecurityPolicy.
    Markdown,
}

/// Print a script that completes kubectl-harden's command line.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  source <(kubectl-harden completions bash)")]
pub(crate) struct CompletionsArgs {
    /// The shell to print it for.
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Write manual pages, one for each command.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  kubectl-harden man /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// The folder to write them into.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
}

/// Manifests, and what decides what becomes of them.
#[derive(Debug, ClapArgs)]
pub(crate) struct InputArgs {
    /// Manifests: a file, a folder (its .yaml, .yml and .json files), or - for standard input. May be
    /// given several times. Without it standard input is read, if it is not a terminal.
    #[arg(short = 'f', long = "filename", value_name = "FILE", num_args = 1.., value_hint = ValueHint::AnyPath)]
    pub(crate) files: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) policies: PolicyArgs,

    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,

    #[command(flatten)]
    pub(crate) kubernetes: KubernetesArgs,

    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,

    /// Also tell, on standard error, of every default that a guard holds back, and of objects that no
    /// policy is for. Without it: only of those that leave a pod below its policy.
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PolicyArgs {
    /// Policies: files, folders (their .yaml, .yml and .json files), or - for standard input. Namespace,
    /// ServiceAccount and RuntimeClass manifests among them say what the cluster would; a namespace
    /// without one has just its name as a label. Without this option the cluster is asked.
    #[arg(long, value_name = "PATH", num_args = 1.., value_hint = ValueHint::AnyPath)]
    pub(crate) policies: Vec<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct NamespaceArgs {
    /// The namespace of objects that name none. Without it: the kubeconfig context's where the cluster is
    /// asked, else "default".
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
}

/// What the API server is that the pods are for.
#[derive(Debug, ClapArgs)]
pub(crate) struct KubernetesArgs {
    /// The version of Kubernetes that the pods are for, such as 1.33: a field that it does not have is held
    /// back. Without it: that of the cluster where one is asked, else one that has every field.
    #[arg(long, value_name = "VERSION")]
    pub(crate) kubernetes_version: Option<KubernetesVersion>,
}

/// How to reach the cluster, where it is asked.
#[derive(Debug, ClapArgs)]
pub(crate) struct ClusterArgs {
    /// The kubeconfig context to use.
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,

    /// The kubeconfig file to use, in place of the one that $KUBECONFIG names, or ~/.kube/config.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,
}

// === impl Command ===

impl Command {
    /// The exit code for bad input.
    pub(crate) fn failure(&self) -> u8 {
        match self {
            // 1 says that there is a difference.
            Self::Diff(_) => 2,
            Self::Render(_)
            | Self::Explain(_)
            | Self::Audit(_)
            | Self::Lint(_)
            | Self::Test(_)
            | Self::Convert(_)
            | Self::Completions(_)
            | Self::Man(_) => 1,
        }
    }
}
