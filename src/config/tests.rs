//! The configuration as a whole: what is loaded from files and variables, and what is said about faults.

mod delivery;

use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;
use toml::Value;

use super::schema::{self, Form, Kind};
use super::*;
use crate::auth::Secret;
use crate::auth::options::User;
use crate::event::options::Output;
use crate::types::{Domain, Priority};
use crate::webhook::options::Format;

const DOCUMENTED: &str = include_str!("../../config/weir.toml");

/// A configuration from the text of a file and variables, as on a host that weir knows outlook and gmail on.
fn load(text: &str, environment: &[(&str, &str)]) -> Result<(Config, Vec<Warning>), Vec<Fault>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weir.toml");
    std::fs::write(&file, text).unwrap();
    let loaded = Config::load(&sources(Some(file), environment));
    // The folder's name is another each time.
    let short = |mut finding: Finding| {
        if let Place::File { file, .. } | Place::Whole { file } = &mut finding.place {
            *file = file.file_name().unwrap().into();
        }
        finding.remedy = finding.remedy.replace(&format!("{}/", folder.path().display()), "");
        finding
    };
    loaded
        .map(|(config, warnings)| (config, warnings.into_iter().map(short).collect()))
        .map_err(|faults| faults.into_iter().map(short).collect())
}

fn sources(file: Option<PathBuf>, environment: &[(&str, &str)]) -> Sources<'static> {
    Sources {
        file,
        search: Vec::new(),
        environment: environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        profiles: vec!["gmail".to_string(), "outlook".to_string(), "t-online".to_string()],
        attached: &|| (vec!["172.18.0.0/30".parse().unwrap()], vec!["172.18.0.1".parse().unwrap()]),
        lowest_port: 1024,
        foreign_keys: "/nowhere".into(),
    }
}

fn config(text: &str, environment: &[(&str, &str)]) -> Config {
    load(text, environment).unwrap_or_else(|faults| panic!("{text}: {faults:?}")).0
}

fn faults(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    load(text, environment).expect_err(text).iter().map(Finding::to_string).collect()
}

fn warnings(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    load(text, environment).unwrap().1.iter().map(Finding::to_string).collect()
}

#[track_caller]
fn one_fault(text: &str, expected: &str) {
    let faults = faults(text, &[]);
    assert!(faults.len() == 1 && faults[0].contains(expected), "{text}\n{faults:#?}");
}

#[test]
fn nothing_at_all_is_the_default() {
    let (config, warnings) = Config::load(&sources(None, &[])).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(warnings, []);
    assert_eq!(super::tests::config("", &[]), Config::default());
}

#[test]
fn the_file_is_looked_for_where_it_is_named_first() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, level: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("log.level = '{level}'")).unwrap();
        path
    };
    let (named, variable, found) = (file("named", "error"), file("variable", "warn"), file("found", "debug"));
    let level = |named: Option<&PathBuf>, variable: &str| {
        let mut sources = sources(named.cloned(), &[("WEIR_CONFIG", variable)]);
        sources.search = vec![folder.path().join("missing"), found.clone()];
        String::from(Config::load(&sources).unwrap().0.log.level)
    };
    assert_eq!(level(Some(&named), variable.to_str().unwrap()), "error");
    assert_eq!(level(None, variable.to_str().unwrap()), "warn");
    assert_eq!(level(None, ""), "debug");
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let faults = Config::load(&sources(Some("/nowhere/weir.toml".into()), &[])).unwrap_err();
    assert!(faults[0].to_string().starts_with("/nowhere/weir.toml: cannot read the configuration file"), "{faults:?}");
}

#[test]
fn every_fault_is_told_with_its_line_and_column() {
    let text = "hostname = 'relay example'\nexpire = '2d'\n[queue]\nretry = ['1m', 'soon', '5']\nexpire = 4\n\
                [limits]\nrecipients = 0\nbare_newlines = 'keep'\n[[listener]]\n[[route]]\ndomain = '*'\nto = 'x'\n";
    let faults = faults(text, &[("WEIR_DELIVERY__PORT", "65536")]);
    let begins = [
        "weir.toml:1:12: `hostname` is \"relay example\": write a host name",
        "weir.toml:2:1: unknown key `expire`: the nearest known key is `queue.expire`",
        "weir.toml:4:16: `queue.retry` is \"soon\": write a duration",
        "weir.toml:4:24: `queue.retry` is \"5\": write a duration",
        "weir.toml:5:10: `queue.expire` is an integer: write a duration",
        "weir.toml:7:14: `limits.recipients` is 0: write a whole number from 1 to 100000",
        "weir.toml:8:17: `limits.bare_newlines` is \"keep\": write one of `normalize`, `reject`",
        "weir.toml:12:6: `route.to` is \"x\": write HOST:PORT",
        "WEIR_DELIVERY__PORT: is \"65536\": write a whole number from 1 to 65535",
        "weir.toml:9:1: a listener has no `address`: set `listener.address` to an IP address and a port",
    ];
    for (fault, begin) in faults.iter().zip(begins) {
        assert!(fault.starts_with(begin), "{fault}\nis not\n{begin}");
    }
    assert_eq!(faults.len(), begins.len(), "{faults:#?}");
}

#[test]
fn the_excerpt_points_at_the_fault() {
    let fault = &load("[limits]\nrecipient = 5 # few\n", &[]).unwrap_err()[0];
    let shown = format!("{fault:#}");
    assert_eq!(
        shown,
        "weir.toml:2:1: unknown key `limits.recipient`: the nearest known key is `limits.recipients`\n\
         2 | recipient = 5 # few\n  | ^^^^^^^^^"
    );
}

#[test]
fn a_file_of_many_values_has_the_right_places() {
    let route = |n: usize| format!("[[route]]\ndomain = 'd{n}.example'\nto = '127.0.0.1:25'\n");
    let text: String =
        (0..5000).map(route).collect::<String>() + "[[route]]\ndomain = 'd0.example'\nto = 'x.example:25'";
    one_fault(
        &text,
        "weir.toml:15002:10: a second route for \"d0.example\": take one of them out (the first is at weir.toml:2:10)",
    );
}

#[test]
fn broken_toml_is_told_with_its_place() {
    for (text, place) in [("hostname = ", "1:"), ("\n[relay\n", "2:"), ("log.level = 'info'\nlog.level = 'warn'", "2:")]
    {
        let faults = faults(text, &[]);
        assert!(faults[0].starts_with(&format!("weir.toml:{place}")), "{faults:?}");
    }
}

#[test]
fn wrong_shapes_say_how_to_write_it() {
    one_fault("queue = 5", "`queue` is an integer, not a table: write its keys below a line `[queue]`");
    one_fault("[limit]\nrecipients = 5", "unknown key `limit`: the nearest known key is `limits`");
    one_fault("[provider.outlook]\nmax_connections = 5", "begin each provider with a line `[[provider]]`");
    one_fault("route = [1]", "an entry of `route` is an integer, not a table");
    one_fault(
        "[dns]\nservers = '127.0.0.1:53'",
        "write a list, each entry an IP address, and a port where it is not 53",
    );
    one_fault("[relay]\ntrusted_networks = ['10.0.0.5']", "a single address as in \"192.0.2.7/32\"");
    for name in ["[192.0.2.1]", "192.0.2.1", "a_b.example", "münchen.example", "a..b", "relay.example."] {
        one_fault(&format!("hostname = '{name}'"), "write a host name");
    }
}

