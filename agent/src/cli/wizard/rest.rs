//! What the customer allows: modules and loads.

use super::Session;
use super::console::{confirm, number};
use crate::modules::FACTORIES;

impl Session<'_> {
    /// Which modules may run here; whether they do is the cloud's to say.
    pub(super) fn modules(&mut self) -> anyhow::Result<()> {
        self.console.say("\nModules (the cloud switches them on; here you say which may run at all)");
        let before = self.draft.settings()?.settings.limits.modules_forbidden;
        let mut forbidden: Vec<String> = Vec::new();
        for factory in FACTORIES {
            let kind = factory.kind();
            let allowed = !before.iter().any(|name| name == kind);
            if !confirm(self.console, &format!("  May {kind} run here?"), allowed)? {
                forbidden.push(kind.to_owned());
            }
        }
        if forbidden == before {
            return Ok(());
        }
        let list: Vec<toml::Value> = forbidden.into_iter().map(toml::Value::from).collect();
        self.draft.set("limits", "modules_forbidden", list)
    }

    /// How much may be asked of this machine at once.
    pub(super) fn limits(&mut self) -> anyhow::Result<()> {
        self.console.say("\nLimits");
        let before = self.draft.settings()?.settings.limits;
        let requests = number(self.console, "  Password checks at once", before.requests_at_once, 1..=1024)?;
        if requests != before.requests_at_once {
            self.draft.set("limits", "requests_at_once", i64::from(requests))?;
        }
        let actions = number(self.console, "  Actions at once", before.actions_at_once, 1..=256)?;
        if actions != before.actions_at_once {
            self.draft.set("limits", "actions_at_once", i64::from(actions))?;
        }
        Ok(())
    }
}
