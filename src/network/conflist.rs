//! The CNI configuration that containerd reads, and the plugin's names in its directory.

use crate::{Config, Error, write_error};
use serde_json::json;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// The plugin's type, and `loopback`, which containerd before 2.0 calls for the pod's `lo`.
const PLUGINS: [&str; 2] = ["mini", "loopback"];

/// Writes configuration and links; links are renewed at each start, because the executable may have moved.
pub(crate) fn write(config: &Config, mtu: u32) -> Result<(), Error> {
    let (bin, conf) = (config.cni_bin_dir(), config.cni_conf_dir());
    for directory in [&bin, &conf] {
        fs::create_dir_all(directory).map_err(write_error(directory))?;
    }
    let executable = std::env::current_exe().map_err(write_error(Path::new("/proc/self/exe")))?;
    for plugin in PLUGINS {
        let (link, fresh) = (bin.join(plugin), bin.join(format!(".{plugin}.new")));
        if fs::read_link(&link).is_ok_and(|target| target == executable) {
            continue;
        }
        let _ = fs::remove_file(&fresh);
        symlink(&executable, &fresh).and_then(|()| fs::rename(&fresh, &link)).map_err(write_error(&link))?;
    }
    let list = json!({
        "cniVersion": "1.0.0",
        "name": config.instance,
        "plugins": [{
            "type": "mini",
            "bridge": config.bridge,
            "table": config.table,
            "podCIDR": config.pod_cidr,
            "leases": config.ipam_dir(),
            "mtu": mtu,
            "capabilities": { "portMappings": true },
        }],
    });
    let (path, fresh) = (conf.join("10-mini.conflist"), conf.join(".10-mini.conflist.new"));
    let text = format!("{list:#}\n");
    if fs::read_to_string(&path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &path)).map_err(write_error(&path))
}
