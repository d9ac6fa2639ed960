//! The agent's side of BFD.
//!
//! Owner of: the connection to the BFD process, and the duty to start that. Inputs: the sessions that the peers in force
//! want, lines of the process. Outputs: the state of the path to each peer, straight to the speaker, since this is what
//! has to be quick; and the sessions' status, for people. Cancelling it closes the connection; the sessions run on.
//!
//! Before the first plan nothing is said: not to know the peers ends no session. Without a connection the paths are
//! unknown, which ends no BGP session either.
use std::{
    collections::BTreeMap,
    io,
    num::{NonZeroU8, NonZeroU32},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use plainroute_config::{Bfd, BfdProcess};
use plainroute_speaker::{PathState, Paths, PeerConfig, PeerName, Speaker};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    process::{Child, Command},
    sync::watch,
    time::timeout,
};
use tracing::{info, warn};

use super::protocol::{BfdPath, BfdView, SessionSpec, TargetSpec, Told, Wanted};

/// The sessions that there shall be, by peer.
pub type Sessions = BTreeMap<PeerName, SessionSpec>;
/// How the sessions that there shall be are, by peer.
pub type Views = BTreeMap<PeerName, BfdView>;

/// How long a process that was started has to answer.
const STARTING: Duration = Duration::from_secs(5);
/// How soon after its start it is asked.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// The wait before another attempt: it doubles, and begins anew after a connection that lasted.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const LASTED: Duration = Duration::from_secs(10);
/// How long a process that was started here goes on without use.
const IDLE_SECONDS: &str = "60";

/// The session that a peer's `spec.bfd` asks for.
///
/// A peer that may be further away than one hop gets a multihop session (RFC 5883). Nothing says how far away an
/// internal peer is: there it depends on whether an interface has it in its subnet, as with FRR.
pub fn session(bfd: &Bfd, peer: &PeerConfig) -> SessionSpec {
    let hops = peer.ttl_security.unwrap_or(peer.ebgp_multihop).max(1);
    let milliseconds = |value| NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN);
    let somewhere = peer.local_asn == peer.peer_asn && peer.ttl_security.is_none();
    SessionSpec {
        target: TargetSpec {
            peer_address: peer.peer_address,
            interface: peer.interface.clone(),
            local_address: peer.local_address,
            hops: if somewhere { None } else { NonZeroU8::new(hops) },
        },
        // The kind's bounds leave no zero.
        receive_interval_milliseconds: milliseconds(bfd.receive_interval_milliseconds.get()),
        transmit_interval_milliseconds: milliseconds(bfd.transmit_interval_milliseconds.get()),
        detect_multiplier: NonZeroU8::new(bfd.detect_multiplier.get()).unwrap_or(NonZeroU8::MIN),
    }
}

/// The task.
pub struct Client {
    /// Where the process is, and whether it is ours to start.
    pub settings: BfdProcess,
    /// What is wanted; none before the first plan.
    pub wanted: watch::Receiver<Option<Arc<Sessions>>>,
    /// Who acts on it.
    pub speaker: Speaker,
    /// What people are shown.
    pub views: watch::Sender<Arc<Views>>,
}

/// Why a connection ended.
enum End {
    /// Nothing is wanted any more, and the process knows.
    Done,
    Lost(io::Error),
    /// The agent ends.
    Abandoned,
}

impl Client {
    /// Runs until the agent ends.
    pub async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        loop {
            let Some(wanted) = self.wanted() else {
                if self.wanted.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let began = Instant::now();
            let problem = match self.connect(!wanted.is_empty()).await {
                Ok(stream) => match self.attend(stream).await {
                    End::Abandoned => return,
                    End::Done => None,
                    End::Lost(error) => Some(format!("the connection to the BFD process was lost: {error}")),
                },
                Err(_) if wanted.is_empty() => None,
                Err(problem) => Some(problem),
            };
            self.forget(problem.as_deref());
            let Some(problem) = problem else {
                // Until somebody wants BFD.
                if self.wanted.changed().await.is_err() {
                    return;
                }
                continue;
            };
            wait = if began.elapsed() >= LASTED { FIRST_WAIT } else { (wait * 2).min(LONGEST_WAIT) };
            warn!(?wait, "BFD does not run: {problem}");
            if let Ok(Err(_)) = timeout(wait, self.wanted.changed()).await {
                return;
            }
        }
    }

    fn wanted(&mut self) -> Option<Arc<Sessions>> {
        self.wanted.borrow_and_update().clone()
    }

    /// Finds the process, or starts it where it is ours to start and there is something for it to do.
    async fn connect(&self, useful: bool) -> Result<UnixStream, String> {
        let socket = &self.settings.socket;
        let shown = socket.display();
        let error = match UnixStream::connect(socket).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if !self.settings.spawn {
            return Err(format!(
                "no BFD process answers on {shown} ({error}); spec.bfd.spawn is off, so start `plainroute bfd`"
            ));
        }
        if !useful {
            return Err(format!("no BFD process answers on {shown} ({error})"));
        }
        let child =
            spawn(&self.settings).map_err(|error| format!("`plainroute bfd` cannot be started: {error}"))?;
        let pid = child.id();
        info!(pid, socket = %shown, "started `plainroute bfd`");
        let mut ended = tokio::spawn(see_off(child));
        let answering = async {
            loop {
                if let Ok(stream) = UnixStream::connect(socket).await {
                    return stream;
                }
                tokio::time::sleep(ASK_EVERY).await;
            }
        };
        tokio::select! {
            stream = timeout(STARTING, answering) => {
                stream.map_err(|_| format!("`plainroute bfd` does not answer on {shown} after {STARTING:?}"))
            }
            _ = &mut ended => Err(format!("`plainroute bfd` ended at once; its log says why ({shown})")),
        }
    }

