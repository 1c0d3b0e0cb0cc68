//! What stands in the configuration about mail on its way: next hops, TLS, addresses of ours, signatures.

use super::*;

#[test]
fn the_login_of_another_image_is_the_login_of_the_route_for_all() {
    use crate::outbound::options::HopTls;
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("password");
    std::fs::write(&secret, "s3cret\n").unwrap();
    let theirs = |more: &[(&'static str, &'static str)]| {
        let login = [
            ("RELAYHOST", "[smtp.example.net]:587"),
            ("RELAYHOST_USERNAME", "app"),
            ("RELAYHOST_PASSWORD_FILE", secret.to_str().unwrap()),
            ("RELAYHOST_TLS_LEVEL", "may"),
        ];
        let (config, warnings) = load("", &[&login, more].concat()).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        config.route[0].clone()
    };
    let route = theirs(&[]);
    assert_eq!(
        (route.domain.as_str(), route.to.as_str(), route.username.as_str()),
        ("*", "smtp.example.net:587", "app")
    );
    assert_eq!((route.password.expose(), route.tls), (&b"s3cret"[..], None), "a login asks for a verified host");
    assert_eq!(theirs(&[("POSTFIX_smtp_tls_wrappermode", "yes")]).tls, Some(HopTls::Implicit));
    assert_eq!(theirs(&[("POSTFIX_smtp_tls_wrappermode", "no")]).tls, None);
    assert_eq!(theirs(&[("WEIR_ROUTE__0__USERNAME", "ours")]).username, "ours");
    let file = "[[route]]\ndomain = '*'\nto = 'a.example:25'\nusername = 'b'\npassword_file = '/nowhere'";
    let route = config(file, &[("RELAYHOST", "a.example"), ("RELAYHOST_PASSWORD", "new")]).route[0].clone();
    assert_eq!((route.username.as_str(), route.password_file.as_str()), ("b", ""));
}

#[test]
fn a_route_with_a_login_is_held_together() {
    let route = |keys: &str| format!("[[route]]\ndomain = 'a.example'\nto = 'smtp.example.net:587'\n{keys}");
    for (keys, expected) in [
        ("username = 'app'", "weir.toml:4:12: the [[route]] for \"a.example\" has a username and no password: give it"),
        ("password = 'x'", "weir.toml:4:12: the [[route]] for \"a.example\" has a password and no username: give it"),
        (
            "username = 'app'\npassword = 's3cret'\npassword_file = '/x'",
            "weir.toml:6:17: the [[route]] for \"a.example\" has password and password_file: keep one",
        ),
        ("username = 'app'\npassword = '***'", "weir.toml:5:12: `route.password` is something else: write a password"),
        (
            "tls = 'dane'",
            "weir.toml:4:7: `route.tls` is \"dane\", which weir does not know (yet): write one of `off`, `opportunistic`",
        ),
    ] {
        let faults = faults(&route(keys), &[]);
        assert!(faults.len() == 1 && faults[0].starts_with(expected) && !faults[0].contains("s3cret"), "{faults:?}");
    }
    for (tls, who) in
        [("off", "listens on the way"), ("opportunistic", "listens on the way"), ("encrypt", "answers there")]
    {
        let text = route(&format!("username = 'app'\npassword = 's3cret'\ntls = '{tls}'"));
        let said = warnings(&text, &[]);
        assert!(
            said.len() == 1 && said[0].contains("logs in without a verified host") && said[0].contains(who),
            "{said:?}"
        );
    }
    for tls in ["verify", "implicit"] {
        let text = route(&format!("username = 'app'\npassword = 's3cret'\ntls = '{tls}'"));
        assert_eq!(warnings(&text, &[]), [""; 0]);
        let shown = config(&text, &[]).show();
        assert!(shown.contains("password = \"***\"") && !shown.contains("s3cret"), "{shown}");
    }
    let said = warnings(&route("").replace("587", "465"), &[]);
    assert!(said.len() == 1 && said[0].contains("set tls = \"implicit\""), "{said:?}");
    let off = route("enabled = false\nusername = 'app'") + "\n" + &route("");
    assert_eq!(warnings(&off, &[]), [""; 0], "what is not enabled has no faults, and the other is no second one");
}

