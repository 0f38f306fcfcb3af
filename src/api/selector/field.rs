//! Field selectors: conditions on the few fields of a kind that can be selected by.

/// One term of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// `metadata.name`, `spec.nodeName`.
    pub path: String,
    /// `=` and `==` when true, `!=` when false.
    pub equal: bool,
    pub value: String,
}

impl FieldTerm {
    /// Whether it holds where its field has this value.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        (value == self.value) == self.equal
    }
}

/// Terms on the selectable fields of a kind, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// The query syntax: `metadata.name=a,status.phase!=Running`. `\\`, `\,` and `\=` escape in values.
    ///
    /// # Errors
    /// Upstream's message for what cannot be understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|p| !p.is_empty()) {
            let split = part.char_indices().find_map(|(i, _)| {
                let (path, rest) = part.split_at_checked(i)?;
                let (operator, value) = ["!=", "==", "="].iter().find_map(|op| Some((*op, rest.strip_prefix(*op)?)))?;
                Some((path, operator, value))
            });
            let Some((path, operator, value)) = split else {
                return Err(format!("invalid selector: '{text}'; can't understand '{part}'"));
            };
            terms.push(FieldTerm { path: path.to_owned(), equal: operator != "!=", value: unescape(value)? });
        }
        Ok(Self { terms })
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether all terms hold; `field` answers the value at a path, empty when absent.
    #[must_use]
    pub fn matches(&self, field: impl Fn(&str) -> String) -> bool {
        self.terms.iter().all(|t| t.matches(&field(&t.path)))
    }

    /// The value that `path` must equal, where one term says so.
    #[must_use]
    pub fn exact(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.path == path).map(|t| t.value.as_str())
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut escaped = false;
    text.split(|c| {
        let splits = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        splits
    })
    .collect()
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let sequence: String = std::iter::once('\\').chain(other).collect();
                    return Err(format!("invalid field selector: invalid escape sequence: {sequence}"));
                }
            },
            ',' | '=' => {
                return Err(format!("invalid field selector: unescaped character in value: {}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}
