//! Rust source → tokens and the paths they name, as far as the architecture test needs it.

use std::{
    collections::BTreeMap,
    iter::Peekable,
    path::{Path, PathBuf},
    str::Chars,
};

/// A piece of source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// An identifier, keyword or number.
    Word(String),
    /// The inside of a text literal.
    Text(String),
    /// `::`.
    Separator,
    /// Anything else.
    Sign(char),
}

impl Token {
    fn word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            _ => None,
        }
    }

    fn is(&self, sign: char) -> bool {
        *self == Self::Sign(sign)
    }
}

/// A file: its module, its tokens outside tests, and every path in it.
pub(crate) struct Source {
    /// From the crate's root: `["analysis", "encode", "seg"]`.
    pub(crate) module: Vec<String>,
    /// Without comments and `#[cfg(test)]` items.
    pub(crate) tokens: Vec<Token>,
    paths: Vec<Place>,
}

/// Where a path leads.
enum Place {
    /// Into this crate, from its root.
    Inside(Vec<String>),
    /// To another crate, its name first.
    Outside(Vec<String>),
}

impl Source {
    pub(crate) fn read(file: &Path, text: &str) -> Self {
        let module = module_of(file);
        let tokens = without_tests(tokens_of(text));
        let paths = Walk::new(&module, &tokens).paths();
        Self {
            module,
            tokens,
            paths,
        }
    }

    /// Every identifier and keyword.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().filter_map(Token::word)
    }

    /// Paths into this crate.
    pub(crate) fn inside_paths(&self) -> impl Iterator<Item = &Vec<String>> {
        self.paths.iter().filter_map(|place| match place {
            Place::Inside(path) => Some(path),
            Place::Outside(_) => None,
        })
    }

    /// Paths out of this crate.
    pub(crate) fn outside_paths(&self) -> impl Iterator<Item = &Vec<String>> {
        self.paths.iter().filter_map(|place| match place {
            Place::Inside(_) => None,
            Place::Outside(path) => Some(path),
        })
    }
}

fn module_of(file: &Path) -> Vec<String> {
    let file: PathBuf = if file.ends_with("mod.rs") {
        file.parent().unwrap_or(file).to_owned()
    } else {
        file.with_extension("")
    };
    file.iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect()
}

fn tokens_of(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => while chars.next().is_some_and(|c| c != '\n') {},
            '/' if chars.peek() == Some(&'*') => skip_block_comment(&mut chars),
            '"' => tokens.push(Token::Text(quoted(&mut chars))),
            '\'' => skip_char_or_lifetime(&mut chars),
            ':' if chars.peek() == Some(&':') => {
                chars.next();
                tokens.push(Token::Separator);
            }
            c if c.is_alphanumeric() || c == '_' => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    word.push(c);
                }
                let prefix = matches!(word.as_str(), "r" | "b" | "br" | "c" | "cr");
                if prefix && word.contains('r') && matches!(chars.peek(), Some('"' | '#')) {
                    tokens.push(raw(&mut chars));
                } else if prefix && chars.peek() == Some(&'"') {
                    chars.next();
                    tokens.push(Token::Text(quoted(&mut chars)));
                } else if word == "b" && chars.next_if_eq(&'\'').is_some() {
                    skip_char_or_lifetime(&mut chars);
                } else {
                    tokens.push(Token::Word(word));
                }
            }
            c if c.is_whitespace() => {}
            c => tokens.push(Token::Sign(c)),
        }
    }
    tokens
}

fn skip_block_comment(chars: &mut Peekable<Chars>) {
    let mut depth = 0;
    let mut last = '/';
    for c in chars.by_ref() {
        match (last, c) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                last = c;
                continue;
            }
        }
        if depth == 0 {
            return;
        }
        last = ' ';
    }
}

fn quoted(chars: &mut Peekable<Chars>) -> String {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => drop(chars.next()),
            c => text.push(c),
        }
    }
    text
}

/// After the `r`: a raw text, or a raw identifier.
fn raw(chars: &mut Peekable<Chars>) -> Token {
    let mut fence = String::from("\"");
    while chars.next_if_eq(&'#').is_some() {
        fence.push('#');
    }
    let mut text = String::new();
    if chars.next_if_eq(&'"').is_none() {
        while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
            text.push(c);
        }
        return Token::Word(text);
    }
    for c in chars.by_ref() {
        text.push(c);
        if text.ends_with(&fence) {
            text.truncate(text.len() - fence.len());
            break;
        }
    }
    Token::Text(text)
}

