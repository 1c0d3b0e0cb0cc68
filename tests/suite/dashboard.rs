//! The page in a real browser: it tells how the relay stands, each button acts, the keyboard suffices, all controls have names, nobody
//! else is asked for anything, and nothing from outside becomes markup.

use std::net::{Ipv4Addr, TcpListener};

use serde_json::json;

use crate::kit::browser::{END, ENTER, ESCAPE, LEFT, TAB};
use crate::kit::{At, Browser, Config, Relay, World, mail, say, until};
use crate::refusals::{lane, outlook, provider};
use crate::suppression::with_waves;
use crate::trials::Trial;

/// Every place of the page.
const VIEWS: [(&str, &str); 4] = [
    ("#/", "Is my mail going out?"),
    ("#/queue", "Queue"),
    ("#/suppression", "Suppression list"),
    ("#/events", "Events"),
];

/// Markup that would tell of itself if it were ever taken for that.
const MARKUP: &str = "<img src=x onerror=window.taken=1>";

/// With the page on, at a port that stays the same over restarts.
pub fn with_page(config: Config) -> Config {
    let free = TcpListener::bind((Ipv4Addr::new(127, 0, 3, 3), 0)).and_then(|l| l.local_addr()).expect("a free port");
    config.set("http", "address", &format!("\"{free}\""))
}

/// Where the page is, as the relay says it at its start.
fn origin(relay: &Relay) -> String {
    until("the relay to say where its page is", || {
        let log = relay.log();
        let (_, rest) = log.split_once("page, API and metrics on ")?;
        Some(rest.split_whitespace().next()?.trim_end_matches('/').to_string())
    })
}

fn token(relay: &Relay) -> String {
    let file = relay.data_dir().join("http-token");
    std::fs::read_to_string(file).expect("the token of the page").trim().to_string()
}

/// A browser that is logged in and shows the first page.
pub fn logged_in(relay: &Relay) -> Option<Browser> {
    let browser = Browser::start()?;
    browser.open(&origin(relay));
    browser.until_shown("Token");
    browser.fill("Token", &token(relay));
    browser.click("Log in");
    browser.until_shown("Live");
    Some(browser)
}

/// Another view, by its address.
fn go(browser: &Browser, view: &str) {
    browser.script(&format!("location.hash = {}", json!(view)));
}

/// Opens a dialog by its button, and does what it asks for. Where the page moved under the pointer, the wrong dialog is left again.
fn order(browser: &Browser, open: &str, done: &str) {
    let has_done = format!(
        "return [...document.querySelectorAll('dialog[open] button')].some((b) => b.textContent === {})",
        json!(done)
    );
    for _ in 0..3 {
        browser.click(open);
        browser.until(
            "[...document.querySelectorAll('dialog[open] button')].some((b) => b.type === 'submit' && !b.disabled)",
        );
        if browser.script(&has_done) == true {
            browser.click(done);
            browser.until("!document.querySelector('dialog')");
            return;
        }
        browser.press(&[ESCAPE]);
        browser.until("!document.querySelector('dialog')");
    }
    panic!("{open:?} opens no dialog with {done:?}; shown is:\n{}", browser.shown());
}