#[test]
fn settings_that_do_not_go_together_are_faults() {
    for (text, expected) in [
        ("listener = []", "there is no listener"),
        ("[[listener]]\naddress = '127.0.0.1:25'\n[[listener]]\naddress = '127.0.0.1:25'", "weir.toml:4:11: listeners"),
        ("[[listener]]\naddress = '0.0.0.0:25'\n[[listener]]\naddress = '127.0.0.1:25'", "cannot be there at once"),
        ("[limits]\nmessage_size = '0 B'", "weir.toml:2:16: `limits.message_size` is zero"),
        ("[queue]\nretry = []", "`queue.retry` is empty"),
        ("[queue]\nretry = ['0s']", "write a duration above zero"),
        ("[relay]\npostmaster = 'nobody'", "write a mail address"),
        (
            "[[provider]]\nname = 'Outlook'\n[[provider]]\nname = 'outlook'",
            "weir.toml:4:8: a second provider with the name",
        ),
        ("[[provider]]\nname = 'outlook'\nmax_connections = 0", "write a whole number from 1"),
        (
            "[[provider]]\nname = 'outlook'\ninitial_connections = 9\nmax_connections = 8",
            "weir.toml:3:23: `initial_connections` 9 of provider \"outlook\" is above its `max_connections` 8: write at most 8",
        ),
        (
            "[[provider]]\nname = 'a'\nmx = ['*.Mx.example']\n[[provider]]\nname = 'b'\nmx = ['*.mx.example']",
            "weir.toml:6:6: \"*.mx.example\" is claimed by two providers: take it out of one (the first is at weir.toml:3:6)",
        ),
        (
            "[[provider]]\nname = 'outlook'\npause = '25h'",
            "weir.toml:3:9: `pause` 1d 1h of provider \"outlook\" is longer than its `pause_max` 1d: write at most 1d, or raise `pause_max`",
        ),
        (
            "[[provider]]\nname = 'outlook'\npause_max = '1m'",
            "weir.toml:3:13: `pause_max` 1m of provider \"outlook\" is shorter than its `pause` 10m: write at least 10m, or lower `pause`",
        ),
        ("[[provider]]\nname = 'outlook'\npause = '0s'", "write a duration above zero"),
        (
            "[[provider]]\nname = 'outlook'\ngrowth = 0.5",
            "weir.toml:3:10: `growth` 0.5 of provider \"outlook\" would let less through every hour: write 1 or more, or 0 for no guard",
        ),
        ("[[provider]]\nname = 'outlook'\ngrowth = -1", "`provider.growth` is -1: write a number from 0 to 1000"),
        ("[[provider]]\nname = 'outlook'\ngrowth = nan", "`provider.growth` is nan: write a number from 0 to 1000"),
        ("[[provider]]\nname = 'outlook'\ngrowth = '2'", "`provider.growth` is a string: write a number"),
        (
            "[[provider]]\nname = 'outlook'\nmax_rate = '600'",
            "write a rate, as in \"600/min\" (s, min, h, d), or \"unlimited\"",
        ),
        ("[[provider]]\nname = 'outlook'\nmax_rate = 600", "`provider.max_rate` is an integer: write a rate"),
        ("[delivery]\nchunking = 'off'", "write true or false"),
        ("[[provider]]\nname = 'outlook'\ngrowth_floor = '0/h'", "write a rate, as in \"500/h\" (s, min, h, d)"),
        ("[[provider]]\nname = 'default'\nmx = ['*.x.test']", "it is every receiver without a profile"),
        ("[[provider]]\nname = 'outlook'\ncanary = 'probe'", "write a mail address of your own there"),
        (
            "[[provider]]\nname = 'outlook'\nwarm_up = [50, 0]",
            "weir.toml:3:16: `provider.warm_up` is 0: write a list of whole numbers from 1 to 100000000",
        ),
        (
            "[[provider]]\nname = 'outlook'\nwarm_up = []",
            "weir.toml:3:11: `warm_up` of provider \"outlook\" is empty: write the recipients of each day, as in [50, 100, 200]",
        ),
        (
            "[[provider]]\nname = 'outlook'\nwarm_up = [50, 100, 80]",
            "weir.toml:3:11: `warm_up` of provider \"outlook\" falls from 100 to 80: let each day have at least as many as the day before",
        ),
        (
            "[[source]]\nname = 'a'\naddress = '192.0.2.1'\nwarm_up = ['outlok']",
            "weir.toml:4:11: `source.warm_up` names no provider: \"outlok\": the nearest there is is \"outlook\"",
        ),
        ("[[provider]]\nname = 'a b'", "letters, digits"),
        ("[[provider]]\nname = 'a'\nmx = ['mx.*.example']", "as in \"*.mx.example.com\""),
        (
            "[[source]]\nname = 'a'\naddress = '192.0.2.1'\n[[source]]\nname = 'b'\naddress = '192.0.2.1'",
            "weir.toml:6:11: a second source with the address \"192.0.2.1\"",
        ),
        ("[[source]]\nname = 'a'\naddress = '0.0.0.0'", "an IP address of this host"),
        ("[delivery]\nip = 'ipv4'\n[[source]]\nname = 'a'\naddress = '2001:db8::1'", "nothing can be delivered"),
        (
            "[[route]]\ndomain = 'Example.com'\nto = 'a.example:25'\n[[route]]\ndomain = 'example.com'\nto = 'b.example:25'",
            "weir.toml:5:10: a second route for \"example.com\"",
        ),
        (
            "[[route]]\ndomain = '*'\nto = 'a.example:25'\nlimits = 'outlok'",
            "weir.toml:4:10: `route.limits` names no provider: \"outlok\": the nearest there is is \"outlook\"",
        ),
        ("[events]\nmax_size = '1 KiB'", "allow at least \"1 MiB\""),
        (
            "[[listener]]\naddress = '127.0.0.1:25'\ntls = 'require'\n[tls]\ncertificate = 'c.pem'",
            "weir.toml:3:7: the listener 127.0.0.1:25 speaks TLS, and `tls.key` is not set",
        ),
        (
            "[[listener]]\naddress = '127.0.0.1:25'\nauth = 'require'",
            "weir.toml:3:8: the listener 127.0.0.1:25 wants every client to log in, and there are no users",
        ),
        ("[[listener]]\naddress = '127.0.0.1:25'\ntls = 'yes'", "one of `off`, `starttls`, `require`, `implicit`"),
    ] {
        one_fault(text, expected);
    }
}

