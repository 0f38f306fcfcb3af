#!/usr/bin/env python3
"""The Python `kubernetes` client, typed and dynamic, against the cluster of KUBECONFIG, which is this test's own:
`mini ci --api-only -- python3 tests/clients/python.py`."""
import inspect, logging, threading, time
from datetime import datetime, timezone

import kubernetes
from kubernetes import client, config, dynamic, informer, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

SPACE = "python"
GROUP = "stable.example.com"


def meta(name, **more):
    return client.V1ObjectMeta(name=name, **more)


def pod_template(image, **labels):
    container = client.V1Container(
        name="web",
        image=image,
        ports=[client.V1ContainerPort(container_port=80)],
        resources=client.V1ResourceRequirements(requests={"cpu": "100m", "memory": "64Mi"}),
    )
    return client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels=labels), spec=client.V1PodSpec(containers=[container]))


def until(what, met, seconds=20):
    end = time.monotonic() + seconds
    while not (found := met()):
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(0.05)
    return found


def refused(code, reason, call, *arguments, **more):
    try:
        call(*arguments, **more)
    except ApiException as error:
        assert error.status == code and f'"reason":"{reason}"' in error.body, (error.status, error.body)
        return error.body
    raise AssertionError(f"{call.__name__} was not refused")


def typed_objects(api):
    """Create, read, list in pages, replace with a conflict, the patches, apply with a conflict, delete."""
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
    for number in range(7):
        body = client.V1ConfigMap(metadata=meta(f"map-{number}", labels={"set": "seven"}), data={"n": str(number)})
        made = core.create_namespaced_config_map(SPACE, body, field_manager="python")
        assert made.metadata.uid and made.metadata.managed_fields[0].manager == "python"
        assert abs((datetime.now(timezone.utc) - made.metadata.creation_timestamp).total_seconds()) < 60
    refused(409, "AlreadyExists", core.create_namespaced_config_map, SPACE, client.V1ConfigMap(metadata=meta("map-0")))
    refused(404, "NotFound", core.read_namespaced_config_map, "nobody", SPACE)
    refused(422, "Invalid", core.create_namespaced_config_map, SPACE, client.V1ConfigMap(metadata=meta("Not_A_Name")))

    seen, token = [], None
    while True:
        page = core.list_namespaced_config_map(SPACE, label_selector="set=seven", limit=3, _continue=token)
        seen += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert seen == [f"map-{number}" for number in range(7)], seen

    stale = core.read_namespaced_config_map("map-0", SPACE)
    fresh = core.read_namespaced_config_map("map-0", SPACE)
    fresh.data["n"] = "new"
    core.replace_namespaced_config_map("map-0", SPACE, fresh)
    refused(409, "Conflict", core.replace_namespaced_config_map, "map-0", SPACE, stale)

    deployment = client.V1Deployment(
        metadata=meta("web"),
        spec=client.V1DeploymentSpec(replicas=0, selector=client.V1LabelSelector(match_labels={"app": "web"}), template=pod_template("web:1", app="web")),
    )
    made = apps.create_namespaced_deployment(SPACE, deployment)
    assert made.spec.strategy.rolling_update.max_surge == "25%", made.spec.strategy
    # A dict goes out as a strategic merge patch, a list as a JSON patch.
    patched = apps.patch_namespaced_deployment("web", SPACE, {"spec": {"template": {"spec": {"containers": [{"name": "log", "image": "log:1"}]}}}})
    assert sorted(c.name for c in patched.spec.template.spec.containers) == ["log", "web"]
    patched = apps.patch_namespaced_deployment("web", SPACE, [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "x:2"}])
    assert "x:2" in [c.image for c in patched.spec.template.spec.containers]
    scale = apps.read_namespaced_deployment_scale("web", SPACE)
    scale.spec.replicas = 2
    # The controller writes at the same time.
    scale.metadata.resource_version = None
    assert apps.replace_namespaced_deployment_scale("web", SPACE, scale).spec.replicas == 2
    until("the replica set's pods", lambda: len(core.list_namespaced_pod(SPACE, label_selector="app=web").items) >= 2)
    status = apps.read_namespaced_deployment_status("web", SPACE).status
    assert status is None or (status.ready_replicas or 0) == 0
    apps.delete_namespaced_deployment("web", SPACE, propagation_policy="Foreground")
    until("its pods to be gone", lambda: not core.list_namespaced_pod(SPACE, label_selector="app=web").items)

    gone = core.delete_collection_namespaced_config_map(SPACE, label_selector="set=seven")
    assert gone is not None and not core.list_namespaced_config_map(SPACE, label_selector="set=seven").items


