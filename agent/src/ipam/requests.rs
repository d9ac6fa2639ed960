//! The plugin's requests on their way into the core: who waits for which answer, and for which Pods the sources are waited.
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use plainroute_blocks::{Add, Attachment, Holder, Holdings, Input, Refusal, Ticket};
use plainroute_cni::{
    error::code,
    protocol::{Command, Failure, Pod, Reply},
};
use tokio::sync::oneshot;

use super::{Release, known::Known, socket::Asked};
use std::net::IpAddr;

/// For how long an ADD may wait, for its Pod to be heard of and for an address. Less than the plugin waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// Those under way.
#[derive(Default)]
pub(super) struct Requests {
    next: u64,
    replies: BTreeMap<Ticket, oneshot::Sender<Reply>>,
    releases: BTreeMap<Ticket, oneshot::Sender<Result<(), String>>>,
    /// Not yet in the core, in the order in which they came.
    waiting: VecDeque<Waiting>,
    /// The network of each interface that has asked: a GC is about one network.
    networks: BTreeMap<Attachment, String>,
}

struct Waiting {
    asked: Asked,
    until: Instant,
}

impl Requests {
    pub(super) fn take(&mut self, asked: Asked, now: Instant) {
        // The later request of an interface counts: whoever asked before it has gone.
        if let Some(attachment) = attachment_of(&asked.request.command) {
            let replaced = |one: &Waiting| attachment_of(&one.asked.request.command) == Some(attachment);
            self.waiting.retain(|one| !replaced(one));
        }
        self.waiting.push_back(Waiting { asked, until: now + PATIENCE });
    }

    /// When one that waits is to be told that it has waited long enough.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.iter().map(|one| one.until).min()
    }

    /// The next request that can go in.
    pub(super) fn next_input(&mut self, known: &Known, holdings: &Holdings, now: Instant) -> Option<Input> {
        let mut place = 0;
        while let Some(one) = self.waiting.get(place) {
            match judge(&one.asked.request.command, known, holdings, now, one.until) {
                Fate::Wait => place += 1,
                Fate::Refuse(reply) => {
                    if let Some(one) = self.waiting.remove(place) {
                        let _ = one.asked.reply.send(reply);
                    }
                }
                Fate::Go(add) => {
                    let one = self.waiting.remove(place)?;
                    return Some(self.begin(one.asked, add, holdings));
                }
            }
        }
        None
    }

    /// A person gives an address back.
    pub(super) fn release(&mut self, release: Release) -> Input {
        let ticket = self.ticket();
        self.releases.insert(ticket, release.answer);
        Input::Release(ticket, release.address, release.confirm)
    }

    fn ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        ticket
    }

    fn begin(&mut self, asked: Asked, add: Option<Add>, holdings: &Holdings) -> Input {
        let ticket = self.ticket();
        self.replies.insert(ticket, asked.reply);
        let network = asked.request.network;
        match (asked.request.command, add) {
            (Command::Add { attachment, .. }, Some(add)) => {
                self.networks.insert(of(&attachment), network);
                Input::Add(ticket, add)
            }
            (Command::Del { attachment, .. }, _) => {
                self.networks.remove(&of(&attachment));
                Input::Del(ticket, of(&attachment))
            }
            (Command::Check { attachment, .. }, _) => Input::Check(ticket, of(&attachment), Vec::new()),
            (Command::Gc { valid_attachments }, _) => {
                let valid = valid_attachments.iter().map(of);
                // What is of another network is no business of this GC, and may be where this process did not see it made.
                let of_other =
                    |one: &Attachment| self.networks.get(one).is_none_or(|other| *other != network);
                let others = holdings.held.values().map(Holder::attachment).filter(of_other);
                Input::Gc(ticket, valid.chain(others).collect::<BTreeSet<_>>())
            }
            (Command::Status, _) | (Command::Add { .. }, None) => Input::Status(ticket),
        }
    }

    /// Tells who asked. That they have gone does not matter: their runtime follows with a DEL.
    pub(super) fn reply(&mut self, ticket: Ticket, reply: Result<Vec<IpAddr>, Refusal>) {
        if let Some(to) = self.releases.remove(&ticket) {
            let _ = to.send(reply.map(drop).map_err(|refusal| refusal.to_string()));
            return;
        }
        let Some(to) = self.replies.remove(&ticket) else { return };
        let reply = match reply {
            Ok(addresses) => Reply::Addresses(addresses),
            Err(refusal) => refused(refusal.code(), refusal.to_string()),
        };
        let _ = to.send(reply);
    }
}

enum Fate {
    Wait,
    Go(Option<Add>),
    Refuse(Reply),
}

/// Whether what a request needs is known. An ADD needs its Pod: that says which pools and addresses it may have.
fn judge(command: &Command, known: &Known, holdings: &Holdings, now: Instant, until: Instant) -> Fate {
    let Command::Add { attachment, pod: Pod { namespace, name, uid }, .. } = command else {
        return Fate::Go(None);
    };
    // Who has its addresses already is answered whatever is known by now, such as nothing after a restart.
    if let Some(holder) = holdings.held.values().find(|holder| holder.attachment() == of(attachment)) {
        return Fate::Go(Some(Add {
            attachment: of(attachment),
            namespace: namespace.clone(),
            name: name.clone(),
            pod_uid: uid.clone().unwrap_or_else(|| holder.pod_uid.clone()),
            fixed: Vec::new(),
            pools: None,
            stateful_set: holder.stateful_set.clone(),
            patience: until.saturating_duration_since(now),
        }));
    }
    let pod = known.pod(namespace, name).filter(|pod| uid.as_ref().is_none_or(|uid| pod.is(uid)));
    let Some(pod) = pod else {
        if now < until {
            return Fate::Wait;
        }
        let message = format!("no Pod {namespace}/{name} of this node and UID has been heard of");
        return Fate::Refuse(refused(code::TRY_AGAIN, message));
    };
    let fixed = match &pod.fixed {
        Ok(fixed) => fixed.clone(),
        Err(error) => return Fate::Refuse(refused(code::INVALID_CONFIG, error.clone())),
    };
    Fate::Go(Some(Add {
        attachment: of(attachment),
        namespace: namespace.clone(),
        name: name.clone(),
        pod_uid: uid.clone().or_else(|| pod.uid.clone()).unwrap_or_else(|| attachment.container_id.clone()),
        fixed,
        pools: pod.pools.clone(),
        stateful_set: pod.stateful_set.clone(),
        patience: until.saturating_duration_since(now),
    }))
}

fn attachment_of(command: &Command) -> Option<&plainroute_cni::protocol::Attachment> {
    match command {
        Command::Add { attachment, .. } | Command::Del { attachment, .. } => Some(attachment),
        Command::Check { .. } | Command::Gc { .. } | Command::Status => None,
    }
}

fn of(attachment: &plainroute_cni::protocol::Attachment) -> Attachment {
    Attachment { container_id: attachment.container_id.clone(), interface: attachment.ifname.clone() }
}

fn refused(code: u32, message: String) -> Reply {
    Reply::Refused(Failure { code, message, details: String::new() })
}

/// While the journal cannot be used.
pub(super) fn unavailable(error: impl ToString) -> Reply {
    refused(code::TRY_AGAIN, error.to_string())
}
