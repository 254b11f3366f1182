//! Access lists of Windows in their text form (the security descriptor definition language): what ours says, and who
//! stands in somebody's beside those who may.

/// Full access for the system's account and administrators, inherited by everything below; nothing comes from above.
pub const PRIVATE: &str = "D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)";

/// The same for a pipe, which has nothing below it.
pub const PRIVATE_PIPE: &str = "D:P(A;;GA;;;SY)(A;;GA;;;BA)";

/// Who may read our files: the system's account, administrators, and the words for "whoever owns it".
const MAY: &[&str] = &["SY", "BA", "OW", "CO", "S-1-5-18", "S-1-5-32-544", "S-1-3-0", "S-1-3-4"];

/// Names for those an administrator meets most.
const NAMES: &[(&str, &str)] = &[
    ("WD", "everybody"),
    ("S-1-1-0", "everybody"),
    ("BU", "all users of this machine"),
    ("S-1-5-32-545", "all users of this machine"),
    ("AU", "all authenticated users"),
    ("S-1-5-11", "all authenticated users"),
    ("IU", "whoever sits at this machine"),
    ("BG", "guests"),
];

/// Whom the list allows something, beside those who may. A missing list allows everybody everything.
pub fn others(sddl: &str) -> Vec<String> {
    let Some(list) = sddl.split("D:").nth(1) else { return vec!["everybody".to_owned()] };
    let list = list.split("S:(").next().unwrap_or(list);
    if list.starts_with("NO_ACCESS_CONTROL") {
        return vec!["everybody".to_owned()];
    }
    let mut found = Vec::new();
    for entry in list.split('(').skip(1) {
        let mut fields = entry.trim_end_matches(')').split(';');
        let (Some(kind), Some(who)) = (fields.next(), fields.nth(4)) else { continue };
        let who = who.trim_end_matches(')');
        if !matches!(kind, "A" | "XA" | "OA") || MAY.contains(&who) {
            continue;
        }
        let name = NAMES.iter().find(|(sid, _)| *sid == who).map_or(who, |(_, name)| *name);
        if !found.iter().any(|known| known == name) {
            found.push(name.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_list_lets_nobody_else_in() {
        assert!(others(PRIVATE).is_empty() && others(PRIVATE_PIPE).is_empty());
    }

    #[test]
    fn strangers_are_named() {
        // What a folder made below ProgramData inherits.
        let inherited = "D:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIIOID;GA;;;CO)(A;OICIID;0x1200a9;;;BU)\
                         (A;CIID;DCLCRPCR;;;BU)";
        assert_eq!(others(inherited), ["all users of this machine"]);
        assert_eq!(others("O:BAG:SYD:(D;;FA;;;WD)(A;;FR;;;S-1-5-21-1-2-3-1001)"), ["S-1-5-21-1-2-3-1001"]);
        assert_eq!(others("D:NO_ACCESS_CONTROL"), ["everybody"]);
        assert_eq!(others("O:SY"), ["everybody"]);
    }
}
