//! LDIF (RFC 2849) as input: entries to add, and change records.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;

use crate::dit::{LdapFailure, ModOp, Modification, WriteOp};

/// Why LDIF text cannot be used. Lines count from 1.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LdifError {
    #[error("line {line}: expected {expected}")]
    Syntax { line: usize, expected: &'static str },
    #[error("line {line}: value is not base64")]
    Base64 { line: usize },
    #[error("line {line}: values from URLs are not read")]
    Url { line: usize },
    #[error("line {line}: unknown changetype {word:?}")]
    ChangeType { line: usize, word: String },
    #[error("line {line}: the directory refuses this record")]
    Refused {
        line: usize,
        #[source]
        source: Box<LdapFailure>,
    },
}

/// One record and the line it begins on.
pub struct Record {
    pub line: usize,
    pub op: WriteOp,
}

/// Reads every record of a text.
///
/// # Errors
/// [`LdifError`] with the line.
pub fn parse(text: &str) -> Result<Vec<Record>, LdifError> {
    let mut records = Vec::new();
    let mut lines = Vec::new();
    for line in unfold(text) {
        if line.text.is_empty() {
            records.extend(record(&lines)?);
            lines.clear();
        } else {
            lines.push(attribute(&line)?);
        }
    }
    records.extend(record(&lines)?);
    Ok(records)
}

struct Line {
    number: usize,
    text: String,
}

/// `name: value` or `name:: base64`, or the `-` between changes.
struct Field {
    line: usize,
    name: String,
    value: Vec<u8>,
}

impl Field {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.value).into_owned()
    }
}

/// Joins continuation lines and leaves comments out.
fn unfold(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut in_comment = false;
    for (at, raw) in text.lines().enumerate() {
        if let Some(rest) = raw.strip_prefix(' ') {
            if let Some(last) = lines.last_mut().filter(|_| !in_comment) {
                last.text.push_str(rest);
            }
            continue;
        }
        in_comment = raw.starts_with('#');
        if !in_comment {
            lines.push(Line { number: at + 1, text: raw.to_owned() });
        }
    }
    lines
}

fn attribute(line: &Line) -> Result<Field, LdifError> {
    let number = line.number;
    if line.text == "-" {
        return Ok(Field { line: number, name: "-".to_owned(), value: Vec::new() });
    }
    let (name, rest) = line
        .text
        .split_once(':')
        .ok_or(LdifError::Syntax { line: number, expected: "a name, a colon and a value" })?;
    let value = match rest.as_bytes().first() {
        Some(b':') => BASE64.decode(rest[1..].trim()).map_err(|_| LdifError::Base64 { line: number })?,
        Some(b'<') => return Err(LdifError::Url { line: number }),
        _ => rest.trim_start_matches(' ').as_bytes().to_vec(),
    };
    Ok(Field { line: number, name: name.to_owned(), value })
}

fn record(fields: &[Field]) -> Result<Option<Record>, LdifError> {
    let fields = match fields {
        [version, rest @ ..] if version.is("version") => rest,
        all => all,
    };
    let Some((dn, rest)) = fields.split_first() else { return Ok(None) };
    if !dn.is("dn") {
        return Err(LdifError::Syntax { line: dn.line, expected: "dn" });
    }
    let name = dn.value.clone();
    let op = match rest.split_first() {
        Some((change, rest)) if change.is("changetype") => match change.text().as_str() {
            "add" => WriteOp::Add { dn: name, attributes: attributes(rest) },
            "delete" => WriteOp::Delete { dn: name, tree: false },
            "modify" => WriteOp::Modify { dn: name, changes: changes(rest)?, permissive: false },
            "modrdn" | "moddn" => rename(name, change.line, rest)?,
            word => return Err(LdifError::ChangeType { line: change.line, word: word.to_owned() }),
        },
        _ => WriteOp::Add { dn: name, attributes: attributes(rest) },
    };
    Ok(Some(Record { line: dn.line, op }))
}

