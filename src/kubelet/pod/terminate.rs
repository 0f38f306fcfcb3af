//! The end of a pod: containers, sandbox, last status, volumes, and only then the object.

use super::observed::{Observed, Seen};
use super::worker::{End, Next, Order, Worker, is_settled};
use super::{find_container, full_name, grace, is_sidecar, uid};
use crate::{cgroups, hooks, volumes};
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Worker {
    pub(super) async fn terminate(&mut self, order: &Order) -> Next {
        let pod = &order.pod;
        let again = Next::Sleep(Some(Instant::now() + Duration::from_secs(2)));
        if self.finished {
            // The object still has finalizers, or another look changes nothing.
            return if order.end.is_some() { self.leave(pod) } else { Next::Sleep(None) };
        }
        self.prober.stop();
        if self.look().await.is_err() {
            return again;
        }
        self.stale = true;
        let seconds = match order.end {
            Some(End::Drain(most)) => grace(pod).min(most),
            _ => grace(pod),
        };
        let mut orders = self.orders.clone();
        orders.mark_unchanged();
        // A second deletion may shorten the grace.
        let cut = async {
            loop {
                if orders.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                let now = orders.borrow_and_update().clone();
                if grace(&now.pod) < seconds || now.end != order.end {
                    return;
                }
            }
        };
        let killing = kill_all(self.shared.clone(), pod, &self.observed, seconds);
        tokio::select! {
            () = killing => {}
            () = cut => return Next::Again,
        }
        for sandbox in &self.observed.sandboxes {
            if let Err(status) = self.shared.runtime.stop_sandbox(&sandbox.id).await {
                tracing::warn!(pod = full_name(pod), error = status.message(), "sandbox does not stop");
                return again;
            }
        }
        if self.look().await.is_err() {
            return again;
        }
        if matches!(order.end, Some(End::Drain(_))) {
            let dir = volumes::pod_dir(&self.shared.config, pod);
            let _ = volumes::tear_down::unmount_below(&dir).await;
            return Next::Done;
        }
        // The last word of a pod that was over before has been said.
        let said = pod.status.clone().filter(|_| is_settled(pod));
        let status = said.unwrap_or_else(|| self.status(pod, true));
        self.shared.cluster.follow(uid(pod), Default::default());
        self.shared.puller.forget(uid(pod));
        let dir = volumes::pod_dir(&self.shared.config, pod);
        if let Err(error) = volumes::tear_down::remove(&dir).await {
            tracing::warn!(pod = full_name(pod), %error, "the pod's folder stays");
        }
        if order.end.is_none()
            && let Err(error) = self.shared.cluster.finish(pod, status).await
        {
            tracing::warn!(pod = full_name(pod), %error, "last status or deletion not written");
            return again;
        }
        self.remove_all(pod).await;
        self.finished = true;
        if order.end.is_some() { self.leave(pod) } else { Next::Sleep(None) }
    }

    /// Takes the pod's containers, sandboxes, logs and cgroups away.
    async fn remove_all(&mut self, pod: &Pod) {
        for container in &self.observed.containers {
            let _ = self.shared.runtime.remove_container(&container.id).await;
            self.shared.directory.remove(&container.id);
        }
        for sandbox in &self.observed.sandboxes {
            let _ = self.shared.runtime.remove_sandbox(&sandbox.id).await;
            self.shared.directory.remove(&sandbox.id);
        }
        let _ = volumes::tear_down::remove(&super::sandbox::log_dir(&self.shared.config, pod)).await;
        cgroups::remove(&self.shared.config.instance, pod).await;
        self.observed = Observed::default();
    }

    fn leave(&self, pod: &Arc<Pod>) -> Next {
        tracing::debug!(pod = full_name(pod), "gone");
        Next::Done
    }
}

/// Main containers together, then sidecars in the reverse of their order.
async fn kill_all(shared: Arc<crate::agent::Shared>, pod: &Arc<Pod>, observed: &Observed, seconds: i64) {
    let ips = observed.live_sandbox().map(|s| s.ips.clone()).unwrap_or_default();
    let begun = Instant::now();
    let sidecar = |seen: &Seen| find_container(pod, &seen.name).is_some_and(is_sidecar);
    let (sidecars, mains): (Vec<&Seen>, Vec<&Seen>) = observed.running().partition(|s| sidecar(s));
    futures::future::join_all(mains.into_iter().map(|seen| hooks::kill(&shared, pod, seen, &ips, "", seconds))).await;
    let mut sidecars: Vec<&Seen> = sidecars;
    let place = |seen: &Seen| super::init_containers(pod).iter().position(|c| c.name == seen.name);
    sidecars.sort_by_key(|seen| std::cmp::Reverse(place(seen)));
    for seen in sidecars {
        let used = i64::try_from(begun.elapsed().as_secs()).unwrap_or(0);
        hooks::kill(&shared, pod, seen, &ips, "", (seconds - used).max(0)).await;
    }
}
