//! Licence expressions: `(MIT OR Apache-2.0) AND Unicode-3.0`, and the older `MIT/Apache-2.0`.

use anyhow::{Context, bail};

/// Whether `accepts`, asked about single licences (`MIT`, `Apache-2.0 WITH LLVM-exception`), lets one way of reading
/// `expression` through.
pub(super) fn satisfied(expression: &str, accepts: &dyn Fn(&str) -> bool) -> anyhow::Result<bool> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut parser = Parser { words: spaced.split_whitespace().collect(), next: 0, accepts };
    let result = parser.any(0).with_context(|| format!("read the licence expression {expression:?}"))?;
    if parser.next != parser.words.len() {
        bail!("the licence expression {expression:?} goes on after its end");
    }
    Ok(result)
}

struct Parser<'a> {
    words: Vec<&'a str>,
    next: usize,
    accepts: &'a dyn Fn(&str) -> bool,
}

/// No licence nests deeper; more is a mistake or an attack on the stack.
const DEPTH_MAX: u32 = 16;

impl<'a> Parser<'a> {
    fn any(&mut self, depth: u32) -> anyhow::Result<bool> {
        let mut result = self.all(depth)?;
        while self.take("OR") {
            result |= self.all(depth)?;
        }
        Ok(result)
    }

    fn all(&mut self, depth: u32) -> anyhow::Result<bool> {
        let mut result = self.one(depth)?;
        while self.take("AND") {
            result &= self.one(depth)?;
        }
        Ok(result)
    }

    fn one(&mut self, depth: u32) -> anyhow::Result<bool> {
        if depth > DEPTH_MAX {
            bail!("nested too deep");
        }
        if self.take("(") {
            let result = self.any(depth + 1)?;
            if !self.take(")") {
                bail!("a parenthesis is not closed");
            }
            return Ok(result);
        }
        let name = self.word().context("a licence is missing")?;
        if self.take("WITH") {
            let exception = self.word().context("an exception is missing")?;
            return Ok((self.accepts)(&format!("{name} WITH {exception}")));
        }
        Ok((self.accepts)(name))
    }

    fn word(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    fn take(&mut self, wanted: &str) -> bool {
        let found = self.words.get(self.next) == Some(&wanted);
        self.next += usize::from(found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_bind_as_the_standard_says() {
        let accepts = |name: &str| ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&name);
        let cases = [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND GPL-3.0", false),
            ("MIT OR ISC AND GPL-3.0", true),
            ("(MIT OR ISC) AND GPL-3.0", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
        ];
        for (expression, wanted) in cases {
            assert_eq!(satisfied(expression, &accepts).unwrap(), wanted, "{expression}");
        }
        for broken in ["", "(MIT", "MIT)", "MIT AND", "MIT ISC"] {
            assert!(satisfied(broken, &accepts).is_err(), "{broken:?}");
        }
    }
}
