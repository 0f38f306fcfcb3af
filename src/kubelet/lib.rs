//! Room `kubelet`.
