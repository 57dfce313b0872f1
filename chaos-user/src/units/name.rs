//! What names of DNS end with: `example.com`, `*.svc.cluster.local`.

use std::{fmt, str::FromStr};

use chaos_common::dns::{MAX_LABEL_BYTES, MAX_NAME_BYTES};

use super::{BadValue, quoted};

/// A name and what is below it, or only what is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameSuffix {
    /// In lower case, without a dot at its end.
    pub name: String,
    /// Whether the name itself is left out.
    pub below_only: bool,
}

impl NameSuffix {
    /// The beginning of the [keys](chaos_common::dns::write_key) of all that ends with it.
    pub fn key(&self) -> Vec<u8> {
        let label = |label: &str| [&[label.len() as u8], label.as_bytes()].concat();
        let wire: Vec<u8> = self.name.split('.').flat_map(label).collect();
        wire.into_iter().rev().collect()
    }
}

impl FromStr for NameSuffix {
    type Err = BadValue;

    fn from_str(text: &str) -> Result<Self, BadValue> {
        let trimmed = text.trim().to_ascii_lowercase();
        let (name, below_only) = match trimmed.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (trimmed.as_str(), false),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        check(name).map_err(|right| BadValue::new(format!("{} is not a name", quoted(text)), right))?;
        Ok(Self { name: name.to_owned(), below_only })
    }
}

/// What would be right if this is no name (RFC 1035, section 2.3; underscores are in use, RFC 8552).
fn check(name: &str) -> Result<(), String> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name == "*" {
        return Err("leave `names` out for all names".into());
    }
    if !name.is_ascii() {
        return Err("write it as DNS has it, such as `xn--bcher-kva.example` (Punycode)".into());
    }
    if name.contains('*') {
        return Err("write `*.` in front, or no `*` at all".into());
    }
    // On the wire, each label has its length in front, and an empty one ends the name.
    if name.len() + 2 > MAX_NAME_BYTES {
        return Err(format!("names have at most {} characters", MAX_NAME_BYTES - 2));
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL_BYTES {
            return Err(format!("write 1 to {MAX_LABEL_BYTES} characters between two dots"));
        }
        if !label.chars().all(known) {
            return Err("write letters, digits, `-`, `_` and dots, such as `example.com`".into());
        }
    }
    Ok(())
}

impl fmt::Display for NameSuffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below_only { "*." } else { "" }, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for text in
            ["example.com", "*.svc.cluster.local", "localhost", "_sip._tcp.a-b.c", "4.3.2.1.in-addr.arpa"]
        {
            assert_eq!(text.parse::<NameSuffix>().unwrap().to_string(), text);
        }
        assert_eq!("Example.COM.".parse::<NameSuffix>().unwrap().to_string(), "example.com");
    }

    #[test]
    fn keys_are_backwards() {
        assert_eq!("*.Example.com".parse::<NameSuffix>().unwrap().key(), b"moc\x03elpmaxe\x07");
    }

    #[test]
    fn names_refused() {
        for (text, part) in [
            ("", "leave `names` out"),
            (".", "leave `names` out"),
            ("*", "leave `names` out"),
            ("*.", "leave `names` out"),
            ("a..b", "between two dots"),
            (".a", "between two dots"),
            ("a.*.b", "in front"),
            ("bücher.example", "Punycode"),
            ("http://a", "such as `example.com`"),
            ("a b", "such as `example.com`"),
            (&"x".repeat(64), "1 to 63 characters"),
            (&"x.".repeat(127), ""),
            (&"xy.".repeat(85), "at most 253"),
        ] {
            match text.parse::<NameSuffix>() {
                Ok(_) => assert!(part.is_empty(), "{text} was accepted"),
                Err(error) => {
                    assert!(error.to_string().contains(part) && !part.is_empty(), "{text}: {error}")
                }
            }
        }
    }
}
