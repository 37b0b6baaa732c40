//! What a server lets others take: bytes, time, requests in flight, requests of one identity.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// The limits of a server, with safe defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// For the TLS handshake.
    pub handshake_ms: u64,
    /// For the head of a request; a kept connection without one for so long is closed.
    pub header_ms: u64,
    /// For a whole request, from its head to the end of the answer's making.
    pub request_ms: u64,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Open connections.
    pub connections: usize,
    /// Requests being worked on; more are told to come again.
    pub in_flight: usize,
    /// Items of one identity in a second, over time.
    pub items_per_second: u32,
    /// Items of one identity at once.
    pub burst_items: u32,
    /// How long a stopping server waits for what is in flight.
    pub stop_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_ms: 5_000,
            header_ms: 30_000,
            request_ms: 30_000,
            body_bytes: 1 << 20,
            connections: 2_000,
            in_flight: 500,
            items_per_second: 20_000,
            burst_items: 40_000,
            stop_ms: 10_000,
        }
    }
}

impl Limits {
    /// What is wrong with them: a limit of nothing would stop the service.
    pub fn faults(&self) -> Vec<String> {
        let numbers = [
            ("handshake_ms", self.handshake_ms == 0),
            ("header_ms", self.header_ms == 0),
            ("request_ms", self.request_ms == 0),
            ("body_bytes", self.body_bytes < 1024),
            ("connections", self.connections == 0),
            ("in_flight", self.in_flight == 0),
            ("items_per_second", self.items_per_second == 0),
            ("burst_items", self.burst_items < 100),
        ];
        let bad = numbers.into_iter().filter(|(_, bad)| *bad);
        bad.map(|(name, _)| format!("limits.{name} is too small")).collect()
    }
}

/// Counts items by identity: a bucket each, that fills at a rate.
#[derive(Debug)]
pub struct RateLimiter {
    per_second: f64,
    burst: f64,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// Buckets that are full again say nothing: they are thrown away when there are so many.
const SWEEP_OVER: usize = 10_000;

impl RateLimiter {
    /// By these limits.
    pub fn new(limits: &Limits) -> Self {
        Self {
            per_second: limits.items_per_second.into(),
            burst: limits.burst_items.into(),
            buckets: Mutex::default(),
        }
    }

    /// Takes `items` of `identity`'s share.
    ///
    /// # Errors
    /// When there will be enough, if there is not now.
    pub fn take(&self, identity: &str, items: usize, now: Instant) -> Result<(), Duration> {
        let wanted = f64::from(u32::try_from(items).unwrap_or(u32::MAX)).min(self.burst);
        let mut buckets = self.buckets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if buckets.len() > SWEEP_OVER {
            buckets.retain(|_, bucket| self.filled(bucket, now) < self.burst);
        }
        let full = Bucket {
            left: self.burst,
            at: now,
        };
        let bucket = buckets.entry(identity.to_owned()).or_insert(full);
        let left = self.filled(bucket, now);
        *bucket = Bucket { left, at: now };
        if left < wanted {
            return Err(Duration::from_secs_f64((wanted - left) / self.per_second));
        }
        bucket.left -= wanted;
        Ok(())
    }

    fn filled(&self, bucket: &Bucket, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.left + seconds * self.per_second).min(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_gets_its_burst_then_its_rate_and_others_are_not_touched() {
        let limits = Limits {
            items_per_second: 10,
            burst_items: 100,
            ..Limits::default()
        };
        let limiter = RateLimiter::new(&limits);
        let start = Instant::now();
        assert_eq!(limiter.take("alice", 100, start), Ok(()));
        assert_eq!(limiter.take("alice", 5, start), Err(Duration::from_millis(500)));
        assert_eq!(limiter.take("bob", 5, start), Ok(()));
        assert_eq!(limiter.take("alice", 5, start + Duration::from_millis(500)), Ok(()));
        assert!(limiter.take("alice", 1, start + Duration::from_millis(500)).is_err());
        // Longer than the rate can pay is asked for: the whole burst is enough.
        assert_eq!(limiter.take("carol", 100_000, start), Ok(()));
    }

    #[test]
    fn limits_of_nothing_are_faults() {
        assert!(Limits::default().faults().is_empty());
        let none = Limits {
            in_flight: 0,
            body_bytes: 10,
            ..Limits::default()
        };
        assert_eq!(none.faults().len(), 2);
    }
}
