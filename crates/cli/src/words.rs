//! Numbers as people read them.

/// The longest line that is shown; what strangers wrote may have no end.
const LINE: usize = 400;

/// Text that may hold what strangers wrote: nothing in it moves a terminal's cursor, and no line is without end.
pub(crate) fn plain(text: &str) -> String {
    let line = |line: &str| {
        let count = line.chars().count();
        let mut shown = String::new();
        for character in line.chars().take(if count > LINE { LINE * 3 / 4 } else { count }) {
            // Marks that turn the direction of writing hide what a line says.
            let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            match character {
                '\t' => shown.push('\t'),
                other if other.is_control() || turns => shown.extend(other.escape_unicode()),
                other => shown.push(other),
            }
        }
        if count > LINE {
            shown += &format!(" ... ({count} characters)");
        }
        shown
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 step`, `2 steps`.
pub(crate) fn things(number: usize, one: &str) -> String {
    format!("{} {one}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A duration: `0:07`, `12:34`, `1:02:03`.
pub(crate) fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{rest:02}")
    } else {
        format!("{minutes}:{rest:02}")
    }
}

/// A measurement in four significant digits; very small and very large ones with an exponent.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !value.is_finite() {
        "not finite".to_owned()
    } else if !(1e-3..1e6).contains(&size) {
        format!("{value:.2e}")
    } else {
        let digits = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
        format!("{value:.digits$}")
    }
}

/// Operations: `3.2 TFLOP`.
pub(crate) fn flop(flops: f64) -> String {
    let units = ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"];
    let (mut value, mut unit) = (flops, 0);
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_a_person_would_write_them() {
        assert_eq!(
            (count(7), count(1234), count(1_234_567)),
            ("7".into(), "1,234".into(), "1,234,567".into())
        );
        assert_eq!((things(1, "step"), things(2, "step")), ("1 step".into(), "2 steps".into()));
        assert_eq!((clock(7.4), clock(3723.0)), ("0:07".into(), "1:02:03".into()));
        assert_eq!(number(0.123_456), "0.1235");
        assert_eq!((number(12.3456), number(-1.5e-7)), ("12.35".into(), "-1.50e-7".into()));
        assert_eq!(flop(3.21e12), "3.2 TFLOP");
    }
}
