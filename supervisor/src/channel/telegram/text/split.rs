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

#[cfg(test)]
mod tests {
    use super::super::render;
    use super::*;
    use proptest::prelude::*;

    const WHOLE: Whole<'_> = Whole("`cofferdam turns show 17`");

    fn cut(markdown: &str) -> Vec<Chunk> {
        split(&render(markdown), CHUNKS_MAX, WHOLE)
    }

    fn visible(text: &str) -> String {
        text.chars().filter(|c| !is_blank(*c)).collect()
    }

    /// Checks every promise about single messages.
    fn assert_lawful(chunks: &[Chunk], chunks_max: usize) {
        assert!(!chunks.is_empty() && chunks.len() <= chunks_max.max(1), "{} messages", chunks.len());
        for chunk in chunks {
            let units: Vec<u16> = chunk.text.encode_utf16().collect();
            assert!(units.len() <= MESSAGE_UNITS_MAX, "{} units", units.len());
            assert!(!chunk.text.chars().all(is_blank), "invisible");
            assert!(chunk.entities.len() <= MESSAGE_ENTITIES_MAX, "{} entities", chunk.entities.len());
            for entity in &chunk.entities {
                let covered = units.get(entity.offset..entity.offset + entity.length).expect("in range");
                assert!(!covered.is_empty());
                // A cut through a surrogate pair would leave a half of it.
                String::from_utf16(covered).expect("whole characters");
            }
        }
    }

    fn texts(chunks: &[Chunk]) -> Vec<&str> {
        chunks.iter().map(|chunk| chunk.text.as_str()).collect()
    }

    #[test]
    fn an_empty_answer_has_a_placeholder() {
        for text in ["", " \n\n ", "\u{200b}\u{feff}", "```\n\n```", "\u{2800}", "# "] {
            assert_eq!(cut(text), [Chunk::plain(EMPTY_PLACEHOLDER)], "{text:?}");
        }
    }

    #[test]
    fn offsets_count_utf16_units() {
        let chunks = cut("😀ä **b😀** `c`");
        assert_eq!(chunks[0].text, "😀ä b😀 c");
        let entity = |style, offset, length| Entity { style, offset, length };
        assert_eq!(chunks[0].entities, [entity(Style::Bold, 4, 3), entity(Style::Code, 8, 1)]);
    }

    #[test]
    fn cuts_at_the_best_place() {
        let (a, b) = ("a".repeat(3_000), "b".repeat(3_000));
        let (line, end) = ("c".repeat(500), "d".repeat(3_000));
        assert_eq!(texts(&cut(&format!("{a}\n\n{b}"))), [&a, &b]);
        assert_eq!(texts(&cut(&format!("{a}\n\n{line}\n{end}"))), [&a, &format!("{line}\n{end}")]);
        assert_eq!(texts(&cut(&format!("{a}\n{line} x. {end}"))), [&a, &format!("{line} x. {end}")]);
        assert_eq!(texts(&cut(&format!("{a}. {line} {end}"))), [&format!("{a}."), &format!("{line} {end}")]);
        assert_eq!(texts(&cut(&format!("{a} {end}"))), [&a, &end]);
        // An early blank line is no good place.
        assert_eq!(texts(&cut(&format!("x\n\n{a} {end}"))), [&format!("x\n\n{a}"), &end]);
        assert_eq!(texts(&cut(&"e".repeat(5_000))), ["e".repeat(4_096), "e".repeat(904)]);
    }

    #[test]
    fn graphemes_stay_whole_unless_they_fill_a_message() {
        let family = "👨‍👩‍👧‍👦";
        for chunk in cut(&family.repeat(1_000)) {
            assert_eq!(chunk.text.replace(family, ""), "");
        }
        let chunks = cut(&format!("e{}", "\u{301}".repeat(9_000)));
        assert_lawful(&chunks, CHUNKS_MAX);
        assert_eq!(units(&chunks[0].text), MESSAGE_UNITS_MAX);
    }

    #[test]
    fn code_ends_at_a_line_and_begins_again() {
        let code: Vec<_> = (0..400).map(|i| format!("    line number {i};")).collect();
        let chunks = cut(&format!("before\n\n```rust\n{}\n```\nafter", code.join("\n\n")));
        assert!(chunks.len() > 2);
        let mut lines = Vec::new();
        for chunk in &chunks {
            assert_eq!(chunk.entities.len(), 1, "one block in each");
            assert_eq!(chunk.entities[0].style, Style::Pre("rust".into()));
            lines.extend(chunk.text.lines().filter(|line| line.starts_with(' ')));
        }
        assert_eq!(lines, code, "every line whole, with its indentation");
        assert!(chunks.last().is_some_and(|chunk| chunk.text.ends_with("after")));
    }

    #[test]
    fn a_message_holds_no_more_entities_than_allowed() {
        let chunks = cut(&"`x` ".repeat(250));
        assert_lawful(&chunks, CHUNKS_MAX);
        assert_eq!(chunks.iter().map(|chunk| chunk.entities.len()).collect::<Vec<_>>(), [100, 100, 50]);
        let dense = cut(&"`x`**y**".repeat(120));
        assert_eq!(dense.iter().map(|chunk| chunk.entities.len()).sum::<usize>(), 240, "none is left out");
    }

