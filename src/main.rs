//! The one executable: the command, the server, the CNI plugin and the process that holds a pod's namespaces.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    // Quickest first: a pod waits for these two.
    if arguments.get(1).is_some_and(|first| first == "pause") {
        return mini_sys::pause();
    }
    if mini_network::cni::is_plugin_call() {
        return mini_network::cni::main();
    }
    if arguments.get(1).is_some_and(|first| first == mini_sys::daemon::SESSION) {
        arguments.remove(1);
        mini_sys::daemon::become_session_leader();
    }
    mini_cli::main(arguments)
}
