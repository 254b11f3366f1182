//! Which enrolled phone a phone in a mailbox is.
//!
//! Only an identifier that belongs to one phone makes two records one, and only in the mailbox of the person it is
//! enrolled for: an ActiveSync id is what a phone says of itself, and anybody can say somebody else's. Everything weaker
//! is shown to people and decides nothing.

use std::collections::{BTreeMap, HashMap};

use causeway_protocol::mobile::DeviceRecord;
use serde::Serialize;
use utoipa::ToSchema;

use crate::limits::CANDIDATES_MAX;
use crate::store::{Device, EnrolledDevice};

/// What two records have in common, or what keeps them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// The phone says the ActiveSync id that was read at enrolment.
    SameDeviceId,
    /// The same IMEI, with or without check digit or software version.
    SameImei,
    /// The ActiveSync id is `Appl` and the serial number, as iPhones up to iOS 7 made it.
    SerialInDeviceId,
    /// The ActiveSync id is the UDID.
    UdidIsDeviceId,
    /// The same person has a phone of that model: there may be two.
    SameUserAndModel,
    /// An identifier fits, but the phone is enrolled for somebody else.
    OtherUser,
    /// The ActiveSync id fits, but both have an IMEI and they differ.
    OtherImei,
}

impl Evidence {
    /// Whether it speaks for one and the same phone strongly enough.
    pub fn is_enough(self) -> bool {
        matches!(self, Self::SameDeviceId | Self::SameImei | Self::SerialInDeviceId | Self::UdidIsDeviceId)
    }

    /// Whether it speaks against it, whatever else fits.
    pub fn is_against(self) -> bool {
        matches!(self, Self::OtherUser | Self::OtherImei)
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::SameDeviceId => "same ActiveSync id",
            Self::SameImei => "same IMEI",
            Self::SerialInDeviceId => "its serial number is part of the ActiveSync id",
            Self::UdidIsDeviceId => "the ActiveSync id is its UDID",
            Self::SameUserAndModel => "same user and model: not enough",
            Self::OtherUser => "enrolled for another user: not the same",
            Self::OtherImei => "another IMEI: not the same",
        }
    }
}

/// An enrolled phone that might be the one in the mailbox.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Candidate {
    /// The enrolled phone.
    pub enrolled: EnrolledDevice,
    /// What speaks for and against it.
    pub evidence: Vec<Evidence>,
    /// The same in words.
    pub why: Vec<String>,
    /// Whether it is the one.
    pub enough: bool,
}

/// Whether the phone is enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Enrolment {
    /// It is one of the enrolled phones.
    Enrolled,
    /// It is none of them as far as anyone can tell.
    NotEnrolled,
}

/// What is known of a phone from device management.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Merge {
    /// Whether it is enrolled.
    pub enrolment: Enrolment,
    /// The enrolled phone it is.
    pub enrolled: Option<EnrolledDevice>,
    /// One sentence for people.
    pub why: String,
    /// Every enrolled phone that came into question, the one chosen first.
    pub candidates: Vec<Candidate>,
}

/// What a phone in a mailbox can be recognised by.
#[derive(Clone, Debug, Default)]
pub struct Phone<'a> {
    device_id: &'a str,
    imei: Option<&'a str>,
    model: Option<&'a str>,
    user: Option<&'a str>,
    address: Option<&'a str>,
}

impl<'a> Phone<'a> {
    /// As the API shows it.
    pub fn of_device(device: &'a Device) -> Self {
        Self {
            device_id: &device.device_id,
            imei: device.imei.as_deref(),
            model: device.model.as_deref().or(device.device_type.as_deref()),
            user: device.user.as_deref(),
            address: device.address.as_deref(),
        }
    }

    /// As an agent sent it.
    pub fn of_record(record: &'a DeviceRecord) -> Self {
        Self {
            device_id: &record.device_id,
            imei: record.imei.as_deref(),
            model: record.model.as_deref().or(record.device_type.as_deref()),
            user: record.user.as_deref(),
            address: record.address.as_deref(),
        }
    }

    fn belongs_to(&self, user: &str) -> bool {
        [self.user, self.address].into_iter().flatten().any(|name| same_person(name, user))
    }
}

/// Enrolled phones by what they are recognised by.
pub struct Index {
    enrolled: Vec<EnrolledDevice>,
    by_device_id: HashMap<String, Vec<usize>>,
    by_imei: HashMap<String, Vec<usize>>,
    by_model: HashMap<String, Vec<usize>>,
}

