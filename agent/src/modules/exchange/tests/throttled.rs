//! A simulated day against an organisation whose throttling locks out whoever asks too fast.

use super::fake::Budget;
use super::*;

#[tokio::test(start_paused = true)]
async fn a_throttled_day_locks_nobody_out_and_the_estimate_holds() {
    const PHONES: usize = 5_500;
    let fake = Fake::with_phones(PHONES);
    {
        let mut state = fake.state();
        state.delay = Duration::from_millis(20);
        // Twenty seconds a cmdlet in the long run: a day for all of them.
        state.budget = Some(Budget::new(600.0, 1.0, 20.0, -300.0));
    }
    let bench = Bench::new(fake, json!({"delta_every_secs": 86_400}));
    let started = Instant::now();
    let running = tokio::spawn(bench.module.clone().run(bench.cx.clone()));
    let mut said: Vec<(f64, f64)> = Vec::new();
    let mut last = 0;
    while bench.fake.calls("Get-MobileDeviceStatistics") < PHONES * 4 / 5 {
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(started.elapsed() < Duration::from_secs(36 * 3_600), "{}", bench.shown());
        let progress = bench.cloud.progress_seen();
        if let Some(latest) = progress[last..].iter().rev().find(|it| it.phase == "reading statistics") {
            let eta_secs = latest.counts.get("eta_secs").copied().unwrap_or_default();
            said.push((started.elapsed().as_secs_f64(), eta_secs as f64));
        }
        last = progress.len();
    }
    let took = started.elapsed().as_secs_f64();
    assert!(took > 24.0 * 3_600.0, "{took}");
    let budget = bench.fake.state().budget.clone().unwrap();
    assert_eq!((budget.lockouts, budget.refusals), (0, 0));
    // After the first tenth, in which the server was generous, every estimate is within a fifth of the truth.
    for (at, eta) in said.iter().filter(|(at, _)| *at > took * 0.1) {
        assert!((at + eta - took).abs() <= took * 0.2, "at {at:.0} s: {eta:.0} s left of {took:.0} s");
    }
    assert!(said.len() > 50);
    bench.cx.stop.cancel();
    running.await.unwrap().unwrap();
}
