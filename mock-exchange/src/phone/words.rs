//! The documents a phone writes, and what it takes from those it reads. Written for the phone: the server's half is in
//! [`activesync`](crate::activesync).

use causeway_protocol::activesync::status::{Status, acknowledgement};
use causeway_protocol::activesync::{POLICY_TYPE, POLICY_TYPE_2_5, Version};
use causeway_protocol::wbxml::tags::{
    air_sync, air_sync_base, email, folder_hierarchy, ping, provision, settings,
};
use causeway_protocol::wbxml::{Element, Tag};

use super::limits::WINDOW;
use super::model::PhoneModel;

/// The status in a document: the child of the root that is called so, in the root's own page.
pub(super) fn status_of(root: &Element) -> Option<Status> {
    let child =
        root.elements().find(|child| child.tag.page == root.tag.page && child.tag.name() == Some("Status"));
    number(child?).map(Status)
}

pub(super) fn number<T: std::str::FromStr>(element: &Element) -> Option<T> {
    element.text().trim().parse().ok()
}

pub(super) fn number_of<T: std::str::FromStr>(parent: &Element, tag: Tag) -> Option<T> {
    parent.child(tag).and_then(number)
}

/// The first request of provisioning.
pub(super) fn ask_policy(model: &PhoneModel, version: Version) -> Element {
    let mut root = Element::new(provision::PROVISION);
    if version.wants_device_information() {
        root.push(about(model, version));
    }
    root.push(policies(version, None));
    root
}

/// The second: what the phone made of the policy.
pub(super) fn confirm_policy(version: Version, key: &str, status: Status) -> Element {
    Element::new(provision::PROVISION).with(policies(version, Some((key, status))))
}

/// The confirmation of a wipe.
pub(super) fn confirm_wipe(which: Tag) -> Element {
    let done = Element::leaf(provision::STATUS, acknowledgement::DONE.0);
    Element::new(provision::PROVISION).with(Element::new(which).with(done))
}

/// What a phone says of itself (MS-ASCMD 2.2.3.50), in Provision and in Settings.
pub(super) fn about(model: &PhoneModel, version: Version) -> Element {
    let mut set = Element::new(settings::SET);
    let all = [
        (settings::MODEL, Some(&model.model)),
        (settings::IMEI, model.imei.as_ref()),
        (settings::FRIENDLY_NAME, model.friendly_name.as_ref()),
        (settings::OS, Some(&model.os)),
        (settings::OS_LANGUAGE, model.os_language.as_ref()),
        (settings::PHONE_NUMBER, model.phone_number.as_ref()),
    ];
    set.content.extend(leaves(all));
    if version >= Version::V14_0 {
        let later = [
            (settings::USER_AGENT, Some(&model.user_agent)),
            (settings::MOBILE_OPERATOR, model.operator.as_ref()),
        ];
        set.content.extend(leaves(later));
    }
    Element::new(settings::DEVICE_INFORMATION).with(set)
}

fn leaves<'a>(
    all: impl IntoIterator<Item = (Tag, Option<&'a String>)>,
) -> Vec<causeway_protocol::wbxml::Node> {
    let leaf = |(tag, value): (Tag, Option<&String>)| value.map(|value| Element::leaf(tag, value));
    all.into_iter().filter_map(leaf).map(causeway_protocol::wbxml::Node::Element).collect()
}

fn policies(version: Version, confirmed: Option<(&str, Status)>) -> Element {
    let kind = if version == Version::V2_5 { POLICY_TYPE_2_5 } else { POLICY_TYPE };
    let mut policy = Element::new(provision::POLICY).with(Element::leaf(provision::POLICY_TYPE, kind));
    if let Some((key, status)) = confirmed {
        policy.push(Element::leaf(provision::POLICY_KEY, key));
        policy.push(Element::leaf(provision::STATUS, status.0));
    }
    Element::new(provision::POLICIES).with(policy)
}

/// What a policy document says, by the names of its elements.
pub(super) fn policy_settings(root: &Element) -> Vec<(String, String)> {
    let path = [provision::POLICIES, provision::POLICY, provision::DATA, provision::EAS_PROVISION_DOC];
    let name = |element: &Element| element.tag.name().unwrap_or("unknown").to_owned();
    root.at(&path).map_or_else(Vec::new, |document| {
        document.elements().map(|setting| (name(setting), setting.text())).collect()
    })
}

pub(super) fn folder_sync(key: &str) -> Element {
    Element::new(folder_hierarchy::FOLDER_SYNC).with(Element::leaf(folder_hierarchy::SYNC_KEY, key))
}

/// A request for the changes of one mail folder; key 0 only makes the server begin.
pub(super) fn sync(folder: &str, key: &str, version: Version) -> Element {
    let mut collection = Element::new(air_sync::COLLECTION);
    if version < Version::V12_1 {
        collection.push(Element::leaf(air_sync::CLASS, "Email"));
    }
    collection.push(Element::leaf(air_sync::SYNC_KEY, key));
    collection.push(Element::leaf(air_sync::COLLECTION_ID, folder));
    if key != "0" {
        collection.push(Element::new(air_sync::GET_CHANGES));
        collection.push(Element::leaf(air_sync::WINDOW_SIZE, WINDOW));
        if version >= Version::V12_0 {
            let preference = Element::new(air_sync_base::BODY_PREFERENCE)
                .with(Element::leaf(air_sync_base::TYPE, 1))
                .with(Element::leaf(air_sync_base::TRUNCATION_SIZE, 1024));
            collection.push(Element::new(air_sync::OPTIONS).with(preference));
        }
    }
    Element::new(air_sync::SYNC).with(Element::new(air_sync::COLLECTIONS).with(collection))
}

pub(super) fn wait_for_news(heartbeat_secs: u32, folder: &str) -> Element {
    let folder = Element::new(ping::FOLDER)
        .with(Element::leaf(ping::ID, folder))
        .with(Element::leaf(ping::CLASS, "Email"));
    Element::new(ping::PING)
        .with(Element::leaf(ping::HEARTBEAT_INTERVAL, heartbeat_secs))
        .with(Element::new(ping::FOLDERS).with(folder))
}

/// A message as a phone lists it.
pub(super) struct Heading {
    pub(super) id: String,
    pub(super) subject: Option<String>,
    pub(super) from: Option<String>,
    pub(super) read: Option<bool>,
    pub(super) text: Option<String>,
}

pub(super) fn heading(change: &Element) -> Option<Heading> {
    let content = change.child(air_sync::APPLICATION_DATA);
    let text = |tag| content.and_then(|content| content.text_of(tag));
    let body = content.and_then(|content| content.at(&[air_sync_base::BODY, air_sync_base::DATA]));
    Some(Heading {
        id: change.text_of(air_sync::SERVER_ID)?,
        subject: text(email::SUBJECT),
        from: text(email::FROM),
        read: text(email::READ).map(|read| read == "1"),
        text: body.map(Element::text).or_else(|| text(email::BODY)),
    })
}
