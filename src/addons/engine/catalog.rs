//! Which addons there are: ours, embedded in the executable, and those of a folder.
//!
//! Invariant: an addon in the catalog is sound. Its manifests render with the defaults of its arguments, so that a mistake
//! in it shows when it is listed, not half-way through enabling.

use super::arguments::{self, Argument};
use super::readiness::Check;
use super::template::{self, Variables};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

type Files<'a> = &'a [(&'a str, &'a str)];

/// Name and files of each core addon.
static CORE: &[(&str, Files<'static>)] = include!(concat!(env!("OUT_DIR"), "/core_addons.rs"));

/// The names of our own.
pub fn core_names() -> impl Iterator<Item = &'static str> {
    CORE.iter().map(|(name, _)| *name)
}

pub(super) const CORE_REPOSITORY: &str = "core";
const DESCRIPTION_FILE: &str = "addon.yaml";
/// A manifest of a folder may not be larger.
const LARGEST_FILE: u64 = 4 << 20;

/// `addon.yaml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Description {
    name: String,
    description: String,
    version: String,
    #[serde(default)]
    repository: String,
    #[serde(default)]
    arguments: Vec<Argument>,
    #[serde(default)]
    depends_on: Vec<String>,
    #[serde(default)]
    readiness: Vec<Value>,
}

#[derive(Clone, Debug)]
pub(super) struct Addon {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) version: String,
    pub(super) repository: String,
    pub(super) arguments: Vec<Argument>,
    pub(super) depends_on: Vec<String>,
    readiness: Vec<Value>,
    manifests: Vec<(String, Value)>,
}

/// What an addon comes to with its arguments.
pub(super) struct Rendered {
    pub(super) objects: Vec<Value>,
    pub(super) checks: Vec<Check>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Catalog {
    pub(super) addons: BTreeMap<String, Addon>,
    /// Why some of the folder's are not among them.
    pub(super) refused: BTreeMap<String, String>,
}

impl Catalog {
    /// Core addons and those in `folder`, which need not exist.
    pub(super) fn read(folder: &Path, variables: &Variables) -> Self {
        let mut catalog = Self::default();
        for (name, files) in CORE {
            catalog.add(name, Addon::parse(name, files, CORE_REPOSITORY, variables));
        }
        let mut theirs: Vec<_> =
            std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        theirs.sort();
        for path in theirs.iter().filter(|path| path.is_dir()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if catalog.addons.contains_key(&name) {
                let why = format!("{} is not used: {name} is a core addon; give yours another name", path.display());
                catalog.refused.insert(name, why);
                continue;
            }
            let read = read_folder(path).and_then(|files| {
                let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
                Addon::parse(&name, &files, "local", variables)
            });
            catalog.add(&name, read.map_err(|why| format!("{}: {why}", path.display())));
        }
        catalog
    }

    fn add(&mut self, name: &str, addon: Result<Addon, String>) {
        match addon {
            Ok(addon) => drop(self.addons.insert(name.to_owned(), addon)),
            Err(why) => drop(self.refused.insert(name.to_owned(), why)),
        }
    }

    /// # Errors
    /// There is none, with the name that was probably meant, or why it cannot be used.
    pub(super) fn find(&self, name: &str) -> Result<&Addon, String> {
        self.addons.get(name).ok_or_else(|| match self.refused.get(name) {
            Some(why) => why.clone(),
            None => {
                let near = self.addons.keys().find(|known| is_near(known, name));
                let hint = near.map(|near| format!("did you mean {near}? ")).unwrap_or_default();
                format!("there is no addon {name:?}; {hint}`mini addons list` shows those there are")
            }
        })
    }

    /// `names` and everything they depend on, in groups: each group's dependencies are in those before it.
    ///
    /// # Errors
    /// One is not there, or they depend on each other in a circle.
    pub(super) fn in_order(&self, names: &[String]) -> Result<Vec<Vec<&Addon>>, String> {
        let mut wanted: BTreeMap<&str, &Addon> = BTreeMap::new();
        let mut queue: Vec<&str> = names.iter().map(String::as_str).collect();
        while let Some(name) = queue.pop() {
            let addon = self.find(name)?;
            if wanted.insert(&addon.name, addon).is_none() {
                queue.extend(addon.depends_on.iter().map(String::as_str));
            }
        }
        let mut groups = Vec::new();
        while !wanted.is_empty() {
            let free = |addon: &Addon| addon.depends_on.iter().all(|other| !wanted.contains_key(other.as_str()));
            let group: Vec<&Addon> = wanted.values().copied().filter(|addon| free(addon)).collect();
            if group.is_empty() {
                let circle: Vec<&str> = wanted.keys().copied().collect();
                return Err(format!("addons depend on each other in a circle: {}", circle.join(", ")));
            }
            wanted.retain(|name, _| !group.iter().any(|addon| addon.name == *name));
            groups.push(group);
        }
        Ok(groups)
    }
}

/// Differs by one letter, or two swapped, or begins the same.
fn is_near(a: &str, b: &str) -> bool {
    if b.len() > 2 && (a.starts_with(b) || b.starts_with(a)) {
        return true;
    }
    let sorted = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    let differing = a.chars().zip(b.chars()).filter(|(x, y)| x != y).count();
    sorted(a) == sorted(b) || (a.len() == b.len() && differing == 1)
}

fn read_folder(path: &Path) -> Result<Vec<(String, String)>, String> {
    let entries = std::fs::read_dir(path).map_err(|error| error.to_string())?;
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let file = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if !(name.ends_with(".yaml") || name.ends_with(".yml")) || name.starts_with('.') || !file.is_file() {
            continue;
        }
        let read = match file.metadata() {
            Ok(meta) if meta.len() > LARGEST_FILE => Err(format!("larger than {} MiB", LARGEST_FILE >> 20)),
            _ => std::fs::read_to_string(&file).map_err(|error| error.to_string()),
        };
        files.push((name.clone(), read.map_err(|why| format!("cannot read {name}: {why}"))?));
    }
    files.sort();
    Ok(files)
}

