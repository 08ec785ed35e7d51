//! Plots of what is on stdin.

use plotters::prelude::*;

/// The colour of what is NetRunner's.
const OURS: RGBColor = RGBColor(38, 110, 180);

/// Bars, one for each line `name value`.
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
                OURS
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

/// Points, each a line `name TAB x TAB y`; those of one name in a panel of their own, all over the same `x`.
pub fn series(title: &str, unit: &str, path: &str) {
    let text = std::io::read_to_string(std::io::stdin()).expect("stdin");
    let mut panels: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for line in text.lines() {
        let mut fields = line.split('\t');
        let (Some(name), Some(x), Some(y)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let point = (x.parse().expect("a number"), y.parse().expect("a number"));
        match panels.iter_mut().find(|(known, _)| known == name) {
            Some((_, points)) => points.push(point),
            None => panels.push((name.to_string(), vec![point])),
        }
    }
    if panels.is_empty() {
        return;
    }
    let all = || panels.iter().flat_map(|(_, points)| points);
    let longest = all().map(|(x, _)| *x).fold(0.0, f64::max);

    const COLUMNS: usize = 2;
    let rows = panels.len().div_ceil(COLUMNS);
    let area = SVGBackend::new(path, (1000, 40 + 150 * rows as u32)).into_drawing_area();
    area.fill(&WHITE).expect("svg");
    let area = area
        .titled(&format!("{title} ({unit})"), ("sans-serif", 18))
        .expect("svg");
    for ((name, points), cell) in panels.iter().zip(area.split_evenly((rows, COLUMNS))) {
        // From 0, so that noise looks as small as it is.
        let highest = points.iter().map(|(_, y)| *y).fold(0.0, f64::max) * 1.15;
        let mut chart = ChartBuilder::on(&cell)
            .caption(name, ("sans-serif", 13))
            .margin(6)
            .x_label_area_size(18)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..longest, 0.0..highest.max(1.0))
            .expect("svg");
        chart
            .configure_mesh()
            .disable_x_mesh()
            .y_labels(4)
            .draw()
            .expect("svg");
        chart
            .draw_series(
                points
                    .iter()
                    .map(|(x, y)| Circle::new((*x, *y), 1, OURS.filled())),
            )
            .expect("svg");
    }
    area.present().expect("svg");
}
