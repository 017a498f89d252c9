//! What a command prints on, and how things look there.

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::io::{self, IsTerminal, Write};

/// Width where no terminal tells one, in columns.
const WIDTH_DEFAULT: u16 = 80;

/// How things look: everything that a picture depends on but its content.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) colour: bool,
    /// Columns.
    pub(super) width: u16,
    /// Unix milliseconds.
    pub(super) now: u64,
    /// Found when the first local time is told: to look for it costs as much as all the rest of a command.
    pub(super) zone: OnceCell<TimeZone>,
}

/// Colours by meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Busy,
    Warn,
    Bad,
    Faint,
    Strong,
}

impl Tone {
    const fn style(self) -> Style {
        match self {
            Self::Good => Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green))),
            Self::Busy => Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Cyan))),
            Self::Warn => Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow))),
            Self::Bad => Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red))),
            Self::Faint => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
        }
    }
}

impl Look {
    /// `text` in a tone, if there is colour.
    pub(super) fn paint(&self, tone: Tone, text: &str) -> String {
        let style = tone.style();
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// How long ago, or `-` for what has not happened.
    pub(super) fn age(&self, at: u64) -> String {
        if at == 0 { "-".to_owned() } else { duration(self.now.saturating_sub(at)) }
    }

    /// Local date and time.
    pub(super) fn at(&self, wall: u64) -> String {
        self.time(wall, "%Y-%m-%d %H:%M:%S")
    }

    /// Local time with milliseconds.
    pub(super) fn at_ms(&self, wall: u64) -> String {
        self.time(wall, "%H:%M:%S%.3f")
    }

    fn time(&self, wall: u64, format: &str) -> String {
        let time = i64::try_from(wall).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let zone = || self.zone.get_or_init(TimeZone::system).clone();
        time.map_or_else(|| "-".to_owned(), |t| t.to_zoned(zone()).strftime(format).to_string())
    }
}

/// A duration of so many milliseconds in at most two units: `0.4s`, `12s`, `3m 12s`, `5h 20m`, `3d 4h`.
pub(super) fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..10 => format!("{s}.{}s", ms % 1000 / 100),
        10..60 => format!("{s}s"),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        86_400.. => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A number of bytes: `0 B`, `12 kB`, `84 MB`, `1.2 GB`.
pub(super) fn bytes(bytes: u64) -> String {
    const KB: u64 = 1000;
    match bytes {
        0..KB => format!("{bytes} B"),
        KB..1_000_000 => format!("{} kB", bytes / KB),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        1_000_000_000.. => format!("{}.{} GB", bytes / 1_000_000_000, bytes % 1_000_000_000 / 100_000_000),
    }
}

/// Text from outside for a terminal: without the bytes that would command it.
pub(super) fn tame(text: &str) -> Cow<'_, str> {
    let is_wild = |c: char| {
        (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.contains(is_wild) {
        Cow::Owned(text.chars().filter(|c| *c != '\r').map(|c| if is_wild(c) { '\u{fffd}' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// The first line of a text, tamed, in at most so many characters.
pub(super) fn one_line(text: &str, characters_max: usize) -> String {
    let tamed = tame(text.trim());
    let line = tamed.lines().next().unwrap_or("").replace('\t', " ");
    let more = tamed.lines().nth(1).is_some();
    if line.chars().count() <= characters_max && !more {
        return line;
    }
    let kept: String = line.chars().take(characters_max.saturating_sub(1)).collect();
    kept + "\u{2026}"
}

/// `text`, each line behind `indent` and broken between words where it would pass `width` columns.
pub(super) fn wrap(text: &str, width: u16, indent: &str) -> String {
    let room = usize::from(width).saturating_sub(indent.chars().count()).max(1);
    let mut wrapped = String::new();
    for line in text.lines() {
        // A line with its own layout keeps it.
        if line.chars().count() <= room || line.starts_with([' ', '\t', '|']) {
            wrapped.extend([format!("{indent}{line}").trim_end(), "\n"]);
            continue;
        }
        let mut used = 0;
        wrapped.push_str(indent);
        for word in line.split_whitespace() {
            let length = word.chars().count();
            if used > 0 && used + 1 + length > room {
                wrapped.extend(["\n", indent]);
                used = 0;
            }
            if used > 0 {
                wrapped.push(' ');
                used += 1;
            }
            wrapped.push_str(word);
            used += length;
        }
        wrapped.push('\n');
    }
    wrapped
}

/// Standard output and error of a command.
pub(super) struct Screen {
    pub(super) look: Look,
    out: RefCell<Box<dyn Write>>,
    err: RefCell<Box<dyn Write>>,
    out_is_terminal: bool,
    err_is_terminal: bool,
    err_colour: bool,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("look", &self.look).finish_non_exhaustive()
    }
}

impl Screen {
    /// That of this process.
    pub(super) fn of_process() -> Self {
        let coloured = |choice| choice != anstream::ColorChoice::Never;
        let out_is_terminal = io::stdout().is_terminal();
        let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
        let seen = if out_is_terminal { comfy_table::Table::new().width() } else { None };
        let look = Look {
            colour: coloured(anstream::AutoStream::choice(&io::stdout())),
            width: seen.or(columns).unwrap_or(WIDTH_DEFAULT).max(WIDTH_DEFAULT / 2),
            now: super::clock::wall_ms(),
            zone: OnceCell::new(),
        };
        Self {
            look,
            out: RefCell::new(Box::new(io::stdout())),
            err: RefCell::new(Box::new(io::stderr())),
            out_is_terminal,
            err_is_terminal: io::stderr().is_terminal(),
            err_colour: coloured(anstream::AutoStream::choice(&io::stderr())),
        }
    }

    /// One without a terminal, at the epoch.
    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self::onto(io::sink(), io::sink())
    }

    /// As [`Self::plain`], for somebody who looks at it.
    #[cfg(test)]
    pub(super) fn onto(out: impl Write + 'static, err: impl Write + 'static) -> Self {
        Self {
            look: Look { colour: false, width: 80, now: 0, zone: TimeZone::UTC.into() },
            out: RefCell::new(Box::new(out)),
            err: RefCell::new(Box::new(err)),
            out_is_terminal: false,
            err_is_terminal: false,
            err_colour: false,
        }
    }

    /// Prints a picture.
    pub(super) fn print(&self, text: &str) -> io::Result<()> {
        let mut out = self.out.borrow_mut();
        out.write_all(text.as_bytes())?;
        if !text.is_empty() && !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// Prints text from outside: as it is into a pipe, tamed on a terminal.
    pub(super) fn print_foreign(&self, text: &str) -> io::Result<()> {
        if self.out_is_terminal { self.print(&tame(text)) } else { self.print(text) }
    }

    /// Prints a value as JSON, on one line.
    pub(super) fn json(&self, value: &impl serde::Serialize) -> io::Result<()> {
        self.print(&serde_json::to_string(value)?)
    }

    /// Says something on standard error, where nobody may read it.
    pub(super) fn note(&self, text: &str) {
        self.err(&format!("{text}\n"));
    }

    /// Writes to standard error as it is.
    pub(super) fn err(&self, text: &str) {
        // A closed standard error is a person who does not want to read it.
        drop(self.err.borrow_mut().write_all(text.as_bytes()));
    }

    pub(super) const fn err_is_terminal(&self) -> bool {
        self.err_is_terminal
    }

    pub(super) const fn err_colour(&self) -> bool {
        self.err_colour
    }

    /// How things look on standard error.
    pub(super) fn err_look(&self) -> Look {
        Look { colour: self.err_colour, ..self.look.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_and_sizes_read_well() {
        let told: Vec<String> = [0, 450, 9_999, 12_000, 192_000, 19_200_000, 273_600_000].map(duration).into();
        assert_eq!(told, ["0.0s", "0.4s", "9.9s", "12s", "3m 12s", "5h 20m", "3d 4h"]);
        assert_eq!(
            [0, 999, 12_345, 84_000_000, 1_250_000_000].map(bytes),
            ["0 B", "999 B", "12 kB", "84 MB", "1.2 GB"]
        );
    }

    proptest! {
        #[test]
        fn nothing_from_outside_commands_a_terminal(text in any::<String>(), most in 0usize..40) {
            let tamed = tame(&text);
            prop_assert!(!tamed.contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
            let line = one_line(&text, most);
            prop_assert!(line.chars().count() <= most.max(1));
            prop_assert!(!line.contains(char::is_control));
        }
    }

    #[test]
    fn prose_is_wrapped_and_layout_is_kept() {
        assert_eq!(
            wrap("one two three\n\n  code is kept as it is", 9, "> "),
            "> one two\n> three\n>\n>   code is kept as it is\n"
        );
        assert_eq!(wrap("unbreakable", 4, ""), "unbreakable\n");
    }

    #[test]
    fn a_clipped_line_says_so() {
        assert_eq!(one_line("  hello\n", 10), "hello");
        assert_eq!(one_line("hello\nworld", 10), "hello\u{2026}");
        assert_eq!(one_line("hello", 4), "hel\u{2026}");
        assert_eq!(tame("a\u{1b}[31mb\r\n"), "a\u{fffd}[31mb\n");
    }
}
