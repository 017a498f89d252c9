//! Markdown to plain text with spans. Pure, never fails: what is no Markdown is text.
//!
//! Line ends between blocks are *owed* and paid only when the next text comes, and a span starts at the first text in it:
//! so no span is empty, and none begins or ends with the space between two blocks.

use super::table::Table;
use super::{Rendered, Span, Style, clean};
use protocol::text::clip;
use pulldown_cmark::{CodeBlockKind, CowStr, Event, LinkType, Options, Parser, Tag, TagEnd};

/// Deepest indentation of nested lists, in levels: a phone has no room for more, and each level costs text.
const INDENT_LEVELS_MAX: usize = 6;

/// What one level of a list is indented by.
const INDENT: &str = "  ";

/// Longest row of list markers on one line, in bytes, as `- - - - x` makes.
const MARKER_BYTES_MAX: usize = 48;

/// Longest address that is made a link, in bytes: Telegram drops longer ones.
const URL_BYTES_MAX: usize = 2048;

/// Longest name of a language, in bytes.
const LANGUAGE_BYTES_MAX: usize = 32;

/// What a thematic break looks like.
const RULE: &str = "──────────";

/// Renders `markdown`. The result has no line end at its end, and may be empty.
pub fn render(markdown: &str) -> Rendered {
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut writer = Writer::default();
    for event in Parser::new_ext(markdown, options) {
        writer.take(event);
    }
    writer.finish()
}

#[derive(Default)]
struct Writer {
    text: String,
    spans: Vec<Span>,
    /// Spans that are open, with where they start once text has come. At most one of a style, so it stays short.
    open: Vec<(Style, Option<usize>)>,
    /// How many line ends are owed before the next text.
    owed: usize,
    /// What the next line of a list begins with.
    marker: String,
    /// The open lists: the next number, or none for bullets.
    lists: Vec<Option<u64>>,
    /// How deep we are in bold, italic, strikethrough and quotes.
    depths: [u32; 4],
    links: Vec<LinkEnd>,
    in_link: bool,
    table: Option<Table>,
}

/// What the end of a link or an image does.
enum LinkEnd {
    Close,
    Append(String),
    Nothing,
}

