//! Recording of sessions to a file, for `plainroute replay` (see [`plainroute_bgp::record`]).
//!
//! The writer task owns the file. In: whole records of the peers' tasks (bounded channel). Out: the file, flushed at
//! least each second, and what became of it ([`RecorderStatus`]). A peer never waits: where the channel is full, or the
//! file takes no more, recording is over for good, since a recording with a gap could not be replayed. It then has no
//! end mark. The task ends when the registry says so or when all senders are gone.
use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use plainroute_bgp::{
    record::{TapedSession, write_end, write_header},
    session::SessionConfig,
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt, BufWriter},
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::warn;

/// How many pieces may wait for the file. A piece is what one peer took in at a time: mostly less than a kilobyte, a
/// hundred at most.
const PIECES_WAITING: usize = 256;

/// Longest time that what was recorded stays out of the file.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// How long stopping waits for the file.
const FINISH_WAIT: Duration = Duration::from_secs(2);

/// What a recording has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecorderStatus {
    /// Octets handed to the file.
    pub octets: u64,
    /// It is over before its time: the file was too slow or took no more.
    pub stopped: bool,
}

#[derive(Debug)]
enum Piece {
    Records(Bytes),
    /// The last one; the answer comes when the file has everything.
    End(oneshot::Sender<()>),
}

/// Records what the sessions of a speaker take in; clones are handles to the same recording.
#[derive(Clone, Debug)]
pub struct Recorder {
    pieces: mpsc::Sender<Piece>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    origin: Instant,
    sessions: AtomicU64,
    octets: AtomicU64,
    stopped: AtomicBool,
}

impl Shared {
    /// Ends recording for good; said once.
    fn stop(&self, reason: &str) {
        if !self.stopped.swap(true, Ordering::Relaxed) {
            warn!(reason, "recording has stopped for good; the sessions go on");
        }
    }
}

impl Recorder {
    /// Begins a recording in a new file, or in one that is empty; nobody but its owner may read it (mode 0600). To be
    /// called in a tokio runtime.
    pub fn create(path: &Path) -> io::Result<Recorder> {
        // Not truncated: what somebody recorded is not to be lost by a restart.
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if metadata.len() > 0 {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is not empty"));
        }
        let mut permissions = metadata.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
        file.set_permissions(permissions)?;
        Ok(Recorder::start(tokio::fs::File::from_std(file)))
    }

    fn start(file: impl AsyncWrite + Unpin + Send + 'static) -> Recorder {
        let (pieces, inbox) = mpsc::channel(PIECES_WAITING);
        let shared = Arc::new(Shared {
            origin: now(),
            sessions: AtomicU64::new(0),
            octets: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        tokio::spawn(run(file, inbox, Arc::clone(&shared)));
        Recorder { pieces, shared }
    }

    /// What the recording has come to.
    pub fn status(&self) -> RecorderStatus {
        RecorderStatus {
            octets: self.shared.octets.load(Ordering::Relaxed),
            stopped: self.shared.stopped.load(Ordering::Relaxed),
        }
    }

    /// A session that is recorded, unless recording is over.
    pub(crate) fn session(&self, config: SessionConfig, peer: &str) -> TapedSession {
        if self.status().stopped {
            return TapedSession::new(config);
        }
        let number = self.shared.sessions.fetch_add(1, Ordering::Relaxed);
        TapedSession::recorded(config, number, peer, self.shared.origin, now())
    }

    /// Hands over what was recorded of a session, which is no more recorded when that fails.
    pub(crate) fn take(&self, session: &mut TapedSession) {
        let records = session.take_records();
        if records.is_empty() {
            return;
        }
        if !self.status().stopped {
            match self.pieces.try_send(Piece::Records(records)) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => self.shared.stop("the file is slower than the sessions"),
                // Its time is over, or it has said why it is not.
                Err(TrySendError::Closed(_)) => {}
            }
        }
        session.stop_recording();
    }

    /// Ends the recording: the file has all that was handed over before, and its end mark.
    pub(crate) async fn finish(&self) {
        let (answer, answered) = oneshot::channel();
        let finish = async {
            if self.pieces.send(Piece::End(answer)).await.is_ok() {
                // An error means that the file took no more, which was said.
                let _ = answered.await;
            }
        };
        if timeout(FINISH_WAIT, finish).await.is_err() {
            self.shared.stop("the file did not take the rest in time");
        }
    }
}

async fn run(file: impl AsyncWrite + Unpin, inbox: mpsc::Receiver<Piece>, shared: Arc<Shared>) {
    if let Err(error) = write(file, inbox, &shared).await {
        shared.stop(&error.to_string());
    }
}

async fn write(
    file: impl AsyncWrite + Unpin,
    mut inbox: mpsc::Receiver<Piece>,
    shared: &Shared,
) -> io::Result<()> {
    let mut file = BufWriter::new(file);
    let mut header = BytesMut::new();
    write_header(&mut header);
    put(&mut file, &header, shared).await?;
    let mut flush = interval(FLUSH_EVERY);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            piece = inbox.recv() => match piece {
                Some(Piece::Records(records)) => put(&mut file, &records, shared).await?,
                Some(Piece::End(answer)) => {
                    // What was left out after a full channel is missing here as well.
                    if !shared.stopped.load(Ordering::Relaxed) {
                        let mut end = BytesMut::new();
                        write_end(&mut end);
                        put(&mut file, &end, shared).await?;
                    }
                    file.flush().await?;
                    // Whoever asked may have stopped waiting.
                    let _ = answer.send(());
                    return Ok(());
                }
                None => return file.flush().await,
            },
            _ = flush.tick() => file.flush().await?,
        }
    }
}

