//! Credentials, roles, reviews and tokens, from outside.

use crate::harness::{As, Server, json};
use http::Method;
use serde_json::{Value, json as j};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn message(answer: &(u16, Value)) -> &str {
    answer.1["message"].as_str().unwrap_or_default()
}

async fn namespace(server: &Server, name: &str) {
    server.create("/api/v1/namespaces", j!({"metadata": {"name": name}})).await;
    for account in ["default", "robot"] {
        let path = format!("/api/v1/namespaces/{name}/serviceaccounts");
        server.create(&path, j!({"metadata": {"name": account}})).await;
    }
}

async fn token(server: &Server, spec: Value) -> String {
    let request = j!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec});
    let made = server.create("/api/v1/namespaces/a/serviceaccounts/robot/token", request).await;
    made["status"]["token"].as_str().unwrap().to_owned()
}

async fn grant(server: &Server, role: &str, subject: Value) {
    let binding = j!({"metadata": {"name": format!("b-{role}")}, "subjects": [subject],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}});
    server.create(&format!("{RBAC}/namespaces/a/rolebindings"), binding).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_health_and_version_only() {
    let server = Server::start().await;
    for path in ["/version", "/healthz", "/readyz", "/livez"] {
        assert_eq!(server.call(As::Nobody, "GET", path, None).await.0, 200, "{path}");
    }
    for path in ["/", "/api", "/apis", "/metrics", "/openapi/v2", "/openid/v1/jwks"] {
        let answer = server.call(As::Nobody, "GET", path, None).await;
        assert_eq!(answer.0, 403, "{path}");
        assert_eq!(message(&answer), format!("forbidden: User \"system:anonymous\" cannot get path \"{path}\""));
    }
    let answer = server.call(As::Nobody, "GET", "/api/v1/nodes", None).await;
    assert_eq!(
        message(&answer),
        "nodes is forbidden: User \"system:anonymous\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_refused_even_where_nobody_may_go() {
    let server = Server::start().await;
    for path in ["/healthz", "/api/v1/pods"] {
        let (code, answer) = server.call(As::Token("rubbish"), "GET", path, None).await;
        assert_eq!((code, &answer["reason"]), (401, &j!("Unauthorized")), "{path}");
    }
    // A serving certificate is no client's.
    assert_eq!(server.call(As::Certificate(&server.pki.kubelet_server), "GET", "/healthz", None).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tokens_power_comes_and_goes_with_its_binding_at_once() {
    let server = Server::start().await;
    namespace(&server, "a").await;
    let robot = token(&server, j!({})).await;
    let pods = "/api/v1/namespaces/a/pods";
    for _ in 0..5 {
        assert_eq!(server.call(As::Token(&robot), "GET", pods, None).await.0, 403);
        grant(&server, "view", j!({"kind": "ServiceAccount", "name": "robot", "namespace": "a"})).await;
        assert_eq!(server.call(As::Token(&robot), "GET", pods, None).await.0, 200);
        assert_eq!(server.call(As::Token(&robot), "GET", "/api/v1/namespaces/a/secrets", None).await.0, 403);
        assert_eq!(server.call(As::Token(&robot), "GET", "/api/v1/namespaces/default/pods", None).await.0, 403);
        let (code, _) =
            server.call(server.admin(), "DELETE", &format!("{RBAC}/namespaces/a/rolebindings/b-view"), None).await;
        assert_eq!(code, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_end_with_what_they_are_bound_to() {
    let server = Server::start().await;
    namespace(&server, "a").await;
    let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = || Some(j!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}));
    let pod = j!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "x"}]}});
    let pod = server.create("/api/v1/namespaces/a/pods", pod).await;
    let reference = j!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"]});
    let bound = token(&server, j!({"boundObjectRef": reference})).await;
    let (code, answer) = server.call(As::Token(&bound), "POST", who, review()).await;
    assert_eq!(code, 201, "{answer}");
    let user = &answer["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:a:robot");
    assert_eq!(user["groups"], j!(["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]));
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-name"], j!(["p"]));
    let elsewhere = token(&server, j!({"audiences": ["vault"]})).await;
    assert_eq!(server.call(As::Token(&elsewhere), "POST", who, review()).await.0, 401);
    let path = "/api/v1/namespaces/a/pods/p?gracePeriodSeconds=0";
    assert_eq!(server.call(server.admin(), "DELETE", path, None).await.0, 200);
    assert_eq!(server.call(As::Token(&bound), "POST", who, review()).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_reviews_know_audiences() {
    let server = Server::start().await;
    namespace(&server, "a").await;
    let robot = token(&server, j!({"audiences": ["vault"]})).await;
    let review = async |audiences: Value| {
        let object = j!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
                         "spec": {"token": robot, "audiences": audiences}});
        server.create("/apis/authentication.k8s.io/v1/tokenreviews", object).await["status"].clone()
    };
    let good = review(j!(["other", "vault"])).await;
    assert_eq!((&good["authenticated"], &good["audiences"]), (&j!(true), &j!(["vault"])));
    assert_ne!(review(j!(["other"])).await["authenticated"], j!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_token_is_for_the_api_alone() {
    let token = "of-a-file";
    let server = Server::start_with(|config| {
        config.static_tokens.insert(token.to_owned(), mini_apiserver::UserInfo::new("jane", &[]));
    })
    .await;
    let review = async |audiences: Value| {
        let object = j!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
                         "spec": {"token": token, "audiences": audiences}});
        server.create("/apis/authentication.k8s.io/v1/tokenreviews", object).await["status"].clone()
    };
    assert_eq!(review(j!([])).await["authenticated"], j!(true));
    let good = review(j!(["vault", "https://issuer.test"])).await;
    assert_eq!((&good["authenticated"], &good["audiences"]), (&j!(true), &j!(["https://issuer.test"])));
    assert_ne!(review(j!(["vault"])).await["authenticated"], j!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn impersonation_needs_leave() {
    let server = Server::start().await;
    namespace(&server, "a").await;
    let robot = token(&server, j!({})).await;
    let get = async |who: As<'_>, headers: &[(&str, &str)]| {
        json(server.send(who, Method::GET, "/api/v1/namespaces/a/pods", headers, None).await).await
    };
    let jane = get(server.admin(), &[("Impersonate-User", "jane")]).await;
    assert!(message(&jane).starts_with("pods is forbidden: User \"jane\" cannot list"), "{jane:?}");
    let master = [("Impersonate-User", "jane"), ("Impersonate-Group", "system:masters")];
    assert_eq!(get(server.admin(), &master).await.0, 200);
    let refused = get(As::Token(&robot), &[("Impersonate-User", "jane")]).await;
    assert_eq!(
        message(&refused),
        "users \"jane\" is forbidden: User \"system:serviceaccount:a:robot\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
    assert_eq!(get(server.admin(), &[("Impersonate-Group", "x")]).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_grants_what_they_lack() {
    let server = Server::start().await;
    namespace(&server, "a").await;
    grant(&server, "admin", j!({"kind": "ServiceAccount", "name": "robot", "namespace": "a"})).await;
    let robot = token(&server, j!({})).await;
    let roles = format!("{RBAC}/namespaces/a/roles");
    let role = |resource: &str| {
        Some(j!({"metadata": {"name": "r"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]}))
    };
    let refused = server.call(As::Token(&robot), "POST", &roles, role("nodes")).await;
    assert_eq!(refused.0, 403);
    assert!(
        message(&refused).ends_with(
            "is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}"
        ),
        "{}",
        message(&refused)
    );
    assert_eq!(server.call(As::Token(&robot), "POST", &roles, role("pods")).await.0, 201);
    let bind = |role: &str| {
        Some(
            j!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "x"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}}),
        )
    };
    let bindings = format!("{RBAC}/namespaces/a/rolebindings");
    assert_eq!(server.call(As::Token(&robot), "POST", &bindings, bind("cluster-admin")).await.0, 403);
    assert_eq!(server.call(As::Token(&robot), "POST", &bindings, bind("view")).await.0, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_of_access() {
    let server = Server::start().await;
    namespace(&server, "a").await;
    grant(&server, "view", j!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"})).await;
    let ask = async |verb: &str| {
        let object = j!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {"user": "jane",
            "resourceAttributes": {"namespace": "a", "verb": verb, "resource": "pods"}}});
        server.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", object).await["status"].clone()
    };
    let allowed = j!({"allowed": true, "reason": "RBAC: allowed by RoleBinding \"b-view/a\" of ClusterRole \"view\" to User \"jane\""});
    assert_eq!(ask("get").await, allowed);
    assert_eq!(ask("delete").await["allowed"], j!(false));
    let rules =
        j!({"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "spec": {"namespace": "a"}});
    let rules = server.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", rules).await;
    let everything = j!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
    assert!(rules["status"]["resourceRules"].as_array().unwrap().contains(&everything));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reads_what_its_pods_refer_to() {
    let server = Server::start().await;
    namespace(&server, "a").await;
    for name in ["n1", "n2"] {
        server.create("/api/v1/nodes", j!({"metadata": {"name": name}})).await;
    }
    for name in ["mine", "other"] {
        server.create("/api/v1/namespaces/a/secrets", j!({"metadata": {"name": name}})).await;
    }
    let volume = j!([{"name": "v", "secret": {"secretName": "mine"}}]);
    let pod = j!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "x"}], "volumes": volume}});
    server.create("/api/v1/namespaces/a/pods", pod).await;
    let secret = async |name: &str| {
        server.call(server.node(), "GET", &format!("/api/v1/namespaces/a/secrets/{name}"), None).await.0
    };
    assert_eq!(secret("mine").await, 403);
    let binding = j!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    server.create("/api/v1/namespaces/a/pods/p/binding", binding).await;
    assert_eq!((secret("mine").await, secret("other").await), (200, 403));
    assert_eq!(server.call(server.node(), "GET", "/api/v1/namespaces/a/secrets", None).await.0, 403);
    assert_eq!(server.call(server.node(), "GET", "/api/v1/nodes/n1", None).await.0, 200);
    assert_eq!(server.call(server.node(), "DELETE", "/api/v1/nodes/n2", None).await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_run_as_accounts_that_exist() {
    let server = Server::start().await;
    namespace(&server, "a").await;
    let pod = |account: &str| {
        Some(
            j!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": account, "containers": [{"name": "c", "image": "x"}]}}),
        )
    };
    let refused = server.call(server.admin(), "POST", "/api/v1/namespaces/a/pods", pod("ghost")).await;
    assert_eq!(refused.0, 403);
    assert_eq!(
        message(&refused),
        "pods \"p\" is forbidden: error looking up service account a/ghost: serviceaccount \"ghost\" not found"
    );
    let (code, made) = server.call(server.admin(), "POST", "/api/v1/namespaces/a/pods", pod("")).await;
    assert_eq!((code, &made["spec"]["serviceAccountName"]), (201, &j!("default")));
    assert_eq!(made["spec"]["volumes"][0]["projected"]["sources"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_is_published_to_accounts() {
    let server = Server::start().await;
    namespace(&server, "a").await;
    let robot = token(&server, j!({})).await;
    let (code, document) = server.call(As::Token(&robot), "GET", "/.well-known/openid-configuration", None).await;
    assert_eq!((code, &document["issuer"]), (200, &j!("https://issuer.test")));
    let (code, keys) = server.call(As::Token(&robot), "GET", "/openid/v1/jwks", None).await;
    assert_eq!((code, keys["keys"].as_array().unwrap().len()), (200, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_in_the_path_opens_nothing_outside_it() {
    let server = Server::start().await;
    namespace(&server, "a").await;
    let outside = [format!("{RBAC}/namespaces/a/clusterroles"), "/api/v1/namespaces/a/namespaces".to_owned()];
    for path in outside.into_iter().chain(["/api/v1/namespaces/a/nodes".to_owned()]) {
        assert_eq!(server.call(server.admin(), "GET", &path, None).await.0, 404, "{path}");
    }
    assert_eq!(server.call(server.admin(), "GET", "/api/v1/namespaces/a", None).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_token_is_who_its_secret_says() {
    use base64::Engine;
    let server = Server::start().await;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let data = j!({"token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"),
        "usage-bootstrap-authentication": encode("true"), "auth-extra-groups": encode("system:bootstrappers:nodes")});
    let secret =
        j!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "data": data});
    let review = async |token: &str| {
        let review = j!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        server.call(As::Token(token), "POST", path, Some(review)).await
    };
    assert_eq!(review("abcdef.0123456789abcdef").await.0, 401);
    server.create("/api/v1/namespaces/kube-system/secrets", secret).await;
    let (code, body) = review("abcdef.0123456789abcdef").await;
    assert_eq!(code, 201, "{body}");
    let user = &body["status"]["userInfo"];
    assert_eq!(user["username"], "system:bootstrap:abcdef");
    assert_eq!(user["groups"], j!(["system:bootstrappers", "system:bootstrappers:nodes", "system:authenticated"]));
    assert_eq!(review("abcdef.0123456789abcdee").await.0, 401);

    // Whoever knows nobody yet reads where the cluster is.
    let path = "/api/v1/namespaces/kube-public/configmaps";
    let (code, map) = server.call(As::Nobody, "GET", &format!("{path}/cluster-info"), None).await;
    assert_eq!(code, 200, "{map}");
    let kubeconfig = map["data"]["kubeconfig"].as_str().unwrap();
    assert!(kubeconfig.contains("server: https://192.0.2.1:") && kubeconfig.contains("certificate-authority-data: "));
    assert_eq!(server.call(As::Nobody, "GET", path, None).await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_is_spoken_for_by_those_who_may() {
    const CERTIFICATES: &str = "/apis/certificates.k8s.io/v1";
    let server = Server::start().await;
    namespace(&server, "a").await;
    let allow = async |name: &str, rules: Value| {
        server.create(&format!("{RBAC}/clusterroles"), j!({"metadata": {"name": name}, "rules": rules})).await;
        let binding = j!({"metadata": {"name": name}, "subjects": [{"kind": "User", "name": "ann"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}});
        server.create(&format!("{RBAC}/clusterrolebindings"), binding).await;
    };
    let resources = ["clustertrustbundles", "podcertificaterequests", "podcertificaterequests/status"];
    allow("writes", j!([{"apiGroups": ["certificates.k8s.io"], "resources": resources, "verbs": ["*"]}])).await;

    let anchor = std::fs::read_to_string(&server.pki.ca).unwrap();
    let bundles = format!("{CERTIFICATES}/clustertrustbundles");
    let plain = j!({"metadata": {"name": "plain"}, "spec": {"trustBundle": anchor}});
    let of_signer = j!({"metadata": {"name": "example.com:s:a"},
        "spec": {"signerName": "example.com/s", "trustBundle": anchor}});
    assert_eq!(server.call_as("ann", "POST", &bundles, Some(plain)).await.0, 201);
    let refused = server.call_as("ann", "POST", &bundles, Some(of_signer.clone())).await;
    assert_eq!(
        (refused.0, message(&refused)),
        (
            403,
            "clustertrustbundles.certificates.k8s.io \"example.com:s:a\" is forbidden: user not permitted to attest for \
             signerName \"example.com/s\""
        )
    );
    let signers = |verb: &str| {
        j!([{"apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
            "resourceNames": ["example.com/*"], "verbs": [verb]}])
    };
    allow("attests", signers("attest")).await;
    let made = server.call_as("ann", "POST", &bundles, Some(of_signer)).await;
    assert_eq!(made.0, 201, "{}", made.1);

    let requests = format!("{CERTIFICATES}/namespaces/a/podcertificaterequests");
    let request = j!({"metadata": {"name": "r"}, "spec": {"signerName": "example.com/s", "podName": "p", "podUID": "a",
        "serviceAccountName": "s", "serviceAccountUID": "b", "nodeName": "n", "nodeUID": "c", "stubPKCS10Request": "QQ=="}});
    server.create(&requests, request).await;
    let denied = j!({"status": {"conditions": [{"type": "Denied", "status": "True", "reason": "Why", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let status = format!("{requests}/r/status");
    let refused = server.call_as("ann", "PATCH", &status, Some(denied.clone())).await;
    assert_eq!(
        (refused.0, message(&refused)),
        (
            422,
            "PodCertificateRequest.certificates.k8s.io \"r\" is invalid: spec.signerName: Forbidden: User \"ann\" is not \
             permitted to \"sign\" for signer \"example.com/s\""
        )
    );
    allow("signs", signers("sign")).await;
    let done = server.call_as("ann", "PATCH", &status, Some(denied)).await;
    assert_eq!(done.0, 200, "{}", done.1);
}
