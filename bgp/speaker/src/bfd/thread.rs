//! The driver's thread, and the handle to it.
use std::{collections::BTreeMap, io, sync::Arc, thread::JoinHandle};

use plainroute_bfd::Timing;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Report, Target,
    task::{Command, Task},
};

/// Above every ordinary thread, below the kernel's own.
const REALTIME_PRIORITY: u8 = 10;

/// How the kernel schedules the driver's thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Before any ordinary thread (SCHED_FIFO).
    Realtime,
    /// Like any other: real time was refused for this reason. On a node under full load packets may then be late.
    Ordinary(String),
}

/// A handle to the thread. Dropping it ends the sessions as a crash would: the peers hear nothing more.
#[derive(Debug)]
pub struct Driver {
    commands: mpsc::Sender<Command>,
    reports: watch::Receiver<Arc<Report>>,
    priority: Priority,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    /// Starts a driver without sessions, in the network namespace of this thread.
    pub fn start() -> io::Result<Driver> {
        let (commands, inbox) = mpsc::channel(16);
        let (reports_out, reports) = watch::channel(Arc::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (priority_out, priority) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("bfd".to_owned()).spawn(move || {
            // The receiver waits for it.
            let _ = priority_out.send(raise_priority());
            runtime.block_on(Task::new(reports_out).run(inbox));
        })?;
        let priority = priority.recv().map_err(io::Error::other)?;
        Ok(Driver { commands, reports, priority, thread: Some(thread) })
    }

    /// How its thread is scheduled.
    pub fn priority(&self) -> &Priority {
        &self.priority
    }

    /// Makes `wanted` the set of sessions, whole, and gives what is known of them. A session that is in both sets
    /// goes on; other intervals are told to the peer by a Poll Sequence. One that is not wanted any more is held
    /// AdminDown until its peer has noticed.
    ///
    /// None where the driver has ended.
    pub async fn apply(&self, wanted: BTreeMap<Target, Timing>) -> Option<Arc<Report>> {
        self.ask(|answer| Command::Apply { wanted, answer }).await
    }

    /// Makes and publishes a report with the present counters. None where the driver has ended.
    pub async fn refresh(&self) -> Option<Arc<Report>> {
        self.ask(|answer| Command::Report { answer }).await
    }

    /// The report, as sessions change.
    pub fn reports(&self) -> watch::Receiver<Arc<Report>> {
        self.reports.clone()
    }

    /// Holds every session down and returns when each peer has noticed, or would have by its Detection Time (RFC 5880
    /// section 6.8.16).
    pub async fn stop(mut self) {
        let _: Option<()> = self.ask(|answer| Command::Stop { answer }).await;
        if let Some(thread) = self.thread.take() {
            // It has nothing left to do; a panic in there has been told already.
            let _ = thread.join();
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.ok()?;
        answered.await.ok()
    }
}

/// Real time for this thread where we may; what it does in one go is short, and the kernel keeps a share for others.
fn raise_priority() -> Priority {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let raised = ThreadPriorityValue::try_from(REALTIME_PRIORITY).and_then(|value| {
        let priority = ThreadPriority::Crossplatform(value);
        set_thread_priority_and_policy(thread_native_id(), priority, policy)
            .map_err(|error| format!("{error:?}"))
    });
    match raised {
        Ok(()) => Priority::Realtime,
        Err(why) => Priority::Ordinary(why),
    }
}