async fn put(file: &mut (impl AsyncWrite + Unpin), octets: &[u8], shared: &Shared) -> io::Result<()> {
    file.write_all(octets).await?;
    shared.octets.fetch_add(octets.len() as u64, Ordering::Relaxed);
    Ok(())
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use plainroute_bgp::{Asn, record::Input, session::StopReason};
    use tokio::io::AsyncReadExt;

    use super::*;

    fn config() -> SessionConfig {
        let asn = Asn::new(64512).unwrap();
        SessionConfig::new(asn, asn, "192.0.2.1".parse().unwrap())
    }

    fn busy(recorder: &Recorder, session: &mut TapedSession) {
        session.handle(now(), Input::Start);
        session.handle(now(), Input::Stop(StopReason::Retain));
        recorder.take(session);
    }

    #[tokio::test]
    async fn a_file_that_takes_nothing_stops_the_recording_and_not_the_session() {
        let (file, reader) = tokio::io::duplex(1);
        let recorder = Recorder::start(file);
        let mut session = recorder.session(config(), "tor");
        // The test never yields, so the writer takes nothing: the channel fills up.
        for _ in 0..PIECES_WAITING {
            busy(&recorder, &mut session);
        }
        assert!(!recorder.status().stopped);
        busy(&recorder, &mut session);
        assert!(recorder.status().stopped);
        assert!(std::iter::from_fn(|| session.poll_action()).count() > PIECES_WAITING, "it went on");
        session.handle(now(), Input::Start);
        assert!(session.take_records().is_empty() && session.poll_action().is_some());
        let mut later = recorder.session(config(), "tor-b");
        later.handle(now(), Input::Start);
        assert!(later.take_records().is_empty());

        // What did get into the channel is in the file, without an end mark.
        let read = tokio::spawn(async move {
            let mut file = Vec::new();
            let mut reader = reader;
            reader.read_to_end(&mut file).await.map(|_| file)
        });
        recorder.finish().await;
        let file = read.await.unwrap().unwrap();
        assert_eq!(recorder.status().octets, file.len() as u64);
        let (records, end) = read_back(file);
        assert_eq!((records, end), (1 + 2 * PIECES_WAITING, plainroute_bgp::record::End::Cut(usize::MAX)));
    }

    fn read_back(file: Vec<u8>) -> (usize, plainroute_bgp::record::End) {
        let length = file.len();
        let mut reader = plainroute_bgp::record::Reader::new(file.into()).unwrap();
        let mut records = 0;
        loop {
            match reader.poll().unwrap() {
                Ok(_) => records += 1,
                Err(plainroute_bgp::record::End::Cut(at)) if at == length => {
                    return (records, plainroute_bgp::record::End::Cut(usize::MAX));
                }
                Err(end) => return (records, end),
            }
        }
    }

    #[tokio::test]
    async fn a_full_disk_stops_the_recording() {
        let full = tokio::fs::OpenOptions::new().write(true).open("/dev/full").await.unwrap();
        let recorder = Recorder::start(full);
        let mut session = recorder.session(config(), "tor");
        busy(&recorder, &mut session);
        recorder.finish().await;
        assert!(recorder.status().stopped);
        busy(&recorder, &mut session);
        session.handle(now(), Input::Start);
        assert!(session.take_records().is_empty());
    }

    #[tokio::test]
    async fn only_a_new_or_empty_file_is_taken_and_nobody_else_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        for _ in 0..2 {
            let recorder = Recorder::create(&path).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            recorder.finish().await;
            assert_eq!(read_back(std::fs::read(&path).unwrap()), (0, plainroute_bgp::record::End::Whole));
            let error = Recorder::create(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        }
        let error = Recorder::create(Path::new("/dev/null")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn what_was_recorded_reaches_the_file_before_the_end() {
        let (file, mut reader) = tokio::io::duplex(1 << 16);
        let recorder = Recorder::start(file);
        let mut session = recorder.session(config(), "tor");
        let mut header = [0; 10];
        reader.read_exact(&mut header).await.unwrap();
        busy(&recorder, &mut session);
        // Far more than a second, since the machine may be busy.
        timeout(20 * FLUSH_EVERY, reader.read_u8()).await.expect("flushed").unwrap();
    }
}