/// After the `'`: `a'` is a character, `a` a lifetime.
fn skip_char_or_lifetime(chars: &mut Peekable<Chars>) {
    if chars.next_if_eq(&'\\').is_some() {
        chars.next();
        while chars.next().is_some_and(|c| c != '\'') {}
        return;
    }
    chars.next();
    if chars.next_if_eq(&'\'').is_some() {
        return;
    }
    while chars.next_if(|c| c.is_alphanumeric() || *c == '_').is_some() {}
}

/// Cuts every `#[cfg(test)]` with the item it stands before.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let test = tokens_of("#[cfg(test)]");
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].starts_with(&test) {
            at = end_of_item(&tokens, at + test.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// The first token behind the item that begins at `at`: behind its `;`, or behind its braces unless they are a use tree's.
fn end_of_item(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0;
    let mut import = false;
    while at < tokens.len() {
        match &tokens[at] {
            Token::Word(word) if depth == 0 && word == "use" => import = true,
            Token::Sign('{' | '(' | '[') => depth += 1,
            Token::Sign(')' | ']') => depth -= 1,
            Token::Sign('}') => {
                depth -= 1;
                if depth == 0 && !import {
                    return at + 1;
                }
            }
            Token::Sign(';') if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// Goes through a file and follows its paths.
struct Walk<'a> {
    tokens: &'a [Token],
    /// The module at this token: the file's, then those written inside it.
    module: Vec<String>,
    /// For each open brace, whether it opened a module.
    braces: Vec<bool>,
    /// Local name → the path it was imported from, its first part as written.
    imported: BTreeMap<String, Vec<String>>,
    written: Vec<(Vec<String>, Vec<String>)>,
}

impl<'a> Walk<'a> {
    fn new(module: &[String], tokens: &'a [Token]) -> Self {
        Self {
            tokens,
            module: module.to_vec(),
            braces: Vec::new(),
            imported: BTreeMap::new(),
            written: Vec::new(),
        }
    }

    fn paths(mut self) -> Vec<Place> {
        let mut at = 0;
        while at < self.tokens.len() {
            at = self.step(at);
        }
        let written = std::mem::take(&mut self.written);
        written
            .iter()
            .map(|(module, path)| self.follow(module, path, 0))
            .collect()
    }

    /// Looks at one token, or at a whole path, and returns where to go on.
    fn step(&mut self, at: usize) -> usize {
        let word_at = |at: usize| self.tokens.get(at).and_then(Token::word);
        match &self.tokens[at] {
            Token::Sign('{') => {
                let opens = at >= 2 && word_at(at - 2) == Some("mod");
                if opens && let Some(name) = word_at(at - 1) {
                    self.module.push(name.to_owned());
                }
                self.braces.push(opens);
                at + 1
            }
            Token::Sign('}') => {
                if self.braces.pop() == Some(true) {
                    self.module.pop();
                }
                at + 1
            }
            Token::Word(word) if word == "use" => self.tree(at + 1, &[], true),
            // `extern crate name`
            Token::Word(word) if word == "extern" && word_at(at + 1) == Some("crate") => {
                self.tree(at + 2, &[], true)
            }
            Token::Word(_) if self.tokens.get(at + 1) == Some(&Token::Separator) => self.tree(at, &[], false),
            _ => at + 1,
        }
    }

    /// Reads `a::b`, `a::{b, c::d as e}` or `a::*`, and returns the token behind it, always further on than `at`.
    fn tree(&mut self, start: usize, prefix: &[String], import: bool) -> usize {
        let mut path = prefix.to_vec();
        let mut at = start;
        loop {
            match self.tokens.get(at) {
                Some(Token::Separator) => at += 1,
                Some(Token::Word(word)) => {
                    path.push(word.clone());
                    at += 1;
                    if self.tokens.get(at) != Some(&Token::Separator) {
                        break;
                    }
                }
                Some(Token::Sign('*')) if import => {
                    path.push("*".to_owned());
                    at += 1;
                    break;
                }
                Some(Token::Sign('{')) if import => return self.group(at + 1, &path),
                _ => break,
            }
        }
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let mut name = path.last().cloned();
        if let (true, Some("as")) = (import, self.tokens.get(at).and_then(Token::word)) {
            name = self.tokens.get(at + 1).and_then(Token::word).map(str::to_owned);
            at += 2;
        }
        if let Some(name) = name.filter(|_| import) {
            self.imported.entry(name).or_insert_with(|| path.clone());
        }
        self.written.push((self.module.clone(), path));
        at.max(start + 1)
    }

    /// The members of a braced `use` tree, up to and with its closing brace.
    fn group(&mut self, mut at: usize, prefix: &[String]) -> usize {
        while let Some(token) = self.tokens.get(at) {
            if token.is('}') {
                return at + 1;
            }
            at = if token.is(',') {
                at + 1
            } else {
                self.tree(at, prefix, true)
            };
        }
        at
    }

    /// Whether the file has a module of this name.
    fn declares(&self, name: &str) -> bool {
        let words = |pair: &[Token]| pair[0].word() == Some("mod") && pair[1].word() == Some(name);
        self.tokens.windows(2).any(words)
    }

    /// From the path as written in `module` to the place it names.
    fn follow(&self, module: &[String], path: &[String], hops: usize) -> Place {
        let Some((first, rest)) = path.split_first() else {
            return Place::Outside(Vec::new());
        };
        let mut base = module.to_vec();
        let mut rest = rest;
        match first.as_str() {
            "crate" | "ictus" => base.clear(),
            "self" | "Self" => {}
            "super" => {
                base.pop();
                while let Some((_, after)) = rest.split_first().filter(|(next, _)| *next == "super") {
                    base.pop();
                    rest = after;
                }
            }
            // A module of this file comes before a crate of the same name.
            name if self.declares(name) => return Place::Inside([&base, path].concat()),
            name => {
                // An imported name stands for its path; a few hops are enough for any honest chain of aliases.
                return match self.imported.get(name) {
                    Some(from) if hops < 8 => {
                        self.follow(module, &[from.as_slice(), rest].concat(), hops + 1)
                    }
                    _ => Place::Outside(path.to_vec()),
                };
            }
        }
        base.extend_from_slice(rest);
        Place::Inside(base)
    }
}

/// A tracing event or span as written.
pub(crate) struct Event {
    /// Names of its fields.
    pub(crate) fields: Vec<String>,
    /// Its message or name.
    pub(crate) message: Option<String>,
}

/// Every tracing macro in the tokens.
pub(crate) fn events(tokens: &[Token]) -> Vec<Event> {
    const MACROS: [&str; 10] = [
        "trace",
        "debug",
        "info",
        "warn",
        "error",
        "trace_span",
        "debug_span",
        "info_span",
        "warn_span",
        "error_span",
    ];
    let mut events = Vec::new();
    for (at, window) in tokens.windows(3).enumerate() {
        if window[0].word().is_some_and(|word| MACROS.contains(&word))
            && window[1].is('!')
            && window[2].is('(')
        {
            events.push(event(&arguments(&tokens[at + 3..])));
        }
    }
    events
}

/// Splits at the commas up to the closing parenthesis; nested brackets stay whole.
fn arguments(tokens: &[Token]) -> Vec<Vec<Token>> {
    let mut parts = vec![Vec::new()];
    let mut depth = 0;
    for token in tokens {
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')') if depth == 0 => break,
            Token::Sign(')' | ']' | '}') => depth -= 1,
            Token::Sign(',') if depth == 0 => {
                parts.push(Vec::new());
                continue;
            }
            _ => {}
        }
        parts
            .last_mut()
            .into_iter()
            .for_each(|part| part.push(token.clone()));
    }
    parts
}

fn event(arguments: &[Vec<Token>]) -> Event {
    let mut event = Event {
        fields: Vec::new(),
        message: None,
    };
    for argument in arguments {
        match argument.as_slice() {
            [Token::Text(name), Token::Sign('='), ..] => event.fields.push(name.clone()),
            [Token::Text(text), ..] => event.message = event.message.or_else(|| Some(text.clone())),
            // `target: "…"`, `parent: …`
            [Token::Word(_), Token::Sign(':'), ..] | [] => {}
            [first, ..] => {
                let shorthand = usize::from(first.is('%') || first.is('?'));
                let name = argument[shorthand..].iter().map_while(|token| match token {
                    Token::Word(word) => Some(word.as_str()),
                    Token::Sign('.') => Some("."),
                    _ => None,
                });
                event.fields.push(name.collect());
            }
        }
    }
    event
}
