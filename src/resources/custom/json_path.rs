//! JSONPath as printer columns use it: fields, indices, slices, wildcards, recursive descent and filters.

use serde_json::Value;

/// A path that has been read.
#[derive(Clone, Debug)]
pub(crate) struct JsonPath(Vec<Step>);

#[derive(Clone, Debug)]
enum Step {
    Field(String),
    /// `..name`; empty is `..*`.
    Descend(String),
    All,
    Slice(Option<i64>, Option<i64>, i64),
    Index(i64),
    Filter(Box<Filter>),
}

#[derive(Clone, Debug)]
struct Filter {
    left: Operand,
    /// Without one the left side must only be there.
    right: Option<(Comparison, Operand)>,
}

#[derive(Clone, Debug)]
enum Operand {
    Path(JsonPath),
    Literal(Value),
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// No cell shows more; one descent after another would find the same values over and over, without end.
const MOST_VALUES: usize = 1000;

impl JsonPath {
    /// Reads a path such as `.status.conditions[?(@.type=="Ready")].status`, without braces.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = text.trim();
        rest = rest.strip_prefix(['$', '@']).unwrap_or(rest);
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("..") {
                let (name, after) = name(after);
                steps.push(Step::Descend(if name == "*" { String::new() } else { name }));
                rest = after;
            } else if let Some(after) = rest.strip_prefix('.') {
                let (name, after) = name(after);
                match name.as_str() {
                    "" => {}
                    "*" => steps.push(Step::All),
                    _ => steps.push(Step::Field(name)),
                }
                rest = after;
            } else if let Some(after) = rest.strip_prefix('[') {
                let (inside, after) = bracket(after)?;
                steps.push(subscript(inside.trim())?);
                rest = after;
            } else {
                let (name, after) = name(rest);
                if name.is_empty() {
                    return None;
                }
                steps.push(Step::Field(name));
                rest = after;
            }
        }
        Some(Self(steps))
    }

    /// The values that the path leads to.
    pub(crate) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![value];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                if next.len() >= MOST_VALUES {
                    break;
                }
                step.apply(value, &mut next);
            }
            found = next;
        }
        found
    }
}

impl Step {
    fn apply<'a>(&self, value: &'a Value, out: &mut Vec<&'a Value>) {
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => out.extend(map.get(name)),
            (Self::Descend(name), _) => descend(name, value, out),
            (Self::All, Value::Object(map)) => out.extend(map.values()),
            (Self::All, Value::Array(items)) => out.extend(items),
            (Self::Index(i), Value::Array(items)) => out.extend(at(*i, items.len()).and_then(|i| items.get(i))),
            (Self::Slice(from, to, step), Value::Array(items)) => {
                let bound = |n: &Option<i64>, otherwise: usize| {
                    n.map_or(otherwise, |n| at(n, items.len()).unwrap_or(if n < 0 { 0 } else { items.len() }))
                };
                let (from, to) = (bound(from, 0), bound(to, items.len()));
                let step = usize::try_from(*step).unwrap_or(1).max(1);
                out.extend(items.iter().take(to).skip(from).step_by(step));
            }
            (Self::Filter(filter), Value::Array(items)) => out.extend(items.iter().filter(|item| filter.holds(item))),
            _ => {}
        }
    }
}

impl Filter {
    fn holds(&self, value: &Value) -> bool {
        let left = self.left.of(value);
        let Some((comparison, right)) = &self.right else { return left.is_some() };
        let (Some(left), Some(right)) = (left, right.of(value)) else { return false };
        let order = match (left, right) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            _ => None,
        };
        match comparison {
            Comparison::Equal => order.is_some_and(|o| o.is_eq()),
            Comparison::NotEqual => order.is_none_or(|o| o.is_ne()),
            Comparison::Less => order.is_some_and(|o| o.is_lt()),
            Comparison::LessOrEqual => order.is_some_and(|o| o.is_le()),
            Comparison::Greater => order.is_some_and(|o| o.is_gt()),
            Comparison::GreaterOrEqual => order.is_some_and(|o| o.is_ge()),
        }
    }
}

