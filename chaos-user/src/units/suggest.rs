//! "Did you mean": near misses.

/// Longer words are slips of nothing, and take long to compare: some lists have hundreds of candidates.
const MAX_WORD_BYTES: usize = 64;

/// The candidate that `word` was probably meant to be, if one is near enough.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_WORD_BYTES {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let chars = word.chars().count();
    // Jaro–Winkler favours a common beginning, which one slip at the start of a short word spoils. One slip changes the
    // length by one at most, which spares most of the comparisons.
    let slips = |candidate: &str| match chars.abs_diff(candidate.len()) {
        0 | 1 => strsim::osa_distance(&word, candidate),
        more => more,
    };
    let likeness = |candidate: &str| match slips(candidate) {
        0 => f64::INFINITY,
        1 if candidate.len() >= 3 => 1.0,
        _ => strsim::jaro_winkler(&word, candidate),
    };
    candidates
        .into_iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, candidate)| candidate)
}

/// Advice for a word that is none of `candidates`: the nearest one, or all of them.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, candidates.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known: {}", list(candidates)),
    }
}

/// `a`, `b`, `c`.
pub fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_found_and_far_ones_are_not() {
        let words = ["percent", "peers", "ports", "local_ports", "protocol"];
        assert_eq!(nearest("percnt", words), Some("percent"));
        assert_eq!(nearest("Peer", words), Some("peers"));
        assert_eq!(nearest("local-ports", words), Some("local_ports"));
        assert_eq!(nearest("OPENAT", ["openat", "openat2"]), Some("openat"));
        assert_eq!(nearest("1h", ["p", "r", "1-h", "1-k"]), Some("1-h"));
        assert_eq!(nearest("frequency", words), None);
        let long = "percent".repeat(10);
        assert_eq!(nearest(&long, [long.as_str()]), None);
        assert_eq!(did_you_mean("frequency", ["a", "b"]), "known: `a`, `b`");
    }
}
