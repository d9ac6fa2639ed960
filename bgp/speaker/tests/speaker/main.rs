//! Speakers against each other, each test in a network namespace of its own.
mod dynamic;
mod monitoring;
mod network;
mod paths;
mod peers;
mod pmacct;
mod record;
mod restart;
mod routes;
mod security;
mod tcp_ao;
