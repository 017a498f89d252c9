//! The latencies of each drill as a picture: SVG text, one panel a kind. Pure.
//!
//! ```text
//!   ms  |  .  . . .|   .  .  . :   |  .  .    turns: a dot each (a cross: failed); pings: a tick each
//!  100 -|          |#############  |          during: shaded
//!   10 -|- - - - - |- - - - - - - -| - - -    the budget of health
//!    1 -|~~~~~~~~~~|~~~~~~~~~~~~~~~|~~~~~~    health: median, and the area up to the largest
//!       +----------+---------------+------ s
//! ```

use super::plan::{Phase, Times};
use super::stats::{Sample, percentile};
use super::verdict::{HEALTH_P99_MS_MAX, Probe};

/// Width of the picture in pixels.
const WIDTH: f64 = 800.0;
/// Height of the head, and of a panel with its title and axis, in pixels.
const HEAD: f64 = 52.0;
const PANEL: f64 = 250.0;
/// Around the plot of a panel, in pixels.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 36.0;
/// Width of the words at a line, in pixels.
const LABEL: f64 = 120.0;
/// Columns into which what is measured often is put together.
const COLUMNS: usize = 180;
/// The axis of time has at most so many marks.
const MARKS_MAX: f64 = 12.0;
/// Distances between marks, in seconds.
const STEPS: [f64; 11] = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0];

const TURNS: &str = "#1c5fb8";
const HEALTH: &str = "#c2570c";
const WORKERS: &str = "#6639ba";
const FAILED: &str = "#c01c28";
const INK: &str = "#24292f";
const FAINT: &str = "#6e7781";

/// One drill.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) times: Times,
    pub(super) series: Vec<(Probe, Vec<Sample>)>,
    /// When the victim had recovered, in seconds since the begin.
    pub(super) recovered_at: Option<f64>,
}

