//! Budgets: how much of the servers' time one account may use, and what happens when it uses more.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an account may use. Times are milliseconds of server time. The defaults are those of a warning published by the
/// Exchange team, and of documentation; what a cmdlet costs is the mock's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ThrottlingPolicy {
    /// `PowerShellMaxConcurrency`: sessions at once.
    pub max_concurrency: u32,
    /// `PowerShellMaxRunspaces` in `runspaces_period_secs`; 0 = no limit.
    pub max_runspaces: u32,
    pub runspaces_period_secs: u64,
    /// `PowerShellMaxBurst`: the fullest the bucket gets.
    pub max_burst_ms: i64,
    /// `PowerShellRechargeRate`: what comes back in an hour.
    pub recharge_ms_per_hour: i64,
    /// `PowerShellCutoffBalance`: below this the account is locked until the bucket is back above zero.
    pub cutoff_ms: i64,
    /// `ExchangeMaxCmdlets` in `cmdlets_period_secs`.
    pub max_cmdlets: u32,
    pub cmdlets_period_secs: u64,
    /// `PowerShellMaxDestructiveCmdlets` in `destructive_period_secs`.
    pub max_destructive_cmdlets: u32,
    pub destructive_period_secs: u64,
    /// What one cmdlet costs, and every object it returns (in microseconds).
    pub cmdlet_cost_ms: i64,
    pub object_cost_us: i64,
    /// Longest micro-delay of one cmdlet.
    pub delay_max_ms: u64,
    /// REST requests in a minute, answered 429 beyond; 0 = no limit.
    pub rest_requests_per_minute: u32,
}

impl Default for ThrottlingPolicy {
    fn default() -> Self {
        Self {
            max_concurrency: 18,
            max_runspaces: 0,
            runspaces_period_secs: 3600,
            max_burst_ms: 300_000,
            recharge_ms_per_hour: 2_160_000,
            cutoff_ms: -3_000_000,
            max_cmdlets: 200,
            cmdlets_period_secs: 5,
            max_destructive_cmdlets: 120,
            destructive_period_secs: 60,
            cmdlet_cost_ms: 20,
            object_cost_us: 100,
            delay_max_ms: 22_000,
            rest_requests_per_minute: 0,
        }
    }
}

/// What using the servers costs an account right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charge {
    /// The cmdlet may run after this delay, with this warning.
    Granted { delay: Duration, warning: Option<String> },
    /// The account is locked for so long.
    LockedOut { for_ms: i64 },
}

/// Why a session is not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionRefusal {
    /// `MaxConcurrency`.
    Concurrency { limit: u32 },
    /// `MaxRunspaces`.
    Runspaces { limit: u32, period_secs: u64 },
    /// Locked because the balance fell below the cutoff.
    LockedOut { for_ms: i64 },
}

impl SessionRefusal {
    /// The policy part, as messages name it.
    pub fn part(&self) -> &'static str {
        match self {
            Self::Concurrency { .. } => "MaxConcurrency",
            Self::Runspaces { .. } => "MaxRunspacesTimePeriod",
            Self::LockedOut { .. } => "CutoffBalance",
        }
    }
}

#[derive(Clone, Debug)]
struct Budget {
    balance_ms: i64,
    /// Thousandths of a millisecond not yet added, so that slow recharge does not lose by rounding.
    rest_us: i64,
    at_ms: i64,
    locked: bool,
    cmdlets: VecDeque<i64>,
    destructive: VecDeque<i64>,
    runspaces: VecDeque<i64>,
    requests: VecDeque<i64>,
    sessions: u32,
    lockouts: u32,
}

/// The budgets of all accounts.
#[derive(Clone, Debug, Default)]
pub(super) struct Budgets {
    pub(super) policy: ThrottlingPolicy,
    accounts: HashMap<String, Budget>,
}

/// A budget as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct BudgetView {
    pub account: String,
    pub balance_ms: i64,
    pub locked: bool,
    /// How often it has been locked.
    pub lockouts: u32,
    pub sessions: u32,
}

