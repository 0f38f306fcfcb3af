//! The plugin, host ports, other firewalls and the way back.

use crate::world::{NODE, OUTSIDE, World, ask_udp, run};
use serde_json::{Value, json};

pub(crate) fn reach(world: &World) {
    let (a, b) = (world.add("pod1", &Value::Null), world.add("pod2", &Value::Null));
    assert_eq!((a.as_str(), b.as_str()), ("10.77.0.2", "10.77.0.3"));
    world.serve("pod1", "one", 80);
    world.serve("node", "node", 81);
    world.serve("outside", "outside", 82);
    assert_eq!(world.ask("pod2", &format!("{a}:80")).unwrap(), format!("one {b}"), "pods see each other's address");
    assert_eq!(world.ask("node", &format!("{a}:80")).unwrap(), "one 10.77.0.1");
    assert_eq!(world.ask("pod1", &format!("{NODE}:81")).unwrap(), format!("node {a}"));
    assert_eq!(world.ask("pod1", &format!("{OUTSIDE}:82")).unwrap(), format!("outside {NODE}"), "masqueraded");
    assert_eq!(world.ask("pod1", "127.0.0.1:80").unwrap(), "one 127.0.0.1", "the pod's lo is up");
    let link = world.within("pod1", || run("ip", &["link", "show", "eth0"]));
    assert!(link.contains("mtu 1400"), "the MTU is the default route's: {link}");
    let links = run("bridge", &["-d", "link"]);
    assert_eq!(links.matches("hairpin on").count(), 2, "{links}");
    world.cni("CHECK", "mini", "pod1", &Value::Null).unwrap();
    world.within("pod1", || run("ip", &["addr", "flush", "dev", "eth0"]));
    assert_eq!(world.cni("CHECK", "mini", "pod1", &Value::Null).unwrap_err()["code"], 3);
    // A second ADD of the same container starts over, with the same address.
    assert_eq!(world.add("pod2", &Value::Null), b);
    assert_eq!(world.ask("pod2", &format!("{NODE}:81")).unwrap(), format!("node {b}"));
    let missing = world.cni("ADD", "mini", "nowhere", &Value::Null).unwrap_err();
    assert_eq!(missing["code"], 3, "{missing}");
}

