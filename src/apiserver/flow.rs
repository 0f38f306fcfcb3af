//! Who may be answered now: upstream's priority and fairness, by the FlowSchemas and PriorityLevelConfigurations in the store.
//!
//! Every request belongs to a flow (a user or a namespace) of a schema, and that to a level. A level has a share of all
//! seats; what it may lend, others use while it does not. Where seats are missing, flows wait, and the one that has the
//! fewest seats is next: one client cannot starve another, and none the node. Long-running requests have no seat, but a
//! watch has one while it begins.

pub(crate) mod bodies;
mod policy;
mod seats;

use crate::authz::feed::Feed;
use crate::metrics::{Kind, Text};
use crate::{RequestInfo, UserInfo};
use http::{HeaderMap, HeaderName, HeaderValue};
use mini_store::Store;
use parking_lot::{Mutex, RwLock};
use policy::{Level, Policy, Schema};
use seats::{Entry, Place, Seats};
use std::sync::Arc;
use std::time::Duration;

/// Seats in all: upstream's 400 reading and 200 mutating requests.
const SEATS: usize = 600;
/// How long a request may wait for one: a quarter of what it may take.
const PATIENCE: Duration = Duration::from_secs(15);

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Lets requests in.
pub(crate) struct FlowControl {
    store: Store,
    feeds: Mutex<[Feed; 2]>,
    policy: RwLock<Arc<Policy>>,
    seats: Arc<Mutex<Seats>>,
}

/// Where a request belongs.
pub(crate) struct Flow {
    schema: Arc<Schema>,
    level: Arc<Level>,
    /// The user or namespace that is told from others; empty if the schema tells none.
    of: String,
}

/// Why a request is sent away, as upstream's metrics have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    /// The level does not queue.
    ConcurrencyLimit,
    QueueFull,
    TimeOut,
}

impl Refusal {
    fn as_str(self) -> &'static str {
        match self {
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
        }
    }
}

/// A request that is being answered. Must not be dropped under the lock.
pub(crate) struct Seat {
    seats: Arc<Mutex<Seats>>,
    /// None: given back already.
    place: Option<Place>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            let mut seats = self.seats.lock();
            seats.leave(&place);
            seats.dispatch(&self.seats);
        }
    }
}

impl FlowControl {
    pub(crate) fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            feeds: Mutex::new([policy::SCHEMAS, policy::LEVELS].map(Feed::new)),
            policy: RwLock::default(),
            seats: Arc::new(Mutex::new(Seats::new(SEATS))),
        }
    }

    /// The policy as the store has it now.
    fn current(&self) -> Arc<Policy> {
        let mut feeds = self.feeds.lock();
        // Each is drained, whatever the other says.
        let changed = feeds.each_mut().map(|feed| feed.drain(&self.store, |_| {}));
        if changed.contains(&true) {
            let policy = Arc::new(Policy::read(&self.store.snapshot()));
            let mut seats = self.seats.lock();
            seats.follow(&policy);
            seats.dispatch(&self.seats);
            drop(seats);
            *self.policy.write() = policy;
        }
        drop(feeds);
        self.policy.read().clone()
    }

    /// The flow of a request; `None` for long-running ones, and while there is no policy yet.
    pub(crate) fn classify(&self, user: &UserInfo, info: &RequestInfo) -> Option<Flow> {
        if info.long_running() && info.verb != "watch" {
            return None;
        }
        self.current().classify(user, info)
    }

    /// Waits for a seat. Who is patient waits as long as it takes: mini's own components, which would take a refusal for
    /// one of what they want, and have no limit of their own to how much they ask at once.
    ///
    /// # Errors
    /// There is none, and none came in time.
    pub(crate) async fn enter(&self, flow: &Flow, mutating: bool, patient: bool) -> Result<Seat, Refusal> {
        let (level, schema) = (flow.level.name.clone(), flow.schema.name.clone());
        let place = Place { level, schema, of: flow.of.clone(), mutating };
        let entry = self.seats.lock().enter(place, patient);
        match entry {
            Entry::Seat(place) => Ok(Seat { seats: self.seats.clone(), place: Some(place) }),
            Entry::Refused(refusal) => Err(refusal),
            Entry::Wait(ticket) => {
                match tokio::time::timeout(if patient { Duration::MAX } else { PATIENCE }, ticket).await {
                    Ok(Ok(seat)) => Ok(seat),
                    _ => {
                        self.seats.lock().gave_up(&flow.level.name, &flow.schema.name);
                        Err(Refusal::TimeOut)
                    }
                }
            }
        }
    }

    /// Requests that have seats, whether counted against a limit or not: reading, mutating.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        let seats = self.seats.lock();
        (seats.in_flight[0], seats.in_flight[1])
    }

    pub(crate) fn write_metrics(&self, out: &mut Text) {
        let seats = self.seats.lock();
        let mut samples = Vec::new();
        for (level, state) in &seats.levels {
            for (schema, count) in &state.counts {
                samples.push(([("flow_schema", &**schema), ("priority_level", &**level)], state, count));
            }
        }
        out.family("apiserver_current_inqueue_requests", Kind::Gauge, "Requests that wait for a seat.");
        for (index, kind) in [(1, "mutating"), (0, "readOnly")] {
            out.sample(&[("request_kind", kind)], seats.waiting(index == 1) as u64);
        }
        out.family("apiserver_flowcontrol_current_executing_requests", Kind::Gauge, "Requests that have a seat.");
        for (labels, _, count) in &samples {
            out.sample(labels, count.executing as u64);
        }
        out.family("apiserver_flowcontrol_current_inqueue_requests", Kind::Gauge, "Requests that wait for a seat.");
        for (labels, state, _) in &samples {
            out.sample(labels, state.waiting_of(labels[0].1) as u64);
        }
        out.family("apiserver_flowcontrol_dispatched_requests_total", Kind::Counter, "Requests that got a seat.");
        for (labels, _, count) in &samples {
            out.sample(labels, count.dispatched);
        }
        out.family("apiserver_flowcontrol_rejected_requests_total", Kind::Counter, "Requests that were sent away.");
        for (labels, _, count) in &samples {
            for (refusal, times) in &count.refused {
                let labels = [labels[0], labels[1], ("reason", refusal.as_str())];
                out.sample(&labels, *times);
            }
        }
        out.family("apiserver_flowcontrol_nominal_limit_seats", Kind::Gauge, "The share of a level.");
        for (level, state) in &seats.levels {
            out.sample(&[("priority_level", level)], state.nominal as u64);
        }
    }
}

impl Flow {
    /// Tells the client how it was classified.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        for (name, uid) in [(SCHEMA_UID, &self.schema.uid), (LEVEL_UID, &self.level.uid)] {
            if let Ok(value) = HeaderValue::from_str(uid) {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
