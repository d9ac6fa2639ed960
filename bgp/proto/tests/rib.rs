//! The RIBs seen from outside: what leaves as bytes, and what a peer makes of it.
#[path = "rib/adj_rib_in.rs"]
mod adj_rib_in;
#[path = "rib/end_of_rib.rs"]
mod end_of_rib;
#[path = "rib/model.rs"]
mod model;
#[path = "rib/packing.rs"]
mod packing;
#[path = "rib/peer.rs"]
mod peer;
