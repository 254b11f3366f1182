//! Settings: what a phone says of itself, and the little a phone asks for.

use causeway_protocol::activesync::Version;
use causeway_protocol::activesync::status::Status;
use causeway_protocol::wbxml::tags::settings as tag;
use causeway_protocol::wbxml::{Element, Tag};

use super::limits::INFORMATION_MAX_CHARS;
use super::request::{Asked, Reply};
use super::{ActiveSync, Refusal};
use crate::world::DeviceInformation;

/// Of a part of Settings: the part is malformed or not offered (MS-ASCMD 2.2.3.177.15).
const PART_FAILED: Status = Status(2);

impl ActiveSync {
    pub(super) fn settings(&self, asked: &Asked) -> Reply {
        let Some(root) = asked.document.as_ref().filter(|root| root.tag == tag::SETTINGS) else {
            return Reply::Refused(Refusal::NotTheDocument);
        };
        let mut answer = Element::new(tag::SETTINGS).with(Element::leaf(tag::STATUS, Status::OK.0));
        for part in root.elements() {
            answer.push(match part.tag {
                tag::DEVICE_INFORMATION => match part.child(tag::SET) {
                    Some(set) => {
                        asked.organisation.set_device_information(asked.phone, information(set));
                        said(part.tag, Status::OK)
                    }
                    None => said(part.tag, PART_FAILED),
                },
                tag::USER_INFORMATION if part.child(tag::GET).is_some() => user_information(asked),
                // A recovery password is taken and forgotten: the mock must not be a place where passwords lie about.
                tag::DEVICE_PASSWORD => said(part.tag, Status::OK),
                tag::OOF if part.child(tag::GET).is_some() => said(part.tag, Status::OK)
                    .with(Element::new(tag::GET).with(Element::leaf(tag::OOF_STATE, 0))),
                other => said(other, PART_FAILED),
            });
        }
        Reply::Document(answer)
    }
}

fn said(part: Tag, status: Status) -> Element {
    Element::new(part).with(Element::leaf(tag::STATUS, status.0))
}

/// The address of the mailbox, where each version looks for it (MS-ASCMD 2.2.3.190).
fn user_information(asked: &Asked) -> Element {
    let later = asked.version >= Version::V14_1;
    let name = if later { tag::PRIMARY_SMTP_ADDRESS } else { tag::SMTP_ADDRESS };
    let addresses = Element::new(tag::EMAIL_ADDRESSES)
        .with(Element::leaf(tag::SMTP_ADDRESS, &asked.address))
        .with_all(later.then(|| Element::leaf(name, &asked.address)));
    let inner = if later {
        Element::new(tag::ACCOUNTS).with(Element::new(tag::ACCOUNT).with(addresses))
    } else {
        addresses
    };
    said(tag::USER_INFORMATION, Status::OK).with(Element::new(tag::GET).with(inner))
}

/// What a phone says of itself; longer pieces than a server keeps are cut.
pub(super) fn information(set: &Element) -> DeviceInformation {
    let text = |tag: Tag| {
        let text: String = set.text_of(tag)?.chars().take(INFORMATION_MAX_CHARS).collect();
        (!text.is_empty()).then_some(text)
    };
    DeviceInformation {
        model: text(tag::MODEL).map(Into::into),
        imei: text(tag::IMEI).map(Into::into),
        friendly_name: text(tag::FRIENDLY_NAME).map(Into::into),
        os: text(tag::OS).map(Into::into),
        os_language: text(tag::OS_LANGUAGE).map(Into::into),
        phone_number: text(tag::PHONE_NUMBER).map(Into::into),
        operator: text(tag::MOBILE_OPERATOR).map(Into::into),
        user_agent: text(tag::USER_AGENT).map(Into::into),
    }
}