    #[test]
    fn what_is_too_long_says_how_much_is_missing_and_where_it_is() {
        let markdown = "word ".repeat(5_000);
        let chunks = split(&render(&markdown), 3, Whole(&"x".repeat(10_000)));
        assert_lawful(&chunks, 3);
        let chunks = split(&render(&markdown), 3, WHOLE);
        assert_lawful(&chunks, 3);
        let (kept, note) = chunks[2].text.rsplit_once("\n\n").expect("a note");
        let shown: usize = chunks[..2].iter().map(|chunk| chunk.text.len() + 1).sum::<usize>() + kept.len() + 1;
        let missing = markdown.len() - 1 - shown;
        assert_eq!(
            note,
            format!("[… {missing} more characters are left out here. The whole answer: `cofferdam turns show 17`]")
        );
        assert_eq!(split(&render(&markdown), 0, WHOLE).len(), 1);
    }

    #[test]
    fn a_megabyte_of_anything_is_cut() {
        for unit in [
            "word ",
            "é",
            "😀",
            "\n",
            "a\n\n",
            "**b** ",
            "```\nx\n```\n",
            "| a | b |\n|-|-|\n",
            "`` ` ``\u{301}",
            "- *x*\n",
        ] {
            let markdown = unit.repeat(1_000_000 / unit.len());
            assert_lawful(&cut(&markdown), CHUNKS_MAX);
        }
        let blank = format!("```\n{}x\n{}\n```", " ".repeat(500_000), "\n \u{200b}".repeat(100_000));
        assert_lawful(&cut(&blank), CHUNKS_MAX);
    }

    fn markdown() -> impl Strategy<Value = String> {
        let bit = prop_oneof![
            4 => (1_usize..60).prop_map(|n| "some words to read ".repeat(n)),
            1 => any::<String>(),
            1 => (1_usize..3_000).prop_map(|n| "x".repeat(n)),
            1 => (0_usize..4, 1_usize..300).prop_map(|(i, n)| ["x\u{301}", "😀", "👨‍👩‍👧", "字"][i].repeat(n)),
            3 => prop::sample::select(vec![
                " ", "\n", "\n\n", "**", "*", "_", "~~", "`", "```rust\n", "\n```\n", "> ", "- ", "1. ", "# ", "[", "](http://a.b)",
                "](c)", "![", "\n|a|b|\n|-|-|\n|", "|", "---\n", "<b>", "\n    ", "- [ ] ", "\\", "\u{200b}", "\t", ". ", "\r\n",
            ]).prop_map(str::to_owned),
        ];
        prop::collection::vec(bit, 0..30).prop_map(|bits| bits.concat())
    }

    proptest! {
        #[test]
        fn nothing_visible_is_lost_and_every_message_is_lawful(markdown in markdown()) {
            let rendered = render(&markdown);
            for span in &rendered.spans {
                prop_assert!(!rendered.text.get(span.bytes.clone()).expect("at characters").is_empty());
            }
            let chunks = split(&rendered, usize::MAX, WHOLE);
            assert_lawful(&chunks, usize::MAX);
            if !visible(&rendered.text).is_empty() {
                prop_assert_eq!(visible(&texts(&chunks).concat()), visible(&rendered.text));
            }
        }

        #[test]
        fn every_formatted_character_stays_formatted(markdown in markdown()) {
            let rendered = render(&markdown);
            let count = |style: &Style| -> usize {
                let spans = rendered.spans.iter().filter(|span| span.style == *style);
                spans.map(|span| visible(&rendered.text[span.bytes.clone()]).len()).sum()
            };
            let mut counted = 0;
            for chunk in split(&rendered, usize::MAX, WHOLE) {
                let units: Vec<u16> = chunk.text.encode_utf16().collect();
                for entity in chunk.entities.iter().filter(|entity| entity.style == Style::Bold) {
                    let covered = &units[entity.offset..entity.offset + entity.length];
                    counted += visible(&String::from_utf16_lossy(covered)).len();
                }
            }
            prop_assert_eq!(counted, count(&Style::Bold));
        }

        #[test]
        fn the_number_of_messages_is_bounded(markdown in markdown(), most in 0_usize..4) {
            let rendered = render(&markdown);
            let chunks = split(&rendered, most, WHOLE);
            assert_lawful(&chunks, most);
            let all = visible(&rendered.text);
            let shown = visible(&texts(&chunks).concat());
            let kept = shown.split("[…").next().expect("a beginning");
            prop_assert!(all.is_empty() || all.starts_with(kept) || shown == all);
        }

        #[test]
        fn entities_survive_their_json(offset in 0_usize..5000, length in 1_usize..5000, word in "[a-z]{0,8}") {
            for style in [Style::Bold, Style::Pre(word.clone()), Style::Link(word.clone()), Style::Quote] {
                let entity = Entity { style, offset, length };
                prop_assert_eq!(Entity::from_json(&entity.to_json()), Some(entity));
            }
        }
    }
}
