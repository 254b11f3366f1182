//! OPATH filters: `DeviceAccessState -eq 'Quarantined' -and DeviceType -like 'iP*'`.

use crate::limits::{FILTER_DEPTH_MAX, FILTER_SIZE_MAX_BYTES};

/// A parsed filter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    And(Box<Filter>, Box<Filter>),
    Or(Box<Filter>, Box<Filter>),
    Not(Box<Filter>),
    Compare { property: String, operator: Operator, value: Literal },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
    Like,
    NotLike,
}

/// What a property is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    Text(String),
    Bool(bool),
    Null,
}

/// A property of an object, as filters see it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field<'a> {
    Text(std::borrow::Cow<'a, str>),
    Bool(bool),
    /// Unix milliseconds.
    Date(i64),
    Null,
}

impl<'a> From<&'a str> for Field<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl<'a> From<Option<&'a str>> for Field<'a> {
    fn from(text: Option<&'a str>) -> Self {
        text.map_or(Self::Null, |text| Self::Text(text.into()))
    }
}

impl Filter {
    /// Reads a filter whose properties `known` accepts.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub(super) fn parse(text: &str, known: impl Fn(&str) -> bool) -> Result<Self, String> {
        if text.len() > FILTER_SIZE_MAX_BYTES {
            return Err(format!("The filter is longer than {FILTER_SIZE_MAX_BYTES} characters."));
        }
        // `{ ... }` is a script block in a shell; over the wire its text arrives.
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens: &tokens, at: 0, known: &known };
        let filter = parser.either(0)?;
        match parser.tokens.get(parser.at) {
            None => Ok(filter),
            Some(token) => Err(format!("Invalid filter syntax: unexpected {token:?}.")),
        }
    }

    pub(super) fn matches<'a>(&self, field: &impl Fn(&str) -> Field<'a>) -> bool {
        match self {
            Self::And(a, b) => a.matches(field) && b.matches(field),
            Self::Or(a, b) => a.matches(field) || b.matches(field),
            Self::Not(inner) => !inner.matches(field),
            Self::Compare { property, operator, value } => compare(&field(property), *operator, value),
        }
    }
}

fn compare(field: &Field<'_>, operator: Operator, value: &Literal) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let order = match (field, value) {
        (Field::Null, Literal::Null) => Some(Equal),
        (Field::Null, Literal::Bool(false)) => Some(Equal),
        (Field::Bool(field), Literal::Bool(value)) => Some(field.cmp(value)),
        (Field::Bool(field), Literal::Text(text)) => {
            text.trim_start_matches('$').parse().ok().map(|value| field.cmp(&value))
        }
        (Field::Date(at), Literal::Text(text)) => parse_date(text).map(|value| at.cmp(&value)),
        (Field::Text(field), Literal::Text(text)) => match operator {
            Operator::Like => return like(text, field),
            Operator::NotLike => return !like(text, field),
            _ => Some(field.to_lowercase().cmp(&text.to_lowercase())),
        },
        (Field::Null, Literal::Text(_)) if operator == Operator::NotLike => return true,
        _ => None,
    };
    match (operator, order) {
        (Operator::Eq, order) => order == Some(Equal),
        (Operator::Ne, order) => order != Some(Equal),
        (Operator::Gt, order) => order == Some(Greater),
        (Operator::Ge, order) => matches!(order, Some(Greater | Equal)),
        (Operator::Lt, order) => order == Some(Less),
        (Operator::Le, order) => matches!(order, Some(Less | Equal)),
        (Operator::Like | Operator::NotLike, _) => false,
    }
}

