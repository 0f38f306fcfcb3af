//! Settings from each place, and what refusals say.

use super::*;
use std::path::Path;

fn with_file(text: &str) -> Result<Config, Error> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    std::fs::write(&file, text).unwrap();
    Config::load(&Sources { file: Some(file), ..Sources::default() })
}

fn flags(pairs: &[(&str, &str)]) -> Result<Config, Error> {
    let flags = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Config::load(&Sources { flags, ..Sources::default() })
}

#[test]
fn later_places_win() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.yaml");
    std::fs::write(&file, "api-port: 1111\nkubelet-port: 1111\nlog-level: warn\nextra-sans: [a.example, 192.0.2.1]\n")
        .unwrap();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let config = Config::load(&Sources {
        file: Some(file),
        environment: vec![pair("MINI_API_PORT", "2222"), pair("MINI_LOG_LEVEL", "debug"), pair("HOME", "/")],
        flags: vec![pair("api-port", "3333")],
    })
    .unwrap();
    assert_eq!((config.api_port, config.kubelet_port, config.log_level.as_str()), (3333, 1111, "debug"));
    assert_eq!(config.extra_sans, ["a.example", "192.0.2.1"]);
    assert_eq!(config.api_url(), "https://127.0.0.1:3333");
    assert_eq!(config.api_service_ip(), Ipv4Addr::new(10, 152, 183, 1));
}

#[test]
fn the_sample_is_the_defaults_and_is_in_the_package() {
    let sample = sample();
    let packaged = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/config.yaml");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&packaged, &sample).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&packaged).unwrap(), sample, "run UPDATE=1 cargo test -p mini-config");
    let defaults = Config::load(&Sources::default()).unwrap();
    assert_eq!(with_file(&sample).unwrap(), defaults);
    let uncommented: String = sample
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_eq!(with_file(&uncommented).unwrap(), defaults);
}

#[test]
fn refusals_name_place_setting_and_remedy() {
    for (text, said) in [
        ("api_port: 1", "there is no setting `api_port`; did you mean `api-port`?"),
        ("api-port: 99999", "`api-port` is \"99999\", but a port is a number from 1 to 65535"),
        ("pod-cidr: 10.1.2.3/16", "the network is 10.1.0.0/16"),
        ("pod-cidr: 10.152.0.0/16", "overlap; move one of them"),
        ("cluster-dns: 10.9.9.9", "must be inside service-cidr"),
        ("service-cidr: 10.9.0.0/24", "must be inside service-cidr"),
        ("api-port: 10250", "both 10250"),
        ("api-port: 30001", "inside node-port-range 30000-32767"),
        ("addons: [dns, 'Dash Board']", "\"Dash Board\" is no addon's name"),
        ("data-dir: var/lib", "absolute path"),
        ("data-dir: /a/../b", "without \"..\""),
        ("node-name: Bad_Name", "lower-case"),
        ("log-level: loud", "it must be error, warn, info"),
        ("api-port: {a: 1}", "must be a single value"),
        ("just words", "one `key: value` a line"),
        ("a: [", "not valid YAML"),
        ("surprise: 1", "there is no setting `surprise`; there are data-dir, "),
    ] {
        let error = with_file(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let error = Config::load(&Sources { file: Some("/nowhere/config.yaml".into()), ..Sources::default() }).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nowhere/config.yaml"), "{error}");
}

#[test]
fn addons_are_a_list_in_every_place() {
    let addons = |text: &str| flags(&[("addons", text)]).unwrap().addons;
    assert_eq!(flags(&[]).unwrap().addons, ["dns", "metrics-server"]);
    assert_eq!(with_file("addons: []").unwrap().addons, Vec::<String>::new());
    assert_eq!(addons("[]"), Vec::<String>::new());
    assert_eq!(addons("dns, ingress"), ["dns", "ingress"]);
    assert_eq!(with_file("addons: [dns, ingress]").unwrap().addons, addons("[dns,ingress]"));
}

#[test]
fn octals_are_yaml_1_1() {
    assert_eq!(with_file("api-port: 0644").unwrap().api_port, 420);
}

#[test]
fn instances_do_not_share_names() {
    let (a, b) = (flags(&[]).unwrap(), flags(&[("data-dir", "/srv/mini//")]).unwrap());
    assert_eq!((a.instance.bridge.as_str(), a.run_dir.as_path()), ("mini0", Path::new("/run/mini")));
    assert_ne!(a.instance, b.instance);
    assert_eq!(b.instance, flags(&[("data-dir", "/srv/mini")]).unwrap().instance);
    assert!(b.instance.bridge.len() <= 15);
    assert_eq!(b.run_dir, Path::new("/run").join(&b.instance.id));
    assert_eq!(flags(&[("data-dir", "/srv/mini"), ("run-dir", "/run/x")]).unwrap().run_dir, Path::new("/run/x"));
}

#[test]
fn a_linked_directory_is_taken_for_what_it_is_and_named_as_it_is_written() {
    use std::os::unix::fs::symlink;
    let place = tempfile::tempdir().unwrap();
    let real = place.path().canonicalize().unwrap();
    let linked = place.path().join("linked");
    symlink("disk/mini", &linked).unwrap();
    let flag = linked.display().to_string();
    for _ in 0..2 {
        // Before it exists and after.
        let config = flags(&[("data-dir", &flag)]).unwrap();
        assert_eq!(config.data_dir, real.join("disk/mini"));
        assert_eq!(config.instance, Instance::of(&linked));
        std::fs::create_dir_all(real.join("disk/mini")).unwrap();
    }
    assert_eq!(flags(&[("data-dir", &format!("{flag}/a"))]).unwrap().data_dir, real.join("disk/mini/a"));
}
