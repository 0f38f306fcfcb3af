//! From defaults, file, environment and flags, in this order, to a `Config`.

use crate::fields::{FIELDS, Field};
use crate::{Config, Error, Instance};
use ipnet::Ipv4Net;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// The file that is read when it is there.
pub const DEFAULT_FILE: &str = "/etc/mini/config.yaml";

/// Variables that begin with `MINI_` and are not settings.
const NOT_SETTINGS: &[&str] = &["MINI_CONFIG"];

/// As many links in a row as the kernel follows.
const LINKS: usize = 40;

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file that must be there; else `/etc/mini/config.yaml`, if it is.
    pub file: Option<PathBuf>,
    /// Name and value of environment variables; those that do not begin with `MINI_` are passed over.
    pub environment: Vec<(String, String)>,
    /// Key and value.
    pub flags: Vec<(String, String)>,
}

impl Config {
    /// Reads and checks the settings. Reads no other file than the configuration; only sees where the directories' links lead.
    ///
    /// # Errors
    /// With a sentence that names the place, the setting and what it should be.
    pub fn load(sources: &Sources) -> Result<Self, Error> {
        let mut config = Self::defaults()?;
        let mut run_dir_set = false;
        let mut set = |place: &str, key: &str, text: &str| {
            run_dir_set |= key == "run-dir";
            apply(&mut config, place, key, text)
        };
        for (place, key, text) in file_settings(sources)? {
            set(&place, &key, &text)?;
        }
        for (name, text) in &sources.environment {
            if let Some(rest) = name.strip_prefix("MINI_")
                && !NOT_SETTINGS.contains(&name.as_str())
                && !text.is_empty()
            {
                let key = rest.to_lowercase().replace('_', "-");
                set(&format!("environment variable {name}"), &key, text)?;
            }
        }
        for (key, text) in &sources.flags {
            set("command line", key, text)?;
        }
        // Names come from the path as it is written: a linked /var/lib/mini is still the default instance.
        config.instance = Instance::of(&config.data_dir);
        if !run_dir_set {
            config.run_dir = PathBuf::from(config.instance.run_dir());
        }
        config.data_dir = without_links(&config.data_dir);
        config.run_dir = without_links(&config.run_dir);
        config.check()?;
        Ok(config)
    }

    fn defaults() -> Result<Self, Error> {
        let nothing = Ipv4Net::default();
        let mut config = Self {
            data_dir: PathBuf::new(),
            run_dir: PathBuf::new(),
            node_name_setting: None,
            node_ip_setting: None,
            api_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            api_port: 0,
            kubelet_port: 0,
            pod_cidr: nothing,
            service_cidr: nothing,
            node_port_range: 0..=0,
            cluster_domain: String::new(),
            cluster_dns: Ipv4Addr::UNSPECIFIED,
            extra_sans: Vec::new(),
            token_auth_file: None,
            audit_policy_file: None,
            audit_log_path: None,
            audit_log_maxsize: 0,
            audit_log_maxage: 0,
            audit_log_maxbackup: 0,
            containerd: PathBuf::new(),
            kubectl: None,
            max_pods: 0,
            addons: Vec::new(),
            addons_dir: PathBuf::new(),
            api_only: false,
            fake_nodes: 0,
            log_level: String::new(),
            instance: Instance::of(Path::new("")),
        };
        for field in FIELDS.iter().filter(|field| !field.default.is_empty() && field.default != "[]") {
            apply(&mut config, "default", field.key, field.default)?;
        }
        Ok(config)
    }

