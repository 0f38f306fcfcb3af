//! Enabling, changing and disabling against an API server.

use super::testing::{World, lines, told};
use super::*;

async fn enable(engine: &Engine, what: &[&str]) -> Vec<String> {
    let wanted = what.iter().map(|one| (*one).to_owned()).collect();
    lines(&told(engine.enable(wanted, Some(Duration::from_secs(20)))).await)
}

async fn disable(engine: &Engine, what: &[&str]) -> Vec<String> {
    lines(&told(engine.disable(what.iter().map(|one| (*one).to_owned()).collect())).await)
}

const TWO: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: space}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: space}
data: {mode: "{{ args.mode }}", image: "{{ image }}"}
---
$if: args.extra
apiVersion: v1
kind: Service
metadata: {name: extra, namespace: space}
spec: {ports: [{port: 80}], selector: {a: b}}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {a: b}
"#;
const ARGUMENTS: &str = "arguments: [{name: mode, kind: text, default: plain}, {name: extra, kind: boolean, default: 'true'}]\n\
                         readiness: [{exists: {apiVersion: v1, kind: ConfigMap, namespace: space, name: settings}}]\n";

#[tokio::test]
async fn enabled_changed_and_disabled() {
    let w = World::new().await;
    w.put("two", ARGUMENTS, TWO);
    let engine = w.engine(&[], "image:1");
    let steps = enable(&engine, &["two"]).await;
    assert_eq!(
        steps,
        [
            "two: Namespace space created",
            "two: ConfigMap space/settings created",
            "two: Secret kube-system/hidden created",
            "two: Service space/extra created",
            "two: waits for the node to be ready",
            "two: ConfigMap space/settings is there",
            "two: enabled"
        ]
    );
    let map = w.get("ConfigMap", "space", "settings").await.unwrap();
    assert_eq!(map["data"], json!({"mode": "plain", "image": "image:1"}));
    assert_eq!(map["metadata"]["labels"], json!({"app.kubernetes.io/managed-by": "mini", "mini.local/addon": "two"}));
    assert_eq!(w.get("Secret", "kube-system", "hidden").await.unwrap()["data"]["a"], "Yg==");

    // Again: nothing is written.
    let revision = w.revision().await;
    assert_eq!(enable(&engine, &["two"]).await[0], "two: 4 objects unchanged");
    assert_eq!(w.revision().await, revision);

    // Arguments: one object changes, one goes; what a user added stays.
    let cluster = w.cluster();
    cluster.patch(&Id::of(&map), &json!({"data": {"users": "own"}})).await.unwrap();
    let steps = enable(&engine, &["two:mode=fancy;extra=false"]).await;
    assert_eq!(
        steps[..3],
        [
            "two: ConfigMap space/settings changed",
            "two: 2 objects unchanged",
            "two: removed what it no longer has: 1 Service"
        ]
    );
    assert_eq!(w.get("Service", "space", "extra").await, None);
    let map = w.get("ConfigMap", "space", "settings").await.unwrap();
    assert_eq!(map["data"], json!({"mode": "fancy", "image": "image:1", "users": "own"}));
    let addon = engine.list().await.unwrap().addons.into_iter().find(|addon| addon.name == "two").unwrap();
    assert_eq!((addon.enabled, addon.arguments[0].value.as_deref(), &*addon.message), (true, Some("fancy"), ""));

    // Disabled: also what its server made, and nothing of anyone else's.
    w.make("Secret", "kube-system", "made-later", json!({"mini.local/addon": "two"})).await;
    w.make("Secret", "kube-system", "others", json!({})).await;
    let steps = disable(&engine, &["two"]).await;
    assert_eq!(steps, ["two: removes 1 Namespace, 1 ConfigMap, 2 Secret", "two: disabled"]);
    for (kind, space, name) in [
        ("Namespace", "", "space"),
        ("Secret", "kube-system", "hidden"),
        ("Secret", "kube-system", "made-later"),
        ("ConfigMap", "kube-system", "mini-addon-two"),
    ] {
        assert_eq!(w.get(kind, space, name).await, None, "{name}");
    }
    assert!(w.get("Secret", "kube-system", "others").await.is_some());
    assert_eq!(disable(&engine, &["two"]).await, ["two: is not enabled"]);
    w.end().await;
}

