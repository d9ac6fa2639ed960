//! The raw peer: a TCP connection, a handshake, and octets as the test likes them.
//!
//! Only OPEN, KEEPALIVE and what comes back go through `plainroute_bgp::wire`; UPDATEs are put together here, so
//! that a fault of the encoder cannot hide one of the decoder.
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use plainroute_bgp::{
    AfiSafi, HoldTime, RouterId,
    session::State,
    wire::{Capability, CodecContext, Frame, Message, Notification, Open, encode_keepalive},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::site::{DEADLINE, Site, Sort, address, asn};

/// Flags, type code, value.
pub(crate) type Attribute = (u8, u8, Vec<u8>);

pub(crate) const OPEN: u8 = 1;
pub(crate) const UPDATE: u8 = 2;
pub(crate) const NOTIFICATION: u8 = 3;
pub(crate) const KEEPALIVE: u8 = 4;
pub(crate) const ROUTE_REFRESH: u8 = 5;

/// What every marker route is: announced to show that the session still takes routes.
pub(crate) const MARKER: &str = "198.51.100.0/24";
const MARKER_OCTETS: [u8; 4] = [24, 198, 51, 100];

pub(crate) struct RawPeer {
    pub(crate) number: u8,
    pub(crate) sort: Sort,
    pub(crate) stream: TcpStream,
    input: BytesMut,
    /// Differs with each marker.
    markers: u32,
}

impl RawPeer {
    /// A TCP connection to the site, silent.
    pub(crate) async fn connect(site: &Site, number: u8) -> Result<RawPeer> {
        RawPeer::connect_with(site, number, TcpSocket::new_v4()?).await
    }

    pub(crate) async fn connect_with(site: &Site, number: u8, socket: TcpSocket) -> Result<RawPeer> {
        socket.set_reuseaddr(true)?;
        socket.bind(address(number))?;
        let stream = socket.connect((Ipv4Addr::new(127, 0, 0, 1), site.port).into()).await?;
        stream.set_nodelay(true)?;
        let sort = site.sorts[&number];
        Ok(RawPeer { number, sort, stream, input: BytesMut::new(), markers: 0 })
    }

    /// An Established session.
    pub(crate) async fn establish(site: &Site, number: u8) -> Result<RawPeer> {
        let mut peer = RawPeer::connect(site, number).await?;
        let open = encoded(&peer.open());
        peer.handshake(site, &open).await?;
        Ok(peer)
    }

    /// What a peer of this sort says in its OPEN.
    pub(crate) fn open(&self) -> Open {
        let families = AfiSafi::ALL.into_iter().map(Capability::MultiProtocol);
        let more = [Capability::RouteRefresh, Capability::FourOctetAsn(asn(self.sort))];
        Open {
            asn: asn(self.sort),
            hold_time: HoldTime::new(90).unwrap(),
            router_id: RouterId::new(Ipv4Addr::new(10, 0, 1, self.number).to_bits()).unwrap(),
            capabilities: families.chain(more).collect(),
        }
    }

    /// Sends the OPEN and what follows until the speaker says that the session stands.
    pub(crate) async fn handshake(&mut self, site: &Site, open: &[u8]) -> Result<()> {
        self.send(open).await?;
        match (self.next().await?, self.next().await?) {
            (Some(Message::Open(_)), Some(Message::Keepalive)) => {}
            other => bail!("instead of OPEN and KEEPALIVE: {other:?}"),
        }
        self.send(&keepalive()).await?;
        site.wait(self.number, |status| status.state == State::Established).await?;
        Ok(())
    }

    pub(crate) async fn send(&mut self, octets: &[u8]) -> Result<()> {
        timeout(DEADLINE, self.stream.write_all(octets)).await.context("the speaker does not read")??;
        Ok(())
    }

    /// The next message; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Result<Option<Message>> {
        let context = CodecContext { internal: self.sort == Sort::Internal, ..CodecContext::default() };
        loop {
            if let Some(frame) = Frame::poll(&mut self.input, 4096)? {
                return Ok(Some(Message::decode(frame, &context)?));
            }
            let read = timeout(DEADLINE, self.stream.read_buf(&mut self.input)).await;
            match read.context("the speaker says nothing")? {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) => return Err(error).context("reading what the speaker says"),
            }
        }
    }

    /// Reads on until the speaker's NOTIFICATION, after which the connection must end.
    pub(crate) async fn refusal(&mut self) -> Result<Notification> {
        loop {
            match self.next().await? {
                Some(Message::Notification(notification)) => {
                    let more = self.next().await?;
                    ensure!(more.is_none(), "after {notification}: {more:?}");
                    return Ok(notification);
                }
                Some(_) => {}
                None => bail!("the connection ended without a NOTIFICATION"),
            }
        }
    }

    /// Reads on until the end, which must come without a NOTIFICATION.
    pub(crate) async fn silent_end(&mut self) -> Result<()> {
        while let Some(message) = self.next().await? {
            ensure!(!matches!(message, Message::Notification(_)), "was answered by {message:?}");
        }
        Ok(())
    }

    /// Closes the connection and waits until the speaker has noticed.
    pub(crate) async fn leave(self, site: &Site) -> Result<()> {
        let (number, lost) = (self.number, site.status(self.number).counters.lost);
        drop(self);
        site.wait(number, |status| status.counters.lost > lost).await?;
        Ok(())
    }

    /// Announces a marker route and waits until it has arrived, on the session that stands now.
    pub(crate) async fn marker_arrives(&mut self, site: &Site) -> Result<()> {
        self.markers += 1;
        let med = (0x80, 4, self.markers.to_be_bytes().to_vec());
        let before = site.status(self.number).counters;
        let update = update(&[], &attributes(&with(self.sort, med)), &MARKER_OCTETS);
        self.send(&update).await?;
        site.taken(self.number, before.updates_received + 1, before.lost).await?;
        let route = site.route(self.number, MARKER).await.context("the marker route did not come in")?;
        ensure!(route.attributes.med == Some(self.markers), "an old marker route: {route:?}");
        Ok(())
    }

    /// Sends an UPDATE that must not end the session, and waits until it was taken in. With whether RFC 7606 found
    /// something in it.
    pub(crate) async fn update(&mut self, site: &Site, update: &[u8]) -> Result<bool> {
        let before = site.status(self.number).counters;
        self.send(update).await?;
        let after = site.taken(self.number, before.updates_received + 1, before.lost).await?.counters;
        Ok(after.malformed_updates > before.malformed_updates)
    }

    /// Sends octets that must end the session by this NOTIFICATION, and connects anew. With the data of the
    /// NOTIFICATION.
    pub(crate) async fn is_refused(
        &mut self,
        site: &Site,
        octets: &[u8],
        expected: (u8, u8),
    ) -> Result<Vec<u8>> {
        let lost = site.status(self.number).counters.lost;
        self.send(octets).await?;
        let refusal = self.refusal().await?;
        ensure!((refusal.code, refusal.subcode) == expected, "{refusal} instead of {expected:?}");
        site.wait(self.number, |status| status.counters.lost == lost + 1).await?;
        *self = RawPeer { markers: self.markers, ..RawPeer::establish(site, self.number).await? };
        Ok(refusal.data.to_vec())
    }
}

