//! Bars, one for each line `name value` of stdin.

use plotters::prelude::*;

pub fn bars(title: &str, unit: &str, path: &str) {
    let text = std::io::read_to_string(std::io::stdin()).expect("stdin");
    let values: Vec<(String, f64)> = text
        .lines()
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_string(), value.parse().ok()?))
        })
        .collect();
    if values.is_empty() {
        return;
    }
    let highest = values.iter().map(|(_, value)| *value).fold(0.0, f64::max) * 1.1;
    let height = 80 + 28 * values.len() as u32;
    let area = SVGBackend::new(path, (820, height)).into_drawing_area();
    area.fill(&WHITE).expect("svg");
    let count = values.len() as i32;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{title} ({unit})"), ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(250)
        .build_cartesian_2d(0.0..highest, (0..count - 1).into_segmented())
        .expect("svg");
    let label = |segment: &SegmentValue<i32>| match segment {
        SegmentValue::CenterOf(at) => values
            .get((count - 1 - at) as usize)
            .map_or(String::new(), |(name, value)| format!("{name}: {value}")),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_label_formatter(&label)
        .y_labels(values.len() + 1)
        .draw()
        .expect("svg");
    chart
        .draw_series(values.iter().enumerate().map(|(at, (name, value))| {
            let row = count - 1 - at as i32;
            let colour = if name.contains("NetRunner") {
                RGBColor(38, 110, 180)
            } else {
                RGBColor(170, 170, 170)
            };
            let mut bar = Rectangle::new(
                [
                    (0.0, SegmentValue::Exact(row)),
                    (*value, SegmentValue::Exact(row + 1)),
                ],
                colour.filled(),
            );
            bar.set_margin(4, 4, 0, 0);
            bar
        }))
        .expect("svg");
    area.present().expect("svg");
}