/// YAML 1.1 as Kubernetes' users write it (0644 is 420), one value a document.
fn documents(file: &str, text: &str) -> Result<Vec<Value>, String> {
    if let Some((number, _)) = text.lines().enumerate().find(|(_, line)| is_unquoted(line)) {
        return Err(format!("{file}:{}: a value that begins with {{{{ must stand in quotes", number + 1));
    }
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_multiple_with_options::<Value>(text, options)
        .map_err(|error| format!("{file} is not valid YAML: {}", error.to_string().lines().next().unwrap_or_default()))
}

/// `key: {{ x }}` or `- {{ x }}`: a mapping to YAML.
fn is_unquoted(line: &str) -> bool {
    let line = line.trim_start();
    if line.starts_with('#') {
        return false;
    }
    let item = line.strip_prefix("- ").unwrap_or(line).trim_start();
    item.starts_with("{{")
        || item
            .split_once(": ")
            .is_some_and(|(key, value)| !key.contains(['"', '\'', '#']) && value.trim_start().starts_with("{{"))
}

impl Addon {
    fn parse(name: &str, files: Files<'_>, repository: &str, variables: &Variables) -> Result<Self, String> {
        let (_, text) =
            files.iter().find(|(file, _)| *file == DESCRIPTION_FILE).ok_or(format!("{DESCRIPTION_FILE} is missing"))?;
        let about = documents(DESCRIPTION_FILE, text)?.into_iter().next().unwrap_or(Value::Null);
        let mut about: Description =
            serde_json::from_value(about).map_err(|error| format!("{DESCRIPTION_FILE}: {error}"))?;
        if about.name != name || !mini_api::names::is_dns1123_label(name).is_empty() {
            return Err(format!("{DESCRIPTION_FILE}: the name is {:?}, but the directory's is {name:?}", about.name));
        }
        if about.description.contains('\n') {
            return Err(format!("{DESCRIPTION_FILE}: the description is one line"));
        }
        match (about.repository.as_str(), repository) {
            ("", of) => about.repository = of.to_owned(),
            (of, CORE_REPOSITORY) if of != CORE_REPOSITORY => {
                return Err(format!("{DESCRIPTION_FILE}: the repository of a core addon is {CORE_REPOSITORY}"));
            }
            (CORE_REPOSITORY, of) if of != CORE_REPOSITORY => {
                return Err(format!(
                    "{DESCRIPTION_FILE}: only mini's own addons are of the repository {CORE_REPOSITORY}"
                ));
            }
            _ => {}
        }
        for argument in &about.arguments {
            argument.check_declaration().map_err(|why| format!("{DESCRIPTION_FILE}: {why}"))?;
        }
        let mut manifests = Vec::new();
        for (file, text) in files.iter().filter(|(file, _)| *file != DESCRIPTION_FILE) {
            manifests.extend(documents(file, text)?.into_iter().map(|value| ((*file).to_owned(), value)));
        }
        let version = template::render(&Value::String(about.version), variables)?;
        let addon = Self {
            name: about.name,
            description: about.description,
            version: version.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned(),
            repository: about.repository,
            arguments: about.arguments,
            depends_on: about.depends_on,
            readiness: about.readiness,
            manifests,
        };
        addon.render(variables, &BTreeMap::new())?;
        Ok(addon)
    }

