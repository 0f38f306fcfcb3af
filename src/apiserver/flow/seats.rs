//! Who has a seat and who waits. One lock; nothing here blocks.

use super::policy::Policy;
use super::{Refusal, Seat};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

pub(super) struct Seats {
    total: usize,
    pub(super) levels: BTreeMap<Arc<str>, LevelState>,
    /// Reading and mutating requests that have a seat.
    pub(super) in_flight: [usize; 2],
    /// Counts what was ever dispatched: who was served longest ago is next among equals.
    clock: u64,
}

#[derive(Default)]
pub(super) struct LevelState {
    /// Its share; zero for an exempt level and for one that is gone.
    pub(super) nominal: usize,
    /// What it never lends, and what it may have with all that others lend.
    least: usize,
    most: usize,
    /// Not exempt.
    limited: bool,
    /// How many may wait in all, and of one flow.
    room: Option<(usize, usize)>,
    executing: usize,
    flows: BTreeMap<(Arc<str>, String), FlowState>,
    pub(super) counts: BTreeMap<Arc<str>, Counts>,
}

#[derive(Default)]
struct FlowState {
    executing: usize,
    waiting: VecDeque<Waiting>,
    served: u64,
}

struct Waiting {
    mutating: bool,
    reply: oneshot::Sender<Seat>,
}

/// Of one schema in a level.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) executing: usize,
    pub(super) dispatched: u64,
    pub(super) refused: BTreeMap<Refusal, u64>,
}

/// What a request has, or waits for.
pub(super) struct Place {
    pub(super) level: Arc<str>,
    pub(super) schema: Arc<str>,
    pub(super) of: String,
    pub(super) mutating: bool,
}

/// What becomes of a request.
pub(super) enum Entry {
    Seat(Place),
    Wait(oneshot::Receiver<Seat>),
    Refused(Refusal),
}

impl LevelState {
    pub(super) fn waiting_of(&self, schema: &str) -> usize {
        self.flows.iter().filter(|((own, _), _)| **own == *schema).map(|(_, flow)| flow.waiting.len()).sum()
    }

    fn waiting(&self) -> usize {
        self.flows.values().map(|flow| flow.waiting.len()).sum()
    }

    /// Seats that others cannot have.
    fn kept(&self) -> usize {
        if self.limited { self.executing.max(self.least) } else { 0 }
    }

    /// Forgets those who no longer wait, and flows of which nothing is left.
    fn tidy(&mut self) {
        self.flows.retain(|_, flow| {
            flow.waiting.retain(|waiting| !waiting.reply.is_closed());
            flow.executing > 0 || !flow.waiting.is_empty()
        });
    }
}

impl Seats {
    pub(super) fn new(total: usize) -> Self {
        Self { total, levels: BTreeMap::new(), in_flight: [0; 2], clock: 0 }
    }

    /// Shares the seats anew.
    pub(super) fn follow(&mut self, policy: &Policy) {
        self.levels.retain(|name, state| {
            (state.nominal, state.least, state.most, state.limited) = (0, 0, 0, false);
            state.executing > 0 || state.waiting() > 0 || policy.levels.iter().any(|level| level.name == *name)
        });
        let limited = || policy.levels.iter().filter_map(|level| Some((level, level.limited.as_ref()?)));
        let shares = limited().map(|(_, limited)| limited.nominal_concurrency_shares).sum::<usize>().max(1);
        for level in &policy.levels {
            self.levels.entry(level.name.clone()).or_default();
        }
        for (level, limited) in limited() {
            let Some(state) = self.levels.get_mut(&level.name) else { continue };
            let nominal = (self.total * limited.nominal_concurrency_shares).div_ceil(shares);
            let percent = |percent: usize| nominal.saturating_mul(percent) / 100;
            state.limited = true;
            state.nominal = nominal;
            state.least = nominal - percent(limited.lendable_percent).min(nominal);
            state.most = limited.borrowing_limit_percent.map_or(self.total, |limit| nominal + percent(limit)).max(1);
            state.room = limited.room();
        }
    }

    /// Whether a level may have one more: it keeps within what it may borrow, and every other can still have its least.
    fn may_start(&self, name: &str) -> bool {
        let Some(level) = self.levels.get(name) else { return true };
        if !level.limited {
            return true;
        }
        let others: usize = self.levels.iter().filter(|(other, _)| ***other != *name).map(|(_, l)| l.kept()).sum();
        // Shares are rounded up: the sum of what is kept may be a little more than there is.
        level.executing < level.least
            || level.executing < level.most && others + level.executing.max(level.least) < self.total
    }

