//! A search's answer as it goes over the wire: lines of JSON, or CSV, some files at a time. A client that does not read is
//! let go after a while; nothing is held open for it in the database.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hydra_core::keystore::wire::{Problem, ProblemKind};
use hydra_service::{Peer, ProblemAnswer};
use tokio::sync::mpsc;

use crate::engine::{Chunk, Progress};
use crate::rest::{Api, parsed, read_body};
use crate::wire::{Line, Search, Value};

/// Parts of an answer that wait for the client.
const WAITING: usize = 2;
/// How long a client may read nothing.
const STALL: Duration = Duration::from_secs(60);

/// How the answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines,
    Csv,
}

pub(crate) async fn search(
    State(api): State<Api>,
    Extension(peer): Extension<Arc<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ProblemAnswer> {
    let body = read_body(body, api.limits.body_bytes).await?;
    let search: Search = parsed(&body)?;
    api.guard.count(&peer, 1)?;
    let form = form(&headers);
    // Searches of one answer at a time would let slow clients keep others out: only so many are under way at once.
    let permit = Arc::clone(&api.searches).try_acquire_owned();
    let permit = permit.map_err(|_| Problem::new(ProblemKind::Busy).retry_after(1))?;
    let search = Arc::new(search);
    let begun = Arc::clone(&search);
    let progress = api
        .run(&peer, move |engine, caller| engine.begin_search(caller, &begun))
        .await?;
    // What is wrong with the search is told as a problem of its own, before there is an answer.
    let first = some(&api, &peer, &search, progress).await?;
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let _permit = permit;
        send(&api, &peer, &search, form, first, &sender).await;
    });
    let parts = stream::unfold(receiver, |mut receiver| async move {
        let part: Option<Result<Bytes, std::io::Error>> = receiver.recv().await;
        part.map(|part| (part, receiver))
    });
    let kind = HeaderValue::from_static(match form {
        Form::Lines => "application/x-ndjson",
        Form::Csv => "text/csv; charset=utf-8",
    });
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(parts)).into_response())
}

fn form(headers: &HeaderMap) -> Form {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|kinds| kinds.trim_start().starts_with("text/csv")) {
        Form::Csv
    } else {
        Form::Lines
    }
}

/// The next files, by what the caller may see now: the credential is checked again too.
async fn some(api: &Api, peer: &Peer, search: &Arc<Search>, progress: Progress) -> Result<Chunk, ProblemAnswer> {
    if peer.recheck(SystemTime::now()).is_err() {
        return Err(ProblemAnswer::of(ProblemKind::Credential));
    }
    let search = Arc::clone(search);
    api.run(peer, move |engine, caller| engine.search(caller, &search, &progress))
        .await
}

type Sender = mpsc::Sender<Result<Bytes, std::io::Error>>;

async fn send(api: &Api, peer: &Peer, search: &Arc<Search>, form: Form, first: Chunk, sender: &Sender) {
    let mut text = written_columns(form, &first, search.count);
    let mut chunk = first;
    loop {
        for row in &chunk.rows {
            write_row(form, row, &mut text);
        }
        let Some(next) = chunk.next.take() else { break };
        if !sent(sender, std::mem::take(&mut text)).await {
            return;
        }
        chunk = match some(api, peer, search, next).await {
            Ok(chunk) => chunk,
            Err(ProblemAnswer(problem)) => {
                broken_off(form, problem, sender).await;
                return;
            }
        };
    }
    if form == Form::Lines {
        let end = Line::End {
            cursor: chunk.cursor,
            rows: chunk.counted,
        };
        write_line(&end, &mut text);
    } else if search.count {
        text.extend_from_slice(format!("{}\r\n", chunk.counted).as_bytes());
    }
    sent(sender, text).await;
}

/// An answer in CSV that broke off ends without its last chunk, so that no client takes it for whole.
async fn broken_off(form: Form, problem: Problem, sender: &Sender) {
    if form == Form::Lines {
        let mut text = Vec::new();
        write_line(&Line::Problem(problem), &mut text);
        sent(sender, text).await;
    } else {
        let cut = std::io::Error::other("the search broke off");
        let _ = tokio::time::timeout(STALL, sender.send(Err(cut))).await;
    }
}

/// Whether the client still reads.
async fn sent(sender: &Sender, text: Vec<u8>) -> bool {
    if text.is_empty() {
        return !sender.is_closed();
    }
    let sent = tokio::time::timeout(STALL, sender.send(Ok(text.into()))).await;
    matches!(sent, Ok(Ok(())))
}

fn written_columns(form: Form, chunk: &Chunk, count: bool) -> Vec<u8> {
    let mut text = Vec::new();
    let columns = if count {
        vec!["count".to_owned()]
    } else {
        chunk.columns.clone()
    };
    match form {
        Form::Lines => write_line(&Line::Columns(columns), &mut text),
        Form::Csv => write_record(columns.iter().map(String::as_str), &mut text),
    }
    text
}

fn write_row(form: Form, row: &[Value], text: &mut Vec<u8>) {
    match form {
        Form::Lines => write_line(&Line::Row(row.to_vec()), text),
        Form::Csv => {
            let cells: Vec<String> = row.iter().map(cell).collect();
            write_record(cells.iter().map(String::as_str), text);
        }
    }
}

fn write_line(line: &Line, text: &mut Vec<u8>) {
    // Numbers are finite and keys are texts: this JSON cannot fail.
    if serde_json::to_writer(&mut *text, line).is_ok() {
        text.push(b'\n');
    }
}

/// What of a list stands in one cell is its JSON.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        list @ Value::List(_) => serde_json::to_string(list).unwrap_or_default(),
    }
}

/// RFC 4180: cells with commas, quotes or line ends stand in quotes.
fn write_record<'a>(cells: impl Iterator<Item = &'a str>, text: &mut Vec<u8>) {
    for (place, cell) in cells.enumerate() {
        if place > 0 {
            text.push(b',');
        }
        if cell.contains([',', '"', '\r', '\n']) {
            text.extend_from_slice(format!("\"{}\"", cell.replace('"', "\"\"")).as_bytes());
        } else {
            text.extend_from_slice(cell.as_bytes());
        }
    }
    text.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_quotes_what_would_part_cells() {
        let mut text = Vec::new();
        let row = [
            Value::Text("a,b\"c\"\nd".into()),
            Value::Null,
            Value::Float(0.5),
            Value::List(vec![Value::Text("x".into())]),
        ];
        write_row(Form::Csv, &row, &mut text);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "\"a,b\"\"c\"\"\nd\",,0.5,\"[\"\"x\"\"]\"\r\n"
        );
    }
}
