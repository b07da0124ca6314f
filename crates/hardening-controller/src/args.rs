//! The command line. Every flag is also an environment variable.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args as ClapArgs, CommandFactory as _, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use http::Uri;
use k8s_openapi::jiff::{Span, SpanRelativeTo};

use crate::error::Usage;

mod lead;
mod manage;

pub(crate) use lead::LeadArgs;
pub(crate) use manage::{CertificateArgs, ManageArgs};

/// Fills in the security fields that a pod's author left out, from PodHardeningPolicy and
/// ClusterPodHardeningPolicy objects.
#[derive(Debug, Parser)]
#[command(
    version,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 it did what it was asked to, 1 it could not, 2 wrong usage."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<RunArgs>),
    Manage(Box<ManageArgs>),
    Serve(Box<ServeArgs>),
    /// Print the two CustomResourceDefinitions, for `kubectl apply -f -`.
    Crds,
    /// Print the completions of a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// Watch a cluster's policies and answer its API server's admission reviews.
///
/// It is ready (/readyz) once all policies, namespaces, service accounts and RuntimeClasses are known, and
/// stops being ready after a minute without the API server. It goes on answering from what it knows.
///
/// In a cluster the manifests own the webhook's registration. Out of it, with --webhook-url, the program
/// registers itself once it is ready, and takes the registration back when it ends.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  # In a cluster, beside `hardening-controller manage`, which makes the certificate
  hardening-controller run --service pod-hardening-system/pod-hardening

  # With a certificate that cert-manager made and mounted
  hardening-controller run --service pod-hardening-system/pod-hardening \\
      --tls-cert /tls/tls.crt --tls-key /tls/tls.key

  # On a developer's machine that the API server can reach
  hardening-controller run --kubeconfig kubeconfig --listen 127.0.0.1:9443 \\
      --webhook-url https://127.0.0.1:9443")]
pub(crate) struct RunArgs {
    /// How to reach the API server. Without it: the service account of the pod that this runs in.
    #[arg(long, env = "HARDENING_KUBECONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// The Service by which the API server reaches the webhook. The certificate must be for its name. Unless
    /// it comes from files, it is read from a Secret in the Service's namespace, which `hardening-controller
    /// manage` keeps.
    #[arg(
        long,
        env = "HARDENING_SERVICE",
        value_name = "NAMESPACE/NAME",
        conflicts_with = "webhook_url"
    )]
    pub(crate) service: Option<ServiceName>,

    /// The Secret with the certificate, where it is self-managed: a name in the Service's namespace.
    #[arg(
        long,
        env = "HARDENING_TLS_SECRET",
        value_name = "NAME",
        default_value = SERVING_SECRET,
        requires = "service",
        conflicts_with_all = ["tls_cert", "webhook_url"]
    )]
    pub(crate) tls_secret: String,

    /// The URL by which the API server reaches the webhook, out of the cluster. The program then registers
    /// itself. Without a path it is that of the webhook, /mutate.
    #[arg(long, env = "HARDENING_WEBHOOK_URL", value_name = "URL")]
    pub(crate) webhook_url: Option<WebhookUrl>,

    /// What the API server does with a pod when it cannot reach the webhook: create it as its author wrote
    /// it, or refuse it. For --webhook-url; in a cluster the manifests say so.
    #[arg(
        long,
        env = "HARDENING_FAILURE_POLICY",
        value_enum,
        value_name = "POLICY",
        default_value_t = FailurePolicy::Ignore,
        requires = "webhook_url"
    )]
    pub(crate) failure_policy: FailurePolicy,

    /// Namespaces whose pods are never sent to the webhook, besides kube-system and the program's own. For
    /// --webhook-url; in a cluster the manifests say so.
    #[arg(
        long,
        env = "HARDENING_EXCLUDE_NAMESPACES",
        value_name = "NAMESPACE",
        value_delimiter = ',',
        requires = "webhook_url"
    )]
    pub(crate) exclude_namespaces: Vec<String>,

    /// The name of the MutatingWebhookConfiguration that --webhook-url makes. One of that name that
    /// somebody else made is never touched.
    #[arg(
        long,
        env = "HARDENING_REGISTRATION_NAME",
        value_name = "NAME",
        default_value = "pod-hardening-self-registered",
        requires = "webhook_url"
    )]
    pub(crate) registration_name: String,

    /// The CA that the API server is to trust, in PEM, where the certificate comes from files. Without it the
    /// API server trusts the CAs of its own machine.
    #[arg(
        long,
        env = "HARDENING_TLS_CA",
        value_name = "FILE",
        requires_all = ["tls_cert", "webhook_url"],
        value_hint = ValueHint::FilePath
    )]
    pub(crate) tls_ca: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// How long to serve on after SIGTERM while others notice that this is ending.
    #[arg(long, env = "HARDENING_SHUTDOWN_DELAY", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) shutdown_delay: Duration,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// Answer admission reviews by policies from files, without a cluster.
