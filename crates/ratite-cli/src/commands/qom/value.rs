//! Values of properties: from a person's word to what the property's type is, and back. Pure.

use serde_json::Value;
use serde_json::json;

/// Reads `text` as a value of the QOM type `kind`; `now` is the property's value, which tells what an unknown type is.
///
/// # Errors
/// What the type would take.
pub(crate) fn parse(text: &str, kind: &str, now: Option<&Value>) -> Result<Value, String> {
    match kind {
        "bool" => boolean(text).ok_or_else(|| "true or false, on or off, yes or no".into()),
        "str" | "string" => Ok(text.into()),
        "number" | "double" => real(text),
        "size" => {
            size(text).map(Into::into).ok_or_else(|| "a number of bytes, such as 4096, 0x1000 or 4k".into())
        }
        // "int" is whatever number QEMU takes, of either sign.
        "int" => integer(text, i128::from(i64::MIN), i128::from(u64::MAX)),
        _ if kind.starts_with("link<") => Ok(text.into()),
        _ => match bits(kind) {
            Some((true, bits)) => integer(text, -(1 << (bits - 1)), (1 << (bits - 1)) - 1),
            Some((false, bits)) => integer(text, 0, (1 << bits) - 1),
            None => unknown(text, now),
        },
    }
}

/// `uint8` and the like: whether it is signed, and how many bits it has.
fn bits(kind: &str) -> Option<(bool, u32)> {
    let (signed, rest) = match kind.strip_prefix('u') {
        Some(rest) => (false, rest),
        None => (true, kind),
    };
    match rest.strip_prefix("int")? {
        "8" | "8_t" => Some((signed, 8)),
        "16" | "16_t" => Some((signed, 16)),
        "32" | "32_t" => Some((signed, 32)),
        "64" | "64_t" | "" => Some((signed, 64)),
        _ => None,
    }
}

/// An enumeration takes a word; anything with parts takes JSON. What the property holds now tells more.
fn unknown(text: &str, now: Option<&Value>) -> Result<Value, String> {
    match now {
        Some(Value::Bool(_)) => parse(text, "bool", None),
        Some(Value::Number(number)) if number.is_f64() => real(text),
        Some(Value::Number(_)) => parse(text, "int", None),
        Some(Value::Object(_) | Value::Array(_)) => {
            serde_json::from_str(text).map_err(|error| format!("JSON, and this is none: {error}"))
        }
        _ if text.starts_with(['{', '[']) => {
            serde_json::from_str(text).map_err(|error| format!("a word or JSON, and this is none: {error}"))
        }
        _ => Ok(text.into()),
    }
}

fn boolean(text: &str) -> Option<Value> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" => Some(true.into()),
        "false" | "off" | "no" => Some(false.into()),
        _ => None,
    }
}

fn real(text: &str) -> Result<Value, String> {
    let number: Option<f64> = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.map(Into::into).ok_or_else(|| "a number".into())
}

fn integer(text: &str, least: i128, most: i128) -> Result<Value, String> {
    let number = whole(text).filter(|number| (least..=most).contains(number));
    let value = number.and_then(|number| match u64::try_from(number) {
        Ok(number) => Some(json!(number)),
        Err(_) => i64::try_from(number).ok().map(|number| json!(number)),
    });
    value.ok_or_else(|| match most {
        SHORT.. => format!("a whole number{}", if least < 0 { "" } else { ", not below 0" }),
        _ => format!("a whole number from {least} to {most}"),
    })
}

/// From here on a limit has more digits than anybody reads.
const SHORT: i128 = 1 << 33;

fn whole(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (digits, radix) = match digits.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    // `from_str_radix` alone would take a second sign.
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    i128::from_str_radix(digits, radix).ok().map(|number| sign * number)
}

fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 10),
        None => match (text.strip_suffix('M'), text.strip_suffix('G'), text.strip_suffix('T')) {
            (Some(digits), ..) => (digits, 20),
            (_, Some(digits), _) => (digits, 30),
            (_, _, Some(digits)) => (digits, 40),
            _ => (text, 0),
        },
    };
    let number = u64::try_from(whole(digits)?).ok()?;
    number.checked_mul(1 << shift)
}

/// A value on a line of its own: text as it is, unless a terminal would obey it; the rest as JSON.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if !text.contains(|character: char| character.is_control()) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, kind: &str, expected: Value) {
        assert_eq!(parse(text, kind, None), Ok(expected), "{text} as {kind}");
    }

    #[track_caller]
    fn check_refused(text: &str, kind: &str, words: &str) {
        let error = parse(text, kind, None).unwrap_err();
        assert!(error.contains(words), "{text} as {kind}: {error}");
    }

    #[test]
    fn a_word_becomes_what_the_type_is() {
        check("on", "bool", json!(true));
        check("No", "bool", json!(false));
        check("0xff", "uint8", json!(255));
        check("-128", "int8", json!(-128));
        check("18446744073709551615", "uint64", json!(u64::MAX));
        check("-9223372036854775808", "int64", json!(i64::MIN));
        check("18446744073709551615", "int", json!(u64::MAX));
        check("4k", "size", json!(4096));
        check("2G", "size", json!(2_u64 << 30));
        check("1.5", "number", json!(1.5));
        check("true", "str", json!("true"));
        check("5", "string", json!("5"));
        check("/machine/x", "link<device>", json!("/machine/x"));
        check("7", "uint64_t", json!(7));
        check("auto", "OnOffAuto", json!("auto"));
        check("{\"a\": 1}", "struct tm", json!({ "a": 1 }));
    }

    #[test]
    fn what_the_property_holds_tells_what_an_unknown_type_takes() {
        assert_eq!(parse("7", "Odd", Some(&json!(3))), Ok(json!(7)));
        assert_eq!(parse("on", "Odd", Some(&json!(false))), Ok(json!(true)));
        assert_eq!(parse("7", "Odd", Some(&json!("x"))), Ok(json!("7")));
        assert!(parse("7x", "Odd", Some(&json!([1]))).unwrap_err().starts_with("JSON, "));
    }

    #[test]
    fn what_is_not_of_the_type_is_told_what_is() {
        check_refused("maybe", "bool", "true or false");
        check_refused("1", "bool", "true or false");
        check_refused("256", "uint8", "a whole number from 0 to 255");
        check_refused("-1", "uint32", "a whole number from 0 to 4294967295");
        check_refused("--1", "int", "a whole number");
        check_refused("1.5", "int32", "a whole number");
        check_refused("", "int", "a whole number");
        check_refused("0x", "uint8", "a whole number");
        check_refused("99999999999999999999999999999999999999999", "uint64", "a whole number");
        check_refused("4x", "size", "a number of bytes");
        check_refused("99999999999999T", "size", "a number of bytes");
        check_refused("nan", "number", "a number");
        check_refused("{", "Odd", "JSON");
    }

    #[test]
    fn a_value_is_one_line() {
        assert_eq!(shown(&json!("a b")), "a b");
        assert_eq!(shown(&json!("a\u{1b}[31m\n")), "\"a\\u001b[31m\\n\"");
        assert_eq!(shown(&json!({ "a": [1, true] })), "{\"a\":[1,true]}");
    }
}
