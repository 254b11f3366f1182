//! How each module is, written by the module and its supervisor, read by the health report and the status file.

use std::collections::BTreeMap;
use std::sync::Arc;

use causeway_protocol::health::ModuleState;
use tokio::sync::watch;

/// What a module says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleStatus {
    /// How it is.
    pub state: ModuleState,
    /// One sentence for people.
    pub detail: String,
    /// Figures worth showing, by name.
    pub figures: BTreeMap<String, i64>,
}

/// One module's status. Clones write to the same cell.
#[derive(Clone, Debug)]
pub struct StatusCell(Arc<watch::Sender<ModuleStatus>>);

impl Default for StatusCell {
    fn default() -> Self {
        let start = ModuleStatus {
            state: ModuleState::Idle,
            detail: "not started".to_owned(),
            figures: BTreeMap::new(),
        };
        Self(Arc::new(watch::Sender::new(start)))
    }
}

impl StatusCell {
    /// Says how the module is. Does nothing when nothing changes.
    pub fn set(&self, state: ModuleState, detail: impl Into<String>) {
        let detail = detail.into();
        self.0.send_if_modified(|status| {
            let changed = status.state != state || status.detail != detail;
            status.state = state;
            status.detail = detail;
            changed
        });
    }

    /// Sets a figure. Does not wake anyone: figures travel with the next report.
    pub fn figure(&self, name: &str, value: i64) {
        self.0.send_if_modified(|status| {
            status.figures.insert(name.to_owned(), value);
            false
        });
    }

    /// How it is now.
    pub fn get(&self) -> ModuleStatus {
        self.0.borrow().clone()
    }

    /// For waiting on changes of state or detail.
    pub fn subscribe(&self) -> watch::Receiver<ModuleStatus> {
        self.0.subscribe()
    }
}
