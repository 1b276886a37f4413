//! How long requests waited: counts by duration, as a histogram has them.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// From a registry in the same rack to the deadline of a read.
pub const UP_TO_MS: [u64; 15] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 120_000];

/// One more than bounds: what took longer than all.
#[derive(Default)]
pub struct Waits {
    counts: [AtomicU64; UP_TO_MS.len() + 1],
    microseconds: AtomicU64,
}

impl Waits {
    pub fn note(&self, took: Duration) {
        let above = UP_TO_MS.partition_point(|&ms| Duration::from_millis(ms) < took);
        self.counts[above].fetch_add(1, Relaxed);
        self.microseconds.fetch_add(took.as_micros().try_into().unwrap_or(u64::MAX), Relaxed);
    }

    pub fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Relaxed)).collect()
    }

    pub fn seconds(&self) -> f64 {
        Duration::from_micros(self.microseconds.load(Relaxed)).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_counts_up_to_the_first_bound_that_it_does_not_exceed() {
        let waits = Waits::default();
        for ms in [0, 1, 2, 120_000, 120_001] {
            waits.note(Duration::from_millis(ms));
        }
        waits.note(Duration::from_micros(1_001));
        let counts = waits.counts();
        assert_eq!(counts[0], 2, "0 and 1 ms");
        assert_eq!(counts[1], 2, "1.001 and 2 ms");
        assert_eq!(counts[UP_TO_MS.len() - 1..], [1, 1], "up to the last bound, and beyond");
        assert_eq!(counts.iter().sum::<u64>(), 6);
        assert!((waits.seconds() - 240.005).abs() < 0.001);
    }
}
