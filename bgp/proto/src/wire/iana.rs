//! Code points of the IANA registries that Plainroute knows, each once, with the names that operators read.
//!
//! Source: the IANA registries "Border Gateway Protocol (BGP) Parameters" and "Capability Codes".

/// The type of a message (RFC 4271 section 4.1, RFC 2918).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// OPEN.
    Open = 1,
    /// UPDATE.
    Update = 2,
    /// NOTIFICATION.
    Notification = 3,
    /// KEEPALIVE.
    Keepalive = 4,
    /// ROUTE-REFRESH (RFC 2918).
    RouteRefresh = 5,
}

impl MessageType {
    /// The type with this code.
    pub const fn from_code(code: u8) -> Option<MessageType> {
        match code {
            1 => Some(MessageType::Open),
            2 => Some(MessageType::Update),
            3 => Some(MessageType::Notification),
            4 => Some(MessageType::Keepalive),
            5 => Some(MessageType::RouteRefresh),
            _ => None,
        }
    }

    /// The code point.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Attribute type codes.
pub mod attribute {
    /// ORIGIN (RFC 4271).
    pub const ORIGIN: u8 = 1;
    /// AS_PATH (RFC 4271).
    pub const AS_PATH: u8 = 2;
    /// NEXT_HOP (RFC 4271).
    pub const NEXT_HOP: u8 = 3;
    /// MULTI_EXIT_DISC (RFC 4271).
    pub const MED: u8 = 4;
    /// LOCAL_PREF (RFC 4271).
    pub const LOCAL_PREF: u8 = 5;
    /// ATOMIC_AGGREGATE (RFC 4271).
    pub const ATOMIC_AGGREGATE: u8 = 6;
    /// AGGREGATOR (RFC 4271).
    pub const AGGREGATOR: u8 = 7;
    /// COMMUNITIES (RFC 1997).
    pub const COMMUNITIES: u8 = 8;
    /// ORIGINATOR_ID (RFC 4456).
    pub const ORIGINATOR_ID: u8 = 9;
    /// CLUSTER_LIST (RFC 4456).
    pub const CLUSTER_LIST: u8 = 10;
    /// MP_REACH_NLRI (RFC 4760).
    pub const MP_REACH_NLRI: u8 = 14;
    /// MP_UNREACH_NLRI (RFC 4760).
    pub const MP_UNREACH_NLRI: u8 = 15;
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    /// AS4_PATH (RFC 6793).
    pub const AS4_PATH: u8 = 17;
    /// AS4_AGGREGATOR (RFC 6793).
    pub const AS4_AGGREGATOR: u8 = 18;
    /// PMSI_TUNNEL (RFC 6514).
    pub const PMSI_TUNNEL: u8 = 22;
    /// Tunnel Encapsulation (RFC 9012).
    pub const TUNNEL_ENCAPSULATION: u8 = 23;
    /// IPv6 Address Specific Extended Communities (RFC 5701).
    pub const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    /// AIGP (RFC 7311).
    pub const AIGP: u8 = 26;
    /// BGP-LS (RFC 9552).
    pub const LINK_STATE: u8 = 29;
    /// LARGE_COMMUNITY (RFC 8092).
    pub const LARGE_COMMUNITIES: u8 = 32;
    /// Only to Customer (RFC 9234).
    pub const ONLY_TO_CUSTOMER: u8 = 35;
    /// BGP Prefix-SID (RFC 8669).
    pub const PREFIX_SID: u8 = 40;
}

/// Attribute flags (RFC 4271 section 4.3).
pub mod flag {
    /// The attribute is optional, not well-known.
    pub const OPTIONAL: u8 = 0x80;
    /// The attribute is passed on.
    pub const TRANSITIVE: u8 = 0x40;
    /// Someone on the way did not understand it.
    pub const PARTIAL: u8 = 0x20;
    /// The length has two octets.
    pub const EXTENDED_LENGTH: u8 = 0x10;
}

/// Capability codes (RFC 5492).
pub mod capability {
    /// Multiprotocol Extensions (RFC 4760).
    pub const MULTI_PROTOCOL: u8 = 1;
    /// Route Refresh (RFC 2918).
    pub const ROUTE_REFRESH: u8 = 2;
    /// Extended Next Hop Encoding (RFC 8950).
    pub const EXTENDED_NEXT_HOP: u8 = 5;
    /// BGP Extended Message (RFC 8654).
    pub const EXTENDED_MESSAGE: u8 = 6;
    /// BGP Role (RFC 9234).
    pub const ROLE: u8 = 9;
    /// Graceful Restart (RFC 4724).
    pub const GRACEFUL_RESTART: u8 = 64;
    /// 4-octet AS number (RFC 6793).
    pub const FOUR_OCTET_ASN: u8 = 65;
    /// ADD-PATH (RFC 7911).
    pub const ADD_PATH: u8 = 69;
    /// Enhanced Route Refresh (RFC 7313).
    pub const ENHANCED_ROUTE_REFRESH: u8 = 70;
    /// Long-Lived Graceful Restart (RFC 9494).
    pub const LONG_LIVED_GRACEFUL_RESTART: u8 = 71;
}

/// Optional parameter types of an OPEN.
pub mod parameter {
    /// Capabilities (RFC 5492).
    pub const CAPABILITIES: u8 = 2;
    /// Extended length (RFC 9072).
    pub const EXTENDED_LENGTH: u8 = 255;
}

/// Error codes and subcodes of a NOTIFICATION.
pub mod error {
    /// Message Header Error (RFC 4271).
    pub const HEADER: u8 = 1;
    /// OPEN Message Error (RFC 4271).
    pub const OPEN: u8 = 2;
    /// UPDATE Message Error (RFC 4271).
    pub const UPDATE: u8 = 3;
    /// Hold Timer Expired (RFC 4271).
    pub const HOLD_TIMER_EXPIRED: u8 = 4;
    /// Finite State Machine Error (RFC 4271, RFC 6608).
    pub const FSM: u8 = 5;
    /// Cease (RFC 4271, RFC 4486).
    pub const CEASE: u8 = 6;
    /// ROUTE-REFRESH Message Error (RFC 7313).
    pub const ROUTE_REFRESH: u8 = 7;
    /// Send Hold Timer Expired (RFC 9687).
    pub const SEND_HOLD_TIMER_EXPIRED: u8 = 8;

