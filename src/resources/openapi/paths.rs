//! The paths of a row: one item for each URL, one operation for each verb.

use super::Dialect;
use super::definitions::{self, DELETE_OPTIONS, Definitions, PATCH, STATUS};
use crate::{Resource, Subresource};
use serde_json::{Map, Value, json};

/// `/api/v1`, `/apis/apps/v1`.
pub(crate) fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// A query parameter: name, type, description.
type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "Whether to indent the answer.");
const DRY_RUN: Parameter = ("dryRun", "string", "`All` goes through everything but keeping the change.");
const FIELD_MANAGER: Parameter = ("fieldManager", "string", "The name under which the change is recorded.");
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What to do about unknown and duplicate fields: `Ignore`, `Warn` (the default) or `Strict`.",
);
const FORCE: Parameter = ("force", "boolean", "Takes over fields that others manage; for apply only.");
const WRITE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCHING: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean", "Whether a watch may send bookmarks."),
    ("continue", "string", "The token with which the previous page ended."),
    ("fieldSelector", "string", "Which objects, by their fields."),
    ("labelSelector", "string", "Which objects, by their labels."),
    ("limit", "integer", "How many objects a page has at most."),
    ("resourceVersion", "string", "From which version on, or how old the answer may be."),
    ("resourceVersionMatch", "string", "How `resourceVersion` is meant: `Exact` or `NotOlderThan`."),
    ("sendInitialEvents", "boolean", "Whether a watch begins with the objects that there are."),
    ("timeoutSeconds", "integer", "After how many seconds a list or watch ends."),
    ("watch", "boolean", "Whether to watch for changes instead of listing."),
];
const DELETE: &[Parameter] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "How many seconds the object has to stop; 0 deletes it at once."),
    ("orphanDependents", "boolean", "Deprecated: whether dependents stay; use `propagationPolicy`."),
    ("propagationPolicy", "string", "What becomes of dependents: `Orphan`, `Background` or `Foreground`."),
];

/// What an operation does, for its id and its `x-kubernetes-action`.
struct Action {
    method: &'static str,
    /// `x-kubernetes-action`.
    name: &'static str,
    /// First word of the operation's id.
    verb: &'static str,
    description: String,
    /// Definition of the body, and whether it must be there.
    body: Option<(String, bool)>,
    /// Definition of the answer; `None` is text.
    answer: Option<String>,
    parameters: Vec<Parameter>,
}

/// All paths of a row, in the order of their URLs.
pub(crate) fn paths(row: &Resource, definitions: &mut Definitions) -> Vec<(String, Value)> {
    let prefix = prefix(&row.group, &row.version);
    let all = format!("{prefix}/{}", row.plural);
    let scope = if row.namespaced { "Namespaced" } else { "" };
    let collection =
        if row.namespaced { format!("{prefix}/namespaces/{{namespace}}/{}", row.plural) } else { all.clone() };
    let item = format!("{collection}/{{name}}");
    let mut paths = Paths { row, definitions, out: Vec::new() };
    let own = (row.group.as_str(), row.version.as_str(), row.kind.as_str());

    if row.namespaced && row.has_verb("list") {
        paths.add(&all, own, &format!("{}ForAllNamespaces", row.kind), vec![list_action(row)]);
    }
    let mut actions = Vec::new();
    if row.has_verb("list") {
        actions.push(list_action(row));
    }
    if row.has_verb("create") {
        actions.push(write_action("post", "post", "create", "Creates", &row.kind, &row.definition));
    }
    let name = format!("{scope}{}", row.kind);
    if row.has_verb("deletecollection") {
        let mut parameters = DELETE.to_vec();
        parameters.extend(LIST.iter().filter(|(n, ..)| !matches!(*n, "watch" | "allowWatchBookmarks")));
        actions.push(Action {
            method: "delete",
            name: "deletecollection",
            verb: "deleteCollection",
            description: format!("Deletes the {} objects that are selected.", row.kind),
            body: Some((DELETE_OPTIONS.to_owned(), false)),
            answer: Some(STATUS.to_owned()),
            parameters,
        });
    }
    paths.add(&collection, own, &name, actions);
    paths.add(&item, own, &name, item_actions(&row.kind, &row.definition, &row.verbs));
    for sub in &row.subresources {
        let kind = (&*sub.group, &*sub.version, &*sub.kind);
        let id = format!("{name}{}", title(sub.name));
        paths.add(&format!("{item}/{}", sub.name), kind, &id, sub_actions(row, sub));
    }
    paths.out
}

