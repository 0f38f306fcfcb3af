use super::*;
use crate::Config;
use crate::proxy::ruleset::Ruleset;
use crate::proxy::service::tests::read;
use serde_json::{Value, json};

fn config() -> Config {
    Config {
        instance: "mini".to_owned(),
        bridge: "mini0".to_owned(),
        table: "mini".to_owned(),
        pod_cidr: "10.1.0.0/16".parse().unwrap(),
        service_cidr: "10.152.183.0/24".parse().unwrap(),
        node_ip: "192.0.2.1".parse().unwrap(),
        own_ports: vec![16443, 10250],
        data_dir: "/nowhere".into(),
    }
}

fn service(name: &str, spec: Value) -> Value {
    json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec })
}

fn slice(port: u16, protocol: &str, addresses: &[&str]) -> Value {
    let endpoint = |address: &&str| json!({ "addresses": [address], "nodeName": if address.starts_with("10.1.") { json!("n") } else { Value::Null } });
    json!({ "metadata": { "name": "s" }, "addressType": "IPv4", "ports": [{ "port": port, "protocol": protocol }],
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>() })
}

fn fragment_of(service: Value, slices: &[Value]) -> Fragment {
    fragment(&read(service, slices), &config())
}

fn rules<'a>(fragment: &'a Fragment, chain: &str) -> Vec<&'a str> {
    fragment
        .chains
        .get(chain)
        .unwrap_or_else(|| panic!("no {chain} in {:#?}", fragment.chains))
        .iter()
        .map(String::as_str)
        .collect()
}

fn web(extra: Value) -> Value {
    let mut spec = json!({ "clusterIP": "10.152.183.7", "ports": [{ "port": 80 }] });
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    service("web", spec)
}

fn element(fragment: &Fragment, map: &'static str, key: &str) -> Option<String> {
    fragment.elements.get(&(map, key.to_owned())).cloned().flatten()
}

#[test]
fn a_service_is_one_chain_and_one_element() {
    let one = fragment_of(web(json!({})), &[slice(8080, "TCP", &["10.1.0.5"])]);
    assert_eq!(rules(&one, "svc/default/web/80/tcp"), ["meta l4proto tcp dnat to 10.1.0.5:8080"]);
    assert_eq!(element(&one, "services", "tcp . 10.152.183.7 . 80").as_deref(), Some("svc/default/web/80/tcp"));
    assert!(one.elements.contains_key(&("hairpin", "10.1.0.5 . 10.1.0.5".to_owned())));
    assert_eq!((one.chains.len(), one.elements.len()), (1, 2));

    let two = fragment_of(web(json!({})), &[slice(8080, "TCP", &["10.1.0.5", "10.1.0.6"])]);
    let wanted =
        "meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 10.1.0.5 . 8080, 1 : 10.1.0.6 . 8080 }";
    assert_eq!(rules(&two, "svc/default/web/80/tcp"), [wanted]);
}

#[test]
fn doors_without_endpoints_are_refused() {
    let spec = json!({ "externalIPs": ["198.51.100.9"], "ports": [{ "port": 80, "nodePort": 30080 }] });
    let empty = fragment_of(web(spec), &[]);
    let keys: Vec<_> = empty.elements.keys().map(|(map, key)| format!("{map}: {key}")).collect();
    assert_eq!(keys, ["empty-node-ports: tcp . 30080", "empty-services: tcp . 198.51.100.9 . 80"]);
    assert!(empty.chains.is_empty());
}

#[test]
fn an_endpoint_elsewhere_is_masqueraded_and_the_node_itself_is_not() {
    let marked = fragment_of(web(json!({})), &[slice(80, "TCP", &["203.0.113.5"])]);
    assert_eq!(rules(&marked, "svc/default/web/80/tcp")[0], "meta mark set meta mark | 0x4000");
    let node = fragment_of(web(json!({})), &[slice(16443, "TCP", &["192.0.2.1"])]);
    assert_eq!(rules(&node, "svc/default/web/80/tcp"), ["meta l4proto tcp dnat to 192.0.2.1:16443"]);
}

#[test]
fn affinity_remembers_clients_by_endpoint() {
    let spec =
        json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 60 } } });
    let sticky = fragment_of(web(spec), &[slice(80, "TCP", &["10.1.0.5", "10.1.0.6"])]);
    assert_eq!(
        rules(&sticky, "svc/default/web/80/tcp"),
        [
            "ip saddr @clients/default/web/80/tcp/10.1.0.5/80/60 goto ep/default/web/80/tcp/10.1.0.5/80",
            "ip saddr @clients/default/web/80/tcp/10.1.0.6/80/60 goto ep/default/web/80/tcp/10.1.0.6/80",
            "numgen random mod 2 vmap { 0 : goto ep/default/web/80/tcp/10.1.0.5/80, 1 : goto ep/default/web/80/tcp/10.1.0.6/80 }",
        ]
    );
    assert_eq!(
        rules(&sticky, "ep/default/web/80/tcp/10.1.0.6/80"),
        ["update @clients/default/web/80/tcp/10.1.0.6/80/60 { ip saddr }", "meta l4proto tcp dnat to 10.1.0.6:80"]
    );
    assert_eq!(sticky.clients.len(), 2);
}