    /// No subcode says it better.
    pub const UNSPECIFIC: u8 = 0;

    /// Header: Connection Not Synchronized.
    pub const NOT_SYNCHRONIZED: u8 = 1;
    /// Header: Bad Message Length.
    pub const BAD_MESSAGE_LENGTH: u8 = 2;
    /// Header: Bad Message Type.
    pub const BAD_MESSAGE_TYPE: u8 = 3;

    /// OPEN: Unsupported Version Number.
    pub const UNSUPPORTED_VERSION: u8 = 1;
    /// OPEN: Bad Peer AS.
    pub const BAD_PEER_AS: u8 = 2;
    /// OPEN: Bad BGP Identifier.
    pub const BAD_BGP_IDENTIFIER: u8 = 3;
    /// OPEN: Unsupported Optional Parameter.
    pub const UNSUPPORTED_OPTIONAL_PARAMETER: u8 = 4;
    /// OPEN: Unacceptable Hold Time.
    pub const UNACCEPTABLE_HOLD_TIME: u8 = 6;
    /// OPEN: Unsupported Capability (RFC 5492).
    pub const UNSUPPORTED_CAPABILITY: u8 = 7;
    /// OPEN: Role Mismatch (RFC 9234).
    pub const ROLE_MISMATCH: u8 = 11;

    /// UPDATE: Malformed Attribute List.
    pub const MALFORMED_ATTRIBUTE_LIST: u8 = 1;
    /// UPDATE: Unrecognized Well-known Attribute.
    pub const UNRECOGNIZED_WELL_KNOWN: u8 = 2;
    /// UPDATE: Missing Well-known Attribute.
    pub const MISSING_WELL_KNOWN: u8 = 3;
    /// UPDATE: Attribute Flags Error.
    pub const ATTRIBUTE_FLAGS: u8 = 4;
    /// UPDATE: Attribute Length Error.
    pub const ATTRIBUTE_LENGTH: u8 = 5;
    /// UPDATE: Invalid ORIGIN Attribute.
    pub const INVALID_ORIGIN: u8 = 6;
    /// UPDATE: Invalid NEXT_HOP Attribute.
    pub const INVALID_NEXT_HOP: u8 = 8;
    /// UPDATE: Optional Attribute Error.
    pub const OPTIONAL_ATTRIBUTE: u8 = 9;
    /// UPDATE: Invalid Network Field.
    pub const INVALID_NETWORK: u8 = 10;
    /// UPDATE: Malformed AS_PATH.
    pub const MALFORMED_AS_PATH: u8 = 11;