#[test]
fn what_is_seldom_meant_is_a_warning() {
    for (text, expected) in [
        ("hostname = 'relay'", "weir.toml:1:12: `hostname` \"relay\" has no dot"),
        ("[relay]\ntrusted_networks = ['0.0.0.0/0']", "everybody may send"),
        ("[queue]\nexpire = '30s'", "weir.toml:2:10: `queue.expire` is 30s, shorter than the first wait"),
        ("[limits]\nrecipients = 50", "allow at least 100"),
        ("[limits]\nmessage_size = '1 KiB'", "64 KiB"),
        ("[bounces]\ndelay_after = '5d'", "no delay report is ever sent"),
        ("[alerts]\nmail = 'me@hotmail.co.uk'", "nobody hears of a block there"),
        (
            "[alerts]\nmail = 'me@firm.example'\n[[provider]]\nname = 'outlook'\ndomains = ['firm.example']",
            "at Microsoft",
        ),
        ("[[provider]]\nname = 'outlok'", "the nearest is \"outlook\""),
        (
            "[delivery]\nip = 'ipv4'\n[[source]]\nname = 'a'\naddress = '192.0.2.1'\n[[source]]\nname = 'b'\naddress = '::1'",
            "weir.toml:8:11: source \"b\" is an IPv6 address",
        ),
    ] {
        let warnings = warnings(text, &[]);
        assert!(warnings.len() == 1 && warnings[0].contains(expected), "{text}\n{warnings:#?}");
    }
}

#[test]
fn alerts_that_reach_somebody_warn_of_nothing() {
    for text in [
        "mail = 'me@hotmail.com'\nwebhook = 'https://hooks.example.com/'",
        "mail = 'me@hotmail.com'\ncommand = '/usr/bin/page'",
        "mail = 'me@outlook.example.com'",
        "mail = 'me@example.com'",
    ] {
        assert_eq!(warnings(&format!("[alerts]\n{text}"), &[]), [""; 0], "{text}");
    }
    for (text, expected) in [
        ("webhook = 'hooks.example.com'", "a URL without user and password"),
        ("webhook = 'https://me:secret@hooks.example.com/'", "a URL without user and password"),
        ("mail = 'me'", "a mail address"),
        ("command = \"page 'team\"", "a program with its arguments"),
        ("repeat = '0s'", "a duration above zero"),
    ] {
        one_fault(&format!("[alerts]\n{text}"), expected);
    }
}

#[test]
fn webhooks_that_cannot_work_are_faults_and_no_fault_shows_a_secret() {
    let hook = |rest: &str| format!("[[webhook]]\nname = 'app'\n{rest}");
    for (rest, expected) in [
        ("", "webhook \"app\" has no url"),
        ("url = 'https://h/T0KEN'\nurl_file = '/T0KEN'", "webhook \"app\" has url and url_file"),
        ("url = 'htps://h/T0KEN'", "`webhook.url` is something else: write a URL that begins with https://"),
        ("url = 'http://h.example/T0KEN'", "webhook \"app\" would send events in clear text over the Internet"),
        (
            "url = 'https://h/'\nsecret = 'whsec_T0KEN%'",
            "`webhook.secret` is something else: write `whsec_` and base64",
        ),
        ("url = 'https://h/'\nformat = 'mailgun'", "write one of `weir`, `listmonk`, `sendgrid`, `postmark`"),
        (
            "url = 'https://h/'\nevents = ['bounce']",
            "there is no event \"bounce\": the nearest there is is \"bounced\"",
        ),
        ("url = 'https://h/'\nevents = ['opened?']", "there is no event \"opened?\": write one of accepted, delivered"),
        ("url = 'https://h/'\n[events]\noutput = 'stdout'", "webhooks read the event log"),
        ("url = 'https://h/'\nsecrets = 'T0KEN'", "the nearest known key is `webhook.secret`"),
    ] {
        let faults = faults(&hook(rest), &[]).join("\n");
        assert!(faults.contains(expected) && !faults.contains("T0KEN"), "{rest}: {faults}");
    }
    let twice = format!("{}{}", hook("url = 'https://h/'\n"), "[[webhook]]\nname = 'APP'\nurl = 'https://h/'");
    assert!(faults(&twice, &[])[0].contains("a second webhook with the name \"app\""));
    for (rest, expected) in [
        ("url = 'https://h/'\nsecret = 'short'", "the secret of webhook \"app\" is shorter than 24 octets"),
        (
            "url = 'https://h/'\nformat = 'listmonk'\nevents = ['delivered']",
            "the format \"listmonk\" has no words for the event \"delivered\"",
        ),
    ] {
        let warnings = warnings(&hook(rest), &[]).join("\n");
        assert!(warnings.contains(expected), "{rest}: {warnings}");
    }
}

#[test]
fn webhooks_come_from_the_environment_by_number_and_by_name() {
    let config = config(
        "",
        &[
            ("WEIR_WEBHOOK__APP__URL", "https://h.example/T0KEN"),
            ("WEIR_WEBHOOK__APP__EVENTS", "bounced, delivered"),
            ("WEIR_WEBHOOK__APP__SECRET_FILE", "/run/secrets/app"),
            ("WEIR_WEBHOOK__APP__FORMAT", "postmark"),
        ],
    );
    let hook = &config.webhook[0];
    assert_eq!(
        (hook.name.as_str(), hook.url.as_str(), hook.format),
        ("app", "https://h.example/T0KEN", Format::Postmark)
    );
    assert_eq!(
        (hook.events.join(" "), hook.secret_file.as_str()),
        ("bounced delivered".to_string(), "/run/secrets/app")
    );
    assert!(is_secret_variable("WEIR_WEBHOOK__APP__URL") && is_secret_variable("WEIR_WEBHOOK__0__SECRET"));
}

#[test]
fn free_ports_can_be_listened_on_twice() {
    assert_eq!(
        config("[[listener]]\naddress = '127.0.0.1:0'\n[[listener]]\naddress = '127.0.0.1:0'", &[]).listener.len(),
        2
    );
}

#[test]
fn the_environment_wins_over_the_file() {
    let config = config(
        "hostname = 'file.example'\n[queue]\nretry = ['1m']\nexpire = '1d'\n[limits]\nrecipients = 500\n",
        &[
            ("WEIR_HOSTNAME", "variable.example"),
            ("WEIR_QUEUE__RETRY", "2m, 10m"),
            ("WEIR_LIMITS__RECIPIENTS", "700"),
            ("WEIR_RELAY__SENDER_DOMAINS", ""),
            ("HOME", "/root"),
        ],
    );
    assert_eq!(config.hostname, "variable.example");
    assert_eq!(config.queue.retry.iter().map(Span::to_string).collect::<Vec<_>>(), ["2m", "10m"]);
    assert_eq!(config.queue.expire.to_string(), "1d");
    assert_eq!(config.limits.recipients, 700);
}

