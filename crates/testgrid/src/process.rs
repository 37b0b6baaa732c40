//! Processes by number and time of start, so that a number that was given to another since is never signalled.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// A process of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// In ticks since the machine started, as the kernel tells it.
    pub(crate) started: u64,
}

impl Process {
    /// The process of that number as it runs now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        let (_, started) = stat(pid)?;
        Some(Self { pid, started })
    }

    /// Its state as one letter; none where it is gone, a zombie too.
    pub(crate) fn state(&self) -> Option<char> {
        let (state, started) = stat(self.pid)?;
        (started == self.started && !matches!(state, 'Z' | 'X')).then_some(state)
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.state().is_some()
    }

    /// Signals it if it is still the same.
    pub(crate) fn signal(&self, signal: Signal) {
        if let (true, Some(pid)) = (self.is_alive(), Pid::from_raw(self.pid)) {
            // It may have ended in between: that is what was wanted, or is seen by who waits.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits until its state is as wanted; false after the deadline.
    pub(crate) fn wait(&self, deadline: Duration, wanted: impl Fn(Option<char>) -> bool) -> bool {
        let start = Instant::now();
        while !wanted(self.state()) {
            if start.elapsed() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}

/// State and time of start, from `/proc`. The name of the program stands in parentheses and may have any characters.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = text.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // The time of start is field 22, the state field 3.
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_number_is_another_process() {
        let me = Process::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        let before = Process {
            started: me.started - 1,
            ..me
        };
        assert!(!before.is_alive());
        // would end this test if it were believed
        before.signal(Signal::KILL);
    }

    #[test]
    fn a_child_that_ended_is_gone_before_it_is_waited_for() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        assert!(process.is_alive());
        process.signal(Signal::KILL);
        assert!(process.wait(Duration::from_secs(10), |state| state.is_none()));
        child.wait().unwrap();
    }
}
