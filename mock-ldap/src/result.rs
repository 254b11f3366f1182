//! Names of the LDAP result codes (RFC 4511 appendix A and the registry): the words of journals and fault rules.

use crate::dit::ResultCode;

const WORDS: &[(u32, &str)] = &[
    (0, "success"),
    (1, "operationsError"),
    (2, "protocolError"),
    (3, "timeLimitExceeded"),
    (4, "sizeLimitExceeded"),
    (5, "compareFalse"),
    (6, "compareTrue"),
    (7, "authMethodNotSupported"),
    (8, "strongerAuthRequired"),
    (10, "referral"),
    (11, "adminLimitExceeded"),
    (12, "unavailableCriticalExtension"),
    (13, "confidentialityRequired"),
    (14, "saslBindInProgress"),
    (16, "noSuchAttribute"),
    (17, "undefinedAttributeType"),
    (18, "inappropriateMatching"),
    (19, "constraintViolation"),
    (20, "attributeOrValueExists"),
    (21, "invalidAttributeSyntax"),
    (32, "noSuchObject"),
    (33, "aliasProblem"),
    (34, "invalidDNSyntax"),
    (36, "aliasDereferencingProblem"),
    (48, "inappropriateAuthentication"),
    (49, "invalidCredentials"),
    (50, "insufficientAccessRights"),
    (51, "busy"),
    (52, "unavailable"),
    (53, "unwillingToPerform"),
    (54, "loopDetect"),
    (60, "sortControlMissing"),
    (61, "offsetRangeError"),
    (64, "namingViolation"),
    (65, "objectClassViolation"),
    (66, "notAllowedOnNonLeaf"),
    (67, "notAllowedOnRDN"),
    (68, "entryAlreadyExists"),
    (69, "objectClassModsProhibited"),
    (71, "affectsMultipleDSAs"),
    (76, "virtualListViewError"),
    (80, "other"),
    (4096, "e-syncRefreshRequired"),
];

/// The registered name of a code, or its number.
pub fn word(code: ResultCode) -> String {
    match WORDS.binary_search_by_key(&code.0, |(number, _)| *number) {
        Ok(at) => WORDS[at].1.to_owned(),
        Err(_) => code.0.to_string(),
    }
}

/// A code by its number, its registered name, or that name in snake case (`invalid_credentials`).
pub fn parse(text: &str) -> Option<ResultCode> {
    if let Ok(number) = text.parse() {
        return Some(ResultCode(number));
    }
    let plain = |word: &str| word.replace(['_', '-'], "").to_ascii_lowercase();
    let wanted = plain(text);
    WORDS.iter().find(|(_, word)| plain(word) == wanted).map(|(number, _)| ResultCode(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_name_the_same_code() {
        assert!(WORDS.is_sorted_by_key(|(number, _)| *number));
        for text in ["51", "busy", "Busy"] {
            assert_eq!(parse(text), Some(ResultCode::BUSY), "{text}");
        }
        assert_eq!(parse("invalid_credentials"), Some(ResultCode::INVALID_CREDENTIALS));
        assert_eq!(parse("sync_refresh_required"), None);
        assert_eq!(parse("no such word"), None);
        assert_eq!(
            (word(ResultCode(49)), word(ResultCode(999))),
            ("invalidCredentials".into(), "999".into())
        );
    }
}
