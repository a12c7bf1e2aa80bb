//! Who is connected, and who has to go when there is no room.
//!
//! A connection costs a client nothing and us a file descriptor, so their number is limited: in all, and
//! for each peer, which is an IPv4 address or an IPv6 network of 64 bits, for that is what one host is
//! given. Where a limit is reached, the connection that has been idle for longest makes room: of the
//! newcomer's peer, or of the peer that has the most. Idle is a connection without a request: silent, in
//! the middle of a head, or between two requests. One with a request is never closed for another's sake.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// All connections.
pub(super) struct Connections {
    most: usize,
    most_of_peer: usize,
    table: Mutex<Table>,
    /// Counts what happens, so that what is idle has an order.
    turns: AtomicU64,
    ended: Notify,
}

#[derive(Default)]
struct Table {
    all: usize,
    peers: HashMap<IpAddr, Vec<Arc<Seat>>>,
}

/// What becomes of a newcomer.
pub(super) enum Admission {
    /// It may stay.
    Seated(Guest),
    /// Its peer has as many requests at once as it may have.
    PeerIsFull,
    /// There is no room: it is worth another try when a connection has ended.
    Full,
}

impl Connections {
    /// No more than `most`, and of one peer no more than `most_of_peer`.
    pub(super) fn new(most: usize, most_of_peer: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_peer,
            table: Mutex::default(),
            turns: AtomicU64::new(1),
            ended: Notify::new(),
        })
    }

    /// Makes room for a connection from `address`, if it can be made.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Admission {
        let peer = peer_of(address);
        let mut table = self.table();
        let of_peer = table.peers.get(&peer).map_or(0, Vec::len);
        if of_peer >= self.most_of_peer && !table.make_room(peer) {
            return Admission::PeerIsFull;
        }
        if table.all >= self.most && !table.make_room_anywhere() {
            return Admission::Full;
        }
        let seat = Arc::new(Seat {
            idle_since: AtomicU64::new(self.turn()),
            leave: CancellationToken::new(),
        });
        table.all += 1;
        table.peers.entry(peer).or_default().push(seat.clone());
        Admission::Seated(Guest {
            connections: self.clone(),
            peer,
            seat,
        })
    }

    /// Waits until a connection has ended, or become idle, since the last call.
    pub(super) async fn changed(&self) {
        self.ended.notified().await;
    }

    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Has the connection of `peer` leave that has been idle for longest; says whether there was one.
    fn make_room(&mut self, peer: IpAddr) -> bool {
        let seats = self.peers.get(&peer).into_iter().flatten();
        let idle = seats.filter_map(|seat| Some((seat.idle_since()?, seat.clone())));
        let Some((_, longest)) = idle.min_by_key(|(since, _)| *since) else {
            return false;
        };
        longest.leave.cancel();
        self.remove(peer, &longest);
        true
    }

    /// The same of the peer that has the most connections of those that have an idle one.
    fn make_room_anywhere(&mut self) -> bool {
        let mut peers: Vec<_> = self
            .peers
            .iter()
            .map(|(peer, of)| (of.len(), *peer))
            .collect();
        peers.sort_unstable_by(|a, b| b.cmp(a));
        peers.into_iter().any(|(_, peer)| self.make_room(peer))
    }

    fn remove(&mut self, peer: IpAddr, seat: &Arc<Seat>) {
        let Some(seats) = self.peers.get_mut(&peer) else {
            return;
        };
        let before = seats.len();
        seats.retain(|other| !Arc::ptr_eq(other, seat));
        self.all -= before - seats.len();
        if seats.is_empty() {
            self.peers.remove(&peer);
        }
    }
}

/// What is counted as one peer.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    }
}

struct Seat {
    /// The turn at which it became idle; 0 while it has a request.
    idle_since: AtomicU64,
    leave: CancellationToken,
}

impl Seat {
    fn idle_since(&self) -> Option<u64> {
        Some(self.idle_since.load(Ordering::Relaxed)).filter(|since| *since > 0)
    }
}

/// A connection's place among the others. It is free again when this is dropped.
pub(super) struct Guest {
    connections: Arc<Connections>,
    peer: IpAddr,
    seat: Arc<Seat>,
}

impl Guest {
    /// A request begins.
    pub(super) fn begin(&self) {
        self.seat.idle_since.store(0, Ordering::Relaxed);
    }

    /// The answer has gone out.
    pub(super) fn rest(&self) {
        let turn = self.connections.turn();
        self.seat.idle_since.store(turn, Ordering::Relaxed);
        self.connections.ended.notify_one();
    }

    /// Has it a request?
    pub(super) fn is_busy(&self) -> bool {
        self.seat.idle_since().is_none()
    }

    /// Waits until it has to make room.
    pub(super) async fn has_to_leave(&self) {
        self.seat.leave.cancelled().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.connections.table().remove(self.peer, &self.seat);
        self.connections.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seated(connections: &Arc<Connections>, address: &str) -> Guest {
        match connections.admit(address.parse().unwrap()) {
            Admission::Seated(guest) => guest,
            Admission::PeerIsFull => panic!("the peer is full"),
            Admission::Full => panic!("full"),
        }
    }

    fn left(guest: &Guest) -> bool {
        guest.seat.leave.is_cancelled()
    }

    #[test]
    fn the_one_that_was_idle_for_longest_makes_room_for_its_own_peer() {
        let connections = Connections::new(100, 3);
        let [a, b, c] = ["10.0.0.1"; 3].map(|address| seated(&connections, address));
        let other = seated(&connections, "10.0.0.2");
        // It asked since: the second is idle for longer.
        a.begin();
        a.rest();
        let _d = seated(&connections, "::ffff:10.0.0.1");
        assert_eq!([&a, &b, &c, &other].map(left), [false, true, false, false]);
        // It ends only after it was sent away, and does not count twice.
        drop(b);
        let _e = seated(&connections, "10.0.0.1");
        assert_eq!([&a, &c, &other].map(left), [false, true, false]);
        assert_eq!(connections.table().all, 4);
    }

    #[test]
    fn a_peer_whose_connections_all_have_a_request_gets_no_more() {
        let connections = Connections::new(100, 2);
        let [a, b] = ["2001:db8::1", "2001:db8::2"].map(|address| seated(&connections, address));
        a.begin();
        b.begin();
        let third = connections.admit("2001:db8::3".parse().unwrap());
        assert!(matches!(third, Admission::PeerIsFull));
        let _next = seated(&connections, "2001:db8:0:1::1");
        b.rest();
        let _third = seated(&connections, "2001:db8::3");
        assert_eq!([&a, &b].map(left), [false, true]);
    }

    #[test]
    fn who_has_the_most_makes_room_when_all_places_are_taken() {
        let connections = Connections::new(4, 3);
        let a = seated(&connections, "10.0.0.1");
        let [b, c, d] = ["10.0.0.2"; 3].map(|address| seated(&connections, address));
        let _e = seated(&connections, "10.0.0.3");
        assert_eq!([&a, &b, &c, &d].map(left), [false, true, false, false]);
        for guest in [&a, &c, &d, &_e] {
            guest.begin();
        }
        let none = connections.admit("10.0.0.4".parse().unwrap());
        assert!(matches!(none, Admission::Full));
        drop(d);
        let _f = seated(&connections, "10.0.0.4");
        assert!(!left(&a));
    }

    #[test]
    fn nothing_is_kept_of_peers_that_are_gone() {
        let connections = Connections::new(4, 3);
        drop(seated(&connections, "10.0.0.1"));
        assert!(connections.table().peers.is_empty());
        assert_eq!(connections.table().all, 0);
    }
}
