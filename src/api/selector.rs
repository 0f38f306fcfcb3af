//! Label selectors: the query syntax of lists and the `LabelSelector` of objects. Field selectors are beside them.
//!
//! Messages follow `k8s.io/apimachinery/pkg/labels` and `fields`, because clients show them.

mod field;

pub use field::{FieldSelector, FieldTerm};

use crate::field::{FieldError, FieldPath};
use crate::names;
use serde_json::{Map, Value};
use std::fmt;

/// Relation of one label to the values of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`, `==` and `in`.
    In,
    /// `!=` and `notin`; an absent label satisfies it.
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted, without repetition.
    values: Vec<String>,
}

impl Requirement {
    /// Checks key, values and their number against the operator.
    ///
    /// # Errors
    /// Upstream's message for a malformed requirement.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, String> {
        let path = FieldPath::new("values");
        let shown = |values: &[String]| Value::from(values.to_vec());
        let mut errors = Vec::new();
        let messages = names::is_qualified_name(key);
        if !messages.is_empty() {
            errors.push(FieldError::invalid(&FieldPath::new("key"), key, messages.join("; ")));
        }
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => errors.push(FieldError::invalid(
                &path,
                shown(&values),
                "for 'in', 'notin' operators, values set can't be empty",
            )),
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => errors.push(FieldError::invalid(
                &path,
                shown(&values),
                "values set must be empty for exists and does not exist",
            )),
            Operator::GreaterThan | Operator::LessThan => match values.as_slice() {
                [one] if one.parse::<i64>().is_ok() => {}
                [one] => errors.push(FieldError::invalid(
                    &path.index(0),
                    one.as_str(),
                    "for 'Gt', 'Lt' operators, the value must be an integer",
                )),
                _ => errors.push(FieldError::invalid(
                    &path,
                    shown(&values),
                    "for 'Gt', 'Lt' operators, exactly one value is required",
                )),
            },
            _ => {}
        }
        for (i, value) in values.iter().enumerate() {
            let messages = names::is_label_value(value);
            if !messages.is_empty() {
                errors.push(FieldError::invalid(&path.index(i).key(key), value.as_str(), messages.join("; ")));
            }
        }
        if !errors.is_empty() {
            return Err(aggregate(&errors));
        }
        values.sort();
        values.dedup();
        Ok(Self { key: key.to_owned(), operator, values })
    }

    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether the label, absent when `None`, satisfies this.
    #[must_use]
    pub fn matches(&self, label: Option<&str>) -> bool {
        let contains = |label: &str| self.values.iter().any(|v| v == label);
        let compare = |wanted: fn(&i64, &i64) -> bool| {
            let number = |s: &str| s.parse::<i64>().ok();
            let bound = self.values.first().and_then(|v| number(v));
            matches!((label.and_then(number), bound), (Some(a), Some(b)) if wanted(&a, &b))
        };
        match self.operator {
            Operator::In => label.is_some_and(contains),
            Operator::NotIn => !label.is_some_and(contains),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => compare(i64::gt),
            Operator::LessThan => compare(i64::lt),
        }
    }
}

fn aggregate(errors: &[FieldError]) -> String {
    match errors {
        [one] => one.to_string(),
        many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match (self.operator, self.values.as_slice()) {
            (Operator::In, [one]) => write!(f, "{key}={one}"),
            (Operator::NotIn, [one]) => write!(f, "{key}!={one}"),
            (Operator::In, many) => write!(f, "{key} in ({})", many.join(",")),
            (Operator::NotIn, many) => write!(f, "{key} notin ({})", many.join(",")),
            (Operator::Exists, _) => f.write_str(key),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
            (Operator::GreaterThan, many) => write!(f, "{key}>{}", many.concat()),
            (Operator::LessThan, many) => write!(f, "{key}<{}", many.concat()),
        }
    }
}

/// Conditions on labels, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// An absent `LabelSelector` selects nothing; an empty one everything.
    nothing: bool,
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn nothing() -> Self {
        Self { nothing: true, requirements: Vec::new() }
    }

    /// The query syntax: `a=b,c!=d,e in (f,g),!h,i`.
    ///
    /// # Errors
    /// Upstream's message for what cannot be understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut requirements = Parser { tokens: lex(text)?, next: 0 }.parse()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { nothing: false, requirements })
    }

    /// A `meta/v1.LabelSelector`: `matchLabels` and `matchExpressions`. `null` selects nothing.
    ///
    /// # Errors
    /// Upstream's message for a malformed requirement.
    pub fn from_value(value: &Value) -> Result<Self, String> {
        if value.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = Vec::new();
        if let Some(labels) = value.get("matchLabels").and_then(Value::as_object) {
            requirements = equalities(labels)?;
        }
        for expression in value.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            let values = expression.get("values").and_then(Value::as_array);
            let values = values.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect();
            requirements.push(Requirement::new(text("key"), operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { nothing: false, requirements })
    }

    /// A plain map of labels, as Services and ReplicationControllers have it. An empty map selects everything: a
    /// caller to which an empty selector means "none" checks that first.
    ///
    /// # Errors
    /// Upstream's message for a malformed label.
    pub fn from_map(labels: &Map<String, Value>) -> Result<Self, String> {
        Ok(Self { nothing: false, requirements: equalities(labels)? })
    }

    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    #[must_use]
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches_with(|key| labels?.get(key)?.as_str())
    }

    /// As [`Self::matches`], for labels kept in another kind of map.
    #[must_use]
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }
}

