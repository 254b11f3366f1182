//! Entries that are not stored: the rootDSE and the retro changelog. A list of attributes, and filters over it.

use super::matching::{self, Folding};
use super::schema::{Schema, Syntax};
use crate::filter::Filter;

/// One attribute of an entry that exists only while it is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MadeUp {
    pub(crate) name: String,
    pub(crate) values: Vec<Vec<u8>>,
    pub(crate) operational: bool,
}

impl MadeUp {
    pub(crate) fn new<V: Into<Vec<u8>>>(name: &str, values: impl IntoIterator<Item = V>) -> Self {
        Self {
            name: name.to_owned(),
            values: values.into_iter().map(Into::into).collect(),
            operational: false,
        }
    }

    pub(crate) fn operational<V: Into<Vec<u8>>>(name: &str, values: impl IntoIterator<Item = V>) -> Self {
        Self { operational: true, ..Self::new(name, values) }
    }
}

/// RFC 4511 4.5.1.7 over such a list; `None` is Undefined.
pub(crate) fn holds(
    filter: &Filter,
    attributes: &[MadeUp],
    schema: &Schema,
    folding: Folding,
) -> Option<bool> {
    let inner = |part: &Filter| holds(part, attributes, schema, folding);
    match filter {
        Filter::And(parts) => {
            let verdicts: Vec<Option<bool>> = parts.iter().map(inner).collect();
            let undefined = verdicts.contains(&None);
            if verdicts.contains(&Some(false)) { Some(false) } else { (!undefined).then_some(true) }
        }
        Filter::Or(parts) => {
            let verdicts: Vec<Option<bool>> = parts.iter().map(inner).collect();
            let undefined = verdicts.contains(&None);
            if verdicts.contains(&Some(true)) { Some(true) } else { (!undefined).then_some(false) }
        }
        Filter::Not(part) => inner(part).map(|verdict| !verdict),
        Filter::Present(attr) => Some(attr == "objectclass" || find(attributes, attr).is_some()),
        Filter::Equality { attr, value } | Filter::Approx { attr, value } => {
            any(attributes, attr, schema, |syntax, stored| {
                matching::equals(syntax, folding, stored, &matching::normalize(syntax, folding, value))
            })
        }
        Filter::GreaterOrEqual { attr, value } => any(attributes, attr, schema, |syntax, stored| {
            let value = matching::normalize(syntax, folding, value);
            matching::compare(syntax, folding, stored, &value).is_some_and(std::cmp::Ordering::is_ge)
        }),
        Filter::LessOrEqual { attr, value } => any(attributes, attr, schema, |syntax, stored| {
            let value = matching::normalize(syntax, folding, value);
            matching::compare(syntax, folding, stored, &value).is_some_and(std::cmp::Ordering::is_le)
        }),
        Filter::Substrings { attr, initial, any: parts, final_ } => {
            any(attributes, attr, schema, |syntax, stored| {
                let part = |text: &Vec<u8>, first, last| {
                    matching::normalize_part(syntax, folding, text, first, last)
                };
                let initial = initial.as_ref().map(|text| part(text, true, false));
                let middle: Vec<Vec<u8>> = parts.iter().map(|text| part(text, false, false)).collect();
                let last = final_.as_ref().map(|text| part(text, false, true));
                matching::substrings(syntax, folding, stored, initial.as_deref(), &middle, last.as_deref())
            })
        }
        Filter::Extensible { .. } | Filter::Undefined => None,
    }
}

fn find<'a>(attributes: &'a [MadeUp], name: &str) -> Option<&'a MadeUp> {
    attributes.iter().find(|attribute| attribute.name.eq_ignore_ascii_case(name))
}

fn any(
    attributes: &[MadeUp],
    name: &str,
    schema: &Schema,
    test: impl Fn(Syntax, &[u8]) -> bool,
) -> Option<bool> {
    let syntax = schema.find(name).map_or(Syntax::CaseIgnore, |id| schema.attribute(id).syntax);
    let known = schema.find(name).is_some() || find(attributes, name).is_some();
    known.then(|| {
        find(attributes, name)
            .is_some_and(|attribute| attribute.values.iter().any(|value| test(syntax, value)))
    })
}
