//! Our own contestant: a program that embeds `plainroute-speaker`, as small as it gets.
//!
//! It waits for one peer, and does what the lines on its standard input say. What it is timed by it notes itself,
//! right before the call into the library or right after it was told, so that the pipe does not count.
use std::collections::BTreeMap;
use std::io::BufRead;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use plainroute_bgp::policy::Action;
use plainroute_bgp::{AfiSafi, Asn, Families, HoldTime, Prefix, RouterId};
use plainroute_speaker::{
    FamilyStatus, ImportRule, OriginAttributes, Originated, PeerConfig, PeerName, RouteChange, Speaker,
    SpeakerConfig,
};
use tokio::sync::mpsc;

use crate::clock::Moment;
use crate::site::{self, HOST};
use crate::wire::{Family, HOLD_TIME, Numbering};

/// Starts a speaker with one peer and takes commands from standard input.
#[derive(Args, Clone, Debug)]
pub(crate) struct Speak {
    /// The host number of the peer.
    #[arg(long)]
    peer: u8,
    #[arg(long, value_enum, default_value_t = Family::V4)]
    family: Family,
    /// What may enter.
    #[arg(long, value_enum, default_value_t = Import::Nothing)]
    import: Import,
}

/// What may enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Import {
    /// There is no rule, so nothing.
    Nothing,
    /// Everything, not for the kernel.
    Everything,
    /// A rule rejects it.
    Rejected,
}

impl Import {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Import::Nothing => "nothing",
            Import::Everything => "everything",
            Import::Rejected => "rejected",
        }
    }

    fn rules(self, family: Family) -> Result<Vec<ImportRule>> {
        let (all, longest) = match family {
            Family::V4 => ("0.0.0.0/0", 32),
            Family::V6 => ("::/0", 128),
        };
        let rule = ImportRule { le: Some(longest), install: false, ..ImportRule::new(all.parse()?) };
        Ok(match self {
            Import::Nothing => Vec::new(),
            Import::Everything => vec![rule],
            Import::Rejected => vec![ImportRule { action: Action::Reject, ..rule }],
        })
    }
}

/// Whose routes they are.
const OWNER: &str = "bench";

struct Contestant {
    speaker: Speaker,
    peer: PeerName,
    family: Family,
    attributes: Arc<OriginAttributes>,
}

impl Speak {
    /// Runs until standard input ends.
    pub(crate) fn run(&self) -> Result<()> {
        // As the agent does: on a worker, where waking another task is no matter of two threads.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(runtime.spawn(self.clone().serve()))?
    }

    async fn serve(self) -> Result<()> {
        let peer = PeerName::from("peer");
        let speaker = Speaker::start(SpeakerConfig::default());
        let config = PeerConfig {
            local_address: Some(site::address(self.family, HOST)),
            passive: true,
            listen_port: 179,
            hold_time: HoldTime::new(HOLD_TIME).context("a hold time")?,
            families: Families::from_iter([afi_safi(self.family)]),
            import: self.import.rules(self.family)?,
            ..PeerConfig::new(
                Asn::new(site::asn(HOST)).context("an AS")?,
                Asn::new(site::asn(self.peer)).context("an AS")?,
                RouterId::new(site::router_id(HOST).to_bits()).context("an identifier")?,
                site::address(self.family, self.peer),
            )
        };
        speaker.initial_sync_done();
        speaker.apply(BTreeMap::from([(peer.clone(), config)])).await?;
        let contestant = Contestant { speaker, peer, family: self.family, attributes: Arc::default() };
        let (sender, mut lines) = mpsc::channel(16);
        std::thread::spawn(move || {
            let lines = std::io::stdin().lock().lines().map_while(Result::ok);
            lines.map(|line| sender.blocking_send(line)).take_while(Result::is_ok).count()
        });
        while let Some(line) = lines.recv().await {
            match contestant.obey(&line).await {
                Ok(moment) => println!("{}", moment.0),
                Err(error) => println!("error: {error:#}"),
            }
        }
        Ok(())
    }
}

impl Contestant {
    async fn obey(&self, line: &str) -> Result<Moment> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["originate", count] => Ok(self.originate(0..count.parse()?).await),
            ["add", from, to] => Ok(self.update(from.parse()?..to.parse()?, true).await),
            ["remove", from, to] => Ok(self.update(from.parse()?..to.parse()?, false).await),
            ["held", count] => self.reached(count.parse()?, |status| status.accepted as u64).await,
            ["rejected", count] => self.reached(count.parse()?, |status| status.rejected).await,
            _ => bail!("what is `{line}`?"),
        }
    }

    async fn originate(&self, numbers: Range<u32>) -> Moment {
        let routes = numbers.map(|number| self.route(number)).collect();
        let begin = Moment::now();
        self.speaker.originate(OWNER, routes).await;
        begin
    }

    async fn update(&self, numbers: Range<u32>, there: bool) -> Moment {
        let change = |number| {
            let Originated { peer, prefix, attributes } = self.route(number);
            RouteChange { peer, prefix, attributes: there.then_some(attributes) }
        };
        let changes = numbers.map(change).collect();
        let begin = Moment::now();
        self.speaker.update(OWNER, changes).await;
        begin
    }

    fn route(&self, number: u32) -> Originated {
        let prefix = match self.family {
            Family::V4 => Prefix::v4(Numbering::Hosts4.v4(number), 32),
            Family::V6 => Prefix::v6(Numbering::v6(number), 128),
        };
        Originated {
            peer: self.peer.clone(),
            prefix: prefix.expect("no bits beyond the length"),
            attributes: Arc::clone(&self.attributes),
        }
    }

    /// Waits until the status counts so many; more would be wrong.
    async fn reached(&self, wanted: u64, count: impl Fn(&FamilyStatus) -> u64) -> Result<Moment> {
        let family = afi_safi(self.family);
        let counted = |peers: &plainroute_speaker::Peers| {
            peers.get(&self.peer).and_then(|status| status.families.get(&family)).map_or(0, &count)
        };
        let mut peers = self.speaker.peers();
        let reached = peers.wait_for(|peers| counted(peers) >= wanted).await;
        let (now, seen) = (Moment::now(), counted(&*reached.context("the speaker stopped")?));
        anyhow::ensure!(seen == wanted, "{seen} instead of {wanted}");
        Ok(now)
    }
}

fn afi_safi(family: Family) -> AfiSafi {
    match family {
        Family::V4 => AfiSafi::Ipv4Unicast,
        Family::V6 => AfiSafi::Ipv6Unicast,
    }
}
