//! Text in the character sets of DICOM (PS3.3, C.12.1.1.2; PS3.5, section 6.1), decoded to be searched and never to be
//! written back.

use encoding_rs::Encoding;

use crate::element::{Element, Tag, ascii};

/// The attribute that names the character sets.
pub(crate) const SPECIFIC_CHARACTER_SET: Tag = Tag(0x0008, 0x0005);

/// How bytes above ASCII are read until an escape sequence says otherwise.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Charset {
    first: &'static Encoding,
}

impl Default for Charset {
    /// Without a word on it text is ASCII; what is not, is most often Latin 1.
    fn default() -> Self {
        Self {
            first: encoding_rs::WINDOWS_1252,
        }
    }
}

impl Charset {
    /// What the elements of a data set or item say; `outer` where they say nothing.
    pub(crate) fn of(elements: &[Element], outer: Self) -> Self {
        match ascii(elements, SPECIFIC_CHARACTER_SET) {
            Some(terms) => Self::named(&terms),
            None => outer,
        }
    }

    /// By the defined terms, however they are misspelt. An unknown one is read as Latin 1, byte for byte: a name is
    /// then found where it stands in the same bytes.
    fn named(terms: &str) -> Self {
        let all = || terms.split('\\').map(number_of);
        // a first value that is left out is ASCII, and the second, if it is the only other, says what the high bytes
        // are
        let first = all().find(|term| !matches!(term.as_str(), "" | "6" | "87" | "159"));
        let first = match first.as_deref() {
            Some("101") => encoding_rs::ISO_8859_2,
            Some("109") => encoding_rs::ISO_8859_3,
            Some("110") => encoding_rs::ISO_8859_4,
            Some("144") => encoding_rs::ISO_8859_5,
            Some("127") => encoding_rs::ISO_8859_6,
            Some("126") => encoding_rs::ISO_8859_7,
            Some("138") => encoding_rs::ISO_8859_8,
            Some("148") => encoding_rs::WINDOWS_1254,
            Some("203") => encoding_rs::ISO_8859_15,
            Some("166") => encoding_rs::WINDOWS_874,
            Some("13") => encoding_rs::SHIFT_JIS,
            Some("192" | "UTF8") => encoding_rs::UTF_8,
            Some("149") => encoding_rs::EUC_KR,
            Some("58" | "GB18030" | "GBK") => encoding_rs::GB18030,
            _ => encoding_rs::WINDOWS_1252,
        };
        Self { first }
    }

    /// The text of a value.
    pub(crate) fn decode(self, bytes: &[u8]) -> String {
        const ESCAPE: u8 = 0x1b;
        let mut text = String::with_capacity(bytes.len());
        let mut parts = bytes.split(|byte| *byte == ESCAPE);
        text.push_str(
            &self
                .first
                .decode_without_bom_handling(parts.next().unwrap_or_default())
                .0,
        );
        for part in parts {
            match designation(part) {
                Some((set, rest)) => set.decode(rest, &mut text),
                // no escape sequence that DICOM knows
                None => text.push_str(&self.first.decode_without_bom_handling(part).0),
            }
        }
        text
    }
}

/// `ISO_IR 100`, `ISO 2022 IR 100`, `iso-ir-100`: the number at the end; names without one in capitals.
fn number_of(term: &str) -> String {
    let term = term.trim().to_ascii_uppercase();
    if term.starts_with("GB") {
        return term;
    }
    let plain: String = term.chars().filter(char::is_ascii_alphanumeric).collect();
    match plain.rfind("IR") {
        Some(at) => plain[at + 2..].to_owned(),
        None if plain.starts_with("ISO8859") => match &plain[7..] {
            "1" => "100",
            "2" => "101",
            "3" => "109",
            "4" => "110",
            "5" => "144",
            "6" => "127",
            "7" => "126",
            "8" => "138",
            "9" => "148",
            _ => "",
        }
        .to_owned(),
        None => plain,
    }
}

