//! The pace a server asks for. Exchange delays cmdlets of an account that uses much and says so in a warning; who goes
//! on until the budget is gone is locked out.

use std::time::Duration;

use super::limits;

/// How a warning of a delay begins.
const MARK: &str = "micro delay applied";

/// What a warning of a delay says (Exchange team blog 2015, "Running PowerShell cmdlets for large numbers of users").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// The delay of this cmdlet.
    pub delay: Option<Duration>,
    /// Milliseconds left, negative in debt.
    pub balance_ms: Option<i64>,
    /// Milliseconds given per hour.
    pub recharge_ms_per_hour: Option<i64>,
    /// Balance at which the account is locked out, negative.
    pub cutoff_ms: Option<i64>,
    /// Cmdlets left in the period.
    pub cmdlets_left: Option<i64>,
    /// The period, in seconds.
    pub period_secs: Option<u64>,
    /// Whether it is locked out.
    pub locked: bool,
}

impl Budget {
    /// Reads a warning; `None` when it is about something else.
    pub fn read(warning: &str) -> Option<Self> {
        let lower = warning.to_ascii_lowercase();
        let at = lower.find(MARK)?;
        let text = &lower[at + MARK.len()..];
        let number = |key: &str| -> Option<i64> {
            let rest = &text[text.find(key)? + key.len()..];
            let rest = rest.trim_start_matches([':', ' ', '=', '\'', '"']);
            let end = rest.char_indices().find(|(n, c)| !(c.is_ascii_digit() || (*n == 0 && *c == '-')));
            rest[..end.map_or(rest.len(), |(n, _)| n)].parse().ok()
        };
        // `Balance: 10/2160000/-3000000`: now, recharge, cutoff.
        let parts: Vec<i64> = text
            .split_once("balance:")
            .map(|(_, rest)| {
                rest.trim_start().split(['/', ' ', ',', ';', '\r', '\n']).map_while(|part| part.parse().ok())
            })
            .map(Iterator::collect)
            .unwrap_or_default();
        let left =
            ["exchangecmdletsleft", "powershellcmdletsleft"].iter().filter_map(|key| number(key)).min();
        Some(Self {
            delay: ["actual delayed", "actual delay", "delay"]
                .iter()
                .find_map(|key| number(key))
                .and_then(|ms| u64::try_from(ms).ok())
                .map(Duration::from_millis),
            balance_ms: parts.first().copied().or_else(|| number("balance")),
            recharge_ms_per_hour: parts.get(1).copied().or_else(|| number("rechargerate")),
            cutoff_ms: parts.get(2).copied().or_else(|| number("cutoffbalance")).or_else(|| number("cutoff")),
            cmdlets_left: left,
            period_secs: number("cmdlettimeperiod").and_then(|secs| u64::try_from(secs).ok()),
            locked: text.contains("locked: true") || text.contains("locked:true"),
        })
    }
}

/// Decides how long to wait before the next cmdlet.
#[derive(Debug, Default)]
pub struct Pace {
    pause: Duration,
}

impl Pace {
    /// Takes the warnings of a finished cmdlet into account.
    pub fn note<'a>(&mut self, warnings: impl IntoIterator<Item = &'a String>) {
        let newest = warnings.into_iter().filter_map(|warning| Budget::read(warning)).last();
        let Some(budget) = newest else {
            // Nobody complains any more: half as slow each time, so that it does not swing.
            self.pause /= 2;
            if self.pause < Duration::from_millis(50) {
                self.pause = Duration::ZERO;
            }
            return;
        };
        tracing::info!(?budget, "Exchange slows this account down");
        let period = Duration::from_secs(budget.period_secs.unwrap_or(5));
        let mut pause = budget.delay.unwrap_or_default().max(self.pause / 2);
        if budget.cmdlets_left.is_some_and(|left| left <= 1) {
            pause = pause.max(period);
        }
        if let (Some(balance), Some(cutoff)) = (budget.balance_ms, budget.cutoff_ms)
            && cutoff < 0
            && balance < 0
        {
            // Longer with every step towards the lock-out, the longest half way: so the balance comes to rest where as much
            // is given as is used, instead of swinging.
            let debt = balance as f64 / cutoff as f64;
            pause = pause.max(limits::PACE_MAX.mul_f64((debt * 2.0).min(1.0)));
        }
        if budget.locked {
            pause = limits::PACE_MAX;
        }
        self.pause = pause.min(limits::PACE_MAX);
    }

    /// How long to wait before the next cmdlet.
    pub fn pause(&self) -> Duration {
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WARNING: &str = "Micro delay applied. Actual delayed: 22000 msecs, Enforced: True, Capped delay: 0 msecs, \
        Required: False, Additional info: .;\nPolicy: DN: CN=Global,BudgetType: PowerShell, ActiveRunspaces: 1/20, \
        Balance: -1700000/2160000/-3000000, PowerShellCmdletsLeft: 390/400, ExchangeCmdletsLeft: 1/200, \
        CmdletTimePeriod: 5, DestructiveCmdletsLeft: 120/120, DestructiveCmdletTimePeriod: 60, QueueDepth: 100, \
        Locked: False, LockRemaining: 00:00:00";

    #[test]
    fn a_micro_delay_is_read() {
        let budget = Budget::read(WARNING).unwrap();
        assert_eq!(budget.delay, Some(Duration::from_millis(22_000)));
        assert_eq!(budget.balance_ms, Some(-1_700_000));
        assert_eq!((budget.recharge_ms_per_hour, budget.cutoff_ms), (Some(2_160_000), Some(-3_000_000)));
        assert_eq!((budget.cmdlets_left, budget.period_secs, budget.locked), (Some(1), Some(5), false));
        assert_eq!(Budget::read("By default, only the first 1000 items are returned."), None);
        assert_eq!(Budget::read("micro delay applied"), Some(Budget::default()));
    }

    #[test]
    fn the_pace_follows_the_budget_and_recovers() {
        let mut pace = Pace::default();
        pace.note(&[WARNING.to_owned()]);
        assert_eq!(pace.pause(), limits::PACE_MAX, "more than half way to the lock-out");
        for _ in 0..20 {
            pace.note(&[]);
        }
        assert_eq!(pace.pause(), Duration::ZERO);
        pace.note(&["Micro delay applied. Delay: 400, ExchangeCmdletsLeft: 100/200".to_owned()]);
        assert_eq!(pace.pause(), Duration::from_millis(400));
        let quarter = WARNING.replace("-1700000", "-750000");
        pace.note(std::slice::from_ref(&quarter));
        assert_eq!(pace.pause(), limits::PACE_MAX / 2, "a quarter of the way");
    }

    #[test]
    fn arbitrary_warnings_never_panic() {
        for end in 0..WARNING.len() {
            Budget::read(&WARNING[..end]);
            Budget::read(&format!("Micro delay applied{}", &WARNING[end..]));
        }
        Budget::read("Micro delay applied balance: \u{130}99999999999999999999999/\u{e9}");
    }
}
