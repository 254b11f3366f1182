//! Fragments (MS-PSRP 2.2.4): messages cut so that each piece fits into an envelope.

use std::collections::{HashMap, VecDeque};

use thiserror::Error;

use crate::limits::{
    PSRP_FRAGMENT_MAX_BYTES, PSRP_MESSAGE_MAX_BYTES, PSRP_OPEN_MESSAGES_MAX, PSRP_RECENT_MESSAGES,
};

/// Object id, fragment id, flags and length of the blob, big-endian.
pub const FRAGMENT_HEADER_BYTES: usize = 21;

const START: u8 = 1;
const END: u8 = 2;

/// Why bytes are no fragments of this stream. All of them end the stream: nothing behind is where it should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FragmentError {
    /// The header alone says so; nothing is kept for it.
    #[error("a fragment claims {bytes} bytes")]
    TooLong {
        /// What the header says.
        bytes: u32,
    },
    /// A message of more than [`PSRP_MESSAGE_MAX_BYTES`], or several of them unfinished at once.
    #[error("a message has more than {PSRP_MESSAGE_MAX_BYTES} bytes")]
    MessageTooLong,
    /// More than [`PSRP_OPEN_MESSAGES_MAX`] unfinished messages.
    #[error("more than {PSRP_OPEN_MESSAGES_MAX} messages are unfinished")]
    TooManyOpen,
    /// A fragment that is not the next of its message, or begins one that has begun.
    #[error("fragment {fragment} of message {object} came when {expected} was next")]
    OutOfOrder {
        /// The message.
        object: u64,
        /// What came.
        fragment: u64,
        /// What should have come.
        expected: u64,
    },
    /// A fragment of a message that was complete.
    #[error("message {object} came again")]
    Repeated {
        /// The message.
        object: u64,
    },
    /// The stream ended within a fragment or message.
    #[error("the stream ended within a message")]
    Unfinished,
}

/// Cuts messages of one direction.
#[derive(Clone, Debug)]
pub struct Fragmenter {
    next_object: u64,
}

impl Default for Fragmenter {
    fn default() -> Self {
        Self { next_object: 1 }
    }
}

impl Fragmenter {
    /// Counts from one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The fragments of a message, whose blobs have at most so many bytes (at least one).
    pub fn cut<'m>(&mut self, message: &'m [u8], blob_max: usize) -> impl Iterator<Item = Vec<u8>> + use<'m> {
        let object = self.next_object;
        self.next_object += 1;
        let blob_max = blob_max.clamp(1, PSRP_FRAGMENT_MAX_BYTES);
        let count = message.len().div_ceil(blob_max).max(1);
        (0..count).map(move |index| {
            let from = index * blob_max;
            let blob = &message[from..message.len().min(from + blob_max)];
            let flags = if index == 0 { START } else { 0 } | if index + 1 == count { END } else { 0 };
            let mut fragment = Vec::with_capacity(FRAGMENT_HEADER_BYTES + blob.len());
            fragment.extend_from_slice(&object.to_be_bytes());
            fragment.extend_from_slice(&u64::try_from(index).unwrap_or(u64::MAX).to_be_bytes());
            fragment.push(flags);
            // A blob has at most PSRP_FRAGMENT_MAX_BYTES.
            fragment.extend_from_slice(&u32::try_from(blob.len()).unwrap_or(u32::MAX).to_be_bytes());
            fragment.extend_from_slice(blob);
            fragment
        })
    }

    /// The whole message as one fragment after what is in `out`.
    pub fn append_whole(&mut self, message: &[u8], out: &mut Vec<u8>) {
        for fragment in self.cut(message, PSRP_FRAGMENT_MAX_BYTES) {
            out.extend_from_slice(&fragment);
        }
    }
}

/// Puts messages of one stream (a pool's or a pipeline's) together, from bytes cut anywhere.
#[derive(Debug, Default)]
pub struct Defragmenter {
    bytes: Vec<u8>,
    /// So many of them are done with.
    taken: usize,
    open: HashMap<u64, Open>,
    open_bytes: usize,
    recent: VecDeque<u64>,
}

