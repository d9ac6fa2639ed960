//! A collector that others run: pmbmpd of pmacct (Debian 12), which logs what it is told in JSON.
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use plainroute_speaker::{StationConfig, StopMode};
use serde_json::Value;
use tempfile::TempDir;

use crate::network::{Node, free_port, pair, within_deadline};

/// A running pmbmpd, in the test's network namespace; it ends with this.
struct Pmbmpd {
    folder: TempDir,
    port: u16,
    process: Child,
}

impl Pmbmpd {
    fn start(folder: TempDir, port: u16) -> Pmbmpd {
        let path = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "bmp_daemon_ip: 192.0.2.9\nbmp_daemon_port: {port}\nbmp_daemon_msglog_file: {}\n\
             bmp_daemon_msglog_output: json\n",
            path("messages")
        );
        fs::write(path("conf"), config).unwrap();
        let mut command = Command::new("pmbmpd");
        command.args(["-f", &path("conf")]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("pmbmpd, of the package pmacct");
        Pmbmpd { folder, port, process }
    }

    /// Killed, and another in its place, with a log of its own.
    fn restart(mut self) -> Pmbmpd {
        self.end();
        Pmbmpd::start(tempfile::tempdir().unwrap(), self.port)
    }

    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 9], self.port))
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("messages")
    }

    /// Every message so far.
    fn messages(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    async fn until(&self, what: &str, met: impl Fn(&[Value]) -> bool) {
        let mut look = tokio::time::interval(Duration::from_millis(50));
        let wait = async {
            while !met(&self.messages()) {
                look.tick().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), wait).await.is_err() {
            panic!("{what} did not come; so far: {:#?}", self.messages());
        }
    }
}

impl Drop for Pmbmpd {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether a route of this kind was logged: of our `rib`, of this peer.
fn route<'a>(messages: &'a [Value], log_type: &str, prefix: &str, out: bool) -> Option<&'a Value> {
    messages.iter().find(|message| {
        message["bmp_msg_type"] == "route_monitor"
            && message["log_type"] == log_type
            && message["ip_prefix"] == prefix
            && message["is_out"].as_u64().unwrap_or_default() == u64::from(out)
    })
}

#[tokio::test]
async fn pmbmpd_understands_what_it_is_told_and_is_told_again_after_its_restart() {
    let (a, b): (Node, Node) = pair().await;
    a.peers([(&b, plainroute_speaker::PeerConfig { import: b.waits_for(&a).import, ..a.towards(&b) })]).await;
    a.tell(&b, &["10.1.0.0/32"]).await.flushed().await;
    b.tell(&a, &["10.2.0.0/32"]).await;
    a.learned_prefixes(&["10.2.0.0/32"]).await;

    let collector = Pmbmpd::start(tempfile::tempdir().unwrap(), free_port());
    let config = StationConfig {
        statistics: Some(Duration::from_millis(200)),
        ..StationConfig::new("node-a", "a test")
    };
    a.speaker.apply_stations(BTreeMap::from([(collector.address(), config)])).await;
    collector
        .until("the dump", |messages| {
            let kinds = |kind: &str| messages.iter().any(|message| message["bmp_msg_type"] == kind);
            kinds("init")
                && kinds("peer_up")
                && kinds("stats")
                && route(messages, "update", "10.1.0.0/32", true).is_some()
                && route(messages, "update", "10.2.0.0/32", false).is_some()
        })
        .await;
    let messages = collector.messages();
    let told = route(&messages, "update", "10.1.0.0/32", true).unwrap();
    assert_eq!(
        (told["peer_ip"].as_str(), told["as_path"].as_str()),
        (Some("192.0.2.2"), Some("64513")),
        "{told}"
    );
    assert_eq!(told["is_post"], 1, "{told}");

    a.tell(&b, &["10.1.0.1/32"]).await.flushed().await;
    collector
        .until("a change", |messages| {
            route(messages, "update", "10.1.0.1/32", true).is_some()
                && route(messages, "withdraw", "10.1.0.0/32", true).is_some()
        })
        .await;

    let collector = collector.restart();
    collector
        .until("the dump after its restart", |messages| {
            route(messages, "update", "10.1.0.1/32", true).is_some()
                && route(messages, "update", "10.1.0.0/32", true).is_none()
        })
        .await;
    b.speaker.stop(StopMode::HardReset).await;
    collector
        .until("Peer Down", |messages| messages.iter().any(|message| message["bmp_msg_type"] == "peer_down"))
        .await;
    within_deadline(a.speaker.stop(StopMode::Retain)).await;
    collector
        .until("Termination", |messages| messages.iter().any(|message| message["bmp_msg_type"] == "term"))
        .await;
}