fn attributes(fields: &[Field]) -> Vec<(String, Vec<Vec<u8>>)> {
    let mut attributes: Vec<(String, Vec<Vec<u8>>)> = Vec::new();
    for field in fields.iter().filter(|field| !field.is("-")) {
        match attributes.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case(&field.name)) {
            Some((_, values)) => values.push(field.value.clone()),
            None => attributes.push((field.name.clone(), vec![field.value.clone()])),
        }
    }
    attributes
}

fn changes(fields: &[Field]) -> Result<Vec<Modification>, LdifError> {
    let mut changes = Vec::new();
    for group in fields.split(|field| field.is("-")) {
        let Some((head, values)) = group.split_first() else { continue };
        let op = match head.name.to_ascii_lowercase().as_str() {
            "add" => ModOp::Add,
            "delete" => ModOp::Delete,
            "replace" => ModOp::Replace,
            "increment" => ModOp::Increment,
            _ => {
                return Err(LdifError::Syntax {
                    line: head.line,
                    expected: "add, delete, replace or increment",
                });
            }
        };
        let attribute = head.text();
        if let Some(odd) = values.iter().find(|field| !field.is(&attribute)) {
            return Err(LdifError::Syntax {
                line: odd.line,
                expected: "a value of the attribute being changed",
            });
        }
        changes.push(Modification {
            op,
            attribute,
            values: values.iter().map(|field| field.value.clone()).collect(),
        });
    }
    Ok(changes)
}

fn rename(dn: Vec<u8>, line: usize, fields: &[Field]) -> Result<WriteOp, LdifError> {
    let find = |name: &str| fields.iter().find(|field| field.is(name));
    let new_rdn = find("newrdn").ok_or(LdifError::Syntax { line, expected: "newrdn" })?;
    Ok(WriteOp::ModifyDn {
        dn,
        new_rdn: new_rdn.value.clone(),
        delete_old: find("deleteoldrdn").is_some_and(|field| field.value == b"1"),
        new_superior: find("newsuperior").map(|field| field.value.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_changes_are_read() {
        let text = "version: 1\n# people\ndn: cn=Jane,\n o=acme\nobjectClass: person\nobjectClass: top\nsn:: w6Q=\n\n\
                    dn: cn=Jane,o=acme\nchangetype: modify\nreplace: sn\nsn: Doe\n-\ndelete: mail\n-\n\n\
                    dn: cn=Jane,o=acme\nchangetype: modrdn\nnewrdn: cn=Janet\ndeleteoldrdn: 1\n";
        let records = parse(text).unwrap();
        assert_eq!(records.len(), 3);
        let WriteOp::Add { dn, attributes } = &records[0].op else { panic!("not an add") };
        assert_eq!(dn, b"cn=Jane,o=acme");
        assert_eq!(attributes[0], ("objectClass".into(), vec![b"person".to_vec(), b"top".to_vec()]));
        assert_eq!(attributes[1].1, vec!["ä".as_bytes().to_vec()]);
        let WriteOp::Modify { changes, .. } = &records[1].op else { panic!("not a modify") };
        assert_eq!((changes[0].op, changes[1].op), (ModOp::Replace, ModOp::Delete));
        assert!(matches!(&records[2].op, WriteOp::ModifyDn { delete_old: true, .. }));
    }

    #[test]
    fn mistakes_name_their_line() {
        let fails = |text: &str| parse(text).map(|_| ()).unwrap_err().to_string();
        assert_eq!(fails("dn: o=a\nnonsense\n"), "line 2: expected a name, a colon and a value");
        assert_eq!(fails("\n\ncn: a\n"), "line 3: expected dn");
        assert_eq!(fails("dn: o=a\nchangetype: explode\n"), "line 2: unknown changetype \"explode\"");
        assert_eq!(fails("dn: o=a\nx:: ***\n"), "line 2: value is not base64");
    }
}
