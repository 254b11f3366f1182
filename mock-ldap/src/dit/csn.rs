//! The order of changes over all servers: when, the how-manieth in that millisecond, and where it was made.

use super::time_text;

/// A change's stamp. Later wins when two servers changed the same thing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Csn {
    pub(crate) at_ms: i64,
    pub(crate) count: u32,
    /// Number of the origin: a server, or a server after a restore.
    pub(crate) origin: u16,
}

impl Csn {
    /// OpenLDAP's text: `20261122043735.123000Z#000000#001#000000`.
    pub(crate) fn text(self) -> String {
        let seconds = time_text::digits(self.at_ms);
        let micros = self.at_ms.rem_euclid(1000) * 1000;
        format!("{seconds}.{micros:06}Z#{:06x}#{:03x}#000000", self.count, self.origin)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('#');
        let (seconds, fraction) = parts.next()?.strip_suffix('Z')?.split_once('.')?;
        let micros: i64 = fraction.parse().ok().filter(|_| fraction.len() == 6)?;
        let at_ms = time_text::parse(seconds.as_bytes())? + micros / 1000;
        let count = u32::from_str_radix(parts.next()?, 16).ok()?;
        let origin = u16::from_str_radix(parts.next()?, 16).ok()?;
        u32::from_str_radix(parts.next()?, 16).ok()?;
        parts.next().is_none().then_some(Self { at_ms, count, origin })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_comes_back_and_orders_like_the_stamp() {
        let early = Csn { at_ms: 1_795_322_255_123, count: 0, origin: 1 };
        let late = Csn { count: 1, ..early };
        assert_eq!(early.text(), "20261122043735.123000Z#000000#001#000000");
        assert_eq!(Csn::parse(&early.text()), Some(early));
        assert!(early.text() < late.text() && early < late);
        for bad in ["", "20261122043735.123000Z#000000#001", "x#0#0#0", "20261122043735Z#000000#001#000000"] {
            assert_eq!(Csn::parse(bad), None, "{bad}");
        }
    }
}