#[test]
fn local_policies_keep_to_endpoints_of_this_node() {
    let spec = json!({ "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local", "ports": [{ "port": 80, "nodePort": 30080 }] });
    let both = fragment_of(web(spec.clone()), &[slice(80, "TCP", &["10.1.0.5", "203.0.113.5"])]);
    assert_eq!(element(&both, "services", "tcp . 10.152.183.7 . 80").as_deref(), Some("int/default/web/80/tcp"));
    assert_eq!(element(&both, "node-ports", "tcp . 30080").as_deref(), Some("ext/default/web/80/tcp"));
    assert_eq!(
        rules(&both, "ext/default/web/80/tcp"),
        [
            "ip saddr 10.1.0.0/16 goto svc/default/web/80/tcp",
            "fib saddr type local goto svc/default/web/80/tcp",
            "goto own/default/web/80/tcp"
        ]
    );
    let far = fragment_of(web(spec), &[slice(80, "TCP", &["203.0.113.5"])]);
    assert_eq!(rules(&far, "ext/default/web/80/tcp")[2], "drop");
    assert_eq!(element(&far, "services", "tcp . 10.152.183.7 . 80"), None);
}

#[test]
fn source_ranges_guard_the_balancer_only() {
    let mut service =
        web(json!({ "loadBalancerSourceRanges": ["198.51.100.0/24"], "ports": [{ "port": 80, "nodePort": 30080 }] }));
    service["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.1" }] } });
    let guarded = fragment_of(service, &[slice(80, "TCP", &["10.1.0.5"])]);
    assert_eq!(
        rules(&guarded, "lb/default/web/80/tcp"),
        ["ip saddr != { 198.51.100.0/24 } drop", "goto svc/default/web/80/tcp"]
    );
    assert_eq!(element(&guarded, "services", "tcp . 203.0.113.1 . 80").as_deref(), Some("lb/default/web/80/tcp"));
    assert_eq!(element(&guarded, "node-ports", "tcp . 30080").as_deref(), Some("svc/default/web/80/tcp"));
}

#[test]
fn long_names_are_cut_and_stay_apart() {
    let long = |end: &str| {
        let mut service = web(json!({}));
        service["metadata"] = json!({ "name": format!("{}{end}", "s".repeat(62)), "namespace": "n".repeat(63) });
        fragment_of(service, &[slice(80, "TCP", &["10.1.0.5"])]).chains.into_keys().next().unwrap()
    };
    let (a, b) = (long("a"), long("b"));
    assert!(a.len() <= 120 && a != b, "{a}");
}

fn merged(fragments: &[&Fragment]) -> Ruleset {
    Ruleset::merge(fragments.iter().copied())
}

#[test]
fn differences_are_small_and_in_order() {
    let one = fragment_of(web(json!({})), &[slice(80, "TCP", &["10.1.0.5"])]);
    let two = fragment_of(web(json!({})), &[slice(80, "TCP", &["10.1.0.5", "10.1.0.6"])]);
    let empty = Fragment::default();
    let text =
        |from: &Fragment, to: &Fragment| merged(&[from]).difference(&merged(&[to]), &config()).unwrap_or_default();
    assert_eq!(text(&one, &one), "");
    assert_eq!(
        text(&empty, &one),
        "add chain ip mini-services svc/default/web/80/tcp\n\
         add rule ip mini-services svc/default/web/80/tcp meta l4proto tcp dnat to 10.1.0.5:80\n\
         add element ip mini-services hairpin { 10.1.0.5 . 10.1.0.5 }\n\
         add element ip mini-services services { tcp . 10.152.183.7 . 80 : goto svc/default/web/80/tcp }\n"
    );
    assert_eq!(
        text(&one, &two),
        "flush chain ip mini-services svc/default/web/80/tcp\n\
         add rule ip mini-services svc/default/web/80/tcp meta l4proto tcp dnat ip addr . port to numgen random mod 2 map \
         { 0 : 10.1.0.5 . 80, 1 : 10.1.0.6 . 80 }\n\
         add element ip mini-services hairpin { 10.1.0.6 . 10.1.0.6 }\n"
    );
    assert_eq!(
        text(&one, &empty),
        "delete element ip mini-services hairpin { 10.1.0.5 . 10.1.0.5 }\n\
         delete element ip mini-services services { tcp . 10.152.183.7 . 80 }\n\
         flush chain ip mini-services svc/default/web/80/tcp\n\
         delete chain ip mini-services svc/default/web/80/tcp\n"
    );
}

#[test]
fn udp_flows_move_when_an_endpoint_goes_or_the_first_comes() {
    let dns = |addresses: &[&str]| {
        let spec = json!({ "clusterIP": "10.152.183.10", "ports": [{ "port": 53, "protocol": "UDP" }] });
        merged(&[&fragment_of(service("dns", spec), &[slice(53, "UDP", addresses)])])
    };
    let (none, one, two) = (dns(&[]), dns(&["10.1.0.5"]), dns(&["10.1.0.5", "10.1.0.6"]));
    let moved =
        |from: &Ruleset, to: &Ruleset| to.moved_udp(Some(from)).into_values().map(|to| to.len()).collect::<Vec<_>>();
    assert_eq!(moved(&none, &one), [1]);
    assert!(moved(&one, &two).is_empty(), "nobody has to move");
    assert_eq!(moved(&two, &one), [1]);
    assert_eq!(moved(&one, &Ruleset::default()), [0]);
}

#[test]
fn an_external_address_takes_nothing_that_is_the_clusters() {
    let spec = json!({ "externalIPs": ["10.152.183.1", "198.51.100.9"], "ports": [{ "port": 443 }] });
    let evil = fragment_of(web(spec), &[slice(8080, "TCP", &["10.1.0.5"])]);
    assert_eq!(element(&evil, "services", "tcp . 10.152.183.1 . 443"), None);
    assert!(element(&evil, "services", "tcp . 198.51.100.9 . 443").is_some());
    let whole = Ruleset::merge([&evil].into_iter()).whole(&config());
    let guard = whole.find("tcp dport { 16443, 10250 } fib daddr type local return");
    assert!(guard.is_some_and(|guard| guard < whole.find("vmap @services").unwrap()), "{whole}");
}
