//! Changes single values of a TOML text and leaves everything else, comments included, as a person wrote it.

use std::ops::Range;

use anyhow::bail;
use toml::de::{DeTable, DeValue};

/// A TOML text under change.
#[derive(Clone)]
pub struct Document(String);

impl Document {
    /// Begins with a text that parses.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text as it is now.
    pub fn into_text(self) -> String {
        self.0
    }

    /// The text as it is now.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Removes `key` from `[table]` (a path, see [`child`]), with its line. Does nothing when it is not there.
    ///
    /// # Errors
    /// When the text does not parse, or the key shares its line with others.
    pub fn unset(&mut self, table: &str, key: &str) -> anyhow::Result<()> {
        let Some(value) = self.place_of_value(table, key)? else { return Ok(()) };
        let start = self.0[..value.start].rfind('\n').map_or(0, |at| at + 1);
        let end = self.0[value.end..].find('\n').map_or(self.0.len(), |at| value.end + at + 1);
        let before = self.0[start..value.start].trim();
        let after = self.0[value.end..end].trim();
        let alone = before.strip_suffix('=').is_some_and(|name| parts(name.trim()) == [key])
            && (after.is_empty() || after.starts_with('#'));
        if !alone {
            bail!("agent.toml writes {table}.{key} in a form that cannot be removed; edit it by hand");
        }
        self.0.replace_range(start..end, "");
        Ok(())
    }

    /// Sets `key` in `[table]` (a path, see [`child`]). Other lines stay as they are.
    ///
    /// # Errors
    /// When the text does not parse, or a part of the path is no table.
    pub fn set(&mut self, table: &str, key: &str, value: &toml::Value) -> anyhow::Result<()> {
        let value = value.to_string();
        if let Some(place) = self.place_of_value(table, key)? {
            self.0.replace_range(place, &value);
            return Ok(());
        }
        let line = format!("{} = {value}\n", quoted(key));
        match self.end_of_table(table) {
            Some(at) => self.0.insert_str(at, &line),
            None => {
                if !self.0.is_empty() && !self.0.ends_with('\n') {
                    self.0.push('\n');
                }
                let gap = if self.0.is_empty() { "" } else { "\n" };
                self.0.push_str(&format!("{gap}[{table}]\n{line}"));
            }
        }
        // Inline tables and dotted keys can make an addition impossible; better to say so than to write it.
        if let Err(error) = DeTable::parse(&self.0) {
            bail!(
                "agent.toml defines [{table}] in a form that cannot be added to ({}); edit it by hand",
                error.message()
            );
        }
        Ok(())
    }

    fn place_of_value(&self, table: &str, key: &str) -> anyhow::Result<Option<Range<usize>>> {
        let root =
            DeTable::parse(&self.0).map_err(|error| anyhow::anyhow!("agent.toml: {}", error.message()))?;
        let mut current = root.get_ref();
        for part in parts(table) {
            match current.get(part.as_str()).map(|value| value.get_ref()) {
                Some(DeValue::Table(inner)) => current = inner,
                Some(_) => bail!("agent.toml: {table} is not a table"),
                None => return Ok(None),
            }
        }
        Ok(current.get(key).map(|value| value.span()))
    }

    /// Where a line can be added to `[table]`: behind its last line that is neither blank nor a comment.
    fn end_of_table(&self, table: &str) -> Option<usize> {
        let values = self.values();
        let wanted = parts(table);
        let (mut offset, mut inside, mut end) = (0, false, None);
        for line in self.0.split_inclusive('\n') {
            let start = offset;
            offset += line.len();
            let trimmed = line.trim();
            if trimmed.starts_with('[') && is_outside(&values, start) {
                inside = header(trimmed) == wanted;
                if inside {
                    end = Some(offset);
                }
            } else if inside && !trimmed.is_empty() && !trimmed.starts_with('#') {
                end = Some(offset);
            }
        }
        end.filter(|end| self.0[..*end].ends_with('\n'))
    }

    /// Where values are, tables excepted, by their beginning.
    fn values(&self) -> Vec<Range<usize>> {
        fn collect(table: &DeTable<'_>, into: &mut Vec<Range<usize>>) {
            for (_, value) in table.iter() {
                match value.get_ref() {
                    DeValue::Table(inner) => collect(inner, into),
                    _ => into.push(value.span()),
                }
            }
        }
        let mut values = Vec::new();
        if let Ok(root) = DeTable::parse(&self.0) {
            collect(root.get_ref(), &mut values);
        }
        values.sort_by_key(|value| value.start);
        values
    }
}

