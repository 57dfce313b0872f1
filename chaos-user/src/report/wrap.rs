//! Lines that fit.

/// Breaks at spaces, but not before a unit or within an interval; a word longer than the room stays whole.
pub(super) fn wrap(text: &str, room: usize) -> Vec<String> {
    let glued = [(" %", "\u{a0}%"), (" pp", "\u{a0}pp"), (", -", ",\u{a0}-"), (", +", ",\u{a0}+")]
        .iter()
        .fold(text.to_owned(), |text, (loose, glued)| text.replace(loose, glued));
    break_lines(&glued, room).into_iter().map(|line| line.replace('\u{a0}', " ")).collect()
}

fn break_lines(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { continue };
        let used = line.chars().count();
        if used > 0 && used + 1 + word.chars().count() > room {
            lines.push(word.to_owned());
        } else {
            if used > 0 {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("incomprehensibilities x", 5), ["incomprehensibilities", "x"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("by 5 % [-1, +2] pp", 8), ["by 5 %", "[-1, +2] pp"]);
    }
}