    /// FSM: unexpected message in OpenSent (RFC 6608).
    pub const UNEXPECTED_IN_OPEN_SENT: u8 = 1;
    /// FSM: unexpected message in OpenConfirm (RFC 6608).
    pub const UNEXPECTED_IN_OPEN_CONFIRM: u8 = 2;
    /// FSM: unexpected message in Established (RFC 6608).
    pub const UNEXPECTED_IN_ESTABLISHED: u8 = 3;

    /// ROUTE-REFRESH: Invalid Message Length (RFC 7313).
    pub const REFRESH_LENGTH: u8 = 1;

    /// The name of an error code; `None` where the registry has none that we know.
    pub const fn name(code: u8) -> Option<&'static str> {
        Some(match code {
            HEADER => "Message Header Error",
            OPEN => "OPEN Message Error",
            UPDATE => "UPDATE Message Error",
            HOLD_TIMER_EXPIRED => "Hold Timer Expired",
            FSM => "Finite State Machine Error",
            CEASE => "Cease",
            ROUTE_REFRESH => "ROUTE-REFRESH Message Error",
            SEND_HOLD_TIMER_EXPIRED => "Send Hold Timer Expired",
            _ => return None,
        })
    }

    /// The name of a subcode under its code.
    pub const fn subcode_name(code: u8, subcode: u8) -> Option<&'static str> {
        Some(match (code, subcode) {
            (HEADER | OPEN | FSM, UNSPECIFIC) => "Unspecific",
            (HEADER, NOT_SYNCHRONIZED) => "Connection Not Synchronized",
            (HEADER, BAD_MESSAGE_LENGTH) => "Bad Message Length",
            (HEADER, BAD_MESSAGE_TYPE) => "Bad Message Type",
            (OPEN, UNSUPPORTED_VERSION) => "Unsupported Version Number",
            (OPEN, BAD_PEER_AS) => "Bad Peer AS",
            (OPEN, BAD_BGP_IDENTIFIER) => "Bad BGP Identifier",
            (OPEN, UNSUPPORTED_OPTIONAL_PARAMETER) => "Unsupported Optional Parameter",
            (OPEN, UNACCEPTABLE_HOLD_TIME) => "Unacceptable Hold Time",
            (OPEN, UNSUPPORTED_CAPABILITY) => "Unsupported Capability",
            (OPEN, ROLE_MISMATCH) => "Role Mismatch",
            (UPDATE, MALFORMED_ATTRIBUTE_LIST) => "Malformed Attribute List",
            (UPDATE, UNRECOGNIZED_WELL_KNOWN) => "Unrecognized Well-known Attribute",
            (UPDATE, MISSING_WELL_KNOWN) => "Missing Well-known Attribute",
            (UPDATE, ATTRIBUTE_FLAGS) => "Attribute Flags Error",
            (UPDATE, ATTRIBUTE_LENGTH) => "Attribute Length Error",
            (UPDATE, INVALID_ORIGIN) => "Invalid ORIGIN Attribute",
            (UPDATE, INVALID_NEXT_HOP) => "Invalid NEXT_HOP Attribute",
            (UPDATE, OPTIONAL_ATTRIBUTE) => "Optional Attribute Error",
            (UPDATE, INVALID_NETWORK) => "Invalid Network Field",
            (UPDATE, MALFORMED_AS_PATH) => "Malformed AS_PATH",
            (FSM, UNEXPECTED_IN_OPEN_SENT) => "Unexpected Message in OpenSent State",
            (FSM, UNEXPECTED_IN_OPEN_CONFIRM) => "Unexpected Message in OpenConfirm State",
            (FSM, UNEXPECTED_IN_ESTABLISHED) => "Unexpected Message in Established State",
            (CEASE, 1) => "Maximum Number of Prefixes Reached",
            (CEASE, 2) => "Administrative Shutdown",
            (CEASE, 3) => "Peer De-configured",
            (CEASE, 4) => "Administrative Reset",
            (CEASE, 5) => "Connection Rejected",
            (CEASE, 6) => "Other Configuration Change",
            (CEASE, 7) => "Connection Collision Resolution",
            (CEASE, 8) => "Out of Resources",
            (CEASE, 9) => "Hard Reset",
            (CEASE, 10) => "BFD Down",
            (ROUTE_REFRESH, REFRESH_LENGTH) => "Invalid Message Length",
            _ => return None,
        })
    }
}
