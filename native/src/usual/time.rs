//! RFC 3339 times with up to nine digits of a second, as Go writes them.

/// Since 1970; nanoseconds count forward, also before it.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// Go's zero time; it means "no time".
const GO_ZERO: &str = "0001-01-01T00:00:00Z";
const DAYS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

pub fn parse(text: &str) -> Option<Time> {
    if text.is_empty() || text == GO_ZERO {
        return Some(Time::default());
    }
    let bytes = text.as_bytes();
    let number = |from: usize, digits: usize| -> Option<i64> {
        let digits = bytes.get(from..from + digits)?;
        digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let is = |at: usize, byte: u8| (bytes.get(at) == Some(&byte)).then_some(());
    is(4, b'-').and(is(7, b'-')).and(is(10, b'T')).and(is(13, b':')).and(is(16, b':'))?;
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    if !(1..=days_of(year, month)).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut at = 19;
    let mut nanoseconds = 0;
    if bytes.get(at) == Some(&b'.') {
        let digits = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return None;
        }
        nanoseconds = number(at + 1, digits)? * 10_i64.pow(9 - u32::try_from(digits).ok()?);
        at += 1 + digits;
    }
    let east = match (bytes.get(at)?, bytes.len() - at) {
        (b'Z', 1) => 0,
        (sign @ (b'+' | b'-'), 6) => {
            is(at + 3, b':')?;
            let (hours, minutes) = (number(at + 1, 2)?, number(at + 4, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (if *sign == b'-' { -1 } else { 1 }) * (hours * 60 + minutes) * 60
        }
        _ => return None,
    };
    let seconds = days_before(year, month) + day - 1;
    let seconds = ((seconds * 24 + hour) * 60 + minute) * 60 + second - east;
    Some(Time { seconds, nanoseconds: u32::try_from(nanoseconds).ok()? })
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// 0: there is no such month.
fn days_of(year: i64, month: i64) -> i64 {
    if month == 2 && is_leap(year) {
        return 29;
    }
    usize::try_from(month - 1).ok().and_then(|month| DAYS.get(month)).copied().unwrap_or(0)
}

/// Days from 1970 to the first of a month.
fn days_before(year: i64, month: i64) -> i64 {
    // leap days before the year, and as many before 1970; from year 0 on, so that nothing is below zero
    let leaps = |year: i64| (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    (year - 1970) * 365 + leaps(year) - leaps(1970) + (1..month).map(|each| days_of(year, each)).sum::<i64>()
}