/// Whether a line begins outside every value: a line of a list may begin with a bracket too.
fn is_outside(values: &[Range<usize>], offset: usize) -> bool {
    let before = values.partition_point(|value| value.start <= offset);
    before.checked_sub(1).is_none_or(|last| !values[last].contains(&offset))
}

/// The path of a table within another, as TOML writes it: `directory.default`, `directory."corp.example"`.
pub fn child(table: &str, name: &str) -> String {
    format!("{table}.{}", quoted(name))
}

fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare {
        return key.to_owned();
    }
    let mut text = String::from('"');
    for c in key.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => text.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// The parts of a path.
pub fn parts(path: &str) -> Vec<String> {
    header(&format!("[{path}]"))
}

/// The parts of the path in the line that begins a table; the parser itself knows quotes and comments best.
fn header(line: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let Ok(root) = DeTable::parse(line) else { return parts };
    let mut current = Some(root.get_ref());
    while let Some((key, value)) = current.and_then(|table| table.iter().next()) {
        parts.push(key.get_ref().to_string());
        let value = match value.get_ref() {
            DeValue::Array(tables) => tables.iter().next().map(|table| table.get_ref()),
            other => Some(other),
        };
        current = value.and_then(DeValue::as_table);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, changes: &[(&str, &str, toml::Value)]) -> String {
        let mut document = Document::new(text.to_owned());
        for (table, key, value) in changes {
            document.set(table, key, value).unwrap();
        }
        document.into_text()
    }

    #[test]
    fn comments_and_order_survive() {
        let before = "# ours\n[cloud] # the cloud\nurl = \"https://a\" # why\n\n# about proxies\n[proxy]\nurl = \"http://p\"\n";
        let after = edited(
            before,
            &[
                ("cloud", "url", "https://b".into()),
                ("cloud", "ca_file", "x.pem".into()),
                ("limits", "actions_at_once", 3.into()),
            ],
        );
        assert_eq!(
            after,
            "# ours\n[cloud] # the cloud\nurl = \"https://b\" # why\nca_file = \"x.pem\"\n\n# about proxies\n[proxy]\nurl = \"http://p\"\n\n[limits]\nactions_at_once = 3\n"
        );
    }

    #[test]
    fn lists_over_several_lines_are_replaced_whole() {
        let before = "[directory.default]\nservers = [\n  \"ldaps://a\", # first\n  \"ldaps://b\",\n]\nbase_dn = \"x\"\n";
        let servers = toml::Value::Array(vec!["ldaps://c".into()]);
        let after = edited(before, &[("directory.default", "servers", servers)]);
        assert_eq!(after, "[directory.default]\nservers = [\"ldaps://c\"]\nbase_dn = \"x\"\n");
    }

    #[test]
    fn a_removed_key_takes_its_line_with_it() {
        let mut document =
            Document::new("[proxy]\nurl = \"http://p\" # why\nx = 1\n[a]\nb = { c = 1 }\n".to_owned());
        document.unset("proxy", "url").unwrap();
        document.unset("proxy", "absent").unwrap();
        assert!(document.unset("a.b", "c").is_err());
        assert_eq!(document.into_text(), "[proxy]\nx = 1\n[a]\nb = { c = 1 }\n");
    }

    #[test]
    fn a_name_may_hold_dots_and_anything_else() {
        for name in ["corp.example", "a]b # c", "\"quoted\\\"", "with\ttab", "gr\u{fc}n"] {
            let table = child("directory", name);
            let before = "[log]\nlevel = \"warn\"\n".to_owned();
            let mut document = Document::new(before.clone());
            document.set(&table, "page_size", &5.into()).unwrap();
            // The second key finds the table of the first one.
            document.set(&table, "base_dn", &"x".into()).unwrap();
            document.set(&table, "page_size", &6.into()).unwrap();
            let back: toml::Table = document.text().parse().unwrap();
            let directories = back["directory"].as_table().unwrap();
            assert_eq!(directories.keys().collect::<Vec<_>>(), [name], "{}", document.text());
            assert_eq!(directories[name]["page_size"].as_integer(), Some(6));
            assert_eq!(directories[name].as_table().unwrap().len(), 2);
            document.unset(&table, "page_size").unwrap();
            assert!(document.text().starts_with(&before) && !document.text().contains("page_size"));
        }
    }

    #[test]
    fn hostile_values_stay_values() {
        let value = "a\"]\n[limits]\nallow_cloud_endpoints = true #";
        let after = edited("", &[("directory.default", "bind_dn", value.into())]);
        let back: toml::Table = after.parse().unwrap();
        assert_eq!(back["directory"]["default"]["bind_dn"].as_str(), Some(value));
        assert_eq!(back.len(), 1);
    }
}