///
/// For trying out, for tests, and for API servers that are configured from static files. The files are read
/// again when they change; as long as a changed file is not valid, the policies before it stay in force.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  hardening-controller serve --policies policies/ --listen 127.0.0.1:9443
  curl --insecure https://127.0.0.1:9443/mutate -H 'content-type: application/json' -d @review.json")]
pub(crate) struct ServeArgs {
    /// Files, or folders with .yaml, .yml and .json files: policies, and the Namespaces, ServiceAccounts
    /// and RuntimeClasses that they select by. May be given several times. A namespace that is not among
    /// them has just its name as a label, a RuntimeClass that is not is taken to exist.
    #[arg(
        long,
        env = "HARDENING_POLICIES",
        value_name = "PATH",
        required = true,
        num_args = 1..,
        value_delimiter = ',',
        value_hint = ValueHint::AnyPath
    )]
    pub(crate) policies: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// More names and addresses that a certificate made in memory is for, besides localhost and the address
    /// listened on.
    #[arg(
        long,
        env = "HARDENING_TLS_NAMES",
        value_name = "NAME",
        value_delimiter = ',',
        conflicts_with = "tls_cert"
    )]
    pub(crate) tls_names: Vec<String>,

    /// Where to write the CA of a certificate made in memory, in PEM, for clients that want to trust it.
    #[arg(
        long,
        env = "HARDENING_WRITE_CA",
        value_name = "FILE",
        conflicts_with = "tls_cert",
        value_hint = ValueHint::FilePath
    )]
    pub(crate) write_ca: Option<PathBuf>,

    /// How long to serve on after SIGTERM.
    #[arg(long, env = "HARDENING_SHUTDOWN_DELAY", value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub(crate) shutdown_delay: Duration,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ServerArgs {
    /// Where to answer reviews, over HTTPS at /mutate.
    #[arg(
        long,
        env = "HARDENING_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:9443"
    )]
    pub(crate) listen: SocketAddr,

    /// Where to answer probes and scrapes: /livez, /readyz and /metrics.
    #[arg(
        long,
        env = "HARDENING_METRICS_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:8080"
    )]
    pub(crate) metrics_listen: SocketAddr,

    /// Where the certificate comes from. Without it: from files if --tls-cert is given, else it is
    /// self-managed.
    #[arg(long, env = "HARDENING_TLS", value_enum, value_name = "SOURCE")]
    pub(crate) tls: Option<TlsSource>,

    /// The certificate and its chain, in PEM. A renewed file is taken into use.
    #[arg(long, env = "HARDENING_TLS_CERT", value_name = "FILE", requires = "tls_key", value_hint = ValueHint::FilePath)]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The certificate's private key, in PEM.
    #[arg(long, env = "HARDENING_TLS_KEY", value_name = "FILE", requires = "tls_cert", value_hint = ValueHint::FilePath)]
    pub(crate) tls_key: Option<PathBuf>,

    /// The CA of those who may call, in PEM: whoever shows no certificate of it is turned away. The API server
    /// must be configured to show one. A changed file is taken into use. Without it anybody may call.
    #[arg(long, env = "HARDENING_CLIENT_CA", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) client_ca: Option<PathBuf>,

    /// The common names that may call. Without it any that the CA has issued a certificate for.
    #[arg(
        long,
        env = "HARDENING_CLIENT_NAME",
        value_name = "NAME",
        value_delimiter = ',',
        requires = "client_ca"
    )]
    pub(crate) client_name: Vec<String>,

    /// Threads that answer reviews.
    #[arg(long, env = "HARDENING_WORKER_THREADS", value_name = "NUMBER", default_value = "2", value_parser = worker_threads)]
    pub(crate) worker_threads: usize,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct LogArgs {
    /// How log lines are written, on standard error.
    #[arg(long, env = "HARDENING_LOG_FORMAT", value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    /// What is logged.
    #[arg(long, env = "HARDENING_LOG_LEVEL", value_enum, value_name = "LEVEL", default_value_t = LogLevel::Info)]
    pub(crate) log_level: LogLevel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TlsSource {
    /// The product's own. With --service it is in a Secret, which `hardening-controller manage` keeps; else
    /// it is made in memory, and gone with the process.
    SelfManaged,
    /// From --tls-cert and --tls-key.
    Files,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum FailurePolicy {
    /// The pod is created as its author wrote it.
    Ignore,
    /// The pod is refused.
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// What went wrong.
    Error,
    /// And what may.
    Warn,
    /// And what happens.
    Info,
    /// And why.
    Debug,
    /// And how.
    Trace,
}

/// The Secret with the serving certificate, for those who read it and those who write it.
const SERVING_SECRET: &str = "pod-hardening-tls";

/// `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// The URL of the webhook, with its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebhookUrl(Uri);

/// Where the certificate comes from, once all flags are looked at together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    SelfManaged,
    Files { certificate: PathBuf, key: PathBuf },
}

/// Prints a shell's completions.
pub(crate) fn print_completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(
        shell,
        &mut Args::command(),
        "hardening-controller",
        &mut script,
    );
    io::stdout()
        .lock()
        .write_all(&script)
        .context("print the completions")
}