#[test]
fn a_table_within_a_table_has_one_more_name() {
    let file = "[suppression]\nafter = { mailbox-full = 5 }\n[suppression.keep]\nother = \"2d\"";
    let set = [("WEIR_SUPPRESSION__AFTER__OTHER", "7"), ("WEIR_SUPPRESSION__KEEP__MAILBOX_FULL", "1d")];
    let found = config(file, &set).suppression;
    assert_eq!((found.after.mailbox_full, found.after.other, found.after.recipient_unknown), (5, 7, 1));
    let days = |days: u64| Duration::from_secs(days * 86_400);
    assert_eq!(
        (found.keep.other.0, found.keep.mailbox_full.0, found.keep.recipient_unknown.0),
        (days(2), days(1), days(90))
    );
    let said = faults("[suppression]\nafter = { mailbox-ful = 5, other = 0 }", &[]).join(" ");
    assert!(
        said.contains("`suppression.after.mailbox-full`") && said.contains("`suppression.after.other` is 0"),
        "{said}"
    );
    let said = warnings("", &[("WEIR_SUPPRESSION__AFTER__MAILBOXFULL", "5")]).join(" ");
    assert!(said.contains("WEIR_SUPPRESSION__AFTER__MAILBOX_FULL"), "{said}");
}

#[test]
fn elements_go_by_number() {
    let config = config(
        "[[route]]\ndomain = 'a.example'\nto = 'a.example:25'\n",
        &[
            ("WEIR_LISTENER__0__ADDRESS", "127.0.0.1:25"),
            ("WEIR_ROUTE__0__TO", "b.example:26"),
            ("WEIR_ROUTE__1__DOMAIN", "*"),
            ("WEIR_ROUTE__1__TO", "c.example:27"),
        ],
    );
    assert_eq!(config.listener.iter().map(|l| l.address.to_string()).collect::<Vec<_>>(), ["127.0.0.1:25"]);
    let routes: Vec<_> = config.route.iter().map(|r| (r.domain.as_str(), r.to.as_str())).collect();
    assert_eq!(routes, [("a.example", "b.example:26"), ("*", "c.example:27")]);
}

#[test]
fn eleven_elements_keep_their_order() {
    let variables: Vec<(String, String)> =
        (0..11).map(|n| (format!("WEIR_LISTENER__{n}__ADDRESS"), format!("127.0.0.1:{}", 2000 + n))).collect();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let ports: Vec<u16> = config("", &variables).listener.iter().map(|l| l.address.port()).collect();
    assert_eq!(ports, (2000..2011).collect::<Vec<u16>>());
}

#[test]
fn providers_and_sources_go_by_name_too() {
    let config = config(
        "[[provider]]\nname = 'my-corp'\nmx = ['mx.corp.example']\n",
        &[
            ("WEIR_PROVIDER__MY_CORP__MAX_CONNECTIONS", "3"),
            ("WEIR_PROVIDER__T_ONLINE__MAX_CONNECTIONS", "4"),
            ("WEIR_PROVIDER__OUTLOOK__MAX_CONNECTIONS", "100"),
            ("WEIR_PROVIDER__OUTLOOK__INITIAL_CONNECTIONS", "2"),
            ("WEIR_SOURCE__A__ADDRESS", "192.0.2.1"),
        ],
    );
    let providers: Vec<_> = config.provider.iter().map(|p| (p.name.as_str(), p.max_connections)).collect();
    assert_eq!(providers, [("my-corp", Some(3)), ("outlook", Some(100)), ("t-online", Some(4))]);
    assert_eq!(config.provider[1].initial_connections, Some(2));
    assert_eq!((config.source[0].name.as_str(), config.source[0].address.to_string().as_str()), ("a", "192.0.2.1"));
}

#[test]
fn every_policy_of_a_provider_can_come_from_the_environment() {
    let config = config(
        "",
        &[
            ("WEIR_PROVIDER__OUTLOOK__PAUSE", "2s"),
            ("WEIR_PROVIDER__OUTLOOK__PAUSE_MAX", "1m"),
            ("WEIR_PROVIDER__OUTLOOK__PROBE_BLOCK", "5m"),
            ("WEIR_PROVIDER__OUTLOOK__MAX_RATE", "600/min"),
            ("WEIR_PROVIDER__OUTLOOK__GROWTH", "1.5"),
            ("WEIR_PROVIDER__OUTLOOK__GROWTH_FLOOR", "10/min"),
            ("WEIR_PROVIDER__OUTLOOK__CANARY", "probe@outlook.com"),
            ("WEIR_PROVIDER__OUTLOOK__WARM_UP", "50, 100,200"),
            ("WEIR_SOURCE__A__ADDRESS", "192.0.2.1"),
            ("WEIR_SOURCE__A__WARM_UP", "outlook,gmail"),
        ],
    );
    let outlook = &config.provider[0];
    let spans = [outlook.pause, outlook.pause_max, outlook.probe_block].map(|span| span.unwrap().to_string());
    assert_eq!((outlook.name.as_str(), spans), ("outlook", ["2s", "1m", "5m"].map(str::to_string)));
    assert_eq!((outlook.max_rate.unwrap().to_string(), outlook.growth), ("600/min".to_string(), Some(1.5)));
    assert_eq!(outlook.growth_floor.unwrap().to_string(), "10/min");
    assert_eq!(
        (outlook.canary.as_deref(), outlook.warm_up.as_deref()),
        (Some("probe@outlook.com"), Some(&[50, 100, 200][..]))
    );
    assert_eq!(config.source[0].warm_up, ["outlook", "gmail"]);
    for (variable, text, expected) in [
        (
            "WEIR_PROVIDER__OUTLOOK__WARM_UP",
            "50,x",
            "has the entry \"x\": write entries separated by commas, each a whole",
        ),
        ("WEIR_PROVIDER__OUTLOOK__GROWTH", "inf", "is \"inf\": write a number from 0 to 1000"),
        ("WEIR_PROVIDER__OUTLOOK__MAX_RATE", "fast", "is \"fast\": write a rate"),
    ] {
        let faults = faults("", &[(variable, text)]);
        assert!(faults.len() == 1 && faults[0].contains(expected), "{faults:?}");
    }
}

const HASH: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";

/// Name, password and hash of each user.
fn users(config: &Config) -> Vec<(&str, String, String)> {
    let text = |secret: &Secret| String::from_utf8(secret.expose().to_vec()).unwrap();
    config.relay.user.iter().map(|u| (u.name.as_str(), text(&u.password), text(&u.password_hash))).collect()
}

#[test]
fn users_go_by_number_by_name_and_in_one_variable() {
    let list = format!("app:s3cret,other:{HASH},new:x:y");
    let config = config(
        "[[relay.user]]\nname = 'app'\npassword_file = '/x'\nclass = 'bulk'\n",
        &[
            ("WEIR_USERS", &list),
            ("SMTPD_SASL_USERS", "app:older,familiar:s3cret"),
            ("WEIR_USERS_FILE", "/run/secrets/users"),
            ("WEIR_RELAY__USER__APP__RATE", "60/min"),
            ("WEIR_RELAY__USER__1__DAILY_RECIPIENTS", "7"),
            ("WEIR_RELAY__USER__LATE__PASSWORD_FILE", "/y"),
        ],
    );
    let pair = |name, password: &str, hash: &str| (name, password.to_string(), hash.to_string());
    let expected = [
        pair("app", "s3cret", ""),
        pair("familiar", "s3cret", ""),
        pair("other", "", HASH),
        pair("new", "x:y", ""),
        pair("late", "", ""),
    ];
    assert_eq!(users(&config), expected);
    let user = &config.relay.user;
    assert_eq!(
        (user[0].class, user[0].rate.to_string(), user[0].password_file.as_str()),
        (Priority::Bulk, "60/min".into(), "")
    );
    assert_eq!((user[1].daily_recipients, user[4].password_file.as_str()), (7, "/y"));
    assert_eq!(config.relay.users_file, "/run/secrets/users");
    assert_eq!(
        super::tests::config("", &[("WEIR_USERS_FILE", "/a"), ("WEIR_RELAY__USERS_FILE", "/b")]).relay.users_file,
        "/b"
    );
}

