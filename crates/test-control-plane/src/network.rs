//! The addresses of one control plane's Services and pods.
//!
//! No other control plane on this machine has them, as the port of the API server is in them.
//!
//! Nothing routes the addresses of Services here. One of them works all the same: the Service `kubernetes`,
//! by which pods find the API server, has the first address of the Services' range, and that is also the
//! gateway of the pods' network, this machine's end of each pod's cable. What listens there is what pods reach
//! ([`Relay`](crate::Relay)).

use std::net::{Ipv4Addr, SocketAddrV4};

/// The port of the Service `kubernetes`.
const KUBERNETES: u16 = 443;

/// The network of one control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    /// The port of the API server.
    port: u16,
}

impl Network {
    pub(crate) fn of_port(port: u16) -> Self {
        Self { port }
    }

    /// The range of the Services, as the API server takes it.
    pub(crate) fn services(self) -> String {
        format!("{}/25", self.address(0))
    }

    /// The range that pods and Services share.
    pub(crate) fn pods(self) -> String {
        format!("{}/24", self.address(0))
    }

    /// The first address that a pod can have: those before it are for Services.
    pub(crate) fn first_pod(self) -> Ipv4Addr {
        self.address(128)
    }

    /// Where pods find the API server.
    pub(crate) fn kubernetes(self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address(1), KUBERNETES)
    }

    fn address(self, last: u8) -> Ipv4Addr {
        let [high, low] = self.port.to_be_bytes();
        Ipv4Addr::new(10, high, low, last)
    }
}
