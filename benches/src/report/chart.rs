//! Charts as inline SVG: no script, no font, nothing from elsewhere. Colours come from the page's style.

use std::fmt::Write;

/// A chart of lines.
pub struct Lines {
    /// What stands above it.
    pub title: String,
    /// What the horizontal axis shows, with its unit.
    pub x: &'static str,
    /// What the vertical axis shows, with its unit.
    pub y: &'static str,
    /// Whether the vertical axis counts in powers of ten.
    pub log: bool,
    /// Name and points of each line; a line is drawn in pieces where a point is not a number.
    pub series: Vec<(String, Vec<(f64, f64)>)>,
}

/// A chart of stacked bars.
pub struct Bars {
    /// What stands above it.
    pub title: String,
    /// What the bars' length shows, with its unit.
    pub x: &'static str,
    /// What the parts of a bar are.
    pub parts: Vec<&'static str>,
    /// Name and parts of each bar.
    pub bars: Vec<(String, Vec<f64>)>,
}

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 314.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 44.0;
/// Colours in the page's style; more series than that begin again.
const COLOURS: usize = 8;
/// Points drawn for a line: two for each pixel, the rest would not be seen.
const POINTS_MAX: usize = 1_500;

impl Lines {
    /// The chart as SVG.
    pub fn svg(&self) -> String {
        let finite =
            || self.series.iter().flat_map(|(_, points)| points).filter(|(x, y)| (x + y).is_finite());
        let x_max = nice(finite().map(|(x, _)| *x).fold(0.0, f64::max));
        let (y_min, y_max) = if self.log {
            let least = finite().map(|(_, y)| *y).filter(|y| *y > 0.0).fold(1.0, f64::min);
            (10f64.powf(least.log10().floor()).max(1e-6), 1.0)
        } else {
            (0.0, nice(finite().map(|(_, y)| *y).fold(0.0, f64::max)))
        };
        let place_x = |x: f64| LEFT + x / x_max * (WIDTH - LEFT - RIGHT);
        let share = |y: f64| {
            if self.log {
                (y.max(y_min).log10() - y_min.log10()) / (y_max.log10() - y_min.log10()).max(1e-9)
            } else {
                y / y_max
            }
        };
        let place_y = |y: f64| HEIGHT - BOTTOM - share(y) * (HEIGHT - TOP - BOTTOM);
        let legend = legend(self.series.iter().map(|(name, _)| name.as_str()), LEFT);
        let mut svg = open(&self.title, HEIGHT + legend.1);
        for x in ticks(x_max) {
            let at = place_x(x);
            _ = write!(
                svg,
                r#"<path class="grid" d="M{at:.1} {TOP}V{:.1}"/><text x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 16.0,
                number(x),
            );
        }
        let y_ticks = if self.log { decades(y_min) } else { ticks(y_max) };
        for y in y_ticks {
            let at = place_y(y);
            _ = write!(
                svg,
                r#"<path class="grid" d="M{LEFT} {at:.1}H{:.1}"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                number(y),
            );
        }
        _ = write!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text><text x="4" y="{:.1}">{}</text>"#,
            WIDTH - RIGHT,
            HEIGHT - 8.0,
            escape(self.x),
            TOP - 10.0,
            escape(self.y),
        );
        for (at, (name, points)) in self.series.iter().enumerate() {
            let mut path = String::new();
            let mut pen_down = false;
            for (x, y) in thin(points) {
                if !(x + y).is_finite() {
                    pen_down = false;
                    continue;
                }
                _ = write!(path, "{}{:.1} {:.1}", if pen_down { "L" } else { "M" }, place_x(x), place_y(y));
                pen_down = true;
            }
            _ = write!(
                svg,
                r#"<path class="line s{}" d="{path}"><title>{}</title></path>"#,
                at % COLOURS,
                escape(name)
            );
        }
        svg + &legend.0 + "</svg>"
    }
}

