//! A line to its words: blanks separate, quotes group and are taken away as a shell does, and JSON stands as it is.

use crate::language::mistake::Mistake;

/// A word of a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Word {
    /// The word without its quotes.
    pub(crate) text: String,
    /// Where in the text the first `=` outside of quotes is.
    equals: Option<usize>,
    /// Where in the text the last quotes closed.
    quoted_until: Option<usize>,
    /// Whether what stands behind the `=`, or the whole word, is in brackets that close at its end.
    is_bracketed: bool,
    /// Where in the line it begins.
    pub(crate) at: usize,
}

/// What stands behind the `=` of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) form: Form,
}

/// How a text was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Quoted,
    Bracketed,
}

impl Word {
    /// A word that a shell has already made one, without quotes of ours.
    pub(crate) fn of_argument(argument: &str) -> Self {
        let equals = argument.find('=').filter(|_| !argument.starts_with(['{', '[']));
        let value = equals.map_or(argument, |at| &argument[at + 1..]);
        let is_bracketed = bracketed(value.trim_end()).is_ok_and(|end| end == Some(value.trim_end().len()));
        Self { text: argument.to_owned(), equals, is_bracketed, ..Self::default() }
    }

    /// The key before the `=`, if there is one.
    pub(crate) fn key(&self) -> Option<&str> {
        self.equals.map(|at| &self.text[..at])
    }

    /// What stands behind the `=`, or the whole word if there is none.
    pub(crate) fn value(&self) -> Text {
        let start = self.equals.map_or(0, |at| at + 1);
        let form = match (self.is_bracketed, self.quoted_until) {
            (true, _) => Form::Bracketed,
            (_, Some(until)) if until >= start => Form::Quoted,
            _ => Form::Plain,
        };
        Text { text: self.text[start..].to_owned(), form }
    }

    /// Whether the whole word is an object in JSON.
    pub(crate) fn is_object(&self) -> bool {
        self.equals.is_none() && self.is_bracketed && self.text.starts_with('{')
    }

    /// Whether there are quotes in it.
    pub(crate) fn has_quotes(&self) -> bool {
        self.quoted_until.is_some()
    }
}

/// Splits a line into its words; a word that begins with `#` begins a comment.
pub(crate) fn split(line: &str) -> Result<Vec<Word>, Mistake> {
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        at += line[at..].len() - line[at..].trim_start().len();
        if at == line.len() || line[at..].starts_with('#') {
            return Ok(words);
        }
        let (word, length) = first_word(&line[at..])?;
        words.push(Word { at, ..word });
        at += length;
    }
}

/// The word that `rest` begins with, and how long it is there.
fn first_word(rest: &str) -> Result<(Word, usize), Mistake> {
    let mut word = Word::default();
    let mut at = 0;
    while let Some(letter) = rest[at..].chars().next().filter(|letter| !letter.is_whitespace()) {
        if is_place_for_brackets(&word)
            && let Some(length) = bracketed(&rest[at..])?
            && rest[at + length..].chars().next().is_none_or(char::is_whitespace)
        {
            word.text.push_str(&rest[at..at + length]);
            word.is_bracketed = true;
            return Ok((word, at + length));
        }
        match letter {
            '"' | '\'' => {
                at += quoted(&rest[at..], &mut word.text)?;
                word.quoted_until = Some(word.text.len());
            }
            '\\' => {
                let escaped = rest[at + 1..].chars().next();
                word.text.push(escaped.ok_or_else(|| Mistake::new("nothing is behind the last backslash"))?);
                word.quoted_until = Some(word.text.len());
                at += 1 + escaped.map_or(0, char::len_utf8);
            }
            _ => {
                if letter == '=' && word.equals.is_none() {
                    word.equals = Some(word.text.len());
                }
                word.text.push(letter);
                at += letter.len_utf8();
            }
        }
    }
    Ok((word, at))
}

/// Brackets mean JSON at the beginning of a word, or of a value.
fn is_place_for_brackets(word: &Word) -> bool {
    let start = word.equals.map_or(0, |at| at + 1);
    word.text.len() == start && word.quoted_until.is_none_or(|until| until < start)
}

/// Takes the quoted text that `rest` begins with; how long it is there.
fn quoted(rest: &str, text: &mut String) -> Result<usize, Mistake> {
    let mut letters = rest.char_indices();
    let quote = letters.next().map_or('"', |(_, quote)| quote);
    while let Some((at, letter)) = letters.next() {
        match letter {
            letter if letter == quote => return Ok(at + 1),
            '\\' if quote == '"' => match letters.next() {
                Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                Some((_, other)) => text.extend(['\\', other]),
                None => break,
            },
            letter => text.push(letter),
        }
    }
    Err(Mistake::new(format!("a quote is not closed: {}", excerpt(rest))))
}

