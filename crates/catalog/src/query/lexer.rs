//! The words, values and signs of a query (`docs/src/formats/query.md`).

use super::parser::ParseError;
use super::tree::Comparison;

/// What a query is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A word of the language or a name.
    Word(String),
    /// A DICOM tag, `(0010,0010)`. Where a list of values is expected, it is one of two.
    Tag(String),
    /// A value without quotes: a number, date or time.
    Bare(String),
    /// A text in quotes, without them.
    Text(String),
    /// `=` and so on.
    Comparison(Comparison),
    /// `&&`
    And,
    /// `||`
    Or,
    /// `!`
    Not,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// Nothing more.
    End,
}

/// A token, and the byte of the query at which it begins.
pub(super) type Placed = (Token, usize);

/// Reads all tokens of a query, [`Token::End`] behind them.
pub(super) fn tokens(query: &str) -> Result<Vec<Placed>, ParseError> {
    let mut lexer = Lexer { query, at: 0 };
    let mut found = Vec::new();
    loop {
        let token = lexer.next()?;
        let is_end = token.0 == Token::End;
        found.push(token);
        if is_end {
            return Ok(found);
        }
    }
}

struct Lexer<'a> {
    query: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.query[self.at..]
    }

    fn next(&mut self) -> Result<Placed, ParseError> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        let start = self.at;
        let token = self.token()?;
        Ok((token, start))
    }

    fn token(&mut self) -> Result<Token, ParseError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        let (length, token) = match first {
            '\'' | '"' => return self.text(first),
            '(' if is_tag(rest) => (TAG, Token::Tag(rest[..TAG].to_ascii_uppercase())),
            'A'..='Z' | 'a'..='z' | '_' => {
                let word = prefix(rest, |c| c.is_ascii_alphanumeric() || c == '_');
                (word.len(), Token::Word(word.to_owned()))
            }
            '0'..='9' | '+' | '-' | '.' => {
                let bare = bare(rest);
                (bare.len(), Token::Bare(bare.to_owned()))
            }
            _ => sign(rest).ok_or_else(|| ParseError::unexpected(self.query, self.at, "a condition"))?,
        };
        self.at += length;
        Ok(token)
    }

    /// A text up to the quote that ends it; two quotes are one that belongs to it.
    fn text(&mut self, quote: char) -> Result<Token, ParseError> {
        let start = self.at;
        let mut text = String::new();
        let mut characters = self.rest().char_indices().skip(1).peekable();
        while let Some((offset, character)) = characters.next() {
            if character != quote {
                // What no stored value can have is not looked for: databases differ in what they make of it.
                if character.is_control() && !matches!(character, '\t' | '\n' | '\r') {
                    return Err(ParseError::Control {
                        position: super::parser::position(self.query, start + offset),
                    });
                }
                text.push(character);
            } else if characters.next_if(|(_, next)| *next == quote).is_some() {
                text.push(quote);
            } else {
                self.at = start + offset + 1;
                return Ok(Token::Text(text));
            }
        }
        Err(ParseError::Unended {
            position: super::parser::position(self.query, start),
        })
    }
}

/// The length of a tag: `(gggg,eeee)`.
const TAG: usize = 11;

fn is_tag(rest: &str) -> bool {
    let bytes = rest.as_bytes();
    let hexadecimal = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_hexdigit);
    bytes.len() >= TAG && bytes[5] == b',' && bytes[10] == b')' && hexadecimal(1..5) && hexadecimal(6..10)
}

fn prefix(rest: &str, belongs: impl Fn(char) -> bool) -> &str {
    let end = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
    &rest[..end]
}

/// A number, date or time: there is no arithmetic, so that what looks like it belongs together.
fn bare(rest: &str) -> &str {
    let bytes = rest.as_bytes();
    let mut end = 1;
    while let Some(byte) = bytes.get(end) {
        let follows = match byte {
            b'0'..=b'9' | b'.' | b':' | b'-' => true,
            b'e' | b'E' => matches!(
                (bytes.get(end + 1), bytes.get(end + 2)),
                (Some(b'0'..=b'9'), _) | (Some(b'+' | b'-'), Some(b'0'..=b'9'))
            ),
            b'+' => matches!(bytes[end - 1], b'e' | b'E'),
            _ => false,
        };
        if !follows {
            break;
        }
        end += 1;
    }
    &rest[..end]
}

fn sign(rest: &str) -> Option<(usize, Token)> {
    const SIGNS: [(&str, Token); 14] = [
        ("<=", Token::Comparison(Comparison::LessOrEqual)),
        (">=", Token::Comparison(Comparison::GreaterOrEqual)),
        ("<>", Token::Comparison(Comparison::NotEqual)),
        ("!=", Token::Comparison(Comparison::NotEqual)),
        ("==", Token::Comparison(Comparison::Equal)),
        ("&&", Token::And),
        ("||", Token::Or),
        ("=", Token::Comparison(Comparison::Equal)),
        ("<", Token::Comparison(Comparison::Less)),
        (">", Token::Comparison(Comparison::Greater)),
        ("!", Token::Not),
        ("(", Token::Open),
        (")", Token::Close),
        (",", Token::Comma),
    ];
    let found = SIGNS.into_iter().find(|(text, _)| rest.starts_with(text));
    found.map(|(text, token)| (text.len(), token))
}