pub(crate) fn encoded(open: &Open) -> Vec<u8> {
    let mut out = BytesMut::new();
    open.encode(&mut out);
    out.to_vec()
}

pub(crate) fn keepalive() -> Vec<u8> {
    let mut out = BytesMut::new();
    encode_keepalive(&mut out);
    out.to_vec()
}

/// A message with a right header.
pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap();
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

/// An UPDATE whose length fields are right.
pub(crate) fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    message(UPDATE, &update_body(withdrawn, attributes, nlri))
}

pub(crate) fn update_body(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = |field: &[u8]| u16::try_from(field.len()).unwrap().to_be_bytes();
    [&length(withdrawn), withdrawn, &length(attributes), attributes, nlri].concat()
}

/// What a valid UPDATE of a peer of this sort has: ORIGIN, AS_PATH, NEXT_HOP and within an AS LOCAL_PREF.
pub(crate) fn valid(sort: Sort) -> Vec<Attribute> {
    let mut list =
        vec![(0x40, 1, vec![0]), (0x40, 2, vec![2, 1, 0, 0, 0xfd, 0xe9]), (0x40, 3, vec![10, 0, 0, 1])];
    if sort == Sort::Internal {
        list.push((0x40, 5, vec![0, 0, 0, 100]));
    }
    list
}

/// The valid list with `attribute` in the place of its like, or at the end.
pub(crate) fn with(sort: Sort, attribute: Attribute) -> Vec<Attribute> {
    let mut list = valid(sort);
    match list.iter().position(|(_, code, _)| *code == attribute.1) {
        Some(at) => list[at] = attribute,
        None => list.push(attribute),
    }
    list
}

/// The list as octets; values of more than 255 get the extended length.
pub(crate) fn attributes(list: &[Attribute]) -> Vec<u8> {
    let mut out = Vec::new();
    for (flags, code, value) in list {
        match u8::try_from(value.len()) {
            Ok(length) => out.extend([*flags, *code, length]),
            Err(_) => {
                let [high, low] = u16::try_from(value.len()).unwrap().to_be_bytes();
                out.extend([flags | 0x10, *code, high, low]);
            }
        }
        out.extend_from_slice(value);
    }
    out
}