impl Budgets {
    pub(super) fn new(policy: ThrottlingPolicy) -> Self {
        Self { policy, accounts: HashMap::new() }
    }

    fn budget(&mut self, account: &str, now_ms: i64) -> (&ThrottlingPolicy, &mut Budget) {
        let policy = &self.policy;
        let budget = self.accounts.entry(account.to_owned()).or_insert_with(|| Budget {
            balance_ms: policy.max_burst_ms,
            rest_us: 0,
            at_ms: now_ms,
            locked: false,
            cmdlets: VecDeque::new(),
            destructive: VecDeque::new(),
            runspaces: VecDeque::new(),
            requests: VecDeque::new(),
            sessions: 0,
            lockouts: 0,
        });
        budget.recharge(policy, now_ms);
        (policy, budget)
    }

    /// Charges for starting a cmdlet.
    pub(super) fn start(&mut self, account: &str, destructive: bool, now_ms: i64) -> Charge {
        let (policy, budget) = self.budget(account, now_ms);
        if budget.locked {
            return Charge::LockedOut { for_ms: budget.back_above_zero_ms(policy) };
        }
        budget.spend(policy, policy.cmdlet_cost_ms.saturating_mul(1_000));
        if budget.locked {
            return Charge::LockedOut { for_ms: budget.back_above_zero_ms(policy) };
        }
        let mut delay_ms = if budget.balance_ms < 0 { budget.balance_ms.unsigned_abs() / 10 } else { 0 };
        let (cmdlets, period) = (policy.max_cmdlets, policy.cmdlets_period_secs);
        delay_ms = delay_ms.max(window(&mut budget.cmdlets, cmdlets, period, now_ms));
        if destructive {
            let (most, period) = (policy.max_destructive_cmdlets, policy.destructive_period_secs);
            delay_ms = delay_ms.max(window(&mut budget.destructive, most, period, now_ms));
        }
        let delay_ms = delay_ms.min(policy.delay_max_ms);
        let warning = (delay_ms > 0).then(|| budget.warning(policy, delay_ms));
        Charge::Granted { delay: Duration::from_millis(delay_ms), warning }
    }

    /// Charges for the objects a cmdlet returned.
    pub(super) fn spend_objects(&mut self, account: &str, objects: usize, now_ms: i64) {
        let (policy, budget) = self.budget(account, now_ms);
        let objects = i64::try_from(objects).unwrap_or(i64::MAX);
        budget.spend(policy, policy.object_cost_us.saturating_mul(objects));
    }

    /// Opens a session.
    pub(super) fn open(&mut self, account: &str, now_ms: i64) -> Result<(), SessionRefusal> {
        let (policy, budget) = self.budget(account, now_ms);
        if budget.locked {
            return Err(SessionRefusal::LockedOut { for_ms: budget.back_above_zero_ms(policy) });
        }
        if budget.sessions >= policy.max_concurrency {
            return Err(SessionRefusal::Concurrency { limit: policy.max_concurrency });
        }
        if policy.max_runspaces > 0
            && window(&mut budget.runspaces, policy.max_runspaces, policy.runspaces_period_secs, now_ms) > 0
        {
            return Err(SessionRefusal::Runspaces {
                limit: policy.max_runspaces,
                period_secs: policy.runspaces_period_secs,
            });
        }
        budget.sessions += 1;
        Ok(())
    }

    pub(super) fn close(&mut self, account: &str) {
        if let Some(budget) = self.accounts.get_mut(account) {
            budget.sessions = budget.sessions.saturating_sub(1);
        }
    }

    /// Counts a REST request. Says when to come back when it is one too many.
    pub(super) fn request(&mut self, account: &str, now_ms: i64) -> Result<(), Duration> {
        let (policy, budget) = self.budget(account, now_ms);
        let wait_ms = match policy.rest_requests_per_minute {
            0 => 0,
            most => window(&mut budget.requests, most, 60, now_ms),
        };
        if wait_ms == 0 { Ok(()) } else { Err(Duration::from_millis(wait_ms)) }
    }