fn list_action(row: &Resource) -> Action {
    Action {
        method: "get",
        name: "list",
        verb: "list",
        description: format!("Lists or watches {} objects.", row.kind),
        body: None,
        answer: Some(definitions::list(row)),
        parameters: LIST.to_vec(),
    }
}

fn write_action(
    method: &'static str,
    name: &'static str,
    verb: &'static str,
    does: &str,
    kind: &str,
    definition: &str,
) -> Action {
    let (body, parameters) = if name == "patch" { (PATCH, PATCHING) } else { (definition, WRITE) };
    Action {
        method,
        name,
        verb,
        description: format!("{does} a {kind}."),
        body: Some((body.to_owned(), true)),
        answer: Some(definition.to_owned()),
        parameters: parameters.to_vec(),
    }
}

/// The verbs of one object.
fn item_actions(kind: &str, definition: &str, verbs: &[&str]) -> Vec<Action> {
    let mut actions = Vec::new();
    for verb in verbs {
        actions.push(match *verb {
            "get" => Action {
                method: "get",
                name: "get",
                verb: "read",
                description: format!("Reads a {kind}."),
                body: None,
                answer: Some(definition.to_owned()),
                parameters: Vec::new(),
            },
            "update" => write_action("put", "put", "replace", "Replaces", kind, definition),
            "patch" => write_action("patch", "patch", "patch", "Changes parts of", kind, definition),
            "delete" => Action {
                method: "delete",
                name: "delete",
                verb: "delete",
                description: format!("Deletes a {kind}."),
                body: Some((DELETE_OPTIONS.to_owned(), false)),
                answer: Some(STATUS.to_owned()),
                parameters: DELETE.to_vec(),
            },
            _ => continue,
        });
    }
    actions
}

fn sub_actions(row: &Resource, sub: &Subresource) -> Vec<Action> {
    // A body without a definition is that of a connection: `PodExecOptions` travel as query parameters.
    let Some(definition) = row.body_of(sub) else {
        return sub.verbs.iter().filter_map(|verb| connect_action(row, sub, verb)).collect();
    };
    if sub.name == "log" {
        let mut actions = item_actions(&format!("{}'s log", row.kind), &definition, sub.verbs);
        actions.iter_mut().for_each(|a| a.answer = None);
        return actions;
    }
    let mut actions = item_actions(&sub.kind, &definition, sub.verbs);
    if sub.verbs.contains(&"create") {
        actions.push(write_action("post", "post", "create", "Creates", &sub.kind, &definition));
    }
    actions
}

fn connect_action(row: &Resource, sub: &Subresource, verb: &str) -> Option<Action> {
    let (method, verb) = match verb {
        "get" => ("get", "connectGet"),
        "create" => ("post", "connectPost"),
        "update" => ("put", "connectPut"),
        "patch" => ("patch", "connectPatch"),
        "delete" => ("delete", "connectDelete"),
        _ => return None,
    };
    Some(Action {
        method,
        name: "connect",
        verb,
        description: format!("Connects to {} of a {}.", sub.name, row.kind),
        body: None,
        answer: None,
        parameters: Vec::new(),
    })
}

struct Paths<'a> {
    row: &'a Resource,
    definitions: &'a mut Definitions,
    out: Vec<(String, Value)>,
}

