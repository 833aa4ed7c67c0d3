//! How fast a machine is its owner's again: jobs of hostile processes, frozen, killed and seen gone.
//!
//! The suite has a few rounds of each. `UNDERCROFT_REVOKE_ROUNDS=200` makes it that many, and prints how the times are
//! distributed.

use std::{
    env,
    time::{Duration, Instant},
};

use crate::support::Site;

/// Rounds of each number of processes, where nobody asks for more.
const ROUNDS: usize = 3;
/// When every process has to be gone, counted from the freeze on.
const GONE_MAX: Duration = Duration::from_secs(2);
/// Until when a job has to have started its processes, on a machine that does other things.
const UP_MAX: Duration = Duration::from_secs(60);

/// Some durations, in order.
struct Times(Vec<Duration>);

impl Times {
    fn at(&self, percent: usize) -> Duration {
        self.0[(self.0.len() - 1) * percent / 100]
    }

    fn line(&self) -> String {
        let ms = |percent| self.at(percent).as_secs_f64() * 1000.0;
        format!(
            "p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            ms(50),
            ms(90),
            ms(99),
            ms(100)
        )
    }
}

#[tokio::test]
async fn every_hostile_process_is_gone_within_two_seconds() {
    let Some(site) = Site::open().await else {
        return;
    };
    let rounds = env::var("UNDERCROFT_REVOKE_ROUNDS").ok();
    let rounds: usize = rounds.map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    for (count, what) in [(1, "wait"), (100, "wait"), (100, "busy"), (400, "wait")] {
        let (mut frozen, mut gone, mut wiped) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let name = format!("{what}-{count}-{round}");
            let mut spec = site.spec(&name, &["survive", &count.to_string(), what]);
            spec.bounds.pids = 900;
            spec.bounds.memory_mb = 512;
            let running = site.yard.start(spec).await.unwrap();
            let until = Instant::now() + UP_MAX;
            while running.log_tail().is_empty() {
                assert!(
                    Instant::now() < until,
                    "the processes aren't up: {:?}",
                    running.end()
                );
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            // As on its owner's machine: what is to stop comes last there.
            site.yard.come_last(true);
            let start = Instant::now();
            running.freeze().await.unwrap();
            frozen.push(start.elapsed());
            running.kill().await.unwrap();
            gone.push(start.elapsed());
            running.wipe().await.unwrap();
            wiped.push(start.elapsed());
            site.yard.come_last(false);
        }
        for (when, mut times) in [("frozen", frozen), ("gone", gone), ("wiped", wiped)] {
            times.sort();
            let times = Times(times);
            println!(
                "{count:>3} that {what}, {rounds} rounds, {when:<6} {}",
                times.line()
            );
            assert!(
                times.at(100) < GONE_MAX,
                "{count} processes: {}",
                times.line()
            );
        }
    }
}
