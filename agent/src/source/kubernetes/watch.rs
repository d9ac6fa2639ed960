//! The watch of one kind: it keeps asking, and tells what it sees and how it fares.
//!
//! Between a list and the next one the server tells every change. After any failure the kind is listed anew, so a
//! missed event heals by itself. Each list is held against the latest state of the server that was ever seen, so that one
//! restored from a backup is told as such.

use std::{io, pin::pin};

use backon::ExponentialBackoff;
use futures::StreamExt as _;
use kube::{
    Api, Client, Resource as _,
    api::ListParams,
    core::Status,
    runtime::watcher::{self, Event, watcher},
};
use tokio::{
    sync::watch,
    time::{Instant, error::Elapsed, sleep, sleep_until},
};
use tracing::{debug, info, warn};

use super::{
    Marks, Pace, Settings,
    seen::{Seen, Watched},
    view::View,
};
use crate::source::{Change, Feed, Feeds, SourceName};

/// The watch of the kind `T`. It outlives the client, so that new credentials do not start it from nothing.
pub(super) struct Watch<'a, T> {
    /// The field selector.
    fields: Option<String>,
    streaming_lists: bool,
    pace: Pace,
    marks: &'a watch::Sender<Marks>,
    feeds: &'a Feeds,
    view: View<T>,
    health: Health,
    backoff: ExponentialBackoff,
}

/// Why a watch gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nobody takes the changes any more.
    Unheard,
    /// The server does not accept the credentials; they may have been renewed in their file.
    Unauthorized,
}

/// Why the events stopped.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    Unheard,
    Unauthorized,
    /// The server has forgotten what came after the last event: normal after a while without events.
    Expired,
    /// The server does not stream lists.
    NotStreamed,
    /// The server does not have the kind.
    NoSuchKind,
    Failed(String),
}

/// Nobody takes the changes any more.
struct Unheard;

impl<'a, T: Watched> Watch<'a, T> {
    pub(super) fn new(
        fields: Option<String>,
        settings: &Settings,
        marks: &'a watch::Sender<Marks>,
        feeds: &'a Feeds,
    ) -> Self {
        let Settings { streaming_lists, pace, .. } = *settings;
        let (view, health) = (View::new(), Health::default());
        Self { fields, streaming_lists, pace, marks, feeds, view, health, backoff: pace.backoff() }
    }

    /// From the next [`Watch::run`] on, all objects of the kind are watched.
    pub(super) fn widen(&mut self) {
        if self.fields.take().is_some() {
            info!(kind = T::PLURAL, "all of the cluster are watched from now on: an Egress asks for it");
        }
    }

    /// Watches until it cannot go on with this client.
    pub(super) async fn run(&mut self, client: &Client, server: &str) -> Ended {
        loop {
            let stop = self.follow(client, server).await;
            let unauthorized = stop == Stop::Unauthorized;
            let absent = stop == Stop::NoSuchKind;
            let failure = match stop {
                Stop::Unheard => return Ended::Unheard,
                Stop::Unauthorized => "the credentials are refused".to_owned(),
                Stop::Expired => {
                    debug!(kind = T::PLURAL, server, "the watch expired; listing again");
                    sleep(self.pace.wait(&mut self.backoff)).await;
                    continue;
                }
                Stop::NotStreamed => {
                    info!(kind = T::PLURAL, server, "no streamed lists here; asking for plain ones");
                    self.streaming_lists = false;
                    continue;
                }
                Stop::NoSuchKind => {
                    if self.tell(Change::NoSuchKind(T::KIND)).await.is_err() {
                        return Ended::Unheard;
                    }
                    format!("the server does not know {}", Seen::<T>::api_version(&()))
                }
                Stop::Failed(why) => why,
            };
            self.health.trouble = Some(failure);
            if self.tell_health(server).await.is_err() {
                return Ended::Unheard;
            }
            let wait = self.pace.wait(&mut self.backoff);
            // That it was never installed is no outage: nobody is in a hurry.
            let known = self.view.synced() || !absent;
            sleep(if known { wait } else { wait + self.pace.absent }).await;
            if unauthorized {
                return Ended::Unauthorized;
            }
        }
    }

