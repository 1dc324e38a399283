//! The moment a template's `strftime_now` shows.
//!
//! Some templates (Llama 3.1 and later) write the date into the prompt. A run fixes the moment
//! once and keeps it, so that resuming on another day gives the same tokens. The moment is UTC.
//! Calendar from a day count: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
//! `civil_from_days`.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// Seconds since 1970-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment of the call.
    pub fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs()))
    }

    /// Python's `strftime` for the directives of dates and times; others stay as they are.
    pub(crate) fn strftime(self, format: &str) -> String {
        let (days, second_of_day) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) =
            (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
        let month_name = MONTHS[month as usize - 1];
        let day_name = DAYS[(days % 7) as usize];
        let hour12 = (hour + 11) % 12 + 1;
        let mut out = String::new();
        let mut rest = format.chars();
        while let Some(character) = rest.next() {
            if character != '%' {
                out.push(character);
                continue;
            }
            let mut directive = rest.next();
            // `%-d` is the number without a leading zero (glibc).
            let padded = directive != Some('-');
            if !padded {
                directive = rest.next();
            }
            let mut number = |value: u64, width: usize| {
                let width = if padded { width } else { 0 };
                let _ = write!(out, "{value:0width$}");
            };
            match directive {
                Some('Y') => number(year, 4),
                Some('y') => number(year % 100, 2),
                Some('m') => number(month, 2),
                Some('d') => number(day, 2),
                Some('H') => number(hour, 2),
                Some('I') => number(hour12, 2),
                Some('M') => number(minute, 2),
                Some('S') => number(second, 2),
                Some('j') => number(days - days_before(year) + 1, 3),
                Some('B') => out.push_str(month_name),
                Some('b' | 'h') => out.push_str(&month_name[..3]),
                Some('A') => out.push_str(day_name),
                Some('a') => out.push_str(&day_name[..3]),
                Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
                Some('F') => _ = write!(out, "{year:04}-{month:02}-{day:02}"),
                Some('T') => _ = write!(out, "{hour:02}:{minute:02}:{second:02}"),
                Some('e') => _ = write!(out, "{day:2}"),
                Some('Z') => out.push_str("UTC"),
                Some('z') => out.push_str("+0000"),
                Some('%') => out.push('%'),
                other => {
                    out.push_str(if padded { "%" } else { "%-" });
                    out.extend(other);
                }
            }
        }
        out
    }
}

/// Year, month and day of a day counted from 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// Days from 1970-01-01 to the first of January of `year`.
fn days_before(year: u64) -> u64 {
    let past = year - 1;
    365 * past + past / 4 - past / 100 + past / 400 - 719_162
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_python_writes_them() {
        let check = |seconds, format, expected| {
            assert_eq!(Moment(seconds).strftime(format), expected);
        };
        check(0, "%A %d %B %Y %H:%M:%S", "Thursday 01 January 1970 00:00:00");
        check(1_722_000_000, "%d %b %Y", "26 Jul 2024");
        check(1_709_210_096, "%Y-%m-%d %H:%M:%S %j %p %I", "2024-02-29 12:34:56 060 PM 12");
        check(1_709_251_200, "%a %-d/%-m %y %% %q", "Fri 1/3 24 % %q");
    }
}
