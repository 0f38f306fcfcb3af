//! End to end: the built `mini` on real containerd, as root, driven by a real kubectl.
//!
//! One private instance serves the tests of [`SHARED`], several at once, each in a namespace of its own; then come those
//! of [`ALONE`], which kill, stop and reset it. `main` takes the instance off the machine whatever happened, and fails
//! when anything is left. `cargo test --test e2e -- NAME…` runs the tests whose names contain NAME.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod addons;
mod ci;
mod clients;
mod cluster;
mod commands;
mod dashboard;
mod image;
mod ingress;
mod leftovers;
mod lifecycle;
mod metrics;
mod moves;
mod names;
mod operator;
mod proxy;
mod registry;
mod restarts;
mod services;
mod sets;
mod storage;
mod streams;
mod volumes;
mod workloads;

use cluster::Cluster;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

type Test = (&'static str, fn(&Cluster, &str));

/// Tests that need nothing but a namespace.
const SHARED: &[Test] = &[
    ("commands_tell_what_is", commands::tell),
    ("a_report_tells_all_but_secrets", commands::report),
    ("guestbook_front_end_reaches_its_back_end", workloads::guestbook),
    ("a_deployment_rolls_scales_and_is_undone", workloads::deployment),
    ("a_killed_container_is_restarted_and_a_deleted_pod_replaced", workloads::healing),
    ("apply_creates_changes_and_prunes", workloads::apply),
    ("jobs_run_to_their_end_and_count_each_pod_once", sets::jobs),
    ("sets_roll_back_and_keep_names_and_budgets", sets::sets),
    ("a_service_is_reached_from_pod_host_and_itself", services::reach),
    ("pods_find_each_other_by_name", names::resolve),
    ("every_dns_policy_is_kept", names::policies),
    ("a_host_port_is_served", services::host_port),
    ("a_load_balancer_answers_at_the_node", services::load_balancer),
    ("claims_get_folders_that_outlive_pods", storage::hostpath),
    ("claims_get_volumes_made_by_hand", storage::by_hand),
    ("logs_and_exec", streams::logs_and_exec),
    ("attach_and_terminals", streams::attach),
    ("port_forward", streams::port_forward),
    ("files_are_copied", streams::cp),
    ("volumes_hold_what_they_should", volumes::kinds),
    ("a_changed_config_map_reaches_its_volume", volumes::update),
    ("probes_decide", lifecycle::probes),
    ("init_containers_run_first", lifecycle::init),
    ("hooks_run_and_grace_is_kept", lifecycle::hooks),
    ("a_crashing_container_backs_off", lifecycle::crash),
    ("a_pod_that_does_not_fit_is_refused", lifecycle::refused),
    ("a_missing_image_is_told", lifecycle::missing_image),
    ("images_are_pulled_by_policy_and_with_secrets", registry::pull),
    ("ingresses_are_served_on_the_machines_address", ingress::served),
    ("pods_speak_to_the_api", services::api_from_pod),
    ("addons_are_enabled_and_leave_nothing", addons::engine),
    ("the_api_is_a_way_to_pods_and_services", proxy::verbs),
    ("kubectl_top_tells_what_is_used", metrics::top),
    ("the_dashboard_is_used", dashboard::used),
    ("ci_gives_an_api_to_anyone", ci::api_only),
    ("ci_gives_simulated_nodes_to_anyone", ci::simulated),
    ("the_python_client_finds_what_it_expects", clients::python),
    ("kubectl_old_and_new_do_what_users_do", clients::kubectl),
    ("helm_installs_upgrades_rolls_back_and_removes", clients::helm),
    ("an_operator_keeps_what_it_owns", operator::operator),
];

/// Tests that need the instance for themselves; in this order.
const ALONE: &[Test] = &[
    ("ci_gives_a_cluster_beside_others", ci::pods),
    ("killed_mini_adopts_its_pods", restarts::adoption),
    ("nothing_acknowledged_is_lost_by_kills", restarts::kill_loop),
    ("stop_ends_pods_and_start_brings_them_back", restarts::stop_start),
    ("an_instance_moves_with_its_machine", moves::new_address_and_name),
    ("names_are_asked_where_the_machine_asks", moves::other_name_servers),
    ("reset_leaves_nothing_and_start_begins_anew", restarts::reset),
];

/// Tests at a time; most of their time is waiting.
const AT_ONCE: usize = 3;

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |test: &&Test| filters.is_empty() || filters.iter().any(|filter| test.0.contains(filter.as_str()));
    let shared: Vec<&Test> = SHARED.iter().filter(wanted).collect();
    let alone: Vec<&Test> = ALONE.iter().filter(wanted).collect();
    if shared.is_empty() && alone.is_empty() {
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: containers need root");
        return ExitCode::SUCCESS;
    }
    let Ok(cluster) = catch_unwind(Cluster::start) else {
        println!("test the_cluster_starts ... FAILED");
        return ExitCode::FAILURE;
    };
    let failed = Mutex::new(Vec::new());
    let queue = Mutex::new(shared.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(test) = { queue.lock().unwrap().next() } {
                    run(&cluster, test, &failed);
                }
            });
        }
    });
    for test in alone {
        run(&cluster, test, &failed);
    }
    let mut failed = failed.into_inner().unwrap();
    if !failed.is_empty() {
        cluster.tell();
    }
    if let Err(left) = cluster.finish() {
        println!("left on the machine after reset: {left:#?}");
        failed.push("reset_leaves_nothing");
    }
    println!("\ntest result: {}. failed: {failed:?}", if failed.is_empty() { "ok" } else { "FAILED" });
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(cluster: &Cluster, (name, test): &Test, failed: &Mutex<Vec<&'static str>>) {
    let start = Instant::now();
    let passed = catch_unwind(AssertUnwindSafe(|| {
        let namespace: String = name.chars().take(30).map(|c| if c == '_' { '-' } else { c }).collect();
        let namespace = format!("{}-t", namespace.trim_end_matches('-'));
        cluster.namespace(&namespace);
        test(cluster, &namespace);
        cluster.drop_namespace(&namespace);
    }))
    .is_ok();
    println!("test {name} ... {} ({:.1} s)", if passed { "ok" } else { "FAILED" }, start.elapsed().as_secs_f32());
    if !passed {
        failed.lock().unwrap().push(name);
    }
}