pub(crate) fn host_ports(world: &World) {
    let any = json!([
        { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
        { "hostPort": 8053, "containerPort": 53, "protocol": "udp" },
    ]);
    let a = world.add("pod1", &any);
    let local = json!([{ "hostPort": 9090, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1" }]);
    world.add("pod2", &local);
    let outer = json!([{ "hostPort": 9090, "containerPort": 80, "protocol": "tcp", "hostIP": NODE }]);
    world.add("pod3", &outer);
    for (pod, name) in [("pod1", "one"), ("pod2", "two"), ("pod3", "three")] {
        world.serve(pod, name, 80);
    }
    world.serve_udp("pod1", "one", 53);
    let node = format!("{NODE}:8080");
    assert_eq!(world.ask("outside", &node).unwrap(), format!("one {OUTSIDE}"), "clients keep their address");
    assert!(world.ask("node", &node).unwrap().starts_with("one "));
    assert_eq!(world.ask("node", "127.0.0.1:8080").unwrap(), "one 10.77.0.1");
    assert!(world.ask("pod2", &node).unwrap().starts_with("one "));
    assert_eq!(world.ask("pod1", &node).unwrap(), "one 10.77.0.1", "hairpin");
    assert_eq!(world.ask("node", "127.0.0.1:9090").unwrap(), "two 10.77.0.1");
    assert!(world.ask("node", &format!("{NODE}:9090")).unwrap().starts_with("three "));
    assert_eq!(world.ask("outside", &format!("{NODE}:9090")).unwrap(), format!("three {OUTSIDE}"));
    assert_eq!(ask_udp(&world.udp_socket("outside"), &format!("{NODE}:8053")).as_deref(), Some("one"));
    assert_eq!(ask_udp(&world.udp_socket("node"), "127.0.0.1:8053").as_deref(), Some("one"));

    world.setup();
    assert!(world.ask("outside", &node).is_ok(), "a restart puts host ports back from the leases");

    world.cni("DEL", "mini", "pod1", &any).unwrap();
    assert!(world.ask("outside", &node).is_err());
    assert_eq!(world.ask("node", "127.0.0.1:9090").unwrap(), "two 10.77.0.1", "others stay");
    // The port passes on; a late second DEL of its first holder must not take it away.
    let b = world.add("pod1", &any);
    assert_ne!(a, b, "addresses go round");
    assert_eq!(world.ask("outside", &node).unwrap(), format!("one {OUTSIDE}"));
    world.cni("DEL", "mini", "gone-pod9", &any).unwrap();
    assert!(world.ask("outside", &node).is_ok());
}

pub(crate) fn leave_nothing(world: &World) {
    let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
    world.add("pod1", &ports);
    world.cni("DEL", "mini", "gone-pod1", &ports).unwrap();
    world.cni("DEL", "mini", "gone-pod1", &ports).unwrap();
    let left = world.within("pod1", || run("ip", &["-o", "link"]));
    assert!(!left.contains("eth0"), "{left}");
    let table = run("nft", &["list", "table", "ip", "mtest"]);
    assert!(!table.contains("elements"), "{table}");
    world.add("pod2", &ports);
    assert_eq!(run("cat", &["/proc/sys/net/ipv4/ip_forward"]).trim(), "1");

    world.block_on(mini_network::teardown(&world.config)).unwrap();
    world.block_on(mini_network::teardown(&world.config)).unwrap();
    assert_eq!(run("nft", &["list", "ruleset"]), "");
    let links = run("ip", &["-o", "link"]);
    assert!(!links.contains("mtest0") && !links.contains("veth"), "{links}");
    assert!(!run("ip", &["route"]).contains("10.7"));
    assert_eq!(run("cat", &["/proc/sys/net/ipv4/ip_forward"]).trim(), "0");
    assert_eq!(std::fs::read_dir(&world.config.data_dir).unwrap().count(), 0);
    // And all of it again.
    world.setup();
    world.add("pod3", &ports);
}

pub(crate) fn full_disk(world: &World) {
    let leases = world.config.data_dir.join("cni/ipam");
    std::fs::create_dir_all(&leases).unwrap();
    // This process is in a mount namespace of its own.
    run("mount", &["-t", "tmpfs", "-o", "size=64k", "tmpfs", leases.to_str().unwrap()]);
    let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
    world.add("pod1", &ports);
    assert!(std::fs::write(leases.join("ballast"), vec![0; 128 << 10]).is_err());
    assert!(world.cni("ADD", "mini", "pod2", &Value::Null).is_err(), "the disk is full");
    world.cni("DEL", "mini", "pod2", &Value::Null).unwrap();
    world.cni("DEL", "mini", "pod1", &ports).unwrap();
    assert!(!leases.join("10.77.0.2").exists(), "the address is free again");
    assert!(!run("nft", &["list", "table", "ip", "mtest"]).contains("elements"));
    run("umount", &[leases.to_str().unwrap()]);
}

pub(crate) fn prune(world: &World) {
    let kept = world.add("pod1", &Value::Null);
    let lost = world.add("pod2", &Value::Null);
    let leases = world.config.data_dir.join("cni/ipam");
    // As after a reboot: the interface is gone, and nobody called DEL.
    world.within("pod2", || run("ip", &["link", "del", "eth0"]));
    world.setup();
    for _ in 0..100 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        if !leases.join(&lost).exists() {
            break;
        }
    }
    assert!(leases.join(&kept).exists() && !leases.join(&lost).exists());
}

pub(crate) fn firewall(world: &World) {
    // As docker with iptables-nft leaves it.
    run(
        "nft",
        &["add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"],
    );
    let a = world.add("pod1", &Value::Null);
    world.add("pod2", &Value::Null);
    world.serve("pod1", "one", 80);
    assert!(world.ask("pod2", &format!("{a}:80")).is_err(), "the firewall drops");
    world.setup();
    world.setup();
    assert!(world.ask("pod2", &format!("{a}:80")).is_ok());
    let chain = run("nft", &["list", "chain", "ip", "filter", "FORWARD"]);
    assert_eq!(chain.matches("mtest pods").count(), 2, "one rule a direction, however often started: {chain}");
    world.block_on(mini_network::teardown(&world.config)).unwrap();
    let chain = run("nft", &["list", "chain", "ip", "filter", "FORWARD"]);
    assert!(!chain.contains("mtest") && chain.contains("policy drop"), "{chain}");
}