/// `*` at the ends and in between, whatever the case.
pub(super) fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), text.to_lowercase());
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// Dates as people and programs write them in filters: ISO 8601, or month/day/year with an optional time.
fn parse_date(text: &str) -> Option<i64> {
    let text = text.trim();
    let (date, clock) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let part = |text: Option<&str>| text?.parse::<i64>().ok();
    let (year, month, day) = if date.contains('/') {
        let mut parts = date.split('/');
        let (month, day) = (part(parts.next())?, part(parts.next())?);
        (part(parts.next())?, month, day)
    } else {
        let mut parts = date.split('-');
        (part(parts.next())?, part(parts.next())?, part(parts.next())?)
    };
    let afternoon = clock.to_ascii_uppercase().contains("PM");
    let clock = clock.trim_end_matches('Z').split(['.', ' ', '+']).next()?;
    let mut parts = clock.split(':');
    let (hour, minute) = (part(parts.next())?, part(parts.next()).unwrap_or(0));
    let second = part(parts.next()).unwrap_or(0);
    let hour = if afternoon && hour < 12 { hour + 12 } else { hour };
    let month = time::Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date =
        time::Date::from_calendar_date(i32::try_from(year).ok()?, month, u8::try_from(day).ok()?).ok()?;
    let clock = time::Time::from_hms(
        u8::try_from(hour).ok()?,
        u8::try_from(minute).ok()?,
        u8::try_from(second).ok()?,
    )
    .ok()?;
    Some(date.with_time(clock).assume_utc().unix_timestamp() * 1_000)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    Operator(Operator),
    /// Between quotes.
    Quoted(String),
    Word(String),
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(first) = chars.peek().copied() {
        match first {
            space if space.is_whitespace() => {
                chars.next();
            }
            '(' | ')' => {
                chars.next();
                tokens.push(if first == '(' { Token::Open } else { Token::Close });
            }
            '\'' | '"' => {
                chars.next();
                tokens.push(Token::Quoted(quoted(&mut chars, first)?));
            }
            _ => {
                let mut word = String::new();
                while let Some(next) = chars.peek().copied()
                    && !next.is_whitespace()
                    && !matches!(next, '(' | ')' | '\'' | '"')
                {
                    word.push(next);
                    chars.next();
                }
                tokens.push(word_token(word)?);
            }
        }
    }
    Ok(tokens)
}

/// A quoted text; the quote itself is written twice inside.
fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, quote: char) -> Result<String, String> {
    let mut text = String::new();
    loop {
        match chars.next() {
            None => return Err("Invalid filter syntax: the string is missing the terminator.".to_owned()),
            Some(char) if char == quote => {
                if chars.peek() != Some(&quote) {
                    return Ok(text);
                }
                chars.next();
                text.push(quote);
            }
            Some(char) => text.push(char),
        }
    }
}

fn word_token(word: String) -> Result<Token, String> {
    let Some(operator) = word.strip_prefix('-') else { return Ok(Token::Word(word)) };
    Ok(match operator.to_ascii_lowercase().as_str() {
        "and" => Token::And,
        "or" => Token::Or,
        "not" => Token::Not,
        "eq" => Token::Operator(Operator::Eq),
        "ne" => Token::Operator(Operator::Ne),
        "gt" => Token::Operator(Operator::Gt),
        "ge" => Token::Operator(Operator::Ge),
        "lt" => Token::Operator(Operator::Lt),
        "le" => Token::Operator(Operator::Le),
        "like" => Token::Operator(Operator::Like),
        "notlike" => Token::Operator(Operator::NotLike),
        _ if operator.starts_with(|char: char| char.is_ascii_digit()) => Token::Word(word),
        _ => return Err(format!("Invalid filter syntax: '{word}' is not a valid operator.")),
    })
}

struct Parser<'a, F> {
    tokens: &'a [Token],
    at: usize,
    known: &'a F,
}

