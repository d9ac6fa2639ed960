//! `plainroute replay`: a recording told as a story, and held against itself. Needs no agent.
use std::{
    fmt::{self, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use clap::{Args, ValueEnum};
use plainroute_bgp::{
    record::{Corrupt, End, Input, Replay as Machine, Step},
    session::{Action, ConnectionId, Event, SessionConfig, StopReason},
    wire::{
        CodecContext, Finding, Frame, Message, NextHop, Nlri, Open, Update, frame::MAX_EXTENDED_LENGTH,
        iana::MessageType,
    },
};
use serde::Serialize;

use super::output;

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// What `plainroute agent --record` wrote
    file: PathBuf,
    /// Only show the sessions with this peer; all are replayed
    #[arg(long, value_name = "NAME")]
    peer: Option<String>,
    /// The form of the answer; json is one object a line
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
}

/// One thing that happened, or how it all stands at the end.
#[derive(Debug, Serialize)]
struct Line<'a> {
    /// Seconds since the recording began.
    time: f64,
    peer: &'a str,
    what: What,
    /// OPEN, UPDATE and so on, of a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    text: String,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum What {
    Input,
    Received,
    Sent,
    State,
    Event,
    Finding,
    Different,
    Final,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            What::Input => "input",
            What::Received => "received",
            What::Sent => "sent",
            What::State => "state",
            What::Event => "event",
            What::Finding => "finding",
            What::Different => "DIFFERENT",
            What::Final => "final",
        })
    }
}

/// How the replay as a whole ended.
#[derive(Debug, Default, Serialize)]
struct Verdict {
    records: u64,
    /// The octet where the file was cut short.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    corrupt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    different: Option<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records replayed", self.records)?;
        match (&self.different, &self.corrupt, self.cut) {
            (Some(different), ..) => write!(f, "; {different}"),
            (None, Some(corrupt), _) => write!(f, "; {corrupt}; what is behind it was not replayed"),
            (None, None, Some(cut)) => {
                write!(f, "; the file was cut short at octet {cut}, and is as recorded up to there")
            }
            (None, None, None) => f.write_str("; all is as recorded"),
        }
    }
}

/// Replays, and tells; false where the replay is not what was recorded.
pub(super) fn replay(asked: &Replay) -> anyhow::Result<bool> {
    let file = asked.file.display();
    let octets = std::fs::read(&asked.file).with_context(|| file.to_string())?;
    let mut teller = Teller { asked, text: String::new(), shown: false };
    let mut verdict = Verdict::default();
    let mut machine = match Machine::new(Bytes::from(octets), Instant::now()) {
        Ok(machine) => machine,
        Err(corrupt @ (Corrupt::NotARecording | Corrupt::Version(_) | Corrupt::Record(_))) => {
            bail!("{file}: {corrupt}")
        }
    };
    let mut last = Duration::ZERO;
    loop {
        match machine.poll() {
            Ok(Ok(step)) => {
                verdict.records += 1;
                last = last.max(step.at);
                teller.step(&step)?;
                if !step.same {
                    let (offset, time) = (step.offset, step.at.as_secs_f64());
                    let text = format!(
                        "what came of the record at octet {offset} ({time:.6} s, peer {}) is not what was recorded",
                        step.peer
                    );
                    teller.line(step.at, &step.peer, What::Different, None, text.clone())?;
                    verdict.different = Some(text);
                    break;
                }
            }
            Ok(Err(End::Whole)) => break,
            Ok(Err(End::Cut(at))) => {
                verdict.cut = Some(at);
                break;
            }
            Err(corrupt) => {
                verdict.corrupt = Some(corrupt.to_string());
                break;
            }
        }
    }
    for (peer, session) in machine.sessions() {
        let counters = session.counters();
        let text = format!(
            "{}; {} times Established, {} times lost, {} messages received, {} of them UPDATEs, {} malformed",
            session.state(),
            counters.established,
            counters.lost,
            counters.messages_received,
            counters.updates_received,
            counters.malformed_updates
        );
        teller.line(last, peer, What::Final, None, text)?;
    }
    let shown = teller.end(&verdict)?;
    let good = verdict.different.is_none() && verdict.corrupt.is_none();
    if let Some(peer) = asked.peer.as_ref().filter(|_| good && !shown) {
        bail!("{file}: no session with a peer {peer}");
    }
    Ok(good)
}