    /// What must hold between settings.
    fn check(&self) -> Result<(), Error> {
        let unfit = |text: String| Err(Error::Unfit(text));
        if overlap(self.pod_cidr, self.service_cidr) {
            return unfit(format!(
                "pod-cidr {} and service-cidr {} overlap; move one of them",
                self.pod_cidr, self.service_cidr
            ));
        }
        if !self.service_cidr.contains(&self.cluster_dns) || self.cluster_dns == self.api_service_ip() {
            return unfit(format!(
                "cluster-dns {} must be inside service-cidr {} and not its first address, which is the API's",
                self.cluster_dns, self.service_cidr
            ));
        }
        if self.api_port == self.kubelet_port {
            return unfit(format!("api-port and kubelet-port are both {}; change one of them", self.api_port));
        }
        for (key, port) in [("api-port", self.api_port), ("kubelet-port", self.kubelet_port)] {
            if self.node_port_range.contains(&port) {
                return unfit(format!(
                    "{key} {port} is inside node-port-range {}-{}; move it outside",
                    self.node_port_range.start(),
                    self.node_port_range.end()
                ));
            }
        }
        if self.data_dir == self.run_dir {
            return unfit(format!("data-dir and run-dir are both {}", self.data_dir.display()));
        }
        Ok(())
    }
}

/// The path as the kernel names it in its table of mounts; what does not exist yet is taken as it stands.
fn without_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    // A link to what is not there (a reset has removed it, say) still says where it shall be.
    for _ in 0..LINKS {
        let there = path.ancestors().find(|part| part.symlink_metadata().is_ok()).unwrap_or(Path::new("/")).to_owned();
        let rest = path.strip_prefix(&there).unwrap_or(Path::new("")).to_owned();
        if let Ok(real) = there.canonicalize() {
            return real.components().chain(rest.components()).collect();
        }
        let (Ok(target), Some(parent)) = (there.read_link(), there.parent()) else { break };
        path = parent.join(target).join(rest);
    }
    path
}

pub(crate) fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn apply(config: &mut Config, place: &str, key: &str, text: &str) -> Result<(), Error> {
    let Some(field) = FIELDS.iter().find(|field| field.key == key) else {
        return Err(Error::UnknownKey { place: place.to_owned(), key: key.to_owned(), hint: hint(key) });
    };
    (field.set)(config, text.trim()).map_err(|message| Error::Value {
        place: place.to_owned(),
        key: field.key,
        value: text.to_owned(),
        message,
    })
}

/// The setting that was probably meant.
fn hint(key: &str) -> String {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', '.'], "");
    let near = |field: &&Field| {
        let (a, b) = (plain(field.key), plain(key));
        a == b || (b.len() > 3 && (a.contains(&b) || b.contains(&a)))
    };
    match FIELDS.iter().find(near) {
        Some(field) => format!("; did you mean `{}`?", field.key),
        None => format!("; there are {}", FIELDS.iter().map(|field| field.key).collect::<Vec<_>>().join(", ")),
    }
}

fn file_settings(sources: &Sources) -> Result<Vec<(String, String, String)>, Error> {
    let path = sources.file.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && sources.file.is_none() => return Ok(Vec::new()),
        Err(source) => return Err(Error::Read { path, source }),
    };
    parse_file(&path, &text)
}

fn parse_file(path: &Path, text: &str) -> Result<Vec<(String, String, String)>, Error> {
    let yaml = |message: String| Error::Yaml { path: path.to_owned(), message };
    // Comments alone are a file without settings.
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Vec::new());
    }
    // YAML 1.1 as Kubernetes users write it: 0644 is 420.
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let value: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| yaml(error.to_string().lines().next().unwrap_or_default().to_owned()))?;
    let settings = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Object(settings) => settings,
        _ => return Err(yaml("it must be settings, one `key: value` a line".to_owned())),
    };
    let place = path.display().to_string();
    settings
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| match scalar(&value) {
            Some(text) => Ok((place.clone(), key, text)),
            None => Err(yaml(format!("`{key}` must be a single value or a list of them"))),
        })
        .collect()
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Array(items) => Some(items.iter().map(scalar).collect::<Option<Vec<_>>>()?.join(",")),
        Value::Null | Value::Object(_) => None,
    }
}