def typed_lists(api):
    """Everything that the client can list, it can read: required fields, types and enumerations are as its models want."""
    listed, wrong = 0, []
    for name, group in inspect.getmembers(client, inspect.isclass):
        if not name.endswith("V1Api") and name != "AutoscalingV2Api":
            continue
        for method, function in inspect.getmembers(group(api), inspect.ismethod):
            if not (method.startswith("list_") and not method.endswith("_with_http_info") and "preload" not in method):
                continue
            wanted = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
            if [p.name for p in wanted] not in ([], ["namespace"]) or "custom" in method:
                continue
            arguments = ["kube-system"] * len(wanted)
            try:
                assert function(*arguments).kind.endswith("List")
            except Exception as error:
                # Not by this client, which will not have the null that upstream's API too says of old events.
                if name == "EventsV1Api" and "eventTime" in str(error):
                    continue
                wrong.append((method, str(error)[:500]))
            listed += 1
    assert listed > 80 and not wrong, (listed, wrong)


def watches(api):
    """Events in order; a watch that was stopped goes on at its last version without a gap."""
    core = client.CoreV1Api(api)
    start = core.list_namespaced_config_map(SPACE).metadata.resource_version
    for number in range(3):
        core.create_namespaced_config_map(SPACE, client.V1ConfigMap(metadata=meta(f"seen-{number}")))
    first = watch.Watch()
    events = []
    for event in first.stream(core.list_namespaced_config_map, SPACE, resource_version=start, timeout_seconds=20):
        events.append((event["type"], event["object"].metadata.name))
        version = event["object"].metadata.resource_version
        if len(events) == 2:
            first.stop()
    assert events == [("ADDED", "seen-0"), ("ADDED", "seen-1")], events
    core.patch_namespaced_config_map("seen-1", SPACE, {"data": {"a": "b"}})
    core.delete_namespaced_config_map("seen-0", SPACE)
    second, events = watch.Watch(), []
    for event in second.stream(core.list_namespaced_config_map, SPACE, resource_version=version, timeout_seconds=20):
        events.append((event["type"], event["object"].metadata.name))
        if len(events) == 3:
            second.stop()
    assert events == [("ADDED", "seen-2"), ("MODIFIED", "seen-1"), ("DELETED", "seen-0")], events


def informers(api):
    """The client's shared informer follows what is made, changed and deleted."""
    core = client.CoreV1Api(api)
    seen, lock = [], threading.Lock()

    def note(kind):
        def handler(*objects):
            with lock:
                seen.append((kind, objects[-1].metadata.name))

        return handler

    followed = informer.SharedInformer(list_func=core.list_namespaced_secret, namespace=SPACE)
    for kind in (informer.ADDED, informer.MODIFIED, informer.DELETED):
        followed.add_event_handler(kind, note(kind))
    followed.start()
    try:
        time.sleep(0.5)
        core.create_namespaced_secret(SPACE, client.V1Secret(metadata=meta("followed"), string_data={"a": "b"}))
        until("ADDED", lambda: (informer.ADDED, "followed") in seen)
        core.patch_namespaced_secret("followed", SPACE, {"metadata": {"labels": {"x": "y"}}})
        until("MODIFIED", lambda: (informer.MODIFIED, "followed") in seen)
        core.delete_namespaced_secret("followed", SPACE)
        until("DELETED", lambda: (informer.DELETED, "followed") in seen)
    finally:
        followed.stop()