impl Writer {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text)
            | Event::Html(text)
            | Event::InlineMath(text)
            | Event::DisplayMath(text)
            | Event::FootnoteReference(text) => self.push(&text),
            Event::InlineHtml(text) => {
                let line_end = matches!(&*text, "<br>" | "<br/>" | "<br />");
                self.push(if line_end { "\n" } else { &text });
            }
            Event::Code(text) => {
                self.begin(Style::Code);
                self.push(&text);
                self.close();
            }
            Event::SoftBreak | Event::HardBreak => self.break_line(),
            Event::Rule => {
                self.owe(2);
                self.push(RULE);
                self.owe(2);
            }
            Event::TaskListMarker(done) => {
                let kept = self.marker.strip_suffix("• ").unwrap_or(&self.marker).len();
                self.marker.truncate(kept);
                self.marker.push_str(if done { "☑ " } else { "☐ " });
            }
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph | Tag::HtmlBlock => self.owe_block(),
            Tag::Heading { .. } => {
                self.owe_block();
                self.deepen(Style::Bold);
            }
            Tag::BlockQuote(_) => {
                self.owe_block();
                self.deepen(Style::Quote);
            }
            Tag::CodeBlock(kind) => {
                self.owe_block();
                self.begin(Style::Pre(language(&kind)));
            }
            Tag::List(first) => {
                if self.lists.is_empty() {
                    self.owe_block();
                }
                self.lists.push(first);
            }
            Tag::Item => self.start_item(),
            Tag::Table(alignments) => {
                self.owe_block();
                self.table = Some(Table::new(alignments));
            }
            Tag::TableHead | Tag::TableRow => self.on_table(Table::begin_row),
            Tag::TableCell => self.on_table(Table::begin_cell),
            Tag::Emphasis => self.deepen(Style::Italic),
            Tag::Strong => self.deepen(Style::Bold),
            Tag::Strikethrough => self.deepen(Style::Strikethrough),
            Tag::Link { link_type, dest_url, .. } => self.start_link(link_type, &dest_url, ""),
            Tag::Image { link_type, dest_url, .. } => self.start_link(link_type, &dest_url, "🖼 "),
            Tag::FootnoteDefinition(_)
            | Tag::DefinitionList
            | Tag::DefinitionListTitle
            | Tag::DefinitionListDefinition
            | Tag::Superscript
            | Tag::Subscript
            | Tag::MetadataBlock(_) => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph => self.owe_block(),
            TagEnd::HtmlBlock => {
                self.drop_line_ends();
                self.owe_block();
            }
            TagEnd::Heading(_) => {
                self.rise(&Style::Bold);
                self.owe_block();
            }
            TagEnd::BlockQuote(_) => {
                self.rise(&Style::Quote);
                self.owe_block();
            }
            TagEnd::CodeBlock => {
                self.drop_line_ends();
                self.close();
                self.owe_block();
            }
            TagEnd::List(_) => {
                self.lists.pop();
                self.owe(if self.lists.is_empty() { 2 } else { 1 });
            }
            TagEnd::Item => {
                self.marker.clear();
                self.owe(1);
            }
            TagEnd::Table => self.end_table(),
            TagEnd::Emphasis => self.rise(&Style::Italic),
            TagEnd::Strong => self.rise(&Style::Bold),
            TagEnd::Strikethrough => self.rise(&Style::Strikethrough),
            TagEnd::Link | TagEnd::Image => self.end_link(),
            TagEnd::TableHead
            | TagEnd::TableRow
            | TagEnd::TableCell
            | TagEnd::FootnoteDefinition
            | TagEnd::DefinitionList
            | TagEnd::DefinitionListTitle
            | TagEnd::DefinitionListDefinition
            | TagEnd::Superscript
            | TagEnd::Subscript
            | TagEnd::MetadataBlock(_) => {}
        }
    }

    fn start_item(&mut self) {
        self.owe(1);
        if self.marker.len() > MARKER_BYTES_MAX {
            return;
        }
        match self.lists.last_mut() {
            Some(Some(number)) => {
                self.marker.push_str(&number.to_string());
                self.marker.push_str(". ");
                *number = number.saturating_add(1);
            }
            Some(None) | None => self.marker.push_str("• "),
        }
    }

    fn start_link(&mut self, link_type: LinkType, url: &CowStr<'_>, prefix: &str) {
        let web = ["https://", "http://", "tg://", "mailto:", "ton://"].iter().any(|scheme| url.starts_with(scheme));
        let shown = matches!(link_type, LinkType::Autolink | LinkType::Email);
        let end = if url.is_empty() || self.in_link || shown {
            LinkEnd::Nothing
        } else if web && url.len() <= URL_BYTES_MAX && self.table.is_none() {
            self.begin(Style::Link(url.to_string()));
            self.in_link = true;
            LinkEnd::Close
        } else {
            // Telegram makes no link of a path or an anchor: a person sees where it leads instead.
            LinkEnd::Append(format!(" ({})", clip(url, URL_BYTES_MAX)))
        };
        self.links.push(end);
        self.push(prefix);
    }

    fn end_link(&mut self) {
        match self.links.pop() {
            Some(LinkEnd::Close) => {
                // A link without words shows its address.
                if let Some((Style::Link(url), None)) = self.open.last() {
                    let url = url.clone();
                    self.push(&url);
                }
                self.in_link = false;
                self.close();
            }
            Some(LinkEnd::Append(url)) => self.push(&url),
            Some(LinkEnd::Nothing) | None => {}
        }
    }

    fn end_table(&mut self) {
        let Some(table) = self.table.take() else { return };
        let (text, spans) = table.draw();
        if !text.is_empty() {
            self.pay();
            let start = self.text.len();
            self.text.push_str(&text);
            let shifted = |span: Span| Span { bytes: span.bytes.start + start..span.bytes.end + start, ..span };
            self.spans.extend(spans.into_iter().map(shifted));
        }
        self.owe_block();
    }

    fn on_table(&mut self, act: impl FnOnce(&mut Table)) {
        if let Some(table) = &mut self.table {
            act(table);
        }
    }

    fn owe(&mut self, line_ends: usize) {
        self.owed = self.owed.max(line_ends);
    }

    /// The space between two blocks: an empty line, in lists the next line, and none after the marker of an item.
    fn owe_block(&mut self) {
        if self.marker.is_empty() {
            self.owe(if self.lists.is_empty() { 2 } else { 1 });
        }
    }

    fn indent(&mut self, levels: usize) {
        for _ in 0..levels.min(INDENT_LEVELS_MAX) {
            self.text.push_str(INDENT);
        }
    }

    fn break_line(&mut self) {
        if self.table.is_some() {
            return self.push(" ");
        }
        self.push("\n");
        self.indent(self.lists.len());
    }

    /// Pays the line ends that are owed, then the marker of the list, and lets the open spans start.
    fn pay(&mut self) {
        let owed = std::mem::take(&mut self.owed);
        if owed > 0 || self.text.is_empty() {
            let kept = self.text.trim_end_matches('\n').len();
            let there = self.text.len() - kept;
            for _ in there..if kept == 0 { 0 } else { owed } {
                self.text.push('\n');
            }
            let in_code = matches!(self.open.last(), Some((Style::Pre(_), _)));
            if !self.marker.is_empty() {
                self.indent(self.lists.len().saturating_sub(1));
            } else if !in_code && self.table.is_none() {
                self.indent(self.lists.len());
            }
        }
        let start_of_line = self.text.len();
        self.text.push_str(&self.marker);
        self.marker.clear();
        let start_of_text = self.text.len();
        for (style, start) in &mut self.open {
            // A quotation holds the markers of its lists, all else only the words.
            let here = if matches!(style, Style::Quote) { start_of_line } else { start_of_text };
            start.get_or_insert(here);
        }
    }

    fn push(&mut self, text: &str) {
        let text = clean(text);
        if text.is_empty() {
            return;
        }
        if let Some(table) = &mut self.table {
            return table.push(&text);
        }
        self.pay();
        self.text.push_str(&text);
    }

    fn drop_line_ends(&mut self) {
        if self.table.is_none() {
            self.text.truncate(self.text.trim_end_matches('\n').len());
            let end = self.text.len();
            for (_, start) in &mut self.open {
                *start = start.filter(|start| *start < end);
            }
        }
    }

    fn begin(&mut self, style: Style) {
        if self.table.is_none() {
            self.open.push((style, None));
        }
    }

    /// Closes the span that was opened last.
    fn close(&mut self) {
        if self.table.is_some() {
            return;
        }
        if let Some((style, Some(start))) = self.open.pop()
            && start < self.text.len()
        {
            self.spans.push(Span { style, bytes: start..self.text.len() });
        }
    }

    /// Opens a style that may stand inside itself; only the outermost counts.
    fn deepen(&mut self, style: Style) {
        let depth = self.depth(&style);
        *depth += 1;
        if *depth == 1 {
            self.begin(style);
        }
    }

    fn rise(&mut self, style: &Style) {
        let depth = self.depth(style);
        *depth = depth.saturating_sub(1);
        if *depth == 0 {
            self.close();
        }
    }

    fn depth(&mut self, style: &Style) -> &mut u32 {
        let [bold, italic, struck, quote] = &mut self.depths;
        match style {
            Style::Italic => italic,
            Style::Strikethrough => struck,
            Style::Quote => quote,
            Style::Bold | Style::Code | Style::Pre(_) | Style::Link(_) => bold,
        }
    }

    fn finish(mut self) -> Rendered {
        self.text.truncate(self.text.trim_end().len());
        let end = self.text.len();
        for span in &mut self.spans {
            span.bytes.end = span.bytes.end.min(end);
        }
        self.spans.retain(|span| span.bytes.start < span.bytes.end);
        self.spans.sort_by_key(|span| (span.bytes.start, std::cmp::Reverse(span.bytes.end)));
        Rendered { text: self.text, spans: self.spans }
    }
}

