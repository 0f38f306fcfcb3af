//! `/metrics/probes`: what the probes of the containers that run have found so far.

use super::{Page, labels, number};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// The results of one probe of one container.
#[derive(Debug)]
pub(crate) struct Results {
    /// All labels but the result.
    labels: [(&'static str, String); 5],
    successful: AtomicU64,
    failed: AtomicU64,
}

impl Results {
    pub(crate) fn count(&self, successful: bool) {
        let counter = if successful { &self.successful } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The probes at work; one that has ended is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Probes(Mutex<Vec<Weak<Results>>>);

impl Probes {
    /// A new probe, of a kind in upstream's word.
    pub(crate) fn add(&self, kind: &str, namespace: &str, pod: &str, uid: &str, container: &str) -> Arc<Results> {
        let labels = [
            ("probe_type", kind.to_owned()),
            ("container", container.to_owned()),
            ("pod", pod.to_owned()),
            ("namespace", namespace.to_owned()),
            ("pod_uid", uid.to_owned()),
        ];
        let results = Arc::new(Results { labels, successful: AtomicU64::new(0), failed: AtomicU64::new(0) });
        let mut all = self.0.lock();
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&results));
        results
    }

    pub(crate) fn render(&self) -> String {
        let all: Vec<Arc<Results>> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        let samples = all.iter().flat_map(|results| {
            [("successful", &results.successful), ("failed", &results.failed)].map(|(result, counter)| {
                let mut pairs: Vec<(&str, &str)> = results.labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
                pairs.insert(1, ("result", result));
                (labels(&pairs), number(counter.load(Ordering::Relaxed)))
            })
        });
        // What has not happened is not told, as upstream has it.
        let samples = samples.filter(|(_, count)| *count > 0.0);
        let mut page = Page::default();
        let help = "How often a probe of a container that runs has passed or failed.";
        page.family("prober_probe_total", "counter", help, samples, None);
        page.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_told_while_it_is_there() {
        let probes = Probes::default();
        let (one, other) = (probes.add("Liveness", "n", "p", "u", "c"), probes.add("Readiness", "n", "p", "u", "d"));
        one.count(true);
        one.count(true);
        other.count(false);
        let text = probes.render();
        let line = "prober_probe_total{probe_type=\"Liveness\",result=\"successful\",container=\"c\",pod=\"p\",namespace=\"n\",pod_uid=\"u\"} 2";
        assert!(text.lines().any(|l| l == line), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
        drop((one, other));
        assert_eq!(probes.render(), "");
    }
}
