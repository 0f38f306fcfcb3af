//! Volumes of a pod and where its containers mount them.

use super::env;
use crate::check::{At, Errors};
use mini_api::{FieldError, names};
use std::collections::{BTreeMap, BTreeSet};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Checks the volumes of a pod spec; answers the good ones by name, with the field that says their kind.
pub(super) fn all<'a>(at: &At<'a>, errors: &mut Errors) -> BTreeMap<&'a str, &'a str> {
    let mut good = BTreeMap::new();
    for volume in at.items() {
        let before = errors.len();
        let kind = source(&volume, errors);
        let name = volume.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else {
            name.messages(names::is_dns1123_label(name.text()), errors);
        }
        if good.contains_key(name.text()) {
            errors.push(name.duplicate());
        }
        if errors.len() == before {
            good.insert(name.text(), kind);
        }
    }
    good
}

fn source<'a>(volume: &At<'a>, errors: &mut Errors) -> &'a str {
    let mut found: Option<&str> = None;
    for (kind, value) in volume.value.as_object().into_iter().flatten() {
        if kind == "name" || value.is_null() {
            continue;
        }
        let at = volume.get(kind);
        if found.is_some() {
            errors.push(at.forbidden("may not specify more than 1 volume type"));
            continue;
        }
        found = Some(kind);
        match kind.as_str() {
            "emptyDir" => {
                let limit = at.get("sizeLimit");
                if limit.quantity().is_some_and(|q| q.is_negative()) {
                    errors.push(limit.forbidden("SizeLimit field must be a valid resource quantity"));
                }
            }
            "hostPath" => host_path(&at, errors),
            "secret" => {
                at.get("secretName").must_be_set(errors);
                keyed_files(&at, errors);
            }
            "configMap" => {
                at.get("name").must_be_set(errors);
                keyed_files(&at, errors);
            }
            "downwardAPI" => {
                mode(&at.get("defaultMode"), errors);
                at.get("items").items().iter().for_each(|item| downward_file(item, errors));
            }
            "projected" => projected(&at, errors),
            "persistentVolumeClaim" => at.get("claimName").must_be_set(errors),
            "nfs" => {
                ["server", "path"].iter().for_each(|f| at.get(f).must_be_set(errors));
                if !at.get("path").text().starts_with('/') {
                    errors.push(at.get("path").invalid("must be an absolute path"));
                }
            }
            "csi" => at.get("driver").must_be_set(errors),
            "ephemeral" => {
                let template = at.get("volumeClaimTemplate");
                if template.is_set() {
                    crate::kinds::volume::claim_spec(&template.get("spec"), errors);
                } else {
                    errors.push(template.required(""));
                }
            }
            "image" => at.get("pullPolicy").one_of(&["Always", "IfNotPresent", "Never"], errors),
            _ => {}
        }
    }
    if found.is_none() {
        errors.push(volume.required("must specify a volume type"));
    }
    found.unwrap_or_default()
}

pub(crate) fn host_path(at: &At<'_>, errors: &mut Errors) {
    let path = at.get("path");
    if path.is_empty() {
        errors.push(path.required(""));
        return;
    }
    no_backsteps(&path, errors);
    at.get("type").one_of(
        &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"],
        errors,
    );
}

fn mode(at: &At<'_>, errors: &mut Errors) {
    if at.int().is_some_and(|m| !(0..=0o777).contains(&m)) {
        errors.push(at.invalid(FILE_MODE));
    }
}

/// `items` and `defaultMode` of a Secret or ConfigMap volume.
fn keyed_files(at: &At<'_>, errors: &mut Errors) {
    mode(&at.get("defaultMode"), errors);
    for item in at.get("items").items() {
        let path = item.get("path");
        item.get("key").must_be_set(errors);
        path.must_be_set(errors);
        descending_path(&path, errors);
        if path.text().starts_with("..") && !path.text().starts_with("../") {
            errors.push(path.invalid("must not start with '..'"));
        }
        mode(&item.get("mode"), errors);
    }
}

fn downward_file(at: &At<'_>, errors: &mut Errors) {
    at.get("path").must_be_set(errors);
    descending_path(&at.get("path"), errors);
    let (field, resource) = (at.get("fieldRef"), at.get("resourceFieldRef"));
    if field.is_set() {
        env::file_field_ref(&field, errors);
        if resource.is_set() {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            errors.push(FieldError::invalid(&at.path, "resource", detail));
        }
    } else if resource.is_set() {
        env::resource_field_ref(&resource, true, errors);
    } else {
        errors.push(at.required("one of fieldRef and resourceFieldRef is required"));
    }
    mode(&at.get("mode"), errors);
}

