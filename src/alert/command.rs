//! Tells a program of the operator's: the text on its standard input, the parts of it in its environment.
//!
//! Rules that always hold:
//! - no shell is between: what a receiver said is never read as a command;
//! - the program sees none of the relay's own variables, which may hold secrets;
//! - it is ended, with whatever it started, when its time is over or the relay stops waiting for it.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::notice::{Notice, clean, state};
use crate::types::printable;

/// Programs that tell people are done in moments; one that waits for something must not wait forever.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Of what the program says on its standard error, for the log.
const COMPLAINT_MAX: u64 = 500;
/// Variables handed on: what programs need to find others, files and words.
const HANDED_ON: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "USER"];

#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("cannot be started: {0}")]
    Start(std::io::Error),
    #[error("did not end within {} s and was killed", TIME_LIMIT.as_secs())]
    Late,
    #[error("ended with {status}{complaint}")]
    Failed { status: std::process::ExitStatus, complaint: String },
    #[error("cannot be waited for: {0}")]
    Wait(std::io::Error),
}

/// Runs the program of `words` and waits for its end.
pub(super) async fn run(words: &[String], notice: &Notice) -> Result<(), RunError> {
    let child = start(words, notice).map_err(RunError::Start)?;
    let mut group = Group { leader: child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) };
    let ended = timeout(TIME_LIMIT, converse(child, notice.letter())).await;
    if ended.is_ok() {
        // It has ended and so has everything that held its pipe; the number may belong to another by now.
        group.leader = None;
    }
    ended.map_err(|_| RunError::Late)?
}

fn start(words: &[String], notice: &Notice) -> std::io::Result<Child> {
    let (program, arguments) = words.split_first().ok_or_else(|| std::io::Error::other("no program is named"))?;
    let summary = notice.summary();
    Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(HANDED_ON.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .env("WEIR_ALERT_TIME", notice.time.to_string())
        .env("WEIR_ALERT_KEY", summary.key)
        .env("WEIR_ALERT_STATE", state(summary.is_raised))
        .env("WEIR_ALERT_TEXT", summary.text)
        .env("WEIR_ALERT_REMEDY", summary.remedy)
        .env("WEIR_ALERT_PROVIDER", clean(summary.provider.as_deref().unwrap_or_default()))
        .env("WEIR_ALERT_HOST", clean(&notice.host))
        .env("WEIR_ALERT_COUNT", notice.told.len().to_string())
        .env("WEIR_ALERT_SUBJECT", notice.subject())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

async fn converse(mut child: Child, letter: String) -> Result<(), RunError> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let write = async move {
        if let Some(mut stdin) = stdin {
            // A program that does not want to read has said so by ending or closing.
            let _ = stdin.write_all(letter.as_bytes()).await;
        }
    };
    let read = async move {
        let mut said = Vec::new();
        if let Some(stderr) = stderr {
            let mut stderr = stderr;
            let _ = (&mut stderr).take(COMPLAINT_MAX).read_to_end(&mut said).await;
            // What else it says is read and forgotten, or it would wait for us.
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        }
        said
    };
    let ((), said, status) = tokio::join!(write, read, child.wait());
    let status = status.map_err(RunError::Wait)?;
    if status.success() {
        return Ok(());
    }
    let said: String = printable::blanked(&String::from_utf8_lossy(&said)).into_owned();
    let complaint = if said.trim().is_empty() { String::new() } else { format!(": {}", said.trim()) };
    Err(RunError::Failed { status, complaint })
}

/// The program and all it started: killed together when this goes away before the program has ended.
struct Group {
    leader: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::notice::tests::{notice, told};

    fn script(folder: &std::path::Path, text: &str) -> Vec<String> {
        let file = folder.join("script.sh");
        std::fs::write(&file, text).unwrap();
        vec!["/bin/sh".to_string(), file.display().to_string(), folder.display().to_string()]
    }

    #[tokio::test]
    async fn the_program_gets_text_and_parts_and_no_secret_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let words = script(folder.path(), "env > \"$1/env\"; cat > \"$1/text\"");
        run(&words, &notice(vec![told("blocked outlook default", true, Some("outlook"))])).await.unwrap();
        let environment = std::fs::read_to_string(folder.path().join("env")).unwrap();
        for line in [
            "WEIR_ALERT_KEY=blocked outlook default",
            "WEIR_ALERT_STATE=raised",
            "WEIR_ALERT_PROVIDER=outlook",
            "WEIR_ALERT_HOST=relay.example.com",
            "WEIR_ALERT_COUNT=1",
        ] {
            assert!(environment.lines().any(|have| have == line), "{line} is missing in\n{environment}");
        }
        assert!(!environment.contains("CARGO"), "what is ours stays ours: {environment}");
        let text = std::fs::read_to_string(folder.path().join("text")).unwrap();
        assert!(text.contains("What to do: ask for delisting"), "{text}");
    }

    #[tokio::test]
    async fn what_the_program_complains_of_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let words = script(folder.path(), "echo 'no such pager' >&2; exit 3");
        let error = run(&words, &notice(vec![told("x", true, None)])).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with(": no such pager"), "{error}");
        let missing = run(&["/no/such/program".to_string()], &notice(vec![told("x", true, None)])).await;
        assert!(matches!(missing, Err(RunError::Start(_))), "{missing:?}");
    }

    #[tokio::test]
    async fn a_program_that_does_not_read_or_says_too_much_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let words = script(folder.path(), "exec 0<&-; yes complaint | head -c 300000 >&2; exit 0");
        run(&words, &notice((0..50).map(|n| told(&n.to_string(), true, None)).collect())).await.unwrap();
    }

    #[tokio::test]
    async fn a_program_that_is_not_waited_for_is_killed_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let words = script(folder.path(), "sleep 600 & echo $! > \"$1/child\"; echo $$ > \"$1/self\"; wait");
        let told = notice(vec![told("x", true, None)]);
        let started = async {
            while std::fs::read_to_string(folder.path().join("self")).map_or(true, |text| text.is_empty()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = started => {}
            ended = run(&words, &told) => panic!("it ended by itself: {ended:?}"),
        }
        for name in ["self", "child"] {
            let id = std::fs::read_to_string(folder.path().join(name)).unwrap();
            wait_for_end(id.trim()).await;
        }
    }

    async fn wait_for_end(id: &str) {
        let status = format!("/proc/{id}/stat");
        let is_alive = || {
            let stat = std::fs::read_to_string(&status).unwrap_or_default();
            // The state stands behind the name in brackets; a zombie has ended.
            stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
        };
        let mut left = 2000;
        while is_alive() {
            left -= 1;
            assert!(left > 0, "{id} still runs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
