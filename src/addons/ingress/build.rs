//! From the cluster's objects to a route table: a pure function.

use super::certificates::Keys;
use super::endpoints;
use super::settings::Settings;
use super::table::{Backend, Matcher, Route, Table};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressClass, IngressSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use regex::{Regex, RegexBuilder};
use rustls::sign::CertifiedKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The controller that IngressClasses name to be served here.
pub(super) const CONTROLLER: &str = "mini.local/ingress";
const CLASS: &str = "kubernetes.io/ingress.class";
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
/// The `appProtocol` of a port that speaks HTTP/2 without TLS.
const H2C: &str = "kubernetes.io/h2c";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// An author's regular expression may not become larger than this when compiled.
const PATTERN_MAX: usize = 1 << 20;

/// What the table is made of.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) ingresses: Vec<Arc<Ingress>>,
    pub(super) classes: Vec<Arc<IngressClass>>,
    pub(super) services: Vec<Arc<Service>>,
    pub(super) slices: Vec<Arc<EndpointSlice>>,
    pub(super) secrets: Vec<Arc<Secret>>,
}

/// Something of an Ingress that cannot be served as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    pub(super) ingress: Arc<Ingress>,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

#[derive(Debug)]
pub(super) struct Built {
    pub(super) table: Table,
    /// The Ingresses that are served here, oldest first.
    pub(super) served: Vec<Arc<Ingress>>,
    pub(super) problems: Vec<Problem>,
}

type Name = (String, String);

fn name_of(meta: &ObjectMeta) -> Name {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// The table of this world; names without a certificate of their own get `fallback`.
pub(super) fn build(world: &World, keys: &mut Keys, fallback: &Arc<CertifiedKey>) -> Built {
    let mut served: Vec<_> =
        world.ingresses.iter().filter(|ingress| is_ours(ingress, &world.classes)).cloned().collect();
    // Where two claim the same, the older one has it.
    served.sort_by_cached_key(|ingress| {
        (ingress.metadata.creation_timestamp.as_ref().map(|time| time.0), name_of(&ingress.metadata))
    });
    let mut builder = Builder {
        services: world.services.iter().map(|service| (name_of(&service.metadata), &**service)).collect(),
        slices: HashMap::new(),
        secrets: world.secrets.iter().map(|secret| (name_of(&secret.metadata), &**secret)).collect(),
        backends: HashMap::new(),
        table: Table::default(),
        problems: Vec::new(),
    };
    for slice in &world.slices {
        if let Some(service) = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) {
            let namespace = slice.metadata.namespace.clone().unwrap_or_default();
            builder.slices.entry((namespace, service.clone())).or_default().push(slice);
        }
    }
    for ingress in &served {
        builder.ingress(ingress, keys);
    }
    let secrets = &builder.secrets;
    keys.retain(|namespace, name| secrets.contains_key(&(namespace.to_owned(), name.to_owned())));
    let (mut table, problems) = (builder.table, builder.problems);
    table.certificates.add("", fallback);
    table.arrange();
    Built { table, served, problems }
}

/// Whether the Ingress is of one of our classes: by its field, by the older annotation, or because ours is the default.
fn is_ours(ingress: &Ingress, classes: &[Arc<IngressClass>]) -> bool {
    let mut ours = classes
        .iter()
        .filter(|class| class.spec.as_ref().is_some_and(|spec| spec.controller.as_deref() == Some(CONTROLLER)));
    let annotation = |meta: &ObjectMeta, name: &str| meta.annotations.as_ref().and_then(|a| a.get(name)).cloned();
    let field = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.clone());
    match field.or_else(|| annotation(&ingress.metadata, CLASS)) {
        Some(name) => ours.any(|class| class.metadata.name.as_ref() == Some(&name)),
        None => ours.any(|class| annotation(&class.metadata, DEFAULT_CLASS).as_deref() == Some("true")),
    }
}

struct Builder<'a> {
    services: HashMap<Name, &'a Service>,
    slices: HashMap<Name, Vec<&'a EndpointSlice>>,
    secrets: HashMap<Name, &'a Secret>,
    /// By namespace, Service and port: shared, so that its endpoints take turns over all paths.
    backends: HashMap<(String, String, String), Arc<Backend>>,
    table: Table,
    problems: Vec<Problem>,
}