#[test]
fn the_page_shows_live_numbers_and_asks_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new();
    let arguments = ["simulate", "--profile", "gentle", "--listen", "127.0.0.1:0", "--noise", "0", "--json"];
    let (_simulated, mut records) = Trial::start(folder.path(), &arguments);
    let to = records.next().unwrap()["hosts"][0]["address"].as_str().unwrap().to_string();
    let route = format!("[[route]]\ndomain = \"x.test\"\nto = \"{to}\"");
    let relay = with_page(world.config().table(&route)).start();
    let Some(browser) = Browser::start() else { return };

    browser.open(&origin(&relay));
    browser.until_shown("Token");
    assert_eq!(browser.complaints(), Vec::<String>::new(), "before somebody logs in nothing is asked for");
    browser.fill("Token", "wrong");
    browser.click("Log in");
    browser.until_shown("this token is wrong");
    browser.complaints();
    browser.fill("Token", &token(&relay));
    browser.click("Log in");
    browser.until_shown("Yes. Nothing waits");

    relay.ok(&["pause", "--all"]);
    browser.until_shown("All mail is paused by hand");
    for n in 0..3 {
        relay.submit("app@sender.test", &[&format!("u{n}@x.test")], &mail(&format!("m{n}"), "x"));
    }
    browser.until_shown("3 deliveries wait");
    order(&browser, "Resume all mail …", "Resume all mail");
    for n in 0..3 {
        relay.wait_event("delivered", &format!("u{n}@x.test"));
    }
    browser.until_shown("Yes. Nothing waits");
    browser.until_shown("app@sender.test → u2@x.test");

    // Whoever does not look is told nothing, and of everything when looking again.
    browser.script(
        "window.told = []; new MutationObserver(() => window.told.push(document.getElementById('live').textContent))\
         .observe(document.getElementById('live'), { childList: true, characterData: true, subtree: true })",
    );
    browser.while_hidden(|| {
        relay.submit("app@sender.test", &["unseen@x.test"], &mail("unseen", "x"));
        relay.wait_event("delivered", "unseen@x.test");
    });
    browser.until_shown("app@sender.test → unseen@x.test");
    assert!(browser.text("window.told.join()").contains("Resting"), "{}", browser.text("window.told.join()"));

    browser.click("Send a test message …");
    browser.fill("From", "app@sender.test");
    browser.fill("To", "me@x.test");
    browser.click("Send");
    relay.wait_event("delivered", "me@x.test");
    browser.until_shown("It is not in the queue any more");
    browser.until_shown("delivered");

    for (view, words) in VIEWS {
        go(&browser, view);
        browser.until_shown(words);
    }
    browser.reload();
    browser.until_shown("Live");
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let strangers: Vec<String> = browser
        .requests()
        .into_iter()
        .filter(|address| !address.starts_with(&origin(&relay)) && !address.starts_with("data:"))
        .collect();
    assert_eq!(strangers, Vec::<String>::new());

    browser.click("Log out");
    browser.until_shown("Token");
    browser.reload();
    browser.until_shown("Token");
    let status = browser.script("return fetch('/api/v1/status').then((answer) => answer.status)");
    assert_eq!(status, 401, "whoever logs out is out");
}

