//! Pictures of the sizes of versions, as SVG. Tables beside them have the same numbers, so that a
//! screen reader leaves them out.

use std::collections::BTreeSet;

use maud::{Markup, html};
use persist_host::snapshot::{Info, Name, Version};

use super::page::{self, Change};
use super::visit::Place;
use crate::text;

/// Returns a small chart of sizes, oldest first; none where there is no state.
pub(super) fn sparkline(sizes: &[Option<u64>]) -> Markup {
    const WIDTH: f64 = 96.0;
    const HEIGHT: f64 = 24.0;
    let points = points(sizes, WIDTH, HEIGHT, 3.0);
    let line = path(&points);
    let newest = points.last().copied();
    html! {
        svg .spark viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) width=(WIDTH) height=(HEIGHT)
            aria-hidden="true"
        {
            path .line d=(line) {}
            @if let Some((x, y)) = newest { circle .dot cx=(x) cy=(y) r="2" {} }
        }
    }
}

/// Returns a small chart of numbers, oldest first, as bars.
pub(super) fn bars(numbers: &[u64]) -> Markup {
    const WIDTH: usize = 6;
    const HEIGHT: f64 = 24.0;
    let width = WIDTH * numbers.len();
    let largest = numbers.iter().max().copied().unwrap_or(0).max(1);
    let height = |number: u64| {
        let height = number as f64 / largest as f64 * (HEIGHT - 3.0);
        // One save is seen beside a thousand.
        let height = if number == 0 { 0.0 } else { height.max(2.0) };
        (height * 10.0).round() / 10.0
    };
    html! {
        svg .spark viewBox=(format!("0 0 {width} {HEIGHT}")) width=(width) height=(HEIGHT)
            aria-hidden="true"
        {
            line .axis x1="0" y1=(HEIGHT - 0.5) x2=(width) y2=(HEIGHT - 0.5) {}
            @for (at, number) in numbers.iter().enumerate() {
                @if *number > 0 {
                    rect .bar x=(WIDTH * at + 1) y=(HEIGHT - 1.0 - height(*number))
                        width=(WIDTH - 2) height=(height(*number)) {}
                }
            }
        }
    }
}

/// A version in the chart of a name.
pub(super) struct Point<'a> {
    pub(super) version: Version,
    /// None: the version cannot be read.
    pub(super) info: Option<&'a Info>,
}

/// Returns the chart of versions, oldest first. Each version links to its page.
pub(super) fn timeline(
    place: &Place,
    name: &Name,
    versions: &[Point<'_>],
    pins: &BTreeSet<Version>,
) -> Markup {
    const WIDTH: f64 = 600.0;
    const HEIGHT: f64 = 140.0;
    let sizes: Vec<_> = versions
        .iter()
        .map(|point| point.info.filter(|info| !info.deleted))
        .map(|info| info.map(|info| info.size))
        .collect();
    let places = points(&sizes, WIDTH, HEIGHT, 12.0);
    let largest = sizes.iter().flatten().max().copied().unwrap_or(0);
    let infos = || versions.iter().filter_map(|point| point.info);
    let oldest = infos().next();
    let newest = infos().next_back();
    html! {
        figure .chart {
            p .scale { (text::bytes(largest)) }
            svg .timeline viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) aria-hidden="true" {
                line .axis x1="0" y1=(HEIGHT - 12.0) x2=(WIDTH) y2=(HEIGHT - 12.0) {}
                path .line d=(path(&places)) {}
                @for (point, (x, y)) in versions.iter().zip(&places) {
                    a href=(place.version_url("/version", name, point.version)) tabindex="-1" {
                        title { (tooltip(point)) }
                        (mark(point, *x, *y))
                        @if pins.contains(&point.version) {
                            circle .pinned cx=(x) cy=(y) r="9" {}
                        }
                    }
                }
            }
            @if let (Some(oldest), Some(newest)) = (oldest, newest) {
                p .scale.ends {
                    span { (page::time(oldest.created_at)) }
                    span { (page::time(newest.created_at)) }
                }
            }
            figcaption .legend {
                span { (sample("saved")) "saved" }
                span { (sample("deleted")) "deleted" }
                span { (sample("restored")) "restored" }
                span { (sample("forked")) "forked" }
                span { (sample("pinned")) "pinned" }
            }
        }
    }
}

fn tooltip(point: &Point<'_>) -> String {
    let version = point.version;
    match point.info {
        Some(info) if info.deleted => format!("version {version}: deleted"),
        Some(info) => format!("version {version}: {}", text::bytes(info.size)),
        None => format!("version {version}: cannot be read"),
    }
}

