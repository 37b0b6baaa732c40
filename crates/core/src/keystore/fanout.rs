//! Runs a machine of [`super::quorum`] over the network: sends what it wants sent, tells it what came, wakes it.
//!
//! All requests are futures of the one task that waits for the outcome: when it is there, or when the caller goes away,
//! they end with it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Aborted, abortable};
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::keystore::quorum::{Action, Event, Heard, Machine, Message, Place, Silence};

/// How a machine that names no time is woken.
const IDLE: Duration = Duration::from_secs(1);

/// Where messages go.
pub trait Network {
    /// Sends one message to one store and waits for its answer, or for the reason why there is none.
    fn ask(&self, place: Place, message: Message) -> impl Future<Output = Result<Heard, Silence>>;
}

/// Runs `machine` to its outcome.
pub async fn run<M: Machine>(machine: &mut M, network: &impl Network) -> M::Outcome {
    let began = Instant::now();
    let mut flights = FuturesUnordered::new();
    let mut handles = BTreeMap::new();
    let mut actions = Vec::new();
    if let Some(outcome) = machine.start(&mut actions) {
        return outcome;
    }
    loop {
        for action in actions.drain(..) {
            match action {
                Action::Send(request, place, message) => {
                    let (answer, handle) = abortable(network.ask(place, message));
                    handles.insert(request, handle);
                    flights.push(async move { (request, answer.await) });
                }
                Action::Cancel(request) => {
                    if let Some(handle) = handles.remove(&request) {
                        handle.abort();
                    }
                }
            }
        }
        let wake_at = machine.wake_at().map_or_else(|| Instant::now() + IDLE, |at| began + at);
        let event = tokio::select! {
            Some((request, answer)) = flights.next() => match answer {
                Ok(result) => {
                    handles.remove(&request);
                    Event::Heard(request, result)
                }
                Err(Aborted) => continue,
            },
            () = tokio::time::sleep_until(wake_at) => Event::Woken,
        };
        if let Some(outcome) = machine.handle(began.elapsed(), event, &mut actions) {
            return outcome;
        }
    }
}