// === impl RunArgs, ServeArgs ===

impl RunArgs {
    /// Whether the flags make sense together, as far as `clap` does not see to it.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let message = match (self.server.tls()?, &self.service, &self.webhook_url) {
            (Tls::SelfManaged, None, None) => {
                "no API server would trust a certificate made in memory: give --service for one that is kept \
                 in a Secret, --tls-cert and --tls-key, or --webhook-url to register it"
            }
            (Tls::SelfManaged, Some(_), _)
            | (Tls::SelfManaged, None, Some(_))
            | (Tls::Files { .. }, _, _) => return Ok(()),
        };
        Err(Usage(message.to_owned()).into())
    }
}

impl ServeArgs {
    /// As [`RunArgs::check`].
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.server.tls()?;
        if self.policies.iter().any(|path| path.as_os_str() == "-") {
            let message = "--policies takes files and folders: \
                           standard input cannot be read again when it changes";
            return Err(Usage(message.to_owned()).into());
        }
        Ok(())
    }
}

impl ServerArgs {
    pub(crate) fn tls(&self) -> anyhow::Result<Tls> {
        let message = match (self.tls, &self.tls_cert, &self.tls_key) {
            (None | Some(TlsSource::Files), Some(certificate), Some(key)) => {
                return Ok(Tls::Files {
                    certificate: certificate.clone(),
                    key: key.clone(),
                });
            }
            (None | Some(TlsSource::SelfManaged), None, _) => return Ok(Tls::SelfManaged),
            (Some(TlsSource::SelfManaged), Some(_), _) => {
                "--tls self-managed and --tls-cert exclude each other"
            }
            (Some(TlsSource::Files), None, _) | (_, Some(_), None) => {
                "--tls files needs --tls-cert and --tls-key"
            }
        };
        Err(Usage(message.to_owned()).into())
    }
}

// === values ===

impl FromStr for ServiceName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if is_label(namespace) && is_label(name) => Ok(Self {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            _ => Err("it must be a namespace and a name, as in system/webhook"),
        }
    }
}

/// As a namespace's or a Service's name must be.
fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !name.is_empty()
        && name.len() <= 63
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl ServiceName {
    /// The name by which API servers call it.
    pub(crate) fn dns_name(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }
}

impl FromStr for WebhookUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
        let has_user = uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'));
        if uri.scheme_str() != Some("https") || uri.host().is_none_or(str::is_empty) {
            return Err("it must be an https URL with a host".to_owned());
        }
        if has_user || uri.query().is_some() || text.contains('#') {
            return Err("the API server takes no user, query or fragment in it".to_owned());
        }
        match uri.path() {
            "" | "/" => {
                let base = text.trim_end_matches('/');
                format!("{base}{}", hardening_webhook::router::PATH)
                    .parse()
                    .map(Self)
                    .map_err(|error| format!("{error}"))
            }
            hardening_webhook::router::PATH => Ok(Self(uri)),
            _ => Err(format!(
                "the webhook's path is {}",
                hardening_webhook::router::PATH
            )),
        }
    }
}

impl WebhookUrl {
    /// The host's name or address, which the certificate must be for.
    pub(crate) fn host(&self) -> String {
        self.0
            .host()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned()
    }
}

impl std::fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A time as people write it: `10s`, `1m30s`, `500ms`, `90d`.
fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let span: Span = text.parse().map_err(|error| format!("{error}"))?;
    let parsed = span.to_duration(SpanRelativeTo::days_are_24_hours());
    let parsed = parsed.map_err(|error| format!("{error}"))?;
    Duration::try_from(parsed).map_err(|_| "it must not be negative".to_owned())
}

fn worker_threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads) if (1..=1024).contains(&threads) => Ok(threads),
        _ => Err("it must be a number from 1 to 1024".to_owned()),
    }
}
