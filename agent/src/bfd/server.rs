//! The process `plainroute bfd`.
//!
//! Owner of: the driver (sockets and sessions, on a thread of its own) and the Unix socket. Inputs: lines of agents,
//! signals. Output: what the driver reports. An agent that goes away changes nothing: its sessions run on until
//! another one says otherwise. SIGTERM and SIGINT hold every session AdminDown before the end; being killed is silence.
use std::{
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use plainroute_bfd::Liveness;
use plainroute_speaker::bfd::{Driver, Priority, Report, Target};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};
use tracing::{debug, error, info, warn};

use super::protocol::{LONGEST_LINE, Told, Wanted};
use crate::private_socket;

/// How often an agent is told the counters.
const COUNTERS_EVERY: Duration = Duration::from_secs(5);

/// How the process runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where agents find it.
    pub socket: PathBuf,
    /// It ends when it had neither agent nor session for so long; never where absent.
    pub exit_when_idle: Option<Duration>,
}

/// Runs until it is told to end, or is of no use any more.
pub fn main(settings: Settings) -> ExitCode {
    // What BFD does stands on the driver's own thread; this one only talks.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.context("cannot start the runtime").and_then(|runtime| {
        runtime.block_on(async {
            let listener = private_socket::bind(&settings.socket).await.context("the BFD socket")?;
            let driver = Driver::start().context("cannot start the BFD driver")?;
            serve(&settings, listener, driver).await
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::from(2)
        }
    }
}

async fn serve(settings: &Settings, listener: UnixListener, driver: Driver) -> anyhow::Result<()> {
    match driver.priority() {
        Priority::Realtime => info!(socket = %settings.socket.display(), "BFD runs, with real-time priority"),
        Priority::Ordinary(why) => {
            info!(socket = %settings.socket.display(), "BFD runs, with ordinary priority: {why}");
        }
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let driver = Arc::new(driver);
    let mut reports = driver.reports();
    let mut shown = Arc::<Report>::default();
    let mut agents = JoinSet::new();
    let mut used_at = Instant::now();
    loop {
        let idle = agents.is_empty() && shown.sessions.is_empty();
        let idle_until = settings.exit_when_idle.filter(|_| idle).map(|patience| used_at + patience);
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    agents.spawn(attend(stream, Arc::clone(&driver), driver.reports()));
                }
                Err(error) => warn!(%error, "cannot accept an agent"),
            },
            Some(ended) = agents.join_next() => {
                match ended {
                    Ok(Ok(())) => debug!("an agent has gone; its sessions run on"),
                    Ok(Err(error)) => warn!("an agent has gone; its sessions run on: {error:#}"),
                    Err(error) => error!(%error, "the task of an agent's connection failed"),
                }
                used_at = Instant::now();
            }
            changed = reports.changed() => {
                changed.context("the BFD driver has ended")?;
                let report = Arc::clone(&reports.borrow_and_update());
                tell_log(&shown, &report);
                shown = report;
                used_at = Instant::now();
            }
            () = sleep_until(idle_until) => {
                info!("neither agent nor session: of no use any more");
                break;
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    // The next process makes its own; a leftover would only look like a running one.
    let _ = std::fs::remove_file(&settings.socket);
    drop(listener);
    agents.shutdown().await;
    if let Ok(driver) = Arc::try_unwrap(driver) {
        driver.stop().await;
    }
    info!("stopped: every peer was told AdminDown");
    Ok(())
}

/// Takes what an agent wants, and tells it what becomes of that.
async fn attend(
    stream: UnixStream,
    driver: Arc<Driver>,
    mut reports: watch::Receiver<Arc<Report>>,
) -> anyhow::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(LONGEST_LINE)).lines();
    let mut counters = tokio::time::interval(COUNTERS_EVERY);
    let mut attached = false;
    loop {
        let report = tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                lines.get_mut().get_mut().set_limit(LONGEST_LINE);
                let wanted: Wanted = serde_json::from_str(&line).context("not what an agent says")?;
                let sessions = wanted.sessions().map_err(anyhow::Error::msg)?;
                attached = true;
                let report = driver.apply(sessions).await;
                reports.mark_unchanged();
                report.context("the BFD driver has ended")?
            }
            changed = reports.changed(), if attached => {
                changed.context("the BFD driver has ended")?;
                Arc::clone(&reports.borrow_and_update())
            }
            _ = counters.tick(), if attached => {
                // The report that this makes is told above.
                driver.refresh().await.context("the BFD driver has ended")?;
                continue;
            }
        };
        let mut line = serde_json::to_vec(&Told::from(&*report))?;
        line.push(b'\n');
        write.write_all(&line).await?;
    }
}

/// Says in the log what clients act on, and what is missing. The driver itself says nothing: it does not wait for logs.
fn tell_log(before: &Report, now: &Report) {
    for (target, session) in &now.sessions {
        let former = before.sessions.get(target);
        let problem = session.problem.as_ref();
        if problem != former.and_then(|former| former.problem.as_ref()) {
            match problem {
                Some(problem) => warn!(peer = %target, "{problem}"),
                None => info!(peer = %target, "the problem is gone"),
            }
        }
        let liveness = session.running.as_ref().map(|running| running.liveness);
        let former = former.and_then(|former| former.running.as_ref()).map(|running| running.liveness);
        match liveness {
            Some(liveness) if Some(liveness) == former => {}
            Some(failed @ Liveness::Failed { .. }) => warn!(peer = %target, "{failed}"),
            Some(liveness) => info!(peer = %target, "{liveness}"),
            None => {}
        }
    }
    let gone = before.sessions.keys().filter(|target| !now.sessions.contains_key(*target));
    for target in gone {
        info!(peer = %target as &Target, "removed");
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