fn equalities(labels: &Map<String, Value>) -> Result<Vec<Requirement>, String> {
    let one = |value: &Value| vec![value.as_str().unwrap_or_default().to_owned()];
    labels.iter().map(|(key, value)| Requirement::new(key, Operator::In, one(value))).collect()
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.requirements.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A word, which may be `in` or `notin`.
    Word(String),
    Symbol(&'static str),
}

const SYMBOLS: [&str; 9] = ["!=", "==", "!", "=", ",", "(", ")", ">", "<"];

fn lex(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(blank);
    while !rest.is_empty() {
        if let Some(symbol) = SYMBOLS.iter().find(|s| rest.starts_with(**s)) {
            tokens.push(Token::Symbol(symbol));
            rest = rest.get(symbol.len()..).unwrap_or_default();
        } else {
            let end = rest.find(|c| blank(c) || "=!(),><".contains(c)).unwrap_or(rest.len());
            let (word, after) = rest.split_at_checked(end).ok_or("label selector is not readable")?;
            tokens.push(Token::Word(word.to_owned()));
            rest = after;
        }
        rest = rest.trim_start_matches(blank);
    }
    Ok(tokens)
}

fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    fn at(&self, symbol: &str) -> bool {
        matches!(self.peek(), Some(Token::Symbol(s)) if *s == symbol)
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.next).cloned();
        self.next += 1;
        token
    }

    /// The literal that an error shows: empty at the end.
    fn literal(token: Option<&Token>) -> String {
        match token {
            Some(Token::Word(word)) => word.clone(),
            Some(Token::Symbol(symbol)) => (*symbol).to_owned(),
            None => String::new(),
        }
    }

    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                None => return Ok(requirements),
                Some(Token::Word(_) | Token::Symbol("!")) => {}
                token => {
                    let found = Self::literal(token);
                    return Err(format!("found '{found}', expected: !, identifier, or 'end of string'"));
                }
            }
            requirements.push(self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?);
            match self.take() {
                None => return Ok(requirements),
                Some(Token::Symbol(",")) => {
                    if !matches!(self.peek(), Some(Token::Word(_) | Token::Symbol("!"))) {
                        let found = Self::literal(self.peek());
                        return Err(format!("found '{found}', expected: identifier after ','"));
                    }
                }
                token => {
                    let found = Self::literal(token.as_ref());
                    return Err(format!("found '{found}', expected: ',' or 'end of string'"));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = self.at("!");
        if negated {
            self.next += 1;
        }
        let key = match self.take() {
            Some(Token::Word(word)) => word,
            token => return Err(format!("found '{}', expected: identifier", Self::literal(token.as_ref()))),
        };
        let messages = names::is_qualified_name(&key);
        if !messages.is_empty() {
            return Err(FieldError::invalid(&FieldPath::default(), key, messages.join("; ")).to_string());
        }
        if negated {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        if self.peek().is_none() || self.at(",") {
            return Requirement::new(&key, Operator::Exists, Vec::new());
        }
        let operator = match self.take() {
            Some(Token::Word(word)) if word == "in" => return self.set(&key, Operator::In),
            Some(Token::Word(word)) if word == "notin" => return self.set(&key, Operator::NotIn),
            Some(Token::Symbol("=" | "==")) => Operator::In,
            Some(Token::Symbol("!=")) => Operator::NotIn,
            Some(Token::Symbol(">")) => Operator::GreaterThan,
            Some(Token::Symbol("<")) => Operator::LessThan,
            token => {
                let found = Self::literal(token.as_ref());
                return Err(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt"));
            }
        };
        if self.peek().is_none() || self.at(",") {
            return Requirement::new(&key, operator, vec![String::new()]);
        }
        match self.take() {
            Some(Token::Word(word)) => Requirement::new(&key, operator, vec![word]),
            token => Err(format!("found '{}', expected: identifier", Self::literal(token.as_ref()))),
        }
    }

    /// `(a,b,)`: an empty place is the empty value.
    fn set(&mut self, key: &str, operator: Operator) -> Result<Requirement, String> {
        match self.take() {
            Some(Token::Symbol("(")) => {}
            token => return Err(format!("found '{}' expected: '('", Self::literal(token.as_ref()))),
        }
        let mut values = Vec::new();
        loop {
            let value = match self.peek() {
                Some(Token::Word(word)) => word.clone(),
                Some(Token::Symbol("," | ")")) => String::new(),
                token if values.is_empty() => {
                    return Err(format!("found '{}', expected: ',', ')' or identifier", Self::literal(token)));
                }
                token => return Err(format!("found '{}', expected: ',', or identifier", Self::literal(token))),
            };
            if matches!(self.peek(), Some(Token::Word(_))) {
                self.next += 1;
            }
            values.push(value);
            match self.take() {
                Some(Token::Symbol(",")) => {}
                Some(Token::Symbol(")")) => return Requirement::new(key, operator, values),
                token => return Err(format!("found '{}', expected: ',' or ')'", Self::literal(token.as_ref()))),
            }
        }
    }
}

#[cfg(test)]
mod tests;
