//! What is told while an addon is enabled or disabled: a line a step, to whoever asked and to the log.

use mini_config::admin::{Outcome, Step};
use tokio::sync::mpsc;

pub(super) struct Steps {
    addon: String,
    out: Option<mpsc::UnboundedSender<Step>>,
}

impl Steps {
    pub(super) fn new(addon: &str, out: Option<mpsc::UnboundedSender<Step>>) -> Self {
        Self { addon: addon.to_owned(), out }
    }

    pub(super) fn say(&self, text: String) {
        tracing::info!(addon = %self.addon, "{text}");
        self.send(Outcome::Step, text);
    }

    pub(super) fn warn(&self, text: String) {
        tracing::warn!(addon = %self.addon, "{text}");
        self.send(Outcome::Warning, text);
    }

    pub(super) fn done(&self, text: String) {
        tracing::info!(addon = %self.addon, "{text}");
        self.send(Outcome::Done, text);
    }

    pub(super) fn failed(&self, text: String) {
        tracing::error!(addon = %self.addon, "{text}");
        self.send(Outcome::Failed, text);
    }

    fn send(&self, outcome: Outcome, text: String) {
        if let Some(out) = &self.out {
            // Whoever asked may be gone.
            let _ = out.send(Step { addon: self.addon.clone(), outcome, text });
        }
    }
}
