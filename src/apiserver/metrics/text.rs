//! Prometheus' text format, version 0.0.4.

use super::Histogram;
use std::fmt::{Display, Write};

/// The type of a family.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A text that grows family by family. Writing into a String cannot fail.
#[derive(Default)]
pub(crate) struct Text {
    out: String,
    name: &'static str,
}

impl Text {
    /// Begins a family: the samples that follow are its.
    pub(crate) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.name = name;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, None, value);
    }

    pub(super) fn histogram<const N: usize>(&mut self, labels: &[(&str, &str)], histogram: &Histogram<N>) {
        let mut sum = 0;
        for (bound, count) in histogram.bounds.iter().zip(histogram.counts) {
            sum += count;
            self.line("_bucket", labels, Some(&bound.to_string()), sum);
        }
        self.line("_bucket", labels, Some("+Inf"), histogram.count);
        self.line("_sum", labels, None, histogram.sum);
        self.line("_count", labels, None, histogram.count);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>, value: impl Display) {
        let _ = write!(self.out, "{}{suffix}", self.name);
        let mut before = '{';
        for (name, text) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            let _ = write!(self.out, "{before}{name}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    other => self.out.push(other),
                }
            }
            self.out.push('"');
            before = ',';
        }
        let end = if before == ',' { "}" } else { "" };
        let _ = writeln!(self.out, "{end} {value}");
    }

    /// Whole families that others wrote.
    pub(super) fn append(&mut self, families: &str) {
        self.out.push_str(families);
    }

    pub(super) fn finish(self) -> String {
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_parsers_read_them() {
        let mut text = Text::default();
        text.family("a_total", Kind::Counter, "Of all.");
        text.sample(&[], 3);
        text.sample(&[("x", "q\"\\\n"), ("y", "")], 0.5);
        let mut histogram = Histogram::new(&[0.5, 1.0]);
        histogram.observe(0.7);
        text.family("h", Kind::Histogram, "How long.");
        text.histogram(&[("x", "y")], &histogram);
        assert_eq!(
            text.finish(),
            "# HELP a_total Of all.\n# TYPE a_total counter\na_total 3\na_total{x=\"q\\\"\\\\\\n\",y=\"\"} 0.5\n\
             # HELP h How long.\n# TYPE h histogram\nh_bucket{x=\"y\",le=\"0.5\"} 0\nh_bucket{x=\"y\",le=\"1\"} 1\n\
             h_bucket{x=\"y\",le=\"+Inf\"} 1\nh_sum{x=\"y\"} 0.7\nh_count{x=\"y\"} 1\n"
        );
    }
}
