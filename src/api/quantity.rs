//! `resource.Quantity`: exact decimal numbers with SI or binary suffixes, as `cpu: 100m` and `memory: 64Mi` use them.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Why a quantity is refused, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse quantity's suffix")]
    Suffix,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
}

/// Which family of suffixes a quantity is shown with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `1k`, `1500m`.
    DecimalSi,
    /// `1Ki`.
    BinarySi,
    /// `1e3`.
    DecimalExponent,
}

/// `mantissa × 10^exponent`, with an exponent of -9 (nano) or more. Equality and order are those of the number; the
/// format only matters for display.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    mantissa: i128,
    exponent: i32,
    format: Format,
}

/// Nothing smaller than this exponent is kept: smaller parts round away from zero.
const NANO: i32 = -9;
/// Larger exponents than any real resource has are refused, which bounds all arithmetic.
const EXPONENT_MAX: i64 = 300;
/// Binary quantities are capped here.
const BINARY_MAX: i128 = i64::MAX as i128;

impl Quantity {
    pub const ZERO: Self = Self { mantissa: 0, exponent: 0, format: Format::DecimalSi };

    /// Reads `1`, `1.5`, `100m`, `2Gi`, `1e3`.
    ///
    /// # Errors
    /// [`QuantityError`], also for numbers of more than 38 digits, which upstream takes.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, rest) = split_digits(unsigned);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => split_digits(rest),
            None => ("", rest),
        };
        let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
        let digits = letters.strip_prefix(['-', '+']).unwrap_or(letters);
        if !digits.bytes().all(|c| c.is_ascii_digit()) {
            return Err(QuantityError::Format);
        }
        let (base, power, format) = interpret(suffix).ok_or(QuantityError::Suffix)?;
        let exponent = if base == 10 { power } else { 0 };
        let (mut mantissa, mut exponent) = decimal(whole, fraction, exponent)?;
        if base == 2 {
            mantissa = mantissa.checked_mul(1_i128 << power).unwrap_or(i128::MAX);
        }
        (mantissa, exponent) = round_up(mantissa, exponent, NANO);
        if format == Format::BinarySi && compare(mantissa, exponent, BINARY_MAX, 0) == Ordering::Greater {
            (mantissa, exponent) = (BINARY_MAX, 0);
        }
        if text.starts_with('-') {
            mantissa = -mantissa;
        }
        Ok(Self { mantissa, exponent, format })
    }

    #[must_use]
    pub fn from_milli(milli: i64) -> Self {
        Self { mantissa: i128::from(milli), exponent: -3, format: Format::DecimalSi }
    }

    #[must_use]
    pub fn from_value(value: i64, format: Format) -> Self {
        Self { mantissa: i128::from(value), exponent: 0, format }
    }

    /// The number, rounded away from zero to a whole one, at the ends of `i64` if it lies beyond.
    #[must_use]
    pub fn value(&self) -> i64 {
        self.scaled(0)
    }

    /// Thousandths, rounded and bounded as [`Self::value`].
    #[must_use]
    pub fn milli(&self) -> i64 {
        self.scaled(-3)
    }

    fn scaled(&self, scale: i32) -> i64 {
        let (mantissa, exponent) = round_up(self.mantissa, self.exponent, scale);
        let shift = u32::try_from(exponent - scale).unwrap_or(0);
        let whole = 10_i128.checked_pow(shift).and_then(|p| mantissa.checked_mul(p));
        let end = if self.mantissa < 0 { i64::MIN } else { i64::MAX };
        if mantissa == 0 { 0 } else { whole.and_then(|w| i64::try_from(w).ok()).unwrap_or(end) }
    }

    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.mantissa < 0
    }

    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// The sum, in the format of `self` unless that is zero.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        let exponent = self.exponent.min(other.exponent);
        let at = |q: &Self| {
            let shift = u32::try_from(q.exponent - exponent).unwrap_or(0);
            10_i128.checked_pow(shift).and_then(|p| q.mantissa.checked_mul(p))
        };
        let sum = match (self.is_zero(), other.is_zero()) {
            (true, _) => (other.mantissa, other.exponent),
            (_, true) => (self.mantissa, self.exponent),
            // Beyond 38 digits the smaller one is lost in the larger one.
            _ => match at(self).zip(at(other)).and_then(|(a, b)| a.checked_add(b)) {
                Some(sum) => (sum, exponent),
                None if self.exponent >= other.exponent => (self.mantissa, self.exponent),
                None => (other.mantissa, other.exponent),
            },
        };
        Self { mantissa: sum.0, exponent: sum.1, format }
    }

    /// The difference, in the format of `self` unless that is zero.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.plus(&Self { mantissa: -other.mantissa, ..*other })
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// Base, power and format of a suffix.
fn interpret(suffix: &str) -> Option<(u8, i32, Format)> {
    let decimal = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    if let Some((i, _)) = (0_i32..).zip(decimal).find(|(_, s)| *s == suffix) {
        return Some((10, i * 3 - 9, Format::DecimalSi));
    }
    if let Some((i, _)) = (1_i32..).zip(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]).find(|(_, s)| *s == suffix) {
        return Some((2, i * 10, Format::BinarySi));
    }
    let exponent: i64 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let exponent = i32::try_from(exponent).ok().filter(|e| i64::from(*e).abs() <= EXPONENT_MAX)?;
    Some((10, exponent, Format::DecimalExponent))
}

