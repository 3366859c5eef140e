//! DIMSE: what a PACS or a modality sends over an association → the service that stores it.
//!
//! Each association is a task of its own and waits for nobody else's; how many there are is bounded in all and a host.
//! A connection holds its place from its first byte on, so that silent ones are bounded, too; who finds no place is told
//! "local limit exceeded, try again" (PS3.8 table 9-21).
//! Beyond loopback it listens only with a list of the application entities that may call.
//! It asks for no asynchronous operations and grants none: one message at a time a side.
//!
//! It verifies (C-ECHO), stores (C-STORE), is queried (C-FIND), gives back what is stored (C-MOVE, C-GET) and commits to
//! it (storage commitment).
//!
//! Source: PS3.4 annexes A, B, C and J; PS3.7 sections 8 and 9.

mod commitment;
mod query;
mod retrieve;
mod rules;
mod service;
mod store;

pub use rules::{Caller, CallerError};

use crate::{
    archive::Archive,
    association::{AssociationError, Link, Timeouts, Wire, requestor::Peer, tls::Listening},
    db::Db,
    domain::failure::FailureClass,
    receive::Receiver,
};
use rules::Entrance;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

/// Associations at once, when nobody says otherwise: more than the modalities and PACS of a hospital that send heads.
pub const DEFAULT_ASSOCIATIONS: usize = 32;
/// Connections that are told that there is no place, at once; further ones are closed without a word.
const TURNED_AWAY_AT_ONCE: usize = 16;
/// How long a connection that finds no place has to say what it wants.
const TURNED_AWAY_WITHIN: Duration = Duration::from_secs(5);
/// A rejected caller gets one row in the trail in this time, however often it tries.
const REJECTION_COVERS: Duration = Duration::from_secs(600);
/// Rejected callers that are remembered for that.
const REJECTIONS_REMEMBERED: usize = 1000;
/// Pause after accepting failed, which means that file descriptors ran out.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Why the listener cannot be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DimseError {
    /// Everybody could call.
    #[error(
        "--dimse {0} is not loopback: name the application entities that may call with --dimse-allow TITLE or TITLE@ADDRESS"
    )]
    NotLoopback(SocketAddr),
    /// Not an AE title.
    #[error("--aet takes an application entity title of 1 to 16 characters without a backslash")]
    Title,
}

impl DimseError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        FailureClass::Input
    }
}

/// How the listener behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our application entity title.
    pub title: String,
    /// Who may call; empty means everybody, which is for loopback only.
    pub allowed: Vec<Caller>,
    /// Associations at once; a host gets half of them.
    pub associations: usize,
    /// How long a peer is waited for.
    pub timeouts: Timeouts,
    /// TLS, for all that call; without, nothing is encrypted.
    pub tls: Option<Listening>,
    /// The application entities that instances may be sent to.
    pub peers: Vec<Peer>,
}

impl Settings {
    /// Who is called by this title.
    #[must_use]
    pub fn peer(&self, title: &str) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.title == title)
    }

    /// Checks that they go together with the address to listen on.
    ///
    /// # Errors
    /// When the title is none, or everybody could call from elsewhere.
    pub fn check(&self, listen: SocketAddr) -> Result<(), DimseError> {
        if !crate::association::requestor::is_title(&self.title) {
            return Err(DimseError::Title);
        }
        if !listen.ip().is_loopback() && self.allowed.is_empty() {
            return Err(DimseError::NotLoopback(listen));
        }
        Ok(())
    }
}

/// The service class provider; clones share everything.
#[derive(Debug, Clone)]
pub struct Provider {
    db: Db,
    archive: Archive,
    receiver: Receiver,
    settings: Arc<Settings>,
    rejected: Arc<Mutex<HashMap<(String, IpAddr), Instant>>>,
}

impl Provider {
    /// A provider that has not heard anything yet.
    #[must_use]
    pub fn new(db: Db, archive: Archive, receiver: Receiver, settings: Settings) -> Self {
        Self {
            db,
            archive,
            receiver,
            settings: Arc::new(settings),
            rejected: Arc::default(),
        }
    }

