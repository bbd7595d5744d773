//! What a run says to people.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::accuracy::{Accuracy, CLOUDFLARE_WRONG, Demand};

/// What each algorithm got wrong.
pub fn accuracy(measured: &[Accuracy]) -> String {
    let Some(first) = measured.first() else { return String::new() };
    let mut judged = table(&["algorithm", "admitted", "wrongly allowed", "wrongly rejected", "most / limit"]);
    let mut pressed = table(&["of what an exact log admits, refused under"]);
    pressed
        .set_header(std::iter::once("algorithm".to_owned()).chain(Demand::ALL.iter().map(Demand::to_string)));
    right(&mut pressed);
    for accuracy in measured {
        judged.add_row([
            accuracy.algorithm.clone(),
            percent(accuracy.share(accuracy.admitted), 1),
            percent(accuracy.share(accuracy.wrongly_allowed), 4),
            percent(accuracy.share(accuracy.wrongly_rejected), 4),
            format!("{:.3}", accuracy.max_admitted_ratio),
        ]);
        let under = accuracy.under_admission.iter().map(|(_, under)| percent(*under, 3));
        pressed.add_row(std::iter::once(accuracy.algorithm.clone()).chain(under));
    }
    format!(
        "A trace of {} requests, judged by an exact log of what was admitted:\n\n{judged}\n\n\
         Cloudflare's figure for its sliding counter, on traffic of its own: {} wrong in all.\n\n\
         One source that asks for ten times its limit and more, and what it was refused of that which an exact log \
         admits:\n\n{pressed}\n",
        first.requests,
        percent(CLOUDFLARE_WRONG, 3),
    )
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    right(&mut table);
    table
}

/// Numbers stand to the right.
fn right(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn percent(share: f64, digits: usize) -> String {
    format!("{:.digits$} %", share * 100.0)
}
