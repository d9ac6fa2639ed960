//! Numbers of the kernel's headers: nfnetlink.h, nf_tables.h, netfilter.h.

pub(super) const NFNL_SUBSYS_NFTABLES: u16 = 10;
pub(super) const NFNL_MSG_BATCH_BEGIN: u16 = 16;
pub(super) const NFNL_MSG_BATCH_END: u16 = 17;
pub(super) const NFNLGRP_NFTABLES: u32 = 7;
pub(super) const NFPROTO_INET: u8 = 1;
pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_IPV6: u8 = 10;

/// Kinds of nf_tables' messages, with the subsystem.
const fn nft(message: u16) -> u16 {
    NFNL_SUBSYS_NFTABLES << 8 | message
}
pub(super) const NEWTABLE: u16 = nft(0);
pub(super) const GETTABLE: u16 = nft(1);
pub(super) const DELTABLE: u16 = nft(2);
pub(super) const NEWCHAIN: u16 = nft(3);
pub(super) const GETCHAIN: u16 = nft(4);
pub(super) const DELCHAIN: u16 = nft(5);
pub(super) const NEWRULE: u16 = nft(6);
pub(super) const DELRULE: u16 = nft(8);
pub(super) const NEWSET: u16 = nft(9);
pub(super) const GETSET: u16 = nft(10);
pub(super) const DELSET: u16 = nft(11);
pub(super) const NEWSETELEM: u16 = nft(12);
pub(super) const GETSETELEM: u16 = nft(13);
pub(super) const DELSETELEM: u16 = nft(14);
pub(super) const NEWGEN: u16 = nft(15);
pub(super) const NEWOBJ: u16 = nft(18);
pub(super) const GETOBJ: u16 = nft(19);
pub(super) const DELOBJ: u16 = nft(20);

pub(super) const NFTA_LIST_ELEM: u16 = 1;
/// The same number for tables, chains, rules, sets, elements and objects.
pub(super) const NFTA_TABLE: u16 = 1;
pub(super) const NFTA_TABLE_USERDATA: u16 = 6;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_HOOK: u16 = 4;
pub(super) const NFTA_CHAIN_POLICY: u16 = 5;
pub(super) const NFTA_CHAIN_TYPE: u16 = 7;
pub(super) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(super) const NFTA_HOOK_PRIORITY: u16 = 2;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_RULE_USERDATA: u16 = 7;
pub(super) const NFTA_SET_NAME: u16 = 2;
pub(super) const NFTA_SET_FLAGS: u16 = 3;
pub(super) const NFTA_SET_KEY_TYPE: u16 = 4;
pub(super) const NFTA_SET_KEY_LEN: u16 = 5;
pub(super) const NFTA_SET_DATA_TYPE: u16 = 6;
pub(super) const NFTA_SET_DATA_LEN: u16 = 7;
pub(super) const NFTA_SET_ID: u16 = 10;
pub(super) const NFTA_SET_USERDATA: u16 = 13;
pub(super) const NFT_SET_INTERVAL: u32 = 4;
pub(super) const NFT_SET_MAP: u32 = 8;
pub(super) const NFT_SET_OBJECT: u32 = 64;
pub(super) const NFTA_SET_OBJ_TYPE: u16 = 15;
pub(super) const NFTA_SET_ELEM_OBJREF: u16 = 9;
pub(super) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(super) const NFTA_SET_ELEM_KEY: u16 = 1;
pub(super) const NFTA_SET_ELEM_DATA: u16 = 2;
pub(super) const NFTA_SET_ELEM_FLAGS: u16 = 3;
pub(super) const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;
pub(super) const NFTA_VERDICT_CODE: u16 = 1;
pub(super) const NFTA_VERDICT_CHAIN: u16 = 2;
pub(super) const NF_DROP: u32 = 0;
pub(super) const NF_ACCEPT: u32 = 1;
pub(super) const NFT_GOTO: u32 = (-4i32).cast_unsigned();
/// The type of a map's data when it is a verdict.
pub(super) const NFT_DATA_VERDICT: u32 = 0xffff_ff00;
pub(super) const NFTA_OBJ_NAME: u16 = 2;
pub(super) const NFTA_OBJ_TYPE: u16 = 3;
pub(super) const NFTA_OBJ_DATA: u16 = 4;
pub(super) const NFT_OBJECT_COUNTER: u32 = 1;
pub(super) const NFTA_COUNTER_BYTES: u16 = 1;
pub(super) const NFTA_COUNTER_PACKETS: u16 = 2;

pub(super) const NF_INET_PRE_ROUTING: u32 = 0;
pub(super) const NF_INET_POST_ROUTING: u32 = 4;

/// Names that `nft` gives to types of keys and data; the kernel only keeps the numbers (nft's datatype.h).
pub(super) const TYPE_IPADDR: u32 = 7;
pub(super) const TYPE_IP6ADDR: u32 = 8;
pub(super) const TYPE_IFNAME: u32 = 41;
