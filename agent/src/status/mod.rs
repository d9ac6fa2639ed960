//! What the agent tells the cluster: the NodeState of its node, and Events.
//!
//! Owner of a client of its own, and of what it wrote last. Inputs, only looked at: what the main task publishes, the
//! sessions, BFD. Output: writes to the API server, when something has changed in substance and never more often than
//! [`pace`] says. Nothing waits for it and nothing on the wire comes of it: an API server that is away, refuses, or
//! does not know the kind costs a line in the log and is asked again later. Cancelling [`run`] leaves what is written.
pub(crate) mod conditions;
mod events;
mod node_state;
mod pace;
mod server;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use plainroute_config::NodeStateStatus;
use tokio::time::{sleep, sleep_until};

use crate::{
    admin::{Access, Desk, Published, view::PeerView},
    ipam,
    source::kubernetes::Settings,
};
use events::{Memory, Queue};
use pace::{Pace, Weight};
use server::Server;

/// What changes within this time is looked at once.
const GATHER: Duration = Duration::from_millis(500);
/// How long a process that is not ready yet says nothing: what it could say is over a moment later.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long after its start a session that was up before may take to be up again without being news: for so long routers
/// wait for an agent that restarts, unless they are asked for another time.
const RESTART: Duration = Duration::from_secs(120);

/// What is told, at one time.
#[derive(Clone, Debug)]
struct Seen {
    published: Arc<Published>,
    peers: Vec<PeerView>,
    /// What the task that gives addresses out tells.
    ipam: Arc<ipam::Told>,
}

/// Tells until nobody publishes any more.
pub(crate) async fn run(settings: Settings, access: Access) {
    let mut published = access.published.clone();
    let mut sessions = access.speaker.peers();
    let mut bfd = access.bfd.clone();
    let mut desk = access.ipam.clone();
    let mut told = Told::new(Server::new(settings), Instant::now());
    loop {
        tokio::select! {
            changed = published.changed() => if changed.is_err() { return },
            changed = sessions.changed() => if changed.is_err() { return },
            Ok(()) = bfd.changed() => {}
            () = ipam::told_changed(&mut desk) => {}
            () = sleep_until(told.poll_timeout().into()) => {}
        }
        sleep(GATHER).await;
        let state = Arc::clone(&published.borrow_and_update());
        sessions.mark_unchanged();
        bfd.mark_unchanged();
        let ipam = access.ipam.as_ref().map(Desk::told).unwrap_or_default();
        let seen = Seen { published: state, peers: access.peers(), ipam };
        told.handle_seen(&seen, Instant::now());
        told.carry_out(&seen).await;
    }
}

/// What was told, and what is to be.
struct Told {
    server: Server,
    started: Instant,
    /// The status as the API server has it; unknown before the object was made or found.
    written: Option<NodeStateStatus>,
    /// The UID of the Node that the object belongs to.
    owner: Option<String>,
    pace: Pace,
    memory: Memory,
    events: Queue,
}

impl Told {
    fn new(server: Server, now: Instant) -> Told {
        Told {
            server,
            started: now,
            written: None,
            owner: None,
            pace: Pace::new(now),
            memory: Memory::waiting(),
            events: Queue::new(now),
        }
    }

    /// When there is something to do although nothing changes.
    fn poll_timeout(&self) -> Instant {
        let due = self.pace.poll_timeout().into_iter().chain(self.events.poll_timeout()).min();
        let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        self.server.retry_at().map_or(due, |retry_at| due.max(retry_at))
    }

    fn handle_seen(&mut self, seen: &Seen, now: Instant) {
        let Published { node_uid, .. } = &*seen.published;
        if !seen.published.is_ready() && now < self.started + PATIENCE {
            self.pace.handle(Weight::Nothing, now, 0.0);
            return;
        }
        if now > self.started + RESTART {
            self.memory.forget_sessions();
        }
        self.events.extend(self.memory.handle_seen(seen));
        let weight = match (&self.written, node_uid) {
            // A Node that the API server does not have has no state there: nothing would ever take it away.
            (_, None) => Weight::Nothing,
            (Some(_), uid) if *uid != self.owner => Weight::Transition,
            (Some(written), Some(_)) => {
                pace::weight(written, &node_state::compose(seen, written, Timestamp::now()))
            }
            (None, Some(_)) => Weight::Transition,
        };
        self.pace.handle(weight, now, fastrand::f64());
    }

    /// Writes what is due. A failure leaves it due, and the server is left alone for a while.
    async fn carry_out(&mut self, seen: &Seen) {
        let now = Instant::now();
        if self.server.retry_at().is_some_and(|retry_at| now < retry_at) {
            return;
        }
        if self.pace.is_due(now) && self.write(seen).await {
            self.pace.handle_written(Instant::now());
        }
        // Where there is no NodeState, nobody has told anything by it.
        if self.memory.waits() && (self.server.refuses() || seen.published.node_uid.is_none()) {
            self.memory.handle_found(&NodeStateStatus::default());
            self.events.extend(self.memory.handle_seen(seen));
        }
        let uid = seen.published.node_uid.as_deref();
        while let Some(event) = self.events.poll(Instant::now()) {
            if !self.server.publish(&event, uid).await {
                self.events.put_back(event);
                return;
            }
        }
    }

    /// True where the NodeState stands as it should.
    async fn write(&mut self, seen: &Seen) -> bool {
        let Some(uid) = &seen.published.node_uid else { return true };
        if self.written.is_none() || self.owner.as_ref() != Some(uid) {
            let Some(status) = self.server.make_node_state(uid).await else { return false };
            if self.memory.waits() {
                self.memory.handle_found(&status);
                self.events.extend(self.memory.handle_seen(seen));
            }
            self.written = Some(status);
            self.owner = Some(uid.clone());
        }
        let before = self.written.take().unwrap_or_default();
        let status = node_state::compose(seen, &before, Timestamp::now());
        let stands = status == before || self.server.write_status(&status).await;
        // After a failure nobody knows what is there: whoever reads it next is told.
        self.written = stands.then_some(status);
        stands
    }
}