#[test]
fn faults_of_users_say_where_and_never_what() {
    let user = "[[relay.user]]\nname = 'app'\n";
    for (text, expected) in [
        (
            format!("{user}password_hash = 's3cret'"),
            "weir.toml:3:17: `relay.user.password_hash` is something else: write an Argon2 hash as `weir password` prints it",
        ),
        (format!("{user}password_hash = '***'"), "weir.toml:3:17: `relay.user.password_hash` is something else"),
        (format!("{user}password = '***'"), "weir.toml:3:12: `relay.user.password` is something else"),
        (
            format!("{user}password = '$2y$10$s3crets3crets3crets3cret'"),
            "weir.toml:3:12: `relay.user.password` is something else",
        ),
        (
            format!("{user}password = 's3cret'\npassword_file = '/x'"),
            "weir.toml:3:12: user \"app\" has password_file and password: keep one of them",
        ),
        (user.to_string(), "weir.toml:2:8: user \"app\" has no password: give it `password_hash`"),
        (
            format!("{user}password = 's3cret'\n{user}password = 's3cret'"),
            "weir.toml:5:8: a second relay.user with the name \"app\"",
        ),
        ("[[relay.user]]\npassword = 's3cret'".to_string(), "weir.toml:1:1: a relay.user has no `name`"),
        (
            format!("{user}password = 's3cret'\nclass = 'fast'"),
            "`relay.user.class` is \"fast\": write a class: `high`, `normal` or `bulk`",
        ),
        (format!("{user}password = 's3cret'\nrate = '60'"), "`relay.user.rate` is \"60\": write messages in a time"),
        ("[[relay.user]]\nname = 'a b'".to_string(), "without spaces"),
        (
            format!("{user}pasword = 's3cret'"),
            "unknown key `relay.user.pasword`: the nearest known key is `relay.user.password`",
        ),
    ] {
        let faults = load(&text, &[]).unwrap_err();
        let shown = format!("{:#}", faults[0]);
        assert!(faults.len() == 1 && shown.contains(expected), "{text}\n{shown}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }
    for (list, expected) in [
        ("s3cret", "WEIR_USERS: entry 1 has no `:`"),
        ("a:x,s3 cret:s3cret", "WEIR_USERS: entry 2 begins with no user's name"),
        ("app:", "WEIR_USERS: entry 1 has something else behind the name \"app\""),
        ("app:$argon2id$v=19$m=1,t=2s3cret", "WEIR_USERS: entry 1 has something else"),
    ] {
        let faults = faults("", &[("WEIR_USERS", list)]);
        assert!(faults.len() == 1 && faults[0].contains(expected) && !faults[0].contains("s3"), "{faults:?}");
    }
    let late = warnings(&format!("{user}password = 'x'\nexpire = '5d'"), &[]);
    assert!(late[0].contains("`expire` 5d of user \"app\" is longer than `queue.expire`, 4d"), "{late:?}");
}

#[test]
fn secrets_are_printed_as_stars_and_stars_are_taken_for_none() {
    let full = full();
    let shown = format!("{} {full:?}", full.print());
    assert!(!shown.contains("s3cret") && !shown.contains("c29tZXNhbHQ"), "{shown}");
    assert!(full.print().contains("password = \"***\"") && full.print().contains("password_hash = \"***\""));
    assert!(!shown.contains("t0ken") && full.print().contains("token = \"***\""));
    let faults = load(&full.print(), &[]).unwrap_err();
    let hidden = faults.iter().filter(|fault| fault.to_string().contains("is something else"));
    assert_eq!(hidden.count(), 6, "three of a user, one of a route, one of a webhook, one of dkim: {faults:?}");
    assert!(!full.show().contains("T0KEN") && full.show().contains("https://app.example:443/…"), "{}", full.show());
}

#[test]
fn a_gap_between_numbers_is_a_fault() {
    let faults = faults("", &[("WEIR_ROUTE__1__TO", "a.example:25")]);
    assert!(faults[0].starts_with("WEIR_ROUTE__1__TO: there is no route 0 yet"), "{faults:?}");
}

#[test]
fn a_variable_that_names_no_key_is_a_warning() {
    for (variable, nearest) in [
        ("WEIR_QUEUE__EXPIRES", "WEIR_QUEUE__EXPIRE"),
        ("WEIR_QUEUE_EXPIRE", "WEIR_QUEUE__EXPIRE"),
        ("WEIR_LISTENER", "WEIR_LISTENER__0__ADDRESS"),
        ("WEIR_LISTENER__ADDRESS", "WEIR_LISTENER__0__ADDRESS"),
        ("WEIR_ROUTE__A__TO", "WEIR_ROUTE__0__TO"),
        ("WEIR_PROVIDER__OUTLOOK__MAX_CONNECTION", "WEIR_PROVIDER__0__MAX_CONNECTIONS"),
    ] {
        let warnings = warnings("", &[(variable, "x")]);
        let expected = format!("{variable}: names no key and changes nothing: the nearest that does is {nearest}");
        assert_eq!(warnings, [expected]);
    }
}

#[test]
fn variables_of_kubernetes_and_of_weir_itself_are_passed_over() {
    let known = [
        ("WEIR_PORT", "tcp://10.0.0.1:25"),
        ("WEIR_PORT_25_TCP_ADDR", "10.0.0.1"),
        ("WEIR_SERVICE_HOST", "10.0.0.1"),
        ("WEIR_TEST", "1"),
        ("WEIR_CONTAINER", "0"),
    ];
    assert_eq!(load("", &known).unwrap(), (Config::default(), vec![]));
}

#[test]
fn the_container_has_defaults_of_its_own() {
    let container = [("WEIR_CONTAINER", "1")];
    let config = config("", &container);
    assert_eq!(config.listener.iter().map(|l| l.address.to_string()).collect::<Vec<_>>(), ["0.0.0.0:2525"]);
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/weir"));
    assert_eq!(config.events.output, Output::Both);
    let trusted: Vec<String> = config.relay.trusted_networks.iter().map(IpNet::to_string).collect();
    assert_eq!(trusted, ["127.0.0.0/8", "::1/128", "172.18.0.0/32", "172.18.0.2/31"]);
    assert_eq!(config.trusts_attached, "172.18.0.0/30 (not its gateway 172.18.0.1)");
}

/// A compose file of boky/postfix as people have it, and what becomes of it.
#[test]
fn the_environment_of_another_relay_image_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("users");
    std::fs::write(&secret, "app:s3cret\n").unwrap();
    let theirs = [
        ("ALLOWED_SENDER_DOMAINS", "example.com example.org"),
        ("POSTFIX_myhostname", "mx.example.com"),
        ("POSTFIX_mynetworks", "127.0.0.0/8 [::1]/128, 10.0.0.0/8 192.0.2.7"),
        ("POSTFIX_message_size_limit", "26214400"),
        ("RELAYHOST", "[smtp.example.net]:2525"),
        ("RELAYHOST_TLS_LEVEL", "encrypt"),
        ("RELAYHOST_USERNAME", ""),
        ("SASL_RELAYHOST", "smtp.example.net"),
        ("SMTPD_SASL_USERS_FILE", secret.to_str().unwrap()),
        ("LOG_FORMAT", "json"),
        ("TZ", "UTC"),
        ("DKIM_AUTOGENERATE", "false"),
        ("ALLOW_EMPTY_SENDER_DOMAINS", "true"),
        ("WEIR_CONTAINER", "1"),
    ];
    let (config, warnings) = load("[relay]\nsender_domains = ['file.example']", &theirs).unwrap();
    let domains: Vec<String> = config.relay.sender_domains.iter().map(ToString::to_string).collect();
    assert_eq!(domains, ["example.com", "example.org"]);
    let networks: Vec<String> = config.relay.trusted_networks.iter().map(IpNet::to_string).collect();
    assert_eq!(networks, ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "192.0.2.7/32"]);
    assert_eq!((config.hostname.as_str(), config.limits.message_size.0), ("mx.example.com", 26_214_400));
    assert_eq!((config.route[0].domain.as_str(), config.route[0].to.as_str()), ("*", "smtp.example.net:2525"));
    assert_eq!(users(&config), [("app", "s3cret".to_string(), String::new())]);
    assert_eq!(config.delivery.tls, crate::outbound::options::TlsMode::Encrypt);
    assert_eq!(config.log.format, crate::log::Format::Json);
    // Where nobody but root may listen on 587, that is said.
    let warnings: Vec<String> = warnings.iter().map(Finding::to_string).collect();
    assert!(warnings.len() == 1 && warnings[0].starts_with("weir listens on port 2525 alone"), "{warnings:?}");
    let low = Config::load(&Sources { lowest_port: 0, ..sources(None, &theirs) }).unwrap().0;
    let listeners: Vec<String> = low.listener.iter().map(|l| l.address.to_string()).collect();
    assert_eq!(listeners, ["0.0.0.0:2525", "0.0.0.0:587"]);
}

