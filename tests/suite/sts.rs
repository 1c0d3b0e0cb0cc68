//! MTA-STS (RFC 8461): what a domain says of its hosts is obeyed by its own mail, and by no other.

use crate::kit::papers::Papers;
use crate::kit::policy_host::PolicyHost;
use crate::kit::{At, Config, World, close, mail};

/// Trusts these certificates as authorities.
fn trust(config: Config, papers: &Papers, certificates: &[&str]) -> Config {
    papers.put("ca.pem", &certificates.concat());
    config.set("delivery", "ca_file", &format!("\"{}\"", papers.path("ca.pem").display()))
}

#[test]
fn of_two_domains_at_one_host_only_the_one_with_a_policy_waits_for_a_verified_host() {
    let (world, papers) = (World::new(), Papers::issue());
    let mx = world.tls_host("mx.shared.test");
    world.domain("bank.test", &[(10, &mx)]);
    world.domain("shop.test", &[(10, &mx)]);
    let Some(host) = PolicyHost::start(&world.dns, "bank.test") else { return };
    host.publish(&world.dns, "1", "enforce", "mx.shared.test");
    let config = trust(world.config().set("queue", "retry", "[\"500ms\"]"), &papers, &[host.certificate()]);
    let relay = config.clone().start();
    relay.submit("app@sender.test", &["u@shop.test"], &mail("one", "x"));
    mx.wait_accepted(1);
    relay.submit("app@sender.test", &["u@bank.test"], &mail("secret", "x"));
    let deferred = relay.wait_event("deferred", "u@bank.test");
    assert!(deferred["reply"].as_str().is_some_and(|reply| reply.contains("invalid peer certificate")), "{deferred}");
    relay.submit("app@sender.test", &["v@shop.test"], &mail("two", "x"));
    let shop = mx.wait_accepted(2);
    assert!(shop.iter().all(|got| got.to() != ["u@bank.test"]), "{shop:?}");

    relay.reload(&trust(config, &papers, &[host.certificate(), mx.certificate()]));
    let bank = mx.wait_accepted(3).remove(2);
    assert!(bank.to() == ["u@bank.test"] && shop.iter().all(|got| got.connection != bank.connection));
    let tls = |recipient: &str| relay.wait_event("delivered", recipient)["tls"].to_string();
    assert!(tls("u@bank.test").ends_with(" X25519MLKEM768 verified mta-sts\""), "{}", tls("u@bank.test"));
    assert!(tls("u@shop.test").ends_with(" X25519MLKEM768 unverified\""), "{}", tls("u@shop.test"));
    assert_eq!(host.asked(), 1);
    relay.assert_settled();
}

#[test]
fn a_policy_that_names_another_host_keeps_the_mail_of_its_domain_alone_and_another_id_frees_it() {
    let (world, papers) = (World::new(), Papers::issue());
    let mx = world.tls_host("mx.shared.test");
    world.domain("bank.test", &[(10, &mx)]);
    world.domain("shop.test", &[(10, &mx)]);
    let Some(host) = PolicyHost::start(&world.dns, "bank.test") else { return };
    host.publish(&world.dns, "1", "enforce", "*.elsewhere.test");
    let config = world.config().set("queue", "retry", "[\"1s\"]");
    let config = trust(config, &papers, &[host.certificate(), mx.certificate()]);
    let relay = config.clone().start();
    relay.submit("app@sender.test", &["u@bank.test", "u@shop.test"], &mail("both", "x"));
    assert_eq!(mx.wait_accepted(1)[0].to(), ["u@shop.test"]);
    let deferred = relay.wait_event("deferred", "u@bank.test");
    let says = "the MTA-STS policy of bank.test (mode enforce) names *.elsewhere.test; the MX that the DNS gives, mx.shared.test";
    assert!(deferred["reply"].as_str().is_some_and(|reply| reply.contains(says)), "{deferred}");

    host.publish(&world.dns, "2", "enforce", "*.shared.test");
    // A new configuration has every domain looked up anew.
    relay.reload(&config);
    assert_eq!(mx.wait_accepted(2)[1].to(), ["u@bank.test"]);
    assert_eq!(host.asked(), 2);
    relay.assert_settled();
}

#[test]
fn a_policy_outlives_a_restart_and_those_who_take_its_record_and_its_host_away() {
    let (world, papers) = (World::new(), Papers::issue());
    let mx = world.tls_host("mx.bank.test");
    world.domain("bank.test", &[(10, &mx)]);
    let Some(host) = PolicyHost::start(&world.dns, "bank.test") else { return };
    host.publish(&world.dns, "1", "enforce", "mx.bank.test");
    let config = trust(world.config().set("queue", "retry", "[\"1h\"]"), &papers, &[host.certificate()]);
    let mut relay = config.start();
    relay.submit("app@sender.test", &["u@bank.test"], &mail("one", "x"));
    relay.wait_event("deferred", "u@bank.test");
    relay.stop();
    drop(host);
    world.dns.txt("_mta-sts.bank.test", &["v=spf1 -all"]);
    relay.run();
    relay.submit("app@sender.test", &["v@bank.test"], &mail("two", "x"));
    let deferred = relay.wait_event("deferred", "v@bank.test");
    assert!(deferred["reply"].as_str().is_some_and(|reply| reply.contains("invalid peer certificate")), "{deferred}");
    assert_eq!(mx.accepted_count(), 0);
}

#[test]
fn testing_tells_and_lets_pass_and_the_switch_and_the_operators_word_end_it() {
    let (world, papers) = (World::new(), Papers::issue());
    let mx = world.tls_host("mx.x.test");
    world.domain("x.test", &[(10, &mx)]);
    let Some(host) = PolicyHost::start(&world.dns, "x.test") else { return };
    // Each message goes over a connection of its own.
    mx.always(At::End, close("250 2.0.0 ok, and good bye"));
    host.publish(&world.dns, "1", "testing", "elsewhere.test");
    let config = trust(world.config(), &papers, &[host.certificate()]);
    let relay = config.clone().start();
    let delivered = |user: &str| {
        let recipient = format!("{user}@x.test");
        relay.submit("app@sender.test", &[&recipient], &mail("x", "x"));
        relay.wait_event("delivered", &recipient)["tls"].to_string()
    };
    let tls = delivered("a");
    assert!(tls.ends_with(" unverified mta-sts-testing-failed\""), "{tls}");
    let says = "the MTA-STS policy of x.test (mode testing) names elsewhere.test; the MX mx.x.test is not among them";
    assert!(relay.log().contains(says), "{}", relay.log());
    host.publish(&world.dns, "2", "enforce", "elsewhere.test");
    relay.reload(&config.clone().table("[[tls_policy]]\ndomain = \"x.test\"\ntls = \"encrypt\""));
    assert!(delivered("b").ends_with(" unverified\""));
    relay.reload(&config.clone().set("delivery", "mta_sts", "false"));
    assert!(delivered("c").ends_with(" unverified\""));
    assert_eq!(host.asked(), 1);
    host.publish(&world.dns, "3", "testing", "mx.x.test");
    relay.reload(&trust(config, &papers, &[host.certificate(), mx.certificate()]));
    assert!(delivered("d").ends_with(" unverified mta-sts-testing-passed\""));
    relay.assert_settled();
}