def custom_objects(api):
    """A definition, its objects through the generic API, their status and scale, and the schema's word."""
    definitions, custom = client.ApiextensionsV1Api(api), client.CustomObjectsApi(api)
    schema = client.V1JSONSchemaProps(
        type="object",
        properties={
            "spec": client.V1JSONSchemaProps(
                type="object",
                required=["size"],
                properties={
                    "size": client.V1JSONSchemaProps(type="integer", minimum=0, maximum=9),
                    "color": client.V1JSONSchemaProps(type="string", default="red"),
                },
            ),
            "status": client.V1JSONSchemaProps(type="object", properties={"size": client.V1JSONSchemaProps(type="integer")}),
        },
    )
    version = client.V1CustomResourceDefinitionVersion(
        name="v1",
        served=True,
        storage=True,
        schema=client.V1CustomResourceValidation(open_apiv3_schema=schema),
        subresources=client.V1CustomResourceSubresources(
            status={}, scale=client.V1CustomResourceSubresourceScale(spec_replicas_path=".spec.size", status_replicas_path=".status.size")
        ),
    )
    names = client.V1CustomResourceDefinitionNames(plural="balloons", singular="balloon", kind="Balloon", short_names=["bal"])
    spec = client.V1CustomResourceDefinitionSpec(group=GROUP, scope="Namespaced", names=names, versions=[version])
    definitions.create_custom_resource_definition(client.V1CustomResourceDefinition(metadata=meta(f"balloons.{GROUP}"), spec=spec))

    def established():
        status = definitions.read_custom_resource_definition(f"balloons.{GROUP}").status
        return status and any(c.type == "Established" and c.status == "True" for c in status.conditions or [])

    until("the definition", established)
    where = (GROUP, "v1", SPACE, "balloons")
    balloon = {"apiVersion": f"{GROUP}/v1", "kind": "Balloon", "metadata": {"name": "one"}, "spec": {"size": 3}}
    made = custom.create_namespaced_custom_object(*where, balloon)
    assert made["spec"] == {"size": 3, "color": "red"}, made
    bad = dict(balloon, metadata={"name": "two"}, spec={"size": 10})
    said = refused(422, "Invalid", custom.create_namespaced_custom_object, *where, bad)
    assert "should be less than or equal to 9" in said, said
    patched = custom.patch_namespaced_custom_object(*where, "one", {"spec": {"size": 4}}, _content_type="application/merge-patch+json")
    assert patched["spec"]["size"] == 4 and patched["metadata"]["generation"] == 2
    patched["status"] = {"size": 4}
    assert custom.replace_namespaced_custom_object_status(*where, "one", patched)["status"] == {"size": 4}
    assert custom.get_namespaced_custom_object_scale(*where, "one")["status"]["replicas"] == 4
    assert [o["metadata"]["name"] for o in custom.list_namespaced_custom_object(*where)["items"]] == ["one"]
    custom.delete_namespaced_custom_object(*where, "one")
    refused(404, "NotFound", custom.get_namespaced_custom_object, *where, "one")


def dynamic_objects(api):
    """Discovery, server-side apply with its conflicts, a watch, and the definition of before."""
    found = dynamic.DynamicClient(api)
    maps = found.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "1"}}
    made = maps.server_side_apply(body=body, name="applied", namespace=SPACE, field_manager="first")
    assert made.data.a == "1"
    body["data"]["a"] = "2"
    try:
        maps.server_side_apply(body=body, name="applied", namespace=SPACE, field_manager="second")
        raise AssertionError("no conflict")
    except dynamic.exceptions.ConflictError as error:
        assert 'conflict with \\"first\\": .data.a' in error.body, error.body
    taken = maps.server_side_apply(body=body, name="applied", namespace=SPACE, field_manager="second", force_conflicts=True)
    assert taken.data.a == "2"
    del body["data"]
    assert maps.server_side_apply(body=body, name="applied", namespace=SPACE, field_manager="second").data is None

    balloons = found.resources.get(api_version=f"{GROUP}/v1", kind="Balloon")
    assert balloons.namespaced and balloons.short_names == ["bal"] and "status" in balloons.subresources
    start = balloons.get(namespace=SPACE).metadata.resourceVersion
    for name in ("red", "blue"):
        balloons.create(namespace=SPACE, body={"apiVersion": f"{GROUP}/v1", "kind": "Balloon", "metadata": {"name": name}, "spec": {"size": 1, "color": name}})
    watcher, events = watch.Watch(), []
    for event in balloons.watch(namespace=SPACE, resource_version=start, timeout=20, watcher=watcher):
        events.append((event["type"], event["object"].metadata.name))
        if len(events) == 2:
            watcher.stop()
    assert events == [("ADDED", "red"), ("ADDED", "blue")], events
    # The state first, as a watch, and a bookmark at its end.
    watcher, events = watch.Watch(), []
    initial = balloons.watch(
        namespace=SPACE, timeout=20, watcher=watcher, allow_watch_bookmarks=True, send_initial_events=True, resource_version_match="NotOlderThan"
    )
    for event in initial:
        events.append(event["type"])
        if event["type"] == "BOOKMARK":
            assert event["object"].metadata.annotations["k8s.io/initial-events-end"] == "true"
            watcher.stop()
    assert events == ["ADDED", "ADDED", "BOOKMARK"], events
    balloons.patch(name="red", namespace=SPACE, body={"spec": {"size": 2}}, content_type="application/merge-patch+json")
    balloons.delete(namespace=SPACE, label_selector="none=such")
    assert len(balloons.get(namespace=SPACE).items) == 2
    definitions = found.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    definitions.delete(name=f"balloons.{GROUP}")
    until("the definition's end", lambda: not [d for d in definitions.get().items if d.metadata.name.startswith("balloons")])
    try:
        balloons.get(namespace=SPACE)
        raise AssertionError("a kind that is gone was listed")
    except dynamic.exceptions.NotFoundError:
        pass