#[test]
fn the_address_the_world_sees_is_one_of_the_same_family() {
    let source = |public: &str| format!("[[source]]\nname = 'a'\naddress = '10.0.0.5'\npublic = '{public}'");
    assert_eq!(config(&source("203.0.113.7"), &[]).source[0].public_address(), "203.0.113.7".parse().ok());
    assert_eq!(config(&source(""), &[]).source[0].public_address(), None);
    one_fault(&source("2001:db8::7"), "`public` 2001:db8::7 of source \"a\" is of the other family");
    one_fault(&source("gateway.example"), "write a public IP address");
}

#[test]
fn policies_of_tls_are_read_and_what_does_not_exist_yet_is_said_so() {
    let policy = |domain: &str, tls: &str| format!("[[tls_policy]]\ndomain = '{domain}'\ntls = '{tls}'\n");
    let read = config(&(policy("Bank.example", "verify") + &policy(".bank.example", "encrypt")), &[]);
    assert_eq!(read.tls_policy.len(), 2, "one is for the domain alone, the other for those below it");
    one_fault(&(policy("a.example", "verify") + &policy("A.example", "off")), "a second tls_policy with the domain");
    one_fault(&policy("*.example", "verify"), "`tls_policy.domain` is \"*.example\": write a domain");
    one_fault("[[tls_policy]]\ndomain = 'a.example'", "`tls`");
    for text in [
        policy("a.example", "dane"),
        "[delivery]\ntls = 'mta-sts'".into(),
        "[[provider]]\nname = 'outlook'\ntls = 'dane'".into(),
    ] {
        one_fault(&text, ", which weir does not know (yet): write one of `off`, `opportunistic`, `encrypt`, `verify`");
    }
    let faults = faults("", &[("WEIR_DELIVERY__TLS", "dane")]);
    assert!(faults[0].contains("which weir does not know (yet)"), "{faults:?}");
}

#[test]
fn the_keys_of_another_relay_image_sign() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("example.com.private"), "x").unwrap();
    let theirs = [
        ("ALLOWED_SENDER_DOMAINS", "example.com example.org own.example"),
        ("DKIM_SELECTOR", "relay,example.org=other"),
        ("WEIR_DKIM__0__DOMAIN", "own.example"),
        ("WEIR_DKIM__0__SELECTOR", "s"),
        ("WEIR_DKIM__0__KEY_FILE", "/x.pem"),
        ("WEIR_DATA_DIR", "/data"),
    ];
    let read = |more: &[(&str, &str)]| {
        let sources = Sources { foreign_keys: folder.path().into(), ..sources(None, &[&theirs[..], more].concat()) };
        let found = Config::load(&sources).unwrap().0.dkim;
        found.iter().map(|entry| format!("{} {}", entry.name(), entry.key_file)).collect::<Vec<_>>()
    };
    let mounted = format!("relay._domainkey.example.com {}/example.com.private", folder.path().display());
    let own = "s._domainkey.own.example /x.pem".to_string();
    assert_eq!(read(&[]), [own.clone(), mounted.clone()]);
    let made = "other._domainkey.example.org /data/dkim/example.org.private".to_string();
    assert_eq!(read(&[("DKIM_AUTOGENERATE", "1")]), [own, mounted, made]);
    let wrong = [("ALLOWED_SENDER_DOMAINS", "a.example"), ("DKIM_SELECTOR", "a b;c"), ("DKIM_AUTOGENERATE", "1")];
    assert!(faults("", &wrong)[0].starts_with("DKIM_SELECTOR: is \"b;c\", which is no selector"));
}

#[test]
fn keys_that_cannot_sign_are_faults_with_their_place() {
    let entry = |rest: &str| format!("[[dkim]]\ndomain = 'example.com'\nselector = 's'\n{rest}");
    one_fault(&entry(""), "weir.toml:2:10: dkim \"example.com\" has no key");
    one_fault(&entry("key_file = '/x'\nkey = 's3cret'"), "dkim \"example.com\" has `key_file` and `key`");
    one_fault(&entry("key_file = '/x'\nselectors = 'y'"), "the nearest known key is `dkim.selector`");
    one_fault("[[dkim]]\ndomain = 'example.com'\nselector = 'a b'\nkey_file = '/x'", "a selector, as in");
    let twice = format!("{}\n{}", entry("key_file = '/x'"), entry("key_file = '/y'"));
    one_fault(&twice, "a second dkim with the record s._domainkey.example.com");
}
