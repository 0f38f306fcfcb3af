// Is it well? One word for each kind: "good", "waiting" or "bad".

const condition = (object, type) => object.status?.conditions?.find((found) => found.type === type);

export function podWord(pod) {
  const { status = {}, metadata } = pod;
  if (metadata.deletionTimestamp) return "Terminating";
  for (const [prefix, states] of [
    ["Init:", status.initContainerStatuses],
    ["", status.containerStatuses],
  ]) {
    for (const { state = {} } of states || []) {
      const why = state.waiting?.reason || (state.terminated?.exitCode ? state.terminated.reason : "");
      if (why && why !== "PodInitializing") return prefix + why;
    }
  }
  return status.reason || status.phase || "Unknown";
}

export function podHealth(pod) {
  const word = podWord(pod);
  if (pod.status?.phase === "Succeeded") return "good";
  if (/^(Pending|ContainerCreating|PodInitializing|Terminating|Unknown|Init:\d)/.test(word)) return "waiting";
  if (word !== "Running") return "bad";
  return condition(pod, "Ready")?.status === "True" ? "good" : "waiting";
}

const replicas = (object) => {
  const wanted = object.spec?.replicas ?? 1;
  const ready = object.status?.readyReplicas ?? 0;
  if (ready >= wanted) return "good";
  return condition(object, "ReplicaFailure")?.status === "True" ? "bad" : "waiting";
};

const HEALTH = {
  pods: podHealth,
  "deployments.apps": (object) => (condition(object, "Progressing")?.status === "False" ? "bad" : replicas(object)),
  "replicasets.apps": replicas,
  "statefulsets.apps": replicas,
  replicationcontrollers: replicas,
  "daemonsets.apps": ({ status = {} }) =>
    (status.numberReady ?? 0) >= (status.desiredNumberScheduled ?? 0) ? "good" : "waiting",
  "jobs.batch": (object) => {
    if (condition(object, "Failed")?.status === "True") return "bad";
    return condition(object, "Complete")?.status === "True" ? "good" : "waiting";
  },
  persistentvolumeclaims: ({ status = {} }) => ({ Bound: "good", Lost: "bad" })[status.phase] || "waiting",
  persistentvolumes: ({ status = {} }) => (status.phase === "Failed" ? "bad" : "good"),
  nodes: (object) => (condition(object, "Ready")?.status === "True" ? "good" : "bad"),
};

export function health(key, object) {
  return HEALTH[key]?.(object) || "good";
}

export const knowsHealth = (key) => key in HEALTH;
