// What the side bar shows. Everything else is found under "All kinds".

export const GROUPS = [
  {
    title: "Workloads",
    kinds: [
      ["pods", "Pods"],
      ["deployments.apps", "Deployments"],
      ["replicasets.apps", "Replica sets"],
      ["statefulsets.apps", "Stateful sets"],
      ["daemonsets.apps", "Daemon sets"],
      ["replicationcontrollers", "Replication controllers"],
      ["jobs.batch", "Jobs"],
      ["cronjobs.batch", "Cron jobs"],
    ],
  },
  {
    title: "Network",
    kinds: [
      ["services", "Services"],
      ["endpointslices.discovery.k8s.io", "Endpoint slices"],
      ["ingresses.networking.k8s.io", "Ingresses"],
    ],
  },
  {
    title: "Configuration",
    kinds: [
      ["configmaps", "Config maps"],
      ["secrets", "Secrets"],
    ],
  },
  {
    title: "Storage",
    kinds: [
      ["persistentvolumeclaims", "Volume claims"],
      ["persistentvolumes", "Volumes"],
      ["storageclasses.storage.k8s.io", "Storage classes"],
    ],
  },
  {
    title: "Cluster",
    kinds: [
      ["nodes", "Nodes"],
      ["namespaces", "Namespaces"],
      ["events", "Events"],
    ],
  },
];

const TITLES = new Map(GROUPS.flatMap((group) => group.kinds));

/** A kind's name in the plural, as a heading. */
export const titleOf = (key, kind) => TITLES.get(key) || (kind ? `${kind.kind} (${kind.group || "core"})` : key);