/// The number that `whole.fraction × 10^exponent` writes. Digits below nano that 38 digits do not hold are dropped.
fn decimal(whole: &str, fraction: &str, exponent: i32) -> Result<(i128, i32), QuantityError> {
    let mut mantissa: i128 = 0;
    let mut scale = exponent;
    let mut push = |digit: u8| {
        let next = mantissa.checked_mul(10).and_then(|m| m.checked_add(i128::from(digit - b'0')));
        next.map(|n| mantissa = n)
    };
    for digit in whole.bytes() {
        push(digit).ok_or(QuantityError::Numeric)?;
    }
    for digit in fraction.bytes() {
        if push(digit).is_some() {
            scale -= 1;
        } else if scale > NANO {
            return Err(QuantityError::Numeric);
        }
    }
    Ok((mantissa, scale))
}

/// Raises the exponent to `least` at least, rounding away from zero.
fn round_up(mut mantissa: i128, exponent: i32, least: i32) -> (i128, i32) {
    if exponent >= least {
        return (mantissa, exponent);
    }
    let mut rest = false;
    let away = mantissa.signum();
    for _ in exponent..least {
        rest |= mantissa % 10 != 0;
        mantissa /= 10;
        if mantissa == 0 && rest {
            break;
        }
    }
    (if rest { mantissa + away } else { mantissa }, least)
}

