//! One child process: started from a thread that lives as long as the test program, its output kept in a
//! file, ended by its own process id.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::wait_until;

const POLL: Duration = Duration::from_millis(10);
const KILLED: Duration = Duration::from_secs(10);

pub(super) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    /// Where in the log its own words begin.
    begin: u64,
}

impl Process {
    /// Starts `command`, with its output appended to `NAME.log` in `directory`.
    pub(super) fn start(name: &'static str, mut command: Command, directory: &Path) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let begin = output.metadata()?.len();
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = spawn(command).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log, begin })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {} ({pid})", self.name))
    }

    /// Stops it without ending it. Returns once every thread of it stands still: on a busy machine that is a moment after
    /// the signal.
    pub(super) fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let tasks = format!("/proc/{}/task", self.child.id());
        wait_until(&format!("{} to stand still", self.name), KILLED, || match running(&tasks) {
            Ok(0) => Ok(()),
            other => Err(format!("{other:?} threads that do not")),
        })
    }

    /// Undoes [`Self::freeze`].
    pub(super) fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Fails with the end of its output when it has ended by itself.
    pub(super) fn still_runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}); it said last:\n{}", self.name, self.last_words()),
        }
    }

    /// Whether this is in its output.
    pub(super) fn has_said(&self, words: &str) -> Result<bool> {
        let log = std::fs::read(&self.log)?;
        let own = log.get(usize::try_from(self.begin)?..).unwrap_or_default();
        Ok(own.windows(words.len()).any(|window| window == words.as_bytes()))
    }

    /// The last lines of its output.
    pub(super) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string());
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    pub(super) async fn stop(&mut self, patience: Duration) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        match self.ended_within(patience).await? {
            Some(_) => Ok(()),
            None => self.kill().await,
        }
    }

    pub(super) async fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        match self.ended_within(KILLED).await? {
            Some(_) => Ok(()),
            None => bail!("{} is still there {KILLED:?} after SIGKILL", self.name),
        }
    }

    async fn ended_within(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// How many threads are not stopped.
fn running(tasks: &str) -> io::Result<usize> {
    let mut running = 0;
    for task in std::fs::read_dir(tasks)? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        // The state follows the name, which is in brackets and may have any sign in it.
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        running += usize::from(state != Some('T'));
    }
    Ok(running)
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Spawn = (Command, Sender<io::Result<Child>>);

/// `setpriv --pdeathsig` fires when the *thread* that started the child ends, and a test's thread ends
/// before the test program does. So one thread, which never ends, starts them all.
fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: LazyLock<Mutex<Sender<Spawn>>> = LazyLock::new(|| {
        let (sender, receiver) = mpsc::channel::<Spawn>();
        thread::spawn(move || {
            for (mut command, reply) in receiver {
                // Nobody waits for the answer any more: the child is killed when it is dropped.
                if let Err(mpsc::SendError(Ok(mut child))) = reply.send(command.spawn()) {
                    let _ = child.kill();
                }
            }
        });
        Mutex::new(sender)
    });
    let (reply, answer) = mpsc::channel();
    let gone = || anyhow!("the thread that starts processes is gone");
    let spawner = SPAWNER.lock().map_err(|_| gone())?.clone();
    spawner.send((command, reply)).map_err(|_| gone())?;
    Ok(answer.recv().map_err(|_| gone())??)
}
