//! Drawings for the documents, as SVG, on white so that they can be read on a dark page.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{boundary, figures};
use crate::limits::ALGORITHMS;
use crate::record::Record;
use crate::sim::sweep::{Axis, Kind, Point};

/// The least share that a drawing on a logarithmic scale shows.
const LEAST: f64 = 1e-4;
const SIZE: (u32, u32) = (760, 340);
const RED: RGBColor = RGBColor(0xc0, 0x39, 0x2b);
const BLUE: RGBColor = RGBColor(0x2c, 0x6f, 0xbb);
const GREEN: RGBColor = RGBColor(0x2a, 0x8c, 0x5a);
const GREY: RGBColor = RGBColor(0x77, 0x77, 0x77);

/// Bars of one colour: what they mean, and one for each name below the chart.
struct Bars {
    label: &'static str,
    colour: RGBColor,
    values: Vec<f64>,
}

/// How much of the trace each algorithm judges wrongly.
pub(super) fn wrongly(accuracy: &Record) -> Result<String> {
    let percent =
        |figure| figures(accuracy, figure, str::to_owned).into_iter().map(|share| share * 100.0).collect();
    let bars = [
        Bars { label: "wrongly allowed", colour: RED, values: percent("wrongly_allowed") },
        Bars { label: "wrongly rejected", colour: BLUE, values: percent("wrongly_rejected") },
    ];
    draw(|area| {
        let caption = "Judged wrongly, % of the trace's requests";
        bar_chart(area, caption, &ALGORITHMS, &bars, &|value| format!("{value:.2}"))
    })
}

/// What a subject takes in Redis.
pub(super) fn memory(store: &Record) -> Result<String> {
    let kib = |figure| {
        let bytes = figures(store, figure, |name| format!("{name}/redis"));
        bytes.into_iter().map(|bytes| bytes / 1024.0).collect()
    };
    let bars = [
        Bars { label: "one request", colour: GREEN, values: kib("bytes_per_subject") },
        Bars { label: "1000 requests, spread", colour: BLUE, values: kib("bytes_per_busy_subject") },
    ];
    let caption = "Memory of a subject in Redis, KiB";
    draw(|area| bar_chart(area, caption, &ALGORITHMS, &bars, &|value| format!("{value:.1}")))
}

/// How many requests each case in a real Envoy gives, beside the empty filter.
pub(super) fn envoy(envoy: &Record) -> Result<String> {
    let names: Vec<&str> = envoy.rows.iter().map(|row| row.case.as_str()).collect();
    let values = envoy.rows.iter().map(|row| row.figure("ratio_to_empty")).collect();
    let bars = [Bars { label: "of an empty filter's", colour: BLUE, values }];
    let caption = "Requests per second, one worker of Envoy";
    draw(|area| bar_chart(area, caption, &names, &bars, &|value| format!("{value:.2}")))
}

/// What three algorithms admit around a full minute.
pub(super) fn boundary() -> Result<String> {
    const UNTIL: f64 = 150.0;
    let lines = [("fixed_window", RED), ("sliding_counter", GREEN), ("sliding_window", BLUE)];
    let lines =
        lines.map(|(name, colour)| boundary::admitted(name, UNTIL).map(|points| (name, colour, points)));
    let lines: Vec<_> = lines.into_iter().collect::<Result<_, _>>()?;
    let limit = f64::from(boundary::LIMIT);
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .caption(
                "Admitted in the trailing minute, limit 100/1m, asked from 0:45 to 1:15",
                ("sans-serif", 16),
            )
            .margin(12)
            .x_label_area_size(34)
            .y_label_area_size(44)
            .build_cartesian_2d(30.0..UNTIL, 0.0..limit * 2.2)?;
        let clock = |second: &f64| format!("{:.0}:{:02.0}", (second / 60.0).floor(), second % 60.0);
        chart.configure_mesh().light_line_style(TRANSPARENT).x_labels(9).x_label_formatter(&clock).draw()?;
        chart
            .draw_series(DashedLineSeries::new([(30.0, limit), (UNTIL, limit)], 4, 4, GREY.stroke_width(1)))?
            .label("the limit")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], GREY));
        for (name, colour, points) in lines {
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
        }
        chart.configure_series_labels().background_style(WHITE).border_style(GREY).draw()
    })
}