impl Index {
    /// Of these.
    pub fn new(enrolled: Vec<EnrolledDevice>) -> Self {
        let (mut by_device_id, mut by_imei, mut by_model) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (n, device) in enrolled.iter().enumerate() {
            let serial = device.serial.as_deref().and_then(serial).map(|serial| format!("appl{serial}"));
            let udid = device.udid.as_deref().and_then(device_id);
            let id = device.device_id.as_deref().and_then(device_id);
            for id in [id, udid, serial].into_iter().flatten() {
                push(&mut by_device_id, id, n);
            }
            if let Some(imei) = device.imei.as_deref().and_then(imei) {
                push(&mut by_imei, imei, n);
            }
            if let Some(model) = device.model.as_deref().and_then(model) {
                push(&mut by_model, model, n);
            }
        }
        Self { enrolled, by_device_id, by_imei, by_model }
    }

    /// Which of them the phone is, and why. Of several that fit, which are then enrolments of one phone, the newest.
    pub fn merge(&self, phone: &Phone<'_>) -> Merge {
        let mut found: BTreeMap<usize, Vec<Evidence>> = BTreeMap::new();
        let id = device_id(phone.device_id);
        for n in id.iter().filter_map(|id| self.by_device_id.get(id)).flatten() {
            let device = &self.enrolled[*n];
            let evidence = if device.device_id.as_deref().and_then(device_id) == id {
                Evidence::SameDeviceId
            } else if device.udid.as_deref().and_then(device_id) == id {
                Evidence::UdidIsDeviceId
            } else {
                Evidence::SerialInDeviceId
            };
            found.entry(*n).or_default().push(evidence);
        }
        let number = phone.imei.and_then(imei);
        for n in number.iter().filter_map(|number| self.by_imei.get(number)).flatten() {
            found.entry(*n).or_default().push(Evidence::SameImei);
        }
        for (n, evidence) in &mut found {
            let device = &self.enrolled[*n];
            if !phone.belongs_to(&device.user) {
                evidence.push(Evidence::OtherUser);
            }
            let theirs = device.imei.as_deref().and_then(imei);
            if number.is_some() && theirs.is_some() && number != theirs {
                evidence.push(Evidence::OtherImei);
            }
        }
        let alike = phone.model.and_then(model);
        for n in alike.iter().filter_map(|alike| self.by_model.get(alike)).flatten() {
            if !found.contains_key(n) && phone.belongs_to(&self.enrolled[*n].user) {
                found.insert(*n, vec![Evidence::SameUserAndModel]);
            }
        }
        self.decide(found)
    }

    fn decide(&self, found: BTreeMap<usize, Vec<Evidence>>) -> Merge {
        let mut candidates: Vec<Candidate> = found
            .into_iter()
            .map(|(n, evidence)| Candidate {
                enrolled: self.enrolled[n].clone(),
                why: evidence.iter().map(|it| it.words().to_owned()).collect(),
                enough: evidence.iter().any(|it| it.is_enough())
                    && !evidence.iter().any(|it| it.is_against()),
                evidence,
            })
            .collect();
        candidates.sort_by_key(|it| (!it.enough, std::cmp::Reverse(it.enrolled.enrolled_ms)));
        candidates.truncate(CANDIDATES_MAX);
        let fit = candidates.iter().filter(|it| it.enough).count();
        let (enrolment, why) = match candidates.first() {
            Some(best) if best.enough && fit > 1 => (
                Enrolment::Enrolled,
                format!("{}; the newest of {fit} enrolments of this phone", best.why.join(", ")),
            ),
            Some(best) if best.enough => (Enrolment::Enrolled, best.why.join(", ")),
            Some(best) => (Enrolment::NotEnrolled, best.why.join(", ")),
            None => (Enrolment::NotEnrolled, "no enrolled phone has its ActiveSync id or IMEI".to_owned()),
        };
        let enrolled = candidates.first().filter(|it| it.enough).map(|it| it.enrolled.clone());
        Merge { enrolment, enrolled, why, candidates }
    }
}

fn push(map: &mut HashMap<String, Vec<usize>>, key: String, n: usize) {
    let all = map.entry(key).or_default();
    if all.last() != Some(&n) {
        all.push(n);
    }
}

/// ActiveSync ids are opaque; phones and servers disagree about their case.
fn device_id(text: &str) -> Option<String> {
    Some(text.trim().to_lowercase()).filter(|text| !text.is_empty())
}

/// The 14 digits that name the phone: what follows is a check digit (IMEI) or the software's version (IMEISV). Numbers
/// of one repeated digit are placeholders that many phones share.
fn imei(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ' ' | '-' | '/' | '.')).collect();
    let is_number = (14..=16).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let is_placeholder = digits.as_bytes().windows(2).all(|pair| pair[0] == pair[1]);
    (is_number && !is_placeholder).then(|| digits[..14].to_owned())
}

/// Serial numbers shorter than eight signs could be part of something else.
fn serial(text: &str) -> Option<String> {
    let text = text.trim();
    (text.len() >= 8 && text.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| text.to_lowercase())
}

fn model(text: &str) -> Option<String> {
    Some(text.trim().to_lowercase()).filter(|text| !text.is_empty())
}