/// What an escape sequence switches to (PS3.3, tables C.12-3 and C.12-4).
enum Set {
    /// A set of one or several bytes, high bits set.
    Is(&'static Encoding),
    /// Two bytes of seven bits: JIS X 0208, read as EUC with the high bits set.
    Jis,
    /// JIS X 0212, which EUC has after a byte 8F.
    JisSupplement,
}

impl Set {
    fn decode(&self, bytes: &[u8], text: &mut String) {
        let euc = |bytes: Vec<u8>| encoding_rs::EUC_JP.decode_without_bom_handling(&bytes).0.into_owned();
        match self {
            Self::Is(encoding) => text.push_str(&encoding.decode_without_bom_handling(bytes).0),
            Self::Jis => text.push_str(&euc(bytes.iter().map(|byte| high(*byte)).collect())),
            Self::JisSupplement => {
                let mut marked = Vec::with_capacity(bytes.len() * 3 / 2);
                for pair in bytes.chunks(2) {
                    if pair.iter().all(|byte| (0x21..=0x7e).contains(byte)) {
                        marked.push(0x8f);
                    }
                    marked.extend(pair.iter().map(|byte| high(*byte)));
                }
                text.push_str(&euc(marked));
            }
        }
    }
}

/// Delimiters and spaces stay what they are; all else is a half of a character.
fn high(byte: u8) -> u8 {
    if byte > 0x20 && byte < 0x7f { byte | 0x80 } else { byte }
}

fn designation(part: &[u8]) -> Option<(Set, &[u8])> {
    let set = match part {
        [b'$', b'B', ..] => Set::Jis,
        [b'$', b'(', b'D', ..] => Set::JisSupplement,
        [b'$', b')', b'C', ..] => Set::Is(encoding_rs::EUC_KR),
        [b'$', b')', b'A', ..] => Set::Is(encoding_rs::GBK),
        [b'(', b'B', ..] | [b'-', b'A', ..] => Set::Is(encoding_rs::WINDOWS_1252),
        [b'(', b'J', ..] | [b')', b'I', ..] => Set::Is(encoding_rs::SHIFT_JIS),
        [b'-', b'B', ..] => Set::Is(encoding_rs::ISO_8859_2),
        [b'-', b'C', ..] => Set::Is(encoding_rs::ISO_8859_3),
        [b'-', b'D', ..] => Set::Is(encoding_rs::ISO_8859_4),
        [b'-', b'L', ..] => Set::Is(encoding_rs::ISO_8859_5),
        [b'-', b'G', ..] => Set::Is(encoding_rs::ISO_8859_6),
        [b'-', b'F', ..] => Set::Is(encoding_rs::ISO_8859_7),
        [b'-', b'H', ..] => Set::Is(encoding_rs::ISO_8859_8),
        [b'-', b'M', ..] => Set::Is(encoding_rs::WINDOWS_1254),
        [b'-', b'b', ..] => Set::Is(encoding_rs::ISO_8859_15),
        [b'-', b'T', ..] => Set::Is(encoding_rs::WINDOWS_874),
        _ => return None,
    };
    let length = if matches!(part, [b'$', b'(' | b')', ..]) { 3 } else { 2 };
    Some((set, &part[length..]))
}

/// Text without what people write differently: case, accents, full width, and the ways to spell ä, ö, ü, å, ø, æ, ß.
pub(crate) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        let c = match u32::from(c) {
            0x0300..=0x036f => continue,
            wide @ 0xff01..=0xff5e => char::from_u32(wide - 0xfee0).unwrap_or(c),
            _ => c,
        };
        for lower in c.to_lowercase() {
            match unmarked(lower) {
                Some(plain) => folded.push_str(plain),
                None if ('\u{300}'..='\u{36f}').contains(&lower) => {}
                None => folded.push(lower),
            }
        }
    }
    // the other spelling of an umlaut; both sides of a comparison go through here
    for (two, one) in [("ae", "a"), ("oe", "o"), ("ue", "u"), ("aa", "a")] {
        if folded.contains(two) {
            folded = folded.replace(two, one);
        }
    }
    folded
}

/// Lower-case letters without their marks: Latin 1, Latin Extended A, Vietnamese, Greek and Cyrillic.
fn unmarked(c: char) -> Option<&'static str> {
    Some(match c {
        'à' | 'á' | 'â' | 'ã' | 'ä' | 'å' | 'ā' | 'ă' | 'ą' | 'æ' => "a",
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => "c",
        'ď' | 'đ' | 'ð' => "d",
        'è' | 'é' | 'ê' | 'ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => "e",
        'ĝ' | 'ğ' | 'ġ' | 'ģ' => "g",
        'ĥ' | 'ħ' => "h",
        'ì' | 'í' | 'î' | 'ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' => "i",
        'ĵ' => "j",
        'ķ' => "k",
        'ĺ' | 'ļ' | 'ľ' | 'ŀ' | 'ł' => "l",
        'ñ' | 'ń' | 'ņ' | 'ň' => "n",
        'ò' | 'ó' | 'ô' | 'õ' | 'ö' | 'ø' | 'ō' | 'ŏ' | 'ő' | 'œ' => "o",
        'ŕ' | 'ŗ' | 'ř' => "r",
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => "s",
        'ß' => "ss",
        'ţ' | 'ť' | 'ŧ' | 'ț' => "t",
        'ù' | 'ú' | 'û' | 'ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => "u",
        'ŵ' => "w",
        'ý' | 'ÿ' | 'ŷ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        'þ' => "th",
        // Vietnamese
        '\u{1ea0}'..='\u{1eb7}' => "a",
        '\u{1eb8}'..='\u{1ec7}' => "e",
        '\u{1ec8}'..='\u{1ecb}' => "i",
        '\u{1ecc}'..='\u{1ee3}' | 'ơ' => "o",
        '\u{1ee4}'..='\u{1ef1}' | 'ư' => "u",
        '\u{1ef2}'..='\u{1ef9}' => "y",
        // Greek, where capitals are written without accents, and a sigma has another form at the end
        'ά' => "α",
        'έ' => "ε",
        'ή' => "η",
        'ί' | 'ϊ' | 'ΐ' => "ι",
        'ό' => "ο",
        'ύ' | 'ϋ' | 'ΰ' => "υ",
        'ώ' => "ω",
        'ς' => "σ",
        // Cyrillic, whose dots and breves are often left out
        'ё' => "е",
        'й' => "и",
        'ї' => "і",
        'ў' => "у",
        'ѓ' => "г",
        'ќ' => "к",
        _ => return None,
    })
}

