//! What stands on the page of NDES that hands out challenges. The page is in the language of the server, in UTF-16
//! without saying so; the challenge is the only thing on it that looks like one.

use zeroize::Zeroizing;

/// What a page says.
#[derive(PartialEq, Eq)]
pub(super) enum Said {
    /// Here is one.
    Challenge {
        password: Zeroizing<String>,
        /// Whether the words before it were known; if not, it was found by its looks.
        by_label: bool,
    },
    /// All are handed out.
    Full,
    /// The account may not enrol.
    NoPermission,
    /// Something else.
    Else,
}

/// Before the challenge, on an English server.
const LABEL: &str = "enrollment challenge password is";

/// Words of a page without a challenge, in lower case: that the cache is full. English ones are NDES's own; of other
/// languages the stems that any translation of "cache" has.
const FULL: &[&str] = &[
    "password cache is full",
    "cache",
    "caché",
    "keszt",
    "mezipam",
    "podręczn",
    "кэш",
    "キャッシュ",
    "캐시",
    "缓存",
    "快取",
];

/// The same for missing rights.
const NO_PERMISSION: &[&str] = &[
    "sufficient permission",
    "permission",
    "berechtigung",
    "autorisation",
    "autorizzazion",
    "permis",
    "machtiging",
    "behörighet",
    "tilladelse",
    "uprawnie",
    "oprávněn",
    "разрешен",
    "許可",
    "권한",
    "权限",
    "權限",
];

/// Reads a page.
pub(super) fn read(body: &[u8], length: usize) -> Said {
    let text = Zeroizing::new(decode(body));
    let lower = Zeroizing::new(text.to_lowercase());
    // Lower case may be longer than what it is made of; then the words are looked for where they would stand anyway.
    let label = lower.find(LABEL).filter(|_| lower.len() == text.len());
    let bold = bold(&text);
    let looks_right = |word: &str| word.len() == length && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let after = |at: usize| bold.iter().find(|(start, _)| *start > at).map(|(_, word)| *word);
    if let Some(word) = label.and_then(after).filter(|word| looks_right(word)) {
        return Said::Challenge { password: Zeroizing::new(word.to_owned()), by_label: true };
    }
    // The thumbprint is bold and hexadecimal too, but in groups, of another length, and comes first.
    if let Some((_, word)) = bold.iter().rev().find(|(_, word)| looks_right(word)) {
        return Said::Challenge { password: Zeroizing::new((*word).to_owned()), by_label: false };
    }
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    match (has(NO_PERMISSION), has(FULL)) {
        (true, _) => Said::NoPermission,
        (false, true) => Said::Full,
        (false, false) => Said::Else,
    }
}

/// Bold texts and where they begin.
fn bold(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = find(&text[at..], "<b>").map(|n| at + n + 3) {
        let Some(end) = find(&text[start..], "</b>").map(|n| start + n) else { break };
        found.push((start, text[start..end].trim()));
        at = end;
    }
    found
}

/// Case of tags differs between versions; ASCII only, so that places stay right.
fn find(text: &str, tag: &str) -> Option<usize> {
    text.as_bytes().windows(tag.len()).position(|window| window.eq_ignore_ascii_case(tag.as_bytes()))
}

/// UTF-16 by its mark or by its zeros, else UTF-8.
fn decode(body: &[u8]) -> String {
    let utf16 = |bytes: &[u8], little: bool| {
        let pairs = bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
        let units =
            pairs.map(|pair| if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) });
        char::decode_utf16(units).map(|unit| unit.unwrap_or('\u{fffd}')).collect()
    };
    match body {
        [0xff, 0xfe, rest @ ..] => return utf16(rest, true),
        [0xfe, 0xff, rest @ ..] => return utf16(rest, false),
        [0xef, 0xbb, 0xbf, rest @ ..] => return String::from_utf8_lossy(rest).into_owned(),
        _ => {}
    }
    // Tags are ASCII, so every second byte of theirs is zero: the second of the pair in UTF-16LE.
    let head = &body[..body.len().min(64) / 2 * 2];
    let zeros = |at: usize| head.iter().skip(at).step_by(2).filter(|byte| **byte == 0).count();
    let pairs = head.len() / 2;
    if pairs > 0 && zeros(1) * 4 >= pairs * 3 && zeros(0) == 0 {
        return utf16(body, true);
    }
    if pairs > 0 && zeros(0) * 4 >= pairs * 3 && zeros(1) == 0 {
        return utf16(body, false);
    }
    String::from_utf8_lossy(body).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const THUMBPRINT: &str = "<P> The thumbprint is: <B> 5B8E4F11 AA22BB33 44556677 8899AABB CCDDEEFF </B>";

    fn challenge(page: &str) -> Option<(String, bool)> {
        match read(page.as_bytes(), 16) {
            Said::Challenge { password, by_label } => Some((password.to_string(), by_label)),
            _ => None,
        }
    }

    #[test]
    fn the_challenge_is_found_in_any_language_and_encoding() {
        let english = format!(
            "<HTML>{THUMBPRINT} <P> The enrollment challenge password is: <B> 0123456789ABCDEF </B> <P>"
        );
        let found = ("0123456789ABCDEF".to_owned(), true);
        assert_eq!(challenge(&english), Some(found.clone()));
        let little: Vec<u8> = english.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = english.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [
            little.clone(),
            big.clone(),
            [&[0xff, 0xfe], little.as_slice()].concat(),
            [&[0xfe, 0xff], big.as_slice()].concat(),
            [&[0xef, 0xbb, 0xbf], english.as_bytes()].concat(),
        ] {
            let Said::Challenge { password, by_label } = read(&bytes, 16) else { panic!("not found") };
            assert_eq!((password.to_string(), by_label), found);
        }
        let german =
            "<html><b>5B8E4F11AA22BB3344556677</b>Kennwort für die Registrierung: <b>0123456789ABCDEF</b>";
        assert_eq!(challenge(german), Some(("0123456789ABCDEF".to_owned(), false)));
        // Capital dotted I is longer in lower case: places must not slip.
        let turkish = format!("<html>{} kayıt: <B> 0123456789abcdef </B>", "İ".repeat(9));
        assert_eq!(challenge(&turkish), Some(("0123456789abcdef".to_owned(), false)));
    }

    #[test]
    fn the_thumbprint_is_never_taken() {
        assert_eq!(challenge(&format!("<HTML>{THUMBPRINT}")), None);
        assert_eq!(challenge("<b>5B8E4F11AA22BB3344556677</b>"), None);
        assert_eq!(challenge("<b>0123456789ABCDEG</b> <b>0123456789ABCDE"), None);
    }

    #[test]
    fn pages_without_a_challenge_say_why() {
        for (page, said) in [
            ("<P> The password cache is full. <P>", "full"),
            ("<P> Der Kennwortcache ist voll. <P>", "full"),
            ("<P> You do not have sufficient permission to enroll with SCEP.", "permission"),
            ("<P> Vous ne disposez pas des autorisations suffisantes", "permission"),
            ("<P> 密码缓存已满。", "full"),
            ("<h1>It works!</h1>", "else"),
            ("", "else"),
        ] {
            let found = match read(page.as_bytes(), 16) {
                Said::Challenge { .. } => "challenge",
                Said::Full => "full",
                Said::NoPermission => "permission",
                Said::Else => "else",
            };
            assert_eq!(found, said, "{page}");
        }
    }
}