impl Paths<'_> {
    /// Adds a path with its operations, unless there are none. `id` is what follows the verb and group in their ids.
    fn add(&mut self, path: &str, (group, version, kind): (&str, &str, &str), id: &str, actions: Vec<Action>) {
        if actions.is_empty() {
            return;
        }
        let dialect = self.definitions.dialect;
        let mut item = Map::new();
        let kind = json!({"group": group, "version": version, "kind": kind});
        for action in actions {
            let method = action.method.to_owned();
            let operation = self.operation(action, id, &kind);
            item.insert(method, operation);
        }
        let mut parameters = Vec::new();
        for (name, description) in
            [("name", format!("The name of the {}.", self.row.kind)), ("namespace", "The namespace.".to_owned())]
        {
            if path.contains(&format!("{{{name}}}")) {
                parameters.push(parameter(dialect, "path", (name, "string", &description)));
            }
        }
        parameters.push(parameter(dialect, "query", PRETTY));
        item.insert("parameters".to_owned(), parameters.into());
        self.out.push((path.to_owned(), Value::Object(item)));
    }

    fn operation(&mut self, action: Action, id: &str, kind: &Value) -> Value {
        let dialect = self.definitions.dialect;
        // Custom kinds have no strategies of merging.
        let strategic = self.row.custom.is_none();
        let patches = PATCHES.into_iter().filter(|media| strategic || !media.contains("strategic"));
        let patches: Vec<&str> = patches.collect();
        let group = group_id(&self.row.group);
        let version = title(&self.row.version);
        let mut parameters: Vec<Value> = action.parameters.iter().map(|p| parameter(dialect, "query", *p)).collect();
        let mut operation = json!({
            "description": action.description,
            "operationId": format!("{}{}{version}{id}", action.verb, title(&group)),
            "tags": [format!("{group}_{}", self.row.version)],
            "x-kubernetes-action": action.name,
            "x-kubernetes-group-version-kind": kind,
        });
        let mut set = |name: &str, value: Value| operation.as_object_mut().map(|o| o.insert(name.to_owned(), value));
        if let Some((body, required)) = action.body {
            let schema = self.definitions.reference(&body);
            if dialect == Dialect::V3 {
                let accepted: &[&str] = if action.name == "patch" { &patches } else { &["*/*"] };
                let content: Map<_, _> =
                    accepted.iter().map(|m| ((*m).to_owned(), json!({"schema": schema}))).collect();
                set("requestBody", json!({"content": content, "required": required}));
            } else {
                parameters.push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
            }
        }
        let answer = action.answer.map_or_else(|| json!({"type": "string"}), |name| self.definitions.reference(&name));
        let media: &[&str] = match action.name {
            "list" => &["application/json", "application/yaml", "application/json;stream=watch"],
            "connect" => &["*/*"],
            _ => &["application/json", "application/yaml"],
        };
        let mut responses = json!({"401": {"description": "Unauthorized"}});
        let codes: &[&str] = match action.name {
            "post" => &["200", "201", "202"],
            "put" | "patch" => &["200", "201"],
            "delete" => &["200", "202"],
            _ => &["200"],
        };
        for code in codes {
            let description = match *code {
                "201" => "Created",
                "202" => "Accepted",
                _ => "OK",
            };
            responses[*code] = if dialect == Dialect::V3 {
                let content: Map<_, _> = media.iter().map(|m| ((*m).to_owned(), json!({"schema": answer}))).collect();
                json!({"description": description, "content": content})
            } else {
                json!({"description": description, "schema": answer})
            };
        }
        set("responses", responses);
        if dialect == Dialect::V2 {
            set("consumes", if action.name == "patch" { patches.into() } else { json!(["*/*"]) });
            set("produces", media.into());
            set("schemes", json!(["https"]));
        }
        if !parameters.is_empty() {
            set("parameters", parameters.into());
        }
        operation
    }
}

const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

fn parameter(dialect: Dialect, place: &str, (name, kind, description): (&str, &str, &str)) -> Value {
    let mut out = json!({"name": name, "in": place, "description": description});
    let mut set = |name: &str, value: Value| out.as_object_mut().map(|o| o.insert(name.to_owned(), value));
    if place == "path" {
        set("required", true.into());
    }
    match dialect {
        Dialect::V2 => {
            set("type", kind.into());
            set("uniqueItems", true.into());
        }
        Dialect::V3 => {
            set("schema", json!({"type": kind, "uniqueItems": true}));
        }
    }
    out
}

/// `core`, `apps`, `rbacAuthorization`: the group in tags and ids.
fn group_id(group: &str) -> String {
    let mut parts = group.strip_suffix(".k8s.io").unwrap_or(group).split('.');
    let first = parts.next().filter(|p| !p.is_empty()).unwrap_or("core").to_owned();
    parts.fold(first, |id, part| id + &title(part))
}

fn title(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}