    /// # Errors
    /// With file and cause.
    pub(super) fn render(&self, variables: &Variables, given: &BTreeMap<String, String>) -> Result<Rendered, String> {
        let mut variables = variables.clone();
        arguments::fill(&mut variables, &self.arguments, given);
        let mut objects = Vec::new();
        for (file, manifest) in &self.manifests {
            let told = |why: String| format!("{file}: {why}");
            let Some(object) = template::render(manifest, &variables).map_err(told)? else { continue };
            if let Some(missing) = ["apiVersion", "kind"].iter().find(|field| object[**field].as_str().is_none()) {
                return Err(format!("{file}: an object has no {missing}"));
            }
            if object["metadata"]["name"].as_str().is_none_or(str::is_empty) {
                return Err(format!("{file}: a {} has no name", object["kind"].as_str().unwrap_or_default()));
            }
            objects.push(object);
        }
        let mut checks = Vec::new();
        for check in &self.readiness {
            let told = |why: String| format!("{DESCRIPTION_FILE}: readiness: {why}");
            if let Some(check) = template::render(check, &variables).map_err(told)? {
                checks.push(serde_json::from_value(check).map_err(|error| told(error.to_string()))?);
            }
        }
        Ok(Rendered { objects, checks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::variables;
    use serde_json::json;

    const ABOUT: &str = "name: a\ndescription: One\nversion: \"1\"\n";

    fn parse(about: &str, manifest: &str) -> Result<Addon, String> {
        Addon::parse("a", &[("addon.yaml", about), ("m.yaml", manifest)], "local", &variables())
    }

    #[test]
    fn core_addons_are_sound() {
        let catalog = Catalog::read(Path::new("/nonexistent/addons"), &variables());
        assert_eq!(catalog.refused, BTreeMap::new());
        assert_eq!(catalog.addons.len(), CORE.len());
        for addon in catalog.addons.values() {
            assert!(catalog.in_order(std::slice::from_ref(&addon.name)).is_ok(), "{}", addon.name);
            assert!(!addon.readiness.is_empty(), "{} says when it works", addon.name);
        }
    }

    #[test]
    fn manifests_are_rendered_with_arguments_and_yaml_1_1() {
        let about = format!("{ABOUT}arguments: [{{name: mode, kind: text, default: x}}]\n");
        let addon = parse(
            &about,
            "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nmode: 0644\nv: \"{{ args.mode }}\"\n---\n",
        )
        .unwrap();
        let given = [("mode".to_owned(), "y".to_owned())].into();
        let rendered = addon.render(&variables(), &given).unwrap();
        let want = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "mode": 420, "v": "y"});
        assert_eq!((addon.repository.as_str(), rendered.objects), ("local", vec![want]));
    }

    #[test]
    fn mistakes_are_found_when_read() {
        for (about, manifest, said) in [
            ("name: b\ndescription: d\nversion: \"1\"\n", "", "the directory's is \"a\""),
            ("name: a\nversion: \"1\"\n", "", "missing field `description`"),
            (&*format!("{ABOUT}repository: core\n"), "", "only mini's own"),
            (&*format!("{ABOUT}wait: 1\n"), "", "unknown field `wait`"),
            (&*format!("{ABOUT}readiness: [{{rollout: {{kind: Pod, name: x}}}}]\n"), "", "unknown variant `Pod`"),
            (&*format!("{ABOUT}arguments: [{{name: port, kind: port, default: x}}]\n"), "", "a port from 1 to 65535"),
            (ABOUT, "kind: A\nmetadata: {name: a}\n", "m.yaml: an object has no apiVersion"),
            (ABOUT, "apiVersion: v1\nkind: A\n", "m.yaml: a A has no name"),
            (ABOUT, "a:\n  image: {{ image }}\n", "m.yaml:2: a value that begins with {{ must stand in quotes"),
            (ABOUT, "a: [", "m.yaml is not valid YAML"),
            (
                ABOUT,
                "apiVersion: v1\nkind: A\nmetadata: {name: \"{{ args.x }}\"}\n",
                "m.yaml: there is no variable `args.x`",
            ),
        ] {
            let error = parse(about, manifest).unwrap_err();
            assert!(error.contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn dependencies_come_first_and_names_are_guessed() {
        let mut catalog = Catalog::default();
        for (name, on) in [("top", "[mid, low]"), ("mid", "[low]"), ("low", "[]"), ("x", "[z]"), ("z", "[x]")] {
            let about = format!("name: {name}\ndescription: d\nversion: \"1\"\ndependsOn: {on}\n");
            let addon = Addon::parse(name, &[("addon.yaml", &about)], "local", &variables());
            catalog.add(name, addon);
        }
        let groups = catalog.in_order(&["top".to_owned()]).unwrap();
        let names: Vec<Vec<&str>> = groups.iter().map(|g| g.iter().map(|a| a.name.as_str()).collect()).collect();
        assert_eq!(names, [["low"], ["mid"], ["top"]]);
        assert!(catalog.in_order(&["x".to_owned()]).unwrap_err().contains("circle: x, z"));
        assert!(catalog.find("tpo").unwrap_err().contains("did you mean top?"));
    }

    #[test]
    fn a_folder_never_shadows_a_core_addon() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            std::fs::create_dir(directory.path().join(name)).unwrap();
            std::fs::write(directory.path().join(name).join("addon.yaml"), text).unwrap();
        };
        put("mine", "name: mine\ndescription: d\nversion: \"1\"\n");
        put("bad", "name: [");
        for (name, _) in CORE {
            put(name, &format!("name: {name}\ndescription: other\nversion: \"1\"\n"));
        }
        let catalog = Catalog::read(directory.path(), &variables());
        assert_eq!(catalog.find("mine").unwrap().repository, "local");
        assert!(catalog.find("bad").unwrap_err().contains("not valid YAML"));
        for (name, _) in CORE {
            assert_eq!(catalog.find(name).unwrap().repository, "core");
            assert!(catalog.refused[*name].contains("is a core addon"));
        }
    }
}
