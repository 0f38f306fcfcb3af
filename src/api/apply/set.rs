//! Sets of fields: tries of path elements, with their algebra.

use super::element::Element;
use super::schema::{ApplySchema, Child, Node};
use std::cmp::Ordering;
use std::fmt;

/// A set of fields. A member does not make what is below it, or above it, a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(Vec<(Element, Branch)>);

/// What a set has at one element. None is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Branch {
    pub(crate) member: bool,
    pub(crate) below: Set,
}

impl Branch {
    pub(crate) const MEMBER: Self = Self { member: true, below: Set(Vec::new()) };

    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl Set {
    /// The fields at these paths of field names.
    #[must_use]
    pub fn of(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(&path.iter().map(|name| Element::field(name)).collect::<Vec<_>>());
        }
        set
    }

    pub fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else { return };
        let branch = self.branch_mut(first);
        if rest.is_empty() { branch.member = true } else { branch.below.insert(rest) }
    }

    fn branch_mut(&mut self, element: &Element) -> &mut Branch {
        let at = self.find(element).unwrap_or_else(|at| {
            self.0.insert(at, (element.clone(), Branch::default()));
            at
        });
        &mut self.0[at].1
    }

    fn find(&self, element: &Element) -> Result<usize, usize> {
        self.0.binary_search_by(|(e, _)| e.cmp(element))
    }

    /// Adds a branch at an element that may be there already.
    pub(crate) fn put(&mut self, element: Element, branch: Branch) {
        if branch.is_empty() {
            return;
        }
        // Most sets are made in their order.
        if self.0.last().is_none_or(|(last, _)| *last < element) {
            self.0.push((element, branch));
            return;
        }
        let old = self.branch_mut(&element);
        old.member |= branch.member;
        old.below = if old.below.is_empty() { branch.below } else { old.below.union(&branch.below) };
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Element, &Branch)> {
        self.0.iter().map(|(element, branch)| (element, branch))
    }

    pub(crate) fn get(&self, element: &Element) -> Option<&Branch> {
        self.find(element).ok().and_then(|at| self.0.get(at)).map(|(_, branch)| branch)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn has(&self, path: &[Element]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        self.get(first).is_some_and(|branch| if rest.is_empty() { branch.member } else { branch.below.has(rest) })
    }

    /// What either has.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| match (a, b) {
            (Some(a), Some(b)) => Branch { member: a.member || b.member, below: a.below.union(&b.below) },
            (a, b) => a.or(b).cloned().unwrap_or_default(),
        })
    }

    /// What both have.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| match (a, b) {
            (Some(a), Some(b)) => Branch { member: a.member && b.member, below: a.below.intersection(&b.below) },
            _ => Branch::default(),
        })
    }

    /// What this has and `other` has not; what is below a member of `other` stays.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| match (a, b) {
            (Some(a), Some(b)) => Branch { member: a.member && !b.member, below: a.below.difference(&b.below) },
            (a, _) => a.cloned().unwrap_or_default(),
        })
    }

    /// [`Self::difference`] in place.
    pub fn subtract(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        self.0.retain_mut(|(element, branch)| {
            let Some(gone) = other.get(element) else { return true };
            branch.member &= !gone.member;
            branch.below.subtract(&gone.below);
            !branch.is_empty()
        });
    }

    /// Takes out what `other` has; what is below a member of `other` goes with it.
    pub fn subtract_below(&mut self, other: &Self) {
        if self.is_empty() || other.is_empty() {
            return;
        }
        self.0.retain_mut(|(element, branch)| match other.get(element) {
            None => true,
            Some(gone) if gone.member => false,
            Some(gone) => {
                branch.below.subtract_below(&gone.below);
                !branch.is_empty()
            }
        });
    }

    /// What any of them has. Halves are united first, so that no set is copied for each of the others.
    #[must_use]
    pub fn union_of(sets: &[&Self]) -> Self {
        match sets {
            [] => Self::default(),
            [one] => (*one).clone(),
            many => {
                let (left, right) = many.split_at(many.len() / 2);
                Self::union_of(left).union(&Self::union_of(right))
            }
        }
    }

    fn combine(&self, other: &Self, with: impl Fn(Option<&Branch>, Option<&Branch>) -> Branch) -> Self {
        let mut out = Vec::with_capacity(self.0.len());
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => return Self(out),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let a = if order.is_le() { left.next() } else { None };
            let b = if order.is_ge() { right.next() } else { None };
            let branch = with(a.map(|(_, branch)| branch), b.map(|(_, branch)| branch));
            if let Some((element, _)) = a.or(b).filter(|_| !branch.is_empty()) {
                out.push((element.clone(), branch));
            }
        }
    }

    /// With the named fields above its members as members: `a` for `a.b` where `a` is a field, not a map's key.
    #[must_use]
    pub fn with_named<S: ApplySchema>(&self, schema: Option<&S>) -> Self {
        let within = |element: &Element| match element {
            Element::Field(name) => named_child(schema?, name),
            Element::Key(_) => match schema?.node() {
                Node::AtomicList | Node::Set | Node::KeyedList => Some((schema?.element(), false)),
                _ => None,
            },
            _ => None,
        };
        let branch = |element: &Element, branch: &Branch| {
            let (inside, named) = within(element).unzip();
            let member = branch.member || named == Some(true) && !branch.below.is_empty();
            Branch { member, below: branch.below.with_named(inside.as_ref()) }
        };
        Self(self.0.iter().map(|(e, b)| (e.clone(), branch(e, b))).collect())
    }

    /// Whether [`Self::reconciled`] would change something.
    #[must_use]
    pub fn is_stale<S: ApplySchema>(&self, schema: &S) -> bool {
        self.0.iter().filter(|(_, branch)| !branch.below.is_empty()).any(|(element, branch)| {
            within(schema, element).is_some_and(|inside| match inside.node() {
                Node::AtomicList | Node::Map { atomic: true } => true,
                _ => branch.below.is_stale(&inside),
            })
        })
    }

    /// As the schema is now: what was granular when it was written and is atomic now is owned as a whole.
    #[must_use]
    pub fn reconciled<S: ApplySchema>(&self, schema: &S) -> Self {
        let branch = |element: &Element, branch: &Branch| {
            if branch.below.is_empty() {
                return branch.clone();
            }
            match within(schema, element).as_ref().map(|s| (s, s.node())) {
                Some((_, Node::AtomicList | Node::Map { atomic: true })) => Branch::MEMBER,
                Some((inside, _)) => Branch { member: branch.member, below: branch.below.reconciled(inside) },
                None => branch.clone(),
            }
        };
        Self(self.0.iter().map(|(e, b)| (e.clone(), branch(e, b))).collect())
    }

    /// The fields at or below one of the patterns, and the members on the way there. `*` stands for any element.
    #[must_use]
    pub fn only(&self, patterns: &[&[&str]]) -> Self {
        let mut out = Vec::new();
        for (element, branch) in &self.0 {
            let fits = |head: &str| head == "*" || matches!(element, Element::Field(name) if name == head);
            let tails: Vec<&[&str]> = patterns
                .iter()
                .filter_map(|p| p.split_first().filter(|(head, _)| fits(head)).map(|(_, tail)| tail))
                .collect();
            if tails.is_empty() {
                continue;
            }
            let below =
                if tails.iter().any(|t| t.is_empty()) { branch.below.clone() } else { branch.below.only(&tails) };
            let kept = Branch { member: branch.member, below };
            if !kept.is_empty() {
                out.push((element.clone(), kept));
            }
        }
        Self(out)
    }

    /// All members: of each level first its own, then those below.
    #[must_use]
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut Vec<Element>, out: &mut Vec<Vec<Element>>) {
        for (element, branch) in &self.0 {
            if branch.member {
                out.push(prefix.iter().chain([element]).cloned().collect());
            }
        }
        for (element, branch) in &self.0 {
            prefix.push(element.clone());
            branch.below.collect(prefix, out);
            prefix.pop();
        }
    }
}

