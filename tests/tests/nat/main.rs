//! Egress in a real kernel: each test has namespaces of its own, runs the nat task in one of them, and asks `nft`,
//! `conntrack` and the packets themselves, never the task, what becomes of them.
mod flows;
mod net;
mod node;
mod scale;
mod sources;
mod table;
