//! Fragments on their way to the client: of the pool, or of one pipeline.

use std::collections::VecDeque;

use causeway_protocol::psrp::Fragmenter;

use super::twist::BadFragments;

/// How an answer takes what waits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Take {
    /// Largest sum of stream elements, as base64.
    pub(super) text_max_bytes: usize,
    /// Largest stream element before base64.
    pub(super) element_max_bytes: usize,
    /// Elements of exactly so many bytes, wherever fragments end.
    pub(super) split_bytes: Option<usize>,
    pub(super) bad: Option<BadFragments>,
}

/// What waits for a Receive. Fragments stay whole on their way unless a fault splits them: pypsrp takes whole ones
/// only.
#[derive(Default)]
pub(super) struct Outbox {
    fragments: VecDeque<Vec<u8>>,
    size_bytes: usize,
}

impl Outbox {
    pub(super) fn push(&mut self, fragmenter: &mut Fragmenter, message: &[u8], blob_max_bytes: usize) {
        for fragment in fragmenter.cut(message, blob_max_bytes) {
            self.size_bytes += fragment.len();
            self.fragments.push_back(fragment);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// Bytes that wait.
    pub(super) fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Forgets what nobody will fetch.
    pub(super) fn clear(&mut self) {
        self.fragments.clear();
        self.size_bytes = 0;
    }

    /// The contents of stream elements for one answer. At least one is taken, or a client with a tiny envelope would
    /// wait for ever.
    pub(super) fn take(&mut self, how: &Take) -> Vec<Vec<u8>> {
        let mut elements: Vec<Vec<u8>> = Vec::new();
        let mut text_bytes = 0;
        while let Some(fragment) = self.fragments.front() {
            let more = text_length(fragment.len());
            if !elements.is_empty() && text_bytes + more > how.text_max_bytes {
                break;
            }
            let Some(fragment) = self.fragments.pop_front() else { break };
            self.size_bytes -= fragment.len();
            text_bytes += more;
            match elements.last_mut() {
                Some(last) if last.len() + fragment.len() <= how.element_max_bytes => {
                    last.extend_from_slice(&fragment)
                }
                _ => elements.push(fragment),
            }
        }
        if let Some(size) = how.split_bytes {
            elements = self.split(&elements.concat(), size);
        }
        match how.bad {
            Some(bad) => spoil(elements, bad),
            None => elements,
        }
    }

    /// Cuts at every `size` bytes and keeps the odd rest for the next answer, unless nothing else follows.
    fn split(&mut self, bytes: &[u8], size: usize) -> Vec<Vec<u8>> {
        let whole = bytes.len() - bytes.len() % size;
        let (now, later) =
            if whole == 0 || self.is_empty() { (bytes, &[][..]) } else { bytes.split_at(whole) };
        if !later.is_empty() {
            self.size_bytes += later.len();
            self.fragments.push_front(later.to_vec());
        }
        now.chunks(size).map(<[u8]>::to_vec).collect()
    }
}

/// Length of base64 with the element around it.
fn text_length(bytes: usize) -> usize {
    const ELEMENT_BYTES: usize = 110;
    bytes.div_ceil(3) * 4 + ELEMENT_BYTES
}

fn spoil(mut elements: Vec<Vec<u8>>, bad: BadFragments) -> Vec<Vec<u8>> {
    match bad {
        BadFragments::Huge => {
            let mut header = vec![0; 16];
            header[7] = 99;
            header.push(3);
            header.extend_from_slice(&u32::MAX.to_be_bytes());
            vec![header]
        }
        BadFragments::Twice => {
            if let Some(first) = elements.first().cloned() {
                elements.insert(0, first);
            }
            elements
        }
        BadFragments::Reversed => {
            elements.reverse();
            elements
        }
        BadFragments::Endless => {
            elements.iter_mut().for_each(|element| never_ends(element));
            elements
        }
        // Those are made where the text or the message is.
        BadFragments::NotBase64 | BadFragments::Deep | BadFragments::Laughs | BadFragments::Doctype => {
            elements
        }
    }
}

/// Takes the end flag off every fragment of an element (MS-PSRP 2.2.4).
fn never_ends(mut element: &mut [u8]) {
    const HEADER_BYTES: usize = 21;
    const FLAGS_AT: usize = 16;
    const END: u8 = 0b10;
    while let Some((header, rest)) = element.split_at_mut_checked(HEADER_BYTES) {
        header[FLAGS_AT] &= !END;
        let length = header[FLAGS_AT + 1..].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        element = rest.get_mut(length..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Outbox {
        let (mut fragmenter, mut outbox) = (Fragmenter::new(), Outbox::default());
        for message in [&b"first"[..], b"second", b"third"] {
            outbox.push(&mut fragmenter, message, 4);
        }
        outbox
    }

    fn all(outbox: &mut Outbox, how: &Take) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !outbox.is_empty() {
            bytes.extend(outbox.take(how).concat());
        }
        bytes
    }

    #[test]
    fn whatever_the_sizes_the_bytes_are_the_same() {
        let expected = all(&mut filled(), &Take { text_max_bytes: 10_000, ..Take::default() });
        assert_eq!(expected.len(), 6 * 21 + 16);
        for text_max_bytes in [0, 140, 300] {
            for split_bytes in [None, Some(1), Some(5), Some(64)] {
                let how = Take { text_max_bytes, element_max_bytes: 60, split_bytes, bad: None };
                let mut outbox = filled();
                assert_eq!(all(&mut outbox, &how), expected, "{how:?}");
                assert_eq!(outbox.size_bytes(), 0);
            }
        }
    }

    #[test]
    fn an_answer_keeps_to_the_envelope_and_to_whole_fragments() {
        let mut outbox = filled();
        let how = Take { text_max_bytes: 300, element_max_bytes: 0, ..Take::default() };
        let elements = outbox.take(&how);
        assert_eq!(elements.iter().map(Vec::len).collect::<Vec<_>>(), [25, 22]);
        assert_eq!(outbox.size_bytes(), 4 * 21 + 11);
    }
}
