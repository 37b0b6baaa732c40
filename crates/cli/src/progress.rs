//! Progress on terminals, and nothing at all where standard error is none or the user wants quiet.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Bytes or things done, of a known whole or not. Clears itself when dropped, so that results stand alone.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar, named after what is worked on; `total_bytes` none where the length is not known (a pipe).
    pub fn bytes(name: &str, total_bytes: Option<u64>, quiet: bool) -> Self {
        let target = if quiet {
            ProgressDrawTarget::hidden()
        } else {
            // hidden by indicatif itself where standard error is no terminal
            ProgressDrawTarget::stderr_with_hz(8)
        };
        let bar = ProgressBar::with_draw_target(total_bytes, target);
        let template = if total_bytes.is_some() {
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"
        } else {
            "{msg} {spinner} {bytes} {bytes_per_sec}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(crate::printable(name));
        Self(bar)
    }

    /// A bar of things that are counted, `total` of them.
    pub fn count(name: &str, total: u64, quiet: bool) -> Self {
        let bar = Self::bytes(name, Some(total), quiet);
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}") {
            bar.0.set_style(style);
        }
        bar
    }

    /// Says how many bytes, or things, are done by now; may be called from any thread.
    pub fn set(&self, done_bytes: u64) {
        self.0.set_position(done_bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