    /// Who is patient is never refused.
    pub(super) fn enter(&mut self, place: Place, patient: bool) -> Entry {
        let level = self.levels.entry(place.level.clone()).or_default();
        // Nobody overtakes those of their own level.
        let first = !level.limited || level.waiting() == 0;
        if first && self.may_start(&place.level) {
            self.start(&place);
            return Entry::Seat(place);
        }
        let level = self.levels.entry(place.level).or_default();
        let key = (place.schema.clone(), place.of);
        let refusal = match level.room {
            _ if patient => None,
            None => Some(Refusal::ConcurrencyLimit),
            Some((all, one)) => {
                let full = |level: &LevelState| {
                    level.waiting() >= all || level.flows.get(&key).is_some_and(|flow| flow.waiting.len() >= one)
                };
                if full(level) {
                    level.tidy();
                }
                full(level).then_some(Refusal::QueueFull)
            }
        };
        let counts = level.counts.entry(place.schema).or_default();
        if let Some(refusal) = refusal {
            *counts.refused.entry(refusal).or_default() += 1;
            return Entry::Refused(refusal);
        }
        let (reply, ticket) = oneshot::channel();
        level.flows.entry(key).or_default().waiting.push_back(Waiting { mutating: place.mutating, reply });
        Entry::Wait(ticket)
    }

    fn start(&mut self, place: &Place) {
        self.clock += 1;
        self.in_flight[usize::from(place.mutating)] += 1;
        let level = self.levels.entry(place.level.clone()).or_default();
        level.executing += 1;
        let counts = level.counts.entry(place.schema.clone()).or_default();
        counts.executing += 1;
        counts.dispatched += 1;
        if level.limited {
            let flow = level.flows.entry((place.schema.clone(), place.of.clone())).or_default();
            flow.executing += 1;
            flow.served = self.clock;
        }
    }

    /// A request is answered.
    pub(super) fn leave(&mut self, place: &Place) {
        self.in_flight[usize::from(place.mutating)] -= 1;
        let Some(level) = self.levels.get_mut(&place.level) else { return };
        level.executing -= 1;
        if let Some(counts) = level.counts.get_mut(&place.schema) {
            counts.executing -= 1;
        }
        let key = (place.schema.clone(), place.of.clone());
        if let Some(flow) = level.flows.get_mut(&key) {
            // It may have had its seat while the level was exempt.
            flow.executing = flow.executing.saturating_sub(1);
            if flow.executing == 0 && flow.waiting.is_empty() {
                level.flows.remove(&key);
            }
        }
    }

    /// Gives free seats to those who wait.
    pub(super) fn dispatch(&mut self, shared: &Arc<Mutex<Self>>) {
        loop {
            // The level that has the least of its share is first.
            let next = self
                .levels
                .iter()
                .filter(|(name, level)| level.flows.values().any(|f| !f.waiting.is_empty()) && self.may_start(name))
                .min_by_key(|(_, level)| level.executing * 1000 / level.nominal.max(1))
                .map(|(name, _)| name.clone());
            let Some(name) = next else { return };
            let Some(level) = self.levels.get_mut(&name) else { return };
            let flow = level.flows.iter_mut().filter(|(_, flow)| !flow.waiting.is_empty());
            let Some((key, flow)) = flow.min_by_key(|(_, flow)| (flow.executing, flow.served)) else { return };
            let Some(Waiting { mutating, reply }) = flow.waiting.pop_front() else { return };
            let (schema, of) = key.clone();
            if reply.is_closed() {
                if flow.executing == 0 && flow.waiting.is_empty() {
                    level.flows.remove(&(schema, of));
                }
                continue;
            }
            let place = Place { level: name, schema, of, mutating };
            self.start(&place);
            let seat = Seat { seats: shared.clone(), place: Some(place) };
            if let Err(mut seat) = reply.send(seat)
                && let Some(place) = seat.place.take()
            {
                // Gone at this very moment.
                self.leave(&place);
            }
        }
    }

    /// A request has waited for too long.
    pub(super) fn gave_up(&mut self, level: &Arc<str>, schema: &Arc<str>) {
        let Some(level) = self.levels.get_mut(level) else { return };
        level.tidy();
        let counts = level.counts.entry(schema.clone()).or_default();
        *counts.refused.entry(Refusal::TimeOut).or_default() += 1;
    }

    pub(super) fn waiting(&self, mutating: bool) -> usize {
        let flows = self.levels.values().flat_map(|level| level.flows.values());
        flows.flat_map(|flow| &flow.waiting).filter(|waiting| waiting.mutating == mutating).count()
    }
}