impl<F: Fn(&str) -> bool> Parser<'_, F> {
    fn either(&mut self, depth: usize) -> Result<Filter, String> {
        let mut left = self.both(depth)?;
        while self.take(&Token::Or) {
            left = Filter::Or(Box::new(left), Box::new(self.both(depth)?));
        }
        Ok(left)
    }

    fn both(&mut self, depth: usize) -> Result<Filter, String> {
        let mut left = self.one(depth)?;
        while self.take(&Token::And) {
            left = Filter::And(Box::new(left), Box::new(self.one(depth)?));
        }
        Ok(left)
    }

    fn one(&mut self, depth: usize) -> Result<Filter, String> {
        if depth >= FILTER_DEPTH_MAX {
            return Err("Invalid filter syntax: it is nested too deep.".to_owned());
        }
        if self.take(&Token::Not) {
            return Ok(Filter::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take(&Token::Open) {
            let inner = self.either(depth + 1)?;
            return if self.take(&Token::Close) {
                Ok(inner)
            } else {
                Err("Invalid filter syntax: missing closing ')'.".to_owned())
            };
        }
        let Some(Token::Word(property)) = self.tokens.get(self.at).cloned() else {
            return Err("Invalid filter syntax: a property name is expected.".to_owned());
        };
        if !(self.known)(&property) {
            return Err(format!("\"{property}\" isn't a valid property that can be used in a filter."));
        }
        let Some(Token::Operator(operator)) = self.tokens.get(self.at + 1).cloned() else {
            return Err(format!("Invalid filter syntax: an operator is expected after '{property}'."));
        };
        let value = match self.tokens.get(self.at + 2) {
            Some(Token::Quoted(text)) => Literal::Text(text.clone()),
            Some(Token::Word(word)) => match word.to_ascii_lowercase().as_str() {
                "$true" => Literal::Bool(true),
                "$false" => Literal::Bool(false),
                "$null" => Literal::Null,
                _ => Literal::Text(word.clone()),
            },
            _ => return Err(format!("Invalid filter syntax: a value is expected after '{property}'.")),
        };
        self.at += 3;
        Ok(Filter::Compare { property, operator, value })
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.tokens.get(self.at) == Some(token);
        self.at += usize::from(found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str) -> Field<'static> {
        match name.to_ascii_lowercase().as_str() {
            "deviceid" => "O'Brien*".into(),
            "state" => "Quarantined".into(),
            "managed" => Field::Bool(true),
            "first" => Field::Date(1_767_225_600_000),
            _ => Field::Null,
        }
    }

    fn holds(text: &str) -> bool {
        Filter::parse(text, |_| true).unwrap_or_else(|error| panic!("{text}: {error}")).matches(&field)
    }

    #[test]
    fn filters_compare_as_exchange_does() {
        for text in [
            "State -eq 'quarantined'",
            "{State -eq \"Quarantined\"}",
            "DeviceId -eq 'O''Brien*'",
            "State -like 'Quar*ned' -and Managed -eq $true",
            "State -ne 'Allowed' -and (Managed -eq $false -or First -gt '2025-12-31')",
            "-not (State -eq 'Allowed')",
            "Missing -eq $null",
            "First -lt '1/2/2026'",
            "Managed -eq 'true'",
        ] {
            assert!(holds(text), "{text}");
        }
        for text in [
            "DeviceId -eq 'O'",
            "State -like 'Quar'",
            "Managed -ne $true",
            "Missing -eq 'x'",
            "First -ge '1/2/2026 1:00:00 PM'",
        ] {
            assert!(!holds(text), "{text}");
        }
    }

    #[test]
    fn quoted_values_are_never_syntax() {
        assert!(!holds("DeviceId -eq 'x'' -or State -eq ''Quarantined'"));
    }

    #[test]
    fn wrong_filters_say_what_is_wrong() {
        for (text, word) in [
            ("State", "operator"),
            ("State -eq", "value"),
            ("State -eq 'x", "terminator"),
            ("State -foo 'x'", "-foo"),
            ("(State -eq 'x'", "closing"),
            ("State -eq 'x' State", "unexpected"),
            ("", "property"),
        ] {
            let error = Filter::parse(text, |_| true).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
        let error = Filter::parse("WhenChangedUTC -gt 'x'", |name| name == "DeviceId").expect_err("unknown");
        assert!(error.contains("WhenChangedUTC"), "{error}");
        assert!(Filter::parse(&"(".repeat(10_000), |_| true).is_err(), "depth is bounded");
    }
}
