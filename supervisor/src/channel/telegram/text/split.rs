//! Cuts a rendered answer into messages. Pure.
//!
//! ```text
//!   window = as much as a message holds (units, entities)
//!   cut at the last   blank line outside code > line > end of a sentence    if that fills a third of the window
//!           else      word > grapheme > character
//! ```
//!
//! Promises: every message is visible and within Telegram's limits; put together, the messages hold every visible
//! character of the answer in order, or the last one says how many are missing and where they are. A part that is cut is
//! formatted on both sides of the cut: a code block ends at a line and begins again with its language.

use super::{
    Chunk, EMPTY_PLACEHOLDER, Entity, MESSAGE_ENTITIES_MAX, MESSAGE_UNITS_MAX, Rendered, Span, Style, is_blank, units,
};
use protocol::text::clip;
use std::ops::Range;
use unicode_segmentation::UnicodeSegmentation;

/// Most messages of one answer: about what one group allows in a minute (20), so that an answer never takes longer.
pub const CHUNKS_MAX: usize = 20;

/// Longest text that tells where the whole answer is, in bytes: a path or a command.
const WHERE_BYTES_MAX: usize = 512;

/// How far behind a window the neighbourhood is read to find where a grapheme ends, in characters. Longer ones than that
/// are cut.
const GRAPHEME_LOOKAHEAD: usize = 32;

/// Longest indentation of a line of code that is kept at the beginning of a message, in bytes. A longer one is no
/// indentation but a blank region, which is skipped.
const INDENT_BYTES_MAX: usize = 256;

/// Where a person finds the whole of an answer that is too long to post, such as `` `cofferdam turns show 17` ``.
#[derive(Clone, Copy, Debug)]
pub struct Whole<'a>(pub &'a str);

/// Cuts `rendered` into at most `chunks_max` messages (at least one is made). Never empty: an answer without a visible
/// character becomes [`EMPTY_PLACEHOLDER`].
pub fn split(rendered: &Rendered, chunks_max: usize, whole: Whole<'_>) -> Vec<Chunk> {
    let is_code = |span: &&Span| matches!(span.style, Style::Pre(_));
    let code = rendered.spans.iter().filter(is_code).map(|span| span.bytes.clone()).collect();
    let cutter = Cutter { text: &rendered.text, spans: &rendered.spans, code };
    let mut chunks = Vec::new();
    let mut at = cutter.skip_blank(0);
    while at < cutter.text.len() {
        let last = chunks.len() + 1 >= chunks_max;
        let end = cutter.cut(at, MESSAGE_UNITS_MAX);
        let next = cutter.skip_blank(end);
        if last && next < cutter.text.len() {
            chunks.push(cutter.last(at, whole));
            return chunks;
        }
        chunks.extend(cutter.chunk(at, end));
        at = next;
    }
    if chunks.is_empty() {
        chunks.push(Chunk::plain(EMPTY_PLACEHOLDER));
    }
    chunks
}

struct Cutter<'a> {
    text: &'a str,
    spans: &'a [Span],
    /// Where the code blocks are: in order, and none inside another.
    code: Vec<Range<usize>>,
}

