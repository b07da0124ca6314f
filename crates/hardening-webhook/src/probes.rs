//! The server of probes and scrapes, over plain HTTP: beside the webhook, and in programs that answer no
//! reviews.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::connection::{Activity, End, Patience, Watched, drive};
use crate::limits::{Limits, Shutdown};
use crate::listener::{accept, http1};
use crate::server::{ServeError, bind};

/// What is shown of the program, with the address to show it on.
#[derive(Debug)]
pub struct BoundProbes {
    listener: TcpListener,
    address: SocketAddr,
    admin: Admin,
}

/// Serves one connection after another.
#[derive(Clone)]
struct Connections {
    admin: Admin,
    limits: Limits,
    stop: CancellationToken,
}

// === impl BoundProbes ===

impl BoundProbes {
    /// Binds the address at which `admin` will answer. Port 0 takes any port that is free.
    ///
    /// # Errors
    ///
    /// Where the address cannot be had.
    pub async fn bind(address: SocketAddr, admin: Admin) -> Result<Self, ServeError> {
        let (listener, address) = bind(address, "health and metrics").await?;
        Ok(Self {
            listener,
            address,
            admin,
        })
    }

    /// Where probes and scrapes are answered.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`, and then ends when the answers under way are given.
    pub async fn run(self, stop: CancellationToken) {
        self.serve(Limits::default(), Shutdown::default(), stop, || {})
            .await;
    }

    /// As [`run`](Self::run), within these limits; `panicked` is called where a connection ends by a defect.
    pub(crate) async fn serve(
        self,
        limits: Limits,
        ending: Shutdown,
        stop: CancellationToken,
        panicked: impl Fn(),
    ) {
        let Self {
            listener,
            address: _,
            admin,
        } = self;
        let connections = Connections {
            admin,
            limits,
            stop: stop.clone(),
        };
        let most = limits.metrics_connections;
        accept(listener, most, ending.drain, &stop, panicked, |stream| {
            connections.clone().serve(stream)
        })
        .await;
    }
}

// === impl Connections ===

impl Connections {
    async fn serve(self, stream: TcpStream) {
        let Self {
            admin,
            limits,
            stop,
        } = self;
        let activity = Activity::new();
        let service = {
            let activity = Arc::clone(&activity);
            service_fn(move |request: Request<Incoming>| {
                let _request = activity.request();
                let response = admin.respond(&request);
                async move { Ok::<_, Infallible>(response) }
            })
        };
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
        let connection = http1().serve_connection(io, service);
        let patience = Patience {
            header: limits.header,
            idle: limits.idle,
        };
        if let End::Broken(error) = drive(connection, &activity, patience, &stop).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a probe's connection broke"
            );
        }
    }
}