/// The schema below an element.
fn within<S: ApplySchema>(schema: &S, element: &Element) -> Option<S> {
    match (schema.node(), element) {
        (Node::Map { .. }, Element::Field(name)) => schema.child(name).schema(),
        (Node::Set | Node::KeyedList, _) => Some(schema.element()),
        _ => None,
    }
}

/// The schema of `name`, and whether the schema names it.
fn named_child<S: ApplySchema>(schema: &S, name: &str) -> Option<(S, bool)> {
    match schema.node() {
        Node::Any => Some((schema.clone(), false)),
        Node::Map { .. } => match schema.child(name) {
            Child::Field(inside) | Child::Always(inside) => Some((inside, true)),
            Child::Item(inside) => Some((inside, false)),
            Child::Unknown => None,
        },
        _ => None,
    }
}

/// `.spec.ports[name="web"]`.
#[must_use]
pub fn path_text(path: &[Element]) -> String {
    path.iter().map(ToString::to_string).collect()
}

/// One member a line.
impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, path) in self.paths().iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { "\n" }, path_text(path))?;
        }
        Ok(())
    }
}

/// Which fields a request cannot own because it does not change them.
#[derive(Clone, Copy, Debug)]
pub enum Filter<'a> {
    /// None of these, nor what is below them.
    Without(&'a Set),
    /// Only what is at or below these; `*` stands for any element.
    Only(&'a [&'a [&'a str]]),
}

impl Filter<'_> {
    pub(crate) fn apply(self, mut set: Set) -> Set {
        match self {
            Self::Without(fields) => {
                set.subtract_below(fields);
                set
            }
            Self::Only(patterns) => set.only(patterns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(paths: &[&str]) -> Set {
        let split: Vec<Vec<&str>> = paths.iter().map(|p| p.split('.').collect()).collect();
        Set::of(&split.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    #[test]
    fn algebra() {
        let (a, b) = (set(&["a", "a.b", "c.d", "e"]), set(&["a.b", "c", "e", "f.g"]));
        assert_eq!(a.union(&b), set(&["a", "a.b", "c", "c.d", "e", "f.g"]));
        assert_eq!(a.intersection(&b), set(&["a.b", "e"]));
        assert_eq!(a.difference(&b), set(&["a", "c.d"]));
        let mut less = a.clone();
        less.subtract(&b);
        assert_eq!(less, a.difference(&b));
        less = a.clone();
        less.subtract_below(&b);
        assert_eq!(less, set(&["a"]));
        assert_eq!(Set::union_of(&[&a, &b, &a]), a.union(&b));
        assert!(a.difference(&a).is_empty() && a.has(&[Element::field("c"), Element::field("d")]));
        assert!(!a.has(&[Element::field("c")]));
        assert_eq!(a.to_string(), ".a\n.e\n.a.b\n.c.d");
    }

    #[test]
    fn only_what_fits_a_pattern() {
        let a = set(&["spec.c", "spec.c.x", "spec.c.x.image", "spec.c.x.res.cpu", "spec.d", "meta"]);
        assert_eq!(a.only(&[&["spec", "c", "*", "res"]]), set(&["spec.c", "spec.c.x", "spec.c.x.res.cpu"]));
        assert_eq!(a.only(&[&["spec"]]).union(&set(&["meta"])), a);
    }
}
