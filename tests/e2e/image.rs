//! The test image: `/bin/busybox` of the machine with all its names, and `getent`, as a one-layer OCI archive.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use tar::{Builder, EntryType, Header};

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Everything an image is made of.
pub(crate) struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

impl Image {
    pub(crate) fn new() -> Self {
        let layer = layer();
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": { "Env": ["PATH=/bin"], "Cmd": ["sh"] },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        let config = serde_json::to_vec(&config).unwrap();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        Self { layer, config, manifest }
    }

    pub(crate) fn blobs(&self) -> [&[u8]; 3] {
        [&self.layer, &self.config, &self.manifest]
    }
}

pub(crate) fn write(archive: &Path, reference: &str) {
    let image = Image::new();
    let mut entry = descriptor(MANIFEST_TYPE, &image.manifest);
    entry["annotations"] = json!({ "io.containerd.image.name": reference, "org.opencontainers.image.ref.name": "1" });
    let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [entry] })).unwrap();
    let mut tar = Builder::new(File::create(archive).unwrap());
    add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    add(&mut tar, "index.json", &index);
    for blob in image.blobs() {
        add(&mut tar, &format!("blobs/sha256/{}", hex::encode(Sha256::digest(blob))), blob);
    }
    tar.finish().unwrap();
}

fn layer() -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for directory in ["bin", "etc", "root", "tmp", "www"] {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(if directory == "tmp" { 0o1777 } else { 0o755 });
        header.set_size(0);
        tar.append_data(&mut header, format!("{directory}/"), std::io::empty()).unwrap();
    }
    let busybox = std::fs::read("/bin/busybox").expect("the package busybox-static is installed");
    add(&mut tar, "bin/busybox", &busybox);
    let names = Command::new("/bin/busybox").arg("--list").output().unwrap();
    for name in String::from_utf8(names.stdout).unwrap().lines().filter(|name| *name != "busybox") {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{name}"), "busybox").unwrap();
    }
    add_getent(&mut tar);
    add(&mut tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n");
    add(&mut tar, "etc/group", b"root:x:0:\nnobody:x:65534:\n");
    tar.into_inner().unwrap()
}

/// The C library and a program that resolves names with it, as busybox does not.
fn add_getent(tar: &mut Builder<impl std::io::Write>) {
    let needed = Command::new("ldd").arg("/usr/bin/getent").output().unwrap();
    let needed = String::from_utf8(needed.stdout).unwrap();
    for path in needed.split_whitespace().filter(|word| word.starts_with('/')) {
        add(tar, path.trim_start_matches('/'), &std::fs::read(path).unwrap());
    }
    add(tar, "bin/getent", &std::fs::read("/usr/bin/getent").unwrap());
}

fn add(tar: &mut Builder<impl std::io::Write>, name: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content).unwrap();
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

pub(crate) fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
