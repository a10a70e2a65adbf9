//! Draws the layers of the runtime, highest on top, and how often each names something of another.
//!
//! ```text
//! cargo bench --bench layers -- docs/layers.svg
//! ```
//!
//! Without a path, it prints the same in words.

use std::error::Error;
use std::path::Path;

use lastout_tests::architecture::{Architecture, Layer, runtime_sources};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

const WIDTH: u32 = 940;
/// The height of the column heads, of a layer, and of the caption.
const HEAD: i32 = 56;
const ROW: i32 = 62;
const CAPTION: i32 = 32;
/// Where the boxes end, and the columns of numbers begin.
const BOX_END: i32 = 520;
const COLUMN: i32 = 54;

const BLUE: RGBColor = RGBColor(0, 90, 181);
const PALE: RGBColor = RGBColor(235, 242, 250);
const GREY: RGBColor = RGBColor(87, 96, 106);
const RED: RGBColor = RGBColor(190, 30, 80);

fn main() -> Result<()> {
    // Cargo passes `--bench`.
    let path = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    let architecture = Architecture::read(&runtime_sources())?;
    match path {
        // A relative path is one in the workspace.
        Some(path) => {
            draw(&architecture, &Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path))
        }
        None => {
            print(&architecture);
            Ok(())
        }
    }
}

/// How often each layer names something of each, in the order of the layers.
fn counts(architecture: &Architecture) -> Vec<Vec<usize>> {
    let layers = architecture.layers.len();
    let mut counts = vec![vec![0; layers]; layers];
    architecture.imports.iter().for_each(|import| counts[import.from][import.to] += 1);
    counts
}

fn print(architecture: &Architecture) {
    let counts = counts(architecture);
    for (Layer { name, files, .. }, counts) in architecture.layers.iter().zip(counts).rev() {
        let others = architecture.layers.iter().zip(counts);
        let others = others.filter(|(other, count)| *count > 0 && other.name != *name);
        let others = others.map(|(other, count)| format!("{} {count}", other.name));
        let others = others.collect::<Vec<_>>().join(", ");
        println!("{name:>9}  {:2} files; names: {others}", files.len());
    }
}

fn draw(architecture: &Architecture, path: &Path) -> Result<()> {
    let layers = &architecture.layers;
    let height = HEAD + ROW * layers.len() as i32 + CAPTION;
    let root = SVGBackend::new(path, (WIDTH, height as u32)).into_drawing_area();
    // Whatever the page's background is.
    root.fill(&WHITE)?;
    let counts = counts(architecture);
    let column = |layer: usize| BOX_END + 60 + COLUMN * layer as i32;
    let row = |layer: usize| HEAD + ROW * (layers.len() - 1 - layer) as i32;
    let centred = Pos::new(HPos::Center, VPos::Center);
    text(&root, "Layers, and their files", (16, 30), font(15))?;
    text(&root, "How often a layer names something of another", (BOX_END + 30, 12), font(15))?;
    for (index, layer) in layers.iter().enumerate() {
        // No layer is above the last, so no layer may name anything of that.
        if index + 1 < layers.len() {
            let at = (column(index), 40);
            text(&root, &layer.name, at, font(12).color(&GREY).pos(centred))?;
        }
        let top = row(index);
        let frame = [(12, top), (BOX_END, top + ROW - 10)];
        root.draw(&Rectangle::new(frame, PALE.filled()))?;
        root.draw(&Rectangle::new(frame, BLUE))?;
        text(&root, &layer.name, (24, top + 8), font(16).color(&BLUE))?;
        for (line, files) in lines(layer).into_iter().enumerate() {
            text(&root, &files, (120, top + 9 + 17 * line as i32), font(12).color(&GREY))?;
        }
        for (other, &count) in counts[index].iter().enumerate() {
            if count == 0 || other == index {
                continue;
            }
            let colour = if other > index { RED } else { BLUE };
            let at = (column(other), top + ROW / 2 - 5);
            let radius = 8 + (count as f64).sqrt() as i32;
            root.draw(&Circle::new(at, radius, colour.mix(0.25).filled()))?;
            text(&root, &count.to_string(), at, font(12).color(&colour).pos(centred))?;
        }
    }
    let caption = "cargo bench --bench layers -- docs/layers.svg";
    text(&root, caption, (16, height - CAPTION + 8), font(13).color(&GREY))?;
    root.present()?;
    Ok(())
}

/// The files of a layer, by their names without the ending, in lines that fit into its box.
fn lines(layer: &Layer) -> Vec<String> {
    const MOST: usize = 66;

    let mut lines = vec![String::new()];
    for file in &layer.files {
        let name = file.strip_prefix(&layer.name).unwrap_or(file).with_extension("");
        let name = name.display().to_string();
        let name = name.strip_suffix("/mod").unwrap_or(&name).to_owned();
        if name == "mod" {
            continue;
        }
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(&name),
            Some(line) if line.len() + name.len() + 2 <= MOST => {
                line.push_str(", ");
                line.push_str(&name);
            }
            _ => lines.push(name),
        }
    }
    lines
}

fn font(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into()
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), style: TextStyle<'_>) -> Result<()> {
    Ok(area.draw(&Text::new(text.to_owned(), at, style)).map_err(|error| error.to_string())?)
}