    /// Answers associations until `stopped` says so; then it lets messages under way come to their end.
    pub async fn run(self, listener: TcpListener, stopped: watch::Receiver<bool>) {
        let places = Arc::new(Places::new(self.settings.associations));
        let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_AT_ONCE));
        let mut tasks = JoinSet::new();
        let mut stop = stopped.clone();
        let reporting = tokio::spawn(self.clone().report(stopped.clone()));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = service::is_stopped(&mut stop) => break,
                Some(_) = tasks.join_next() => continue,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            match places.take(address.ip()) {
                Some(place) => {
                    let (provider, stopped) = (self.clone(), stopped.clone());
                    tasks.spawn(async move {
                        provider.connection(stream, address, stopped).await;
                        drop(place);
                    });
                }
                None => {
                    tracing::warn!(address = %address.ip(), "too many associations: one is turned away");
                    if let Ok(turn) = turned_away.clone().try_acquire_owned() {
                        let provider = self.clone();
                        tasks.spawn(async move {
                            provider.turn_away(stream, address).await;
                            drop(turn);
                        });
                    }
                }
            }
        }
        drop(listener);
        while tasks.join_next().await.is_some() {}
        if reporting.await.is_err() {
            tracing::error!(
                "the sender of reports of storage commitment ended early; this is a fault of ictus"
            );
        }
    }

    async fn connection(&self, stream: TcpStream, address: SocketAddr, stopped: watch::Receiver<bool>) {
        // Small answers go out at once.
        let _delayed = stream.set_nodelay(true);
        let within = self.settings.timeouts.establish;
        let wire = match self.wire(stream, within).await {
            Ok(wire) => wire,
            Err(error) => {
                tracing::warn!(%error, address = %address.ip(), "an association did not come about");
                return;
            }
        };
        let link = Link::new(wire, self.settings.timeouts);
        service::Service::serve(self, link, address, stopped).await;
    }

    /// What carries the association: the connection, or TLS on it.
    async fn wire(&self, stream: TcpStream, within: Duration) -> Result<Wire, AssociationError> {
        let Some(tls) = &self.settings.tls else {
            return Ok(Box::new(stream));
        };
        let shaken = tokio::time::timeout(within, tls.accept(stream)).await;
        shaken.unwrap_or(Err(AssociationError::Timeout {
            doing: "to shake hands",
            seconds: within.as_secs(),
        }))
    }

    /// Says that there is no place.
    async fn turn_away(&self, stream: TcpStream, address: SocketAddr) {
        let timeouts = Timeouts {
            establish: TURNED_AWAY_WITHIN,
            ..self.settings.timeouts
        };
        let Ok(wire) = self.wire(stream, TURNED_AWAY_WITHIN).await else {
            return;
        };
        let link = Link::new(wire, timeouts);
        let entrance = Entrance::full(&self.settings, address.ip());
        // It always fails: that is what it is for.
        let _refused = crate::association::acceptor::accept(link, &entrance).await;
    }

    /// Whether this rejection is to be written into the trail, or one like it was a short while ago.
    fn is_new_rejection(&self, calling: &str, address: IpAddr) -> bool {
        let mut rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        rejected.retain(|_, at| at.elapsed() < REJECTION_COVERS);
        if rejected.len() >= REJECTIONS_REMEMBERED {
            return false;
        }
        rejected
            .insert((calling.to_owned(), address), Instant::now())
            .is_none()
    }
}

/// Places for associations, in all and a host.
#[derive(Debug)]
struct Places {
    most: usize,
    most_a_host: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

impl Places {
    fn new(most: usize) -> Self {
        let most = most.max(1);
        Self {
            most,
            most_a_host: most.div_ceil(2),
            taken: Mutex::default(),
        }
    }

    fn take(self: &Arc<Self>, host: IpAddr) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= self.most {
            return None;
        }
        let count = taken.entry(host).or_default();
        if *count >= self.most_a_host {
            return None;
        }
        *count += 1;
        Some(Place {
            places: self.clone(),
            host,
        })
    }
}

/// A taken place; dropped, it is free again.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    host: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_host_gets_all_places() {
        let places = Arc::new(Places::new(4));
        let (one, two): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let held = [places.take(one), places.take(one)];
        assert!(held.iter().all(Option::is_some));
        assert!(places.take(one).is_none());
        let other = places.take(two);
        assert!(other.is_some());
        drop(held);
        assert!(places.take(one).is_some());
        assert_eq!(places.taken.lock().unwrap().get(&one), None);
    }
}