    /// Lists, then watches, until something stops it.
    async fn follow(&mut self, client: &Client, server: &str) -> Stop {
        let mut events = pin!(watcher(Api::<Seen<T>>::all(client.clone()), self.config()));
        let (mut begun, mut listed) = (false, false);
        let mut settles_at = None;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = sleep_until(settles_at.unwrap_or_else(Instant::now)), if settles_at.is_some() => {
                    settles_at = None;
                    self.backoff = self.pace.backoff();
                    self.health.trouble = None;
                    match self.tell_health(server).await {
                        Ok(()) => continue,
                        Err(Unheard) => return Stop::Unheard,
                    }
                }
            };
            let event = match event {
                Some(Ok(event)) => event,
                Some(Err(error)) => return stop(&error, self.streaming_lists && !listed),
                None => return Stop::Failed("the watch ended".to_owned()),
            };
            match event {
                // The stream ended without its mark: a server that is older than streamed lists ignores the wish.
                Event::Init if begun && !listed && self.streaming_lists => return Stop::NotStreamed,
                Event::Init => begun = true,
                Event::InitDone => {
                    listed = true;
                    settles_at = Some(Instant::now() + self.pace.settle);
                    if !self.view.synced() {
                        info!(kind = T::PLURAL, server, "in sync");
                    }
                }
                Event::InitApply(_) | Event::Apply(_) | Event::Delete(_) => {}
            }
            let changes = match &event {
                Event::InitDone => match self.is_rewound(client).await {
                    Ok(rewound) => self.view.handle_list(rewound),
                    Err(error) => return stop_by(&error, false),
                },
                Event::InitApply(_) | Event::Init => self.view.handle(event),
                Event::Apply(seen) | Event::Delete(seen) => {
                    self.raise_mark(seen.version());
                    self.view.handle(event)
                }
            };
            for change in changes {
                if self.tell(change).await.is_err() {
                    return Stop::Unheard;
                }
            }
            if self.tell_health(server).await.is_err() {
                return Stop::Unheard;
            }
        }
    }

    /// Whether the server has forgotten what was seen of this kind, and so was put back to an older state. Its resource
    /// versions only ever grow; they are numbers that can be compared (KEP-5504).
    async fn is_rewound(&self, client: &Client) -> Result<bool, kube::Error> {
        let seen = self.marks.borrow().get(&T::KIND).copied();
        let mut params = ListParams::default().limit(1);
        params.field_selector.clone_from(&self.fields);
        let now = Api::<Seen<T>>::all(client.clone()).list_metadata(&params).await?;
        let now: Option<u64> = now.metadata.resource_version.and_then(|version| version.parse().ok());
        let rewound = now.zip(seen).is_some_and(|(now, seen)| now < seen);
        if rewound {
            warn!(kind = T::PLURAL, ?now, ?seen, "the API server went back to an older state");
        }
        self.marks.send_modify(|marks| {
            if let Some(now) = now {
                marks.insert(T::KIND, now);
            }
        });
        Ok(rewound)
    }

    fn raise_mark(&self, version: Option<u64>) {
        let Some(version) = version else { return };
        self.marks.send_if_modified(|marks| {
            let mark = marks.entry(T::KIND).or_default();
            let higher = version > *mark;
            *mark = version.max(*mark);
            higher
        });
    }

    fn config(&self) -> watcher::Config {
        let config = watcher::Config::default().timeout(self.pace.watch_seconds);
        let config = if self.streaming_lists { config.streaming_lists() } else { config };
        match &self.fields {
            Some(fields) => config.fields(fields),
            None => config,
        }
    }

    async fn tell(&self, change: Change) -> Result<(), Unheard> {
        self.feeds.send(Feed { source: SourceName::Kubernetes, change }).await.map_err(|_| Unheard)
    }

    /// Tells and logs how the watch fares, where that has changed.
    async fn tell_health(&mut self, server: &str) -> Result<(), Unheard> {
        let problem = self.health.trouble.clone().or_else(|| self.view.unreadable());
        if problem == self.health.told {
            return Ok(());
        }
        let kind = T::PLURAL;
        match &problem {
            Some(problem) if self.view.synced() => {
                warn!(kind, server, "{problem}; what is known stays in force")
            }
            Some(problem) => warn!(kind, server, "{problem}; not in sync yet, trying again"),
            None => info!(kind, server, "in sync again"),
        }
        let line = problem.as_ref().map(|problem| format!("{server}: {kind}: {problem}"));
        self.tell(Change::Health { kind: Some(T::KIND), problem: line }).await?;
        self.health.told = problem;
        Ok(())
    }
}

/// How one watch fares, and what was last told of it.
#[derive(Debug, Default)]
struct Health {
    trouble: Option<String>,
    told: Option<String>,
}

/// What an error means. `streaming`: it answers the wish for a streamed list.
fn stop(error: &watcher::Error, streaming: bool) -> Stop {
    match error {
        watcher::Error::WatchError(status) => refusal(status, streaming),
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => stop_by(error, streaming),
        watcher::Error::NoResourceVersion => {
            Stop::Failed("the server's answer has no resource version".to_owned())
        }
    }
}

fn stop_by(error: &kube::Error, streaming: bool) -> Stop {
    match error {
        kube::Error::Api(status) => refusal(status, streaming),
        error => Stop::Failed(innermost(error)),
    }
}

fn refusal(status: &Status, streaming: bool) -> Stop {
    match status.code {
        401 => Stop::Unauthorized,
        403 => Stop::Failed(format!("not allowed: {}", status.message)),
        404 => Stop::NoSuchKind,
        410 => Stop::Expired,
        400 | 422 if streaming => Stop::NotStreamed,
        code => Stop::Failed(format!("the server answers {code}: {}", status.message)),
    }
}

/// The cause behind the layers of a client's error, for instance "Connection refused".
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    if cause.is::<Elapsed>() || io == Some(io::ErrorKind::TimedOut) {
        return "the server does not answer".to_owned();
    }
    cause.to_string()
}
