//! The health board: each component keeps its own line true.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What a component is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// Not ready yet; the text completes "waiting …", such as "for containerd to answer on its socket".
    Waiting(String),
    /// Not ready, and it will not be without somebody's help; one sentence that says what to do.
    Failed(String),
}

/// One line of the board.
#[derive(Clone, Debug)]
pub struct ComponentStatus {
    pub name: &'static str,
    pub state: State,
}

/// The board. Clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    lines: Arc<Mutex<Vec<ComponentStatus>>>,
    changed: watch::Sender<u64>,
}

impl Default for Health {
    fn default() -> Self {
        Self { lines: Arc::default(), changed: watch::Sender::new(0) }
    }
}

impl Health {
    /// A new line, waiting to be started.
    #[must_use]
    pub fn component(&self, name: &'static str) -> Component {
        let component = Component { board: self.clone(), name };
        component.set(State::Waiting("to be started".to_owned()));
        component
    }

    /// All lines in the order of their making.
    #[must_use]
    pub fn snapshot(&self) -> Vec<ComponentStatus> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True once every component is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.snapshot().iter().all(|line| line.state == State::Ready)
    }

    /// Resolves at each change of the board.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

/// One component's handle on its line.
#[derive(Clone, Debug)]
pub struct Component {
    board: Health,
    name: &'static str,
}

impl Component {
    pub fn ready(&self) {
        self.set(State::Ready);
    }

    pub fn waiting(&self, what: impl Into<String>) {
        self.set(State::Waiting(what.into()));
    }

    pub fn failed(&self, why: impl Into<String>) {
        self.set(State::Failed(why.into()));
    }

    fn set(&self, state: State) {
        let mut lines = self.board.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match lines.iter_mut().find(|line| line.name == self.name) {
            Some(line) if line.state == state => return,
            Some(line) => line.state = state,
            None => lines.push(ComponentStatus { name: self.name, state }),
        }
        drop(lines);
        self.board.changed.send_modify(|n| *n += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_board_is_ready_when_every_line_is() {
        let board = Health::default();
        let (a, b) = (board.component("a"), board.component("b"));
        a.ready();
        assert!(!board.is_ready());
        b.ready();
        assert!(board.is_ready());
        b.waiting("for rain");
        assert_eq!(board.snapshot()[1].state, State::Waiting("for rain".into()));
    }
}
