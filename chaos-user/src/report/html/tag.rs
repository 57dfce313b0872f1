//! HTML that is well formed, also as XML, and in which nothing from elsewhere can be more than text.

/// A piece of a page. Only [`text`], [`tag`] and [`leaf`] make one, and they escape what they are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Html(String);

/// Attributes by name.
pub type Attributes<'a> = &'a [(&'static str, &'a str)];

impl Html {
    /// Both, one after the other.
    pub fn push(&mut self, other: Self) {
        self.0 += &other.0;
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As it stands in the file.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl FromIterator<Self> for Html {
    fn from_iter<I: IntoIterator<Item = Self>>(parts: I) -> Self {
        Self(parts.into_iter().map(|part| part.0).collect())
    }
}

/// As it is, without any meaning.
pub fn text(text: &str) -> Html {
    Html(escape(text))
}

/// An element around others.
pub fn tag(name: &'static str, attributes: Attributes<'_>, inside: impl IntoIterator<Item = Html>) -> Html {
    let inside: Html = inside.into_iter().collect();
    Html(format!("<{name}{}>{}</{name}>", written(attributes), inside.0))
}

/// An element that has nothing inside.
pub fn leaf(name: &'static str, attributes: Attributes<'_>) -> Html {
    Html(format!("<{name}{}/>", written(attributes)))
}

/// An element around a text.
pub fn words(name: &'static str, attributes: Attributes<'_>, words: &str) -> Html {
    tag(name, attributes, [text(words)])
}

/// What is written in this repository and not made of anything: a style sheet.
pub fn verbatim(name: &'static str, content: &'static str) -> Html {
    Html(format!("<{name}>\n{content}</{name}>"))
}

fn written(attributes: Attributes<'_>) -> String {
    attributes.iter().map(|(name, value)| format!(" {name}=\"{}\"", escape(value))).collect()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(letter),
            // XML has no way to write these.
            _ if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            _ => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_elsewhere_is_more_than_text() {
        let hostile = "</p><script>alert('1')</script>\0";
        let page = words("p", &[("title", "a\" onclick=\"b")], hostile).into_string();
        assert_eq!(
            page,
            "<p title=\"a&quot; onclick=&quot;b\">&lt;/p&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;\u{fffd}</p>"
        );
    }
}