impl Cutter<'_> {
    /// The next byte worth a message's beginning: within code its indentation is kept, elsewhere all space is skipped.
    fn skip_blank(&self, at: usize) -> usize {
        let rest = self.from(at);
        let skipped = rest.trim_start_matches(is_blank);
        if skipped.is_empty() {
            return self.text.len();
        }
        let start = self.text.len() - skipped.len();
        let line = self.text.get(at..start).and_then(|blank| blank.rfind('\n')).map_or(at, |i| at + i + 1);
        if start - line <= INDENT_BYTES_MAX && self.code_around(line, start) { line } else { start }
    }

    /// Where the message that starts at `at` ends, if it may have `units_max` units.
    fn cut(&self, at: usize, units_max: usize) -> usize {
        let window = self.window(at, units_max);
        let end = at + window.len();
        if end == self.text.len() {
            return end;
        }
        let third = window.len() / 3;
        let filled = |cut: &usize| *cut > third;
        let blank_line = window.rmatch_indices("\n\n").map(|(i, _)| i + 2);
        let outside_code = |cut: &usize| !self.code_around(at + cut - 1, at + cut);
        let found = blank_line
            .take_while(filled)
            .find(outside_code)
            .or_else(|| window.rfind('\n').map(|i| i + 1).filter(filled))
            .or_else(|| sentence_end(window).filter(filled))
            .or_else(|| word_end(window))
            .unwrap_or_else(|| self.grapheme_end(at, window.len()));
        at + found
    }

    /// The longest text from `at` on that one message holds.
    fn window(&self, at: usize, units_max: usize) -> &str {
        let mut room = units_max;
        let mut end = self.text.len();
        for (i, c) in self.from(at).char_indices() {
            if c.len_utf16() > room {
                end = at + i;
                break;
            }
            room -= c.len_utf16();
        }
        let mut formatted = self.spans.iter().filter(|span| span.bytes.end > at);
        if let Some(one_too_many) = formatted.nth(MESSAGE_ENTITIES_MAX) {
            // Spans that all start at or before `at` cannot be that many: there are seven styles.
            end = end.min(one_too_many.bytes.start.max(at + self.char_len(at)));
        }
        self.text.get(at..end).unwrap_or("")
    }

    /// The last place inside the window where no grapheme is cut; one that is longer than the window is cut.
    fn grapheme_end(&self, at: usize, window: usize) -> usize {
        let rest = self.from(at);
        let beyond = rest.get(window..).unwrap_or("");
        let ahead: usize = beyond.chars().take(GRAPHEME_LOOKAHEAD).map(char::len_utf8).sum();
        let wider = rest.get(..window + ahead).unwrap_or(rest);
        let starts = wider.grapheme_indices(true).map(|(i, _)| i);
        starts.take_while(|i| *i <= window).last().filter(|i| *i > 0).unwrap_or(window)
    }

    /// The message from `from` to `to`, or none if nothing in it is visible.
    fn chunk(&self, from: usize, to: usize) -> Option<Chunk> {
        let text = self.text.get(from..to).unwrap_or("");
        let text = text.trim_end();
        if text.chars().all(is_blank) {
            return None;
        }
        let to = from + text.len();
        let mut entities = Vec::new();
        for span in self.spans.iter().skip_while(|span| span.bytes.end <= from) {
            if span.bytes.start >= to {
                break;
            }
            let (start, end) = (span.bytes.start.max(from), span.bytes.end.min(to));
            let covered = self.text.get(start..end).unwrap_or("");
            if start < end && !covered.chars().all(is_blank) {
                let offset = units(self.text.get(from..start).unwrap_or(""));
                entities.push(Entity { style: span.style.clone(), offset, length: units(covered) });
            }
        }
        entities.truncate(MESSAGE_ENTITIES_MAX);
        Some(Chunk { text: text.to_owned(), entities })
    }

    /// The last message that may be made: as much as fits, and a word about the rest.
    fn last(&self, at: usize, whole: Whole<'_>) -> Chunk {
        let place = clip(whole.0, WHERE_BYTES_MAX);
        let note =
            |left_out: usize| format!("[… {left_out} more characters are left out here. The whole answer: {place}]");
        // The number cannot be longer than that of all characters.
        let room = MESSAGE_UNITS_MAX.saturating_sub(units(&note(self.text.len())) + 2);
        let end = self.cut(at, room);
        let note = note(self.from(self.skip_blank(end)).chars().count());
        match self.chunk(at, end) {
            Some(mut chunk) => {
                chunk.text.push_str("\n\n");
                chunk.text.push_str(&note);
                chunk
            }
            None => Chunk::plain(note),
        }
    }

    /// Whether one code block holds both bytes.
    fn code_around(&self, from: usize, to: usize) -> bool {
        let after = self.code.partition_point(|block| block.start <= from);
        after.checked_sub(1).and_then(|i| self.code.get(i)).is_some_and(|block| to < block.end)
    }

    fn from(&self, at: usize) -> &str {
        self.text.get(at..).unwrap_or("")
    }

    fn char_len(&self, at: usize) -> usize {
        self.from(at).chars().next().map_or(0, char::len_utf8)
    }
}

/// The end of the last sentence that ends inside `window`, with the space behind it.
fn sentence_end(window: &str) -> Option<usize> {
    let latin = window.rmatch_indices(' ').find(|(i, _)| {
        let before = window.get(..*i).unwrap_or("");
        before.ends_with(['.', '!', '?', '…', ':', ';'])
    });
    let latin = latin.map(|(i, space)| i + space.len());
    let ideographic = window.rmatch_indices(['。', '！', '？']).next().map(|(i, stop)| i + stop.len());
    latin.max(ideographic)
}

/// The end of the last word that ends inside `window`, with the space behind it.
fn word_end(window: &str) -> Option<usize> {
    window.char_indices().rev().find(|(_, c)| c.is_whitespace()).map(|(i, c)| i + c.len_utf8())
}
