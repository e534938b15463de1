//! Cuts a YAML file into its documents, as text.
//!
//! Each document then stands or falls alone: a parser that has met an error in one cannot go on to the next.
//! A line that begins with `---` or `...` at the first column is a boundary wherever it stands, also inside
//! scalars (YAML 1.2.2, 9.1.2 and rule `c-forbidden`), so this needs no parser.

/// One document of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Document<'a> {
    /// Its number in the file, from 1; documents without content do not count.
    pub(super) number: usize,
    /// The line of the file that it begins on, from 1.
    pub(super) first_line: usize,
    /// Its text, with its marker line.
    pub(super) text: &'a str,
}

/// The documents of `text` that have content.
pub(super) fn split_documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut first_line) = (0, 1);
    let mut end = 0;
    for (n, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line, "---") {
            push(&mut documents, &text[start..end], first_line);
            (start, first_line) = (end, n + 1);
        }
        end += line.len();
        if is_marker(line, "...") {
            push(&mut documents, &text[start..end], first_line);
            (start, first_line) = (end, n + 2);
        }
    }
    push(&mut documents, &text[start..end], first_line);
    documents
}

fn push<'a>(documents: &mut Vec<Document<'a>>, text: &'a str, first_line: usize) {
    if text.lines().any(has_content) {
        documents.push(Document { number: documents.len() + 1, first_line, text });
    }
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether a line is more than a marker, a comment, a directive or white space.
fn has_content(line: &str) -> bool {
    let line = if is_marker(line, "---") || is_marker(line, "...") { &line[3..] } else { line };
    let text = line.trim_start_matches('\u{feff}').trim();
    !(text.is_empty() || text.starts_with('#') || line.starts_with('%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents() {
        /// Text, and the number, first line and text of each of its documents.
        type Row = (&'static str, &'static [(usize, usize, &'static str)]);
        let rows: &[Row] = &[
            ("", &[]),
            ("# only a comment\n\n", &[]),
            ("---\n---\n# nothing\n...\n", &[]),
            ("a: 1", &[(1, 1, "a: 1")]),
            ("a: 1\n---\nb: 2\n", &[(1, 1, "a: 1\n"), (2, 2, "---\nb: 2\n")]),
            ("---\na: 1\n--- # next\n---\nb: 2", &[(1, 1, "---\na: 1\n"), (2, 4, "---\nb: 2")]),
            ("a: |\n  ---\n  x\n", &[(1, 1, "a: |\n  ---\n  x\n")]),
            ("a: ----\n----: 1\n", &[(1, 1, "a: ----\n----: 1\n")]),
            ("--- {a: 1}\n--- {b: 2}\n", &[(1, 1, "--- {a: 1}\n"), (2, 2, "--- {b: 2}\n")]),
            ("a: 1\n...\nb: 2\n", &[(1, 1, "a: 1\n...\n"), (2, 3, "b: 2\n")]),
            ("%YAML 1.2\n---\na: 1\n", &[(1, 2, "---\na: 1\n")]),
            ("a: 1\r\n---\r\nb: 2\r\n", &[(1, 1, "a: 1\r\n"), (2, 2, "---\r\nb: 2\r\n")]),
            ("\u{feff}---\na: 1\n", &[(1, 1, "\u{feff}---\na: 1\n")]),
        ];
        for (text, want) in rows {
            let got: Vec<_> =
                split_documents(text).iter().map(|d| (d.number, d.first_line, d.text)).collect();
            assert_eq!(&got[..], *want, "{text:?}");
        }
    }
}