/// The whole picture.
pub(super) fn chart(head: &str, panels: &[Panel]) -> String {
    let count = u32::try_from(panels.len()).unwrap_or(u32::MAX);
    let height = HEAD + PANEL * f64::from(count);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    text(&mut svg, LEFT, 20.0, "start", &format!("fill=\"{INK}\" font-size=\"14\" font-weight=\"bold\""), head);
    legend(&mut svg);
    let mut top = HEAD;
    for panel in panels {
        draw(&mut svg, panel, top);
        top += PANEL;
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    let ink = format!("fill=\"{INK}\"");
    let y = 42.0;
    let mut say = |x: f64, words: &str, mark: &dyn Fn(&mut String, f64)| {
        mark(svg, LEFT + x);
        text(svg, LEFT + x + 24.0, y, "start", &ink, words);
    };
    say(-8.0, "turn of another agent", &|svg, x| dot(svg, x + 15.0, y - 4.0, 3.0));
    say(158.0, "ping of a worker", &|svg, x| tick(svg, x + 15.0, y - 4.0));
    say(302.0, "health: median, largest", &|svg, x| {
        let area = format_args!(
            "<rect x=\"{x}\" y=\"34\" width=\"18\" height=\"8\" fill=\"{HEALTH}\" fill-opacity=\"0.25\"/>"
        );
        put(svg, area);
        put(svg, format_args!("<path d=\"M{x} {y}h18\" stroke=\"{HEALTH}\" stroke-width=\"1.5\"/>"));
    });
    say(496.0, &format!("its budget, {HEALTH_P99_MS_MAX} ms"), &|svg, x| {
        put(svg, format_args!("<path d=\"M{x} {}h18\" stroke=\"{HEALTH}\" stroke-dasharray=\"4 3\"/>", y - 4.0));
    });
    say(634.0, "failed", &|svg, x| cross(svg, x + 14.0, y - 4.0));
}

/// Where values lie in a panel.
struct Scale {
    top: f64,
    bottom: f64,
    seconds: f64,
    /// Powers of ten at the bottom and at the top.
    low: f64,
    high: f64,
}

impl Scale {
    fn of(panel: &Panel, top: f64) -> Self {
        let values =
            || panel.series.iter().flat_map(|(_, samples)| samples).map(|sample| sample.ms).filter(|ms| *ms > 0.0);
        let least = values().fold(1.0, f64::min).clamp(0.01, 1.0);
        let most = values().fold(HEALTH_P99_MS_MAX * 2.0, f64::max);
        Self {
            top: top + TOP,
            bottom: top + PANEL - BOTTOM,
            seconds: panel.times.over.max(0.1),
            low: least.log10().floor(),
            high: most.log10().ceil(),
        }
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (seconds / self.seconds).clamp(0.0, 1.0)
    }

    fn y(&self, ms: f64) -> f64 {
        let share = (ms.max(1e-6).log10() - self.low) / (self.high - self.low);
        self.bottom - (self.bottom - self.top) * share.clamp(0.0, 1.0)
    }
}

fn draw(svg: &mut String, panel: &Panel, top: f64) {
    let scale = Scale::of(panel, top);
    let title = format!("fill=\"{INK}\" font-weight=\"bold\"");
    text(svg, LEFT, top + 18.0, "start", &title, &panel.title);
    grid(svg, &scale, panel);
    for (probe, samples) in &panel.series {
        match probe {
            Probe::Turns => {
                for sample in samples {
                    let (x, y) = (scale.x(sample.at_s), scale.y(sample.ms));
                    if sample.ok { dot(svg, x, y, 2.4) } else { cross(svg, x, y) }
                }
            }
            Probe::Health => band(svg, &scale, samples),
            Probe::Workers => {
                for sample in samples {
                    let (x, y) = (scale.x(sample.at_s), scale.y(sample.ms));
                    if sample.ok { tick(svg, x, y) } else { cross(svg, x, y) }
                }
            }
        }
    }
}

fn grid(svg: &mut String, scale: &Scale, panel: &Panel) {
    let (left, right) = (LEFT, WIDTH - RIGHT);
    let (from, to) = (scale.x(panel.times.hurt), scale.x(panel.times.ended));
    let (top, bottom) = (scale.top, scale.bottom);
    put(
        svg,
        format_args!(
            "<rect x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{}\" fill=\"#fbe3e0\"/>",
            to - from,
            bottom - top
        ),
    );
    let faint = format!("fill=\"{FAINT}\"");
    for (phase, x) in [
        (Phase::Before, f64::midpoint(left, from)),
        (Phase::During, f64::midpoint(from, to)),
        (Phase::After, f64::midpoint(to, right)),
    ] {
        text(svg, x, top - 6.0, "middle", &faint, phase.as_str());
    }
    let mut power = scale.low;
    while power <= scale.high + 0.5 {
        let (value, y) = (10f64.powf(power), scale.y(10f64.powf(power)));
        put(svg, format_args!("<path d=\"M{left} {y:.1}H{right}\" stroke=\"#d8dee4\"/>"));
        text(svg, left - 8.0, y + 4.0, "end", &faint, &format!("{value} ms"));
        power += 1.0;
    }
    let step = STEPS.into_iter().find(|step| scale.seconds / step <= MARKS_MAX).unwrap_or(1200.0);
    let mut at = 0.0;
    while at <= scale.seconds {
        let x = scale.x(at);
        put(svg, format_args!("<path d=\"M{x:.1} {bottom}v4\" stroke=\"{FAINT}\"/>"));
        text(svg, x, bottom + 17.0, "middle", &faint, &format!("{at} s"));
        at += step;
    }
    put(svg, format_args!("<path d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"{FAINT}\"/>"));
    let budget = scale.y(HEALTH_P99_MS_MAX);
    put(svg, format_args!("<path d=\"M{left} {budget:.1}H{right}\" stroke=\"{HEALTH}\" stroke-dasharray=\"4 3\"/>"));
    if let Some(at) = panel.recovered_at {
        let x = scale.x(at);
        put(svg, format_args!("<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"#1a7f37\" stroke-dasharray=\"2 3\"/>"));
        // Near the right edge the words stand before the line.
        let (x, anchor) = if x > WIDTH - LABEL { (x - 4.0, "end") } else { (x + 4.0, "start") };
        text(svg, x, bottom - 6.0, anchor, "fill=\"#1a7f37\" font-size=\"11\"", "victim recovered");
    }
}

/// Health: many samples, put together column by column.
fn band(svg: &mut String, scale: &Scale, samples: &[Sample]) {
    let mut columns: Vec<Vec<f64>> = vec![Vec::new(); COLUMNS];
    for sample in samples {
        let share = (sample.at_s / scale.seconds).clamp(0.0, 1.0);
        if let Some(column) = columns.get_mut(column(share)) {
            column.push(sample.ms);
        }
    }
    let (mut line, mut area) = (String::new(), String::new());
    let width = scale.seconds / column_count();
    for (index, values) in columns.iter_mut().enumerate().filter(|(_, values)| !values.is_empty()) {
        values.sort_by(f64::total_cmp);
        let from = width * f64::from(u32::try_from(index).unwrap_or(0));
        let (x, to) = (scale.x(from), scale.x(from + width));
        let (median, most) = (scale.y(percentile(values, 50)), scale.y(percentile(values, 100)));
        let step = if line.is_empty() { 'M' } else { 'L' };
        put(&mut line, format_args!("{step}{:.1} {median:.1}", f64::midpoint(x, to)));
        put(&mut area, format_args!("M{x:.1} {median:.1}V{most:.1}H{to:.1}V{median:.1}Z"));
    }
    let one_line = |path: &str| path.replace('\n', " ");
    put(svg, format_args!("<path d=\"{}\" fill=\"{HEALTH}\" fill-opacity=\"0.25\"/>", one_line(&area).trim()));
    put(
        svg,
        format_args!("<path d=\"{}\" fill=\"none\" stroke=\"{HEALTH}\" stroke-width=\"1.5\"/>", one_line(&line).trim()),
    );
}

fn column_count() -> f64 {
    f64::from(u32::try_from(COLUMNS).unwrap_or(1))
}

/// The column of a place between 0 and 1.
fn column(share: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 180")]
    let index = (share * column_count()) as usize;
    index.min(COLUMNS - 1)
}

fn dot(svg: &mut String, x: f64, y: f64, radius: f64) {
    put(
        svg,
        format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{TURNS}\" fill-opacity=\"0.75\"/>"),
    );
}

/// The answer of a worker: small, there are many.
fn tick(svg: &mut String, x: f64, y: f64) {
    put(svg, format_args!("<path d=\"M{x:.1} {:.1}v3\" stroke=\"{WORKERS}\" stroke-width=\"1.6\"/>", y - 1.5));
}

fn cross(svg: &mut String, x: f64, y: f64) {
    put(
        svg,
        format_args!(
            "<path d=\"M{:.1} {:.1}l8 8m0 -8l-8 8\" stroke=\"{FAILED}\" stroke-width=\"2\"/>",
            x - 4.0,
            y - 4.0
        ),
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, style: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    put(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {style}>{words}</text>"));
}

fn put(svg: &mut String, piece: std::fmt::Arguments<'_>) {
    svg.extend([piece.to_string().as_str(), "\n"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel() -> Panel {
        let sample = |at_s, ms, ok| Sample { at_s, ms, ok };
        let turns = vec![sample(0.5, 60.0, true), sample(4.0, 30_000.0, false), sample(9.0, 61.0, true)];
        let health = (0..900).map(|i| sample(f64::from(i) / 100.0, 0.4 + f64::from(i % 7) / 10.0, true)).collect();
        Panel {
            title: "kill <drill-victim> & wait".into(),
            times: Times { hurt: 3.0, ended: 6.0, over: 9.0 },
            series: vec![(Probe::Turns, turns), (Probe::Health, health)],
            recovered_at: Some(6.5),
        }
    }

    #[test]
    fn the_picture_is_well_formed_and_within_its_frame() {
        let svg = chart("a drill", &[panel(), panel()]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("viewBox=\"0 0 800 552\""), "{}", &svg[..200]);
        assert!(svg.contains("kill &lt;drill-victim&gt; &amp; wait") && !svg.contains("NaN"));
        for tag in ["text", "svg"] {
            assert_eq!(svg.matches(&format!("<{tag} ")).count(), svg.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert_eq!(svg.matches("<circle").count(), 1 + 2 * 2, "a dot a turn, and one in the legend");
        let numbers = |key: &str| -> Vec<f64> {
            svg.split(&format!(" {key}=\"")).skip(1).filter_map(|rest| rest.split('"').next()?.parse().ok()).collect()
        };
        assert!(numbers("cx").iter().chain(&numbers("x")).all(|x| (0.0..=WIDTH).contains(x)));
        assert!(numbers("cy").iter().chain(&numbers("y")).all(|y| (0.0..=552.0).contains(y)));
    }

    #[test]
    fn a_drill_without_samples_is_an_empty_panel() {
        let empty = Panel {
            series: vec![(Probe::Turns, Vec::new()), (Probe::Health, Vec::new())],
            times: Times::default(),
            ..panel()
        };
        let svg = chart("nothing", &[empty]);
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn the_scale_is_one_of_powers_of_ten() {
        let scale = Scale::of(&panel(), 0.0);
        assert_eq!((scale.low, scale.high), (-1.0, 5.0));
        assert!(scale.y(0.1) - scale.bottom < 1e-9 && (scale.y(1e5) - scale.top).abs() < 1e-9);
        assert!((scale.y(10.0) - scale.y(100.0) - (scale.y(100.0) - scale.y(1000.0))).abs() < 1e-9);
        assert_eq!((column(0.0), column(1.0)), (0, COLUMNS - 1));
    }
}
