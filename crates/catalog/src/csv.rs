//! Records of CSV (RFC 4180), as the service answers and `mdm-find` prints them. Values stay what they are: a cell may
//! begin with `=`, and is a text.

/// A record, without the end of its line. Cells with commas, quotes, line ends or blanks at an end stand in quotes; so
/// does an empty cell that is alone, which would be an empty line else.
pub fn record<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::new();
    let mut count = 0;
    for cell in cells {
        if count > 0 {
            text.push(',');
        }
        count += 1;
        if cell.contains([',', '"', '\r', '\n']) || cell.starts_with(' ') || cell.ends_with(' ') {
            text.push('"');
            text.push_str(&cell.replace('"', "\"\""));
            text.push('"');
        } else {
            text.push_str(cell);
        }
    }
    if count == 1 && text.is_empty() {
        text.push_str("\"\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must() {
        assert_eq!(record(["a b", "", "x"]), "a b,,x");
        assert_eq!(
            record(["a,\"b\"", "a\nb", " c", "d\r"]),
            "\"a,\"\"b\"\"\",\"a\nb\",\" c\",\"d\r\""
        );
        assert_eq!(record(["=1+1"]), "=1+1");
        assert_eq!((record([""]).as_str(), record(["", ""]).as_str()), ("\"\"", ","));
    }
}
