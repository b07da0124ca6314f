//! A port that stays ours from before its server starts until after it ended.
//!
//! The usual way, to bind port 0, note the number and close, leaves a gap in which anybody may take
//! the port; so does every restart of the server. Here the socket stays open: bound, never
//! listening, with `SO_REUSEPORT`. The kernel hands the port to nobody who does not set that option
//! too; kube-apiserver does with `--permit-port-sharing`. Connections only ever go to a socket that
//! listens, so while the server is down they are refused as they should be.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

use crate::Error;

/// A port of 127.0.0.1, held while this value lives.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    _socket: Socket,
    number: u16,
}

impl ReservedPort {
    /// Reserves a port of the kernel's choice.
    pub(crate) fn reserve() -> Result<Self, Error> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let bind = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_port(true)?;
            socket.bind(&any.into())?;
            let number = socket
                .local_addr()?
                .as_socket()
                .map_or(0, |address| address.port());
            Ok(Self {
                _socket: socket,
                number,
            })
        };
        bind().map_err(Error::Port)
    }

    /// The port's number.
    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn nobody_else_gets_the_port_and_nobody_listens_on_it() {
        let port = ReservedPort::reserve().unwrap();
        let address = (Ipv4Addr::LOCALHOST, port.number());
        assert_eq!(
            TcpListener::bind(address).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        assert_eq!(
            TcpStream::connect(address).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[test]
    fn a_server_that_shares_ports_can_come_and_go() {
        let port = ReservedPort::reserve().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        for _ in 0..2 {
            let server = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            server.set_reuse_port(true).unwrap();
            server.bind(&address.into()).unwrap();
            server.listen(1).unwrap();
            TcpStream::connect(address).unwrap();
        }
    }
}
