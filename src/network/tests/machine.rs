//! The node's network on a real kernel: each test has a private "machine" (a network namespace), pods and an outside.
//!
//! `main` runs every test in a child process inside its machine, and takes all namespaces away whatever happened.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "machine/pods.rs"]
mod pods;
#[path = "machine/services.rs"]
mod services;
#[path = "machine/world.rs"]
mod world;

use std::process::{Command, ExitCode};
use world::World;

type Test = (&'static str, fn(&World));

const TESTS: &[Test] = &[
    ("pods_reach_each_other_the_node_and_the_outside", pods::reach),
    ("host_ports_open_and_close", pods::host_ports),
    ("del_and_teardown_leave_nothing", pods::leave_nothing),
    ("a_pod_ends_on_a_full_disk", pods::full_disk),
    ("leases_of_pods_that_are_gone_are_pruned", pods::prune),
    ("a_dropping_firewall_is_opened_and_closed_again", pods::firewall),
    ("services_are_reached_from_pods_host_and_outside", services::reach),
    ("services_without_endpoints_refuse_at_once", services::refuse),
    ("clients_stay_with_their_endpoint", services::affinity),
    ("udp_clients_move_when_their_endpoint_goes", services::udp),
    ("a_local_policy_keeps_clients_and_their_addresses_on_the_node", services::local),
    ("load_balancers_answer_at_the_nodes_address", services::balancer),
    ("external_addresses_do_not_shadow_the_cluster", services::shadow),
    ("a_flushed_ruleset_is_put_back", services::flushed),
    ("a_thousand_services_change_one_by_one_quickly", services::many),
];

fn main() -> ExitCode {
    if mini_network::cni::is_plugin_call() {
        return mini_network::cni::main();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, prefix] = arguments.as_slice()
        && flag == "--inside"
        && let Some((_, test)) = TESTS.iter().find(|(known, _)| known == name)
    {
        test(&World::new(prefix));
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return ExitCode::SUCCESS;
    }
    let filter: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut failed = 0;
    for (number, (name, _)) in TESTS.iter().enumerate() {
        if !filter.is_empty() && !filter.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let prefix = format!("mt{}-{number}", std::process::id());
        let spaces = World::create(&prefix);
        let me = std::env::current_exe().unwrap();
        let ran = Command::new("ip")
            .args(["netns", "exec", &format!("{prefix}-node")])
            .arg(me)
            .args(["--inside", name, &prefix])
            .status();
        drop(spaces);
        let passed = ran.is_ok_and(|status| status.success());
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
