//! Answers the programs of the storage element over a Unix socket: one line of JSON each way, many of them at once
//! (`docs/src/formats/recall-line.md`).

use std::sync::Arc;
use std::time::Duration;

use eds::failure::Because;
use hydra_cli::{Code, Failure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::config::PlaceConfig;
use super::{Agent, refused};
use crate::ask::{Answer, Ask, LONGEST_LINE, Refusal};
use crate::line::Reason;
use crate::transport::unix_listener;

/// A program that asks nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(300);
/// For an answer to be taken.
const TAKEN: Duration = Duration::from_secs(30);

pub(super) async fn open(config: &PlaceConfig) -> Result<UnixListener, Failure> {
    let opened = unix_listener(&config.socket, config.mode).await;
    opened.map_err(|error| {
        let text = format!("cannot listen on `{}`", config.socket.display());
        Failure::new(Code::Config, Because::new(text, error))
    })
}

pub(super) async fn serve(agent: Arc<Agent>, listener: UnixListener) {
    let clients = Arc::new(Semaphore::new(agent.config.limits.clients));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // out of file descriptors, as a rule: the next moment may be better
                tracing::warn!(reason = %error, "cannot accept a program");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let permit = Arc::clone(&clients).try_acquire_owned();
        let agent = Arc::clone(&agent);
        tokio::spawn(async move {
            match permit {
                Ok(_permit) => attend(&agent, stream).await,
                Err(_) => {
                    metrics::counter!("recall_programs_refused").increment(1);
                    let text = format!("{} programs ask already", agent.config.limits.clients);
                    let mut stream = stream;
                    let _ = say(&mut stream, &refused(Refusal::TooMuch, &text)).await;
                }
            }
        });
    }
}

async fn attend(agent: &Arc<Agent>, stream: UnixStream) {
    let (from, mut to) = stream.into_split();
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        let read = timeout(IDLE, (&mut from).take(LONGEST_LINE).read_until(b'\n', &mut line)).await;
        if !matches!(read, Ok(Ok(1..))) || line.last() != Some(&b'\n') {
            return;
        }
        let answer = match serde_json::from_slice(&line) {
            Ok(Ask::Stage { name, path, deadline_s }) => {
                let wait = Duration::from_secs(deadline_s.min(agent.config.limits.wait_s));
                match stage(agent, name, path, wait, &mut from).await {
                    Some(answer) => answer,
                    None => return,
                }
            }
            Ok(ask) => answer(agent, ask).await,
            Err(_) => refused(Refusal::Unreadable, "that is no question"),
        };
        drop(line);
        if say(&mut to, &answer).await.is_err() {
            return;
        }
    }
}

/// Questions go to the database and the disk, beside what else goes on.
async fn answer(agent: &Arc<Agent>, ask: Ask) -> Answer {
    let agent = Arc::clone(agent);
    let answered = tokio::task::spawn_blocking(move || agent.answer(ask)).await;
    answered.unwrap_or_else(|_| refused(Refusal::Unreadable, "it cannot be answered"))
}

/// Waits for a file; none where whoever asked is gone.
async fn stage(
    agent: &Arc<Agent>,
    name: String,
    path: Option<std::path::PathBuf>,
    wait: Duration,
    from: &mut BufReader<OwnedReadHalf>,
) -> Option<Answer> {
    let deadline = Instant::now() + wait;
    let (asked, called) = (Arc::clone(agent), name.clone());
    let staged = tokio::task::spawn_blocking(move || asked.stage(&called, path.as_deref())).await;
    let mut receiver = match staged.ok()? {
        Ok(receiver) => receiver,
        Err(answer) => return Some(answer),
    };
    let waited = tokio::select! {
        outcome = receiver.wait_for(Option::is_some) => Waited::Came(outcome.ok().and_then(|outcome| *outcome)),
        () = tokio::time::sleep_until(deadline) => Waited::Late,
        () = hung_up(from) => Waited::Gone,
    };
    agent.leave(&name, receiver);
    match waited {
        Waited::Came(Some(Ok(()))) => Some(Answer::Done),
        Waited::Came(Some(Err(reason))) => Some(Answer::Failed { reason }),
        Waited::Gone => None,
        Waited::Came(None) | Waited::Late => {
            let agent = Arc::clone(agent);
            let late = tokio::task::spawn_blocking(move || agent.late(&name)).await;
            Some(Answer::Failed { reason: late.ok()? })
        }
    }
}

/// How waiting ended.
enum Waited {
    Came(Option<Result<(), Reason>>),
    Late,
    Gone,
}

/// Ends when whoever asked hangs up; what they say meanwhile waits its turn.
async fn hung_up(from: &mut BufReader<OwnedReadHalf>) {
    match from.fill_buf().await {
        Ok([]) | Err(_) => {}
        Ok(_) => std::future::pending().await,
    }
}

async fn say(to: &mut (impl AsyncWriteExt + Unpin), answer: &Answer) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let taken = timeout(TAKEN, to.write_all(&line)).await;
    taken.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
}