    pub(super) fn views(&mut self, now_ms: i64) -> Vec<BudgetView> {
        let policy = self.policy.clone();
        let mut views: Vec<_> = self
            .accounts
            .iter_mut()
            .map(|(account, budget)| {
                budget.recharge(&policy, now_ms);
                BudgetView {
                    account: account.clone(),
                    balance_ms: budget.balance_ms,
                    locked: budget.locked,
                    lockouts: budget.lockouts,
                    sessions: budget.sessions,
                }
            })
            .collect();
        views.sort_by(|a, b| a.account.cmp(&b.account));
        views
    }
}

impl Budget {
    fn recharge(&mut self, policy: &ThrottlingPolicy, now_ms: i64) {
        let elapsed_ms = now_ms.saturating_sub(self.at_ms).max(0);
        self.at_ms = self.at_ms.max(now_ms);
        // ms * (ms per hour) / (3,600,000 ms per hour), in microseconds.
        let gained_us = elapsed_ms.saturating_mul(policy.recharge_ms_per_hour) / 3_600;
        self.add_us(gained_us);
        self.balance_ms = self.balance_ms.min(policy.max_burst_ms);
        if self.locked && self.balance_ms >= 0 {
            self.locked = false;
        }
    }

    fn spend(&mut self, policy: &ThrottlingPolicy, cost_us: i64) {
        self.add_us(-cost_us);
        if self.balance_ms <= policy.cutoff_ms && !self.locked {
            self.locked = true;
            self.lockouts += 1;
        }
    }

    fn add_us(&mut self, us: i64) {
        let total = self.rest_us.saturating_add(us);
        self.balance_ms = self.balance_ms.saturating_add(total.div_euclid(1_000));
        self.rest_us = total.rem_euclid(1_000);
    }

    fn back_above_zero_ms(&self, policy: &ThrottlingPolicy) -> i64 {
        let missing = self.balance_ms.saturating_neg().max(0);
        missing.saturating_mul(3_600_000) / policy.recharge_ms_per_hour.max(1)
    }

    /// The words of the published sample, with this account's figures.
    fn warning(&self, policy: &ThrottlingPolicy, delay_ms: u64) -> String {
        let left = |most: u32, used: usize| i64::from(most) - i64::try_from(used).unwrap_or(i64::MAX);
        format!(
            "Micro delay applied. Actual delayed: {delay_ms} msecs, Enforced: True, Capped delay: {} msecs, Required: False, \
             Additional info: ;\r\nPolicyDN: ; Snapshot: Owner: Sid~CAUSEWAY; BudgetType: PowerShell; \
             ActiveRunspaces: {}/{}; Balance: {}/{}/{}; PowerShellCmdletsLeft: {}/{}; ExchangeCmdletsLeft: {}/{}; \
             CmdletTimePeriod: {}; DestructiveCmdletsLeft: {}/{}; DestructiveCmdletTimePeriod: {}; QueueDepth: 100; \
             MaxRunspacesTimePeriod: {}; RunSpacesRemaining: {}/{}; Locked: {}; LockRemaining: 00:00:00",
            delay_ms,
            self.sessions,
            policy.max_concurrency,
            self.balance_ms,
            policy.recharge_ms_per_hour,
            policy.cutoff_ms,
            left(policy.max_cmdlets, self.cmdlets.len()),
            policy.max_cmdlets,
            left(policy.max_cmdlets, self.cmdlets.len()),
            policy.max_cmdlets,
            policy.cmdlets_period_secs,
            left(policy.max_destructive_cmdlets, self.destructive.len()),
            policy.max_destructive_cmdlets,
            policy.destructive_period_secs,
            policy.runspaces_period_secs,
            left(policy.max_runspaces, self.runspaces.len()),
            policy.max_runspaces,
            if self.locked { "True" } else { "False" },
        )
    }
}

