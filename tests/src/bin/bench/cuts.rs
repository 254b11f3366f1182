//! Links cut a thousand times while actions run: nothing lost, nothing done twice, and back within a second.

use anyhow::Result;
use causeway_tests::cuts::{self, Plan};
use futures_util::future::BoxFuture;

use crate::Options;
use crate::table::{Table, percentile};

/// Links that are cut side by side, and cuts of each: 1,000 in all.
const LINKS: usize = 8;
const CUTS: usize = 125;
/// Fixes every moment of a cut.
const SEED: u64 = 198;

pub(crate) fn run(options: &Options) -> BoxFuture<'_, Result<Table>> {
    Box::pin(measure(options))
}

async fn measure(options: &Options) -> Result<Table> {
    let plan = Plan {
        links: LINKS,
        cuts: (CUTS / options.shrink).max(2),
        gap_max_ms: 2_500,
        outage_max_ms: 2_000,
        order_every_ms: 50,
        seed: SEED,
    };
    let seen = cuts::run(plan).await?;
    let all: Vec<f64> = [&seen.after_cut_ms[..], &seen.after_outage_ms].concat();
    let mut table = Table::default();
    let what = format!("{} cuts of {LINKS} links: session back, median", all.len());
    table.alone(what, "ms", vec![percentile(&all, 50.0)], "-");
    table.alone("the same, p99", "ms", vec![percentile(&all, 99.0)], "at most 1000");
    table.alone("the same, longest", "ms", vec![percentile(&all, 100.0)], "-");
    table.alone("link cut and there again: p99", "ms", vec![percentile(&seen.after_cut_ms, 99.0)], "-");
    table.alone("no network for up to 2 s: p99", "ms", vec![percentile(&seen.after_outage_ms, 99.0)], "-");
    table.alone("sessions resumed", "", vec![seen.resumed as f64], "-");
    table.alone("sessions begun anew", "", vec![seen.anew as f64], "-");
    table.alone("actions ordered meanwhile", "", vec![seen.ordered as f64], "-");
    table.alone("actions lost", "", vec![seen.lost.len() as f64], "0");
    table.alone("actions done twice", "", vec![seen.twice.len() as f64], "0");
    table.note(
        "time from the network's return to the resumed session, as the cloud sees it; agents with state files and \
         TLS sockets, the network taken away as an operating system does",
    );
    for lost in seen.lost.iter().take(3) {
        table.note(format!("lost: {lost}"));
    }
    Ok(table)
}
