//! Reads a query into its tree (`docs/src/formats/query.md`): by descent, with limits to depth and size, so that no
//! text from outside makes it panic, recurse far or take long.

use super::KEYWORDS;
use super::lexer::{Placed, Token, tokens};
use super::tree::{Check, Comparison, Condition, Literal, Name, Order, Query, Test};

/// The longest query, in bytes.
pub const MAX_QUERY_BYTES: usize = 131_072;
/// How deep parentheses and NOT may be nested.
pub const MAX_DEPTH: usize = 64;
/// How many comparisons a query may have.
pub const MAX_TESTS: usize = 256;
/// How many values the lists of IN may have, all in all.
pub const MAX_VALUES: usize = 1000;
/// How many attributes a query may be ordered by.
const MAX_ORDERS: usize = 8;

/// Why a text is no query. Positions count characters from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Over [`MAX_QUERY_BYTES`].
    #[error("a query has at most {MAX_QUERY_BYTES} bytes, this one has {bytes}")]
    Long {
        /// Its length.
        bytes: usize,
    },
    /// Something else should stand there.
    #[error("expected {expected} at character {position} of the query, found {found}")]
    Unexpected {
        /// Where.
        position: usize,
        /// What should.
        expected: &'static str,
        /// What does.
        found: String,
    },
    /// A text without the quote at its end.
    #[error("the text that begins at character {position} of the query has no end")]
    Unended {
        /// Where it begins.
        position: usize,
    },
    /// A control character in a text.
    #[error("a control character at character {position} of the query: no value has one")]
    Control {
        /// Where.
        position: usize,
    },
    /// Over [`MAX_DEPTH`].
    #[error("parentheses and NOT are nested deeper than {MAX_DEPTH}")]
    Deep,
    /// Over [`MAX_TESTS`].
    #[error("a query has at most {MAX_TESTS} comparisons")]
    ManyTests,
    /// Over [`MAX_VALUES`].
    #[error("the lists of a query have at most {MAX_VALUES} values")]
    ManyValues,
    /// Over eight.
    #[error("a query is ordered by at most {MAX_ORDERS} attributes")]
    ManyOrders,
}

impl ParseError {
    /// What stands at byte `at` is not `expected`.
    pub(super) fn unexpected(query: &str, at: usize, expected: &'static str) -> Self {
        const SHOWN: usize = 20;
        let mut rest = query.get(at..).unwrap_or_default().chars();
        let shown: String = rest
            .by_ref()
            .take(SHOWN)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let more = if rest.next().is_some() { "…" } else { "" };
        Self::Unexpected {
            position: position(query, at),
            expected,
            found: if shown.is_empty() {
                "its end".to_owned()
            } else {
                format!("`{shown}{more}`")
            },
        }
    }
}

/// The character of a query, from 1, that begins at a byte.
pub(super) fn position(query: &str, at: usize) -> usize {
    query.get(..at).unwrap_or(query).chars().count() + 1
}

/// Reads a query. An empty one finds everything.
///
/// # Errors
/// [`ParseError`]
pub fn parse(query: &str) -> Result<Query, ParseError> {
    if query.len() > MAX_QUERY_BYTES {
        return Err(ParseError::Long { bytes: query.len() });
    }
    let mut parser = Parser {
        query,
        tokens: tokens(query)?,
        next: 0,
        depth: 0,
        tests: 0,
        values: 0,
    };
    parser.query()
}

