//! The figures by the number of call sites, drawn.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::Result;
use crate::calls::CASES;
use crate::crossover::Crossover;
use crate::figures::Table;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A line of a panel: what it is called, its colour, and its points.
type Line = (String, RGBColor, Vec<(f64, f64)>);

const SIZE: (u32, u32) = (960, 440);

// The colours of the two ways: far enough apart for readers who cannot tell red from green.
const BLUE: RGBColor = RGBColor(0, 90, 181);
const ORANGE: RGBColor = RGBColor(213, 94, 0);
// The colours of what is called.
const GREEN: RGBColor = RGBColor(0, 120, 90);
const PURPLE: RGBColor = RGBColor(130, 80, 160);
const GOLD: RGBColor = RGBColor(160, 110, 0);
const RED: RGBColor = RGBColor(190, 30, 80);
const GREY: RGBColor = RGBColor(87, 96, 106);
const GRID: RGBColor = RGBColor(222, 226, 230);

/// Draws what a replacement takes, and from how many calls on patched ones are worth it, both by
/// the number of call sites.
pub(crate) fn draw(
    path: &Path,
    machine: &str,
    replace: &Table,
    crossover: &Crossover,
) -> Result<()> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    // Whatever the page's background is.
    root.fill(&WHITE)?;
    let (panels, caption) = root.margin(8, 0, 0, 0).split_vertically(SIZE.1 - 40);
    let machine = Text::new(
        format!("{machine}; medians; cargo bench --bench updates -- --chart docs/updates.svg"),
        (16, 4),
        font(13).color(&GREY),
    );
    caption.draw(&machine)?;
    let (left, right) = panels.split_horizontally(SIZE.0 / 2);

    let ways = [("calls load a slot", BLUE), ("call sites are patched", ORANGE)];
    let times = ways.iter().enumerate().map(|(way, (name, colour))| {
        let points = replace.iter().map(|(sites, both)| (*sites as f64, both[way].median));
        ((*name).to_owned(), *colour, points.collect())
    });
    panel(&left, "Microseconds to replace a function", times.collect())?;

    let cases = CASES.iter().zip([GREEN, GOLD, PURPLE, GREY, RED]).enumerate();
    let calls = cases.map(|(case, ((_, name), colour))| {
        let points = crossover.iter().filter_map(|(sites, calls)| {
            // Less than one is no place on the axis.
            Some((*sites as f64, calls[case].filter(|calls| *calls >= 1.0)?))
        });
        let points: Vec<_> = points.collect();
        let never = if points.is_empty() { ": never measurably" } else { "" };
        (format!("{name}{never}"), colour, points)
    });
    panel(&right, "Calls per replacement that make patching pay", calls.collect())?;
    root.present()?;
    Ok(())
}

fn panel(area: &Area<'_>, title: &str, lines: Vec<Line>) -> Result<()> {
    let values = || lines.iter().flat_map(|(_, _, points)| points).map(|(_, value)| *value);
    let power = |value: f64| 10_f64.powf(value);
    let lowest = power(values().fold(f64::INFINITY, f64::min).log10().floor());
    let highest = power(values().fold(0.0, f64::max).log10().ceil());
    // If there is nothing to show.
    let (lowest, highest) = if lowest < highest { (lowest, highest) } else { (1.0, 1e6) };
    // Above the lines there is room for their names.
    let values = (lowest..highest * power((2 * lines.len() / 3) as f64)).log_scale();
    let area = area.titled(title, font(16))?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .margin_right(28)
        .x_label_area_size(48)
        .y_label_area_size(56)
        .build_cartesian_2d((1.0..1e5).log_scale(), values)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GREY)
        .x_desc("call sites of the function")
        .x_labels(6)
        .y_labels(8)
        .x_label_formatter(&|number| short(*number))
        .y_label_formatter(&|number| short(*number))
        .label_style(font(14))
        .axis_desc_style(font(14))
        .draw()?;
    for (name, colour, points) in lines {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(3)));
        chart.draw_series(points.iter().map(|at| Circle::new(*at, 4, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .label_font(font(15))
        .draw()?;
    Ok(())
}

/// Text of so many pixels.
fn font(size: u32) -> TextStyle<'static> {
    // What `plotters` takes for a size is this much more.
    ("sans-serif", f64::from(size) * 1.24).into_font().color(&BLACK)
}

/// A power of ten as one says it.
fn short(number: f64) -> String {
    let (number, unit) = match number {
        number if number >= 1e9 => (number / 1e9, "G"),
        number if number >= 1e6 => (number / 1e6, "M"),
        number if number >= 1e3 => (number / 1e3, "k"),
        _ => (number, ""),
    };
    format!("{number}{unit}")
}