impl Bars {
    /// The chart as SVG.
    pub fn svg(&self) -> String {
        const ROW: f64 = 24.0;
        const NAMES: f64 = 250.0;
        let bottom = TOP + ROW * self.bars.len() as f64;
        let sum = |parts: &[f64]| parts.iter().sum::<f64>();
        let x_max = nice(self.bars.iter().map(|(_, parts)| sum(parts)).fold(0.0, f64::max));
        let place = |x: f64| NAMES + x / x_max * (WIDTH - NAMES - RIGHT);
        let legend = legend(self.parts.iter().copied(), NAMES);
        let mut svg = open(&self.title, bottom + BOTTOM + legend.1);
        for x in ticks(x_max) {
            let at = place(x);
            _ = write!(
                svg,
                r#"<path class="grid" d="M{at:.1} {TOP}V{bottom:.1}"/><text x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                bottom + 16.0,
                number(x),
            );
        }
        _ = write!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
            WIDTH - RIGHT,
            bottom + 34.0,
            escape(self.x)
        );
        for (row, (name, parts)) in self.bars.iter().enumerate() {
            let y = TOP + ROW * row as f64;
            _ = write!(
                svg,
                r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                NAMES - 8.0,
                y + 16.0,
                escape(name)
            );
            let mut before = 0.0;
            for (at, part) in parts.iter().enumerate() {
                _ = write!(
                    svg,
                    r#"<rect class="fill s{}" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}"><title>{}: {}</title></rect>"#,
                    at % COLOURS,
                    place(before),
                    y + 3.0,
                    (place(before + part) - place(before)).max(0.0),
                    ROW - 6.0,
                    escape(self.parts.get(at).copied().unwrap_or_default()),
                    number(*part),
                );
                before += part;
            }
        }
        // The legend of lines stands under a fixed height; here it follows the bars.
        let shift = bottom + BOTTOM - HEIGHT;
        svg + &format!(r#"<g transform="translate(0 {shift:.1})">{}</g></svg>"#, legend.0)
    }
}

fn open(title: &str, height: f64) -> String {
    format!(
        r#"<svg viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-label="{0}"><text class="title" x="4" y="14">{0}</text>"#,
        escape(title)
    )
}

/// Coloured squares with names, and the height that they take.
fn legend<'a>(names: impl Iterator<Item = &'a str>, left: f64) -> (String, f64) {
    let (mut x, mut y) = (left, HEIGHT + 6.0);
    let mut out = String::new();
    for (at, name) in names.enumerate() {
        // Monospaced digits and letters of 12 px are some 6.6 px wide.
        let width = 28.0 + name.chars().count() as f64 * 7.3;
        if x + width > WIDTH && x > left {
            (x, y) = (left, y + 18.0);
        }
        _ = write!(
            out,
            r#"<rect class="fill s{}" x="{x:.1}" y="{:.1}" width="10" height="10"/><text x="{:.1}" y="{:.1}">{}</text>"#,
            at % COLOURS,
            y - 9.0,
            x + 15.0,
            y,
            escape(name),
        );
        x += width;
    }
    (out, y - HEIGHT + 10.0)
}

/// At most [`POINTS_MAX`] of the points; of each group the one with the largest value, so that no peak is lost.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(POINTS_MAX).max(1);
    points
        .chunks(group)
        .filter_map(|chunk| chunk.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)))
        .collect()
}

/// The next larger of some round numbers times a power of ten; a fifth of each is round, too.
fn nice(value: f64) -> f64 {
    if !(value.is_finite() && value > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|top| *top >= value)
        .unwrap_or(10.0 * power)
}

fn ticks(max: f64) -> Vec<f64> {
    (0..=5).map(|step| max * f64::from(step) / 5.0).collect()
}

fn decades(min: f64) -> Vec<f64> {
    let last = (-min.log10()).round() as i32;
    (0..=last).map(|power| 10f64.powi(-power)).collect()
}

fn number(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    if rounded.abs() >= 1_000.0 { format!("{rounded:.0}") } else { format!("{rounded}") }
}

/// Text for HTML and SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!(
            [nice(0.0), nice(3.2), nice(5.0), nice(70.0), nice(1234.0)],
            [1.0, 4.0, 5.0, 80.0, 1500.0]
        );
        assert_eq!(decades(1e-3), [1.0, 0.1, 0.01, 0.001].map(|v: f64| v));
    }

    #[test]
    fn thinning_keeps_peaks() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|n| (f64::from(n), 1.0)).collect();
        points[54_321].1 = 99.0;
        let thinned = thin(&points);
        assert!(thinned.len() <= POINTS_MAX && thinned.iter().any(|(_, y)| *y == 99.0));
    }

    #[test]
    fn a_line_breaks_where_a_frame_never_came() {
        let chart = Lines {
            title: "a < b".to_owned(),
            x: "s",
            y: "ms",
            log: false,
            series: vec![("one".to_owned(), vec![(0.0, 1.0), (1.0, f64::INFINITY), (2.0, 3.0)])],
        };
        let svg = chart.svg();
        assert!(svg.contains("a &lt; b") && !svg.contains("a < b"));
        let path = svg.split("class=\"line s0\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
    }
}