/// What leases cost along one axis: commands for a decision, and the share that waits.
pub(super) fn sweep(sweep: &Record, axis: Axis) -> Result<String> {
    let values = axis.values();
    let most = values.iter().copied().max().unwrap_or(1);
    let line = |kind: Kind, figure: &str| -> Vec<(f64, f64)> {
        let row = |value: &u32| {
            sweep.row(&Point::case(axis, kind, *value)).map_or(f64::NAN, |row| row.figure(figure))
        };
        values.iter().map(|value| (f64::from(*value), row(value).max(LEAST))).collect()
    };
    let colours = [(Kind::Hot, RED), (Kind::Pressing, GREEN), (Kind::Quiet, BLUE)];
    draw(|area| {
        let caption = match axis {
            Axis::Nodes => "Cost by nodes of four workers",
            Axis::Workers => "Cost by workers of each of ten nodes",
            Axis::Subjects => "Cost by subjects that share 8,000 requests/s, on ten nodes",
        };
        let mut chart = ChartBuilder::on(area)
            .caption(caption, ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(34)
            .y_label_area_size(56)
            .build_cartesian_2d(
                (1.0..f64::from(most))
                    .log_scale()
                    .with_key_points(values.iter().map(|value| f64::from(*value)).collect()),
                (LEAST..1.0).log_scale(),
            )?;
        let percent = |share: &f64| format!("{} %", share * 100.0);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(axis.name())
            .x_label_formatter(&|value| format!("{value:.0}"))
            .y_label_formatter(&percent)
            .draw()?;
        for (kind, colour) in colours.into_iter().filter(|(kind, _)| axis.kinds().contains(kind)) {
            let (solid, name) = (colour.stroke_width(2), kind.name());
            chart
                .draw_series(LineSeries::new(line(kind, "store_commands_per_decision"), solid))?
                .label(format!("{name}: commands for a decision"))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], solid));
            chart
                .draw_series(DashedLineSeries::new(line(kind, "waited_share"), 5, 4, colour.stroke_width(1)))?
                .label(format!("{name}: requests that wait"))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 6, y)], colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(GREY)
            .draw()
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn draw(chart: impl for<'a> FnOnce(&Area<'a>) -> Drawn<'a>) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let drawn = area.fill(&WHITE).and_then(|()| chart(&area)).and_then(|()| area.present());
        drawn.map_err(|error| anyhow!("cannot draw: {error}"))?;
    }
    Ok(svg)
}

fn bar_chart<'a>(
    area: &Area<'a>,
    caption: &str,
    names: &[&str],
    bars: &[Bars],
    written: &dyn Fn(f64) -> String,
) -> Drawn<'a> {
    let highest = bars.iter().flat_map(|bars| &bars.values).fold(0.0, |most: f64, value| most.max(*value));
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(44)
        .build_cartesian_2d(-0.5..names.len() as f64 - 0.5, 0.0..highest * 1.15)?;
    // names stand under whole numbers
    let name = |at: &f64| match names.get(at.round() as usize) {
        Some(name) if at.fract() == 0.0 => (*name).to_owned(),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(names.len())
        .x_label_formatter(&name)
        .draw()?;
    const GROUP: f64 = 0.7;
    let width = GROUP / bars.len() as f64;
    for (nth, Bars { label, colour, values }) in bars.iter().enumerate() {
        let left = |at: usize| at as f64 - GROUP / 2.0 + nth as f64 * width;
        let colour = *colour;
        let drawn = values.iter().enumerate().map(|(at, value)| {
            Rectangle::new([(left(at), 0.0), (left(at) + width * 0.95, *value)], colour.filled())
        });
        chart
            .draw_series(drawn)?
            .label(*label)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        let centred = TextStyle::from(("sans-serif", 12)).pos(Pos::new(HPos::Center, VPos::Bottom));
        chart.draw_series(values.iter().enumerate().map(|(at, value)| {
            Text::new(written(*value), (left(at) + width / 2.0, *value + highest * 0.01), centred.clone())
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(GREY)
        .draw()
}