fn projected(at: &At<'_>, errors: &mut Errors) {
    mode(&at.get("defaultMode"), errors);
    let mut paths = BTreeSet::new();
    for source in at.get("sources").items() {
        let mut kinds = 0;
        for kind in
            ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"]
        {
            let one = source.get(kind);
            if !one.is_set() {
                continue;
            }
            kinds += 1;
            match kind {
                "secret" | "configMap" => {
                    one.get("name").must_be_set(errors);
                    keyed_files(&one, errors);
                }
                "downwardAPI" => one.get("items").items().iter().for_each(|item| downward_file(item, errors)),
                "serviceAccountToken" => {
                    let seconds = one.get("expirationSeconds");
                    if seconds.int().is_some_and(|s| s < 600) {
                        errors.push(seconds.invalid("may not specify a duration less than 10 minutes"));
                    }
                    if seconds.int().is_some_and(|s| s > 1 << 32) {
                        errors.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
                    }
                    one.get("path").must_be_set(errors);
                }
                _ => {}
            }
            for item in one.get("items").items() {
                let path = item.get("path").text();
                if !path.is_empty() && !paths.insert(path) {
                    let shown = if kind == "downwardAPI" { path } else { one.get("name").text() };
                    errors.push(FieldError::invalid(&at.path, shown, "conflicting duplicate paths"));
                }
            }
        }
        match kinds {
            0 => errors.push(source.required("must specify a projected volume source type")),
            1 => {}
            _ => errors.push(source.forbidden("may not specify more than 1 volume type per source")),
        }
    }
}

pub(super) fn descending_path(at: &At<'_>, errors: &mut Errors) {
    if at.text().starts_with('/') {
        errors.push(at.invalid("must be a relative path"));
    }
    no_backsteps(at, errors);
}

fn no_backsteps(at: &At<'_>, errors: &mut Errors) {
    if at.text().split('/').any(|part| part == "..") {
        errors.push(at.invalid("must not contain '..'"));
    }
}

/// Mounts and block devices of one container.
pub(super) fn mounts(container: &At<'_>, kinds: &BTreeMap<&str, &str>, errors: &mut Errors) {
    let mut paths = BTreeSet::new();
    let devices = container.get("volumeDevices");
    let privileged = container.get("securityContext").get("privileged").is_true();
    let mounts = container.get("volumeMounts");
    for mount in mounts.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        name.must_be_set(errors);
        if !kinds.contains_key(name.text()) {
            errors.push(FieldError::not_found(&name.path, name.text()));
        }
        path.must_be_set(errors);
        if !paths.insert(path.text()) {
            errors.push(path.invalid("must be unique"));
        }
        if devices.items().iter().any(|d| d.get("devicePath").text() == path.text()) {
            errors.push(path.invalid("must not already exist as a path in volumeDevices"));
        }
        let (sub, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
        for part in [&sub, &expression] {
            // As upstream, which does not say of which mount.
            let field = part.path.as_str().rsplit('.').next().unwrap_or_default();
            descending_path(&At { value: part.value, path: mounts.path.child(field) }, errors);
        }
        if !sub.is_empty() && !expression.is_empty() {
            errors.push(expression.invalid("subPathExpr and subPath are mutually exclusive"));
        }
        let propagation = mount.get("mountPropagation");
        propagation.one_of(&["Bidirectional", "HostToContainer", "None"], errors);
        if propagation.text() == "Bidirectional" && !privileged {
            errors.push(
                propagation.forbidden("Bidirectional mount propagation is available only to privileged containers"),
            );
        }
        let recursive = mount.get("recursiveReadOnly");
        recursive.one_of(&["Disabled", "Enabled", "IfPossible"], errors);
        if matches!(recursive.text(), "Enabled" | "IfPossible") && !mount.get("readOnly").is_true() {
            errors.push(recursive.forbidden("may only be specified when readOnly is true"));
        }
    }
    for device in devices.items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        name.must_be_set(errors);
        path.must_be_set(errors);
        match kinds.get(name.text()) {
            None => errors.push(FieldError::not_found(&name.path, name.text())),
            Some(&("persistentVolumeClaim" | "ephemeral")) => {}
            Some(_) => errors.push(
                name.invalid("can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"),
            ),
        }
        no_backsteps(&path, errors);
    }
}
