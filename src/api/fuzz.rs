//! Mutated inputs for everything here that reads text or JSON from outside.

use crate::apply::{Managers, fields_v1};
use crate::cron::Schedule;
use crate::patch::{json, merge};
use crate::{FieldSelector, LabelSelector, Quantity, time};
use jiff::tz::TimeZone;
use mini_fuzz::{outcome, run};
use serde_json::Value;

fn text(input: &[u8]) -> String {
    String::from_utf8_lossy(input).into_owned()
}

#[test]
fn quantities() {
    run(&[b"1.5Gi", b"100m", b"-3e-2", b".5Ei"], &["n", "Ki", "E", "e", ".", "999999999999999999"], |input| {
        let read = Quantity::parse(&text(input));
        if let Ok(quantity) = &read {
            let shown = quantity.to_string();
            let again = Quantity::parse(&shown).expect("what is shown is well-formed");
            assert_eq!((again.to_string(), again.value(), again.milli()), (shown, quantity.value(), quantity.milli()));
            let _ = (quantity.plus(&again), quantity.minus(&again), quantity.cmp(&again));
        }
        outcome(&read)
    });
}

#[test]
fn selectors() {
    run(
        &[b"a in (b,c),!d,e!=f,g>1", b"metadata.name=a,status.phase!=b\\,"],
        &["notin", "in", "==", "!", "exists"],
        |input| {
            let labels = LabelSelector::parse(&text(input));
            if let Ok(selector) = &labels {
                assert_eq!(LabelSelector::parse(&selector.to_string()).as_ref(), Ok(selector));
                let _ = selector.matches(None);
            }
            let fields = FieldSelector::parse(&text(input));
            if let Ok(selector) = &fields {
                let _ = selector.matches(str::to_owned);
            }
            (outcome(&labels), outcome(&fields))
        },
    );
}

#[test]
fn schedules_and_times() {
    let start = time::parse("2026-02-27T23:59:59Z").expect("a time");
    run(
        &[b"*/5 0-6,9 1 jan-mar sun", b"@every 1h30m", b"0 0 29 2 *", b"@daily"],
        &["@every ", "*/", "-", "dec", "sat", "?"],
        |input| {
            let read = Schedule::parse(&text(input));
            if let Ok(schedule) = &read {
                let next = schedule.next(start, &TimeZone::UTC);
                assert!(next.is_none_or(|next| next > start), "{next:?}");
            }
            outcome(&read)
        },
    );
    run(&[b"2026-01-01T00:00:00Z", b"2026-12-31T23:59:60.123456+14:00"], &["T", "Z", "-", ":", "+00:00"], |input| {
        let read = time::parse(&text(input));
        if let Ok(at) = &read {
            assert_eq!(time::parse(&time::micro(*at)).map(time::seconds).ok(), Some(time::seconds(*at)));
        }
        outcome(&read)
    });
}

#[test]
fn patches() {
    const CORPUS: &[&[u8]] = &[
        br#"[{"a": {"b": [1, 2]}}, [{"op": "move", "from": "/a/b/0", "path": "/a/c"}, {"op": "test", "path": "", "value": 1}]]"#,
        br#"[[1, [2]], [{"op": "add", "path": "/-", "value": {}}, {"op": "copy", "from": "/1", "path": "/-1"}, {"op": "replace", "path": "/0", "value": null}]]"#,
        br#"[{"a": 1, "b": {"c": 2}}, {"b": null, "d": {"e": null}}]"#,
    ];
    run(CORPUS, &["\"op\"", "\"remove\"", "\"path\"", "/a", "/-", "/-1", "~1", "~0", "~2", "null"], |input| {
        let Ok(Value::Array(pair)) = serde_json::from_slice::<Value>(input) else { return "no pair".to_owned() };
        let [document, patch] = pair.as_slice() else { return "no pair".to_owned() };
        let mut merged = document.clone();
        merge::apply(&mut merged, patch.clone());
        let mut twice = merged.clone();
        merge::apply(&mut twice, patch.clone());
        assert_eq!(merged, twice);
        outcome(&json::apply(document, patch).map_err(|status| status.message))
    });
}

#[test]
fn managed_fields() {
    const CORPUS: &[&[u8]] = &[
        br#"{"f:spec": {".": {}, "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}, "v:\"a\"": {}, "i:3": {}}}}"#,
        br#"[{"manager": "a", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}}}]"#,
    ];
    run(CORPUS, &["\"f:a\"", "\"k:{}\"", "\"v:1\"", "\"i:-1\"", "\".\"", "{}"], |input| {
        let Ok(value) = serde_json::from_slice::<Value>(input) else { return (String::new(), String::new()) };
        let set = fields_v1::decode(&value);
        if let Ok(set) = &set {
            let again = fields_v1::decode(&fields_v1::encode(set));
            assert_eq!(again.as_ref().map(ToString::to_string), Ok(set.to_string()));
        }
        let managers = Managers::decode(&value);
        let told = outcome(&managers);
        if let Ok(managers) = managers {
            let stored = managers.encode().unwrap_or_default();
            assert_eq!(Managers::decode(&stored).ok().and_then(Managers::encode).unwrap_or_default(), stored);
        }
        (outcome(&set), told)
    });
}
