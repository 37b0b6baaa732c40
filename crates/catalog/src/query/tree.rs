//! What a query says, before anybody looked at what attributes there are (`docs/src/formats/query.md`). A tree that is
//! printed and read again is the same tree.

use std::fmt;

/// A query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// What must be true of a file; none: nothing.
    pub condition: Option<Condition>,
    /// In which order they come; none: by name.
    pub order: Vec<Order>,
    /// At most so many.
    pub limit: Option<u64>,
}

/// What is true, false or unknown of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// All of them; two at least, none of which is another `And`.
    And(Vec<Condition>),
    /// One of them; two at least, none of which is another `Or`.
    Or(Vec<Condition>),
    /// Not.
    Not(Box<Condition>),
    /// Of one attribute.
    Test(Test),
}

impl Condition {
    /// All of `conditions`; one by itself is itself.
    pub(super) fn all(conditions: Vec<Self>) -> Self {
        Self::flat(conditions, Self::And, |condition| match condition {
            Self::And(inner) => Ok(inner),
            other => Err(other),
        })
    }

    /// One of `conditions`; one by itself is itself.
    pub(super) fn any(conditions: Vec<Self>) -> Self {
        Self::flat(conditions, Self::Or, |condition| match condition {
            Self::Or(inner) => Ok(inner),
            other => Err(other),
        })
    }

    fn flat(
        conditions: Vec<Self>,
        whole: impl FnOnce(Vec<Self>) -> Self,
        inner: impl Fn(Self) -> Result<Vec<Self>, Self>,
    ) -> Self {
        let mut flat = Vec::with_capacity(conditions.len());
        for condition in conditions {
            match inner(condition) {
                Ok(many) => flat.extend(many),
                Err(one) => flat.push(one),
            }
        }
        if flat.len() == 1 { flat.remove(0) } else { whole(flat) }
    }

    /// The contrary.
    pub(super) fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }
}

/// Looks at one attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Which.
    pub name: Name,
    /// For what.
    pub check: Check,
}

/// An attribute as the query names it: a name, a DICOM keyword, or a tag as `(0010,0010)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(pub String);

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// `= 'x'` and so on.
    Compare(Comparison, Literal),
    /// `IN (…)`; one value at least.
    In(Vec<Literal>),
    /// `LIKE 'x%'`.
    Like {
        /// With `%` and `_`.
        pattern: String,
        /// Makes the character behind it an ordinary one.
        escape: Option<char>,
    },
    /// `BETWEEN a AND b`, both included.
    Between(Literal, Literal),
    /// `IS NULL`.
    IsNull,
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`, `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Comparison {
    /// As SQL writes it.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    /// The one that is true where this is false.
    pub fn negated(self) -> Self {
        match self {
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Greater => Self::LessOrEqual,
            Self::GreaterOrEqual => Self::Less,
        }
    }

    /// The one that says the same with the sides exchanged.
    pub(super) fn turned(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            same => same,
        }
    }
}

/// A value as it is written; what it means is known with the attribute's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Literal {
    /// Without its quotes.
    pub text: String,
    /// Whether it had some. Without, it is made of digits, signs, points and colons.
    pub quoted: bool,
}

/// One `ORDER BY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// By which attribute.
    pub name: Name,
    /// Whether the greatest comes first. Files without a value come last in any case.
    pub descending: bool,
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(condition) = &self.condition {
            parts.push(condition.to_string());
        }
        if !self.order.is_empty() {
            let orders: Vec<String> = self.order.iter().map(Order::to_string).collect();
            parts.push(format!("ORDER BY {}", orders.join(", ")));
        }
        if let Some(limit) = self.limit {
            parts.push(format!("LIMIT {limit}"));
        }
        f.write_str(&parts.join(" "))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No parentheses but those that must be: what is read again may not be deeper than what was read.
        let joined = |conditions: &[Self], word: &str, strength: u8| {
            let texts: Vec<String> = conditions.iter().map(|one| one.inside(strength)).collect();
            texts.join(word)
        };
        match self {
            Self::Or(conditions) => f.write_str(&joined(conditions, " OR ", 2)),
            Self::And(conditions) => f.write_str(&joined(conditions, " AND ", 3)),
            Self::Not(condition) => write!(f, "NOT {}", condition.inside(3)),
            Self::Test(test) => test.fmt(f),
        }
    }
}

impl Condition {
    /// In parentheses where it binds weaker than what is around it.
    fn inside(&self, strength: u8) -> String {
        let own = match self {
            Self::Or(_) => 1,
            Self::And(_) => 2,
            Self::Not(_) | Self::Test(_) => 3,
        };
        if own < strength {
            format!("({self})")
        } else {
            self.to_string()
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.check {
            Check::Compare(comparison, literal) => write!(f, "{name} {} {literal}", comparison.sign()),
            Check::In(literals) => {
                let texts: Vec<String> = literals.iter().map(Literal::to_string).collect();
                write!(f, "{name} IN ({})", texts.join(", "))
            }
            Check::Like { pattern, escape } => {
                write!(f, "{name} LIKE {}", quoted(pattern))?;
                match escape {
                    Some(escape) => write!(f, " ESCAPE {}", quoted(&escape.to_string())),
                    None => Ok(()),
                }
            }
            Check::Between(from, to) => write!(f, "{name} BETWEEN {from} AND {to}"),
            Check::IsNull => write!(f, "{name} IS NULL"),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.quoted {
            f.write_str(&quoted(&self.text))
        } else {
            f.write_str(&self.text)
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.descending { " DESC" } else { "" };
        write!(f, "{}{direction}", self.name)
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