fn language(kind: &CodeBlockKind<'_>) -> String {
    match kind {
        CodeBlockKind::Indented => String::new(),
        CodeBlockKind::Fenced(info) => {
            let word = info.split(|c: char| c.is_whitespace() || c == ',').next().unwrap_or_default();
            clip(&clean(word), LANGUAGE_BYTES_MAX).to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text with its spans marked: `<bold>x</>`.
    fn marked(markdown: &str) -> String {
        let rendered = render(markdown);
        let mut marks: Vec<(usize, bool, usize, String)> = Vec::new();
        for span in &rendered.spans {
            let extra = match &span.style {
                Style::Pre(language) => format!(" {language}"),
                Style::Link(url) => format!(" {url}"),
                Style::Bold | Style::Italic | Style::Strikethrough | Style::Code | Style::Quote => String::new(),
            };
            let length = span.bytes.len();
            marks.push((span.bytes.start, true, usize::MAX - length, format!("<{}{extra}>", span.style.name())));
            marks.push((span.bytes.end, false, length, "</>".into()));
        }
        marks.sort();
        let mut text = rendered.text.clone();
        for (at, _, _, mark) in marks.iter().rev() {
            text.insert_str(*at, mark);
        }
        text
    }

    #[test]
    fn inline_styles_become_spans() {
        assert_eq!(marked("a **b _c_** ~~d~~ `e`"), "a <bold>b <italic>c</></> <strikethrough>d</> <code>e</>");
        assert_eq!(marked("**a __b__ c**"), "<bold>a b c</>");
        assert_eq!(marked("1 * 2 * 3 a_b_c \\*x\\* &amp; &lt;"), "1 * 2 * 3 a_b_c *x* & <");
        assert_eq!(marked("****"), "──────────");
    }

    #[test]
    fn blocks_are_set_apart_by_an_empty_line() {
        assert_eq!(
            marked("# A *b*\ntext\nmore\n\n\n\nnext\n\n---\nend"),
            "<bold>A <italic>b</></>\n\ntext\nmore\n\nnext\n\n──────────\n\nend"
        );
        assert_eq!(marked("> a\n> b\n>\n> > c\n\nd"), "<blockquote>a\nb\n\nc</>\n\nd");
        assert_eq!(
            marked("a\n```rust,ignore\nfn x() {\n\n  y\n}\n```\nb"),
            "a\n\n<pre rust>fn x() {\n\n  y\n}</>\n\nb"
        );
        assert_eq!(marked("```\n\n```\n\nb"), "b");
        assert_eq!(marked("> a\n> ```\n> \n> ```\n> b"), "<blockquote>a\n\nb</>");
    }

    #[test]
    fn lists_keep_their_marks_and_nesting() {
        assert_eq!(
            marked("a\n- b\n  c\n- **d**\n  1. e\n  2. f\n     - g\n\nh"),
            "a\n\n• b\n  c\n• <bold>d</>\n  1. e\n  2. f\n    • g\n\nh"
        );
        assert_eq!(marked("7. a\n\n   b\n8. c"), "7. a\n  b\n8. c");
        assert_eq!(marked("- [ ] a\n- [x] b"), "☐ a\n☑ b");
        assert_eq!(marked("1. - x"), "  1. • x");
        assert_eq!(marked("- a\n  ```\n  x\n    y\n  ```\n- b"), "• a\n<pre >x\n  y</>\n• b");
        assert_eq!(marked("> - a\n> - b"), "<blockquote>• a\n• b</>");
    }

    #[test]
    fn links_lead_where_telegram_can_follow_and_show_it_elsewhere() {
        assert_eq!(marked("[a *b*](https://x.y)"), "<text_link https://x.y>a <italic>b</></>");
        assert_eq!(marked("[main.rs](/src/main.rs:7)"), "main.rs (/src/main.rs:7)");
        assert_eq!(marked("<https://x.y> and [](https://z)"), "https://x.y and <text_link https://z>https://z</>");
        assert_eq!(marked("![alt](https://x.y/i.png)"), "<text_link https://x.y/i.png>🖼 alt</>");
        assert_eq!(marked("[![alt](https://i)](https://x)"), "<text_link https://x>🖼 alt</>");
    }

    #[test]
    fn html_is_text() {
        assert_eq!(marked("a <b>c</b> d<br>e"), "a <b>c</b> d\ne");
        assert_eq!(marked("<div>\nx\n</div>\n\ny"), "<div>\nx\n</div>\n\ny");
    }

    #[test]
    fn control_characters_do_not_pass() {
        assert_eq!(render("a\r\nb\u{0}\u{7}c\u{1b}[1m").text, "a\nb  c [1m");
        assert_eq!(Rendered::plain("a\r\n\u{1}\tb").text, "a\n \tb");
    }

    #[test]
    fn hostile_nesting_stays_small() {
        for unit in
            ["- ", "> ", "1. ", "*", "**a ", "[", "![", "](b)", "`", "~~", "|", "<a ", "\\", "_a*", "|\n", "- > "]
        {
            let markdown = unit.repeat(200_000 / unit.len()) + "x";
            let rendered = render(&markdown);
            assert!(rendered.text.len() <= 16 * markdown.len(), "{unit:?}: {} bytes", rendered.text.len());
        }
    }
}
