//! The way from a node's pods to the API server, which can be cut and silenced.
//!
//! It listens where pods look for the API server, and passes on what it hears. So it is also where a test makes
//! happen what networks do to connections: [`cut`](Relay::cut) ends them as a restarted router would, and
//! [`silence`](Relay::silence) leaves them open while nothing passes any more, as a link that drops packets does.

use std::net::{SocketAddr, SocketAddrV4};

use socket2::{Domain, Socket, Type};
use tokio::{
    io,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{ControlPlane, Error};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// A relay from the Service `kubernetes` to the API server. It ends, with its connections, when it is dropped.
#[derive(Debug)]
pub struct Relay {
    /// What becomes of connections now.
    state: watch::Sender<State>,
    _task: AbortOnDropHandle<()>,
}

/// What becomes of connections.
#[derive(Debug, Clone)]
struct State {
    /// Whether anything passes.
    is_silent: bool,
    /// Whose cancelling ends the connections of this moment.
    cut: CancellationToken,
}

impl Relay {
    /// Lets pods reach the API server of a control plane, from now on. The address comes with the first pod;
    /// it needs root, as a [node](crate::Node) does.
    pub fn start(control_plane: &ControlPlane) -> Result<Self, Error> {
        let address = control_plane.network().kubernetes();
        let listener = listen(address).map_err(|source| Error::Relay { address, source })?;
        let server = SocketAddr::from(([127, 0, 0, 1], control_plane.port()));
        Ok(Self::between(listener, server))
    }

    fn between(listener: TcpListener, server: SocketAddr) -> Self {
        let (state, seen) = watch::channel(State {
            is_silent: false,
            cut: CancellationToken::new(),
        });
        let task = tokio::spawn(accept(listener, server, seen));
        Self {
            state,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// Ends all connections; new ones can be made.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.cut.cancel();
            state.cut = CancellationToken::new();
        });
    }

    /// Lets nothing pass from now on. Connections stay open, and new ones are taken and get no answer.
    pub fn silence(&self) {
        self.state.send_modify(|state| state.is_silent = true);
    }

    /// Lets new connections pass again. Those that were silenced end: what was sent on them is lost.
    pub fn heal(&self) {
        self.cut();
        self.state.send_modify(|state| state.is_silent = false);
    }
}

/// Listens on an address that this machine need not have yet.
fn listen(address: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_freebind_v4(true)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from(address).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn accept(listener: TcpListener, server: SocketAddr, state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A client that went away before it was accepted is no reason to end.
                if let Ok((client, _)) = accepted {
                    connections.spawn(relay(client, server, state.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Passes on what either side sends, until one ends, or the connection is cut. While it is silent nothing is read,
/// so that what is sent waits as it does where packets are lost.
async fn relay(mut client: TcpStream, server: SocketAddr, mut state: watch::Receiver<State>) {
    let cut = state.borrow().cut.clone();
    let passing = async {
        // An API server that is away refuses, and so does the relay then, by ending the connection.
        if state.wait_for(|state| !state.is_silent).await.is_err() {
            return;
        }
        let Ok(mut server) = TcpStream::connect(server).await else {
            return;
        };
        let silenced = async {
            let _ = state.wait_for(|state| state.is_silent).await;
        };
        tokio::select! {
            biased; // so that nothing more passes once it is silent
            // Both ends stay open until the cut that heals.
            () = silenced => std::future::pending().await,
            _ = io::copy_bidirectional(&mut client, &mut server) => {}
        }
    };
    tokio::select! {
        () = passing => {}
        () = cut.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A relay to a server that sends back what it hears, and where the relay is.
    async fn relay_to_echo() -> (Relay, SocketAddr) {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = echo.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut client, _) = echo.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut read, mut write) = client.split();
                    io::copy(&mut read, &mut write).await
                });
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Relay::between(listener, server), address)
    }

    /// What comes back for what is sent; empty where the connection ends.
    async fn ask(client: &mut TcpStream, question: &str) -> String {
        client.write_all(question.as_bytes()).await.unwrap();
        rest(client).await
    }

    async fn rest(client: &mut TcpStream) -> String {
        let mut answer = [0; 64];
        let read = client.read(&mut answer);
        let read = tokio::time::timeout(Duration::from_secs(30), read).await;
        // A connection that was reset has ended too.
        let length = read.expect("nothing came within 30s").unwrap_or(0);
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }

    #[tokio::test]
    async fn what_is_cut_ends_and_can_be_made_anew() {
        let (relay, address) = relay_to_echo().await;
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut client, "one").await, "one");
        relay.cut();
        assert_eq!(rest(&mut client).await, "");
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut client, "two").await, "two");
    }

    #[tokio::test]
    async fn what_is_sent_into_silence_never_arrives() {
        let (relay, address) = relay_to_echo().await;
        let mut before = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut before, "one").await, "one");
        relay.silence();
        before.write_all(b"lost").await.unwrap();
        let mut during = TcpStream::connect(address).await.unwrap();
        during.write_all(b"lost too").await.unwrap();
        relay.heal();
        assert_eq!(rest(&mut before).await, "");
        // It was taken at the latest when what follows it is.
        let mut after = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut after, "two").await, "two");
    }

    #[tokio::test]
    async fn it_listens_on_an_address_that_is_not_there_yet() {
        // Of the range for documentation, which no machine has.
        listen(SocketAddrV4::new([192, 0, 2, 1].into(), 54321)).unwrap();
    }

    #[tokio::test]
    async fn it_ends_with_its_value() {
        let (relay, address) = relay_to_echo().await;
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut client, "one").await, "one");
        drop(relay);
        assert_eq!(rest(&mut client).await, "");
    }
}
