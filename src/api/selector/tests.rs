use super::*;
use proptest::prelude::*;
use serde_json::json;

fn labels(pairs: &[(&str, &str)]) -> Map<String, Value> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect()
}

fn selects(selector: &str, pairs: &[(&str, &str)]) -> bool {
    LabelSelector::parse(selector).expect(selector).matches(Some(&labels(pairs)))
}

#[test]
fn each_operator_selects() {
    let pod = [("app", "web"), ("tier", "front"), ("weight", "7"), ("blank", "")];
    for yes in [
        "",
        "app=web",
        "app==web",
        "app = web , tier=front",
        "app!=db",
        "absent!=x",
        "app in (db,web)",
        "app notin (db)",
        "absent notin (a)",
        "app",
        "!absent",
        "! absent",
        "weight>6",
        "weight<8",
        "blank=",
        "blank in ()",
        "blank in (a,,b)",
        "example.com/x!=1",
        "in=in".replace("in=in", "app in (in,web)").as_str(),
    ] {
        assert!(selects(yes, &pod), "{yes}");
    }
    for no in ["app=db", "absent=x", "absent", "!app", "app in (db)", "app notin (web)", "weight>7", "weight<7"] {
        assert!(!selects(no, &pod), "{no}");
    }
    assert!(selects("in=notin", &[("in", "notin")]));
}

#[test]
fn nothing_and_everything() {
    assert!(!LabelSelector::from_value(&Value::Null).expect("null").matches(None));
    assert!(LabelSelector::from_value(&json!({})).expect("empty").matches(None));
}

#[test]
fn objects_select() {
    let selector = LabelSelector::from_value(&json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]},
                             {"key": "old", "operator": "DoesNotExist"}]
    }))
    .expect("selector");
    assert!(selector.matches(Some(&labels(&[("app", "web")]))));
    assert!(!selector.matches(Some(&labels(&[("app", "web"), ("tier", "back")]))));
    assert_eq!(selector.to_string(), "app=web,!old,tier!=back");
    let bad = LabelSelector::from_value(&json!({"matchExpressions": [{"key": "a", "operator": "Like"}]}));
    assert_eq!(bad, Err("\"Like\" is not a valid label selector operator".to_owned()));
}

#[test]
fn errors_are_upstreams() {
    for (selector, message) in [
        ("a,", "found '', expected: identifier after ','"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a=(", "unable to parse requirement: found '(', expected: identifier"),
        (
            "a>b",
            "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ] {
        assert_eq!(LabelSelector::parse(selector), Err(message.to_owned()), "{selector}");
    }
    let message = LabelSelector::parse("a=-b").expect_err("bad value");
    assert!(
        message.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"-b\": a valid label must")
    );
    let message = LabelSelector::parse("-a").expect_err("bad key");
    assert!(
        message.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must"),
        "{message}"
    );
}

#[test]
fn field_selectors_select() {
    let selector = FieldSelector::parse(r"spec.nodeName==n1,metadata.name!=a\,b,status.phase=").expect("selector");
    let field = |path: &str| match path {
        "spec.nodeName" => "n1".to_owned(),
        "metadata.name" => "x".to_owned(),
        _ => String::new(),
    };
    assert!(selector.matches(field));
    assert_eq!(selector.exact("spec.nodeName"), Some("n1"));
    assert_eq!(selector.exact("metadata.name"), None);
    assert_eq!(selector.terms[0].value, "a,b");
    for (text, message) in [
        ("x", "invalid selector: 'x'; can't understand 'x'"),
        (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
        (r"a=\", r"invalid field selector: invalid escape sequence: \"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
    ] {
        assert_eq!(FieldSelector::parse(text), Err(message.to_owned()), "{text}");
    }
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let key = "([a-z][a-z0-9]{0,5}\\.io/)?[a-z][a-zA-Z0-9_.-]{0,4}[a-z]";
    let value = "([a-zA-Z0-9]([a-z0-9_.-]{0,4}[a-zA-Z0-9])?)?";
    (key, prop::collection::vec(value, 1..4), 0..6u8).prop_map(|(key, values, operator)| {
        let (operator, values) = match operator {
            0 => (Operator::In, values),
            1 => (Operator::NotIn, values),
            2 => (Operator::Exists, vec![]),
            3 => (Operator::DoesNotExist, vec![]),
            4 => (Operator::GreaterThan, vec![values.len().to_string()]),
            _ => (Operator::LessThan, vec![values.len().to_string()]),
        };
        Requirement::new(&key, operator, values).expect("generated well-formed")
    })
}

proptest! {
    #[test]
    fn what_is_shown_parses_back(mut requirements in prop::collection::vec(requirement(), 0..5)) {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        let selector = LabelSelector { nothing: false, requirements };
        prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
    }

    #[test]
    fn any_text_is_answered(text in "\\PC*") {
        let _ = LabelSelector::parse(&text);
        let _ = FieldSelector::parse(&text);
    }

    #[test]
    fn selector_like_text_is_answered(text in "[ab!=,() ><\\\\intno]{0,20}") {
        if let Ok(selector) = LabelSelector::parse(&text) {
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
        }
        let _ = FieldSelector::parse(&text);
    }

    #[test]
    fn field_values_escape(path in "[a-z.]{1,8}", value in "[a-z\\\\,=]{0,8}", equal: bool) {
        let escaped: String = value.chars().flat_map(|c| {
            "\\,=".contains(c).then_some('\\').into_iter().chain([c])
        }).collect();
        let text = format!("{path}{}{escaped}", if equal { "=" } else { "!=" });
        prop_assert_eq!(FieldSelector::parse(&text), Ok(FieldSelector { terms: vec![FieldTerm { path, equal, value }] }));
    }
}
