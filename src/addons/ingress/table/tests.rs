//! Which path takes a request.

use super::*;

/// Routes are told apart by the connect timeout, in seconds.
fn route(id: u64) -> Arc<Route> {
    let settings = Settings { connect: std::time::Duration::from_secs(id), ..Settings::default() };
    Arc::new(Route { backend: Arc::default(), settings: Arc::new(settings), secure: false })
}

fn table(paths: Vec<(&str, Matcher)>) -> Table {
    let mut table = Table::default();
    for (id, (host, matcher)) in (1..).zip(paths) {
        table.add(host, matcher, route(id));
    }
    table.arrange();
    table
}

fn found(table: &Table, host: &str, path: &str) -> u64 {
    table.find(host, path).map_or(0, |hit| hit.route.settings.connect.as_secs())
}

/// The table of upstream's documentation of Ingress.
#[test]
fn paths_match_as_upstream_documents() {
    for (exact, pattern, path, wanted) in [
        (false, "/", "/any/path", true),
        (true, "/foo", "/foo", true),
        (true, "/foo", "/bar", false),
        (true, "/foo", "/foo/", false),
        (true, "/foo/", "/foo", false),
        (false, "/foo", "/foo", true),
        (false, "/foo", "/foo/", true),
        (false, "/foo/", "/foo", true),
        (false, "/foo/", "/foo/", true),
        (false, "/aaa/bb", "/aaa/bbb", false),
        (false, "/aaa/bbb", "/aaa/bbb", true),
        (false, "/aaa/bbb/", "/aaa/bbb", true),
        (false, "/aaa/bbb", "/aaa/bbb/", true),
        (false, "/aaa/bbb", "/aaa/bbb/ccc", true),
        (false, "/aaa/bbb", "/aaa/bbbxyz", false),
        (false, "/aaa", "/aaa/ccc", true),
        (false, "/caf\u{e9} x", "/caf%C3%A9%20x/y", true),
    ] {
        let matcher = if exact { Matcher::exact(pattern) } else { Matcher::prefix(pattern) };
        assert_eq!(matcher.matches(path), wanted, "{pattern} {path}");
    }
}

#[test]
fn the_longest_path_counts_then_the_exact_one_then_the_older_one() {
    let table = table(vec![
        ("a.b", Matcher::prefix("/")),
        ("a.b", Matcher::prefix("/foo/")),
        ("a.b", Matcher::exact("/foo")),
        ("a.b", Matcher::prefix("/foo/bar")),
        ("a.b", Matcher::prefix("/foo")),
    ]);
    for (path, id) in [("/x", 1), ("/foo", 3), ("/foo/", 2), ("/foo/bar/x", 4), ("/foox", 1)] {
        assert_eq!(found(&table, "a.b", path), id, "{path}");
    }
}

#[test]
fn a_host_goes_before_its_wildcard_and_this_before_all_hosts() {
    let table = table(vec![
        ("", Matcher::prefix("/all")),
        ("*.b.c", Matcher::prefix("/")),
        ("A.b.c", Matcher::prefix("/own")),
        ("x.y", Matcher::Rest),
        ("", Matcher::Rest),
    ]);
    for (host, path, id) in [
        ("a.b.c", "/own", 3),
        ("a.b.c", "/x", 2),
        ("z.b.c", "/own", 2),
        ("b.c", "/", 5),
        ("z.a.b.c", "/", 5),
        ("x.y", "/all/1", 1),
        ("x.y", "/else", 4),
        ("10.0.0.1", "/all", 1),
    ] {
        assert_eq!(found(&table, host, path), id, "{host}{path}");
    }
    assert_eq!(found(&Table::default(), "a", "/"), 0);
}

#[test]
fn rewrites_take_captures() {
    let rewrite = |target: &str, pattern: &str, path: &str| {
        let settings = Settings { rewrite: Some(target.to_owned()), ..Settings::default() };
        let mut table = Table::default();
        let regex = Regex::new(pattern).unwrap();
        let route = Route { backend: Arc::default(), settings: Arc::new(settings), secure: false };
        table.add("", Matcher::Pattern(regex, 1), Arc::new(route));
        table.find("", path)?.path
    };
    let pattern = "(?i)^/something(/|$)(.*)";
    assert_eq!(rewrite("/${2}", pattern, "/something/new%20a").as_deref(), Some("/new%20a"));
    assert_eq!(rewrite("/${2}", pattern, "/SOMETHING").as_deref(), Some("/"));
    assert_eq!(rewrite("/", "^/app", "/app/x").as_deref(), Some("/"));
    assert_eq!(rewrite("${2}", pattern, "/something/x").as_deref(), Some("/x"));
    assert_eq!(rewrite("/${2}", pattern, "/else"), None);
}

#[test]
fn endpoints_take_turns() {
    let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
    let backend = Backend::new(vec![at(1), at(2), at(3)]);
    let turns: Vec<Vec<u16>> = (0..4).map(|_| backend.turn().map(|a| a.port()).collect()).collect();
    assert_eq!(turns, [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]);
    assert_eq!(Backend::default().turn().count(), 0);
}
