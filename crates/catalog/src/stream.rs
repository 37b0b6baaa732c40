//! A search's answer as it goes over the wire: lines of JSON, or CSV, some files at a time, each time read when the
//! client has taken those before. A client that does not read is let go after a while; nothing is held open for it in
//! the database.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hydra_core::keystore::wire::{Problem, ProblemKind};
use hydra_core::permissions::Caller;
use hydra_service::{Peer, ProblemAnswer};
use tokio::sync::{mpsc, oneshot};

use crate::csv;
use crate::engine::{Chunk, Engine, Progress};
use crate::rest::{Api, parsed, read_body};
use crate::wire::{Line, Search, Value};

/// Bytes that are handed to the connection at once: a slow client is seen to take them.
const PIECE: usize = 64 << 10;

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
    let answer = Answer {
        caller: api.caller(&peer),
        patience: Duration::from_millis(api.limits.header_ms.saturating_mul(2)),
        api,
        peer,
        search,
        form,
    };
    // What is wrong with the search is told as a problem of its own, before there is an answer.
    let first = answer.some(progress).await?;
    let (asks, asked) = mpsc::channel(1);
    tokio::spawn(async move {
        let _permit = permit;
        answer.give(first, asked).await;
    });
    let reader = Reader {
        asks,
        rest: Bytes::new(),
        is_last: false,
    };
    let kind = HeaderValue::from_static(match form {
        Form::Lines => "application/x-ndjson",
        Form::Csv => "text/csv; charset=utf-8",
    });
    let body = Body::from_stream(stream::try_unfold(reader, Reader::piece));
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

fn form(headers: &HeaderMap) -> Form {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    if accept.is_some_and(|kinds| kinds.trim_start().starts_with("text/csv")) {
        Form::Csv
    } else {
        Form::Lines
    }
}

/// Some of an answer's text.
enum Part {
    More(Vec<u8>),
    Last(Vec<u8>),
    /// It broke off, which its form has no words for.
    Cut,
}

/// The end of an answer that the connection takes from.
struct Reader {
    asks: mpsc::Sender<oneshot::Sender<Part>>,
    rest: Bytes,
    is_last: bool,
}

impl Reader {
    /// The next piece. Whoever answers may have given up waiting to be asked: that cuts the answer, and never ends it
    /// as if it were whole.
    async fn piece(mut self) -> std::io::Result<Option<(Bytes, Self)>> {
        while self.rest.is_empty() {
            if self.is_last {
                return Ok(None);
            }
            let (ask, part) = oneshot::channel();
            let _ = self.asks.send(ask).await;
            match part.await {
                Ok(Part::More(text)) => self.rest = text.into(),
                Ok(Part::Last(text)) => (self.rest, self.is_last) = (text.into(), true),
                Ok(Part::Cut) | Err(_) => return Err(std::io::Error::other("the answer broke off")),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        Ok(Some((piece, self)))
    }
}

/// An answer under way.
struct Answer {
    api: Api,
    peer: Arc<Peer>,
    /// As who the search began.
    caller: Caller,
    search: Arc<Search>,
    form: Form,
    /// How long the client may read nothing.
    patience: Duration,
}

impl Answer {
    /// The next files, by what the caller may see now: the credential is checked again too.
    async fn some(&self, progress: Progress) -> Result<Chunk, ProblemAnswer> {
        if self.peer.recheck(SystemTime::now()).is_err() {
            return Err(ProblemAnswer::of(ProblemKind::Credential));
        }
        let now = self.api.caller(&self.peer);
        if self.caller.fqans.iter().any(|fqan| !now.fqans.contains(fqan)) {
            let detail = "groups or roles of yours have ended meanwhile, so that the answer is not whole";
            return Err(Problem::new(ProblemKind::Credential).detail(detail).into());
        }
        let search = Arc::clone(&self.search);
        let find = move |engine: &Engine, caller: &Caller| engine.search(caller, &search, &progress);
        self.api.run(&self.peer, find).await
    }

    /// Gives a part whenever one is asked for, until the last, or until nobody asks.
    async fn give(&self, first: Chunk, mut asked: mpsc::Receiver<oneshot::Sender<Part>>) {
        let mut text = written_columns(self.form, &first, self.search.count);
        let mut next = Next::There(first);
        while let Ok(Some(ask)) = tokio::time::timeout(self.patience, asked.recv()).await {
            let chunk = match next {
                Next::There(chunk) => Ok(chunk),
                Next::After(progress) => self.some(progress).await,
            };
            let part = match chunk {
                Ok(mut chunk) => match self.write(&mut chunk, &mut text) {
                    Some(progress) => {
                        next = Next::After(progress);
                        let _ = ask.send(Part::More(std::mem::take(&mut text)));
                        continue;
                    }
                    None => Part::Last(text),
                },
                Err(ProblemAnswer(problem)) => self.broken_off(problem),
            };
            let _ = ask.send(part);
            return;
        }
    }

    /// Writes the files of a part; answers how it goes on, or writes the end where it does not.
    fn write(&self, chunk: &mut Chunk, text: &mut Vec<u8>) -> Option<Progress> {
        for row in &chunk.rows {
            write_row(self.form, row, text);
        }
        let next = chunk.next.take();
        if next.is_none() && self.form == Form::Lines {
            let end = Line::End {
                cursor: chunk.cursor.take(),
                rows: chunk.counted,
            };
            write_line(&end, text);
        } else if next.is_none() && self.search.count {
            text.extend_from_slice(format!("{}\r\n", chunk.counted).as_bytes());
        }
        next
    }

    /// An answer in CSV that broke off ends without its last chunk, so that no client takes it for whole.
    fn broken_off(&self, problem: Problem) -> Part {
        if self.form == Form::Csv {
            return Part::Cut;
        }
        let mut text = Vec::new();
        write_line(&Line::Problem(problem), &mut text);
        Part::Last(text)
    }
}

/// How an answer goes on.
enum Next {
    There(Chunk),
    After(Progress),
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

fn write_record<'a>(cells: impl Iterator<Item = &'a str>, text: &mut Vec<u8>) {
    text.extend_from_slice(csv::record(cells).as_bytes());
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