impl Operand {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(quoted) = unquote(text) {
            return Some(Self::Literal(quoted.into()));
        }
        match serde_json::from_str(text) {
            Ok(literal) => Some(Self::Literal(literal)),
            Err(_) => JsonPath::parse(text).map(Self::Path),
        }
    }

    fn of<'a>(&'a self, value: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Literal(literal) => Some(literal),
            Self::Path(path) => path.find(value).first().copied(),
        }
    }
}

/// A name up to the next separator; a backslash takes what follows as it is.
fn name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' | ' ' => return (name, text.get(i..).unwrap_or_default()),
            c => name.push(c),
        }
    }
    (name, "")
}

/// What is inside a bracket, up to its end, and what comes after.
fn bracket(text: &str) -> Option<(&str, &str)> {
    let (mut depth, mut quote) = (0, None);
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[' | '(') => depth += 1,
            (None, ')') => depth -= 1,
            (None, ']') if depth == 0 => return Some((text.get(..i)?, text.get(i + 1..)?)),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn unquote(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inside = text.strip_prefix(quote)?.strip_suffix(quote)?;
    Some(inside.replace(&format!("\\{quote}"), &quote.to_string()))
}

fn subscript(inside: &str) -> Option<Step> {
    if inside == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        return filter_of(filter).map(|f| Step::Filter(Box::new(f)));
    }
    if let Some(name) = unquote(inside) {
        return Some(Step::Field(name));
    }
    if inside.contains(':') {
        let mut bounds = inside.split(':').map(|n| match n.trim() {
            "" => Some(None),
            n => n.parse().ok().map(Some),
        });
        let mut bound = || bounds.next().unwrap_or(Some(None));
        return Some(Step::Slice(bound()?, bound()?, bound()?.unwrap_or(1)));
    }
    inside.parse().ok().map(Step::Index)
}

fn filter_of(text: &str) -> Option<Filter> {
    const OPERATORS: [(&str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let mut quote = None;
    for (i, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, _) => {
                let rest = text.get(i..)?;
                let Some((word, comparison)) = OPERATORS.iter().find(|(word, _)| rest.starts_with(word)) else {
                    continue;
                };
                let right = Operand::parse(rest.strip_prefix(word)?)?;
                return Some(Filter { left: Operand::parse(text.get(..i)?)?, right: Some((*comparison, right)) });
            }
        }
    }
    Some(Filter { left: Operand::parse(text)?, right: None })
}

/// An index from the end where it is negative; `None` outside.
fn at(i: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let i = if i < 0 { length + i } else { i };
    usize::try_from(i).ok().filter(|_| i < length)
}

fn descend<'a>(name: &str, value: &'a Value, out: &mut Vec<&'a Value>) {
    let children: Vec<(Option<&str>, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(k, v)| (Some(k.as_str()), v)).collect(),
        Value::Array(items) => items.iter().map(|v| (None, v)).collect(),
        _ => return,
    };
    for (key, child) in children {
        if name.is_empty() || key == Some(name) {
            out.push(child);
        }
        descend(name, child, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_columns() {
        let object = json!({"metadata": {"annotations": {"a.b/c": "d"}}, "spec": {"list": [1, 2, 3], "n": 5},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Old", "status": "False", "n": 2}]}});
        for (path, want) in [
            (".spec.n", json!([5])),
            ("$.spec.n", json!([5])),
            (".spec.missing", json!([])),
            (".spec.list[0]", json!([1])),
            (".spec.list[-1]", json!([3])),
            (".spec.list[1:]", json!([2, 3])),
            (".spec.list[7]", json!([])),
            (".spec.list[*]", json!([1, 2, 3])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type == 'Old')].status", json!(["False"])),
            (".status.conditions[?(@.n>1)].type", json!(["Old"])),
            (".status.conditions[?(@.n)].type", json!(["Old"])),
            (r".metadata.annotations.a\.b/c", json!(["d"])),
            (".metadata.annotations['a.b/c']", json!(["d"])),
            ("..status", json!([object["status"], "True", "False"])),
        ] {
            let found = JsonPath::parse(path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(json!(found.find(&object)), want, "{path}");
        }
        assert!(JsonPath::parse(".a[").is_none());
    }
}
