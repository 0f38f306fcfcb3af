#!/usr/bin/env python3
"""Makes protobuf.txt: the field numbers of the Kubernetes API's protobuf messages, as facts.

    git clone https://github.com/kubernetes/api && git clone https://github.com/kubernetes/apimachinery
    ./protobuf.py api apimachinery > protobuf.txt

The form of protobuf.txt, which protobuf.rs reads:

    core.v1.Pod                  a message
     1 metadata meta.v1.ObjectMeta
     2 spec PodSpec              number, JSON name, type; a message of the same package lacks its prefix
     ^2 VolumeSource             its fields stand in the JSON of the message itself

Types: s string, b bool, i integer, d double, x bytes, q Quantity, o IntOrString, t Time, u MicroTime, r RawExtension,
D Duration, L a list of strings in a message of its own, [T repeated, {T map from strings. A `!` before the name: a zero is
written into JSON too (the Go field is a pointer, or has no omitempty).
"""

import re
import subprocess
import sys

GROUPS = ["admissionregistration", "apps", "authentication", "authorization", "autoscaling", "batch", "certificates",
          "coordination", "core", "discovery", "events", "flowcontrol", "networking", "node", "policy", "rbac",
          "resource", "scheduling", "storage", "storagemigration"]
SCALARS = {"string": "s", "bool": "b", "int32": "i", "int64": "i", "double": "d", "bytes": "x"}
SPECIAL = {"api.resource.Quantity": "q", "util.intstr.IntOrString": "o", "runtime.RawExtension": "r",
           "apis.meta.v1.FieldsV1": "r",
           "apis.meta.v1.Time": "t", "apis.meta.v1.MicroTime": "u", "apis.meta.v1.Duration": "D"}


def show(repo, path):
    return subprocess.run(["git", "-C", repo, "show", f"HEAD:{path}"], check=True, capture_output=True, text=True).stdout


def structs(source):
    """Go name -> {proto field number: (JSON name or None if inline, is pointer, omits zero)}."""
    out = {}
    for name, body in re.findall(r"^type (\w+) struct \{\n(.*?)^\}", source, re.S | re.M):
        fields = {}
        for line in body.splitlines():
            m = re.match(r"\s*(?:(\w+)\s+)?([*\[\]\w.]+)\s+`json:\"([^\"]*)\".*?protobuf:\"\w+,(\d+)", line)
            if m:
                json, *options = m[3].split(",")
                zero = m[2].startswith("*") or not any(o in ("omitempty", "omitzero") for o in options)
                fields[int(m[4])] = (json or None, zero)
        out[name] = fields
    return out


def messages(source):
    source = re.sub(r"//.*", "", source)
    for name, body in re.findall(r"^message (\w+) \{\n(.*?)^\}", source, re.S | re.M):
        yield name, re.findall(r"(optional|repeated|map<string, )\s*([.\w]+)>?\s+(\w+) = (\d+);", body)


def main():
    api, machinery = sys.argv[1:]
    packages = {}
    for group in GROUPS:
        for version in ["v1", "v2"]:
            try:
                packages[f"{group}.{version}"] = (show(api, f"{group}/{version}/generated.proto"),
                                                  show(api, f"{group}/{version}/types.go"))
            except subprocess.CalledProcessError:
                pass
    base = "pkg/apis/meta/v1"
    packages["meta.v1"] = (show(machinery, f"{base}/generated.proto"), show(machinery, f"{base}/types.go"))
    lists = set()  # messages that are slices in Go
    for package, (proto, go) in packages.items():
        known = structs(go)
        lists |= {f"{package}.{name}" for name, _ in messages(proto) if name not in known}

    def kind(text, package):
        if text in SCALARS:
            return SCALARS[text]
        full = text.removeprefix(".").removeprefix("k8s.io.apimachinery.pkg.").removeprefix("k8s.io.api.")
        if full in SPECIAL:
            return SPECIAL[full]
        if "." not in full:
            if package == "meta.v1" and f"apis.meta.v1.{full}" in SPECIAL:
                return SPECIAL[f"apis.meta.v1.{full}"]
            full = f"{package}.{full}"
        full = full.removeprefix("apis.")
        if full in lists:
            return "L"
        return full.removeprefix(f"{package}.")

    for package, (proto, go) in sorted(packages.items()):
        known = structs(go)
        for name, fields in messages(proto):
            if name not in known:
                continue
            print(f"{package}.{name}")
            for how, text, _, number in fields:
                if int(number) not in known[name]:
                    continue
                json, zero = known[name][int(number)]
                if "alpha" in text:  # no stable object has it
                    continue
                t = {"optional": "", "repeated": "[", "map<string, ": "{"}[how] + kind(text, package)
                print(f" ^{number} {t}" if json is None else f" {number} {'!' if zero else ''}{json} {t}")


main()
