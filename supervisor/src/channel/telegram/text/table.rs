//! A table as monospace columns, or as "key: value" lines where it is wider than a phone. Pure.

use super::{Span, Style};
use protocol::text::clip;
use pulldown_cmark::Alignment;
use unicode_segmentation::UnicodeSegmentation;

/// Widest table that is drawn in columns, in cells of a monospace line. A phone in portrait shows about 40 before it
/// wraps, and a wrapped table cannot be read; a few more are shown on most.
const TABLE_WIDTH_MAX: usize = 44;

/// Longest name of a column in front of a value, in bytes: it is repeated in every row.
const KEY_BYTES_MAX: usize = 96;

/// What stands between two columns.
const GAP: &str = "  ";

/// A table in the making: cells as plain text.
#[derive(Debug, Default)]
pub(super) struct Table {
    alignments: Vec<Alignment>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(alignments: Vec<Alignment>) -> Self {
        Self { alignments, rows: Vec::new() }
    }

    pub(super) fn begin_row(&mut self) {
        self.rows.push(Vec::new());
    }

    pub(super) fn begin_cell(&mut self) {
        if let Some(row) = self.rows.last_mut() {
            row.push(String::new());
        }
    }

    /// Adds text to the cell in the making; a line end in it is a space.
    pub(super) fn push(&mut self, text: &str) {
        if let Some(cell) = self.rows.last_mut().and_then(|row| row.last_mut()) {
            cell.extend(text.chars().map(|c| if c == '\n' || c == '\t' { ' ' } else { c }));
        }
    }

    /// The finished text, and its spans relative to it.
    pub(super) fn draw(self) -> (String, Vec<Span>) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0_usize; columns];
        for row in &self.rows {
            for (cell, widest) in row.iter().zip(&mut widths) {
                *widest = (*widest).max(width(cell.trim()));
            }
        }
        let total = widths.iter().sum::<usize>() + GAP.len() * columns.saturating_sub(1);
        if total == 0 {
            (String::new(), Vec::new())
        } else if total <= TABLE_WIDTH_MAX {
            self.draw_columns(&widths)
        } else {
            self.draw_pairs()
        }
    }

    fn draw_columns(&self, widths: &[usize]) -> (String, Vec<Span>) {
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, width_max) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", |cell| cell.trim());
                let room = width_max.saturating_sub(width(cell));
                let left = match self.alignments.get(column) {
                    Some(Alignment::Right) => room,
                    Some(Alignment::Center) => room / 2,
                    Some(Alignment::Left | Alignment::None) | None => 0,
                };
                line.push_str(if column == 0 { "" } else { GAP });
                line.extend(std::iter::repeat_n(' ', left));
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', room - left));
            }
            text.push_str(if number == 0 { "" } else { "\n" });
            text.push_str(line.trim_end());
            if number == 0 {
                let rules: Vec<_> = widths.iter().map(|width| "─".repeat(*width)).collect();
                text.push('\n');
                text.push_str(&rules.join(GAP));
            }
        }
        let span = Span { style: Style::Pre(String::new()), bytes: 0..text.len() };
        (text, vec![span])
    }

    fn draw_pairs(&self) -> (String, Vec<Span>) {
        let (mut text, mut spans) = (String::new(), Vec::new());
        let Some((head, rows)) = self.rows.split_first() else { return (text, spans) };
        // A table of a head alone is its own only row.
        let rows = if rows.is_empty() { std::slice::from_ref(head) } else { rows };
        for row in rows {
            text.push_str(if text.is_empty() { "" } else { "\n" });
            for (column, cell) in row.iter().enumerate() {
                let cell = cell.trim();
                if cell.is_empty() {
                    continue;
                }
                text.push_str(if text.is_empty() { "" } else { "\n" });
                let key = head.get(column).map_or("", |key| clip(key.trim(), KEY_BYTES_MAX));
                if !key.is_empty() && !std::ptr::eq(row, head) {
                    let start = text.len();
                    text.push_str(key);
                    text.push(':');
                    spans.push(Span { style: Style::Bold, bytes: start..text.len() });
                    text.push(' ');
                }
                text.push_str(cell);
            }
        }
        (text, spans)
    }
}

/// How many monospace cells `text` takes, nearly: East Asian wide characters and emoji take two.
fn width(text: &str) -> usize {
    text.graphemes(true).map(|cluster| if cluster.chars().any(is_wide) { 2 } else { 1 }).sum()
}

const fn is_wide(c: char) -> bool {
    matches!(c,
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{303e}' | '\u{3041}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{fe0f}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}' | '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}' | '✅' | '❌' | '⭐')
}

#[cfg(test)]
mod tests {
    use super::super::render;
    use super::*;

    #[test]
    fn narrow_tables_stand_in_columns() {
        let drawn = render("| name | n |\n|:--|--:|\n| a | 10 |\n| 字 | 5 |\n");
        assert_eq!(drawn.text, "name   n\n────  ──\na     10\n字     5");
        assert_eq!(drawn.spans, [Span { style: Style::Pre(String::new()), bytes: 0..drawn.text.len() }]);
    }

    #[test]
    fn wide_tables_become_pairs() {
        let long = "x".repeat(TABLE_WIDTH_MAX);
        let drawn = render(&format!("before\n\n| key | value |\n|--|--|\n| a | {long} |\n| b | |\n\nafter"));
        assert_eq!(drawn.text, format!("before\n\nkey: a\nvalue: {long}\n\nkey: b\n\nafter"));
        let bold: Vec<_> = drawn.spans.iter().map(|span| &drawn.text[span.bytes.clone()]).collect();
        assert_eq!(bold, ["key:", "value:", "key:"]);
    }

    #[test]
    fn a_wide_head_alone_is_shown_once() {
        let long = "x".repeat(TABLE_WIDTH_MAX);
        assert_eq!(render(&format!("| {long} | b |\n|--|--|\n")).text, format!("{long}\nb"));
    }
}
