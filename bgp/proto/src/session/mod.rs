//! The session: one peer, both TCP connections of a collision (RFC 4271 sections 6.8 and 8).
