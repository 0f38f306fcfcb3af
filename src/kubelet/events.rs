//! containerd's event stream: tells the worker of a pod that one of its containers has ended.
//!
//! Nothing depends on it being complete: after every break of the stream all workers look for themselves.

use crate::agent::Shared;
use crate::runtime::NAMESPACE;
use containerd_client::events::TaskExit;
use containerd_client::services::v1::SubscribeRequest;
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A subscription is in place after this long.
const LISTENING: Duration = Duration::from_millis(300);

pub(crate) async fn follow(shared: Arc<Shared>, cancel: CancellationToken) {
    let mut pause = Duration::from_millis(50);
    let mut again = false;
    loop {
        // The answer to a subscription comes with the first event only, so it is given a moment before all look for
        // themselves: what ends later is heard.
        let missed = async {
            if again {
                tokio::time::sleep(LISTENING).await;
                shared.directory.relist_all();
            }
            std::future::pending::<Result<(), tonic::Status>>().await
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = missed => {}
            outcome = one_stream(&shared) => {
                tracing::warn!(?outcome, "containerd's event stream ended");
                if outcome.is_ok() {
                    pause = Duration::from_millis(50);
                }
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(2));
        again = true;
    }
}

async fn one_stream(shared: &Shared) -> Result<(), tonic::Status> {
    let filters = vec![format!("namespace=={NAMESPACE},topic==\"/tasks/exit\"")];
    let mut stream = shared.runtime.events().subscribe(SubscribeRequest { filters }).await?.into_inner();
    while let Some(envelope) = stream.message().await? {
        let Some(event) = envelope.event else { continue };
        let Ok(exit) = TaskExit::decode(event.value.as_slice()) else { continue };
        // Others are processes of an exec.
        if exit.id == exit.container_id {
            shared.directory.ended(&exit.container_id);
        }
    }
    Ok(())
}