/// How long the brackets are that `rest` begins with; `None` if it does not begin with one.
fn bracketed(rest: &str) -> Result<Option<usize>, Mistake> {
    if !rest.starts_with(['{', '[']) {
        return Ok(None);
    }
    let (mut depth, mut quote, mut is_escaped) = (0_usize, None, false);
    for (at, letter) in rest.char_indices() {
        match (quote, letter) {
            (Some(_), _) if is_escaped => is_escaped = false,
            (Some(_), '\\') => is_escaped = true,
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '{' | '[') => depth += 1,
            (None, '}' | ']') => depth -= 1,
            (None, _) => {}
        }
        if depth == 0 {
            return Ok(Some(at + 1));
        }
    }
    Err(Mistake::new(format!("a bracket is not closed: {}", excerpt(rest))))
}

/// The beginning of a text, to be shown.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

const SHOWN: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        split(line).unwrap().into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn words_are_what_a_shell_takes_for_them() {
        for (line, expected) in [
            ("", vec![]),
            ("  \t ", vec![]),
            ("query-status", vec!["query-status"]),
            (" a  b=1\tc ", vec!["a", "b=1", "c"]),
            (r#"x command-line="info version""#, vec!["x", "command-line=info version"]),
            ("x 'a b'=1", vec!["x", "a b=1"]),
            (r#"x a="say \"hi\" \n""#, vec!["x", r#"a=say "hi" \n"#]),
            (r"x a=b\ c", vec!["x", "a=b c"]),
            (r#"x a="" b=''"#, vec!["x", "a=", "b="]),
            (r#"x a=1"2"'3'"#, vec!["x", "a=123"]),
            ("x ä=ö", vec!["x", "ä=ö"]),
            ("x a=#1 # it's", vec!["x", "a=#1"]),
            ("# it's", vec![]),
        ] {
            assert_eq!(texts(line), expected, "{line}");
        }
    }

    #[test]
    fn json_stands_as_it_is() {
        for (line, expected) in [
            (r#"x {"a": "b c"}"#, vec!["x", r#"{"a": "b c"}"#]),
            (r#"x a={"b": [1, 2]} c=1"#, vec!["x", r#"a={"b": [1, 2]}"#, "c=1"]),
            (r#"x a=["}", '\'{']"#, vec!["x", r#"a=["}", '\'{']"#]),
            ("x a=[::1]:80", vec!["x", "a=[::1]:80"]),
        ] {
            assert_eq!(texts(line), expected, "{line}");
        }
        let form = |line: &str| split(line).unwrap()[0].value().form;
        assert_eq!(form(r#"a={"b": 1}"#), Form::Bracketed);
        assert_eq!(form(r#"a='{"b": 1}'"#), Form::Quoted);
        assert_eq!(form("a=[::1]:80"), Form::Plain);
        assert!(split(r#"{"a": 1}"#).unwrap()[0].is_object());
    }

    #[test]
    fn it_is_known_what_was_quoted() {
        let form = |line: &str| split(line).unwrap()[0].value().form;

        assert_eq!(form("a=1"), Form::Plain);
        assert_eq!(form("a='1'"), Form::Quoted);
        assert_eq!(form("a="), Form::Plain);
        assert_eq!(form("a=''"), Form::Quoted);
        assert_eq!(form("'a'=1"), Form::Plain);
        assert_eq!(form(r"a=\1"), Form::Quoted);
    }

    #[test]
    fn what_is_not_closed_is_named() {
        let what = |line| split(line).unwrap_err().what;

        assert_eq!(what("x a=\"b c"), "a quote is not closed: `\"b c`");
        assert_eq!(what("x a={\"b\": 1"), "a bracket is not closed: `{\"b\": 1`");
        assert_eq!(what("x \\"), "nothing is behind the last backslash");
    }

    #[test]
    fn arguments_of_a_shell_have_their_quotes_removed_already() {
        let word = Word::of_argument("command-line=say \"hi\"");
        assert_eq!((word.key(), word.value().text.as_str()), (Some("command-line"), "say \"hi\""));

        assert_eq!(Word::of_argument("a={\"b\": 1}").value().form, Form::Bracketed);
        assert!(Word::of_argument(r#"{"a": "b=c"}"#).is_object());
        assert_eq!(Word::of_argument("a={").value().form, Form::Plain);
    }
}