/// Prints in pieces, since a recording may be long.
struct Teller<'a> {
    asked: &'a Replay,
    text: String,
    /// Whether there was anything of the peer that was asked for.
    shown: bool,
}

impl Teller<'_> {
    fn line(
        &mut self,
        at: Duration,
        peer: &str,
        what: What,
        message: Option<&'static str>,
        text: String,
    ) -> anyhow::Result<()> {
        if self.asked.peer.as_ref().is_some_and(|asked| asked != peer) {
            return Ok(());
        }
        self.shown = true;
        let time = at.as_secs_f64();
        match self.asked.output {
            Form::Text => {
                let message = message.map(|message| format!("{message} ")).unwrap_or_default();
                // Writing to a String cannot fail, here and below.
                let line = format!("{time:12.6}  {peer}  {what:8}  {message}{text}");
                let _ = writeln!(self.text, "{}", line.trim_end());
            }
            Form::Json => {
                let line = serde_json::to_string(&Line { time, peer, what, message, text })?;
                let _ = writeln!(self.text, "{line}");
            }
        }
        if self.text.len() > 1 << 16 {
            output::print(&std::mem::take(&mut self.text))?;
        }
        Ok(())
    }

    fn end(mut self, verdict: &Verdict) -> anyhow::Result<bool> {
        let _ = match self.asked.output {
            Form::Text => writeln!(self.text, "{verdict}"),
            Form::Json => writeln!(self.text, "{}", serde_json::to_string(verdict)?),
        };
        output::print(&self.text)?;
        Ok(self.shown)
    }

    fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        let (at, peer) = (step.at, step.peer.as_str());
        match &step.input {
            Input::Octets(id, octets) => self.received(step, *id, octets)?,
            input => {
                if let Some(text) = describe(input) {
                    self.line(at, peer, What::Input, None, text)?;
                }
            }
        }
        for event in &step.events {
            let (what, text) = match event {
                Event::StateChanged { from, to } => (What::State, format!("{from} to {to}")),
                Event::Established(id, negotiated) => (
                    What::Event,
                    format!(
                        "established on connection {}: hold time {}, {:?}",
                        id.0, negotiated.hold_time, negotiated.families
                    ),
                ),
                Event::Down(reason) => (What::Event, format!("down: {reason}")),
                Event::Failed(reason) => (What::Event, format!("failed: {reason}")),
                // Told with the octets that it came in.
                Event::Update(..) => continue,
                Event::RefreshRequested(family) => (What::Event, format!("refresh of {family} asked for")),
                Event::RefreshBegan(family) => (What::Event, format!("refresh of {family} begins")),
                Event::RefreshEnded(family) => (What::Event, format!("refresh of {family} ends")),
            };
            self.line(at, peer, what, None, text)?;
        }
        for action in &step.actions {
            match action {
                Action::Connect(id) => {
                    self.line(at, peer, What::Event, None, format!("opens connection {}", id.0))?;
                }
                Action::Close(id) => {
                    self.line(at, peer, What::Event, None, format!("closes connection {}", id.0))?;
                }
                Action::Send(id, octets) => {
                    for frame in frames(octets) {
                        let kind = frame.kind;
                        self.line(at, peer, What::Sent, Some(name(kind)), on(*id, content(frame)))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn received(&mut self, step: &Step, id: ConnectionId, octets: &[u8]) -> anyhow::Result<()> {
        let (at, peer) = (step.at, step.peer.as_str());
        let mut updates = step.events.iter().filter_map(|event| match event {
            Event::Update(update, findings) => Some((update, findings.as_slice())),
            _ => None,
        });
        for frame in frames(octets) {
            let kind = frame.kind;
            let (text, findings): (String, &[Finding]) = if kind == MessageType::Update {
                match updates.next() {
                    Some((update, findings)) => (routes(update), findings),
                    None => ("not taken".to_owned(), &[]),
                }
            } else {
                (content(frame), &[])
            };
            self.line(at, peer, What::Received, Some(name(kind)), on(id, text))?;
            for Finding { verdict, attribute, reason } in findings {
                let text = format!("attribute {attribute}: {reason}: {verdict:?}");
                self.line(at, peer, What::Finding, None, text)?;
            }
        }
        Ok(())
    }
}

/// The messages that are whole, up to the first with a wrong header.
fn frames(octets: &[u8]) -> Vec<Frame> {
    let mut buffer = BytesMut::from(octets);
    std::iter::from_fn(|| Frame::poll(&mut buffer, MAX_EXTENDED_LENGTH).ok().flatten()).collect()
}

fn on(ConnectionId(id): ConnectionId, text: String) -> String {
    let space = if text.is_empty() { "" } else { " " };
    format!("{text}{space}(connection {id})")
}

fn name(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Open => "OPEN",
        MessageType::Update => "UPDATE",
        MessageType::Notification => "NOTIFICATION",
        MessageType::Keepalive => "KEEPALIVE",
        MessageType::RouteRefresh => "ROUTE-REFRESH",
    }
}

/// Of any message but UPDATE, whose form depends on what was negotiated.
fn content(frame: Frame) -> String {
    match Message::decode(frame, &CodecContext { enhanced_refresh: true, ..CodecContext::default() }) {
        Ok(Message::Open(Open { asn, hold_time, router_id, capabilities })) => {
            format!("AS {asn}, router ID {router_id}, hold time {hold_time}, {capabilities:?}")
        }
        Ok(Message::Update(update, _)) => routes(&update),
        Ok(Message::Notification(notification)) => notification.to_string(),
        Ok(Message::Keepalive) => String::new(),
        Ok(Message::RouteRefresh(refresh)) => format!("{} subtype {}", refresh.family, refresh.subtype),
        Ok(Message::RouteRefreshUnknownFamily { afi, safi }) => format!("AFI {afi} SAFI {safi}"),
        Err(notification) => format!("malformed: {notification}"),
    }
}

fn routes(update: &Update) -> String {
    let mut parts = Vec::new();
    for unreach in &update.unreach {
        parts.push(format!("withdraws {}", prefixes(&unreach.nlri)));
    }
    for reach in &update.reach {
        let next_hop = match reach.next_hop {
            NextHop::V4(address) => address.to_string(),
            NextHop::V6 { global, link_local: None } => global.to_string(),
            NextHop::V6 { global, link_local: Some(link_local) } => format!("{global} ({link_local})"),
        };
        parts.push(format!("announces {} via {next_hop}", prefixes(&reach.nlri)));
    }
    if !update.reach.is_empty() {
        let attributes = &update.attributes;
        parts.push(format!("AS path [{}]", attributes.as_path));
        parts.extend(attributes.med.map(|med| format!("MED {med}")));
        parts.extend(attributes.local_pref.map(|preference| format!("LOCAL_PREF {preference}")));
        if !attributes.communities.is_empty() {
            let communities: Vec<_> = attributes.communities.iter().map(ToString::to_string).collect();
            parts.push(format!("communities {}", communities.join(" ")));
        }
    }
    parts.extend(update.end_of_rib.map(|family| format!("End-of-RIB {family}")));
    parts.join(", ")
}

fn prefixes(nlri: &[Nlri]) -> String {
    let one = |Nlri { prefix, path_id }: &Nlri| match path_id {
        Some(id) => format!("{prefix} path {id}"),
        None => prefix.to_string(),
    };
    nlri.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// What went in, but for octets; `None` for what comes all the time and shows in what it leads to.
fn describe(input: &Input) -> Option<String> {
    let config = |config: &SessionConfig| {
        format!(
            "AS {} to AS {}, router ID {}, hold time {}",
            config.local_asn, config.peer_asn, config.router_id, config.hold_time
        )
    };
    Some(match input {
        Input::New(new) => format!("new session: {}", config(new)),
        Input::Config(new) => format!("changed: {}", config(new)),
        Input::Start => "start".to_owned(),
        Input::Stop(StopReason::Retain) => "stop, to be back".to_owned(),
        Input::Stop(StopReason::Cease(reason, text)) => format!("stop: {reason:?}: {text}"),
        Input::Stop(StopReason::HardReset(reason, text)) => format!("stop, hard reset: {reason:?}: {text}"),
        Input::Connected(id) => format!("connection {} stands", id.0),
        Input::ConnectFailed(id) => format!("connection {} cannot be had", id.0),
        Input::Accepted => "a connection of the peer".to_owned(),
        Input::Closed(id) => format!("connection {} is closed", id.0),
        Input::RestartComplete => "all routes are told".to_owned(),
        Input::RequestRefresh(family) => format!("refresh of {family} wanted"),
        Input::Octets(..) | Input::Timeout | Input::Sent => return None,
    })
}
