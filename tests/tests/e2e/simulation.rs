//! Seeds of the deterministic simulation (`causeway_tests::sim`), in slices so that they share the processors. Thousands
//! more: `cargo xtask sim`.

use causeway_tests::sim::regressions::REGRESSIONS;
use causeway_tests::sim::run;

/// Plays a slice of seeds.
fn clean(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let outcome = run(seed, false);
        assert!(
            outcome.violations.is_empty(),
            "seed {seed}: {:#?}\nsee what happened: cargo xtask sim --seed {seed}",
            outcome.violations
        );
    }
}

#[test]
fn seeds_0_to_24_are_clean() {
    clean(0..25);
}

#[test]
fn seeds_25_to_49_are_clean() {
    clean(25..50);
}

#[test]
fn seeds_50_to_74_are_clean() {
    clean(50..75);
}

#[test]
fn seeds_75_to_99_are_clean() {
    clean(75..100);
}

#[test]
fn seeds_100_to_124_are_clean() {
    clean(100..125);
}

#[test]
fn seeds_125_to_149_are_clean() {
    clean(125..150);
}

#[test]
fn seeds_150_to_174_are_clean() {
    clean(150..175);
}

#[test]
fn seeds_175_to_199_are_clean() {
    clean(175..200);
}

#[test]
fn a_seed_leaves_the_same_log_every_time() {
    for seed in [1, 7, 42] {
        let (first, second) = (run(seed, true), run(seed, true));
        let differs = first.log.iter().zip(&second.log).find(|(a, b)| a != b);
        assert!(differs.is_none(), "seed {seed} differs: {differs:?}");
        assert_eq!(first.log_hash, second.log_hash, "seed {seed}: one run is longer");
        assert!(first.stats.events > 50, "seed {seed} did nothing: {:?}", first.stats);
    }
}

#[test]
fn what_once_went_wrong_stays_right() {
    for (name, seed) in REGRESSIONS {
        let outcome = run(*seed, false);
        assert!(outcome.violations.is_empty(), "{name}, seed {seed}: {:#?}", outcome.violations);
    }
}
