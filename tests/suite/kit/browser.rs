//! A browser for the tests of the page: headless Chromium, driven by the WebDriver protocol (W3C) in plain HTTP and JSON.
//!
//! - What a person can do is done as a person does it: keys are pressed, buttons are clicked where they stand.
//! - It loads nothing of its own accord: whatever it asks for, the page wanted.
//! - Without Chromium a test says so and passes; with `WEIR_TEST_CHROMIUM=required` it fails.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::relay::program;
use super::{PATIENCE, until};

/// An element's name in the protocol (W3C WebDriver, section 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys that are no letters (W3C WebDriver, section 17.4.2).
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
pub const ESCAPE: &str = "\u{e00c}";
pub const SHIFT: &str = "\u{e008}";
pub const END: &str = "\u{e010}";
pub const LEFT: &str = "\u{e012}";

/// How often a browser is started before a test gives up.
const STARTS: usize = 5;

pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// Starts one; none, with the reason printed, where Chromium is not installed.
    pub fn start() -> Option<Browser> {
        let (Some(driver), Some(chromium)) = (program("chromedriver"), program("chromium")) else {
            let is_required = std::env::var("WEIR_TEST_CHROMIUM").is_ok_and(|v| v == "required");
            assert!(!is_required, "WEIR_TEST_CHROMIUM=required, but chromium and chromium-driver are not installed");
            eprintln!("SKIPPED: chromium and chromium-driver are not installed; .ci/run installs them");
            return None;
        };
        // It takes a port that is free in IPv4 and ends where another has the same in IPv6 by then.
        let started = (0..STARTS).find_map(|_| Browser::start_program(&driver, &chromium));
        Some(started.expect("chromedriver starts, and a browser with it"))
    }

    /// None: it ended before it could be asked anything.
    fn start_program(driver: &Path, chromium: &Path) -> Option<Browser> {
        let profile = tempfile::Builder::new().prefix("weir-browser-").tempdir().expect("a folder for the browser");
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .env("TMPDIR", profile.path())
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("start chromedriver");
        let mut output = BufReader::new(driver.stdout.take().expect("a pipe from chromedriver"));
        let Some(port) = port(&mut output) else {
            let _ = driver.wait();
            return None;
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // It says little, but whoever closes its output ends it.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let mut browser = Browser { driver, address, session: String::new(), _profile: profile };
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--no-proxy-server",
            "--window-size=1280,900",
        ];
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments, "binary": chromium },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let session = browser.ask("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wanted } })).ok()?;
        browser.session = session["sessionId"].as_str()?.to_string();
        Some(browser)
    }

    #[track_caller]
    pub fn open(&self, address: &str) {
        self.act("POST", "/url", &json!({ "url": address }));
    }

    #[track_caller]
    pub fn reload(&self) {
        self.act("POST", "/refresh", &json!({}));
    }

    /// Opens a tab before the page, does something, and comes back to the page.
    #[track_caller]
    pub fn while_hidden(&self, act: impl FnOnce()) {
        let page = self.act("GET", "/window", &Value::Null);
        let tab = self.act("POST", "/window/new", &json!({ "type": "tab" }))["handle"].take();
        self.act("POST", "/window", &json!({ "handle": tab }));
        act();
        self.act("DELETE", "/window", &Value::Null);
        self.act("POST", "/window", &json!({ "handle": page }));
    }

    /// Runs the body of a function in the page; what it returns.
    #[track_caller]
    pub fn script(&self, body: &str) -> Value {
        self.act("POST", "/execute/sync", &json!({ "script": body, "args": [] }))
    }

    /// A value of the page as text.
    #[track_caller]
    pub fn text(&self, expression: &str) -> String {
        self.script(&format!("return String({expression})")).as_str().unwrap_or_default().to_string()
    }

    /// Everything that is shown, as text.
    #[track_caller]
    pub fn shown(&self) -> String {
        self.text("document.body.innerText")
    }

    /// Waits until an expression of the page is true.
    #[track_caller]
    pub fn until(&self, expression: &str) {
        let truth = format!("return Boolean({expression})");
        let is_true = || (self.try_script(&truth) == Some(Value::Bool(true))).then_some(());
        if super::try_until(PATIENCE, is_true).is_none() {
            panic!("waited {PATIENCE:?} in vain for: {expression}; shown is:\n{}", self.shown());
        }
    }

    /// Waits until the page shows these words.
    #[track_caller]
    pub fn until_shown(&self, words: &str) {
        self.until(&format!("document.body.innerText.includes({})", json!(words)));
    }

    /// Clicks the control with this name where it stands, as soon as it can be clicked. The latest one where several have it: what a
    /// dialog shows stands behind the page.
    #[track_caller]
    pub fn click(&self, name: &str) {
        let find = format!(
            "return [...document.querySelectorAll('button, a, summary, input')].filter((e) => e.checkVisibility() && !e.disabled && \
             [e.textContent.trim(), e.getAttribute('aria-label'), e.labels && e.labels[0] && e.labels[0].textContent.trim()]\
             .includes({})).at(-1) || null",
            json!(name)
        );
        let clicked = super::try_until(PATIENCE, || {
            let element = self.try_script(&find)?[ELEMENT].as_str()?.to_string();
            // What a new number pushed aside meanwhile is looked for again.
            self.ask("POST", &self.path(&format!("/element/{element}/click")), &json!({})).ok()
        });
        assert!(clicked.is_some(), "there is no control {name:?} to click; shown is:\n{}", self.shown());
    }

    /// Puts text into the field with this label, in place of what it held.
    #[track_caller]
    pub fn fill(&self, label: &str, text: &str) {
        let find = format!(
            "const found = [...document.querySelectorAll('label')].filter((l) => l.textContent.trim() === {}).at(-1); \
             return found ? document.getElementById(found.htmlFor) : null",
            json!(label)
        );
        let element = until(label, || Some(self.try_script(&find)?[ELEMENT].as_str()?.to_string()));
        self.act("POST", &format!("/element/{element}/clear"), &json!({}));
        self.act("POST", &format!("/element/{element}/value"), &json!({ "text": text }));
    }

    /// Presses keys one after the other, wherever the focus is.
    #[track_caller]
    pub fn press(&self, keys: &[&str]) {
        let press = |key: &&str| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })];
        self.keys(&keys.iter().flat_map(press).collect::<Vec<_>>());
    }

    /// Types a word letter by letter, wherever the focus is.
    #[track_caller]
    pub fn type_word(&self, word: &str) {
        let letters: Vec<String> = word.chars().map(String::from).collect();
        self.press(&letters.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Shift and Tab: one stop back.
    #[track_caller]
    pub fn back_tab(&self) {
        let down = |key: &str| json!({ "type": "keyDown", "value": key });
        let up = |key: &str| json!({ "type": "keyUp", "value": key });
        self.keys(&[down(SHIFT), down(TAB), up(TAB), up(SHIFT)]);
    }

    #[track_caller]
    fn keys(&self, actions: &[Value]) {
        self.act("POST", "/actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] }));
    }

    /// Tabs on until the control with this name has the focus.
    #[track_caller]
    pub fn tab_to(&self, name: &str) {
        let has_focus = format!(
            "return [document.activeElement.textContent.trim(), document.activeElement.getAttribute('aria-label'), \
             document.activeElement.labels && document.activeElement.labels[0] && document.activeElement.labels[0].textContent.trim()]\
             .includes({})",
            json!(name)
        );
        for _ in 0..300 {
            if self.script(&has_focus) == Value::Bool(true) {
                return;
            }
            self.press(&[TAB]);
        }
        panic!("Tab never comes to {name:?}; shown is:\n{}", self.shown());
    }

    /// A command of the DevTools protocol.
    #[track_caller]
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.act("POST", "/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// The page as somebody with this colour scheme and width sees it.
    #[track_caller]
    pub fn look(&self, scheme: &str, width: u32) {
        self.devtools(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        );
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700 });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Errors and warnings in the console since the last look.
    #[track_caller]
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.act("POST", "/se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().cloned().unwrap_or_default();
        let is_complaint = |entry: &&Value| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING"));
        entries.iter().filter(is_complaint).map(|entry| entry["message"].to_string()).collect()
    }

    /// Addresses the browser asked for since the last look, each as it stood in the request.
    #[track_caller]
    pub fn requests(&self) -> Vec<String> {
        let entries = self.act("POST", "/se/log", &json!({ "type": "performance" }));
        let messages = entries.as_array().cloned().unwrap_or_default();
        let messages = messages.iter().filter_map(|entry| serde_json::from_str(entry["message"].as_str()?).ok());
        let sent = messages.filter(|entry: &Value| entry["message"]["method"] == "Network.requestWillBeSent");
        sent.filter_map(|entry| Some(entry["message"]["params"]["request"]["url"].as_str()?.to_string())).collect()
    }

    /// Roles of the controls and landmarks in the accessibility tree that have no name.
    #[track_caller]
    pub fn nameless(&self) -> Vec<String> {
        const NAMED: [&str; 13] = [
            "button",
            "link",
            "textbox",
            "searchbox",
            "combobox",
            "checkbox",
            "slider",
            "dialog",
            "progressbar",
            "table",
            "navigation",
            "region",
            "search",
        ];
        self.devtools("Accessibility.enable", &json!({}));
        let tree = self.devtools("Accessibility.getFullAXTree", &json!({}));
        let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
        assert!(nodes.len() > 20, "the accessibility tree is empty: {tree}");
        let role = |node: &Value| node["role"]["value"].as_str().unwrap_or_default().to_string();
        let has_no_name = |node: &&Value| node["name"]["value"].as_str().unwrap_or_default().trim().is_empty();
        let shown = nodes.iter().filter(|node| node["ignored"] != true && NAMED.contains(&role(node).as_str()));
        shown.filter(has_no_name).map(|node| format!("{} {}", role(node), node["backendDOMNodeId"])).collect()
    }

    fn path(&self, path: &str) -> String {
        format!("/session/{}{path}", self.session)
    }

    #[track_caller]
    fn act(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ask(method, &self.path(path), body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// What a page that is just being loaded anew answers is no answer.
    fn try_script(&self, body: &str) -> Option<Value> {
        self.ask("POST", &self.path("/execute/sync"), &json!({ "script": body, "args": [] })).ok()
    }

    /// One command of the protocol; its value, or what was wrong.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).map_err(|e| format!("connect to chromedriver: {e}"))?;
        stream.set_read_timeout(Some(PATIENCE * 2)).map_err(|e| e.to_string())?;
        stream.write_all(request.as_bytes()).map_err(|e| format!("ask chromedriver: {e}"))?;
        let answer = read_answer(&mut BufReader::new(stream)).map_err(|e| format!("read from chromedriver: {e}"))?;
        let mut answer: Value = serde_json::from_slice(&answer).map_err(|e| format!("no JSON: {e}"))?;
        let value = answer["value"].take();
        match value["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", value["message"].as_str().unwrap_or_default())),
            None => Ok(value),
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium; chromedriver alone would leave it behind. Whatever is still there goes with its group.
        let _ = self.ask("DELETE", &self.path(""), &Value::Null);
        let _ = kill_process_group(Pid::from_child(&self.driver), Signal::KILL);
        let _ = self.driver.wait();
    }
}

/// `ChromeDriver was started successfully on port 40123.`
fn port(output: &mut impl BufRead) -> Option<u16> {
    let mut line = String::new();
    while output.read_line(&mut line).is_ok_and(|read| read > 0) {
        let number = line.rsplit_once("successfully on port ").map(|(_, rest)| rest.trim().trim_end_matches('.'));
        if let Some(port) = number.and_then(|number| number.parse().ok()) {
            return Some(port);
        }
        line.clear();
    }
    None
}

/// The body of an answer, by its length.
fn read_answer(stream: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut length = 0;
    let mut line = String::new();
    while stream.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}