/// An unfinished message.
#[derive(Debug)]
struct Open {
    next_fragment: u64,
    bytes: Vec<u8>,
}

struct Header {
    object: u64,
    fragment: u64,
    flags: u8,
    length: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (object, rest) = bytes.split_first_chunk()?;
        let (fragment, rest) = rest.split_first_chunk()?;
        let (flags, rest) = rest.split_first()?;
        let (length, _) = rest.split_first_chunk()?;
        Some(Self {
            object: u64::from_be_bytes(*object),
            fragment: u64::from_be_bytes(*fragment),
            flags: *flags,
            length: u32::from_be_bytes(*length),
        })
    }
}

impl Defragmenter {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes more of the stream. Messages should be taken out with [`Defragmenter::next_message`] before more is put in:
    /// what is put in is kept until then.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.taken));
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message that is complete, or `None` when more is needed.
    ///
    /// # Errors
    /// [`FragmentError`]; the stream is over.
    pub fn next_message(&mut self) -> Result<Option<Vec<u8>>, FragmentError> {
        while let Some(header) = Header::read(&self.bytes[self.taken..]) {
            let length = usize::try_from(header.length).unwrap_or(usize::MAX);
            if length > PSRP_FRAGMENT_MAX_BYTES {
                return Err(FragmentError::TooLong { bytes: header.length });
            }
            self.check(&header)?;
            let begin = self.taken + FRAGMENT_HEADER_BYTES;
            let Some(blob) = self.bytes.get(begin..begin + length) else { return Ok(None) };
            self.taken = begin + length;
            if header.flags & (START | END) == START | END {
                let message = blob.to_vec();
                self.finished(header.object);
                return Ok(Some(message));
            }
            self.open_bytes += length;
            if self.open_bytes > PSRP_MESSAGE_MAX_BYTES {
                return Err(FragmentError::MessageTooLong);
            }
            let open = self.open.entry(header.object).or_insert(Open { next_fragment: 0, bytes: Vec::new() });
            open.bytes.extend_from_slice(blob);
            open.next_fragment = header.fragment.saturating_add(1);
            if header.flags & END != 0
                && let Some(open) = self.open.remove(&header.object)
            {
                self.open_bytes -= open.bytes.len();
                self.finished(header.object);
                return Ok(Some(open.bytes));
            }
        }
        Ok(None)
    }

    /// Whether nothing is unfinished.
    ///
    /// # Errors
    /// [`FragmentError::Unfinished`]
    pub fn end(&self) -> Result<(), FragmentError> {
        let empty = self.taken == self.bytes.len() && self.open.is_empty();
        if empty { Ok(()) } else { Err(FragmentError::Unfinished) }
    }

    /// Whether the fragment may come now, by its header alone.
    fn check(&self, header: &Header) -> Result<(), FragmentError> {
        let (object, fragment) = (header.object, header.fragment);
        let starts = header.flags & START != 0;
        if self.recent.contains(&object) {
            return Err(FragmentError::Repeated { object });
        }
        let expected = self.open.get(&object).map_or(0, |open| open.next_fragment);
        // A start is fragment 0 and the other way round.
        if fragment != expected || starts != (fragment == 0) {
            return Err(FragmentError::OutOfOrder { object, fragment, expected });
        }
        if starts && self.open.len() >= PSRP_OPEN_MESSAGES_MAX {
            return Err(FragmentError::TooManyOpen);
        }
        Ok(())
    }