/// `ACME\ada`, `ada` and `ada@acme.example` may be one person; two full addresses are one only if they are equal.
pub(crate) fn same_person(one: &str, other: &str) -> bool {
    fn parts(name: &str) -> (String, Option<String>) {
        let name = name.trim().rsplit('\\').next().unwrap_or_default().to_lowercase();
        match name.split_once('@') {
            Some((local, domain)) => (local.to_owned(), Some(domain.to_owned())),
            None => (name, None),
        }
    }
    let ((one, one_at), (other, other_at)) = (parts(one), parts(other));
    let domains_agree = one_at.is_none() || other_at.is_none() || one_at == other_at;
    !one.is_empty() && one == other && domains_agree
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrolled(id: &str) -> EnrolledDevice {
        EnrolledDevice {
            id: id.to_owned(),
            user: "ada@acme.example".to_owned(),
            device_id: None,
            imei: None,
            serial: None,
            udid: None,
            model: Some("iPhone 15".to_owned()),
            sim: None,
            phone_number: None,
            compliant: true,
            enrolled_ms: 1,
            wiped_ms: None,
        }
    }

    fn phone() -> Phone<'static> {
        Phone {
            device_id: "ApplDNPX12345678",
            imei: Some("35 693803 564380 9"),
            model: Some("iPhone 15"),
            user: Some("ada"),
            address: Some("ada@acme.example"),
        }
    }

    fn merged(enrolled: EnrolledDevice) -> Merge {
        Index::new(vec![enrolled]).merge(&phone())
    }

    #[test]
    fn identifiers_of_one_phone_are_enough() {
        let by_id = merged(EnrolledDevice { device_id: Some("APPLdnpx12345678".into()), ..enrolled("a") });
        assert_eq!((by_id.enrolment, by_id.why.as_str()), (Enrolment::Enrolled, "same ActiveSync id"));
        // The software's version instead of the check digit.
        let by_imei = merged(EnrolledDevice { imei: Some("3569380356438001".into()), ..enrolled("a") });
        assert_eq!((by_imei.enrolment, by_imei.why.as_str()), (Enrolment::Enrolled, "same IMEI"));
        let by_serial = merged(EnrolledDevice { serial: Some("DNPX12345678".into()), ..enrolled("a") });
        assert_eq!(by_serial.candidates[0].evidence, [Evidence::SerialInDeviceId]);
        assert_eq!(by_serial.enrolled.unwrap().id, "a");
    }

    #[test]
    fn weak_evidence_is_shown_and_decides_nothing() {
        let weak = merged(enrolled("a"));
        assert_eq!(weak.why, "same user and model: not enough");
        assert_eq!((weak.enrolment, weak.enrolled), (Enrolment::NotEnrolled, None));
        let none = Index::new(Vec::new()).merge(&phone());
        assert_eq!(none.why, "no enrolled phone has its ActiveSync id or IMEI");
    }

    #[test]
    fn an_id_in_another_persons_mailbox_is_a_claim_not_a_proof() {
        let mallory = EnrolledDevice {
            user: "mallory@acme.example".into(),
            device_id: Some(phone().device_id.into()),
            ..enrolled("a")
        };
        let merge = merged(mallory);
        assert_eq!(merge.enrolment, Enrolment::NotEnrolled);
        assert_eq!(merge.candidates[0].evidence, [Evidence::SameDeviceId, Evidence::OtherUser]);
        let other_phone = EnrolledDevice {
            device_id: Some(phone().device_id.into()),
            imei: Some("490154203237518".into()),
            ..enrolled("b")
        };
        assert_eq!(merged(other_phone).enrolled, None, "two IMEIs are two phones");
    }

    #[test]
    fn of_two_enrolments_of_one_phone_the_newer_counts() {
        let old = EnrolledDevice { imei: phone().imei.map(Into::into), compliant: false, ..enrolled("old") };
        let new = EnrolledDevice { enrolled_ms: 2, compliant: true, id: "new".into(), ..old.clone() };
        let merge = Index::new(vec![old, new]).merge(&phone());
        assert_eq!(merge.enrolled.unwrap().id, "new");
        assert_eq!(merge.why, "same IMEI; the newest of 2 enrolments of this phone");
    }

    #[test]
    fn placeholders_and_fragments_match_nobody() {
        for text in ["000000000000000", "", "unknown", "12345", "35693803564380912"] {
            assert_eq!(imei(text), None, "{text}");
        }
        assert_eq!(serial("1234"), None);
    }

    #[test]
    fn people_are_compared_by_what_both_names_say() {
        for (one, other, same) in [
            ("ACME\\Ada", "ada@acme.example", true),
            ("ada", "ADA", true),
            ("ada@acme.example", "ada@other.example", false),
            ("ada", "adam", false),
            ("", "", false),
        ] {
            assert_eq!(same_person(one, other), same, "{one} {other}");
        }
    }
}
