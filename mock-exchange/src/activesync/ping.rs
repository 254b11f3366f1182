//! Ping: the server keeps the request until there is news or the time has passed.

use std::time::Duration;

use causeway_protocol::activesync::status::{Status, ping as ping_status};
use causeway_protocol::wbxml::Element;
use causeway_protocol::wbxml::tags::ping as tag;

use super::commands::number_of;
use super::limits::COLLECTIONS_MAX;
use super::request::{Asked, Reply};
use super::{ActiveSync, Refusal};
use crate::world::FOLDERS;

/// Why waiting ended.
pub(super) enum Woken {
    /// These folders have news.
    News(Vec<String>),
    /// Which folders the phone may see has changed.
    Hierarchy,
    /// The phone may not go on as it began: blocked, to be wiped, removed.
    Access,
    Expired,
}

impl ActiveSync {
    pub(super) async fn ping(&self, asked: &Asked) -> Reply {
        let organisation = &asked.organisation;
        let (seconds, folders) = match self.ping_parameters(asked) {
            Ok(parameters) => parameters,
            Err(reply) => return reply,
        };
        let (min, max) = (self.config.heartbeat_min_secs, self.config.heartbeat_max_secs);
        if !(min..=max).contains(&seconds) {
            let nearest = Element::leaf(tag::HEARTBEAT_INTERVAL, seconds.clamp(min, max));
            return Reply::Document(answer(ping_status::BAD_INTERVAL).with(nearest));
        }
        if folders.len() > COLLECTIONS_MAX {
            let most = Element::leaf(tag::MAX_FOLDERS, COLLECTIONS_MAX);
            return Reply::Document(answer(ping_status::TOO_MANY_FOLDERS).with(most));
        }
        let exists = |id: &String| FOLDERS.iter().any(|folder| folder.id == id);
        if !folders.iter().all(exists) {
            return Reply::Document(answer(ping_status::HIERARCHY_CHANGED));
        }
        self.sessions.change(organisation, asked.phone, |session| {
            session.ping = Some((seconds, folders.clone()));
        });
        organisation.set_heartbeat(asked.phone, seconds);
        match self.wait(asked, &folders, seconds).await {
            Woken::News(changed) => {
                let changed = changed.iter().map(|id| Element::leaf(tag::FOLDER, id));
                let folders = Element::new(tag::FOLDERS).with_all(changed);
                Reply::Document(answer(ping_status::CHANGES).with(folders))
            }
            // A phone whose access has changed is told to ask again; its next command gets the reason. What Exchange
            // answers to a waiting phone is not verified.
            Woken::Hierarchy | Woken::Access => Reply::Document(answer(ping_status::HIERARCHY_CHANGED)),
            Woken::Expired => Reply::Document(answer(ping_status::EXPIRED)),
        }
    }

    /// Heartbeat and folders: those of the request, or of the last one for what it leaves out.
    fn ping_parameters(&self, asked: &Asked) -> Result<(u32, Vec<String>), Reply> {
        let last = self.sessions.get(&asked.organisation, asked.phone).ping;
        let Some(root) = &asked.document else {
            return last.ok_or_else(|| Reply::Document(answer(ping_status::INCOMPLETE)));
        };
        if root.tag != tag::PING {
            return Err(Reply::Refused(Refusal::NotTheDocument));
        }
        let seconds = number_of(root, tag::HEARTBEAT_INTERVAL);
        let named = root.child(tag::FOLDERS).map(|folders| {
            folders.children(tag::FOLDER).filter_map(|folder| folder.text_of(tag::ID)).collect::<Vec<_>>()
        });
        let (last_seconds, last_folders) = last.unzip();
        let seconds = seconds.or(last_seconds);
        let folders = named.filter(|folders| !folders.is_empty()).or(last_folders);
        seconds.zip(folders).ok_or_else(|| Reply::Document(answer(ping_status::INCOMPLETE)))
    }

    /// Waits until one of the folders has news, the phone's access changes, or the time has passed.
    pub(super) async fn wait(&self, asked: &Asked, folders: &[String], seconds: u32) -> Woken {
        let organisation = &asked.organisation;
        let clock = organisation.clock();
        let wait_ms = i64::try_from(Duration::from_secs(u64::from(seconds)).as_millis()).unwrap_or(i64::MAX);
        let until_ms = clock.now_ms().saturating_add(wait_ms);
        let allowed = organisation.is_allowed(asked.phone);
        let mut changes = organisation.changes();
        loop {
            changes.borrow_and_update();
            if organisation.is_allowed(asked.phone) != allowed {
                return Woken::Access;
            }
            if self.hierarchy_changed(asked) {
                return Woken::Hierarchy;
            }
            let news = |folder: &&String| organisation.has_news(asked.phone, &[folder.as_str()]);
            let changed: Vec<String> = folders.iter().filter(news).cloned().collect();
            if !changed.is_empty() {
                return Woken::News(changed);
            }
            tokio::select! {
                () = clock.sleep_until_ms(until_ms) => return Woken::Expired,
                changed = changes.changed() => if changed.is_err() { return Woken::Expired },
            }
        }
    }
}

fn answer(status: Status) -> Element {
    Element::new(tag::PING).with(Element::leaf(tag::STATUS, status.0))
}