#[test]
fn our_own_variables_stand_above_familiar_ones() {
    let config = config(
        "[[route]]\ndomain = '*'\nto = 'file.example:25'",
        &[
            ("RELAYHOST", "theirs.example"),
            ("POSTFIX_myhostname", "theirs.example.com"),
            ("WEIR_HOSTNAME", "ours.example.com"),
            ("SMTPD_SASL_USERS", "app:theirs"),
            ("WEIR_USERS", "app:ours"),
        ],
    );
    assert_eq!((config.route.len(), config.route[0].to.as_str()), (1, "theirs.example:25"));
    assert_eq!((config.hostname.as_str(), users(&config)[0].1.as_str()), ("ours.example.com", "ours"));
}

#[test]
fn what_cannot_be_honoured_is_said_with_what_to_do() {
    for (variable, text, expected) in [
        ("XOAUTH2_CLIENT_ID", "x", "changes nothing: weir logs in nowhere with OAuth"),
        ("MASQUERADED_DOMAINS", "example.com", "changes nothing: weir changes no addresses"),
        ("SMTP_HEADER_CHECKS", "1", "changes nothing: weir changes no header"),
        ("OPENDKIM_DOMAINS", "x", "changes nothing: weir signs by itself"),
        ("DKIM_SELECTOR", "mail", "changes nothing: there is no domain with a key: name the domains"),
        ("DKIM_AUTOGENERATE", "1", "changes nothing: there is no domain with a key"),
        ("POSTFIX_smtpd_tls_cert_file", "/x", "changes nothing: set `tls.certificate`"),
        ("POSTFIX_unknown", "x", "changes nothing: there is no Postfix here"),
        ("RELAYHOST_PASSWORD", "s3cret", "changes nothing without RELAYHOST: name the host"),
    ] {
        let warnings = warnings("", &[(variable, text)]);
        assert!(warnings.len() == 1 && warnings[0].starts_with(&format!("{variable}: {expected}")), "{warnings:?}");
    }
    for (variable, text) in
        [("TZ", "Europe/Berlin"), ("LOG_FORMAT", "%h %l"), ("XOAUTH2_SECRET", " "), ("POSTFIX_x", "")]
    {
        assert_eq!(warnings("", &[(variable, text)]), [""; 0], "{variable}");
    }
    assert!(warnings("", &[("TZ", "Europe/Berlin"), ("WEIR_CONTAINER", "1")])[0].contains("times are in UTC"));
    for (environment, expected) in [
        (vec![("POSTFIX_mynetworks", "hash:/x")], "POSTFIX_mynetworks: has the entry \"hash:/x\": write entries"),
        (
            vec![("RELAYHOST", "smtp.example.net:smtp")],
            "RELAYHOST: is \"smtp.example.net:smtp\": write a host and a port",
        ),
        (
            vec![("RELAYHOST", "a.example"), ("RELAYHOST_PASSWORD", "s3cret")],
            "RELAYHOST_PASSWORD: the [[route]] for \"*\" has a password and no username",
        ),
        (
            vec![("RELAYHOST", "a.example"), ("RELAYHOST_USERNAME", "app")],
            "RELAYHOST_USERNAME: the [[route]] for \"*\" has a username and no password",
        ),
        (
            vec![("ALLOWED_SENDER_DOMAINS_FILE", "/nowhere/x")],
            "ALLOWED_SENDER_DOMAINS_FILE: cannot read \"/nowhere/x\"",
        ),
    ] {
        let faults = faults("", &environment);
        assert!(faults.len() == 1 && faults[0].starts_with(expected) && !faults[0].contains("s3cret"), "{faults:?}");
    }
}

#[test]
fn what_is_set_stays_in_the_container() {
    let text = "data_dir = 'x'\n[[listener]]\naddress = '127.0.0.1:25'\n[relay]\ntrusted_networks = []\n[events]\noutput = 'file'";
    let inside = config(text, &[("WEIR_CONTAINER", "1")]);
    assert_eq!(inside, config(text, &[]));
    assert_eq!(inside.trusts_attached, "");
}

#[test]
fn a_change_of_what_is_opened_at_start_needs_a_restart() {
    let old = Config::default();
    assert_eq!(old.restart_needed(&old), [""; 0]);
    let new = config("data_dir = 'x'\n[queue]\nexpire = '1d'\n[log]\nlevel = 'debug'\n[limits]\nrecipients = 200", &[]);
    assert_eq!(old.restart_needed(&new), ["data_dir", "limits", "log"]);
}

/// The documented file with every setting in force.
fn uncommented() -> String {
    let is_setting = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
    let settings = DOCUMENTED.lines().filter_map(|line| line.strip_prefix('#').filter(is_setting));
    settings.collect::<Vec<_>>().join("\n")
}