/// Marks a version by a form for each kind of change: colours alone do not tell them apart.
fn mark(point: &Point<'_>, x: f64, y: f64) -> Markup {
    let class = point
        .info
        .map_or("deleted", |info| Change::of(info).class());
    shape(class, x, y)
}

fn shape(class: &str, x: f64, y: f64) -> Markup {
    let at = |dx: f64, dy: f64| format!("{:.1} {:.1}", x + dx, y + dy);
    let lines = |corners: &[(f64, f64)]| {
        let corners: Vec<_> = corners.iter().map(|(dx, dy)| at(*dx, *dy)).collect();
        format!("M{}", corners.join("L"))
    };
    match class {
        "deleted" => {
            let one = lines(&[(-4.0, -4.0), (4.0, 4.0)]);
            let other = lines(&[(-4.0, 4.0), (4.0, -4.0)]);
            html! { path .mark.deleted d=(format!("{one}{other}")) {} }
        }
        "restored" => html! {
            path .mark.restored d=(lines(&[(0.0, -5.0), (5.0, 4.0), (-5.0, 4.0)]) + "Z") {}
        },
        "forked" => html! {
            path .mark.forked
                d=(lines(&[(0.0, -6.0), (6.0, 0.0), (0.0, 6.0), (-6.0, 0.0)]) + "Z") {}
        },
        "pinned" => html! { circle .pinned cx=(x) cy=(y) r="6" {} },
        _ => html! { circle .mark.saved cx=(x) cy=(y) r="3.5" {} },
    }
}

/// Returns a mark for the legend.
fn sample(class: &str) -> Markup {
    html! {
        svg .sample viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" {
            (shape(class, 8.0, 8.0))
        }
    }
}

/// Returns where each version lies: evenly from left to right, and higher the larger it is.
fn points(sizes: &[Option<u64>], width: f64, height: f64, edge: f64) -> Vec<(f64, f64)> {
    let largest = sizes.iter().flatten().max().copied().unwrap_or(0).max(1);
    let step = (width - 2.0 * edge) / (sizes.len().max(2) - 1) as f64;
    let of = |(at, size): (usize, &Option<u64>)| {
        let share = size.unwrap_or(0) as f64 / largest as f64;
        let x = edge + step * at as f64;
        let y = height - edge - share * (height - 2.0 * edge);
        ((x * 10.0).round() / 10.0, (y * 10.0).round() / 10.0)
    };
    sizes.iter().enumerate().map(of).collect()
}

/// Draws a line in steps: a size holds until the next version.
fn path(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (at, (x, y)) in points.iter().enumerate() {
        if at == 0 {
            path += &format!("M{x} {y}");
        } else {
            path += &format!("H{x}V{y}");
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_state_is_higher_and_none_is_at_the_bottom() {
        let points = points(&[Some(0), Some(50), Some(100), None], 100.0, 40.0, 0.0);
        let heights: Vec<_> = points.iter().map(|(_, y)| *y).collect();
        assert_eq!(heights, [40.0, 20.0, 0.0, 40.0]);
        assert_eq!((points[0].0, points[3].0), (0.0, 100.0));
        assert_eq!(path(&points[..2]), "M0 40H33.3V20");
    }

    #[test]
    fn bars_are_as_high_as_their_numbers() {
        let shown = bars(&[0, 1, 1000, 500]).into_string();
        let heights: Vec<_> = shown
            .split("<rect")
            .skip(1)
            .filter_map(|rect| rect.split(" height=\"").nth(1)?.split('"').next())
            .collect();
        assert_eq!(heights, ["2", "21", "10.5"], "{shown}");
        assert!(
            bars(&[u64::MAX, 0])
                .into_string()
                .contains(" height=\"21\"")
        );
        assert!(bars(&[]).into_string().contains("0 0 0 24"));
    }

    #[test]
    fn a_chart_of_nothing_or_of_extremes_is_drawn() {
        assert_eq!(points(&[], 100.0, 40.0, 0.0), []);
        for sizes in [&[None][..], &[Some(0)], &[Some(u64::MAX), Some(1)]] {
            for (x, y) in points(sizes, 100.0, 40.0, 4.0) {
                assert!((0.0..=100.0).contains(&x), "{x}");
                assert!((0.0..=40.0).contains(&y), "{y}");
            }
        }
    }
}
