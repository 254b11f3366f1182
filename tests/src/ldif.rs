//! The generated company as LDIF (RFC 2849) for real directory servers that use `inetOrgPerson` and `groupOfNames`.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use causeway_mock_kit::world::{Company, Member};

/// Writes suffix, units, people and groups below `base`, in an order that every loader takes. Passwords are those of
/// the company, in the clear: the server hashes what it wants hashed.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_company(company: &Company, base: &str, out: &mut impl Write) -> io::Result<()> {
    let organisation = base.split([',', '=']).nth(1).unwrap_or("acme");
    entry(
        out,
        base,
        &[
            ("objectClass", "dcObject"),
            ("objectClass", "organization"),
            ("dc", organisation),
            ("o", &company.organisation),
        ],
    )?;
    for unit in ["people", "groups"] {
        entry(out, &format!("ou={unit},{base}"), &[("objectClass", "organizationalUnit"), ("ou", unit)])?;
    }
    for person in &company.people {
        let (phone, mobile, employee) = (person.phone(), person.mobile(), person.employee_id());
        let password = person.password();
        let attributes = [
            ("objectClass", "inetOrgPerson"),
            ("uid", &*person.login),
            ("cn", &*person.display_name),
            ("sn", person.surname),
            ("givenName", person.given_name),
            ("displayName", &*person.display_name),
            ("mail", &*person.mail),
            ("title", person.title),
            ("departmentNumber", person.department),
            ("telephoneNumber", &phone),
            ("mobile", &mobile),
            ("employeeNumber", &employee),
            ("l", person.city()),
            ("userPassword", &password),
        ];
        entry(out, &person_dn(company, person.index, base), &attributes)?;
    }
    for (index, group) in company.groups.iter().enumerate() {
        let members: Vec<String> = group
            .members
            .iter()
            .map(|member| match member {
                Member::Person(person) => person_dn(company, *person, base),
                Member::Group(group) => group_dn(*group as usize, base),
            })
            .collect();
        let number = format!("g{index}");
        let mut attributes = vec![
            ("objectClass", "groupOfNames"),
            ("cn", number.as_str()),
            ("ou", group.name.as_str()),
            ("description", group.description.as_str()),
        ];
        attributes.extend(members.iter().map(|member| ("member", member.as_str())));
        if members.is_empty() {
            // groupOfNames needs a member (RFC 4519 §3.5); an empty DN is the usual stand-in.
            attributes.push(("member", ""));
        }
        entry(out, &group_dn(index, base), &attributes)?;
    }
    Ok(())
}

/// DN of a person below `base`.
pub fn person_dn(company: &Company, index: u32, base: &str) -> String {
    format!("uid={},ou=people,{base}", company.people[index as usize].login)
}

/// DN of a group below `base`; named by number, so that no name needs escaping.
pub fn group_dn(index: usize, base: &str) -> String {
    format!("cn=g{index},ou=groups,{base}")
}

fn entry(out: &mut impl Write, dn: &str, attributes: &[(&str, &str)]) -> io::Result<()> {
    line(out, "dn", dn)?;
    for (name, value) in attributes {
        line(out, name, value)?;
    }
    out.write_all(b"\n")
}

fn line(out: &mut impl Write, name: &str, value: &str) -> io::Result<()> {
    // RFC 2849: SAFE-STRING; anything else goes as Base64.
    let safe = value.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        && !value.starts_with([' ', ':', '<'])
        && !value.ends_with(' ');
    match safe {
        true => writeln!(out, "{name}: {value}"),
        false => writeln!(out, "{name}:: {}", STANDARD.encode(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use causeway_mock_kit::world::CompanySpec;

    #[test]
    fn every_person_and_group_is_written_once_and_in_ascii() {
        let company = Company::generate(&CompanySpec { users: 120, ..CompanySpec::default() });
        let mut text = Vec::new();
        write_company(&company, "dc=acme,dc=example", &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.is_ascii());
        assert_eq!(text.matches("objectClass: inetOrgPerson").count(), company.people.len());
        assert_eq!(text.matches("objectClass: groupOfNames").count(), company.groups.len());
    }
}