def manifests(api):
    """The client's own `create -f`."""
    documents = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly"}, "spec": {"schedule": "@daily", "suspend": True, "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}}}}},
    ]
    for document in documents:
        utils.create_from_dict(api, document, namespace=SPACE)
    core = client.CoreV1Api(api)
    request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=["vault"], expiration_seconds=600))
    token = core.create_namespaced_service_account_token("robot", SPACE, request).status.token
    review = client.V1TokenReview(spec=client.V1TokenReviewSpec(token=token, audiences=["vault"]))
    status = client.AuthenticationV1Api(api).create_token_review(review).status
    assert status.authenticated and status.user.username == f"system:serviceaccount:{SPACE}:robot", status
    attributes = client.V1ResourceAttributes(namespace=SPACE, verb="get", resource="pods")
    access = client.V1SubjectAccessReview(spec=client.V1SubjectAccessReviewSpec(user="nobody", resource_attributes=attributes))
    assert client.AuthorizationV1Api(api).create_subject_access_review(access).status.allowed is False


def leader_election(_):
    """Two candidates, one lease: the second leads once the first is gone."""
    led = []

    def candidate(name, stop):
        def lead():
            led.append(name)
            if stop:
                raise SystemExit

        settings = electionconfig.Config(
            LeaseLock("leader", SPACE, name), lease_duration=4, renew_deadline=3, retry_period=1.5, onstarted_leading=lead, onstopped_leading=lambda: None
        )
        threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True).start()

    candidate("first", False)
    until("the first leader", lambda: led == ["first"])
    candidate("second", False)
    time.sleep(1.5)
    assert led == ["first"], led
    lease = client.CoordinationV1Api().read_namespaced_lease("leader", SPACE)
    assert lease.spec.holder_identity == "first", lease
    # As if the first had given up.
    client.CoordinationV1Api().patch_namespaced_lease("leader", SPACE, {"spec": {"holderIdentity": "third"}})
    until("another leader", lambda: len(led) > 1, 30)


def main():
    config.load_kube_config()
    # A watch that is stopped is a failure to it.
    logging.getLogger("kubernetes.informer.informer").disabled = True
    api = client.ApiClient()
    print(f"kubernetes {kubernetes.__version__} from PyPI")
    client.CoreV1Api(api).create_namespace(client.V1Namespace(metadata=meta(SPACE)))
    for test in (typed_objects, typed_lists, watches, informers, custom_objects, dynamic_objects, manifests, leader_election):
        begun = time.monotonic()
        test(api)
        print(f"{test.__name__}: {time.monotonic() - begun:.1f} s", flush=True)
    client.CoreV1Api(api).delete_namespace(SPACE)
    until("the namespace's end", lambda: SPACE not in [n.metadata.name for n in client.CoreV1Api(api).list_namespace().items])


main()