/// Counts one event in a sliding window. Returns how long to wait until there is room, 0 when it was counted.
fn window(events: &mut VecDeque<i64>, most: u32, period_secs: u64, now_ms: i64) -> u64 {
    let period_ms = i64::try_from(period_secs.saturating_mul(1_000)).unwrap_or(i64::MAX);
    while events.front().is_some_and(|at| now_ms.saturating_sub(*at) >= period_ms) {
        events.pop_front();
    }
    let full = events.len() >= usize::try_from(most).unwrap_or(usize::MAX);
    if full && let Some(oldest) = events.front() {
        return u64::try_from(period_ms - now_ms.saturating_sub(*oldest)).unwrap_or(0).max(1);
    }
    events.push_back(now_ms);
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tight() -> Budgets {
        Budgets::new(ThrottlingPolicy {
            max_burst_ms: 1_000,
            recharge_ms_per_hour: 360_000,
            cutoff_ms: -2_000,
            cmdlet_cost_ms: 500,
            ..ThrottlingPolicy::default()
        })
    }

    fn delay(charge: &Charge) -> u64 {
        match charge {
            Charge::Granted { delay, .. } => u64::try_from(delay.as_millis()).unwrap(),
            Charge::LockedOut { .. } => panic!("{charge:?}"),
        }
    }

    #[test]
    fn an_account_that_does_not_wait_is_slowed_then_locked_then_free_again() {
        let mut budgets = tight();
        let charges: Vec<_> = (0..6).map(|_| budgets.start("svc", false, 0)).collect();
        assert_eq!(charges[..4].iter().map(delay).collect::<Vec<_>>(), [0, 0, 50, 100]);
        let Charge::Granted { warning: Some(warning), .. } = &charges[3] else { panic!("{charges:?}") };
        assert!(
            warning.starts_with("Micro delay applied") && warning.contains("Balance: -1000/360000/-2000"),
            "{warning}"
        );
        assert!(matches!(charges[5], Charge::LockedOut { for_ms: 20_000 }), "{:?}", charges[5]);
        assert!(matches!(budgets.start("svc", false, 19_999), Charge::LockedOut { .. }));
        assert!(matches!(budgets.open("svc", 19_999), Err(SessionRefusal::LockedOut { .. })));
        assert!(matches!(budgets.start("svc", false, 20_000), Charge::Granted { .. }));
        assert_eq!(delay(&budgets.start("other", false, 20_000)), 0, "budgets are by account");
        assert_eq!(budgets.views(20_000)[1].lockouts, 1);
    }

    #[test]
    fn slow_recharge_is_not_lost_by_asking_often() {
        let mut budgets = tight();
        budgets.start("svc", false, 0);
        for now in 0..5_000 {
            budgets.spend_objects("svc", 0, now);
        }
        assert_eq!(budgets.views(5_000)[0].balance_ms, 1_000, "500 spent, a tenth of 5,000 gained");
    }

    #[test]
    fn sessions_are_counted() {
        let mut budgets =
            Budgets::new(ThrottlingPolicy { max_concurrency: 1, ..ThrottlingPolicy::default() });
        assert_eq!(budgets.open("svc", 0), Ok(()));
        assert_eq!(budgets.open("svc", 0), Err(SessionRefusal::Concurrency { limit: 1 }));
        budgets.close("svc");
        assert_eq!(budgets.open("svc", 0), Ok(()));
    }

    #[test]
    fn too_many_cmdlets_in_a_short_time_wait_for_the_period() {
        let mut budgets = Budgets::new(ThrottlingPolicy { max_cmdlets: 2, ..ThrottlingPolicy::default() });
        let delays: Vec<_> =
            [0, 1_000, 2_000, 5_000].map(|now| delay(&budgets.start("svc", false, now))).into();
        assert_eq!(delays, [0, 0, 3_000, 0]);
    }
}
