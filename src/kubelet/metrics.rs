//! What Prometheus asks of a node: four pages under upstream's paths, with upstream's names.
//!
//! Nothing is gathered between two questions: figures are read when asked for, and what happens is only counted.

mod cadvisor;
mod kubelet;
pub(crate) mod operations;
pub(crate) mod probes;

pub(crate) use cadvisor::render as cadvisor;
pub(crate) use kubelet::render as kubelet;

use std::fmt::Write;

/// A sample: its labels as they are written, and its value.
pub(crate) type Sample = (String, f64);

/// A page in Prometheus' text form.
#[derive(Default)]
pub(crate) struct Page(String);

impl Page {
    /// Adds the samples of one name; nothing where there are none. `millis` is when they were taken, if not just now.
    pub(crate) fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample>,
        millis: Option<i64>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = match millis {
                Some(millis) => writeln!(self.0, "{name}{labels} {value} {millis}"),
                None => writeln!(self.0, "{name}{labels} {value}"),
            };
        }
    }

    /// Adds a name that has one sample without labels.
    pub(crate) fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help, [(String::new(), value)], None);
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// Labels as they stand behind a name.
pub(crate) fn labels(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", pairs.join(","))
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Prometheus' numbers are floating ones.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let mut page = Page::default();
        page.family("nothing", "gauge", "No samples.", [], None);
        page.family("a_total", "counter", "Some.", [(labels(&[("x", "a\"b\\\n"), ("y", "")]), 1.5)], Some(7));
        page.one("b", "gauge", "One.", 2.0);
        let want = "# HELP a_total Some.\n# TYPE a_total counter\na_total{x=\"a\\\"b\\\\\\n\",y=\"\"} 1.5 7\n\
                    # HELP b One.\n# TYPE b gauge\nb 2\n";
        assert_eq!(page.finish(), want);
    }
}