/// Only one of them, and what stands for it, can be in force.
const MORE_SECRETS: [&str; 5] = ["password =", "password_hash =", "url_file =", "secret_file =", "key = \"-----"];

#[test]
fn a_reload_back_to_what_runs_needs_no_restart() {
    let text = "hostname = 'b.example.com'\ndata_dir = 'b'\nsandbox = 'off'\n[[listener]]\naddress = '127.0.0.1:26'\n\
                [limits]\nrecipients = 7\n[dns]\nservers = ['192.0.2.1']\n[delivery]\nmax_connections = 7\n\
                [events]\nkeep = '1d'\n[log]\nlevel = 'debug'\n[queue]\nexpire = '1d'";
    let (mut changed, _) = load(text, &[]).unwrap();
    let running = Config::default();
    let needed = running.restart_needed(&changed);
    assert_eq!(needed.len(), 9, "{needed:?}");
    changed.keep_until_restart(&running);
    assert_eq!(running.restart_needed(&changed), Vec::<&str>::new());
    assert_ne!(changed.queue, running.queue, "what holds at once is taken");
}

#[test]
fn a_name_server_without_a_port_is_asked_at_53() {
    let (config, _) = load("[dns]\nservers = ['192.0.2.1', '2001:db8::1', '127.0.0.1:5353']", &[]).unwrap();
    let servers: Vec<String> = config.dns.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "127.0.0.1:5353"]);
    assert!(load("[dns]\nservers = ['dns.example']", &[]).is_err());
}

#[test]
fn the_documented_file_says_nothing_new_as_it_stands() {
    assert_eq!(load(DOCUMENTED, &[]).unwrap(), (Config::default(), vec![]));
}

#[test]
fn the_documented_file_has_every_key_and_no_other() {
    let table: toml::Table = uncommented().parse().unwrap();
    let mut documented = BTreeSet::new();
    paths(&table, "", &mut documented);
    let known: BTreeSet<String> = schema::keys().iter().map(|key| key.path.to_string()).collect();
    assert_eq!(documented, known);
}

fn paths(table: &toml::Table, prefix: &str, into: &mut BTreeSet<String>) {
    for (name, value) in table {
        match value {
            Value::Table(inner) => paths(inner, &format!("{prefix}{name}."), into),
            // A rule has keys of its own, which `verdict` knows.
            Value::Array(_) if name == "rule" => {
                into.insert(format!("{prefix}{name}"));
            }
            Value::Array(list) if list.iter().any(Value::is_table) => {
                list.iter().filter_map(Value::as_table).for_each(|t| paths(t, &format!("{prefix}{name}[]."), into));
            }
            _ => {
                into.insert(format!("{prefix}{name}"));
            }
        }
    }
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    let one_password: Vec<_> = uncommented()
        .lines()
        .filter(|line| !MORE_SECRETS.iter().any(|key| line.starts_with(key)))
        .map(String::from)
        .collect();
    let (mut documented, warnings) = load(&one_password.join("\n"), &[]).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(documented.relay.user.len(), 1);
    documented.relay.user = vec![];
    assert_eq!((documented.route.len(), documented.source.len(), documented.provider.len()), (1, 1, 1));
    let key = documented.dkim.remove(0);
    assert!(!key.skip_signed && key.key.is_empty() && documented.dkim.is_empty());
    let hook = documented.webhook.remove(0);
    let example =
        Webhook { name: hook.name.clone(), url: hook.url.clone(), secret: hook.secret.clone(), ..Webhook::default() };
    assert_eq!((hook, documented.webhook.len()), (example, 0));
    assert_eq!((documented.route[0].limits.as_str(), documented.source[0].hostname.as_str()), ("", ""));
    assert_eq!(documented.tls_policy.len(), 1);
    (documented.route, documented.source, documented.provider) = (vec![], vec![], vec![]);
    documented.tls_policy.clear();
    assert_eq!(documented, Config::default());
}

#[test]
fn every_key_of_the_options_is_in_the_schema() {
    let table: toml::Table = full().print().parse().unwrap();
    let mut options = BTreeSet::new();
    paths(&table, "", &mut options);
    let known: BTreeSet<String> = schema::keys().iter().map(|key| key.path.to_string()).collect();
    assert_eq!(options, known);
}

#[test]
fn the_words_that_are_offered_are_all_that_are_taken() {
    for key in schema::keys() {
        let Kind::Text(Form { expected, holds }) = &key.kind else { continue };
        let Some(words) = expected.strip_prefix("one of ") else { continue };
        let words: Vec<&str> = words.split(", ").map(|word| word.trim_matches('`')).collect();
        assert!(words.iter().all(|word| holds(word)), "{}", key.path);
        let mut table: toml::Table = Config::default().print().parse().unwrap();
        let nonsense = Value::String("nonsense".to_string());
        match key.path.split_once('.') {
            None => table[key.path] = nonsense,
            Some((_, name)) if name.contains('.') => panic!("{}: a table in a table holds no words yet", key.path),
            Some((section, name)) => match section.strip_suffix("[]") {
                Some(list) => {
                    let none = || Value::Array(vec![Value::Table(toml::Table::new())]);
                    table.entry(list).or_insert_with(none)[0]
                        .as_table_mut()
                        .unwrap()
                        .insert(name.to_string(), nonsense);
                }
                None => table[section][name] = nonsense,
            },
        }
        let error = Value::Table(table).try_into::<Config>().unwrap_err().to_string();
        let offered =
            error.split('`').skip(3).step_by(2).filter(|word| !word.contains(' ') && words.contains(word)).count();
        assert_eq!(offered, words.len(), "{}: {error}", key.path);
        assert_eq!(error.lines().next().unwrap().matches('`').count(), 2 * words.len() + 2, "{}: {error}", key.path);
    }
}

const RULE: &str = "name = 'busy-here'\nmatch = [{ code = ['4xx'], any = ['come back later'] }]\nclass = 'rate-limit'\n\
                    scope = 'source'\nwait = 1.5\ncause = 'Too much at once.'";

#[test]
fn rules_are_taken_and_their_faults_have_places() {
    let provider = "[[provider]]\nname = 'outlook'\n[[provider.rule]]\n";
    let rules = config(&format!("{provider}{RULE}\n"), &[]).provider[0].rule.clone();
    assert_eq!(rules, [RULE.parse::<toml::Table>().unwrap()]);
    for (text, expected) in [
        (RULE.replace("'4xx'", "'9xx'"), "weir.toml:3:1: rule \"busy-here\": `9xx` in `code` cannot be read"),
        (RULE.replace("wait = 1.5", "wait = 0"), "weir.toml:3:1: rule \"busy-here\": `wait` is 0"),
        (RULE.replace("'rate-limit'", "'fast'"), "weir.toml:6:9: rule \"busy-here\": `fast` is none of"),
        (RULE.replace("cause", "because"), "weir.toml:9:1: rule \"busy-here\": unknown field `because`"),
        (RULE.replace("cause = 'Too much at once.'", ""), "weir.toml:3:1: rule \"busy-here\": missing field `cause`"),
        (RULE.replace("wait = 1.5", "suppress = true"), "`suppress` goes with scope `recipient`"),
        (
            RULE.replace("'source'", "'connection'"),
            "weir.toml:3:1: rule \"busy-here\": class `rate-limit` does not go with scope `connection`",
        ),
        (RULE.replace("name = 'busy-here'", ""), "weir.toml:3:1: a rule: missing field `name`"),
        (format!("{RULE}\n[[provider.rule]]\n{RULE}"), "another rule of this name"),
    ] {
        one_fault(&format!("{provider}{text}\n"), expected);
    }
    one_fault("[[provider]]\nname = 'outlook'\nrule = 5", "write rules, each below a line `[[provider.rule]]`");
}