#[test]
fn buttons_for_providers_and_domains_act() {
    let (world, _mx) = outlook();
    let relay = with_page(world.config().table(&provider("pause = \"1s\""))).start();
    relay.submit("app@sender.test", &["first@mail.test"], &mail("first", "x"));
    relay.wait_event("delivered", "first@mail.test");
    let Some(browser) = logged_in(&relay) else { return };

    let is_paused = || until("the pause", || (lane(&relay)["state"] == "paused").then_some(()));
    let goes_on = || until("the end of the pause", || (lane(&relay)["state"] != "paused").then_some(()));
    order(&browser, "Pause outlook", "Pause outlook");
    is_paused();
    browser.until_shown("paused by hand");
    order(&browser, "Resume outlook", "Resume outlook");
    goes_on();

    browser.click("Timeline and limits of outlook");
    browser.until_shown("Provider outlook");
    browser.until_shown("Ceiling of connections");
    order(&browser, "Pause outlook", "Pause outlook");
    is_paused();
    browser.click("Resume outlook");
    browser.click("Open at once, without asking with one message first");
    browser.click("Resume outlook");
    browser.until("!document.querySelector('dialog')");
    goes_on();
    order(&browser, "Forget learned limits …", "Forget the limits");
    browser.until_shown("nothing was learned of its limits");

    browser.click("Pause one domain …");
    browser.fill("Domain", "mail.test");
    browser.click("Pause the domain");
    browser.until_shown("mail.test");
    relay.submit("app@sender.test", &["second@mail.test"], &mail("second", "x"));
    go(&browser, "#/");
    browser.until_shown("Mail to mail.test is paused by hand");
    order(&browser, "Resume mail.test", "Resume mail.test");
    relay.wait_event("delivered", "second@mail.test");
    order(&browser, "Pause all mail …", "Pause all mail");
    relay.submit("app@sender.test", &["third@mail.test"], &mail("third", "x"));
    browser.until_shown("All mail is paused by hand");
    order(&browser, "Resume all mail …", "Resume all mail");
    relay.wait_event("delivered", "third@mail.test");

    browser.click("Report for outlook");
    browser.until("document.getElementById('report').value.length > 100");
    browser.click("Copy the text");
    browser.until_shown("Copied.");
    browser.press(&[ESCAPE]);
    browser.until("!document.querySelector('dialog')");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn buttons_for_the_queue_act_after_they_have_said_on_how_many() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Rcpt, say("451 4.3.0 come again"));
    let relay = with_page(world.config().set("queue", "retry", "[\"1h\"]")).start();
    let ids: Vec<String> = (0..6)
        .map(|n| relay.submit("app@sender.test", &[&format!("u{n}@x.test")], &mail(&format!("m{n}"), "x")))
        .collect();
    relay.wait_events(6, "deferred", |_| true);
    let Some(browser) = logged_in(&relay) else { return };
    let state = |id: &str| {
        let found = relay.queue().into_iter().find(|row| row["id"] == id);
        found.map(|row| row["state"].as_str().unwrap_or_default().to_string())
    };

    go(&browser, "#/queue");
    browser.click(&format!("Choose {}", ids[0]));
    browser.click(&format!("Choose {}", ids[1]));
    browser.click("Hold …");
    browser.until_shown("2 messages for 2 recipients");
    assert_eq!(state(&ids[0]).as_deref(), Some("waiting"), "asking how many changes nothing");
    browser.click("Hold 2 messages");
    until("two to be held", || (state(&ids[1]).as_deref() == Some("held")).then_some(()));
    browser.until_shown("2 messages held.");

    // What left meanwhile breaks nothing: of two that are chosen one is there no more.
    browser.click(&format!("Choose {}", ids[0]));
    browser.click(&format!("Choose {}", ids[1]));
    relay.ok(&["queue", "remove", &ids[1]]);
    browser.click("Release …");
    browser.until_shown("1 message for 1 recipient");
    browser.click("Release 1 message");
    until("it to be released", || (state(&ids[0]).as_deref() == Some("waiting")).then_some(()));
    browser.until(&format!("!document.body.innerText.includes({})", json!(ids[1])));

    mx.relent(At::Rcpt);
    browser.fill("Find", "u0@x.test");
    browser.press(&[ENTER]);
    browser.until(&format!(
        "document.querySelectorAll('tbody tr').length === 1 && document.body.innerText.includes({})",
        json!(ids[0])
    ));
    browser.click("All that is found (recipient u0@x.test), also on other pages");
    order(&browser, "Flush …", "Flush 1 message");
    relay.wait_event("delivered", "u0@x.test");

    go(&browser, &format!("#/message/{}", ids[2]));
    browser.until_shown("451 4.3.0 come again");
    browser.click("Show the header");
    browser.until_shown("Subject: m2");
    order(&browser, "Bounce …", "Bounce 1 message");
    relay.wait_event("bounced", "u2@x.test");
    browser.until_shown("It is not in the queue any more");

    // Another way out; what is no host is said where it was asked for.
    let smart = world.host("smart.test");
    go(&browser, &format!("#/message/{}", ids[3]));
    browser.until_shown("451 4.3.0 come again");
    browser.click("Reroute …");
    browser.until_shown("Next hop");
    browser.fill("Next hop", "nowhere");
    browser.click("Reroute 1 message");
    browser.until_shown("to: ");
    browser.fill("Next hop", &smart.address().to_string());
    browser.click("Reroute 1 message");
    relay.wait_event("delivered", "u3@x.test");
    assert_eq!(smart.accepted_count(), 1, "it went where it was sent");
    browser.until_shown("1 message rerouted.");
    browser.complaints();

    go(&browser, "#/queue");
    browser.click("All that is found (the whole queue), also on other pages");
    browser.click("Remove …");
    browser.until_shown("I mean everything that is in the queue");
    browser.click("I mean everything that is in the queue");
    browser.until("[...document.querySelectorAll('dialog button')].some((b) => b.textContent.startsWith('Remove '))");
    browser.script("document.querySelector('dialog button[type=submit]').click()");
    relay.wait_event("removed", "u5@x.test");
    browser.until_shown("The queue is empty.");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn buttons_for_the_suppression_list_act() {
    let world = World::new();
    let relay = with_page(world.config()).start();
    with_waves(&relay);
    let Some(browser) = logged_in(&relay) else { return };
    let entry =
        |address: &str| relay.json(&["suppress", "list"]).into_iter().find(|entry| entry["recipient"] == address);

    go(&browser, "#/suppression");
    browser.until_shown("1,203 entries are on the list.");
    order(&browser, "Confirm wave w1", "Confirm the wave");
    until("the wave to be confirmed", || entry("w1.0@x.test").filter(|entry| entry["source"] == "bounce"));
    order(&browser, "Undo wave w2", "Undo the wave");
    browser.until_shown("3 entries are on the list.");
    browser.until("!document.body.innerText.includes('Waves that wait')");

    browser.click("Add …");
    browser.fill("Address", "gone@y.test");
    browser.fill("Reason", "told by telephone");
    browser.click("Suppress");
    until("the entry", || entry("gone@y.test").filter(|entry| entry["reply"] == "told by telephone"));
    browser.until_shown("4 entries are on the list.");

    browser.click("Import …");
    browser.fill("Or addresses, one a line", "a@z.test\nb@z.test\nnot an address\n");
    browser.click("Import");
    browser.until_shown("line 3 of the import");
    browser.fill("Or addresses, one a line", "a@z.test\nb@z.test\nc@z.test\n");
    browser.script("document.querySelector('dialog button[type=submit]').disabled = false");
    browser.click("Import");
    browser.until_shown("Done: ");
    browser.press(&[ESCAPE]);
    browser.until_shown("7 entries are on the list.");

    browser.fill("Find", "@z.test");
    browser.press(&[ENTER]);
    browser.until("document.querySelectorAll('tbody tr').length === 3");
    browser.click("Choose all entries of this page");
    order(&browser, "Remove 3 chosen …", "Remove 3 addresses");
    until("three to be gone", || entry("a@z.test").is_none().then_some(()));
    let export =
        browser.script("return fetch(document.querySelector('a[download]').href).then((answer) => answer.text())");
    assert!(export.as_str().unwrap_or_default().contains("gone@y.test,"), "{export}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_keyboard_alone_suffices() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Rcpt, say("451 4.3.0 come again"));
    let relay = with_page(world.config().set("queue", "retry", "[\"1h\"]")).start();
    let id = relay.submit("app@sender.test", &["u@x.test"], &mail("m", "x"));
    relay.wait_event("deferred", "u@x.test");
    let Some(browser) = Browser::start() else { return };
    let focus = || browser.text("document.activeElement.textContent.trim()");

    browser.open(&origin(&relay));
    browser.until("document.activeElement.id === 'token'");
    browser.type_word(&token(&relay));
    browser.press(&[ENTER]);
    browser.until_shown("Live");

    // The first stop leads past the head of the page.
    browser.reload();
    browser.until_shown("Live");
    browser.press(&[TAB]);
    assert_eq!(focus(), "Skip to the content");
    assert_ne!(browser.text("getComputedStyle(document.activeElement).outlineStyle"), "none", "the focus is seen");
    browser.press(&[ENTER]);
    assert_eq!(browser.text("document.activeElement.id"), "main");

    // A plot is read moment by moment.
    browser.until("document.querySelector('[role=slider][aria-valuetext]')");
    browser.tab_to("Queue, messages");
    browser.press(&[END, LEFT]);
    let (at, last) =
        (browser.text("document.activeElement.ariaValueNow"), browser.text("document.activeElement.ariaValueMax"));
    assert_eq!(at.parse::<u32>().unwrap() + 1, last.parse::<u32>().unwrap());
    assert!(browser.text("document.activeElement.ariaValueText").contains("in the queue"));

    browser.script("document.activeElement.blur(); document.querySelector('.brand').focus()");
    browser.tab_to("Queue");
    browser.press(&[ENTER]);
    browser.until(&format!("document.body.innerText.includes({})", json!(id)));
    browser.until("document.activeElement.tagName === 'H1'");
    browser.tab_to(&format!("Choose {id}"));
    browser.press(&[" "]);
    browser.until_shown("1 chosen:");
    for _ in 0..40 {
        if focus() == "Hold …" {
            break;
        }
        browser.back_tab();
    }
    browser.press(&[ENTER]);
    browser.until_shown("Hold 1 message?");
    // The focus stays in the dialog, whichever way it goes, and is given back.
    for _ in 0..5 {
        browser.press(&[TAB]);
        assert!(
            browser.script("return document.activeElement.closest('dialog') !== null").as_bool().unwrap(),
            "{}",
            focus()
        );
    }
    browser.back_tab();
    assert!(
        browser.script("return document.activeElement.closest('dialog') !== null").as_bool().unwrap(),
        "{}",
        focus()
    );
    browser.press(&[ESCAPE]);
    browser.until("!document.querySelector('dialog')");
    assert_eq!(focus(), "Hold …");
    browser.press(&[ENTER]);
    browser.until_shown("Hold 1 message?");
    browser.tab_to("Hold 1 message");
    browser.press(&[ENTER]);
    until("it to be held", || relay.queue().into_iter().find(|row| row["state"] == "held"));

    // What cannot be undone is not done by the first Enter.
    browser.tab_to(&format!("Choose {id}"));
    browser.press(&[" "]);
    for _ in 0..40 {
        if focus() == "Remove …" {
            break;
        }
        browser.back_tab();
    }
    browser.press(&[ENTER]);
    browser.until_shown("Remove 1 message?");
    assert_eq!(focus(), "Cancel");
}

/// Ratios of contrast below 4.5 (WCAG 2.2, 1.4.3), with the words concerned. What cannot be pressed is exempt.
const PALE: &str = "
    const channel = (c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
    const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const ground = (e) => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0.99) return c; } return [255, 255, 255]; };
    const found = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walk.nextNode(); node; node = walk.nextNode()) {
      const e = node.parentElement;
      if (!node.data.trim() || !e.checkVisibility() || e.closest(':disabled, svg, noscript, .sr, .skip')) continue;
      const [a, b] = [light(numbers(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${node.data.trim().slice(0, 40)}`);
    }
    return found;";

#[test]
fn all_controls_have_names_and_all_words_can_be_read_in_both_schemes_and_on_a_phone() {
    let (world, mx) = outlook();
    mx.always(At::Mail, say("421 RP-001 Unfortunately, some messages from 127.0.0.1 weren't sent. Please try again."));
    let relay = with_page(world.config().table(&provider("pause = \"10m\""))).start();
    for n in 0..3 {
        relay.submit("app@sender.test", &[&format!("u{n}@mail.test")], &mail(&format!("m{n}"), "x"));
    }
    until("the lane to pause", || (lane(&relay)["state"] == "paused").then_some(()));
    let id = relay.queue()[0]["id"].as_str().unwrap().to_string();
    with_waves(&relay);
    let Some(browser) = logged_in(&relay) else { return };
    browser.until_shown("No. Nothing goes out just now: outlook put us off");
    browser.until_shown("421 RP-001");

    let message = format!("#/message/{id}");
    let views =
        VIEWS.into_iter().chain([("#/provider/outlook", "Ceiling of connections"), (&*message, "Still in the queue")]);
    let mut grounds = Vec::new();
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)] {
        browser.look(scheme, width);
        grounds.push(browser.text("getComputedStyle(document.body).backgroundColor"));
        for (view, words) in views.clone() {
            go(&browser, view);
            browser.until_shown(words);
            let place = format!("{view} in {scheme} at {width}");
            assert_eq!(browser.nameless(), Vec::<String>::new(), "{place}");
            assert_eq!(browser.script(PALE), json!([]), "{place}");
            assert_eq!(
                browser.text("document.documentElement.scrollWidth <= innerWidth"),
                "true",
                "{place} is too wide"
            );
            let marks =
                browser.script("return ['header', 'nav', 'main', 'h1'].every((name) => document.querySelector(name))");
            assert_eq!(marks, true, "{place}");
        }
    }
    assert_ne!(grounds[0], grounds[1], "two schemes");

    browser.look("dark", 1280);
    go(&browser, "#/queue");
    browser.click(&format!("Choose {id}"));
    browser.click("Bounce …");
    browser.until_shown("Bounce 1 message?");
    assert_eq!((browser.nameless(), browser.script(PALE)), (Vec::new(), json!([])));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn nothing_from_outside_becomes_markup() {
    let (world, mx) = outlook();
    let blocked = format!("550 5.7.1 Unfortunately, messages from [127.0.0.1] weren't sent. {MARKUP} (S3140)");
    let config = world.config().set("queue", "retry", "[\"1h\"]").table(&provider("pause = \"10m\""));
    let relay = with_page(config).start();
    let Some(browser) = logged_in(&relay) else { return };
    mx.always(At::to("soft@mail.test"), say(&format!("451 4.3.0 {MARKUP}")));
    mx.always(At::to("hard@mail.test"), say(&format!("550 5.1.1 no such user {MARKUP}")));
    let sender = "\"<img/src=x/onerror=window.taken=1>\"@sender.test";
    let content = String::from_utf8(mail(MARKUP, "x")).unwrap();
    let content = content.replace(
        &format!("Message-ID: <{MARKUP}@sender.test>"),
        "Message-ID: <<svg/onload=window.taken=1>@sender.test>",
    );
    let id = relay.submit(sender, &["soft@mail.test", "hard@mail.test"], content.as_bytes());
    relay.wait_event("bounced", "hard@mail.test");
    relay.wait_event("deferred", "soft@mail.test");
    mx.always(At::Mail, say(&blocked));
    relay.submit("app@sender.test", &["\"<b>\"@mail.test"], &mail("blocked", "x"));
    until("the block", || (lane(&relay)["state"] == "blocked").then_some(()));
    relay.ok(&["suppress", "add", "\"<i>\"@y.test", "--reason", MARKUP]);

    let is_text = |place: &str| {
        let strange = "return [...document.querySelectorAll('img, iframe, object, embed, b, i, script:not([src=\"/app.js\"])')].length + Number(window.taken || 0)";
        assert_eq!(browser.script(strange), 0, "{place}");
    };
    let seen = |words: &str, place: &str| {
        browser.until_shown(words);
        is_text(place);
    };
    seen(MARKUP, "the first page, live");
    browser.reload();
    seen(MARKUP, "the first page");
    for view in ["#/provider/outlook", "#/events", "#/queue", "#/suppression"] {
        go(&browser, view);
        seen(MARKUP, view);
    }
    go(&browser, "#/suppression");
    seen("\"<i>\"@y.test", "the suppression list");
    go(&browser, "#/queue");
    seen("\"<img/src=x/onerror=window.taken=1>\"@sender.test", "the queue");
    go(&browser, &format!("#/message/{id}"));
    seen("<svg/onload=window.taken=1>", "the Message-ID");
    seen(MARKUP, "the reply");
    browser.click("Show the header");
    seen(&format!("Subject: {MARKUP}"), "the header");
    // The page's own address comes from outside, too: somebody else may have made the link.
    for view in
        ["#/message/", "#/provider/", "#/queue?q=", "#/queue?provider=", "#/events?kind=", "#/suppression?wave=", "#/"]
    {
        go(&browser, &format!("{view}%3Cimg%20src%3Dx%20onerror%3Dwindow.taken%3D1%3E"));
        browser.until("document.querySelector('main h1')");
        is_text(view);
        go(&browser, &format!("{view}{MARKUP}"));
        browser.until("document.querySelector('main h1')");
        is_text(view);
    }
}

#[test]
fn a_relay_that_is_gone_is_said_and_found_again() {
    let (world, _mx) = World::with_domain("x.test");
    let mut relay = with_page(world.config()).start();
    let Some(browser) = logged_in(&relay) else { return };
    browser.until_shown("Yes. Nothing waits");
    // By chance it is asked again after half an hour only, so that nothing but the button brings it back.
    browser.script("window.chance = Math.random; Math.random = () => 10_000");
    relay.kill();
    browser.until_shown("The relay does not answer.");
    browser.until_shown("What you see is of");
    browser.until_shown("Not known.");
    relay.run();
    browser.click("Try now");
    browser.until_shown("Yes. Nothing waits");
    browser.until("document.getElementById('gone').hidden");
    // Left alone, it finds the relay by itself.
    browser.script("Math.random = window.chance");
    relay.kill();
    browser.until_shown("The relay does not answer.");
    relay.run();
    browser.until("document.getElementById('gone').hidden");
    browser.until_shown("Live");
    // The log-in holds over the restart, and so does the stream of events.
    relay.submit("app@sender.test", &["u@x.test"], &mail("m", "x"));
    browser.until_shown("app@sender.test → u@x.test");
}

#[test]
fn thirty_days_that_were_written_down_are_drawn() {
    let (world, _mx) = World::with_domain("x.test");
    let mut relay = with_page(world.config()).start();
    assert!(relay.stop().success());
    // A step of two hours each, as docs/dashboard.md says, with nights, a bad week and two days when nothing ran.
    let file = rusqlite::Connection::open(relay.data_dir().join("history.sqlite")).expect("the file of the plots");
    let last = time::OffsetDateTime::now_utc().unix_timestamp().div_euclid(7200);
    for n in (0..360).filter(|n| !(100..124).contains(n)) {
        let (day, bad) = (n % 12 < 7, (200..284).contains(&n));
        let (sent, waits) = (if day { 7200 } else { 900 }, if bad { 40_000 + 100 * n } else { 25 });
        let lane = json!({"provider": "outlook", "source": "default", "n": 720, "connections": 720 * 40, "allowed": 720 * 60,
                          "ceiling": 500, "rate": 720.0 * 38.5});
        let point = json!({"n": 720, "accepted": sent, "delivered": sent - 100, "deferred": {"mailbox-full": 20},
                           "throttled": {"rate-limit": if bad { 400 } else { 3 }}, "bounced": {"recipient-unknown": 80},
                           "queue": 720 * waits, "oldest": if bad { 86_400.0 } else { 40.0 }, "lanes": [lane]});
        let row = (2, last - 359 + n, point.to_string());
        file.execute("INSERT OR REPLACE INTO point VALUES (?1, ?2, ?3)", row).expect("a step of the plots");
    }
    drop(file);
    relay.run();
    let Some(browser) = logged_in(&relay) else { return };
    browser.click("30 days");
    // What is drawn is told in words, too: how much in all, and the last value.
    for words in ["Accepted and delivered", "in each 2 h", "Connections, outlook from default", "rate-limit"] {
        browser.until_shown(words);
    }
    let total: i64 = (0..360).filter(|n| !(100..124).contains(n)).map(|n| if n % 12 < 7 { 7200 } else { 900 }).sum();
    let total = format!("{},{:03},{:03}", total / 1_000_000, total / 1000 % 1000, total % 1000);
    browser.until_shown(&total);
    for (scheme, width) in [("light", 1280), ("dark", 400)] {
        browser.look(scheme, width);
        let cut = "[...document.querySelectorAll('.plots svg')].filter((s) => s.getBoundingClientRect().right > innerWidth).length";
        assert_eq!(browser.text(cut), "0", "{scheme}, {width} pixels: a plot is cut off");
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