#[tokio::test]
async fn what_belongs_to_others_is_not_taken() {
    let w = World::new().await;
    w.put("two", ARGUMENTS, TWO);
    let engine = w.engine(&[], "i");
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "space"}});
    w.cluster().create(&space).await.unwrap();
    w.make("ConfigMap", "space", "settings", json!({})).await;
    let steps = enable(&engine, &["two"]).await;
    assert!(
        steps[0].starts_with("!two: ConfigMap space/settings is there already and belongs to someone else"),
        "{steps:?}"
    );
    assert_eq!(w.get("Secret", "kube-system", "hidden").await, None);
    assert!(!engine.list().await.unwrap().addons.iter().any(|addon| addon.enabled));

    // A namespace that was there is used, and stays.
    w.cluster().delete(&Id::new("v1", "ConfigMap", Some("space"), "settings"), false).await.unwrap();
    assert_eq!(enable(&engine, &["two"]).await.last().unwrap(), "two: enabled");
    disable(&engine, &["two"]).await;
    let space = w.get("Namespace", "", "space").await.unwrap();
    assert!(
        space["metadata"]["deletionTimestamp"].is_null() && space["metadata"]["labels"]["mini.local/addon"].is_null()
    );
    w.end().await;
}

#[tokio::test]
async fn kinds_that_an_addon_brings() {
    let w = World::new().await;
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.g.io"},
        "spec": {"group": "g.io", "scope": "Namespaced", "names": {"kind": "Widget", "plural": "widgets"},
                 "versions": [{"name": "v1", "served": true, "storage": true,
                               "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let widget = json!({"apiVersion": "g.io/v1", "kind": "Widget", "metadata": {"name": "w"}, "size": 1});
    w.put("widgets", "", &format!("{widget}\n---\n{crd}\n"));
    let engine = w.engine(&[], "i");
    let steps = enable(&engine, &["widgets"]).await;
    assert_eq!(
        steps[..2],
        ["widgets: CustomResourceDefinition widgets.g.io created", "widgets: Widget kube-system/w created"]
    );
    disable(&engine, &["widgets"]).await;
    assert_eq!(w.cluster().served("g.io/v1", "Widget").await.unwrap().map(drop), None);
    w.end().await;
}

const ONE: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"NAME\"}\ndata: {image: \"{{ image }}\"}\n";

#[tokio::test]
async fn dependencies_come_first_and_are_missed() {
    let w = World::new().await;
    w.put("base", "", &ONE.replace("NAME", "base"));
    w.put("top", "dependsOn: [base]\n", &ONE.replace("NAME", "top"));
    w.put("broken", "readiness: [{exists: {apiVersion: v1, kind: ConfigMap, name: nothing}}]\n", "");
    w.put("needy", "dependsOn: [broken]\n", "");
    let engine = w.engine(&[], "i");
    assert_eq!(
        enable(&engine, &["top"]).await,
        [
            "base: ConfigMap kube-system/base created",
            "base: enabled",
            "top: ConfigMap kube-system/top created",
            "top: enabled"
        ]
    );
    let steps = told(engine.enable(vec!["needy".into()], Some(Duration::from_millis(50)))).await;
    let steps = lines(&steps);
    assert!(steps.contains(&"!needy: it depends on broken, which failed".to_owned()), "{steps:?}");
    assert!(
        steps.iter().any(|step| step.starts_with("!broken: ConfigMap kube-system/nothing is not there yet")),
        "{steps:?}"
    );
    let steps = disable(&engine, &["base"]).await;
    assert_eq!(steps[0], "base: top is enabled and depends on it");
    assert!(enable(&engine, &["tpo"]).await[0].contains("did you mean top?"));
    w.end().await;
}

#[tokio::test]
async fn one_operation_an_addon_at_a_time() {
    let w = World::new().await;
    w.put("two", ARGUMENTS, TWO);
    let engine = w.engine(&[], "i");
    let (a, b, c) = tokio::join!(
        enable(&engine, &["two:mode=a"]),
        enable(&engine, &["two:mode=a"]),
        enable(&engine, &["two:mode=a"])
    );
    for steps in [&a, &b, &c] {
        assert!(steps.iter().all(|step| !step.starts_with('!')), "{steps:?}");
    }
    let created = [a, b, c].iter().flatten().filter(|step| step.ends_with("created")).count();
    assert_eq!(created, 4);
    w.end().await;
}

async fn until(what: &str, mut met: impl AsyncFnMut() -> bool) {
    for _ in 0..400 {
        if met().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn starts_bring_up_to_date_and_write_nothing_else() {
    let w = World::new().await;
    w.put("one", "", &ONE.replace("NAME", "one"));
    let image = async || w.get("ConfigMap", "kube-system", "one").await.map(|map| map["data"]["image"].clone());
    w.engine(&["one", "unknown"], "image:1").resume();
    until("the first start enables", async || w.get("ConfigMap", "kube-system", "mini-addons").await.is_some()).await;
    assert_eq!(image().await.unwrap(), "image:1");

    let revision = w.revision().await;
    w.engine(&["one"], "image:1").0.resume().await.unwrap();
    assert_eq!(w.revision().await, revision);

    w.engine(&["one"], "image:2").0.resume().await.unwrap();
    assert_eq!(image().await.unwrap(), "image:2");

    // Ended in the middle: the next start goes on.
    let cluster = w.cluster();
    let mut record = Record::read(&cluster, "one").await.unwrap().unwrap();
    record.stage = Stage::Enabling;
    record.write(&cluster, "one").await.unwrap();
    cluster.delete(&Id::new("v1", "ConfigMap", Some("kube-system"), "one"), false).await.unwrap();
    w.engine(&["one"], "image:2").0.resume().await.unwrap();
    assert_eq!(image().await.unwrap(), "image:2");
    record.stage = Stage::Disabling;
    record.write(&cluster, "one").await.unwrap();
    w.engine(&["one"], "image:2").0.resume().await.unwrap();
    assert_eq!(image().await, None);

    // What a user disabled stays so, whatever the configuration says.
    w.engine(&["one"], "image:2").0.resume().await.unwrap();
    assert_eq!(image().await, None);
    w.end().await;
}

#[tokio::test]
async fn every_core_addon_applies_and_leaves_nothing() {
    let w = World::new().await;
    let engine = w.engine(&[], "mini.local/mini:1");
    let variables = testing::variables();
    let catalog = engine.0.catalog(&variables);
    let cluster = w.cluster();
    let before = Record::all(&cluster).await.unwrap();
    for group in catalog.in_order(&catalog.addons.keys().cloned().collect::<Vec<_>>()).unwrap() {
        for addon in group {
            if addon.arguments.iter().any(|argument| argument.default.is_none()) {
                continue;
            }
            let steps = Steps::new(&addon.name, None);
            engine
                .0
                .bring(&cluster, addon, "", &variables, &steps)
                .await
                .unwrap_or_else(|error| panic!("{}: {error}", addon.name));
        }
    }
    let records = Record::all(&cluster).await.unwrap();
    for (name, record) in &records {
        let steps = disable(&engine, &[name]).await;
        assert_eq!(steps.last().unwrap(), &format!("{name}: disabled"), "{steps:?}");
        for id in &record.inventory {
            assert_eq!(cluster.get(id).await.unwrap(), None, "{name}: {id}");
        }
    }
    assert_eq!(Record::all(&cluster).await.unwrap(), before);
    w.end().await;
}
