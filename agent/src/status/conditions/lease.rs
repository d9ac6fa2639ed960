//! Who writes: the holder of a Lease, as client-go's leader election has it. Pure; time goes in as a value. A Lease is over
//! when it was not renewed for its duration by our own clock, since the clocks of two nodes differ.
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};

/// The Lease's name.
pub(super) const NAME: &str = "plainroute-status";
/// For how long it stands without being renewed.
const DURATION: Duration = Duration::from_secs(15);
/// How often its holder renews it.
pub(super) const RENEW: Duration = Duration::from_secs(5);

/// When to look again for who does not hold it. Thousands of agents look at one Lease, so not all at once.
pub(super) fn wait(chance: f64) -> Duration {
    DURATION + DURATION.mul_f64(chance)
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Somebody else holds it.
    Wait,
    /// Write this.
    Write(LeaseSpec),
}

/// One who would hold the Lease.
#[derive(Debug)]
pub(super) struct Candidate {
    name: String,
    /// What was seen last of another's, and since when it is the same.
    seen: Option<(Option<MicroTime>, Instant)>,
    holds: bool,
}

impl Candidate {
    pub(super) fn new(name: String) -> Candidate {
        Candidate { name, seen: None, holds: false }
    }

    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// The Lease as it is.
    pub(super) fn handle_lease(&mut self, lease: Option<&LeaseSpec>, now: Instant) -> Step {
        let time = MicroTime(Timestamp::now());
        let holder =
            lease.and_then(|lease| lease.holder_identity.as_deref()).filter(|holder| !holder.is_empty());
        let taken = |transitions| LeaseSpec {
            holder_identity: Some(self.name.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(time.clone()),
            renew_time: Some(time.clone()),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        let transitions = lease.and_then(|lease| lease.lease_transitions).unwrap_or_default();
        let Some((lease, holder)) = lease.zip(holder) else { return Step::Write(taken(transitions)) };
        if holder == self.name {
            return Step::Write(LeaseSpec { renew_time: Some(time), ..lease.clone() });
        }
        self.holds = false;
        match &self.seen {
            Some((renewed, since)) if *renewed == lease.renew_time => {
                if now < *since + DURATION {
                    return Step::Wait;
                }
                Step::Write(taken(transitions.saturating_add(1)))
            }
            Some(_) | None => {
                self.seen = Some((lease.renew_time.clone(), now));
                Step::Wait
            }
        }
    }

    /// It was written: it is ours.
    pub(super) fn handle_written(&mut self) {
        self.holds = true;
        self.seen = None;
    }

    /// It could not be written, or nobody knows.
    pub(super) fn handle_failure(&mut self) {
        self.holds = false;
    }
}