    /// Keeps the process told, and tells what it says.
    async fn attend(&mut self, stream: UnixStream) -> End {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let mut told = None;
        loop {
            let Some(wanted) = self.wanted() else { return End::Abandoned };
            let sessions = Wanted { sessions: wanted.values().cloned().collect() };
            let mut line = match serde_json::to_vec(&sessions) {
                Ok(line) => line,
                Err(error) => return End::Lost(error.into()),
            };
            line.push(b'\n');
            if let Err(error) = write.write_all(&line).await {
                return End::Lost(error);
            }
            if let Some(told) = &told {
                self.tell(&wanted, told);
            }
            loop {
                tokio::select! {
                    changed = self.wanted.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return End::Abandoned,
                    },
                    line = lines.next_line() => {
                        let line = match line {
                            Ok(Some(line)) => line,
                            Ok(None) => return End::Lost(io::ErrorKind::UnexpectedEof.into()),
                            Err(error) => return End::Lost(error),
                        };
                        let said: Told = match serde_json::from_str(&line) {
                            Ok(said) => said,
                            Err(error) => return End::Lost(error.into()),
                        };
                        self.tell(&wanted, &said);
                        if wanted.is_empty() && said.sessions.is_empty() {
                            return End::Done;
                        }
                        told = Some(said);
                    }
                }
            }
        }
    }

    /// Tells the speaker, then people, what is known of the sessions that are wanted.
    fn tell(&self, wanted: &Sessions, told: &Told) {
        let of = |spec: &SessionSpec| {
            let session = told.sessions.iter().find(|session| session.target == spec.target);
            session.map_or_else(BfdView::default, |session| session.status.clone())
        };
        let views: Views = wanted.iter().map(|(peer, spec)| (peer.clone(), of(spec))).collect();
        let paths: Paths = views.iter().map(|(peer, view)| (peer.clone(), path_state(view))).collect();
        self.speaker.set_paths(paths);
        self.views.send_replace(Arc::new(views));
    }

    /// Nothing is known any more, for this reason.
    fn forget(&mut self, problem: Option<&str>) {
        self.speaker.set_paths(Paths::new());
        let wanted = self.wanted.borrow().clone().unwrap_or_default();
        let without =
            |problem: &str| wanted.keys().map(|peer| (peer.clone(), BfdView::without(problem))).collect();
        self.views.send_replace(Arc::new(problem.map(without).unwrap_or_default()));
    }
}

fn path_state(view: &BfdView) -> PathState {
    match view.path {
        BfdPath::Unknown => PathState::Unknown,
        BfdPath::Up => PathState::Up,
        BfdPath::AdminDown => PathState::AdminDown,
        BfdPath::Down => PathState::Down {
            reason: view.diagnostic.clone().unwrap_or_default(),
            control_plane_independent: view.control_plane_independent,
        },
    }
}

/// Starts this very program as the BFD process, detached: a signal to the agent's process group does not reach it, and
/// it is not waited for at the end.
fn spawn(settings: &BfdProcess) -> io::Result<Child> {
    // The program that runs, even where its file has been replaced since.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("plainroute").arg("bfd").arg("--socket").arg(&settings.socket);
    command.args(["--exit-when-idle", IDLE_SECONDS]);
    command.current_dir(PathBuf::from("/")).process_group(0).kill_on_drop(false);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()
}

/// Waits for the end of the process, so that it does not stay as a zombie, and says so.
async fn see_off(mut child: Child) {
    let pid = child.id();
    match child.wait().await {
        Ok(status) => info!(?pid, "`plainroute bfd` has ended: {status}"),
        Err(error) => warn!(?pid, "`plainroute bfd` cannot be waited for: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use plainroute_bgp::{Asn, RouterId};

    use super::*;

    fn hops(change: impl Fn(&mut PeerConfig)) -> Option<u8> {
        let asn = |number| Asn::new(number).unwrap();
        let router_id = RouterId::new(1).unwrap();
        let mut peer = PeerConfig::new(asn(64512), asn(64600), router_id, [192, 0, 2, 1].into());
        change(&mut peer);
        session(&Bfd::default(), &peer).target.hops.map(NonZeroU8::get)
    }

    #[test]
    fn how_far_away_a_peer_may_be_decides_the_kind_of_session() {
        assert_eq!(hops(|_| ()), Some(1));
        assert_eq!(hops(|peer| peer.ebgp_multihop = 3), Some(3));
        assert_eq!(hops(|peer| peer.ttl_security = Some(1)), Some(1));
        assert_eq!(hops(|peer| peer.ttl_security = Some(2)), Some(2));
        assert_eq!(hops(|peer| peer.peer_asn = peer.local_asn), None);
        let near = |peer: &mut PeerConfig| (peer.peer_asn, peer.ttl_security) = (peer.local_asn, Some(1));
        assert_eq!(hops(near), Some(1));
    }
}
