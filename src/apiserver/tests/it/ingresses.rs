//! The class that an Ingress gets.

use crate::harness::Server;
use serde_json::{Value, json};

const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
const CLASSES: &str = "/apis/networking.k8s.io/v1/ingressclasses";

fn ingress(name: &str, annotations: &Value) -> Value {
    json!({"metadata": {"name": name, "annotations": annotations},
           "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}})
}

#[tokio::test]
async fn an_ingress_without_a_class_gets_the_default_one() {
    let s = Server::start().await;
    let early = s.post(INGRESSES, &ingress("early", &Value::Null)).await.body;
    assert_eq!(early["spec"].get("ingressClassName"), None);
    for (name, default) in [("other", "false"), ("mini", "true")] {
        let class = json!({"metadata": {"name": name, "annotations": {"ingressclass.kubernetes.io/is-default-class": default}},
                           "spec": {"controller": "mini.local/ingress"}});
        assert_eq!(s.post(CLASSES, &class).await.code, 201);
    }
    let plain = s.post(INGRESSES, &ingress("plain", &Value::Null)).await.body;
    assert_eq!(plain["spec"]["ingressClassName"], "mini");
    let old = s.post(INGRESSES, &ingress("old", &json!({"kubernetes.io/ingress.class": "nginx"}))).await.body;
    assert_eq!(old["spec"].get("ingressClassName"), None);
    let mut named = ingress("named", &Value::Null);
    named["spec"]["ingressClassName"] = "other".into();
    assert_eq!(s.post(INGRESSES, &named).await.body["spec"]["ingressClassName"], "other");
    s.stop().await;
}
