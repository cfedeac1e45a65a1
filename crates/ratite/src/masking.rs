//! Keeps secrets of a command line out of errors and logs. Pure.
//!
//! QEMU takes secrets as values within arguments: `-object secret,id=s,data=…`, `password=…`, a URL's `user:…@`, or the
//! same in JSON. What is masked shows as `***`; everything else stays as it is, so that the line can still be read.

use std::borrow::Cow;

use serde_json::Value;

/// What stands where a secret was.
pub(crate) const MASK: &str = "***";

/// `word` without the secrets in it.
pub(crate) fn masked(word: &str) -> Cow<'_, str> {
    if word.starts_with('{')
        && let Ok(mut value) = serde_json::from_str(word)
    {
        return if mask_json(&mut value) { value.to_string().into() } else { word.into() };
    }
    let parts = split(word);
    let is_secret = parts.iter().any(|part| matches!(*part, "secret" | "qom-type=secret"));
    let masked: Vec<Cow<'_, str>> = parts.iter().map(|part| mask_part(part, is_secret)).collect();
    if masked.iter().all(|part| matches!(part, Cow::Borrowed(_))) {
        word.into()
    } else {
        masked.join(",").into()
    }
}

fn mask_part(part: &str, is_secret: bool) -> Cow<'_, str> {
    if let Some((key, value)) = part.split_once('=')
        && hides(key, is_secret)
        && !matches!(value, "on" | "off" | "yes" | "no" | "")
    {
        return format!("{key}={MASK}").into();
    }
    mask_url(part)
}

/// Whether the value under `key` is a secret.
fn hides(key: &str, is_secret: bool) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    matches!(last, "password" | "passwd") || (is_secret && last == "data")
}

/// The password in `scheme://user:password@host`.
fn mask_url(text: &str) -> Cow<'_, str> {
    let hidden = || {
        let start = text.find("://")? + 3;
        let authority = &text[start..];
        let authority = &authority[..authority.find('/').unwrap_or(authority.len())];
        let at = authority.rfind('@')?;
        let colon = authority[..at].find(':')?;
        Some(format!("{}{MASK}{}", &text[..start + colon + 1], &text[start + at..]))
    };
    hidden().map_or(text.into(), Cow::from)
}

/// Whether anything was masked.
fn mask_json(value: &mut Value) -> bool {
    match value {
        Value::Object(object) => {
            let is_secret = object.get("qom-type").is_some_and(|kind| kind == "secret");
            let mut any = false;
            for (key, value) in object.iter_mut() {
                if value.is_string() && hides(key, is_secret) {
                    *value = MASK.into();
                    any = true;
                } else {
                    any |= mask_json(value);
                }
            }
            any
        }
        // All of them, not only up to the first that was masked.
        Value::Array(values) => {
            values.iter_mut().filter_map(|value| mask_json(value).then_some(())).count() > 0
        }
        _ => false,
    }
}

/// The parts between commas; a comma that is written twice belongs to its value.
fn split(word: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut at) = (0, 0);
    let bytes = word.as_bytes();
    while at < bytes.len() {
        if bytes[at] != b',' {
            at += 1;
        } else if bytes.get(at + 1) == Some(&b',') {
            at += 2;
        } else {
            parts.push(&word[start..at]);
            at += 1;
            start = at;
        }
    }
    parts.push(&word[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, expected: &str) {
        assert_eq!(masked(word), expected);
    }

    #[test]
    fn secrets_are_masked_wherever_qemu_takes_them() {
        check("secret,id=s0,data=hunter2", "secret,id=s0,data=***");
        check("secret,data=a,,b,id=s0", "secret,data=***,id=s0");
        check("qom-type=secret,data=x", "qom-type=secret,data=***");
        check("port=1,password=hunter2", "port=1,password=***");
        check("file.password=x,if=none", "file.password=***,if=none");
        check("file=ssh://me:pw:d@host/x", "file=ssh://me:***@host/x");
        check(
            r#"{"qom-type":"secret","id":"s","data":"x"}"#,
            r#"{"data":"***","id":"s","qom-type":"secret"}"#,
        );
        check(r#"{"a":[{"password":"x"}]}"#, r#"{"a":[{"password":"***"}]}"#);
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for word in [
            "secret,id=s0,file=/run/secret",
            "id=c,data=x",
            ":1,password=on",
            "password-secret=s0",
            "http://host/a:b@c",
            "a,,b,,",
            "{not json",
            r#"{"id" : "d"}"#,
            "",
        ] {
            check(word, word);
        }
    }
}
