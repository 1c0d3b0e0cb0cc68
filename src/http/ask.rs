//! Asks the relay what the commands ask it, and gathers the records.

use axum::body::Body;
use axum::http::Response;
use tokio::sync::mpsc;

use super::answer::{Refused, json};
use super::means::Means;
use crate::admin::{Answer, Failed, Input, Request};

/// The records of an answer, at most so many; and whether there were more.
pub(super) async fn records<M: Means>(means: &M, request: Request, max: usize) -> Result<(Vec<String>, bool), Failed> {
    let (feed, input) = Input::channel();
    drop(feed);
    let (answer, mut lines) = Answer::channel();
    let gather = async {
        let mut records = Vec::new();
        while let Some(line) = lines.recv().await {
            if records.len() == max {
                return (records, true);
            }
            records.push(line);
        }
        (records, false)
    };
    let work = means.answer(request, input, answer);
    // The answer ends when its records do; whoever has enough of them stops asking.
    let (mut work, mut gather) = (std::pin::pin!(work), std::pin::pin!(gather));
    tokio::select! {
        biased;
        gathered = &mut gather => Ok(gathered),
        done = &mut work => {
            done?;
            Ok(gather.await)
        }
    }
}

/// The one record of an answer, as JSON.
pub(super) async fn one<M: Means>(means: &M, request: Request) -> Result<Response<Body>, Refused> {
    let (mut records, _) = records(means, request, 1).await?;
    match records.pop() {
        Some(record) => Ok(json(record)),
        None => Err(Refused::not_found("there is nothing of that kind")),
    }
}

/// JSON objects as the items of one.
pub(super) fn items(records: &[String]) -> String {
    format!("{{\"items\":[{}]}}", records.join(","))
}

/// The records of an answer as they come, each a line.
pub(super) async fn stream<M: Means>(
    means: &M,
    request: Request,
    input: Input,
    to: &mpsc::Sender<bytes::Bytes>,
) -> Result<(), Failed> {
    let (answer, mut lines) = Answer::channel();
    let pass_on = async {
        while let Some(mut line) = lines.recv().await {
            line.push('\n');
            if to.send(line.into()).await.is_err() {
                return;
            }
        }
    };
    let (done, ()) = tokio::join!(means.answer(request, input, answer), pass_on);
    done
}