#[test]
fn a_variable_can_hold_no_rule_and_says_so() {
    for variable in ["WEIR_PROVIDER__OUTLOOK__RULE", "WEIR_PROVIDER__OUTLOOK__RULE__0__NAME"] {
        let faults = faults("", &[(variable, "x")]);
        assert!(faults[0].contains("no variable can hold one: write it into the configuration file"), "{faults:?}");
    }
}

/// A configuration with something in every key.
fn full() -> Config {
    Config {
        relay: Relay {
            user: vec![User {
                name: "app".into(),
                password_hash: Secret::new(HASH),
                password_file: "/run/secrets/app".into(),
                password: Secret::new("s3cret"),
                token: Secret::new("t0ken-t0ken-t0ken"),
                token_file: "/run/secrets/app-tokens".into(),
                class: Priority::Normal,
                class_max: Some(Priority::High),
                sender_domains: vec![Domain::parse("example.com").unwrap()],
                rate: "60/min".parse().unwrap(),
                daily_recipients: 5000,
                expire: Some("15m".parse().unwrap()),
            }],
            ..Relay::default()
        },
        route: vec![RouteEntry {
            domain: "*".into(),
            to: "127.0.0.1:2600".into(),
            limits: "outlook".into(),
            username: "app".into(),
            password: Secret::new("s3cret"),
            password_file: "/run/secrets/hop".into(),
            tls: Some(crate::outbound::options::HopTls::Implicit),
            ..RouteEntry::default()
        }],
        tls_policy: vec![crate::outbound::options::TlsPolicy {
            domain: ".bank.example".into(),
            tls: crate::types::TlsMode::Verify,
        }],
        source: vec![Source {
            name: "a".into(),
            address: "192.0.2.1".parse().unwrap(),
            hostname: "a.example".into(),
            public: "203.0.113.7".into(),
            warm_up: vec!["outlook".into()],
        }],
        provider: vec![ProviderOptions {
            name: "outlook".into(),
            mx: Some(vec!["*.mx.example".into()]),
            domains: Some(vec!["example.com".into()]),
            max_connections: Some(10),
            initial_connections: Some(5),
            messages_per_connection: Some(50),
            recipients_per_message: Some(100),
            max_rate: Some("600/min".parse().unwrap()),
            growth: Some(1.5),
            growth_floor: Some("500/h".parse().unwrap()),
            chunking: Some(false),
            tls: Some(crate::types::TlsMode::Verify),
            pause: Some("5m".parse().unwrap()),
            pause_max: Some("1h".parse().unwrap()),
            probe_block: Some("30m".parse().unwrap()),
            canary: Some("probe@outlook.com".into()),
            preflight: Some(crate::types::Preflight::Hold),
            preflight_from: Some(2000),
            warm_up: Some(vec![50, 100]),
            rule: vec![RULE.parse().unwrap()],
        }],
        dkim: vec![Dkim {
            domain: "example.com".into(),
            selector: "weir1".into(),
            key_file: "/run/secrets/dkim".into(),
            key: Secret::new("s3cret"),
            skip_signed: true,
            ..Dkim::default()
        }],
        webhook: vec![Webhook {
            name: "app".into(),
            url: "https://u:p@app.example/T0KEN?x=y".into(),
            url_file: "/run/secrets/url".into(),
            events: vec!["delivered".into()],
            format: Format::Postmark,
            secret: Secret::new("s3cret of thirty-two characters!".replace(' ', "-")),
            secret_file: "/run/secrets/secret".into(),
            networks: vec!["10.0.0.0/8".parse().unwrap()],
        }],
        ..Config::default()
    }
}

prop_compose! {
    fn any_config()(
        hostname in prop::sample::select(vec!["", "relay.example.com", "xn--mnchen-3ya.example"]),
        data_dir in "[ -~]{1,20}",
        grace in 0u64..10_000_000,
        networks in prop::collection::vec(any::<(u32, u8)>(), 0..4),
        retry in prop::collection::vec(1u64..1_000_000_000, 1..5),
        size in 1u64..1 << 40,
        recipients in 1usize..100_000,
        providers in 0usize..3,
        ceiling in prop::option::of(1usize..1000),
        level in prop::sample::select(vec!["off", "info", "warn,weir::spool=trace"]),
        word in 0usize..12,
    ) -> Config {
        let mut config = full();
        // Secrets are hidden where they are printed.
        (config.relay.user[0].password, config.relay.user[0].password_hash) = Default::default();
        config.relay.user[0].token = Secret::default();
        config.route[0].password = Secret::default();
        config.hostname = hostname.into();
        config.data_dir = data_dir.into();
        config.shutdown_grace = Span(Duration::from_millis(grace));
        config.relay.trusted_networks =
            networks.iter().map(|&(ip, prefix)| IpNet::new(Ipv4Addr::from(ip).into(), prefix % 33).unwrap()).collect();
        config.queue.retry = retry.iter().map(|&millis| Span(Duration::from_millis(millis))).collect();
        config.limits.message_size = crate::types::ByteSize(size);
        config.limits.recipients = recipients;
        config.provider.truncate(0);
        for n in 0..providers {
            let name = format!("p{n}");
            config.provider.push(ProviderOptions { name, max_connections: ceiling, ..ProviderOptions::default() });
        }
        config.log.level = level.parse().unwrap();
        config.alerts.command = ["", "page 'the team'"][word % 2].into();
        config.alerts.webhook = ["", "https://hooks.example.com/a?b=c"][word % 2].into();
        config.events.output = [Output::File, Output::Stdout, Output::Both][word % 3];
        (config.webhook[0].url_file, config.webhook[0].secret_file) = Default::default();
        config.webhook[0].secret = Secret::default();
        config.dkim[0].key = Secret::default();
        if word > 5 || config.events.output == Output::Stdout {
            config.webhook = vec![];
        }
        if word > 5 {
            (config.route, config.source) = (vec![], vec![]);
        }
        config
    }
}

proptest! {
    #[test]
    fn what_is_printed_loads_as_the_same(config in any_config()) {
        let (loaded, _) = load(&config.print(), &[]).map_err(|f| TestCaseError::fail(format!("{f:?}")))?;
        prop_assert_eq!(loaded, config);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\PC|\n|=|\\[|\\]|'|\"){0,60}") {
        let _ = load(&text, &[]);
    }

    #[test]
    fn no_variable_makes_the_reader_panic(name in "WEIR_[A-Z0-9_]{0,30}", value in "\\PC{0,20}") {
        let _ = load("", &[(&name, &value)]);
    }
}