fn compare(a: i128, a_exponent: i32, b: i128, b_exponent: i32) -> Ordering {
    let signs = a.signum().cmp(&b.signum());
    if signs != Ordering::Equal || a == 0 {
        return signs;
    }
    let (difference, negative) = (a_exponent - b_exponent, a < 0);
    let raise = |m: i128, by: i32| u32::try_from(by).ok().and_then(|by| 10_i128.checked_pow(by)?.checked_mul(m));
    // Where raising overflows, that side has the larger magnitude.
    let larger = if negative { Ordering::Less } else { Ordering::Greater };
    if difference >= 0 {
        raise(a, difference).map_or(larger, |a| a.cmp(&b))
    } else {
        raise(b, -difference).map_or(larger.reverse(), |b| a.cmp(&b))
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.mantissa, self.exponent, other.mantissa, other.exponent)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix, an exponent that is a multiple of three.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut mantissa, mut exponent) = (self.mantissa, self.exponent);
        if mantissa == 0 {
            return f.write_str("0");
        }
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        // Binary suffixes only show whole numbers from 1024 on.
        if self.format == Format::BinarySi && exponent >= 0 {
            let whole = u32::try_from(exponent).ok().and_then(|e| 10_i128.checked_pow(e)?.checked_mul(mantissa));
            if let Some(mut whole) = whole.filter(|w| w.unsigned_abs() >= 1024) {
                let mut suffix = 0;
                while whole % 1024 == 0 && suffix < 6 {
                    whole /= 1024;
                    suffix += 1;
                }
                let suffix = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].get(suffix).copied().unwrap_or_default();
                return write!(f, "{whole}{suffix}");
            }
        }
        let pad = exponent.rem_euclid(3);
        exponent -= pad;
        // A suffix reaches from nano to exa; what lies above is written out.
        let zeros = if self.format == Format::DecimalExponent { 0 } else { (exponent - 18).max(0) };
        write!(f, "{mantissa}{}", "0".repeat(usize::try_from(pad + zeros).unwrap_or(0)))?;
        exponent -= zeros;
        match self.format {
            Format::DecimalExponent if exponent == 0 => Ok(()),
            Format::DecimalExponent => write!(f, "e{exponent}"),
            _ => {
                let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
                let i = usize::try_from((exponent + 9) / 3).unwrap_or(3);
                f.write_str(suffixes.get(i).copied().unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).unwrap_or_else(|e| panic!("{text}: {e}")).to_string()
    }

    #[test]
    fn canonical_forms() {
        for (text, shown) in [
            ("0", "0"),
            ("-0", "0"),
            ("0Gi", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1.5", "1500m"),
            ("1000m", "1"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1500", "1500"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1000e3", "1e6"),
            ("1.5e0", "1500e-3"),
            ("100e0", "100"),
            ("1024Ki", "1Mi"),
            ("0.5Gi", "512Mi"),
            ("0.5Ki", "512"),
            ("1023Ki", "1023Ki"),
            ("1.1Ki", "1126400m"),
            ("1Ki", "1Ki"),
            ("-1Gi", "-1Gi"),
            ("8Ei", "9223372036854775807"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("1.00000000001", "1000000001n"),
            ("-0.1n", "-1n"),
            ("100E", "100E"),
            ("1000E", "1000E"),
            ("123456789012345678901", "123456789012345678901"),
            ("0.00000000000000000000000000000000000000000000001", "1n"),
        ] {
            assert_eq!(canonical(text), shown, "{text}");
        }
    }

    #[test]
    fn bad_ones_are_refused() {
        for (text, error) in [
            ("", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("1mi", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("1K", QuantityError::Suffix),
            ("1e999999999999999999999", QuantityError::Suffix),
            ("0e-2147483648", QuantityError::Suffix),
        ] {
            assert_eq!(Quantity::parse(text).map(|q| q.to_string()), Err(error), "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        let q = |text: &str| Quantity::parse(text).expect(text);
        assert_eq!(q("100m").value(), 1);
        assert_eq!(q("-100m").value(), -1);
        assert_eq!(q("1.0001").milli(), 1001);
        assert_eq!(q("2Gi").value(), 2 << 30);
        assert_eq!(q("100E").value(), i64::MAX);
        assert_eq!(q("-100E").milli(), i64::MIN);
        assert_eq!(q("1e300").value(), i64::MAX);
        assert!(q("1e300") > q("1Ei") && q("-1e300") < q("1n"));
        assert_eq!(q("100m").plus(&q("1")).to_string(), "1100m");
        assert_eq!(q("1Gi").minus(&q("512Mi")).to_string(), "512Mi");
        assert_eq!(Quantity::ZERO.plus(&q("1Ki")).to_string(), "1Ki");
        assert_eq!(q("1"), q("1000m"));
    }

    proptest! {
        #[test]
        fn showing_and_reading_agree(text in "[+-]?[0-9]{0,12}(\\.[0-9]{0,12})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9])?") {
            prop_assume!(!text.is_empty());
            let first = Quantity::parse(&text).expect("generated well-formed");
            let second = Quantity::parse(&first.to_string()).expect("canonical form is well-formed");
            prop_assert_eq!(first, second);
            prop_assert_eq!(first.to_string(), second.to_string());
            prop_assert_eq!(first.value(), second.value());
        }

        #[test]
        fn order_is_that_of_the_numbers(a in -1_000_000_i64..1_000_000, b in -1_000_000_i64..1_000_000, scale in 0_u32..4) {
            let suffix = ["n", "u", "m", ""];
            let factor = 1000_i64.pow(scale);
            let low = Quantity::parse(&format!("{}{}", a * factor, suffix[3 - scale as usize])).expect("number");
            let high = Quantity::parse(&format!("{b}{}", suffix[3 - scale as usize])).expect("number");
            prop_assert_eq!(low.cmp(&high), (a * factor).cmp(&b));
            prop_assert_eq!(low.plus(&high).minus(&high), low);
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,12}|[-+0-9.eEinumkKMGTP]{0,50}") {
            if let Ok(q) = Quantity::parse(&text) {
                let _ = (q.to_string(), q.value(), q.milli(), q.cmp(&Quantity::ZERO), q.plus(&q));
            }
        }
    }
}