struct Parser<'a> {
    query: &'a str,
    tokens: Vec<Placed>,
    next: usize,
    depth: usize,
    tests: usize,
    values: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(token, _)| token)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Word(found) if found.eq_ignore_ascii_case(word))
    }

    fn accept(&mut self, token: &Token) -> bool {
        let is_there = self.peek() == token;
        self.next += usize::from(is_there);
        is_there
    }

    fn accept_word(&mut self, word: &str) -> bool {
        let is_there = self.is_word(word);
        self.next += usize::from(is_there);
        is_there
    }

    fn unexpected<T>(&self, expected: &'static str) -> Result<T, ParseError> {
        let at = self.tokens.get(self.next).map_or(self.query.len(), |(_, at)| *at);
        Err(ParseError::unexpected(self.query, at, expected))
    }

    fn expect(&mut self, token: &Token, expected: &'static str) -> Result<(), ParseError> {
        if self.accept(token) {
            Ok(())
        } else {
            self.unexpected(expected)
        }
    }

    fn query(&mut self) -> Result<Query, ParseError> {
        let must = self.accept_word("where");
        let is_over = matches!(self.peek(), Token::End) || self.is_word("order") || self.is_word("limit");
        let condition = if is_over && !must { None } else { Some(self.any()?) };
        let order = if self.accept_word("order") {
            self.order()?
        } else {
            Vec::new()
        };
        let limit = if self.accept_word("limit") {
            Some(self.limit()?)
        } else {
            None
        };
        self.expect(&Token::End, "AND, OR, ORDER BY, LIMIT or the end")?;
        Ok(Query {
            condition,
            order,
            limit,
        })
    }

    fn order(&mut self) -> Result<Vec<Order>, ParseError> {
        if !self.accept_word("by") {
            return self.unexpected("BY");
        }
        let mut orders = Vec::new();
        loop {
            let name = self.name()?;
            let descending = self.accept_word("desc");
            if !descending {
                self.accept_word("asc");
            }
            orders.push(Order { name, descending });
            if orders.len() > MAX_ORDERS {
                return Err(ParseError::ManyOrders);
            }
            if !self.accept(&Token::Comma) {
                return Ok(orders);
            }
        }
    }

    fn limit(&mut self) -> Result<u64, ParseError> {
        let limit = match self.peek() {
            Token::Bare(text) => text.parse().ok(),
            _ => None,
        };
        let Some(limit) = limit else {
            return self.unexpected("how many");
        };
        self.next += 1;
        Ok(limit)
    }

    fn any(&mut self) -> Result<Condition, ParseError> {
        let mut conditions = vec![self.all()?];
        while self.accept(&Token::Or) || self.accept_word("or") {
            conditions.push(self.all()?);
        }
        Ok(Condition::any(conditions))
    }

    fn all(&mut self) -> Result<Condition, ParseError> {
        let mut conditions = vec![self.one()?];
        while self.accept(&Token::And) || self.accept_word("and") {
            conditions.push(self.one()?);
        }
        Ok(Condition::all(conditions))
    }

    fn one(&mut self) -> Result<Condition, ParseError> {
        if self.accept(&Token::Not) || self.accept_word("not") {
            return self.nested(|parser| Ok(parser.one()?.negated()));
        }
        if self.accept(&Token::Open) {
            return self.nested(|parser| {
                let condition = parser.any()?;
                parser.expect(&Token::Close, "`)`, AND or OR")?;
                Ok(condition)
            });
        }
        self.tests += 1;
        if self.tests > MAX_TESTS {
            return Err(ParseError::ManyTests);
        }
        if self.is_word("like") {
            return self.like_of_two();
        }
        if matches!(self.peek(), Token::Text(_) | Token::Bare(_)) {
            return self.turned();
        }
        let name = self.name()?;
        self.check(name)
    }

    fn nested(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<Condition, ParseError>,
    ) -> Result<Condition, ParseError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ParseError::Deep);
        }
        let condition = inner(self)?;
        self.depth -= 1;
        Ok(condition)
    }

    fn name(&mut self) -> Result<Name, ParseError> {
        let is_keyword = |word: &str| KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word));
        match self.peek() {
            Token::Word(word) if !is_keyword(word) => {}
            Token::Tag(_) => {}
            _ => return self.unexpected("an attribute"),
        }
        match self.take() {
            Token::Word(text) | Token::Tag(text) => Ok(Name(text)),
            _ => self.unexpected("an attribute"),
        }
    }

    fn check(&mut self, name: Name) -> Result<Condition, ParseError> {
        if let Token::Comparison(comparison) = *self.peek() {
            self.next += 1;
            let literal = self.compared()?;
            return Ok(test(name, Check::Compare(comparison, literal)));
        }
        if self.accept_word("is") {
            let not = self.accept_word("not");
            if !self.accept_word("null") {
                return self.unexpected("NULL");
            }
            return Ok(negated_if(not, test(name, Check::IsNull)));
        }
        let not = self.accept_word("not");
        let check = if self.accept_word("in") {
            Check::In(self.list()?)
        } else if self.accept_word("like") {
            self.pattern()?
        } else if self.accept_word("between") {
            let from = self.literal()?;
            if !self.accept_word("and") {
                return self.unexpected("AND and the upper bound");
            }
            Check::Between(from, self.literal()?)
        } else if not {
            return self.unexpected("IN, LIKE or BETWEEN");
        } else {
            return self.unexpected("=, <>, <, <=, >, >=, IN, LIKE, BETWEEN or IS NULL");
        };
        Ok(negated_if(not, test(name, check)))
    }

    fn compared(&mut self) -> Result<Literal, ParseError> {
        if self.is_word("null") {
            return self.unexpected("a value (what has none is found with IS NULL)");
        }
        self.literal()
    }

    fn literal(&mut self) -> Result<Literal, ParseError> {
        match self.peek() {
            Token::Text(_) | Token::Bare(_) => {}
            Token::Word(_) => return self.unexpected("a value (texts stand in quotes)"),
            _ => return self.unexpected("a value"),
        }
        match self.take() {
            Token::Text(text) => Ok(Literal { text, quoted: true }),
            Token::Bare(text) => Ok(Literal { text, quoted: false }),
            _ => self.unexpected("a value"),
        }
    }

    fn list(&mut self) -> Result<Vec<Literal>, ParseError> {
        // `(2010,2011)` was taken for a tag.
        if let Token::Tag(tag) = self.peek() {
            let inner = tag.trim_matches(['(', ')']);
            if inner.chars().all(|c| c.is_ascii_digit() || c == ',') {
                let bare = |text: &str| Literal {
                    text: text.to_owned(),
                    quoted: false,
                };
                let literals: Vec<Literal> = inner.split(',').map(bare).collect();
                self.next += 1;
                self.count_values(literals.len())?;
                return Ok(literals);
            }
        }
        self.expect(&Token::Open, "`(` and values")?;
        let mut literals = Vec::new();
        loop {
            literals.push(self.literal()?);
            self.count_values(1)?;
            if self.accept(&Token::Close) {
                return Ok(literals);
            }
            self.expect(&Token::Comma, "`,` or `)`")?;
        }
    }

    fn count_values(&mut self, more: usize) -> Result<(), ParseError> {
        self.values += more;
        if self.values > MAX_VALUES {
            return Err(ParseError::ManyValues);
        }
        Ok(())
    }

    /// What follows LIKE.
    fn pattern(&mut self) -> Result<Check, ParseError> {
        let pattern = self.literal()?.text;
        let escape = if self.accept_word("escape") {
            Some(self.escape()?)
        } else {
            None
        };
        Ok(Check::Like { pattern, escape })
    }

    fn escape(&mut self) -> Result<char, ParseError> {
        if let Token::Text(text) = self.peek() {
            let mut characters = text.chars();
            if let (Some(escape), None) = (characters.next(), characters.next()) {
                self.next += 1;
                return Ok(escape);
            }
        }
        self.unexpected("one character in quotes")
    }

    /// `like(name, 'x%')`, as AMGA writes it.
    fn like_of_two(&mut self) -> Result<Condition, ParseError> {
        self.next += 1;
        self.expect(&Token::Open, "`(`")?;
        let name = self.name()?;
        self.expect(&Token::Comma, "`,` and a pattern")?;
        let pattern = self.literal()?.text;
        self.expect(&Token::Close, "`)`")?;
        Ok(test(name, Check::Like { pattern, escape: None }))
    }

    /// `40 <= age`
    fn turned(&mut self) -> Result<Condition, ParseError> {
        let literal = self.literal()?;
        let Token::Comparison(comparison) = *self.peek() else {
            return self.unexpected("=, <>, <, <=, > or >=");
        };
        self.next += 1;
        let name = self.name()?;
        Ok(test(name, Check::Compare(Comparison::turned(comparison), literal)))
    }
}

fn test(name: Name, check: Check) -> Condition {
    Condition::Test(Test { name, check })
}

fn negated_if(not: bool, condition: Condition) -> Condition {
    if not { condition.negated() } else { condition }
}