impl Builder<'_> {
    fn ingress(&mut self, ingress: &Arc<Ingress>, keys: &mut Keys) {
        let Some(spec) = &ingress.spec else { return };
        let none = BTreeMap::new();
        let (settings, complaints) = Settings::read(ingress.metadata.annotations.as_ref().unwrap_or(&none));
        for complaint in complaints {
            self.problem(ingress, "InvalidAnnotation", complaint);
        }
        let settings = Arc::new(settings);
        self.certificates(ingress, spec, keys);
        let rules = spec.rules.as_deref().unwrap_or_default();
        for rule in rules {
            let host = rule.host.as_deref().unwrap_or_default();
            let secure = settings.force_redirect || (settings.redirect && is_secured(host, spec));
            for path in rule.http.iter().flat_map(|http| &http.paths) {
                let Some(matcher) = self.matcher(ingress, path, &settings) else { continue };
                let backend = self.backend(ingress, &path.backend);
                self.table.add(host, matcher, Arc::new(Route { backend, settings: settings.clone(), secure }));
            }
        }
        let Some(default) = &spec.default_backend else { return };
        let backend = self.backend(ingress, default);
        let mut hosts: BTreeSet<&str> = rules.iter().map(|rule| rule.host.as_deref().unwrap_or_default()).collect();
        if hosts.is_empty() {
            hosts.insert("");
        }
        for host in hosts {
            let secure = settings.force_redirect || (settings.redirect && is_secured(host, spec));
            let route = Route { backend: backend.clone(), settings: settings.clone(), secure };
            self.table.add(host, Matcher::Rest, Arc::new(route));
        }
    }

    fn matcher(&mut self, ingress: &Arc<Ingress>, path: &HTTPIngressPath, settings: &Settings) -> Option<Matcher> {
        let text = path.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
        let patterns = settings.patterns || settings.rewrite.is_some();
        match (patterns, path.path_type.as_str()) {
            (false, "Exact") => return Some(Matcher::exact(text)),
            (false, _) => return Some(Matcher::prefix(text)),
            (true, kind) => match pattern(text, kind) {
                Ok(regex) => return Some(Matcher::Pattern(regex, text.len())),
                Err(error) => {
                    let why = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
                    let message = format!("path {text:?} is no regular expression that can be served: {why}");
                    self.problem(ingress, "InvalidPath", message);
                }
            },
        }
        None
    }

    /// The backend; one without endpoints where there is no such Service or port.
    fn backend(&mut self, ingress: &Arc<Ingress>, backend: &IngressBackend) -> Arc<Backend> {
        let Some(service) = &backend.service else {
            self.problem(ingress, "InvalidBackend", "only backends that are Services are served".to_owned());
            return Arc::default();
        };
        let wanted = service.port.clone().unwrap_or_default();
        let port = match (&wanted.name, wanted.number) {
            (Some(name), _) if !name.is_empty() => name.clone(),
            (_, number) => number.unwrap_or_default().to_string(),
        };
        let namespace = ingress.metadata.namespace.clone().unwrap_or_default();
        let full = (namespace.clone(), service.name.clone(), port.clone());
        if let Some(known) = self.backends.get(&full) {
            return known.clone();
        }
        let name = (namespace, service.name.clone());
        let shown = format!("Service {}/{}", name.0, name.1);
        let found = match self.services.get(&name) {
            None => Err(format!("{shown} does not exist")),
            Some(found) if found.spec.as_ref().is_some_and(|s| s.type_.as_deref() == Some("ExternalName")) => {
                Err(format!("{shown} is a name outside the cluster, which is not served"))
            }
            Some(found) => match endpoints::port(found, &wanted) {
                None => Err(format!("{shown} has no TCP port {port}")),
                Some(port) => {
                    let slices = self.slices.get(&name).into_iter().flatten().copied();
                    let h2c = port.app_protocol.as_deref() == Some(H2C);
                    Ok(Backend::new(endpoints::of(port, slices)).speaking_h2c(h2c))
                }
            },
        };
        match found {
            Ok(backend) => {
                let backend = Arc::new(backend);
                self.backends.insert(full, backend.clone());
                backend
            }
            Err(message) => {
                self.problem(ingress, "InvalidBackend", message);
                Arc::default()
            }
        }
    }

    fn certificates(&mut self, ingress: &Arc<Ingress>, spec: &IngressSpec, keys: &mut Keys) {
        let namespace = ingress.metadata.namespace.clone().unwrap_or_default();
        for tls in spec.tls.iter().flatten() {
            // Without a Secret the names are served with the certificate that all others get.
            let Some(name) = tls.secret_name.clone().filter(|name| !name.is_empty()) else { continue };
            let shown = format!("Secret {namespace}/{name}");
            let key = match self.secrets.get(&(namespace.clone(), name)) {
                None => Err(format!("{shown} does not exist, or is not of type kubernetes.io/tls")),
                Some(secret) => keys.of(secret).map_err(|why| format!("{shown} {why}")),
            };
            let key = match key {
                Ok(key) => key,
                Err(why) => {
                    let message = format!("{why}: clients are shown another certificate");
                    self.problem(ingress, "InvalidCertificate", message);
                    continue;
                }
            };
            let named = tls.hosts.as_deref().unwrap_or_default();
            let of_rules = || spec.rules.iter().flatten().filter_map(|rule| rule.host.clone()).collect::<Vec<_>>();
            let hosts = if named.is_empty() { of_rules() } else { named.to_vec() };
            for host in &hosts {
                self.table.certificates.add(host, &key);
            }
            if hosts.is_empty() {
                self.table.certificates.add("", &key);
            }
        }
    }

    fn problem(&mut self, ingress: &Arc<Ingress>, reason: &'static str, message: String) {
        let problem = Problem { ingress: ingress.clone(), reason, message };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

/// Whether the Ingress has TLS for this host; one that names no hosts has it for all of its own.
fn is_secured(host: &str, spec: &IngressSpec) -> bool {
    spec.tls.iter().flatten().any(|tls| {
        let hosts = tls.hosts.as_deref().unwrap_or_default();
        let covers = |name: &String| {
            name.eq_ignore_ascii_case(host)
                || name.strip_prefix("*.").is_some_and(|parent| host.split_once('.').is_some_and(|(_, p)| p == parent))
        };
        hosts.is_empty() || hosts.iter().any(covers)
    })
}

/// A path as a regular expression, as the nginx controller reads it: anchored at the start, without regard to case.
/// A path that is no pattern ends at a segment's end, as its type says.
fn pattern(text: &str, kind: &str) -> Result<Regex, regex::Error> {
    let literal = !text.contains(['(', ')', '[', ']', '{', '}', '*', '+', '?', '|', '^', '$', '\\']);
    let text = match (literal, kind) {
        (true, "Exact") => format!("^{}$", regex::escape(text)),
        (true, _) => format!("^{}(?:/|$)", regex::escape(text.trim_end_matches('/'))),
        (false, "Exact") => format!("^(?:{text})$"),
        (false, _) => format!("^{text}"),
    };
    RegexBuilder::new(&text).case_insensitive(true).size_limit(PATTERN_MAX).build()
}

#[cfg(test)]
mod tests;