    fn finished(&mut self, object: u64) {
        if self.recent.len() >= PSRP_RECENT_MESSAGES {
            self.recent.pop_front();
        }
        self.recent.push_back(object);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fragment(object: u64, fragment: u64, flags: u8, blob: &[u8]) -> Vec<u8> {
        let length = u32::try_from(blob.len()).unwrap();
        [&object.to_be_bytes()[..], &fragment.to_be_bytes(), &[flags], &length.to_be_bytes(), blob].concat()
    }

    fn all(bytes: &[u8]) -> Result<Vec<Vec<u8>>, FragmentError> {
        let mut stream = Defragmenter::new();
        stream.push(bytes);
        let mut messages = Vec::new();
        while let Some(message) = stream.next_message()? {
            messages.push(message);
        }
        stream.end()?;
        Ok(messages)
    }

    #[test]
    fn interleaved_messages_come_out_as_they_are_complete() {
        let bytes = [
            fragment(1, 0, START, b"a"),
            fragment(2, 0, START | END, b"whole"),
            fragment(3, 0, START, b"x"),
            fragment(1, 1, 0, b"b"),
            fragment(3, 1, END, b"y"),
            fragment(1, 2, END, b"c"),
        ]
        .concat();
        assert_eq!(all(&bytes).unwrap(), [&b"whole"[..], b"xy", b"abc"]);
    }

    #[test]
    fn out_of_order_fragments_are_refused() {
        let bytes =
            [fragment(1, 0, START, b"a"), fragment(1, 2, END, b"c"), fragment(1, 1, 0, b"b")].concat();
        assert_eq!(all(&bytes), Err(FragmentError::OutOfOrder { object: 1, fragment: 2, expected: 1 }));
        let begun = fragment(7, 3, END, b"");
        assert_eq!(all(&begun), Err(FragmentError::OutOfOrder { object: 7, fragment: 3, expected: 0 }));
        let without_start = fragment(7, 0, END, b"");
        assert_eq!(
            all(&without_start),
            Err(FragmentError::OutOfOrder { object: 7, fragment: 0, expected: 0 })
        );
    }

    #[test]
    fn duplicated_fragments_are_refused() {
        let twice = fragment(1, 0, START | END, b"a").repeat(2);
        assert_eq!(all(&twice), Err(FragmentError::Repeated { object: 1 }));
        let begun_twice = fragment(1, 0, START, b"a").repeat(2);
        assert_eq!(all(&begun_twice), Err(FragmentError::OutOfOrder { object: 1, fragment: 0, expected: 1 }));
    }

    #[test]
    fn four_gigabytes_are_refused_by_the_header() {
        let mut header = fragment(1, 0, START | END, b"");
        header.truncate(FRAGMENT_HEADER_BYTES - 4);
        header.extend_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(all(&header), Err(FragmentError::TooLong { bytes: u32::MAX }));
    }

    #[test]
    fn a_missing_end_is_noticed() {
        assert_eq!(all(&fragment(1, 0, START, b"a")), Err(FragmentError::Unfinished));
        let cut = fragment(1, 0, START | END, b"abc");
        assert_eq!(all(&cut[..cut.len() - 1]), Err(FragmentError::Unfinished));
    }

    #[test]
    fn endless_messages_are_bounded() {
        let blob = vec![0; PSRP_FRAGMENT_MAX_BYTES];
        let mut stream = Defragmenter::new();
        let mut outcome = Ok(None);
        for index in 0..20 {
            stream.push(&fragment(index % 2, index / 2, if index < 2 { START } else { 0 }, &blob));
            outcome = stream.next_message();
            if outcome.is_err() {
                break;
            }
        }
        assert_eq!(outcome, Err(FragmentError::MessageTooLong));
        let many: Vec<u8> = (0..100).flat_map(|object| fragment(object, 0, START, b"")).collect();
        assert_eq!(all(&many), Err(FragmentError::TooManyOpen));
    }

    proptest! {
        #[test]
        fn any_cut_and_any_split_give_the_same_messages(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8),
            blob_max in 1usize..60,
            split in 1usize..40,
        ) {
            let mut fragmenter = Fragmenter::new();
            let bytes: Vec<u8> = messages.iter().flat_map(|message| fragmenter.cut(message, blob_max)).flatten().collect();
            let mut stream = Defragmenter::new();
            let mut seen = Vec::new();
            for part in bytes.chunks(split) {
                stream.push(part);
                while let Some(message) = stream.next_message().unwrap() {
                    seen.push(message);
                }
            }
            prop_assert_eq!(stream.end(), Ok(()));
            prop_assert_eq!(seen, messages);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = all(&bytes);
        }
    }
}