/// Runs of letters and digits.
pub(crate) fn words(folded: &str) -> impl Iterator<Item = &str> + Clone {
    folded
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
}

/// Letters and digits alone.
pub(crate) fn alphanumeric(folded: &str) -> String {
    folded.chars().filter(|c| c.is_alphanumeric()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(terms: &str, bytes: &[u8]) -> String {
        Charset::named(terms).decode(bytes)
    }

    #[test]
    fn the_examples_of_the_standard_are_read() {
        // PS3.5, annexes H, I and J
        let japanese = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B";
        assert_eq!(
            decode("\\ISO 2022 IR 87", japanese),
            "Yamada^Tarou=山田^太郎=やまだ^たろう"
        );
        let korean = b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf";
        assert_eq!(decode("\\ISO 2022 IR 149", korean), "Hong^Gildong=洪^吉洞=홍^길동");
        let chinese = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=";
        assert_eq!(decode("\\ISO 2022 IR 58", chinese), "Zhang^XiaoDong=张^小东=");
        assert_eq!(
            decode("GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab="),
            "Wang^XiaoDong=王^小东="
        );
        assert_eq!(
            decode("ISO_IR 192", "Wang^XiaoDong=王^小東".as_bytes()),
            "Wang^XiaoDong=王^小東"
        );
        assert_eq!(
            decode("ISO_IR 144", b"\xbb\xee\xda\x63\x65\xdc\xd1\x79\x70\xd3"),
            "Люкceмбypг"
        );
        assert_eq!(decode("ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3"), "ﾔﾏﾀﾞ^ﾀﾛｳ");
        assert_eq!(decode("ISO_IR 100", b"Buc^J\xe9r\xf4me"), "Buc^Jérôme");
        assert_eq!(
            decode("ISO 2022 IR 100\\ISO 2022 IR 126", b"Dionysios is \x1b-F\xc4\xe9\xef"),
            "Dionysios is Διο"
        );
    }

    #[test]
    fn a_term_is_known_however_it_is_spelt() {
        for term in [
            "ISO_IR 192",
            "ISO-IR 192",
            "iso_ir_192",
            "ISO IR 192 ",
            "UTF-8",
            "ISO 2022 IR 192",
        ] {
            assert!(Charset::named(term).first == encoding_rs::UTF_8, "{term}");
        }
        assert!(Charset::named("iso8859-2").first == encoding_rs::ISO_8859_2);
        assert!(Charset::named("nonsense").first == encoding_rs::WINDOWS_1252);
    }

    #[test]
    fn one_name_folds_to_one_text_however_it_is_written() {
        for name in ["Müller", "MUELLER", "mu\u{308}ller", "Ｍüller"] {
            assert_eq!(fold(name), "muller", "{name}");
        }
        assert_eq!(fold("ŁUKASZ Straße"), "lukasz strasse");
        for (one, other) in [
            ("Παπαδόπουλος", "ΠΑΠΑΔΟΠΟΥΛΟΣ"),
            ("Μαΐου", "ΜΑΙΟΥ"),
            ("Ταΰγετος", "ΤΑΫΓΕΤΟΣ"),
            ("Королёв", "КОРОЛЕВ"),
            ("Андрей", "АНДРЕИ\u{306}"),
            ("Чайковський", "ЧАИКОВСЬКИИ"),
        ] {
            assert_eq!(fold(one), fold(other), "{one}");
        }
    }
}
